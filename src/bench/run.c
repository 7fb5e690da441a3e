/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds in which the ways take turns, and what comes of them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "generator.skel.h"

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "bench/internal.h"

#define BATCH       64u
#define PACKETS_MIN (1u << 15) /* of a round; a call costs some 20 ms besides */
#define PACKETS_MAX (1u << 24)
#define SETTLE_US   40000u
#define KINDS_MAX   16u

/* ---- traffic ---- */

enum feed { FEED_WIRE, FEED_TAP, FEED_NOWHERE };

static struct generator_bpf *make_generator(enum feed feed, unsigned size, uint32_t target,
                                            struct pk_error *err)
{
    struct generator_bpf *generator = generator_bpf__open();
    uint32_t zero = 0;
    if (generator != NULL) {
        generator->rodata->to_broker = feed == FEED_TAP;
        generator->rodata->to_nowhere = feed == FEED_NOWHERE;
        generator->rodata->imix = size == PK_BENCH_IMIX;
        const struct bpf_map *map = feed == FEED_TAP ? generator->maps.tap : generator->maps.wire;
        if (generator_bpf__load(generator) == 0 &&
            (feed == FEED_NOWHERE ||
             bpf_map_update_elem(bpf_map__fd(map), &zero, &target, BPF_ANY) == 0))
            return generator;
    }
    pk_fail_errno(err, errno, "cannot load the generator");
    pk_hint(err, "live frames need Linux 5.18 or newer; see 'picket doctor'");
    generator_bpf__destroy(generator);
    return NULL;
}

/* A UDP packet that the generator changes. Returns its length, without checksum. */
static size_t make_frame(uint8_t frame[1514], unsigned size)
{
    static const uint8_t start[] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0 };
    static const uint8_t addresses[] = { 10, 0, 0, 1, 10, 0, 0, 2, 0x4e, 0x20, 0, 53 };
    size_t len = size == PK_BENCH_IMIX ? 1514 : size - 4;
    memset(frame, 0, len);
    memcpy(frame, start, sizeof start);
    frame[16] = (uint8_t)((len - 14) >> 8);
    frame[17] = (uint8_t)(len - 14);
    frame[22] = 64;
    frame[23] = 17;
    memcpy(frame + 26, addresses, sizeof addresses);
    return len;
}

static int generate(struct generator_bpf *generator, unsigned size, unsigned ifindex,
                    unsigned count, struct pk_error *err)
{
    uint8_t frame[1514];
    size_t len = make_frame(frame, size);
    struct xdp_md where = { .data_end = (uint32_t)len, .ingress_ifindex = ifindex };
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
                .ctx_in = &where, .ctx_size_in = sizeof where, .repeat = (int)count,
                .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = BATCH);
    /* A signal ends a run early, with fewer packets. */
    while (bpf_prog_test_run_opts(bpf_program__fd(generator->progs.generate), &opts) < 0)
        if (errno != EINTR)
            return pk_fail_errno(err, errno, "cannot send live frames");
    return 0;
}

static struct generator_bpf *generator_of(const struct bench_way *way, unsigned size,
                                          struct pk_error *err)
{
    return way->kind->from_xdp ? make_generator(FEED_TAP, size, (uint32_t)way->tap_program, err)
                               : make_generator(FEED_WIRE, size, way->wire_ifindex, err);
}

static int send_some(struct bench_rig *rig, struct bench_way *way, unsigned count,
                     struct pk_error *err)
{
    (void)rig;
    struct generator_bpf *generator = generator_of(way, 64, err);
    if (generator == NULL)
        return err->code;
    int r = generate(generator, 64, way->host_ifindex, count, err);
    generator_bpf__destroy(generator);
    return r;
}

/* ---- one measurement ---- */

struct figures {
    double ns;   /* CPU time per packet that came to every group */
    double loss; /* of 1 */
    uint64_t sent, delivered;
};

static uint64_t delivered(const struct bench_reader *readers, unsigned count)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += readers[i].packets;
    return sum;
}

