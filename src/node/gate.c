/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate of a lane: shut while nobody reads it, so that what arrives is counted and not lost
 * unseen.
 *
 * A tool that has just opened its socket does not read yet: Suricata (source-af-packet.c,
 * AFPSynchronizeSocketCreation) throws away what arrives until its poll of 100 ms has come back
 * empty once, and probes the interface with a socket that it closes again. Its ring comes up to
 * 0.7 s after its socket (measured; the memory is locked). So the gate opens when the sockets have
 * not changed for a while: where the kernel shows that each of them has its ring, the rest of the
 * way is a few of those polls, which nothing disturbs, since nothing gets through a shut gate;
 * without that knowledge it must be a time that is long enough.
 */
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/time.h"
#include "node/agent.h"

#define RING_SETTLES   (400 * PK_NSEC_PER_MS)
#define SOCKET_SETTLES (1500 * PK_NSEC_PER_MS)

/* ---- processes ---- */

void pk_lane_forget_readers(struct pk_lane *lane)
{
    for (size_t i = 0; i < lane->reader_count; i++)
        (void)close(lane->readers[i].pidfd); /* leaves the agent's epoll with it */
    lane->reader_count = 0;
}

/* Who reads is looked for once the sockets have settled: it costs a look at all processes. */
static void find_readers(struct pk_agent *agent, struct pk_lane *lane,
                         const struct pk_packet_socket *sockets, size_t count)
{
    pk_lane_forget_readers(lane);
    if (count == 0)
        return;
    lane->reader_count =
        pk_readers_find(lane->netns.fd, sockets, count, lane->readers, PK_LANE_READERS);
    for (size_t i = 0; i < lane->reader_count; i++) {
        struct epoll_event event = { .events = EPOLLIN };
        (void)epoll_ctl(agent->ends_fd, EPOLL_CTL_ADD, lane->readers[i].pidfd, &event);
    }
}

void pk_agent_reader_ended(struct pk_agent *agent)
{
    (void)pthread_mutex_lock(&agent->lock);
    for (size_t i = 0; i < agent->plane.lane_count; i++) {
        struct pk_lane *lane = agent->plane.lanes[i];
        bool ended = false;
        for (size_t k = lane->reader_count; k-- > 0;) {
            uint64_t ticks;
            char state = pk_reader_look(lane->readers[k].pid, &ticks);
            if (state != 0 && state != 'Z' && state != 'X')
                continue;
            (void)close(lane->readers[k].pidfd);
            lane->readers[k] = lane->readers[--lane->reader_count];
            ended = true;
        }
        if (ended)
            pk_lane_poll_reader(agent, lane);
    }
    (void)pthread_mutex_unlock(&agent->lock);
}

/* ---- sockets ---- */

static uint64_t sign(const struct pk_packet_socket *sockets, size_t count, bool *ret_ring)
{
    uint64_t sum = 0;
    *ret_ring = count > 0;
    for (size_t i = 0; i < count; i++) { /* in any order */
        sum += pk_hash_mix(sockets[i].inode, sockets[i].ring ? 1 : 2);
        *ret_ring &= sockets[i].ring;
    }
    return sum;
}

/* A lane whose gate is open, but which has no slots though it should: an agent before this one took
 * them away. */
static bool was_ill(struct pk_agent *agent, const struct pk_lane *lane)
{
    const struct pk_group *group = pk_node_plane_group(&agent->plane, lane->fleet, lane->group);
    for (size_t i = 0; group != NULL && i < group->share_count; i++)
        if (group->shares[i].lane == lane->index && group->shares[i].weight > 0)
            return !lane->drained && !pk_lane_has_device(lane) &&
                   pk_broker_lane_is_bare(agent->broker, lane->key);
    return false;
}

static int is_settled(struct pk_agent *agent, struct pk_lane *lane, uint64_t signature, bool ring,
                      bool *ret_settled, struct pk_error *err)
{
    pk_nsec now = pk_time_monotonic();
    pk_nsec settles = ring ? RING_SETTLES : SOCKET_SETTLES;
    /* Open already: an agent before this one saw it settle. What a device brings has no gate. */
    bool open = pk_lane_has_device(lane) || pk_broker_lane_reader(agent->broker, lane->key);
    if (lane->gate.since == 0) {
        lane->gate.since = open ? now - settles : now;
        pk_inline_lane_mark(agent, lane);
    } else if (signature != lane->gate.signature && !lane->reader) {
        lane->gate.since = now;
    }
    /* An inline tool need not be guessed about: it reads when it sends. */
    if (lane->is_inline && !open)
        return pk_inline_lane_answers(agent, lane, ret_settled, err);
    *ret_settled = lane->is_inline || now - lane->gate.since >= settles;
    return 0;
}

