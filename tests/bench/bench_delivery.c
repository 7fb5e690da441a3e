/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What it costs to bring packets to 1, 2 and 4 readers, and to 1, 2 and 3 groups of readers that
 * see each packet: through the broker into a lane each, against AF_PACKET fanout
 * (PACKET_FANOUT_HASH) on one veth, a fanout group for each group. Generator, readers (TPACKET_V3)
 * and ring memory are the same; the two ways take turns. The lanes of several groups get a packet
 * by the round (Linux 6.6), which shares it as sockets on one interface do, or by a broadcast,
 * which makes copies. Runs in namespaces of its own.
 */
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>

#include "generator.skel.h"

#include "base/proc.h"
#include "net.h"

#define ROUNDS      5
#define PACKETS     (1u << 18) /* of one run */
#define BATCH       64
#define RING_BYTES  (128u << 20) /* of all readers together */
#define BLOCK_BYTES (1u << 20)
#define READERS_MAX 4
#define GROUPS_MAX  3

struct reader {
    int fd;
    uint8_t *ring;
    unsigned blocks;
    pthread_t thread;
    _Atomic uint64_t packets;
    _Atomic bool stop;
    uint64_t touched; /* so that reading the packets is not optimised away */
};

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void pin(unsigned cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set); /* fewer CPUs: then unpinned */
}

static void *read_packets(void *arg)
{
    struct reader *reader = arg;
    pin(1);
    for (unsigned at = 0; !reader->stop;) {
        struct tpacket_block_desc *block = (void *)(reader->ring + (size_t)at * BLOCK_BYTES);
        if (!(__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) {
            poll(&(struct pollfd){ .fd = reader->fd, .events = POLLIN }, 1, 20);
            continue;
        }
        const uint8_t *p = (const uint8_t *)block + block->hdr.bh1.offset_to_first_pkt;
        for (uint32_t i = 0; i < block->hdr.bh1.num_pkts; i++) {
            const struct tpacket3_hdr *packet = (const void *)p;
            reader->touched += p[packet->tp_mac + 34];
            p += packet->tp_next_offset;
        }
        reader->packets += block->hdr.bh1.num_pkts;
        __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        at = (at + 1) % reader->blocks;
    }
    return NULL;
}

/* fanout = 0: none. */
static void reader_start(struct reader *reader, int netns_fd, const char *interface, unsigned share,
                         unsigned fanout)
{
    int version = TPACKET_V3;
    *reader = (struct reader){ .fd = net_packet_socket(netns_fd, interface) };
    struct tpacket_req3 req = { .tp_block_size = BLOCK_BYTES,
                                .tp_block_nr = RING_BYTES / BLOCK_BYTES / share,
                                .tp_frame_size = 2048,
                                .tp_retire_blk_tov = 10 };
    req.tp_frame_nr = req.tp_block_nr * (BLOCK_BYTES / 2048);
    reader->blocks = req.tp_block_nr;
    if (setsockopt(reader->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) < 0 ||
        setsockopt(reader->fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof req) < 0)
        die("packet ring");
    size_t size = (size_t)reader->blocks * BLOCK_BYTES;
    reader->ring =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, reader->fd, 0);
    if (reader->ring == MAP_FAILED)
        die("mmap of a packet ring");
    int how = (int)(fanout | PACKET_FANOUT_HASH << 16);
    if (fanout != 0 && setsockopt(reader->fd, SOL_PACKET, PACKET_FANOUT, &how, sizeof how) < 0)
        die("PACKET_FANOUT");
    pthread_create(&reader->thread, NULL, read_packets, reader);
}

static void reader_stop(struct reader *reader)
{
    reader->stop = true;
    pthread_join(reader->thread, NULL);
    munmap(reader->ring, (size_t)reader->blocks * BLOCK_BYTES);
    close(reader->fd);
}

static uint64_t delivered(const struct reader *readers, unsigned count)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += readers[i].packets;
    return sum;
}

/* ---- CPU time ---- */

