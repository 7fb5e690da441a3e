/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside fleet. Threads of a manager:
 *   engine, agent: look at their peer in turn and publish what they saw; nobody else waits for a
 * peer to learn the state, so a peer that hangs makes what is known old, not status slow events:
 * waits for the engine's changes and has it looked at again at once tools: asks the tools for their
 * counters reconciler: carries out applies and repairs The lock guards all fields of the manager
 * and its fleets, and is never held while waiting for a peer. Of a fleet, desired is replaced only
 * by who set busy; who set busy may read it without the lock.
 */
#ifndef PICKET_FLEET_INTERNAL_H
#define PICKET_FLEET_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/canary.h"
#include "base/http.h"
#include "base/map.h"
#include "base/str.h"
#include "fleet/fleet.h"
#include "plan/plan.h"

#define PK_LANE_DEVICE "tap0"

/* What the engine said; immutable, counted. */
struct pk_units_seen {
    atomic_uint refs;
    struct pk_unit_status *list;
    size_t count;
};

/* Canaries that came back in a tool's log. */
#define PK_CANARIES_KEPT 16u
struct pk_canaries_seen {
    uint64_t numbers[PK_CANARIES_KEPT]; /* a ring, by count */
    uint64_t count;
    pk_nsec delay; /* of the newest, from the agent to the shipper */
};

/* One peer: the newest answer, and since when it has none. Times are monotonic. */
enum pk_peer_kind { PK_PEER_ENGINE, PK_PEER_AGENT, PK_PEERS };
struct pk_peer {
    pk_nsec begun_at;      /* of the look that ended last */
    pk_nsec answered_at;   /* of the last look that worked; 0 = never */
    pk_nsec wanted_at;     /* somebody needs a look begun after this */
    struct pk_error error; /* of the last look; code 0 = it worked */
    bool told;             /* the trouble was logged */
};

/* How one unit fares. Kept in the state, so that counters go on after a restart of serve. */
struct pk_runtime {
    char *unit;         /* container's name */
    char *hash;         /* that the rest is about */
    pk_nsec started_at; /* of the container now known (wall clock) */
    uint64_t restarts;
    uint64_t base_packets, base_drops; /* of its earlier lives */
    uint64_t packets, drops;           /* of this life */
    char *reason;                      /* why it ended last: "exit code 1: Cannot open ..." */
    pk_nsec ended_at;                  /* wall clock */
    /* not kept: */
    pid_t pid;           /* of this life; 0 = not known */
    bool end_noted;      /* this life ended, and that was taken note of */
    unsigned failures;   /* ends without PK_HEALTHY_AFTER of health between */
    pk_nsec next_try_at; /* monotonic */
    pk_nsec answered_at; /* monotonic: the tool's own answer; 0 = none in this life */
    json_t *notes;       /* counters of this life that tell of loss; NULL = not known */
    struct pk_error probe_error;
    struct pk_canaries_seen canaries;
    bool dirty;
};

/* A step that failed in a repair is tried again later. */
struct pk_retry {
    unsigned failures;
    pk_nsec next_try_at; /* monotonic */
    struct pk_error error;
};

enum pk_outcome { PK_OUTCOME_APPLIED, PK_OUTCOME_APPLYING, PK_OUTCOME_FAILED };

struct pk_fleet {
    char *name;
    uint64_t revision;
    enum pk_outcome outcome;
    char *detail;   /* of a failed revision */
    char *document; /* of the revision; "" = the fleet is to go */
    struct pk_desired *desired;
    bool busy;            /* an apply or a repair works on it */
    bool job;             /* the revision is to be carried out by the reconciler */
    bool resumed;         /* the job was begun by an earlier serve */
    bool yield;           /* an apply waits for the repair to end */
    pk_nsec acted_at;     /* monotonic: what was seen before is old */
    json_t *journal;      /* steps of the revision */
    uint64_t version;     /* of the journal and outcome */
    json_t *drift;        /* steps that are to be taken, as of the last look */
    struct pk_strv known; /* see pk_observed.known */
    bool known_dirty;
    struct pk_runtime *runtimes;
    size_t runtime_count;
    struct pk_map *retries; /* step key -> struct pk_retry */
    json_t *ledger;         /* the account, see ledger.h; NULL = none yet */
    pk_nsec ledger_kept_at; /* of the newest sample in the state (wall clock) */
};

