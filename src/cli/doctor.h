/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of 'picket doctor'. A check looks, reports one finding or more, and changes
 * nothing. To add one: a function in a doctor_*.c, a row in cmd_doctor.c's table.
 */
#ifndef PICKET_CLI_DOCTOR_H
#define PICKET_CLI_DOCTOR_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"
#include "base/paths.h"

enum pk_verdict {
    PK_VERDICT_OK,
    PK_VERDICT_NOTE,
    PK_VERDICT_WARN,
    PK_VERDICT_FAIL,
    PK_VERDICT_SKIPPED
};

struct pk_doctor {
    struct pk_paths paths;
    json_t *findings;  /* [{group, check, result, evidence, fix}] */
    const char *group; /* of the running check */
    const char *check;
    unsigned worst[PK_VERDICT_SKIPPED + 1]; /* findings by verdict */
};

/* fix: what to do, NULL or "" when there is nothing. The rest is the evidence. */
void pk_doctor_report(struct pk_doctor *doctor, enum pk_verdict verdict, const char *fix,
                      const char *evidence, ...) PK_PRINTF(4, 5);

/* doctor_kernel.c */
void pk_doctor_kernel_version(struct pk_doctor *doctor);
void pk_doctor_capabilities(struct pk_doctor *doctor);
void pk_doctor_cgroups(struct pk_doctor *doctor);
void pk_doctor_bpf_load(struct pk_doctor *doctor);
void pk_doctor_bpf_features(struct pk_doctor *doctor);
void pk_doctor_bpf_jit(struct pk_doctor *doctor);
void pk_doctor_bpf_fs(struct pk_doctor *doctor);
void pk_doctor_xdp_veth(struct pk_doctor *doctor);

/* doctor_host.c */
void pk_doctor_podman(struct pk_doctor *doctor);
void pk_doctor_runtime(struct pk_doctor *doctor);
void pk_doctor_limits(struct pk_doctor *doctor);
void pk_doctor_programs(struct pk_doctor *doctor);
void pk_doctor_duckdb(struct pk_doctor *doctor);
void pk_doctor_space(struct pk_doctor *doctor);
void pk_doctor_filesystem(struct pk_doctor *doctor);
void pk_doctor_memory(struct pk_doctor *doctor);
void pk_doctor_clock(struct pk_doctor *doctor);

/* doctor_nic.c */
void pk_doctor_interfaces(struct pk_doctor *doctor);

#endif
