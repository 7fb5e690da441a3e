/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/health.h"

static struct pk_health_state lane;
static struct pk_health_look look;

/* The next look, so many milliseconds later. */
static enum pk_health after(unsigned ms)
{
    look.now += ms * PK_NSEC_PER_MS;
    (void)pk_health_judge(&lane, &look);
    return lane.health;
}

static void begin(void)
{
    memset(&lane, 0, sizeof lane);
    look = (struct pk_health_look){ .now = PK_NSEC_PER_SEC, .reader = true, .knows_ticks = true };
    assert_int_equal(after(0), PK_HEALTH_HEALTHY);
}

/* Packets come and are read, for so many seconds. */
static void run(unsigned seconds, uint64_t each, uint64_t lost_each)
{
    for (unsigned i = 0; i < 5 * seconds; i++) {
        look.arrived += each / 5;
        look.sent = look.arrived;
        look.told += each / 5;
        look.lost += lost_each / 5;
        look.ticks++;
        (void)after(200);
    }
}

static void dies_and_comes_back(void **state)
{
    (void)state;
    begin();
    run(3, 1000, 0);
    look.reader = false;
    assert_int_equal(after(20), PK_HEALTH_DEAD);
    assert_string_equal(lane.why, "no tool reads it");
    look.reader = true;
    assert_int_equal(after(20), PK_HEALTH_HEALTHY);
    assert_string_equal(lane.why, "");
}

static void stopped(void **state)
{
    (void)state;
    begin();
    look.stopped = true;
    assert_int_equal(after(200), PK_HEALTH_HEALTHY); /* a debugger looks at it */
    assert_int_equal(after(200), PK_HEALTH_HEALTHY);
    assert_int_equal(after(200), PK_HEALTH_STALLED);
    look.stopped = false;
    assert_int_equal(after(200), PK_HEALTH_STALLED);
    assert_int_equal(after(600), PK_HEALTH_STALLED);
    assert_int_equal(after(400), PK_HEALTH_HEALTHY);
}

static void spends_no_time(void **state)
{
    (void)state;
    begin();
    run(2, 100000, 0);
    uint64_t told = look.told;
    for (unsigned i = 0; i < 9; i++) { /* frozen: packets come, nothing else happens */
        look.arrived += 20000;
        assert_int_equal(after(200), PK_HEALTH_HEALTHY);
    }
    look.arrived += 20000;
    look.told = told;
    assert_int_equal(after(400), PK_HEALTH_STALLED);
    /* Its slots are elsewhere: no packets come. It stays so until it runs. */
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(after(200), PK_HEALTH_STALLED);
    look.ticks++;
    look.told++;
    assert_int_equal(after(200), PK_HEALTH_STALLED);
    assert_int_equal(after(1000), PK_HEALTH_HEALTHY);
    /* Without packets nobody need spend any. */
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(after(200), PK_HEALTH_HEALTHY);
    /* Nor is it known of a process that cannot be looked at. */
    look.knows_ticks = false;
    for (unsigned i = 0; i < 100; i++) {
        look.arrived += 20000;
        look.told++;
        assert_int_equal(after(200), PK_HEALTH_HEALTHY);
    }
}

static void counts_nothing(void **state)
{
    (void)state;
    begin();
    run(2, 1000, 0);
    for (unsigned i = 0; i < 24; i++) {
        look.arrived += 200;
        look.ticks++;
        assert_int_equal(after(200), PK_HEALTH_HEALTHY);
    }
    look.arrived += 200;
    assert_int_equal(after(400), PK_HEALTH_STALLED);
    /* It gets another try: without packets it cannot show that it counts again. */
    unsigned stalled = 0;
    for (; stalled < 500 && after(200) == PK_HEALTH_STALLED; stalled++)
        look.ticks++;
    assert_in_range(stalled, 290, 320);
    /* Who is not asked says nothing, and that is no fault. */
    look.told = 0;
    for (unsigned i = 0; i < 100; i++) {
        look.arrived += 2000;
        look.ticks++;
        assert_int_equal(after(200), PK_HEALTH_HEALTHY);
    }
}

static void slow(void **state)
{
    (void)state;
    begin();
    run(5, 100000, 90); /* less than one in a thousand */
    assert_int_equal(lane.health, PK_HEALTH_HEALTHY);
    run(2, 100000, 5000);
    assert_int_equal(lane.health, PK_HEALTH_HEALTHY);
    run(4, 100000, 5000);
    assert_int_equal(lane.health, PK_HEALTH_SLOW);
    run(8, 100000, 0);
    assert_int_equal(lane.health, PK_HEALTH_SLOW);
    run(5, 100000, 0);
    assert_int_equal(lane.health, PK_HEALTH_HEALTHY);
    /* The ring before the tool: sent, and never arrived. */
    for (unsigned i = 0; i < 30; i++) {
        look.arrived += 20000;
        look.sent = look.arrived + i * 1000;
        look.told += 20000;
        look.ticks++;
        (void)after(200);
    }
    assert_int_equal(lane.health, PK_HEALTH_SLOW);
}

static void in_doubt_at_the_start(void **state)
{
    (void)state;
    memset(&lane, 0, sizeof lane);
    lane.unproven = true;
    look = (struct pk_health_look){ .now = PK_NSEC_PER_SEC, .reader = true };
    assert_int_equal(after(0), PK_HEALTH_STALLED);
    assert_int_equal(after(500), PK_HEALTH_STALLED);
    assert_int_equal(after(600), PK_HEALTH_HEALTHY);
}

/* ---- what the kernel says ---- */

