/* SPDX-License-Identifier: Apache-2.0 */
/* picket bench net: ways to bring packets into containers, compared on this machine. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "bench/bench.h"
#include "cli/commands.h"

struct args {
    const char *sizes, *groups, *only, *chart;
    uint64_t lanes;
    double seconds;
};

static const struct pk_opt options[] = {
    { "sizes", 0, PK_OPT_STRING, "LIST", offsetof(struct args, sizes),
      "bytes on the wire, 64 to 1518, or imix (64,512,imix)", NULL },
    { "lanes", 0, PK_OPT_UINT, "N", offsetof(struct args, lanes),
      "readers that share each group's packets, up to 8 (2)", NULL },
    { "groups", 0, PK_OPT_STRING, "N|N..M", offsetof(struct args, groups),
      "how many groups get each packet, up to 3 (1)", "1|2|3|1..2|1..3" },
    { "seconds", 0, PK_OPT_DOUBLE, "S", offsetof(struct args, seconds),
      "of traffic for each figure, in 5 rounds (2)", NULL },
    { "only", 0, PK_OPT_STRING, "LIST", offsetof(struct args, only),
      "of host, macvlan, bridge, tc, ovs, sriov, lane, lane-afxdp", NULL },
    { "chart", 0, PK_OPT_STRING, "FILE", offsetof(struct args, chart), "write a picture (SVG), too",
      "file" },
};

/* ---- what is asked for ---- */

static int bad_sizes(const char *text, struct pk_error *err)
{
    (void)pk_fail(err, PK_E_USAGE, "--sizes: \"%.64s\" is no list of packet sizes", text);
    return pk_hint(err, "write for example 64,512,imix; sizes are 64 to 1518, at most %u of them",
                   PK_BENCH_SIZES_MAX);
}

static int parse_sizes(const char *text, struct pk_bench_options *bench, struct pk_error *err)
{
    for (const char *at = text;; at++) {
        char word[8] = "";
        uint64_t size = PK_BENCH_IMIX;
        size_t len = strcspn(at, ",");
        memcpy(word, at, PK_MIN(len, sizeof word - 1));
        if (len >= sizeof word || bench->size_count == PK_BENCH_SIZES_MAX ||
            (strcmp(word, "imix") != 0 &&
             (pk_parse_u64(word, &size, NULL) < 0 || size < 64 || size > 1518)))
            return bad_sizes(text, err);
        bench->sizes[bench->size_count++] = (unsigned)size;
        at += len;
        if (*at == '\0')
            return 0;
    }
}

static int parse_groups(const char *text, struct pk_bench_options *bench, struct pk_error *err)
{
    char first[4] = "";
    const char *dots = strstr(text, "..");
    uint64_t from = 0, to = 0;
    size_t len = dots != NULL ? (size_t)(dots - text) : strlen(text);
    memcpy(first, text, PK_MIN(len, sizeof first - 1));
    if (len >= sizeof first || pk_parse_u64(first, &from, NULL) < 0 ||
        pk_parse_u64(dots != NULL ? dots + 2 : first, &to, NULL) < 0 || from < 1 || from > to ||
        to > PK_BENCH_GROUPS_MAX) {
        (void)pk_fail(err, PK_E_USAGE, "--groups: \"%.64s\" is no number of groups", text);
        return pk_hint(err, "write 1, 2 or 3, or two of them as in 1..3");
    }
    bench->groups_from = (unsigned)from;
    bench->groups_to = (unsigned)to;
    return 0;
}

static int check_only(const char *text, struct pk_error *err)
{
    const char *const *names = pk_bench_way_names();
    for (const char *at = text;; at++) {
        size_t len = strcspn(at, ","), i = 0;
        while (names[i] != NULL && !(strlen(names[i]) == len && memcmp(names[i], at, len) == 0))
            i++;
        if (names[i] == NULL) {
            (void)pk_fail(err, PK_E_USAGE, "--only: there is no way \"%.*s\"",
                          (int)PK_MIN(len, 64u), at);
            return pk_hint(err,
                           "choose of host, macvlan, bridge, tc, ovs, sriov, lane, lane-afxdp");
        }
        at += len;
        if (*at == '\0')
            return 0;
    }
}

