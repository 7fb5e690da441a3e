/* SPDX-License-Identifier: Apache-2.0 */
/* Inline lanes and taps: a tool between two interfaces (broker/inline.h). */
#include <string.h>

#include "base/log.h"
#include "base/time.h"
#include "node/agent.h"
#include "node/probe.h"

/* Several in the shortest time that a tool may take to answer. */
#define PROBE_PERIOD_MAX (50 * PK_NSEC_PER_MS)
#define PROBES_TO_FAIL   4
/* So many must have come back each way before a tool gets packets. */
#define PROBES_TO_TRUST 2u

int pk_inline_lane_attach(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err)
{
    const struct pk_broker_inline_lane ends = {
        .netns_fd = lane->netns.fd,
        .outer = { lane->outer_ifindex, lane->second.outer_ifindex },
        .inner = { "tap0", "tap1" },
    };
    return pk_broker_inline_lane_add(agent->broker, lane->key, &ends, err);
}

void pk_inline_lane_mark(struct pk_agent *agent, struct pk_lane *lane)
{
    struct pk_broker_inline_health health = { 0 };
    if (!lane->is_inline)
        return;
    (void)pk_broker_inline_lane_health(agent->broker, lane->key, &health, NULL);
    memcpy(lane->second.answered, health.answered, sizeof(health.answered));
}

int pk_inline_lane_answers(struct pk_agent *agent, struct pk_lane *lane, bool *ret_answers,
                           struct pk_error *err)
{
    struct pk_broker_inline_health health = { 0 };
    int r = pk_broker_inline_lane_health(agent->broker, lane->key, &health, err);
    if (r < 0)
        return r;
    *ret_answers = true;
    for (unsigned side = 0; side < PK_SIDES; side++)
        if (health.answered[side] < lane->second.answered[side] + PROBES_TO_TRUST)
            *ret_answers = false;
    return 0;
}

void pk_inline_refresh_probes(struct pk_agent *agent)
{
    struct pk_probe_target targets[PK_NODE_LANES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        const struct pk_lane *lane = agent->plane.lanes[i];
        if (!lane->is_inline || !lane->working)
            continue;
        targets[count++] = (struct pk_probe_target){ .outer = { lane->outer_ifindex,
                                                                lane->second.outer_ifindex } };
    }
    struct pk_error err = { 0 };
    if (pk_prober_set(agent->prober, targets, count, PROBE_PERIOD_MAX, &err) < 0)
        pk_log_error(PK_LOG_WARN, "node", &err, "cannot send probes");
}