static int look(struct pk_lane *lane, struct pk_packet_socket sockets[PK_SOCKETS_MAX],
                size_t *ret_count, bool *ret_reader, struct pk_error *err)
{
    int r = PK_E_UNSUPPORTED;
    *ret_count = 0;
    if (lane->netns.diag_fd >= 0)
        r = pk_sockets_list(lane->netns.diag_fd, lane->inner_ifindex, sockets, ret_count, err);
    if (r == 0)
        *ret_reader = *ret_count > 0;
    if (r != PK_E_UNSUPPORTED)
        return r;
    pk_close_p(&lane->netns.diag_fd);
    *err = (struct pk_error){ 0 };
    return pk_netns_has_reader(&lane->netns, lane->inner_ifindex, ret_reader, err);
}

/* What was handed to its tools until the last of them ended: what they have not told of by then
 * they never will. */
static void note_end(struct pk_agent *agent, struct pk_lane *lane)
{
    struct pk_broker_lane_count count;
    lane->ends++;
    if (pk_broker_lane_count(agent->broker, lane->key, &count, NULL) == 0)
        lane->given = count.arrived - PK_MIN(count.arrived, count.unread) + count.canaries;
    lane->told = lane->lost = lane->canary.told = 0;
}

void pk_lane_adopt(struct pk_agent *agent, struct pk_lane *lane)
{
    lane->reader = pk_broker_lane_reader(agent->broker, lane->key);
    lane->health.unproven = lane->reader && was_ill(agent, lane);
    if (lane->reader)
        lane->health.health = lane->health.unproven ? PK_HEALTH_STALLED : PK_HEALTH_HEALTHY;
}

void pk_lane_poll_reader(struct pk_agent *agent, struct pk_lane *lane)
{
    struct pk_error err = { 0 };
    struct pk_packet_socket sockets[PK_SOCKETS_MAX];
    size_t count = 0;
    bool reader = false, ring = false;
    if (!lane->working || lane->netns.packet_fd < 0)
        return;
    int r = look(lane, sockets, &count, &reader, &err);
    if (r == 0 && reader && lane->is_inline)
        r = pk_netns_has_reader(&lane->netns, lane->second.inner_ifindex, &reader, &err);
    uint64_t signature = sign(sockets, count, &ring);
    if (r == 0 && !reader)
        lane->gate.since = 0;
    else if (r == 0)
        r = is_settled(agent, lane, signature, ring, &reader, &err);
    bool sockets_changed = signature != lane->gate.signature;
    lane->gate.signature = signature;
    /* Told every time: it costs one map update, and a lane made anew starts without. */
    if (r == 0 && !pk_lane_has_device(lane))
        r = pk_broker_lane_set_reader(agent->broker, lane->key, reader, &err);
    if (r < 0) {
        (void)snprintf(lane->detail, sizeof(lane->detail), "%.199s", err.msg);
        lane->working = false;
        return;
    }
    bool changed = reader != lane->reader;
    lane->reader = reader;
    if (reader && (changed || sockets_changed))
        find_readers(agent, lane, sockets, count);
    else if (!reader && changed)
        pk_lane_forget_readers(lane);
    if (lane->is_inline)
        pk_inline_lane_watch(agent, lane);
    if (!changed)
        return;
    if (!reader) {
        (void)pk_health_judge(&lane->health, &(struct pk_health_look){ .reader = false });
        pk_lane_changed(agent, lane); /* before anything else: packets are lost meanwhile */
        note_end(agent, lane);
    } else {
        pk_agent_look_at_lane(agent, lane);
        pk_lane_changed(agent, lane);
    }
    pk_log(PK_LOG_INFO, "node", "lane %s: %s", lane->key,
           reader ? "a tool reads it" : "no tool reads it");
}