static int parse(const struct args *args, struct pk_bench_options *bench, struct pk_error *err)
{
    int r = parse_sizes(args->sizes, bench, err);
    if (r >= 0)
        r = parse_groups(args->groups, bench, err);
    if (r >= 0 && args->only != NULL)
        r = check_only(args->only, err);
    if (r < 0)
        return r;
    if (args->lanes < 1 || args->lanes > PK_BENCH_LANES_MAX) {
        (void)pk_fail(err, PK_E_USAGE, "--lanes is 1 to %u", PK_BENCH_LANES_MAX);
        return pk_hint(err, "more readers than processors tell little");
    }
    if (!(args->seconds > 0 && args->seconds <= 60)) {
        (void)pk_fail(err, PK_E_USAGE, "--seconds is more than 0 and at most 60");
        return pk_hint(err, "2 seconds give figures that hold to a few percent");
    }
    bench->lanes = (unsigned)args->lanes;
    bench->seconds = args->seconds;
    bench->only = args->only;
    return 0;
}

/* ---- what is shown ---- */

struct progress {
    bool tty, shown;
};

static void show_progress(void *arg, const char *text)
{
    struct progress *progress = arg;
    (void)fprintf(stderr, progress->tty ? "\r\033[K%s" : "%s\n", text);
    (void)fflush(stderr);
    progress->shown = true;
}

static const json_t *find_way(const json_t *report, const char *name)
{
    size_t i;
    json_t *way;
    json_array_foreach(json_object_get(report, "ways"), i, way)
    {
        if (strcmp(pk_json_string_or(way, "name", ""), name) == 0)
            return way;
    }
    return NULL;
}

/* groups 0 = whatever their number. */
static json_t *missing_row(const char *name, int64_t groups, const char *why)
{
    PK_CLEANUP(pk_free_p) char *text = pk_asprintf("not available: %s", why);
    json_t *row = json_pack("{s:s, s:s}", "way", name, "isolation", text != NULL ? text : "");
    if (groups > 0)
        json_object_set_new(row, "groups", json_integer(groups));
    return row;
}

/* A row for each figure, and one for each way that there is not. */
static json_t *make_rows(const json_t *report)
{
    json_t *rows = json_array(), *row, *way;
    size_t i;
    json_array_foreach(json_object_get(report, "rows"), i, row)
    {
        const json_t *of = find_way(report, pk_json_string_or(row, "way", ""));
        json_t *shown = json_copy(row);
        json_object_set_new(shown, "title", json_string(pk_json_string_or(of, "title", "")));
        json_object_set_new(shown, "isolation",
                            json_string(pk_json_string_or(of, "isolation.text", "")));
        char loss[16];
        snprintf(loss, sizeof loss, "%.2f%%", json_real_value(json_object_get(row, "loss")));
        json_object_set_new(shown, "lossText", json_string(loss));
        json_array_append_new(rows, shown);
    }
    json_array_foreach(json_object_get(report, "ways"), i, way)
    {
        if (!pk_json_bool_or(way, "available", false))
            json_array_append_new(rows, missing_row(pk_json_string_or(way, "name", ""), 0,
                                                    pk_json_string_or(way, "why", "")));
    }
    json_array_foreach(json_object_get(report, "missing"), i, way)
    {
        const char *name = pk_json_string_or(way, "way", "");
        if (pk_json_bool_or(find_way(report, name), "available", false))
            json_array_append_new(rows, missing_row(name, pk_json_int_or(way, "groups", 0),
                                                    pk_json_string_or(way, "why", "")));
    }
    return rows;
}

