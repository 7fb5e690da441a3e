/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's lanes and groups under overload: what is seen of them, and what is done. */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/time.h"
#include "broker/shed.h"
#include "node/agent.h"
#include "node/overload.h"

#define AREA "node"
/* The processors' time is all spent from here on. */
#define CPU_IS_FULL 0.95
/* Of a second: who waits so long for a processor gets too little of it. */
#define WAITS 0.10
/* Of the processors' time: where so much goes into receiving, other groups' packets take it. */
#define RECEIVES 0.25
/* Looks at processes' mappings in one round. */
#define PLACES 4u

static struct pk_lane *lane_of(struct pk_agent *agent, const struct pk_group *group, size_t share)
{
    char key[2 * PK_NODE_NAME_MAX + 16];
    (void)snprintf(key, sizeof(key), "%s/%u", group->key, group->shares[share].lane);
    return pk_node_plane_lane(&agent->plane, key);
}

/* ---- lanes ---- */

/* Of the fullest one; and what was lost in sockets, as far as the kernel tells. */
static double look_at_sockets(struct pk_lane *lane, uint64_t bytes, unsigned *places,
                              double *ret_room, uint64_t *ret_dropped)
{
    struct pk_packet_socket sockets[PK_SOCKETS_MAX];
    size_t count = 0;
    double fill = PK_FILL_UNKNOWN;
    *ret_dropped = 0;
    *ret_room = 0;
    if (lane->netns.diag_fd < 0 ||
        pk_sockets_list(lane->netns.diag_fd, lane->inner_ifindex, sockets, &count, NULL) < 0)
        return fill;
    for (size_t i = 0; i < count; i++) {
        *ret_dropped += sockets[i].dropped;
        if (i >= PK_ARRAY_SIZE(lane->rings))
            continue;
        double one =
            pk_socket_fill(&sockets[i], lane->readers, lane->reader_count, &lane->rings[i], places);
        if (one >= fill)
            *ret_room = pk_socket_room(&sockets[i], bytes);
        fill = PK_MAX(fill, one);
    }
    return fill;
}

static void look_at_lane(struct pk_agent *agent, struct pk_lane *lane, pk_nsec now, pk_nsec acted,
                         unsigned *places)
{
    struct pk_broker_lane_count count = { 0 };
    bool reads = lane->working && lane->reader && lane->health.health > PK_HEALTH_STALLED;
    if (!reads || pk_broker_lane_count(agent->broker, lane->key, &count, NULL) < 0) {
        lane->overload = (struct pk_overload_lane){ .fill = PK_FILL_UNKNOWN };
        return;
    }
    uint64_t dropped = 0;
    double room = 0;
    double fill = look_at_sockets(lane, count.sent > 0 ? count.sent_bytes / count.sent : 0, places,
                                  &room, &dropped);
    const struct pk_overload_lane_look look = {
        .now = now,
        .acted = acted,
        .sent = count.sent,
        .lost = dropped + (count.sent > count.arrived ? count.sent - count.arrived : 0),
        .told = lane->told,
        .told_lost = lane->lost,
        .told_at = lane->told_at,
        .fill = fill,
        .room = room,
    };
    pk_overload_judge_lane(&lane->overload, &look);
}

/* Its lanes together; false: there is nothing that could be left out. */
static bool look_at_group(struct pk_agent *agent, struct pk_group *group,
                          struct pk_overload_look *look, unsigned *places)
{
    double sent = 0, lost = 0, too_many = 0, excess = 0;
    bool known = true;
    group->over.fill = PK_FILL_UNKNOWN;
    for (size_t i = 0; i < group->share_count; i++) {
        struct pk_lane *lane = lane_of(agent, group, i);
        if (lane == NULL)
            continue;
        /* Inline, packets are on their way through; what a device brings, nobody can leave out. */
        if (lane->is_inline || pk_lane_has_device(lane))
            return false;
        look_at_lane(agent, lane, look->now, group->over.acted, places);
        const struct pk_overload_lane *seen = &lane->overload;
        sent += seen->sent;
        lost += seen->lost;
        group->over.fill = PK_MAX(group->over.fill, seen->fill);
        look->sign = PK_MAX(look->sign, seen->sign);
        if (seen->sign < PK_OVERLOAD_RISING)
            continue;
        known &= seen->excess >= 0;
        too_many += seen->sent;
        excess += PK_MAX(seen->excess, 0) * seen->sent;
        lost += PK_MAX(seen->excess * seen->sent - seen->lost, 0);
    }
    look->excess = known && too_many > 0 ? excess / too_many : -1;
    group->over.loss = sent > 0 ? PK_MIN(lost / sent, 1) : 0;
    group->over_sent = sent;
    return true;
}

