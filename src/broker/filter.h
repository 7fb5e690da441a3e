/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters in the BPF path: classic BPF and fields become instructions of the tap's own program, so
 * that a filter costs what its comparisons cost. Same answers as pk_filter_match().
 *
 * libbpf has no call to change a program between relocation and load but a handler for all programs
 * of a section's name, so what is to be put in is kept per thread:
 *
 *     pk_filter_emit(...);  pk_filter_install(code);  plane_bpf__open();  plane_bpf__load(...);
 * pk_filter_install(NULL);
 */
#ifndef PICKET_BROKER_FILTER_H
#define PICKET_BROKER_FILTER_H

#include <linux/bpf.h>

#include "base/common.h"
#include "base/error.h"
#include "packet/filter.h"

struct pk_filter_use {
    const struct pk_filter *filter; /* NULL: everything passes */
    const char *name;               /* of the target, for errors */
    uint32_t channel;               /* whose packets it is asked about */
    uint8_t bit;                    /* in the result of pk_filter_mask(), 0..63 */
};

/* Instructions of one function; all is the caller's. */
struct pk_filter_code {
    struct bpf_insn *insns;
    size_t count;
};

/* PK_E_NOSPACE, with the target's name: more than room instructions. */
int pk_filter_emit(const struct pk_filter_use *uses, size_t count, size_t room,
                   struct pk_filter_code *ret_code, struct pk_error *err);
void pk_filter_code_done(struct pk_filter_code *code);

/* What the programs that this thread opens and loads from now on have as pk_filter_mask(); NULL:
 * they let everything pass. code is not copied. Call it before plane_bpf__open(), which is where
 * libbpf looks for handlers. Negative errno: filters would not be put in. */
int pk_filter_install(const struct pk_filter_code *code);

/* The same on instructions that are there. */
int pk_filter_patch(struct bpf_insn *insns, size_t count, const struct pk_filter_code *code);

#endif