/* Softirq work runs within whatever task is there, this program's threads or ksoftirqd, and is in
 * their time, unless the kernel accounts interrupts apart: then it is found in /proc/stat. */
static bool irq_time_apart(void)
{
    const char *argv[] = { "zcat", "-f", "/proc/config.gz", NULL };
    struct pk_buf config = PK_BUF_INIT(1 << 20);
    int status = 1;
    bool apart = true; /* the worse for both ways, where nothing tells */
    if (pk_proc_run(&(struct pk_proc_options){ .argv = argv, .timeout_ms = 10000 }, &config, NULL,
                    &status, NULL) >= 0 &&
        status == 0 && pk_buf_putc(&config, '\0') == 0)
        apart = strstr(config.data, "CONFIG_IRQ_TIME_ACCOUNTING=y\n") != NULL ||
                strstr(config.data, "CONFIG_VIRT_CPU_ACCOUNTING_GEN=y\n") != NULL;
    pk_buf_done(&config);
    return apart;
}

static double cpu_seconds(bool apart)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double sum = (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 +
                 (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
    FILE *file = fopen("/proc/stat", "re");
    unsigned long long ticks[7] = { 0 };
    if (apart && file != NULL &&
        fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu", &ticks[0], &ticks[1], &ticks[2],
               &ticks[3], &ticks[4], &ticks[5], &ticks[6]) == 7)
        sum += (double)ticks[6] / (double)sysconf(_SC_CLK_TCK);
    if (file != NULL)
        fclose(file);
    return sum;
}

/* ---- one run ---- */

struct way {
    struct generator_bpf *generator;
    struct reader readers[READERS_MAX];
    unsigned copies; /* of each packet that readers are to get */
    unsigned count;  /* readers */
};

struct result {
    double per_cpu_second; /* delivered copies */
    double share;          /* of those that the groups were to get */
};

static struct result run(struct way *way, const uint8_t *frame, size_t len, unsigned ifindex,
                         bool apart)
{
    struct xdp_md where = { .data_end = (uint32_t)len, .ingress_ifindex = ifindex };
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
                .ctx_in = &where, .ctx_size_in = sizeof where, .repeat = PACKETS,
                .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = BATCH);
    uint64_t before = delivered(way->readers, way->count);
    double cpu = cpu_seconds(apart);
    if (bpf_prog_test_run_opts(bpf_program__fd(way->generator->progs.generate), &opts) < 0)
        die("BPF_PROG_RUN with live frames");
    /* Until the readers have had the last of it. */
    for (uint64_t last = 0, now; (now = delivered(way->readers, way->count)) != last; last = now)
        usleep(60000);
    cpu = cpu_seconds(apart) - cpu;
    uint64_t got = delivered(way->readers, way->count) - before;
    return (struct result){ .per_cpu_second = cpu > 0 ? (double)got / cpu : 0,
                            .share = (double)got / PACKETS / way->copies };
}

static struct generator_bpf *make_generator(bool to_broker, bool imix, uint32_t target)
{
    struct generator_bpf *generator = generator_bpf__open();
    if (generator == NULL)
        die("generator");
    generator->rodata->to_broker = to_broker;
    generator->rodata->imix = imix;
    uint32_t zero = 0;
    if (generator_bpf__load(generator) < 0 ||
        bpf_map_update_elem(bpf_map__fd(to_broker ? generator->maps.tap : generator->maps.wire),
                            &zero, &target, BPF_ANY) < 0)
        die("generator");
    return generator;
}

/* The program that the broker attached to the tap. */
static int tap_program(unsigned ifindex)
{
    uint32_t id = 0;
    if (bpf_xdp_query_id((int)ifindex, 0, &id) < 0 || id == 0)
        die("the tap has no program");
    int fd = bpf_prog_get_fd_by_id(id);
    if (fd < 0)
        die("the tap's program");
    return fd;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof values[0], by_value);
    return values[ROUNDS / 2];
}

static const struct {
    const char *name;
    size_t len; /* without checksum */
    bool imix;
} sizes[] = { { "64 B", 60, false }, { "512 B", 508, false }, { "IMIX", 1514, true } };

