/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces and links in the kernel; needs root, skipped without. Everything made here is named
 * after this process and removed at the end. */
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include "pk_test.h"

#include "base/fs.h"
#include "node/internal.h"

static char prefix[16], path[64], outer[16];

static int setup(void **state)
{
    (void)state;
    unsigned id = (unsigned)getpid() & 0xffff;
    (void)snprintf(prefix, sizeof(prefix), "pktest%04x-", id);
    (void)snprintf(path, sizeof(path), "/run/netns/%sone", prefix);
    (void)snprintf(outer, sizeof(outer), "pktest%04xo", id);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    struct nl_sock *nl = NULL;
    if (pk_nl_open(&nl, NULL) == 0) {
        (void)pk_link_delete(nl, outer, NULL);
        pk_nl_close(nl);
    }
    return pk_netns_remove_all(prefix, NULL, NULL, NULL);
}

static ino_t own_netns(void)
{
    struct stat st = { 0 };
    assert_int_equal(stat("/proc/thread-self/ns/net", &st), 0);
    return st.st_ino;
}

static void test_namespace_is_made_found_and_made_again(void **state)
{
    (void)state;
    ino_t before = own_netns();
    struct pk_error err = { 0 };
    int fd = -1, again = -1;
    bool made = false;
    assert_int_equal(pk_netns_ensure(path, &fd, &made, &err), 0);
    assert_true(made);
    assert_true(pk_netns_is_at(path, fd));
    assert_int_equal(pk_netns_ensure(path, &again, &made, &err), 0);
    assert_false(made);
    assert_true(pk_netns_is_at(path, again));
    pk_close_p(&again);

    assert_int_equal(pk_netns_remove(path, &err), 0);
    assert_false(pk_netns_is_at(path, fd));
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(pk_netns_remove(path, &err), 0); /* absent is success */

    /* a file that is no namespace is what a reboot leaves */
    FILE *stale = fopen(path, "we");
    assert_non_null(stale);
    (void)fclose(stale);
    assert_int_equal(pk_netns_ensure(path, &again, &made, &err), 0);
    assert_true(made);
    assert_false(pk_netns_is_at(path, fd));
    pk_close_p(&fd);
    pk_close_p(&again);
    assert_int_equal(own_netns(), before);
    assert_int_equal(pk_netns_remove(path, &err), 0);
}

static int fail_inside(void *arg, struct pk_error *err)
{
    *(ino_t *)arg = own_netns();
    return pk_fail(err, PK_E_CONFLICT, "from inside");
}

static void test_run_in_a_namespace(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    ino_t before = own_netns(), inside = 0;
    int fd = -1;
    bool made;
    assert_int_equal(pk_netns_ensure(path, &fd, &made, &err), 0);
    assert_int_equal(pk_netns_run(fd, fail_inside, &inside, &err), PK_E_CONFLICT);
    assert_string_equal(err.msg, "from inside");
    assert_true(inside != 0 && inside != before);
    assert_int_equal(own_netns(), before);
    /* a descriptor that is no namespace */
    int null = -1;
    FILE *file = fopen("/dev/null", "re");
    assert_non_null(file);
    null = fileno(file);
    inside = 0;
    assert_true(pk_netns_run(null, fail_inside, &inside, &err) < 0);
    assert_int_equal(inside, 0);
    (void)fclose(file);
    pk_close_p(&fd);
    assert_int_equal(pk_netns_remove(path, &err), 0);
}

static int open_reader(void *arg, struct pk_error *err)
{
    const unsigned *ifindex = arg;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    struct sockaddr_ll to = { .sll_family = AF_PACKET,
                              .sll_protocol = __builtin_bswap16(ETH_P_ALL),
                              .sll_ifindex = (int)*ifindex };
    if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        return pk_fail(err, PK_E_IO, "no socket");
    return fd;
}

