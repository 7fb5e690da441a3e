/* SPDX-License-Identifier: Apache-2.0 */
/* What an interface and its driver lost before any program saw it. */
#ifndef PICKET_NODE_LOSS_H
#define PICKET_NODE_LOSS_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"

struct nl_sock;
struct pk_tap;

/* One counter as the driver or rtnetlink calls it ("rtnl:rx_missed_errors"). */
struct pk_loss_counter {
    const char *name;
    uint64_t value;
};

/* {"lost":{"ring":N,...},"names":{"rx_out_of_buffer":N,...}}: causes with their packets, and the
 * counters that they come from, as far as they are not 0. Drivers repeat each other's numbers under
 * several names, so of what is told of one cause the largest counts. Pure. NULL = out of memory. */
json_t *pk_loss_sum(const char *driver, const struct pk_loss_counter *counters, size_t count);

/* Asks rtnetlink and the driver; adds "driver" and "began" (another number: other counters). */
int pk_loss_read(struct nl_sock *nl, int ioctl_fd, const char *interface, json_t **ret_json,
                 struct pk_error *err);
/* The same of a tap's interface, at most a second old. A new reference; null while it is not there.
 */
json_t *pk_loss_of_tap(struct nl_sock *nl, int ioctl_fd, struct pk_tap *tap);

#endif
