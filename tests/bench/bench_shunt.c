/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shunts: what a million of them costs to make, read, list and end; what a packet pays for the
 * look; and what a reader is spared when half of the bytes are in a thousandth of the flows.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "broker/bpf/abi.h" /* constants of the programs */
#include "packet/tunnel.h"
#include "plane.skel.h"

#include "../unit/broker/net.h"
#include "base/alloc.h"
#include "base/fs.h"
#include "base/time.h"
#include "broker/broker.h"
#include "node/shunt.h"

#define MILLION 1000000u
#define LIFE    (3600ull * 1000000000ull)

static struct pk_error err;
static struct pk_broker *broker;
static struct pk_shunts *shunts;
static const struct pk_shunt_spec no_rule;

static void must(int r, const char *what)
{
    if (r >= 0)
        return;
    fprintf(stderr, "%s: %s (%s)\n", what, err.msg, err.hint);
    exit(1);
}

/* Seconds by the clock, and of CPU: others may use the machine too. */
struct watch {
    pk_nsec clock, cpu;
};

static pk_nsec cpu_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * PK_NSEC_PER_SEC + now.tv_nsec;
}

static struct watch start(void)
{
    return (struct watch){ .clock = pk_time_monotonic(), .cpu = cpu_now() };
}

static void stop(struct watch watch, const char *what)
{
    double clock = (double)(pk_time_monotonic() - watch.clock) / 1e9;
    double cpu = (double)(cpu_now() - watch.cpu) / 1e9;
    printf("%-16s %6.2f s  %5.2f M/s   %6.2f s of CPU  %5.2f M/s\n", what, clock, 1 / clock, cpu,
           1 / cpu);
}

static struct pk_tuple flow(unsigned i)
{
    struct pk_tuple tuple = { .src = { 10, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i },
                              .dst = { 192, 0, 2, 1 },
                              .src_port = (uint16_t)(1024 + i % 60000),
                              .dst_port = 443,
                              .family = 4,
                              .proto = 6 };
    return tuple;
}

static void add(unsigned group, const struct pk_tuple *flows, size_t count, unsigned idle_ms)
{
    struct pk_shunt_added added = { 0 };
    const struct pk_shunt_request request = {
        .group = group, .idle_ms = idle_ms, .life_nsec = LIFE, .by = "bench"
    };
    must(pk_broker_shunts_add(broker, &request, flows, count, &added, &err), "adding");
    if (added.added != count) {
        fprintf(stderr, "%zu of %zu were added\n", added.added, count);
        exit(1);
    }
}

/* ---- a million ---- */

static void a_million(unsigned group)
{
    struct pk_tuple *flows = pk_zalloc_array(MILLION, sizeof *flows);
    for (unsigned i = 0; i < MILLION; i++)
        flows[i] = flow(i);
    struct watch watch = start();
    add(group, flows, MILLION, 60000);
    stop(watch, "insert");

    struct pk_shunt_page page;
    must(pk_shunt_page_init(&page, 16384, &err), "a page");
    size_t seen = 0;
    watch = start();
    do {
        must(pk_broker_shunts_read(broker, &page, &err), "reading");
        seen += page.count;
    } while (!page.end);
    stop(watch, "dump");
    printf("                 (%zu entries)\n", seen);
    pk_shunt_page_done(&page);

    struct pk_buf text = PK_BUF_INIT(64u << 20);
    char next[16] = "";
    size_t bytes = 0;
    watch = start();
    do {
        pk_buf_clear(&text);
        must(pk_shunts_list(shunts, "f", NULL, next[0] != '\0' ? next : NULL, 16384, &text, &err),
             "listing");
        bytes += text.len;
        const char *at = strstr(text.data + text.len - PK_MIN(text.len, 30), "\"page\":\"");
        next[0] = '\0';
        if (at != NULL)
            (void)snprintf(next, sizeof next, "%.*s", (int)strcspn(at + 8, "\""), at + 8);
    } while (next[0] != '\0');
    stop(watch, "list as JSON");
    printf("                 (%zu MiB, in pages of 16,384)\n", bytes >> 20);
    pk_buf_done(&text);

    watch = start();
    must(pk_shunts_sweep(shunts, &err), "a look");
    stop(watch, "look, none over");

    json_t *body = json_pack("{s:b}", "all", 1), *answer = NULL;
    watch = start();
    must(pk_shunts_delete(shunts, "f", body, &answer, &err), "removing");
    stop(watch, "end and record");
    json_decref(body);
    json_decref(answer);
    pk_free(flows);
}