static void test_pair_settings_and_reader(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    PK_CLEANUP(pk_nl_close_p) struct nl_sock *nl = NULL;
    struct pk_netns netns = PK_NETNS_INIT;
    int fd = -1;
    bool made, reader = true;
    assert_int_equal(pk_nl_open(&nl, &err), 0);
    assert_int_equal(pk_netns_ensure(path, &fd, &made, &err), 0);
    assert_int_equal(pk_netns_open_take(fd, &netns, &err), 0);

    struct pk_link out, in, lo;
    assert_int_equal(pk_link_get(nl, outer, &out, &err), PK_E_NOTFOUND);
    const struct pk_veth veth = { .name = outer,
                                  .alias = "picket test",
                                  .peer_name = "tap0",
                                  .peer_netns_fd = netns.fd,
                                  .mtu = 9008 };
    assert_int_equal(pk_link_add_veth(nl, &veth, &err), 0);
    assert_int_equal(pk_link_add_veth(nl, &veth, &err), PK_E_CONFLICT);
    assert_int_equal(pk_link_get(nl, outer, &out, &err), 0);
    assert_int_equal(pk_link_get(netns.nl, "tap0", &in, &err), 0);
    assert_true(out.is_veth && in.is_veth);
    assert_int_equal(out.peer_ifindex, in.ifindex);
    assert_int_equal(in.peer_ifindex, out.ifindex);
    assert_int_equal(out.mtu, 9008);
    assert_int_equal(in.mtu, 9008);
    assert_int_equal(in.queues, 1);
    assert_true((out.flags & IFF_NOARP) != 0 && (in.flags & IFF_NOARP) != 0);
    assert_int_equal(pk_link_get(netns.nl, "lo", &lo, &err), 0);
    assert_int_equal(pk_link_get(nl, "tap0", &lo, &err), PK_E_NOTFOUND); /* not on the machine */

    /* changes and repairs */
    assert_int_equal(pk_link_ipv6_off(outer, &err), 0);
    assert_int_equal(pk_link_set(netns.nl, &in, 1508, IFF_UP, 0, &err), 0);
    assert_int_equal(pk_link_set(nl, &out, 1508, IFF_UP, 0, &err), 0);
    assert_int_equal(pk_link_get(netns.nl, "tap0", &in, &err), 0);
    assert_int_equal(in.mtu, 1508);
    assert_true((in.flags & (IFF_UP | IFF_NOARP)) == (IFF_UP | IFF_NOARP));
    assert_int_equal(pk_link_set(netns.nl, &in, 0, 0, IFF_UP, &err), 0);
    assert_int_equal(pk_link_get(netns.nl, "tap0", &in, &err), 0);
    assert_int_equal(in.mtu, 1508);
    assert_true((in.flags & IFF_UP) == 0);
    assert_int_equal(pk_link_set(netns.nl, &in, 0, IFF_UP, 0, &err), 0);

    unsigned on = 0;
    assert_int_equal(pk_offloads_set(netns.ioctl_fd, "tap0", PK_OFFLOAD_GRO, true, &err), 0);
    assert_int_equal(pk_offloads_get(netns.ioctl_fd, "tap0", &on, &err), 0);
    assert_true((on & PK_OFFLOAD_GRO) != 0);
    assert_int_equal(pk_offloads_set(netns.ioctl_fd, "tap0", PK_OFFLOADS_VETH, false, &err), 0);
    assert_int_equal(pk_offloads_get(netns.ioctl_fd, "tap0", &on, &err), 0);
    assert_int_equal(on & PK_OFFLOADS_VETH, 0);
    assert_int_equal(pk_offloads_get(netns.ioctl_fd, "none9", &on, &err), PK_E_NOTFOUND);

    assert_int_equal(pk_netns_has_reader(&netns, in.ifindex, &reader, &err), 0);
    assert_false(reader);
    int sock = pk_netns_run(netns.fd, open_reader, &in.ifindex, &err);
    assert_true(sock >= 0);
    assert_int_equal(pk_netns_has_reader(&netns, in.ifindex, &reader, &err), 0);
    assert_true(reader);
    assert_int_equal(pk_netns_has_reader(&netns, in.ifindex + 5, &reader, &err), 0);
    assert_false(reader);
    pk_close_p(&sock);
    assert_int_equal(pk_netns_has_reader(&netns, in.ifindex, &reader, &err), 0);
    assert_false(reader);

    assert_int_equal(pk_link_delete(nl, outer, &err), 0);
    assert_int_equal(pk_link_delete(nl, outer, &err), 0);
    assert_int_equal(pk_link_get(netns.nl, "tap0", &in, &err), PK_E_NOTFOUND);
    pk_netns_done(&netns);
    assert_int_equal(pk_netns_remove(path, &err), 0);
}

/* More sockets than one read of the table gives, the reader among the last lines. */
static void test_reader_behind_many_sockets(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    struct pk_netns netns = PK_NETNS_INIT;
    int fd = -1, others[300];
    bool made, reader = false;
    unsigned here = 1, other = 0;
    assert_int_equal(pk_netns_ensure(path, &fd, &made, &err), 0);
    assert_int_equal(pk_netns_open_take(fd, &netns, &err), 0);
    struct pk_link lo;
    assert_int_equal(pk_link_get(netns.nl, "lo", &lo, &err), 0);
    assert_int_equal(pk_link_set(netns.nl, &lo, 0, IFF_UP, 0, &err), 0);
    here = other = lo.ifindex;
    int first = pk_netns_run(netns.fd, open_reader, &here, &err);
    assert_true(first >= 0);
    for (size_t i = 0; i < PK_ARRAY_SIZE(others); i++) {
        others[i] = pk_netns_run(netns.fd, open_reader, &other, &err);
        assert_true(others[i] >= 0);
    }
    /* all sockets listen on lo: another interface has none, after all of the table was read */
    assert_int_equal(pk_netns_has_reader(&netns, here + 1, &reader, &err), 0);
    assert_false(reader);
    assert_int_equal(pk_netns_has_reader(&netns, here, &reader, &err), 0);
    assert_true(reader);
    for (size_t i = 0; i < PK_ARRAY_SIZE(others); i++)
        pk_close_p(&others[i]);
    pk_close_p(&first);
    pk_netns_done(&netns);
    assert_int_equal(pk_netns_remove(path, &err), 0);
}

int main(void)
{
    if (geteuid() != 0) {
        printf("1..0 # SKIP needs root\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_namespace_is_made_found_and_made_again),
        cmocka_unit_test(test_run_in_a_namespace),
        cmocka_unit_test(test_pair_settings_and_reader),
        cmocka_unit_test(test_reader_behind_many_sockets),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