struct pk_manager {
    struct pk_manager_options options;
    struct pk_paths paths;
    char *node_url;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* anything below */
    pthread_t threads[5];
    size_t thread_count;
    bool stop;
    struct pk_peer peers[PK_PEERS];
    struct pk_units_seen *units; /* last that was seen */
    json_t *plane;
    struct pk_fleet **fleets;
    size_t fleet_count;
    json_t *sources;       /* container's name -> source */
    char *sources_written; /* text of the file, to write only changes */
    struct pk_engine_info engine_info;
    pthread_mutex_t files_lock;
    uint8_t canary_key[PK_CANARY_KEY_SIZE]; /* constant once loaded */
    pk_nsec shipper_at; /* monotonic: the shipper spoke of canaries; 0 = never */
    json_t
        *canaries_told;   /* lane -> when and what the agent was told; of the thread of the tools */
    struct pk_map *files; /* path -> hash by the file's signature */
};

/* ---- manager.c ---- */
void pk_manager_lock(struct pk_manager *manager);
void pk_manager_unlock(struct pk_manager *manager);
/* Waits for a change until deadline (monotonic). Lock held. */
void pk_manager_wait(struct pk_manager *manager, pk_nsec deadline);
struct pk_fleet *pk_manager_find(struct pk_manager *manager, const char *fleet); /* lock held */
/* Makes the fleet when there is none. Lock held. NULL = out of memory. */
struct pk_fleet *pk_manager_find_or_add(struct pk_manager *manager, const char *name);
void pk_manager_drop(struct pk_manager *manager, struct pk_fleet *fleet); /* lock held */
/* Takes desired; replaces the old one and tells the event store. Lock held. */
void pk_fleet_set_desired_take(struct pk_manager *manager, struct pk_fleet *fleet,
                               struct pk_desired *desired);
/* Works on a fleet's rows in the state. No lock. */
int pk_fleet_save(struct pk_manager *manager, struct pk_fleet *fleet, struct pk_error *err);
bool pk_fleet_must_yield(struct pk_manager *manager, struct pk_fleet *fleet); /* takes the lock */

/* ---- observe.c ---- */
void *pk_thread_engine(void *manager);
void *pk_thread_agent(void *manager);
void *pk_thread_events(void *arg);
/* What both peers said last, held for the caller. */
struct pk_view {
    struct pk_units_seen *units; /* NULL = never */
    json_t *plane;
    struct pk_error engine_error, agent_error; /* code 0 = the newest look worked */
    pk_nsec engine_begun, agent_begun, engine_answered, agent_answered;
};
void pk_view_take(struct pk_manager *manager, struct pk_view *ret_view); /* takes the lock */
void pk_view_done(struct pk_view *view);
/* Waits until both peers (or one) were looked at after now; PK_E_TIMEOUT when one hangs. The peers'
 * own errors are in the view. */
int pk_view_fresh(struct pk_manager *manager, unsigned peers, unsigned timeout_ms,
                  struct pk_view *ret_view, struct pk_error *err);
const struct pk_unit_status *pk_view_unit(const struct pk_view *view, const char *name);
const json_t *pk_view_lane(const struct pk_view *view, const char *fleet, const char *group,
                           unsigned index); /* row of the plane, NULL if absent */
const json_t *pk_view_tap(const struct pk_view *view, const char *fleet, const char *tap);
const json_t *pk_view_group(const struct pk_view *view, const char *fleet, const char *group);
/* Builds what plan compares with. desired may be NULL; known may be NULL. */
int pk_observe(struct pk_manager *manager, const struct pk_view *view, const char *fleet,
               const struct pk_desired *desired, const struct pk_strv *known,
               struct pk_observed **ret_observed, struct pk_error *err);
/* "exit code 1", "killed by signal 9", "out of memory (limit 2 GiB)"; returns out. */
char *pk_exit_text(const struct pk_unit_status *status, char *out, size_t size);

/* ---- agent.c ---- */
int pk_fleet_agent_call(struct pk_manager *manager, unsigned timeout_ms, const char *method,
                        json_t *body_take, json_t **ret_json, struct pk_error *err,
                        const char *path_fmt, ...) PK_PRINTF(7, 8);

/* ---- execute.c ---- */
/* Carries out one step. Idempotent. wait: until a unit is ready. */
int pk_step_execute(struct pk_manager *manager, struct pk_fleet *fleet,
                    const struct pk_observed *observed, const struct pk_step *step, bool wait,
                    struct pk_error *err);
/* Only the second half for a unit: until it is ready. */
int pk_unit_wait_ready(struct pk_manager *manager, struct pk_fleet *fleet,
                       const struct pk_unit *unit, struct pk_error *err);