/* ---- processors ---- */

static void cpus_of(struct pk_agent *agent, const struct pk_group *group, cpu_set_t *ret_set)
{
    bool any = false;
    CPU_ZERO(ret_set);
    for (size_t i = 0; i < group->share_count; i++) {
        const struct pk_lane *lane = lane_of(agent, group, i);
        for (size_t k = 0; lane != NULL && k < lane->reader_count; k++) {
            cpu_set_t one;
            if (sched_getaffinity(lane->readers[k].pid, sizeof one, &one) < 0)
                continue;
            CPU_OR(ret_set, ret_set, &one);
            any = true;
        }
    }
    for (size_t i = 0; !any && i < CPU_SETSIZE; i++)
        CPU_SET(i, ret_set);
}

/* Do the group's tools get too little of their processors, which others use? Each second. */
static void look_at_cpus(struct pk_agent *agent, struct pk_group *group, double seconds)
{
    uint64_t waited = 0;
    double busy = 0, soft = 0;
    unsigned count = 0;
    cpus_of(agent, group, &group->cpus);
    for (size_t i = 0; i < PK_MIN(PK_CPUS_MAX, (unsigned)CPU_SETSIZE); i++) {
        if (!agent->cpus.there[i] || !CPU_ISSET(i, &group->cpus))
            continue;
        busy += agent->cpus.busy[i];
        soft += agent->cpus.soft[i];
        count++;
    }
    for (size_t i = 0; i < group->share_count; i++) {
        const struct pk_lane *lane = lane_of(agent, group, i);
        for (size_t k = 0; lane != NULL && k < lane->reader_count; k++)
            waited += pk_process_waited(lane->readers[k].pid);
    }
    double waits = waited > group->waited && group->waited != 0
                       ? (double)(waited - group->waited) / (double)PK_NSEC_PER_SEC / seconds
                       : 0;
    group->waited = waited;
    group->starves =
        count > 0 && busy / count >= CPU_IS_FULL && (waits >= WAITS || soft / count >= RECEIVES);
}

static bool share_cpus(const struct pk_group *a, const struct pk_group *b)
{
    cpu_set_t both;
    CPU_AND(&both, &a->cpus, &b->cpus);
    return CPU_COUNT(&both) > 0;
}

static void look_at_all_cpus(struct pk_agent *agent, pk_nsec now)
{
    PK_CLEANUP(pk_free_p) char *stat = NULL;
    size_t len = 0;
    double seconds = (double)(now - agent->cpus_at) / (double)PK_NSEC_PER_SEC;
    if (now - agent->cpus_at < PK_NSEC_PER_SEC ||
        pk_file_read("/proc/stat", 4u << 20, &stat, &len, NULL) < 0)
        return;
    pk_cpus_update(&agent->cpus, stat);
    for (size_t i = 0; i < agent->plane.group_count; i++)
        look_at_cpus(agent, agent->plane.groups[i], seconds);
    agent->cpus_at = now;
}

/* ---- what is done ---- */

static void count_shed(struct pk_agent *agent, struct pk_group *group)
{
    size_t own = pk_broker_shed_count(agent->broker, group->key, PK_SHED_OWN);
    group->over.yielded = pk_broker_shed_count(agent->broker, group->key, PK_SHED_YIELDED);
    group->over.shed = own + group->over.yielded;
}

