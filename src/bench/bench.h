/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways to bring packets into containers, measured on this machine: what each costs in CPU time per
 * packet, what it loses, what the container can see and do.
 *
 * Everything is made in network namespaces and a mount namespace that only this process is in, so
 * that the kernel removes it with the process, however that ends.
 */
#ifndef PICKET_BENCH_BENCH_H
#define PICKET_BENCH_BENCH_H

#include <jansson.h>

#include "base/buf.h"
#include "base/common.h"
#include "base/error.h"

#define PK_BENCH_LANES_MAX  8u
#define PK_BENCH_GROUPS_MAX 3u
#define PK_BENCH_SIZES_MAX  8u
#define PK_BENCH_IMIX       0u /* as a size: 7 : 4 : 1 of 64, 594 and 1,518 bytes */

struct pk_bench_options {
    unsigned sizes[PK_BENCH_SIZES_MAX]; /* bytes on the wire with checksum, 64 to 1,518 */
    size_t size_count;
    unsigned lanes;                  /* of each group */
    unsigned groups_from, groups_to; /* how many get each packet */
    double seconds;                  /* of traffic for each figure */
    const char *only;                /* names of ways with commas between; NULL = all */
    void (*progress)(void *arg, const char *text); /* may be NULL */
    void *progress_arg;
};

/*
 * Needs root. Moves the process into namespaces of its own, for good: to be called by a process
 * that does nothing else afterwards, from its only thread. The report:
 *
 * {"kind":"BenchNet","apiVersion",
 *  "machine":{"kernel","cpus","processor","load","interrupts"},
 *  "options":{"sizes":["64",..],"lanes","groups":[1,..],"seconds","rounds"},
 *  "baseline":[{"size","generator","hop"}],     CPU ns per packet of making it; and of a veth
 *  "ways":[{"name","title","available","why",
 *           "isolation":{"seesHost","seesOthers","sends","text"}}],
 *  "missing":[{"way","groups","why"}],          of more groups than the first number of them
 *  "rows":[{"way","groups","size","ns","rawNs","loss","perCpuSecond","sent","delivered"}]}
 *
 * ns: CPU time of a packet brought to every group, less the baseline of its feed; loss: percent.
 * Medians of the rounds, in which the ways take turns. Where a way is not available there, "why"
 * says why, and it has no row.
 */
int pk_bench_net(const struct pk_bench_options *options, json_t **ret_report, struct pk_error *err);

/* The report as a picture: bars of CPU time, and of loss, readable on light and dark. */
int pk_bench_chart(const json_t *report, struct pk_buf *out, struct pk_error *err);

/* Names of the ways, for help and checks; NULL-terminated. */
const char *const *pk_bench_way_names(void);

#endif
