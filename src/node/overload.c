/* SPDX-License-Identifier: Apache-2.0 */
#include "node/overload.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "broker/shed.h"
#include "node/agent.h"

#define AREA "node"
/* The processors' time is all spent from here on. */
#define CPU_IS_FULL 0.95

/* ---- pure ---- */

static size_t share_of(size_t slots, double share)
{
    size_t count = (size_t)((double)slots * share);
    return count > 0 ? count : 1;
}

/* What has just come back was too much. */
static void wait_longer(struct pk_overload *state, pk_nsec now)
{
    if (state->back_at != 0 && now - state->back_at < state->hold)
        state->hold = PK_MIN(2 * state->hold, PK_OVERLOAD_HOLD_MAX);
}

static enum pk_overload_action worse(struct pk_overload *state, const struct pk_overload_look *look,
                                     size_t *ret_slots)
{
    state->clean_since = 0;
    if (state->lossy_since == 0) {
        state->lossy_since = look->now;
        state->next_at = look->now + PK_OVERLOAD_AFTER;
        wait_longer(state, look->now);
    }
    if (look->now < state->next_at)
        return PK_OVERLOAD_NONE;
    state->next_at = look->now + PK_OVERLOAD_AFTER;
    if (look->may.shunt && !state->shunting)
        return PK_OVERLOAD_SHUNT;
    if (!look->may.shed)
        return PK_OVERLOAD_NONE;
    double share = PK_MIN(PK_MAX(state->loss, PK_OVERLOAD_STEP_MIN), PK_OVERLOAD_STEP);
    *ret_slots = share_of(look->slots, share);
    return PK_OVERLOAD_SHED;
}

static enum pk_overload_action better(struct pk_overload *state,
                                      const struct pk_overload_look *look, size_t *ret_slots)
{
    state->lossy_since = 0;
    if (state->clean_since == 0) {
        state->clean_since = look->now;
        state->next_at = look->now + state->hold;
    }
    if (state->shed == 0 && !state->shunting) {
        if (look->now - state->clean_since > PK_OVERLOAD_HOLD_MAX)
            state->hold = PK_OVERLOAD_HOLD; /* that was another trouble */
        return PK_OVERLOAD_NONE;
    }
    if (look->now < state->next_at)
        return PK_OVERLOAD_NONE;
    state->back_at = look->now;
    state->next_at = look->now + PK_OVERLOAD_BACK;
    if (state->shed > 0) {
        size_t least = share_of(look->slots, PK_OVERLOAD_STEP_MIN);
        *ret_slots = PK_MIN(state->shed, PK_MAX(state->shed / 8, least));
        return PK_OVERLOAD_UNSHED;
    }
    state->next_at = look->now + state->hold;
    return PK_OVERLOAD_UNSHUNT;
}

enum pk_overload_action pk_overload_judge(struct pk_overload *state,
                                          const struct pk_overload_look *look, size_t *ret_slots)
{
    state->loss = look->sent > 0 ? (double)look->lost / (double)look->sent : 0;
    state->hold = PK_MAX(state->hold, PK_OVERLOAD_HOLD);
    /* What is not allowed any more comes back at once. */
    if (state->shed > 0 && !look->may.shed) {
        *ret_slots = state->shed;
        return PK_OVERLOAD_UNSHED;
    }
    if (state->shunting && !look->may.shunt)
        return PK_OVERLOAD_UNSHUNT;
    bool lossy = look->lost > PK_OVERLOAD_PACKETS && state->loss > PK_OVERLOAD_SHARE;
    return lossy ? worse(state, look, ret_slots) : better(state, look, ret_slots);
}

int pk_overload_victim(const struct pk_overload_candidate *candidates, size_t count, size_t own,
                       bool cpu_is_full)
{
    int best = candidates[own].may ? (int)own : -1;
    for (size_t i = 0; i < count && cpu_is_full; i++)
        if (candidates[i].may && candidates[i].priority < candidates[own].priority &&
            (best < 0 || candidates[i].priority < candidates[best].priority))
            best = (int)i;
    return best;
}