static void note_acted(struct pk_group *group, pk_nsec now, bool before)
{
    bool after = group->over.shed > 0 || group->over.shunting;
    group->over.acted = now;
    if (!after)
        group->over.since = 0;
    else if (!before || group->over.since == 0)
        group->over.since = pk_time_now();
}

static double percent(size_t slots)
{
    return 100.0 * (double)slots / PK_SLOT_COUNT;
}

static void shed(struct pk_agent *agent, struct pk_group *victim, struct pk_group *cause,
                 double share, pk_nsec now)
{
    bool lanes[PK_NODE_LANES_MAX] = { false };
    struct pk_error err = { 0 };
    size_t done = 0;
    bool before = victim->over.shed > 0 || victim->over.shunting, began = victim->over.shed == 0;
    if (victim != cause)
        pk_overload_too_early(&victim->over, now);
    /* Its own trouble may be that of some lanes; another one's is the processors'. */
    for (size_t i = 0; i < victim->share_count; i++) {
        const struct pk_lane *lane = lane_of(agent, victim, i);
        if (lane != NULL && lane->index < PK_ARRAY_SIZE(lanes))
            lanes[lane->index] = victim != cause || lane->overload.sign >= PK_OVERLOAD_RISING;
    }
    int r = pk_broker_shed(agent->broker, victim->key, lanes, PK_ARRAY_SIZE(lanes), share,
                           victim == cause ? PK_SHED_OWN : PK_SHED_YIELDED, &done, &err);
    count_shed(agent, victim);
    note_acted(victim, now, before);
    cause->over.acted = now;
    /* With more of the processors its tools take more: what they took before is no guide. */
    for (size_t i = 0; victim != cause && i < cause->share_count; i++) {
        struct pk_lane *lane = lane_of(agent, cause, i);
        if (lane != NULL)
            lane->overload.takes = 0;
    }
    if (r < 0) {
        pk_log_error(PK_LOG_WARN, AREA, &err, "group %s: its flows cannot be shed", victim->key);
        return;
    }
    if (done == 0)
        return;
    const struct pk_overload *over = &cause->over;
    pk_log(began ? PK_LOG_WARN : PK_LOG_INFO, AREA,
           "group %s: %.1f %% of its flows are shed: the lanes of group %s cannot take all (%s%.1f "
           "%%)",
           victim->key, percent(victim->over.shed), cause->key,
           over->loss > 0 ? "lost: " : "queue: ",
           100 * (over->loss > 0 ? over->loss : PK_MAX(over->fill, 0)));
}

static void unshed(struct pk_agent *agent, struct pk_group *group, size_t slots,
                   enum pk_shed_reason reason, pk_nsec now)
{
    struct pk_error err = { 0 };
    if (pk_broker_unshed(agent->broker, group->key, slots, reason, &err) < 0)
        pk_log_error(PK_LOG_WARN, AREA, &err, "group %s: its flows stay shed", group->key);
    count_shed(agent, group);
    note_acted(group, now, true);
    if (group->over.shed == 0)
        pk_log(PK_LOG_INFO, AREA, "group %s: nothing is shed any more", group->key);
    else
        pk_log(PK_LOG_DEBUG, AREA, "group %s: %.1f %% of its flows are shed still", group->key,
               percent(group->over.shed));
}

static void shunt(struct pk_agent *agent, struct pk_group *group, bool on, pk_nsec now)
{
    struct pk_error err = { 0 };
    bool before = group->over.shed > 0 || group->over.shunting;
    if (pk_shunts_group_overload(agent->shunts, group->fleet, group->name, on, &err) < 0) {
        pk_log_error(PK_LOG_WARN, AREA, &err, "group %s: overload", group->key);
        return;
    }
    group->over.shunting = on;
    note_acted(group, now, before);
    if (on)
        pk_log(PK_LOG_WARN, AREA,
               "group %s: its lanes cannot take all: flows beyond 1 MiB are shunted", group->key);
    else
        pk_log(PK_LOG_INFO, AREA, "group %s: large flows are delivered again", group->key);
}