/* ---- a packet ---- */

static uint32_t cost(int program, const uint8_t *frame, size_t len)
{
    uint32_t best = UINT32_MAX;
    for (unsigned i = 0; i < 200; i++) { /* one of them is undisturbed */
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
                    .repeat = 10000);
        if (bpf_prog_test_run_opts(program, &opts) < 0) {
            perror("BPF_PROG_TEST_RUN");
            exit(1);
        }
        best = PK_MIN(best, opts.duration);
    }
    return best;
}

static void per_packet(unsigned group)
{
    static const char *const maps[] = { "pk_shunts", "pk_shunt_rules", "pk_shunt_control",
                                        "pk_shunt_flows" };
    struct plane_bpf *plane = plane_bpf__open();
    struct bpf_program *program;
    bpf_object__for_each_program(program, plane->obj) bpf_program__set_autoload(
        program, program == plane->progs.pk_probe_shunt || program == plane->progs.pk_probe_flow ||
                     program == plane->progs.pk_empty);
    for (size_t i = 0; i < PK_ARRAY_SIZE(maps); i++) {
        char path[128];
        (void)snprintf(path, sizeof path, NET_PIN_DIR "/%s", maps[i]);
        int fd = bpf_obj_get(path);
        (void)bpf_map__reuse_fd(bpf_object__find_map_by_name(plane->obj, maps[i]), fd);
        close(fd);
    }
    if (plane_bpf__load(plane) < 0) {
        perror("loading");
        exit(1);
    }
    plane->bss->probe_group = group;
    plane->bss->probe_mode = PK_HASH_FLOW;
    int shunt = bpf_program__fd(plane->progs.pk_probe_shunt);
    uint8_t frame[512], other[512];
    net_frame(frame, 512, 6, 0x0a000000u + 77, 0xc0000201u, 1024 + 77, 443);
    net_frame(other, 512, 6, 0x0b000000u + 77, 0xc0000201u, 1024 + 77, 443);
    frame[46] = other[46] = 0x50;
    frame[47] = other[47] = 0x10;
    struct pk_tuple tuple = flow(77);
    uint32_t empty = cost(bpf_program__fd(plane->progs.pk_empty), frame, 512);
    must(pk_shunts_sweep(shunts, &err), "a look"); /* sees that there are none */
    uint32_t none = cost(shunt, other, 512);
    uint32_t parse = cost(bpf_program__fd(plane->progs.pk_probe_flow), other, 512);
    add(group, &tuple, 1, 60000);
    uint32_t miss = cost(shunt, other, 512), hit = cost(shunt, frame, 512);
    printf(
        "\nns per packet above an empty program (%u): no shunts %d, whole parser %d, and then: a "
        "look that misses %d, one that hits and counts %d\n",
        empty, (int)(none - empty), (int)(parse - empty), (int)(miss - parse), (int)(hit - parse));
    plane_bpf__destroy(plane);
}

/* ---- half of the bytes in a thousandth of the flows ---- */

struct reader {
    int fd;
    atomic_bool ending;
    uint64_t packets, cpu_ns;
};

static void *read_lane(void *arg)
{
    struct reader *reader = arg;
    enum { BATCH = 64 };
    static char data[BATCH][2048];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH] = { 0 };
    struct rusage before, after;
    for (size_t i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){ data[i], sizeof data[i] };
        messages[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
    }
    getrusage(RUSAGE_THREAD, &before);
    while (!atomic_load(&reader->ending)) {
        int n = recvmmsg(reader->fd, messages, BATCH, MSG_WAITFORONE, NULL);
        if (n > 0)
            reader->packets += (uint64_t)n;
        /* A tool looks at each byte; this sums them up. */
        for (int i = 0; i < n; i++) {
            volatile unsigned sum = 0;
            for (unsigned k = 0; k < messages[i].msg_len; k++)
                sum += (unsigned char)data[i][k];
        }
    }
    getrusage(RUSAGE_THREAD, &after);
    struct timeval used, system;
    timersub(&after.ru_utime, &before.ru_utime, &used);
    timersub(&after.ru_stime, &before.ru_stime, &system);
    reader->cpu_ns = (uint64_t)(used.tv_sec + system.tv_sec) * 1000000000u +
                     (uint64_t)(used.tv_usec + system.tv_usec) * 1000u;
    return NULL;
}