double pk_overload_cpu(const char *text, uint64_t state[2])
{
    /* "cpu  user nice system idle iowait irq softirq steal ...": proc(5) */
    uint64_t values[8] = { 0 };
    size_t count = 0;
    if (!pk_str_starts(text, "cpu "))
        return 0;
    const char *at = text + strlen("cpu ");
    while (count < PK_ARRAY_SIZE(values)) {
        char word[24];
        at += strspn(at, " ");
        size_t len = strspn(at, "0123456789");
        if (len == 0 || len >= sizeof word)
            break;
        memcpy(word, at, len);
        word[len] = '\0';
        if (pk_parse_u64(word, &values[count++], NULL) < 0)
            return 0;
        at += len;
    }
    if (count < 5)
        return 0;
    uint64_t all = 0, idle = values[3] + values[4];
    for (size_t i = 0; i < PK_ARRAY_SIZE(values); i++)
        all += values[i];
    uint64_t passed = all - state[0], unused = idle - state[1];
    bool first = state[0] == 0;
    state[0] = all;
    state[1] = idle;
    return first || passed == 0 || unused > passed ? 0 : 1 - (double)unused / (double)passed;
}

json_t *pk_overload_describe(const struct pk_overload *state)
{
    return json_pack("{s:s,s:I,s:f}", "state",
                     state->shed > 0   ? "shedding"
                     : state->shunting ? "shunting"
                                       : "none",
                     "shedSlots", (json_int_t)state->shed, "loss", state->loss);
}

/* ---- the agent's groups ---- */

static struct pk_lane *lane_of(struct pk_agent *agent, const struct pk_group *group, size_t share)
{
    char key[2 * PK_NODE_NAME_MAX + 16];
    (void)snprintf(key, sizeof(key), "%s/%u", group->key, group->shares[share].lane);
    return pk_node_plane_lane(&agent->plane, key);
}

/* Its packets are on their way through: nothing is left out there. */
static bool is_inline(struct pk_agent *agent, const struct pk_group *group)
{
    const struct pk_lane *lane = group->share_count > 0 ? lane_of(agent, group, 0) : NULL;
    return lane != NULL && lane->is_inline;
}

/* What the lane lost: in its receive ring, and in its tools' sockets, which the kernel counts and
 * the tools may tell. */
static void look_at_lane(struct pk_agent *agent, struct pk_lane *lane, uint64_t *sent,
                         uint64_t *lost)
{
    struct pk_broker_lane_count count = { 0 };
    struct pk_packet_socket sockets[PK_SOCKETS_MAX];
    size_t socket_count = 0;
    uint64_t dropped = 0;
    if (!lane->working || !lane->reader ||
        pk_broker_lane_count(agent->broker, lane->key, &count, NULL) < 0) {
        lane->overload.known = false;
        return;
    }
    if (lane->netns.diag_fd >= 0)
        (void)pk_sockets_list(lane->netns.diag_fd, lane->inner_ifindex, sockets, &socket_count,
                              NULL);
    for (size_t i = 0; i < socket_count; i++)
        dropped += sockets[i].dropped;
    uint64_t ring = count.sent > count.arrived ? count.sent - count.arrived : 0;
    uint64_t all = ring + PK_MAX(dropped, lane->lost);
    lane->overload.lossy = false;
    if (lane->overload.known) {
        uint64_t now_lost = all > lane->overload.lost ? all - lane->overload.lost : 0;
        uint64_t now_sent = count.sent > lane->overload.sent ? count.sent - lane->overload.sent : 0;
        *lost += now_lost;
        *sent += now_sent;
        lane->overload.lossy =
            now_lost > 0 && (double)now_lost > PK_OVERLOAD_SHARE * (double)now_sent;
    }
    lane->overload.known = true;
    lane->overload.lost = all;
    lane->overload.sent = count.sent;
}

static void shed(struct pk_agent *agent, struct pk_group *victim, const struct pk_group *cause,
                 size_t slots)
{
    bool lossy[PK_NODE_LANES_MAX] = { false };
    struct pk_error err = { 0 };
    size_t done = 0;
    bool before = victim->over.shed > 0;
    if (victim != cause) {
        wait_longer(&victim->over, cause->over.lossy_since);
        victim->over.clean_since = 0;
    }
    /* Its own trouble may be that of some lanes; another one's is the processors'. */
    for (size_t i = 0; i < victim->share_count; i++) {
        const struct pk_lane *lane = lane_of(agent, victim, i);
        if (lane != NULL && lane->index < PK_ARRAY_SIZE(lossy))
            lossy[lane->index] = victim != cause || lane->overload.lossy;
    }
    int r =
        pk_broker_shed(agent->broker, victim->key, lossy, PK_ARRAY_SIZE(lossy), slots, &done, &err);
    victim->over.shed = pk_broker_shed_count(agent->broker, victim->key);
    if (r < 0)
        pk_log_error(PK_LOG_WARN, AREA, &err, "group %s: its flows cannot be shed", victim->key);
    else if (done > 0)
        pk_log(before ? PK_LOG_DEBUG : PK_LOG_WARN, AREA,
               "group %s: %zu of %u slots of its flows are shed: the lanes of group %s cannot take "
               "all (%.1f %% lost)",
               victim->key, victim->over.shed, PK_SLOT_COUNT, cause->key, 100 * cause->over.loss);
}

