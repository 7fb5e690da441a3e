/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenMetrics 1.0 (github.com/OpenObservability/OpenMetrics): families one after the other, each
 * with TYPE, UNIT and HELP, counters with the suffix _total, label values escaped, "# EOF" last.
 * What is sampled is bounded by what a machine may have of taps, tenants, groups and lanes.
 */
#include "node/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

/* clang-format off */
#define COUNTER PK_METRIC_COUNTER
#define GAUGE   PK_METRIC_GAUGE
static const struct pk_metric table[] = {
    { "picket_agent", PK_METRIC_INFO, "", "agent", "", NULL, NULL,
      "The agent's version." },
    { "picket_agent_start_time_seconds", GAUGE, "seconds", "agent", "start", NULL, NULL,
      "When the agent started, in seconds since 1970." },
    { "picket_agent_sweep_seconds", PK_METRIC_SUMMARY, "seconds", "agent", "sweep", NULL, NULL,
      "How long the agent's looks at all taps, groups and lanes took." },

    { "picket_tap_up", GAUGE, "", "taps", "state", NULL, "up",
      "1 when the tap takes packets, else 0." },
    { "picket_tap_packets", COUNTER, "", "taps", "packets", NULL, NULL,
      "Packets that the tap's program got." },
    { "picket_tap_bytes", COUNTER, "bytes", "taps", "bytes", NULL, NULL,
      "Bytes of these packets." },
    { "picket_tap_interface_lost_packets", COUNTER, "", "taps", "nic.lost", NULL, NULL,
      "Packets that the interface and its driver lost, by reason, since they began to count." },
    { "picket_tap_dropped_packets", COUNTER, "", "taps", "dropped", NULL, NULL,
      "Packets of the tap that were given to no lane." },
    { "picket_tap_unclaimed_packets", COUNTER, "", "taps", "unclaimed", NULL, NULL,
      "Packets of tenants that no group takes." },
    { "picket_tap_passed_packets", COUNTER, "", "taps", "passed", NULL, NULL,
      "Packets handed to the kernel's own way: those for several groups, which go round the lanes "
      "there or are copied; at a tunnel tap, what is the machine's." },
    { "picket_tap_reason_packets", COUNTER, "", "taps", "reasons", NULL, NULL,
      "Packets that could not be read to their own ports, or not be delivered, by reason." },
    { "picket_tenant_packets", COUNTER, "", "tenants", "packets", NULL, NULL,
      "Packets of a tenant at a tap; no tenant: what no tenant claims." },
    { "picket_tenant_bytes", COUNTER, "bytes", "tenants", "bytes", NULL, NULL,
      "Bytes of these packets." },

    { "picket_group_packets", COUNTER, "", "groups", "packets", NULL, NULL,
      "Packets that came to the group: the sum of those sent and those not." },
    { "picket_group_bytes", COUNTER, "bytes", "groups", "bytes", NULL, NULL,
      "Bytes of these packets." },
    { "picket_group_sent_packets", COUNTER, "", "groups", "sent", NULL, NULL,
      "Packets that the group sent to its lanes." },
    { "picket_group_sent_bytes", COUNTER, "bytes", "groups", "sentBytes", NULL, NULL,
      "Bytes of these packets." },
    { "picket_group_unsent_packets", COUNTER, "", "groups", "filtered", "filtered", NULL,
      "Packets of the group that no lane got, by reason: docs/ledger.md says what each means." },
    { "picket_group_unsent_packets", COUNTER, "", "groups", "shunted", "shunted", NULL, "" },
    { "picket_group_unsent_packets", COUNTER, "", "groups", "shed", "shed", NULL, "" },
    { "picket_group_unsent_packets", COUNTER, "", "groups", "yielded", "yielded", NULL, "" },
    { "picket_group_unsent_packets", COUNTER, "", "groups", "noLane", "no-lane", NULL, "" },
    { "picket_group_unsent_packets", COUNTER, "", "groups", "notSent", "not-sent", NULL, "" },
    { "picket_group_unsent_bytes", COUNTER, "bytes", "groups", "filteredBytes", "filtered", NULL,
      "Bytes of these packets." },
    { "picket_group_unsent_bytes", COUNTER, "bytes", "groups", "shuntedBytes", "shunted", NULL,
      "" },
    { "picket_group_unsent_bytes", COUNTER, "bytes", "groups", "shedBytes", "shed", NULL, "" },
    { "picket_group_unsent_bytes", COUNTER, "bytes", "groups", "yieldedBytes", "yielded", NULL,
      "" },
    { "picket_group_unsent_bytes", COUNTER, "bytes", "groups", "noLaneBytes", "no-lane", NULL, "" },
    { "picket_group_unsent_bytes", COUNTER, "bytes", "groups", "notSentBytes", "not-sent", NULL,
      "" },

    { "picket_lane_ready", GAUGE, "", "lanes", "state", NULL, "ready",
      "1 when a tool reads the lane, else 0." },
    { "picket_lane_slots", GAUGE, "", "lanes", "slots", NULL, NULL,
      "The lane's share of the group's 65,537 slots." },
    { "picket_lane_sent_packets", COUNTER, "", "lanes", "sent", NULL, NULL,
      "Packets sent to the lane. Less those that arrived: lost in the lane's receive ring." },
    { "picket_lane_packets", COUNTER, "", "lanes", "packets", NULL, NULL,
      "Packets that arrived in the lane." },
    { "picket_lane_bytes", COUNTER, "bytes", "lanes", "bytes", NULL, NULL,
      "Bytes of these packets." },
    { "picket_lane_unread_packets", COUNTER, "", "lanes", "unread", NULL, NULL,
      "Packets that arrived while no tool read the lane." },
    { "picket_lane_blocked_packets", COUNTER, "", "lanes", "blocked", NULL, NULL,
      "Packets that a tool tried to send." },
    { "picket_lane_canaries_sent", COUNTER, "", "lanes", "canary.sent", NULL, NULL,
      "Canaries put into the lane." },
    { "picket_lane_canaries_seen", COUNTER, "", "lanes", "canary.seen", NULL, NULL,
      "Canaries that came back in the log of each tool of the lane." },
    { "picket_lane_silent", GAUGE, "", "lanes", "canary.state", NULL, "silent",
      "1 when canaries do not come back, else 0." },
};
/* clang-format on */