static int measure(struct bench_rig *rig, struct bench_way *way, unsigned size, unsigned packets,
                   struct figures *ret_figures, struct pk_error *err)
{
    struct bench_reader readers[BENCH_CONTAINERS] = { 0 };
    unsigned count = rig->groups * rig->lanes, started = 0;
    struct generator_bpf *generator = generator_of(way, size, err);
    int r = generator != NULL ? 0 : err->code;
    for (; started < count && r >= 0; started += r >= 0)
        r = bench_reader_start(&readers[started], &way->places[started], count,
                               rig->cpus.readers[started % rig->cpus.reader_count], err);
    if (r >= 0) {
        uint64_t cpu = bench_cpu_time(&rig->cpus, way->helper);
        r = generate(generator, size, way->host_ifindex, packets, err);
        /* Until the readers have had the last of it. */
        for (uint64_t last = UINT64_MAX, now; (now = delivered(readers, count)) != last; last = now)
            (void)usleep(SETTLE_US);
        cpu = bench_cpu_time(&rig->cpus, way->helper) - cpu;
        uint64_t got = delivered(readers, count);
        double each = (double)got / rig->groups;
        *ret_figures = (struct figures){ .ns = got > 0 ? (double)cpu / each : 0,
                                         .loss = 1 - each / packets,
                                         .sent = packets,
                                         .delivered = got };
        if (ret_figures->loss < 0)
            ret_figures->loss = 0;
    }
    for (unsigned i = 0; i < started; i++)
        bench_reader_stop(&readers[i]);
    generator_bpf__destroy(generator);
    return r;
}

/* What making a packet costs, and with one hop over a veth. */
static int measure_floor(struct bench_rig *rig, enum feed feed, unsigned wire, unsigned size,
                         unsigned packets, double *ret_ns, struct pk_error *err)
{
    struct generator_bpf *generator = make_generator(feed, size, wire, err);
    if (generator == NULL)
        return err->code;
    uint64_t cpu = bench_cpu_time(&rig->cpus, 0);
    int r = generate(generator, size, wire, packets, err);
    *ret_ns = (double)(bench_cpu_time(&rig->cpus, 0) - cpu) / packets;
    generator_bpf__destroy(generator);
    return r;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values)
{
    qsort(values, BENCH_ROUNDS, sizeof values[0], by_value);
    return values[BENCH_ROUNDS / 2];
}

/* ---- all of them ---- */

static void tell(const struct bench_rig *rig, const char *format, ...) PK_PRINTF(2, 3);
static void tell(const struct bench_rig *rig, const char *format, ...)
{
    char text[160];
    va_list args;
    if (rig->options->progress == NULL)
        return;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    rig->options->progress(rig->options->progress_arg, text);
}

static const char *size_name(unsigned size, char out[12])
{
    if (size == PK_BENCH_IMIX)
        return "imix";
    snprintf(out, 12, "%u", size);
    return out;
}

/* As many as fit into a round's time, by a first try that also warms everything up. */
static int plan_packets(struct bench_rig *rig, struct bench_way *way, unsigned size,
                        unsigned *ret_packets, struct pk_error *err)
{
    struct figures figures;
    pk_nsec start = pk_time_monotonic();
    int r = measure(rig, way, size, PACKETS_MIN, &figures, err);
    if (r < 0)
        return r;
    double took = (double)(pk_time_monotonic() - start) / 1e9 - 3e-6 * SETTLE_US;
    double rate = PACKETS_MIN / PK_MAX(took, 0.005);
    double wanted = rate * rig->options->seconds / BENCH_ROUNDS;
    *ret_packets = wanted < PACKETS_MIN   ? PACKETS_MIN
                   : wanted > PACKETS_MAX ? PACKETS_MAX
                                          : (unsigned)wanted;
    return 0;
}

struct series {
    double raw[BENCH_ROUNDS], net[BENCH_ROUNDS], loss[BENCH_ROUNDS];
    uint64_t sent, delivered;
    unsigned packets;
};