/* ---- drain.c ---- */
/* Until no flow is in the lane any more, or the group's deadline is over; the lane then stays
 * without slots until it is restored, or nobody asks for some seconds. Its progress goes to the
 * step that runs. PK_E_INTERRUPTED. */
int pk_lane_drain(struct pk_manager *manager, struct pk_fleet *fleet, const char *group,
                  unsigned lane, struct pk_error *err);
void pk_lane_restore(struct pk_manager *manager, const struct pk_fleet *fleet, const char *group,
                     unsigned lane);
/* The same for lanes that have just been taken out of the group. */
int pk_group_drained(struct pk_manager *manager, struct pk_fleet *fleet, const char *group,
                     struct pk_error *err);

/* ---- reconcile.c ---- */
void *pk_thread_reconcile(void *arg);
/* "unit analysis/0/suricata" */
void pk_step_key(const struct pk_step *step, char *out, size_t size);
#define PK_STEP_KEY_MAX 192u
/* Journal rows of a plan's steps, all pending. */
json_t *pk_journal_of_plan(const struct pk_plan *plan);

/* ---- runtime.c: tools' counters, ends and restarts ---- */
void *pk_thread_tools(void *arg);
/* The end of what a unit wrote, in one line; as much as fits. */
void pk_unit_last_words(struct pk_engine *engine, const char *unit, struct pk_buf *ret_words);
struct pk_runtime *pk_runtime_find(struct pk_fleet *fleet, const char *unit); /* lock held */
/* Takes note of starts and ends that the view shows. Takes the lock. */
void pk_runtime_update(struct pk_manager *manager, struct pk_fleet *fleet,
                       const struct pk_view *view);
/* The tool was just found ready. Takes the lock. */
void pk_runtime_answered(struct pk_manager *manager, struct pk_fleet *fleet, const char *unit);
void pk_runtime_done(struct pk_runtime *runtime);
json_t *pk_runtimes_to_json(const struct pk_fleet *fleet); /* lock held */
int pk_runtimes_from_json(struct pk_fleet *fleet, const json_t *json);

/* ---- canary.c: canaries that came back, and lanes that get some (base/canary.h) ---- */
int pk_canaries_load(struct pk_manager *manager, struct pk_error *err);
/* Of the unit's lane. */
void pk_canary_token_text(const struct pk_manager *manager, const struct pk_unit *unit,
                          char out[PK_CANARY_TOKEN_TEXT]);
/* Tells the agent which lanes are to get canaries, and which came back. */
void pk_canaries_tell(struct pk_manager *manager);

/* ---- ledger.c ---- */
/* Looks at the plane anew and adds what it and the tools have counted to the fleets' accounts.
 * Waits for the agent; call it after the tools were asked: then none has read what its lane has not
 * had. */
void pk_ledger_tick(struct pk_manager *manager);
/* Packets that were in a tool's hands when it ended, by its lane's ledger. Lock held. */
int64_t pk_ledger_unconfirmed(const struct pk_fleet *fleet, const struct pk_unit *unit);
int pk_ledger_load(struct pk_manager *manager, struct pk_fleet *fleet, struct pk_error *err);
void pk_ledger_keep_all(struct pk_manager *manager); /* at the end of serve */
void pk_ledger_forget(struct pk_manager *manager, const char *fleet);

/* ---- sources.c ---- */
int pk_sources_load(struct pk_manager *manager, struct pk_error *err);
/* Writes the file when it changed. */
int pk_sources_add(struct pk_manager *manager, const struct pk_unit *unit, struct pk_error *err);
/* Those that are running, where the list was lost. */
void pk_sources_ensure(struct pk_manager *manager, const struct pk_desired *desired);
int pk_sources_retire(struct pk_manager *manager, const char *unit, struct pk_error *err);
/* The group is gone, and with it the agent's records of its shunts end. */
int pk_sources_retire_shunts(struct pk_manager *manager, const char *fleet, const char *group,
                             struct pk_error *err);
/* Forgets retired ones whose logs are gone. */
void pk_sources_sweep(struct pk_manager *manager);

/* ---- plans.c ---- */
#define PK_KIND_PLAN    "plan"    /* key: plan id -> {"plan","document","documentName",...} */
#define PK_KIND_DESIRED "desired" /* key: plan id -> frozen desired state */
#define PK_KIND_RUNTIME "runtime" /* key: fleet -> {"known","units"} */
#define PK_KIND_CANARY  "canary"  /* key: "key" -> {"key": hex} */
#define PK_KIND_LEDGER  "ledger"  /* key: fleet -> account; its samples are under the same key */

/* ---- status.c ---- */
json_t *pk_time_json(pk_nsec when); /* null for 0 */

#endif
