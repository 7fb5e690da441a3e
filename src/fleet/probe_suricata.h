/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks running Suricatas over their command sockets. What comes back is outside input: bounded in
 * size and time, parsed as it comes. Any thread; nothing is kept between calls.
 */
#ifndef PICKET_FLEET_PROBE_SURICATA_H
#define PICKET_FLEET_PROBE_SURICATA_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"

struct pk_suricata_probe {
    const char *socket;    /* path on the host; may be longer than a socket address holds */
    const char *interface; /* as Suricata calls it: "tap0" */
    bool want_notes;
    /* the answer */
    int code;         /* 0 = all questions were answered, else as error */
    uint64_t packets; /* taken since the start, drops included */
    uint64_t drops;
    /* {"decoded":N,"reassemblyGap":N,...}: some 8 s old, as Suricata keeps them; NULL = not asked
     * for, or it has none yet. The caller's to release. */
    json_t *notes;
    struct pk_error error;
};

/* Asks all at the same time; returns after timeout_ms at the latest. */
void pk_suricata_probe_all(struct pk_suricata_probe *probes, size_t count, unsigned timeout_ms);

#endif