/* To two places behind the point, as the nearest number that has them. */
static double rounded(double value)
{
    return (double)(int64_t)(value * 100 + (value < 0 ? -0.5 : 0.5)) / 100;
}

static json_int_t whole(double value)
{
    return (json_int_t)(value + (value < 0 ? -0.5 : 0.5));
}

static int measure_size(struct bench_rig *rig, struct bench_way *ways, size_t count,
                        unsigned floor_wire, unsigned size, json_t *baseline, json_t *rows,
                        struct pk_error *err)
{
    struct series series[KINDS_MAX] = { 0 };
    double made[BENCH_ROUNDS], hops[BENCH_ROUNDS];
    char name[12];
    int r = 0;
    for (size_t i = 0; i < count && r >= 0; i++)
        if (ways[i].available)
            r = plan_packets(rig, &ways[i], size, &series[i].packets, err);
    for (unsigned round = 0; round < BENCH_ROUNDS && r >= 0; round++) {
        tell(rig, "%u %s, %s bytes: round %u of %u", rig->groups,
             rig->groups == 1 ? "group" : "groups", size_name(size, name), round + 1, BENCH_ROUNDS);
        r = measure_floor(rig, FEED_NOWHERE, floor_wire, size, 1u << 18, &made[round], err);
        if (r >= 0)
            r = measure_floor(rig, FEED_WIRE, floor_wire, size, 1u << 18, &hops[round], err);
        for (size_t k = 0; k < count && r >= 0; k++) {
            size_t i = (k + round) % count; /* takes turns in going first, too */
            struct figures figures;
            if (!ways[i].available)
                continue;
            r = measure(rig, &ways[i], size, series[i].packets, &figures, err);
            if (r < 0)
                break;
            series[i].raw[round] = figures.ns;
            series[i].net[round] =
                figures.ns - (ways[i].kind->from_xdp ? made[round] : hops[round]);
            series[i].loss[round] = figures.loss * 100;
            series[i].sent += figures.sent;
            series[i].delivered += figures.delivered;
        }
    }
    if (r < 0)
        return r;
    if (rig->groups == rig->options->groups_from)
        json_array_append_new(baseline, json_pack("{s:s, s:I, s:I}", "size", size_name(size, name),
                                                  "generator", whole(median(made)), "hop",
                                                  whole(median(hops))));
    for (size_t i = 0; i < count; i++) {
        if (!ways[i].available)
            continue;
        double raw = median(series[i].raw);
        json_array_append_new(
            rows, json_pack("{s:s, s:i, s:s, s:I, s:I, s:f, s:I, s:I, s:I}", "way",
                            ways[i].kind->name, "groups", rig->groups, "size",
                            size_name(size, name), "ns", whole(median(series[i].net)), "rawNs",
                            whole(raw), "loss", rounded(median(series[i].loss)), "perCpuSecond",
                            whole(raw > 0 ? 1e9 / raw : 0), "sent", (json_int_t)series[i].sent,
                            "delivered", (json_int_t)series[i].delivered));
    }
    return 0;
}

static json_t *describe_way(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    json_t *isolation = NULL;
    if (way->available) {
        isolation = bench_isolation(rig, way, send_some, err);
        if (isolation == NULL)
            return NULL;
    }
    return json_pack("{s:s, s:s, s:b, s:s*, s:o*}", "name", way->kind->name, "title",
                     way->kind->title, "available", way->available, "why",
                     way->available ? NULL : way->why, "isolation", isolation);
}