static struct reader run_traffic(int sender, int receiver)
{
    enum { FLOWS = 1000, ROUNDS = 150 };
    uint8_t frame[1024];
    struct reader reader = { .fd = receiver };
    const struct timeval patience = { .tv_usec = 100000 };
    (void)setsockopt(receiver, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    pthread_t thread;
    pthread_create(&thread, NULL, read_lane, &reader);
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned i = 0; i < FLOWS; i++) {
            unsigned of = i % 2 == 0 ? 0 : 1 + (round * FLOWS / 2 + i / 2) % (FLOWS - 1);
            net_frame(frame, sizeof frame, 6, 0x0a000000u + of, 0xc0000201u, (uint16_t)(1024 + of),
                      443);
            frame[46] = 0x50;
            frame[47] = 0x10;
            (void)net_send(sender, frame, sizeof frame);
            if (i % 64 == 63)
                usleep(400);
        }
    usleep(200000);
    atomic_store(&reader.ending, true);
    pthread_join(thread, NULL);
    return reader;
}

static void elephants(void)
{
    struct net_lane lane;
    struct pk_broker_share share = { .lane = 0, .weight = 1 };
    enum pk_xdp_mode mode;
    unsigned tap = net_veth("tap", "wire", 1500);
    net_lane_make(&lane, "lane0", 1504);
    must(pk_broker_lane_add(broker, "f/g/0", lane.host_ifindex, lane.netns_fd, "tap0", &err),
         "a lane");
    int receiver = net_packet_socket(lane.netns_fd, "tap0");
    must(pk_broker_lane_set_reader(broker, "f/g/0", true, &err), "a reader");
    must(pk_broker_group_set(broker, "f/g", PK_HASH_FLOW, &share, 1, &err), "a group");
    const struct pk_broker_target target = { .group_key = "f/g", .tenant = "" };
    const struct pk_broker_tap_config config = { .targets = &target, .target_count = 1 };
    must(pk_broker_tap_attach(broker, "f/t", tap, &config, &mode, &err), "a tap");
    int sender = net_packet_socket(-1, "wire");
    struct reader all = run_traffic(sender, receiver);
    struct pk_tuple elephant = flow(0);
    add((unsigned)pk_broker_group_number(broker, "f/g"), &elephant, 1, 60000);
    struct reader spared = run_traffic(sender, receiver);
    printf("\n1 of 1,000 flows has half of the bytes. Its reader: all %lu packets, %lu ms of CPU; "
           "shunted %lu packets, %lu ms: %.0f %% saved\n",
           all.packets, all.cpu_ns / 1000000, spared.packets, spared.cpu_ns / 1000000,
           100 - 100.0 * (double)spared.cpu_ns / (double)all.cpu_ns);
    close(sender);
    close(receiver);
    net_lane_drop(&lane);
}

int main(void)
{
    char state[] = "/tmp/picket-bench-shunt-XXXXXX";
    struct pk_paths paths;
    if (!net_begin())
        return 0;
    if (mkdtemp(state) == NULL)
        return 1;
    must(pk_paths_init(state, "/run/picket-bench", &paths, &err), "paths");
    must(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err),
         "the broker");
    must(pk_shunts_new(broker, &paths, &shunts, &err), "shunts");
    must(pk_broker_group_set(broker, "f/g", PK_HASH_FLOW, NULL, 0, &err), "a group");
    must(pk_shunts_group_set(shunts, "f", "g", &no_rule, &err), "a group");
    unsigned group = (unsigned)pk_broker_group_number(broker, "f/g");
    a_million(group);
    per_packet(group);
    elephants();
    pk_shunts_free(shunts);
    must(pk_broker_remove_all(broker, &err), "removing all");
    pk_broker_close(broker);
    (void)pk_rm_rf(state, NULL);
    return 0;
}
