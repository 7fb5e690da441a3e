/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps fleets as their revisions say: plans, applies, watches and repairs. Owns one reconciler
 * thread per manager; the functions below are safe from any thread. What is done for an apply and
 * for a repair is the same code: observe, plan, carry out.
 */
#ifndef PICKET_FLEET_FLEET_H
#define PICKET_FLEET_FLEET_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"
#include "base/paths.h"
#include "catalog/catalog.h"
#include "engine/engine.h"
#include "store/store.h"

struct pk_manager;

struct pk_manager_options {
    struct pk_paths paths;
    struct pk_catalog *catalog; /* borrowed, as the next three */
    struct pk_engine *engine;
    struct pk_state *state;
    struct pk_events *events; /* for the numbers in status; NULL in tests */
    const char *node_socket;  /* NULL = <run>/node.sock */
    /* Where the agent puts a lane's network namespace (pk_lane_netns_path(); node is not below
     * fleet, so it is handed in). */
    char *(*lane_netns)(const char *tag, const char *fleet, const char *group, unsigned index);
};
int pk_manager_start(const struct pk_manager_options *options, struct pk_manager **ret_manager,
                     struct pk_error *err);
/* Stops the reconciler; sensors go on. An apply under way is cut off after its step, and is taken
 * up by the next start. */
void pk_manager_stop(struct pk_manager *manager);
PK_DEFINE_CLEANUP(struct pk_manager, pk_manager_stop);

/* Plans. Exactly one of document, (fleet and revision), (fleet and remove) says what is wanted.
 * *ret_plan = plan JSON as of pk_plan_to_json plus {"document","errors":[],"saved":true}. Faults of
 * the document: PK_E_INVALID and all of them in errors. */
struct pk_plan_request {
    const char *document;      /* YAML text */
    const char *document_name; /* for errors */
    const char *fleet;
    uint64_t revision; /* rollback */
    bool remove;
};
int pk_manager_plan(struct pk_manager *manager, const struct pk_plan_request *request,
                    json_t **ret_plan, struct pk_errors *errors, struct pk_error *err);
int pk_manager_plan_get(struct pk_manager *manager, const char *id, json_t **ret_plan,
                        struct pk_error *err);

/* Starts carrying out a saved plan. PK_E_CONFLICT when the state has moved since ("plan again") or
 * another apply runs. *ret_revision: its number; 0 = there was nothing to do. Follow it with
 * pk_manager_progress. */
int pk_manager_apply(struct pk_manager *manager, const char *plan_id, const char *user,
                     const char *reason, uint64_t *ret_revision, struct pk_error *err);
/* Journal of a revision:
 * {"fleet","revision","outcome","detail","steps":[{"op","kind","name","reason",
 * "state":"pending|running|done|failed","startedAt","finishedAt","detail"}],"version":N}. Waits up
 * to wait_ms for a version above after. */
int pk_manager_progress(struct pk_manager *manager, const char *fleet, uint64_t revision,
                        uint64_t after, unsigned wait_ms, json_t **ret_progress,
                        struct pk_error *err);

/* kind:"Status", the contract for scripts in README. PK_E_NOTFOUND when there is no such fleet. */
int pk_manager_status(struct pk_manager *manager, const char *fleet, json_t **ret_status,
                      struct pk_error *err);
/* Kind "Ledger": where packets went since a moment (0 = since the account began); a sample is kept
 * each minute, older ones more rarely. PK_E_NOTFOUND when there is no such fleet. */
int pk_manager_ledger(struct pk_manager *manager, const char *fleet, pk_nsec since,
                      json_t **ret_ledger, struct pk_error *err);
int pk_manager_fleets(struct pk_manager *manager, json_t **ret_names, struct pk_error *err);
/* Kind:"History": revisions newest first. */
int pk_manager_history(struct pk_manager *manager, const char *fleet, uint64_t before, size_t limit,
                       json_t **ret_history, struct pk_error *err);
int pk_manager_revision(struct pk_manager *manager, const char *fleet, uint64_t number,
                        json_t **ret_revision, struct pk_error *err);
/* From the shipper: canaries that it has read in tools' logs, {"canaries":[{"fleet","group","lane",
 * "tool","number","delayMs"}]}. Twice the same is once; what belongs to no tool is left out. That
 * it is called each few seconds tells that the shipper works. */
int pk_manager_canaries(struct pk_manager *manager, const json_t *seen, struct pk_error *err);
/* Last lines that a unit wrote ("analysis/0/suricata"). */
int pk_manager_logs(struct pk_manager *manager, const char *fleet, const char *unit, unsigned lines,
                    struct pk_buf *out, struct pk_error *err);

#endif