const struct pk_metric *pk_metrics_table(size_t *ret_count)
{
    *ret_count = PK_ARRAY_SIZE(table);
    return table;
}

const char *pk_metric_type_name(enum pk_metric_type type)
{
    static const char *const names[] = { "counter", "gauge", "summary", "info" };
    return names[type];
}

/* Backslash, quote and newline have to be escaped; other control characters have no business in a
 * name. */
static void put_label(struct pk_buf *buf, bool *first, const char *name, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return; /* an empty label is no label */
    (void)pk_buf_printf(buf, "%s%s=\"", *first ? "{" : ",", name);
    *first = false;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '\\' || *p == '"')
            (void)pk_buf_putc(buf, '\\');
        if (*p == '\n')
            (void)pk_buf_puts(buf, "\\n");
        else
            (void)pk_buf_putc(buf, (unsigned char)*p < 0x20 ? '?' : *p);
    }
    (void)pk_buf_putc(buf, '"');
}

static void put_labels(struct pk_buf *buf, const struct pk_metric *metric, const json_t *owner,
                       const json_t *row, const char *reason)
{
    bool first = true;
    char lane[24] = "";
    int64_t index = pk_json_int_or(row, "index", -1);
    if (strcmp(metric->list, "lanes") == 0 && index >= 0)
        (void)snprintf(lane, sizeof(lane), "%" PRId64, index);
    bool of_tap = strcmp(metric->list, "taps") == 0 || strcmp(metric->list, "tenants") == 0;
    bool is_tenant = strcmp(metric->list, "tenants") == 0;
    bool is_lane = strcmp(metric->list, "lanes") == 0;
    const char *name = pk_json_string_or(row, "name", "");
    put_label(buf, &first, "fleet", pk_json_string_or(owner, "fleet", ""));
    if (of_tap)
        put_label(buf, &first, "tap", pk_json_string_or(owner, "name", ""));
    if (is_tenant)
        put_label(buf, &first, "tenant", name);
    if (!of_tap)
        put_label(buf, &first, "tenant", pk_json_string_or(row, "tenant", ""));
    if (!of_tap)
        put_label(buf, &first, "group", is_lane ? pk_json_string_or(row, "group", "") : name);
    put_label(buf, &first, "lane", lane);
    put_label(buf, &first, "reason", reason);
    if (!first)
        (void)pk_buf_putc(buf, '}');
}

