/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's state and what its HTTP API (api.c) calls. */
#ifndef PICKET_NODE_AGENT_H
#define PICKET_NODE_AGENT_H

#include <pthread.h>

#include "base/buf.h"
#include "base/loop.h"
#include "node/internal.h"
#include "node/node.h"

/* A group that was removed and whose shunts are not all taken out yet: it waits for the sweep. */
struct pk_leaving {
    char key[2 * PK_NODE_NAME_MAX + 2];
    bool told; /* a fault was logged */
};

struct pk_agent {
    struct pk_paths paths;
    char plane_path[224];
    char bpf_path[128];
    struct nl_sock *nl; /* the machine's links */
    int ioctl_fd;
    pthread_mutex_t lock; /* guards all below, and the above two */
    struct pk_plane plane;
    bool unsaved; /* plane.json is behind: the sweep tries again */
    struct pk_leaving leaving[PK_NODE_GROUPS_MAX];
    size_t leaving_count;
    struct pk_broker *broker;
    struct pk_prober *prober;
    struct pk_shunts *shunts;       /* has a lock of its own */
    size_t poll_next;               /* the lane whose reader was looked for last */
    pk_nsec started_at, sweep_time; /* wall clock; all sweeps together */
    uint64_t sweeps;
    int ends_fd; /* an epoll: readable when a process that reads a lane has ended */
    pk_nsec second_at;
    int canary_fd; /* to send by */
    struct pk_cpus cpus;
    pk_nsec cpus_at;
};

int pk_agent_open(const struct pk_paths *paths, struct pk_agent **ret_agent, struct pk_error *err);
/* Stops replays; leaves the plane running. */
void pk_agent_close(struct pk_agent *agent);
PK_DEFINE_CLEANUP(struct pk_agent, pk_agent_close);

static inline void pk_agent_unlock_p(struct pk_agent **agent)
{
    (void)pthread_mutex_unlock(&(*agent)->lock);
}
/* Has the lock until the end of the block. */
#define PK_AGENT_LOCKED(agent)                                                  \
    PK_CLEANUP(pk_agent_unlock_p) PK_UNUSED struct pk_agent *locked_ = (agent); \
    (void)pthread_mutex_lock(&(agent)->lock)

/* ---- the lock is held ---- */
int pk_agent_save(struct pk_agent *agent, struct pk_error *err); /* plane.json */
/* The same where nothing is to wait for it: after a change that did not work, and before a removal.
 * A failure is logged, and the sweep tries again. */
void pk_agent_save_later(struct pk_agent *agent);
/* Removes the broker's group, at once or, where it has many shunts or something does not work, with
 * the sweeps that come. */
void pk_agent_group_leave(struct pk_agent *agent, const char *key);
/* It was asked for anew: it is not removed any more. */
void pk_agent_group_stay(struct pk_agent *agent, const char *key);
/* Goes on with all that is to go and is not gone, and with a file that is behind. */
void pk_agent_end_removals(struct pk_agent *agent);
/* How the tap's replay goes; NULL = out of memory. */
json_t *pk_agent_tap_replay(const struct pk_agent *agent, struct pk_tap *tap);

/* ---- all of these take the lock ---- */
/* Everything as it should be; failures are kept in the things' states and logged when they change.
 */
void pk_agent_sweep(struct pk_agent *agent);
/* Some lanes each time, all in turn. */
void pk_agent_poll_readers(struct pk_agent *agent);
/* When ends_fd is readable. */
void pk_agent_reader_ended(struct pk_agent *agent);
/* Health, drains, balance: a few times a second. */
void pk_agent_look_at_lanes(struct pk_agent *agent);
/* Its slots to the other lanes, flow by flow, and back. */
int pk_agent_drain_lane(struct pk_agent *agent, const char *key, bool on, struct pk_error *err);
/* The same for a time, which 0 ends. */
int pk_agent_lease_lane(struct pk_agent *agent, const char *key, pk_nsec lease,
                        struct pk_error *err);
/* What its tools say of themselves: packets that they took and lost since they started. */
int pk_agent_report_lane(struct pk_agent *agent, const char *key, uint64_t told, uint64_t lost,
                         struct pk_error *err);
/* Removes what carries the instance's tag and is not wanted: a call that was cut short by a crash.
 */
void pk_agent_remove_strays(struct pk_agent *agent);
int pk_agent_plane(struct pk_agent *agent, json_t **ret_json, struct pk_error *err);
/* The text of GET /metrics. */
int pk_agent_metrics(struct pk_agent *agent, struct pk_buf *buf, struct pk_error *err);
int pk_agent_inventory(struct pk_agent *agent, json_t **ret_json, struct pk_error *err);
/* The thing is the call's to keep, in any case. */
int pk_agent_put_lane_take(struct pk_agent *agent, struct pk_lane *lane, json_t **ret_json,
                           struct pk_error *err);
int pk_agent_put_group_take(struct pk_agent *agent, struct pk_group *group, struct pk_error *err);
int pk_agent_put_tap_take(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err);
int pk_agent_delete_lane(struct pk_agent *agent, const char *key, struct pk_error *err);
int pk_agent_delete_group(struct pk_agent *agent, const char *fleet, const char *name,
                          struct pk_error *err);
int pk_agent_delete_tap(struct pk_agent *agent, const char *fleet, const char *name,
                        struct pk_error *err);
int pk_agent_delete_all(struct pk_agent *agent, struct pk_error *err);
int pk_agent_replay_start(struct pk_agent *agent, const char *fleet, const char *name,
                          const json_t *body, json_t **ret_json, struct pk_error *err);
int pk_agent_replay_status(struct pk_agent *agent, const char *fleet, const char *name,
                           json_t **ret_json, struct pk_error *err);
int pk_agent_replay_stop(struct pk_agent *agent, const char *fleet, const char *name,
                         json_t **ret_json, struct pk_error *err);

/* ---- api.c ---- */
struct pk_http_server;
int pk_node_api_start(struct pk_agent *agent, gid_t socket_gid, struct pk_http_server **ret_server,
                      struct pk_error *err);
/* Metrics alone, in clear, for who reaches the address: "127.0.0.1:9433", "9433". */
int pk_node_metrics_start(struct pk_agent *agent, const char *listen,
                          struct pk_http_server **ret_server, struct pk_error *err);

#endif