static int measure_groups(struct bench_rig *rig, const struct bench_kind *const *kinds,
                          size_t count, unsigned groups, json_t *report, struct pk_error *err)
{
    static struct bench_way ways[KINDS_MAX];
    unsigned floor_wire = 0;
    json_t *described = json_object_get(report, "ways");
    bool is_first = groups == rig->options->groups_from;
    int r = bench_rig_renew(rig, groups, err);
    if (r >= 0)
        r = bench_veth(rig, "floor0", "floor1", -1, &floor_wire, err);
    if (r >= 0)
        r = bench_xdp(rig, -1, "floor1", rig->drop, err);
    size_t made = 0;
    for (; made < count && r >= 0; made++) {
        tell(rig, "%u %s: setting up %s", groups, groups == 1 ? "group" : "groups",
             kinds[made]->name);
        ways[made] = (struct bench_way){ .kind = kinds[made] };
        bench_way_make(rig, &ways[made]);
        if (!is_first) {
            if (!ways[made].available)
                json_array_append_new(json_object_get(report, "missing"),
                                      json_pack("{s:s, s:i, s:s}", "way", kinds[made]->name,
                                                "groups", groups, "why", ways[made].why));
            continue;
        }
        json_t *one = describe_way(rig, &ways[made], err);
        r = one != NULL ? json_array_append_new(described, one) : err->code;
    }
    for (size_t i = 0; i < rig->options->size_count && r >= 0; i++)
        r = measure_size(rig, ways, count, floor_wire, rig->options->sizes[i],
                         json_object_get(report, "baseline"), json_object_get(report, "rows"), err);
    for (size_t i = 0; i < made; i++)
        bench_way_done(&ways[i]);
    return r;
}

static json_t *describe_machine(const struct bench_rig *rig)
{
    struct utsname name;
    char processor[128] = "", line[256];
    double load = 0;
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file != NULL && processor[0] == '\0' && fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (pk_str_starts(line, "model name") && colon != NULL)
            snprintf(processor, sizeof processor, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    }
    if (file != NULL)
        (void)fclose(file);
    (void)getloadavg(&load, 1);
    (void)uname(&name);
    return json_pack("{s:s, s:i, s:s, s:f, s:s}", "kernel", name.release, "cpus",
                     rig->cpus.reader_count + (rig->cpus.readers[0] != rig->cpus.generator),
                     "processor", processor, "load", rounded(load), "interrupts",
                     rig->cpus.interrupts_apart ? "all of the machine's" : "of the process");
}

static json_t *describe_options(const struct pk_bench_options *options)
{
    char name[12];
    json_t *sizes = json_array(), *groups = json_array();
    for (size_t i = 0; i < options->size_count; i++)
        json_array_append_new(sizes, json_string(size_name(options->sizes[i], name)));
    for (unsigned i = options->groups_from; i <= options->groups_to; i++)
        json_array_append_new(groups, json_integer(i));
    return json_pack("{s:o, s:i, s:o, s:f, s:i}", "sizes", sizes, "lanes", options->lanes, "groups",
                     groups, "seconds", options->seconds, "rounds", BENCH_ROUNDS);
}

static bool is_wanted(const char *only, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = only; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, len) == 0 && (at[len] == ',' || at[len] == '\0'))
            return true;
    }
    return only == NULL;
}

int pk_bench_net(const struct pk_bench_options *options, json_t **ret_report, struct pk_error *err)
{
    struct bench_rig rig = { .options = options, .lanes = options->lanes };
    const struct bench_kind *kinds[KINDS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < bench_kind_count && count < KINDS_MAX; i++)
        if (is_wanted(options->only, bench_kinds[i].name))
            kinds[count++] = &bench_kinds[i];
    int r = bench_rig_begin(&rig, err);
    PK_JSON report = NULL;
    if (r >= 0) {
        bench_pin(rig.cpus.generator);
        report =
            json_pack("{s:s, s:s, s:o, s:o, s:[], s:[], s:[], s:[]}", "apiVersion",
                      "picket.dev/v1alpha1", "kind", "BenchNet", "machine", describe_machine(&rig),
                      "options", describe_options(options), "baseline", "ways", "missing", "rows");
        if (report == NULL)
            r = pk_no_memory(err);
    }
    for (unsigned groups = options->groups_from; groups <= options->groups_to && r >= 0; groups++)
        r = measure_groups(&rig, kinds, count, groups, report, err);
    bench_rig_done(&rig);
    if (r < 0)
        return r;
    *ret_report = PK_TAKE(report);
    return 0;
}