static void shed_for(struct pk_agent *agent, size_t own, double share, pk_nsec now)
{
    struct pk_overload_candidate candidates[PK_NODE_GROUPS_MAX];
    struct pk_group *cause = agent->plane.groups[own];
    for (size_t i = 0; i < agent->plane.group_count; i++) {
        const struct pk_group *group = agent->plane.groups[i];
        candidates[i] = (struct pk_overload_candidate){
            .priority = group->priority,
            .may =
                group->overload.shed && group->over_sent >= 1 && group->over.shed < PK_SLOT_COUNT,
            .shares = share_cpus(cause, group),
        };
    }
    int victim = pk_overload_victim(candidates, agent->plane.group_count, own, cause->starves);
    if (victim < 0)
        return;
    /* What it lost a moment ago has not shown its effect yet. */
    struct pk_group *group = agent->plane.groups[victim];
    if ((size_t)victim != own && now - group->over.acted < PK_OVERLOAD_EVERY / 2)
        return;
    shed(agent, group, cause, share, now);
}

/* What was shed for another group's sake comes back when all of higher priority are well. */
static bool others_suffer(const struct pk_agent *agent, const struct pk_group *group)
{
    for (size_t i = 0; i < agent->plane.group_count; i++) {
        const struct pk_group *other = agent->plane.groups[i];
        if (other->priority > group->priority && share_cpus(other, group) &&
            (other->over.bad_since != 0 || (other->over.shed > 0 && other->starves)))
            return true;
    }
    return false;
}

/* First what its own lanes could not take. */
static void give_back(struct pk_agent *agent, struct pk_group *group, size_t slots, pk_nsec now)
{
    size_t own = group->over.shed - group->over.yielded;
    if (!group->overload.shed) {
        unshed(agent, group, own, PK_SHED_OWN, now);
        unshed(agent, group, group->over.yielded, PK_SHED_YIELDED, now);
    } else if (own > 0) {
        unshed(agent, group, slots, PK_SHED_OWN, now);
    } else if (!others_suffer(agent, group)) {
        unshed(agent, group, slots, PK_SHED_YIELDED, now);
    } else {
        group->over.back = 0;
    }
}

static void act(struct pk_agent *agent, size_t own, const struct pk_overload_look *look)
{
    struct pk_group *group = agent->plane.groups[own];
    const struct pk_overload_step step = pk_overload_judge(&group->over, look);
    switch (step.action) {
    case PK_OVERLOAD_NONE:
        break;
    case PK_OVERLOAD_SHUNT:
        shunt(agent, group, true, look->now);
        break;
    case PK_OVERLOAD_SHED:
        shed_for(agent, own, step.share, look->now);
        break;
    case PK_OVERLOAD_UNSHED:
        give_back(agent, group, step.slots, look->now);
        break;
    case PK_OVERLOAD_UNSHUNT:
        shunt(agent, group, false, look->now);
        break;
    }
}

/* Nobody else keeps what is shed alive. */
static void renew(struct pk_agent *agent, struct pk_group *group)
{
    struct pk_error err = { 0 };
    if (group->over_known && group->over.shed == 0)
        return;
    if (pk_broker_shed_renew(agent->broker, group->key, &err) < 0)
        pk_log_error(PK_LOG_DEBUG, AREA, &err, "group %s: what is shed ends soon", group->key);
    count_shed(agent, group);
    group->over_known = true;
}

void pk_overload_look_at(struct pk_agent *agent, pk_nsec now)
{
    struct pk_overload_look looks[PK_NODE_GROUPS_MAX];
    unsigned places = PLACES;
    bool takes_part[PK_NODE_GROUPS_MAX];
    look_at_all_cpus(agent, now);
    for (size_t i = 0; i < agent->plane.group_count; i++) {
        struct pk_group *group = agent->plane.groups[i];
        looks[i] = (struct pk_overload_look){
            .now = now, .sign = PK_OVERLOAD_CALM, .slots = PK_SLOT_COUNT, .may = group->overload
        };
        renew(agent, group);
        takes_part[i] = look_at_group(agent, group, &looks[i], &places);
    }
    for (size_t i = 0; i < agent->plane.group_count; i++)
        if (takes_part[i])
            act(agent, i, &looks[i]);
}