struct layout {
    unsigned groups;
    unsigned lanes; /* of each group */
    unsigned tools; /* in each lane: they share its interface */
    bool broadcast; /* to several groups, also where the kernel has the round */
};
static const struct layout layouts[] = {
    { 1, 1, 1, false }, { 1, 2, 1, false }, { 1, 4, 1, false }, { 2, 1, 1, false },
    { 2, 2, 1, false }, { 3, 1, 1, false }, { 2, 1, 1, true },  { 3, 1, 1, true },
    { 1, 1, 2, false }, { 1, 1, 3, false },
};

/* What one packet costs that one reader gets, by way (ours, theirs) and size: the first layout. */
static double alone[2][PK_ARRAY_SIZE(sizes)];

/* What each reader after the first adds to a packet, in ns; 0 for one reader. */
static double more(double millions, unsigned copies, double of_one)
{
    return copies > 1 ? (1e3 / millions * copies - of_one) / (copies - 1) : 0;
}

static const char *way_name(struct layout layout, struct pk_broker *broker)
{
    if (layout.groups == 1)
        return "redirect";
    return !layout.broadcast && net_count(broker, "taps", "f/t", "passed") > 0 ? "round"
                                                                               : "broadcast";
}

static void compare(struct pk_broker *plane, struct layout layout,
                    struct net_lane lanes[GROUPS_MAX][READERS_MAX], unsigned tap, unsigned wire,
                    int program, size_t size, bool apart)
{
    static uint8_t frame[1514];
    size_t len = net_frame(frame, sizes[size].len, 17, 0x0a000001, 0x0a000002, 20000, 53);
    unsigned copies = layout.groups * layout.tools, count = copies * layout.lanes;
    struct way broker = { .copies = copies, .count = count }, fanout = broker;
    broker.generator = make_generator(true, sizes[size].imix, (uint32_t)program);
    fanout.generator = make_generator(false, sizes[size].imix, wire);
    for (unsigned i = 0; i < count; i++) {
        unsigned copy = i / layout.lanes;
        reader_start(&broker.readers[i], lanes[copy / layout.tools][i % layout.lanes].netns_fd,
                     "tap0", count, 0);
        reader_start(&fanout.readers[i], -1, "host", count, 77 + copy);
    }
    double rates[2][ROUNDS], shares[2][ROUNDS], ratios[ROUNDS];
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned k = 0; k < 2; k++) {
            bool first = (round + k) % 2 == 0; /* takes turns in going first, too */
            struct result result = run(first ? &broker : &fanout, frame, len, tap, apart);
            rates[!first][round] = result.per_cpu_second / 1e6;
            shares[!first][round] = result.share * 100;
        }
        ratios[round] = rates[1][round] > 0 ? rates[0][round] / rates[1][round] : 0;
    }
    double ours = median(rates[0]), theirs = median(rates[1]);
    if (copies == 1 && layout.lanes == 1) {
        alone[0][size] = 1e3 / ours;
        alone[1][size] = 1e3 / theirs;
    }
    printf("%-6s %6u %5u %5u %-9s %6.3f %5.0f %5.0f %7.2f%% %6.3f %5.0f %5.0f %7.2f%% %6.2f\n",
           sizes[size].name, layout.groups, layout.lanes, layout.tools, way_name(layout, plane),
           ours, 1e3 / ours, more(ours, copies, alone[0][size]), median(shares[0]), theirs,
           1e3 / theirs, more(theirs, copies, alone[1][size]), median(shares[1]), median(ratios));
    fflush(stdout);
    for (unsigned i = 0; i < count; i++) {
        reader_stop(&broker.readers[i]);
        reader_stop(&fanout.readers[i]);
    }
    generator_bpf__destroy(broker.generator);
    generator_bpf__destroy(fanout.generator);
}