static void put_sample(struct pk_buf *buf, const struct pk_metric *metric, const json_t *owner,
                       const json_t *row, const char *reason, int64_t value)
{
    (void)pk_buf_printf(buf, "%s%s", metric->name,
                        metric->type == PK_METRIC_COUNTER ? "_total" : "");
    put_labels(buf, metric, owner, row, reason);
    (void)pk_buf_printf(buf, " %" PRId64 "\n", value);
}

/* The metric's samples of one row. owner: the tap of a tenant, else the row itself. */
static void put_row(struct pk_buf *buf, const struct pk_metric *metric, const json_t *owner,
                    const json_t *row)
{
    const json_t *value = pk_json_at(row, metric->path);
    const char *name;
    json_t *member;
    if (metric->equals != NULL) {
        const char *text = pk_json_string_or(row, metric->path, "");
        put_sample(buf, metric, owner, row, metric->reason, strcmp(text, metric->equals) == 0);
    } else if (json_is_integer(value)) {
        put_sample(buf, metric, owner, row, metric->reason, json_integer_value(value));
    } else if (json_is_object(value)) {
        json_object_foreach((json_t *)(uintptr_t)value, name, member)
        {
            if (json_is_integer(member))
                put_sample(buf, metric, owner, row, name, json_integer_value(member));
        }
    }
}

static void put_plane(struct pk_buf *buf, const struct pk_metric *metric, const json_t *plane)
{
    bool tenants = strcmp(metric->list, "tenants") == 0;
    const json_t *list = json_object_get(plane, tenants ? "taps" : metric->list);
    size_t i, j;
    const json_t *row, *tenant;
    json_array_foreach(list, i, row)
    {
        if (!tenants)
            put_row(buf, metric, row, row);
        else
            json_array_foreach(json_object_get(row, "tenants"), j, tenant)
                put_row(buf, metric, row, tenant);
    }
}

static void put_agent(struct pk_buf *buf, const struct pk_metric *metric,
                      const struct pk_metrics_agent *agent)
{
    if (metric->type == PK_METRIC_INFO)
        (void)pk_buf_printf(buf, "%s_info{version=\"%s\"} 1\n", metric->name, PICKET_VERSION);
    else if (metric->type == PK_METRIC_SUMMARY)
        (void)pk_buf_printf(buf, "%s_count %" PRIu64 "\n%s_sum %.9f\n", metric->name, agent->sweeps,
                            metric->name, agent->sweep_seconds);
    else
        (void)pk_buf_printf(buf, "%s %.3f\n", metric->name, agent->start_time);
}

int pk_metrics_write(const json_t *plane, const struct pk_metrics_agent *agent, struct pk_buf *buf)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(table); i++) {
        const struct pk_metric *metric = &table[i];
        if (i == 0 || strcmp(table[i - 1].name, metric->name) != 0) {
            (void)pk_buf_printf(buf, "# TYPE %s %s\n", metric->name,
                                pk_metric_type_name(metric->type));
            if (metric->unit[0] != '\0')
                (void)pk_buf_printf(buf, "# UNIT %s %s\n", metric->name, metric->unit);
            (void)pk_buf_printf(buf, "# HELP %s %s\n", metric->name, metric->help);
        }
        if (strcmp(metric->list, "agent") == 0)
            put_agent(buf, metric, agent);
        else
            put_plane(buf, metric, plane);
    }
    (void)pk_buf_puts(buf, "# EOF\n");
    if (!buf->failed)
        return 0;
    return buf->len + 256 > buf->max ? PK_E_NOSPACE : PK_E_NOMEM;
}
