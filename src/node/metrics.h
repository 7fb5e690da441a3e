/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's counters as OpenMetrics text (the format of GET /metrics). One table of metrics; a
 * new counter is one row. Pure.
 */
#ifndef PICKET_NODE_METRICS_H
#define PICKET_NODE_METRICS_H

#include <jansson.h>

#include "base/buf.h"
#include "base/common.h"

#define PK_METRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define PK_METRICS_MAX  (32u << 20) /* of the text */

enum pk_metric_type { PK_METRIC_COUNTER, PK_METRIC_GAUGE, PK_METRIC_SUMMARY, PK_METRIC_INFO };
const char *pk_metric_type_name(enum pk_metric_type type);

struct pk_metric {
    const char *name; /* of the family, without _total */
    enum pk_metric_type type;
    const char *unit;   /* "" or the name's last word */
    const char *list;   /* of the plane: "taps", "tenants" (of taps), "groups", "lanes", "agent" */
    const char *path;   /* in the list's rows; an object gives one sample per member, as reason */
    const char *reason; /* label, or NULL */
    const char *equals; /* 1 when the member is this text, else 0; NULL = the number itself */
    const char *help;
};
/* Rows of one family stand together. */
const struct pk_metric *pk_metrics_table(size_t *ret_count);

/* What the agent knows of itself. */
struct pk_metrics_agent {
    double start_time;    /* seconds since 1970 */
    double sweep_seconds; /* all sweeps together */
    uint64_t sweeps;
};
/* Appends the whole text, with its "# EOF". 0 or PK_E_NOMEM, PK_E_NOSPACE (buf's maximum). */
int pk_metrics_write(const json_t *plane, const struct pk_metrics_agent *agent, struct pk_buf *buf);

#endif