static void make_lanes(struct pk_broker *broker, bool broadcast,
                       struct net_lane lanes[GROUPS_MAX][READERS_MAX])
{
    struct pk_error err = { 0 };
    for (unsigned group = 0; group < GROUPS_MAX; group++) {
        for (unsigned i = 0; i < READERS_MAX; i++) {
            struct net_lane *lane = &lanes[group][i];
            char name[16], key[16];
            snprintf(name, sizeof name, "lane%u-%u", group, i);
            snprintf(key, sizeof key, "f/g%u/%u", group, i);
            if (lane->host_ifindex == 0)
                net_lane_make(lane, name, 1514);
            if (pk_broker_lane_add(broker, key, lane->host_ifindex, lane->netns_fd, "tap0", &err) <
                    0 ||
                (broadcast && pk_broker_lane_leave_round(broker, key, &err) < 0) ||
                pk_broker_lane_set_reader(broker, key, true, &err) < 0)
                die(err.msg);
        }
    }
}

static void lay_out(struct pk_broker *broker, struct layout layout, unsigned tap)
{
    struct pk_error err = { 0 };
    struct pk_broker_share shares[READERS_MAX];
    static const char *const keys[GROUPS_MAX] = { "f/g0", "f/g1", "f/g2" };
    struct pk_broker_target targets[GROUPS_MAX] = { 0 };
    struct pk_broker_tap_config config = { .targets = targets, .target_count = layout.groups };
    for (unsigned i = 0; i < layout.lanes; i++)
        shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1 };
    for (unsigned group = 0; group < layout.groups; group++) {
        targets[group].group_key = keys[group];
        if (pk_broker_group_set(broker, keys[group], PK_HASH_OUTER, shares, layout.lanes, &err) < 0)
            die(err.msg);
    }
    enum pk_xdp_mode mode;
    if (pk_broker_tap_attach(broker, "f/t", tap, &config, &mode, &err) < 0)
        die(err.msg);
}

int main(void)
{
    alarm(580); /* whatever happens, the namespaces go with the process */
    if (!net_begin())
        return 77;
    pin(0);
    bool apart = irq_time_apart();
    struct pk_error err = { 0 };
    struct pk_broker *broker = NULL;
    if (pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err) < 0) {
        fprintf(stderr, "%s (%s)\n", err.msg, err.hint);
        return 1;
    }
    static struct net_lane lanes[GROUPS_MAX][READERS_MAX];
    unsigned tap = net_veth("tap", "far", 1514);
    unsigned wire = net_veth("wire", "host", 1514);
    /* NAPI on the reader's end, as the lanes have it. */
    struct bpf_insn pass[] = { { .code = 0xb7, .imm = XDP_PASS }, { .code = 0x95 } };
    int pass_fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "pass", "GPL", pass, 2, NULL);
    if (pass_fd < 0 ||
        bpf_xdp_attach((int)if_nametoindex("host"), pass_fd, XDP_FLAGS_DRV_MODE, NULL) < 0)
        die("XDP_PASS on the host's veth");
    printf("delivered copies per CPU second, in millions; median of %u rounds of %u packets\n"
           "CPU time: this process%s\n\n",
           ROUNDS, PACKETS, apart ? " and /proc/stat's softirq" : " (its softirq work included)");
    printf("%-6s %6s %5s %5s %-9s %6s %5s %5s %8s %6s %5s %5s %8s %6s\n", "size", "groups", "lanes",
           "tools", "way", "broker", "ns", "more", "got", "fanout", "ns", "more", "got", "ratio");
    for (size_t i = 0; i < PK_ARRAY_SIZE(layouts); i++) {
        if (i == 0 || layouts[i].broadcast != layouts[i - 1].broadcast)
            make_lanes(broker, layouts[i].broadcast, lanes);
        lay_out(broker, layouts[i], tap);
        int program = tap_program(tap);
        for (size_t size = 0; size < PK_ARRAY_SIZE(sizes); size++)
            compare(broker, layouts[i], lanes, tap, wire, program, size, apart);
        close(program);
    }
    (void)pk_broker_remove_all(broker, &err);
    pk_broker_close(broker);
    return 0;
}