static const struct pk_table_column columns[] = {
    { "WAY", "way", 1, false, NULL, false },
    { "GROUPS", "groups", 1, true, NULL, false },
    { "SIZE", "size", 1, true, NULL, false },
    { "NS/PACKET", "ns", 1, true, NULL, false },
    { "LOSS", "lossText", 1, true, NULL, false },
    { "PER CPU SECOND", "perCpuSecond", 2, true, "count", false },
    { "RAW NS", "rawNs", 0, true, NULL, false },
    { "ISOLATION", "isolation", 3, false, NULL, true },
};

static int show(const struct pk_ctx *ctx, const json_t *report, struct pk_error *err)
{
    if (ctx->output == PK_OUT_TABLE || ctx->output == PK_OUT_WIDE) {
        const json_t *machine = json_object_get(report, "machine");
        printf("%s, %lld CPUs, Linux %s, load %.2f\n", pk_json_string_or(machine, "processor", ""),
               (long long)pk_json_int_or(machine, "cpus", 0),
               pk_json_string_or(machine, "kernel", ""),
               json_real_value(json_object_get(machine, "load")));
        printf("CPU time per packet above the traffic's own; %lld lanes in each group; medians of "
               "%lld rounds\n\n",
               (long long)pk_json_int_or(report, "options.lanes", 0),
               (long long)pk_json_int_or(report, "options.rounds", 0));
    }
    PK_JSON rows = make_rows(report);
    return pk_out_table(ctx, report, rows, columns, PK_ARRAY_SIZE(columns), "way", err);
}

static int write_chart(const json_t *report, const char *path, struct pk_error *err)
{
    struct pk_buf svg = PK_BUF_INIT(1 << 20);
    int r = pk_bench_chart(report, &svg, err);
    if (r >= 0)
        r = pk_file_write(path, svg.data, svg.len, 0644, err);
    pk_buf_done(&svg);
    return r;
}

static int run(struct pk_ctx *ctx, const void *raw_args, int argc, char **argv,
               struct pk_error *err)
{
    (void)argc;
    (void)argv;
    const struct args *args = raw_args;
    struct progress progress = { .tty = isatty(STDERR_FILENO) == 1 };
    struct pk_bench_options bench = { .progress = ctx->quiet ? NULL : show_progress,
                                      .progress_arg = &progress };
    PK_JSON report = NULL;
    int r = parse(args, &bench, err);
    if (r >= 0)
        r = pk_bench_net(&bench, &report, err);
    if (progress.shown && progress.tty)
        (void)fputs("\r\033[K", stderr);
    if (r >= 0 && args->chart != NULL)
        r = write_chart(report, args->chart, err);
    return r < 0 ? r : show(ctx, report, err);
}

static const char *const examples[] = {
    "sudo picket bench net", "sudo picket bench net --groups 1..3 --lanes 2 --chart net.svg",
    "sudo picket bench net --only host,lane --sizes 64 -o json", NULL
};

const struct pk_cmd pk_cmd_bench_net = {
    .name = "bench net",
    .group = "Look",
    .summary = "compare ways to bring packets into containers, on this machine",
    .details =
        "Measures what it costs to bring the same packets to readers by the host's network with AF_PACKET fanout, "
        "macvlan, a bridge, BPF at tc, Open vSwitch, and picket's lanes with AF_PACKET and AF_XDP readers: CPU time "
        "per packet, loss, and what the container can see and do, which is tried. SR-IOV is looked for only.\n\n"
        "Packets are made by the kernel (live frames) as fast as it can. The figures are CPU time above that of the "
        "packets themselves and of the veth that stands for the wire; docs/networking-compared.md says more.\n\n"
        "All is done in namespaces of the command's own, which the kernel removes with the process, however it "
        "ends. Nothing outside is touched, and nothing is sent. Takes about a minute with the defaults.",
    .examples = examples,
    .opts = options,
    .opt_count = PK_ARRAY_SIZE(options),
    .args_size = sizeof(struct args),
    .defaults =
        &(const struct args){ .sizes = "64,512,imix", .groups = "1", .lanes = 2, .seconds = 2 },
    .flags = PK_CMD_OUTPUT,
    .run = run,
};