static void unshed(struct pk_agent *agent, struct pk_group *group, size_t slots)
{
    struct pk_error err = { 0 };
    if (pk_broker_unshed(agent->broker, group->key, slots, &err) < 0)
        pk_log_error(PK_LOG_WARN, AREA, &err, "group %s: its flows stay shed", group->key);
    group->over.shed = pk_broker_shed_count(agent->broker, group->key);
    if (group->over.shed == 0)
        pk_log(PK_LOG_INFO, AREA, "group %s gets all of its flows again", group->key);
}

static void shunt(struct pk_agent *agent, struct pk_group *group, bool on)
{
    struct pk_error err = { 0 };
    if (pk_shunts_group_overload(agent->shunts, group->fleet, group->name, on, &err) < 0) {
        pk_log_error(PK_LOG_WARN, AREA, &err, "group %s: overload", group->key);
        return;
    }
    group->over.shunting = on;
    if (on)
        pk_log(PK_LOG_WARN, AREA,
               "group %s: its lanes cannot take all (%.1f %% lost): flows beyond 1 MiB are shunted",
               group->key, 100 * group->over.loss);
    else
        pk_log(PK_LOG_INFO, AREA, "group %s: large flows are delivered again", group->key);
}

static void shed_for(struct pk_agent *agent, size_t own, size_t slots, bool cpu_is_full)
{
    struct pk_overload_candidate candidates[PK_NODE_GROUPS_MAX];
    for (size_t i = 0; i < agent->plane.group_count; i++) {
        const struct pk_group *group = agent->plane.groups[i];
        candidates[i] = (struct pk_overload_candidate){
            .priority = group->priority,
            .may = group->overload.shed && group->over_sent > 0 && group->over.shed < PK_SLOT_COUNT,
        };
    }
    int victim = pk_overload_victim(candidates, agent->plane.group_count, own, cpu_is_full);
    if (victim >= 0)
        shed(agent, agent->plane.groups[victim], agent->plane.groups[own], slots);
}

/* What was shed for another group's sake comes back when all of higher priority are well. */
static bool others_suffer(const struct pk_agent *agent, const struct pk_group *group)
{
    for (size_t i = 0; i < agent->plane.group_count; i++) {
        const struct pk_group *other = agent->plane.groups[i];
        if (other != group && other->priority > group->priority &&
            (other->over.lossy_since != 0 || other->over.shed > 0))
            return true;
    }
    return false;
}

void pk_overload_look_at(struct pk_agent *agent, pk_nsec now)
{
    PK_CLEANUP(pk_free_p) char *stat = NULL;
    size_t len = 0;
    bool cpu_is_full = pk_file_read("/proc/stat", 1 << 20, &stat, &len, NULL) == 0 &&
                       pk_overload_cpu(stat, agent->cpu) >= CPU_IS_FULL;
    struct pk_overload_look looks[PK_NODE_GROUPS_MAX] = { 0 };
    for (size_t i = 0; i < agent->plane.group_count; i++) {
        struct pk_group *group = agent->plane.groups[i];
        looks[i] =
            (struct pk_overload_look){ .now = now, .slots = PK_SLOT_COUNT, .may = group->overload };
        if (is_inline(agent, group))
            continue;
        for (size_t k = 0; k < group->share_count; k++) {
            struct pk_lane *lane = lane_of(agent, group, k);
            if (lane != NULL)
                look_at_lane(agent, lane, &looks[i].sent, &looks[i].lost);
        }
        group->over_sent = looks[i].sent;
        if (!group->over_known) { /* an agent before this one may have shed */
            group->over.shed = pk_broker_shed_count(agent->broker, group->key);
            group->over_known = true;
        }
    }
    for (size_t i = 0; i < agent->plane.group_count; i++) {
        struct pk_group *group = agent->plane.groups[i];
        size_t slots = 0;
        switch (pk_overload_judge(&group->over, &looks[i], &slots)) {
        case PK_OVERLOAD_NONE:
            break;
        case PK_OVERLOAD_SHUNT:
            shunt(agent, group, true);
            break;
        case PK_OVERLOAD_SHED:
            shed_for(agent, i, slots, cpu_is_full);
            break;
        case PK_OVERLOAD_UNSHED:
            if (!looks[i].may.shed || !others_suffer(agent, group))
                unshed(agent, group, slots);
            break;
        case PK_OVERLOAD_UNSHUNT:
            shunt(agent, group, false);
            break;
        }
    }
}