static void own_socket(void **state)
{
    (void)state;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)); /* all interfaces */
    int diag = pk_sockets_open();
    if (fd < 0 || diag < 0)
        PK_SKIP("no rights, or no sock_diag");
    struct pk_packet_socket sockets[PK_SOCKETS_MAX];
    struct pk_error err;
    size_t count = 0;
    ino_t inode;
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    inode = st.st_ino;
    assert_int_equal(pk_sockets_list(diag, 4711, sockets, &count, &err), 0);
    bool found = false;
    for (size_t i = 0; i < count; i++)
        found |= sockets[i].inode == inode && !sockets[i].ring && sockets[i].room > 0;
    assert_true(found);
    /* And its process: this one. */
    int netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    struct pk_reader readers[8];
    struct pk_packet_socket only = { .inode = (uint32_t)inode };
    assert_int_equal(pk_readers_find(netns, &only, 1, readers, 8), 1);
    assert_int_equal(readers[0].pid, getpid());
    uint64_t ticks;
    assert_int_equal(pk_reader_look(getpid(), &ticks), 'R');
    close(readers[0].pidfd);
    close(fd);
    count = pk_readers_find(netns, &only, 1, readers, 8);
    assert_int_equal(count, 0);
    assert_int_equal(pk_sockets_list(diag, 4711, sockets, &count, &err), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_not_equal(sockets[i].inode, inode);
    close(netns);
    close(diag);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    assert_true(child > 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(pk_reader_look(child, &ticks), 0);
}

/* An answer that is cut, or damaged, at any place reads no byte beyond its end. */
static void damaged_answers(void **state)
{
    (void)state;
    _Alignas(struct nlmsghdr) uint8_t good[256] = { 0 };
    struct nlmsghdr *header = (struct nlmsghdr *)good;
    struct packet_diag_msg *message = NLMSG_DATA(header);
    struct rtattr *attribute = (struct rtattr *)(message + 1);
    const struct packet_diag_info info = { .pdi_index = 7, .pdi_flags = PDI_RUNNING };
    const struct packet_diag_ring ring = { .pdr_block_nr = 3 };
    message->pdiag_num = ETH_P_ALL;
    message->pdiag_ino = 99;
    *attribute =
        (struct rtattr){ .rta_len = RTA_LENGTH(sizeof info), .rta_type = PACKET_DIAG_INFO };
    memcpy(RTA_DATA(attribute), &info, sizeof info);
    attribute = (struct rtattr *)((char *)attribute + RTA_SPACE(sizeof info));
    *attribute =
        (struct rtattr){ .rta_len = RTA_LENGTH(sizeof ring), .rta_type = PACKET_DIAG_RX_RING };
    memcpy(RTA_DATA(attribute), &ring, sizeof ring);
    size_t len = (size_t)((uint8_t *)attribute - good) + RTA_SPACE(sizeof ring);
    header->nlmsg_len = (uint32_t)len;
    header->nlmsg_type = SOCK_DIAG_BY_FAMILY;

    struct pk_packet_socket sockets[PK_SOCKETS_MAX];
    struct pk_error err;
    bool done = false;
    size_t count = 0;
    assert_int_equal(pk_sockets_parse(good, len, 7, sockets, &count, &done, &err), 0);
    assert_int_equal(count, 1);
    assert_true(sockets[0].ring && sockets[0].inode == 99 && !done);
    count = 0;
    assert_int_equal(pk_sockets_parse(good, len, 8, sockets, &count, &done, &err), 0);
    assert_int_equal(count, 0); /* of another interface */
    srand(5);
    for (unsigned i = 0; i < 200000; i++) {
        size_t part = i < len ? i : len;
        uint8_t *copy = malloc(part + 1); /* of its own, so that sanitizers see its end */
        memcpy(copy, good, part);
        for (unsigned k = 0; k < 4 && part > 0 && i >= len; k++)
            copy[(size_t)rand() % part] = (uint8_t)rand();
        count = 0;
        (void)pk_sockets_parse(copy, part, 7, sockets, &count, &done, &err);
        assert_true(count <= PK_SOCKETS_MAX);
        free(copy);
    }
}

/* A log that does not come back: said, but not while packets are lost, and never in place of worse.
 */
static void silent(void **state)
{
    (void)state;
    begin();
    run(2, 1000, 0);
    look.silent = look.told_since = true;
    assert_int_equal(after(200), PK_HEALTH_SILENT);
    assert_non_null(strstr(lane.why, "its log does not come back"));
    look.told_since = false;
    assert_int_equal(after(200), PK_HEALTH_SILENT);
    assert_null(strstr(lane.why, "reads packets"));
    run(5, 1000, 100);
    assert_int_equal(lane.health, PK_HEALTH_SLOW);
    look.stopped = true;
    (void)after(200);
    assert_int_equal(after(400), PK_HEALTH_STALLED);
    look.reader = false;
    assert_int_equal(after(20), PK_HEALTH_DEAD);
    look.reader = true, look.stopped = false;
    (void)after(20);
    assert_int_equal(after(200), PK_HEALTH_SILENT);
    look.silent = false;
    assert_int_equal(after(200), PK_HEALTH_HEALTHY);
    assert_string_equal(lane.why, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silent),
        cmocka_unit_test(dies_and_comes_back),
        cmocka_unit_test(stopped),
        cmocka_unit_test(spends_no_time),
        cmocka_unit_test(counts_nothing),
        cmocka_unit_test(slow),
        cmocka_unit_test(in_doubt_at_the_start),
        cmocka_unit_test(own_socket),
        cmocka_unit_test(damaged_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
