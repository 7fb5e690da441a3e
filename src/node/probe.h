/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes of inline lanes (broker/inline.h): a thread of their own sends them, so that nothing that
 * the agent does makes a tool look dead.
 */
#ifndef PICKET_NODE_PROBE_H
#define PICKET_NODE_PROBE_H

#include "base/common.h"
#include "base/error.h"
#include "broker/inline.h"

/* Where probes are sent: the outer ends of a lane. */
struct pk_probe_target {
    unsigned outer[PK_SIDES];
};

struct pk_prober;
int pk_prober_start(uint64_t token, struct pk_prober **ret_prober, struct pk_error *err);
void pk_prober_free(struct pk_prober *prober);
PK_DEFINE_CLEANUP(struct pk_prober, pk_prober_free);
/* From now on these, each every period; idempotent. Nothing is sent while there are none. */
int pk_prober_set(struct pk_prober *prober, const struct pk_probe_target *targets, size_t count,
                  pk_nsec period, struct pk_error *err);

#endif
