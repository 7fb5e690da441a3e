/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of serve share: the server's parts, authorisation, checks of route inputs. */
#ifndef PICKET_SERVE_INTERNAL_H
#define PICKET_SERVE_INTERNAL_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/http.h"
#include "catalog/catalog.h"
#include "engine/engine.h"
#include "fleet/fleet.h"
#include "serve/serve.h"
#include "store/store.h"

struct pk_serve {
    const struct pk_serve_options *options;
    char node_url[128]; /* "unix:<run>/node.sock" */
    gid_t group;        /* of the socket; (gid_t)-1 = none */
    int lock_fd;
    struct pk_catalog *catalog;
    struct pk_engine *engine;
    struct pk_state *state;
    struct pk_events *events;
    struct pk_manager *manager;
    struct pk_http_server *server;
    pthread_mutex_t token_lock; /* makes "name is free, store it" one step */
    atomic_bool stopping;       /* ends long polls and streams */
    atomic_uint streams;        /* open ones */
};

/* ---- auth.c ---- */
enum pk_role { PK_ROLE_NONE, PK_ROLE_READ, PK_ROLE_ADMIN };
/* The authorise hook of the HTTP server; arg is the struct pk_serve. */
int pk_serve_authorise(void *arg, const struct pk_http_peer *peer, const char *method,
                       const char *path, struct pk_error *err);
/* What a role may do; pure. */
bool pk_serve_role_allows(enum pk_role role, const char *method, const char *path);
/* Who asks, for revisions and logs: "root", "token ci". */
void pk_serve_user(struct pk_serve *serve, const struct pk_http_peer *peer, char *out, size_t size);
/* A new token; *ret_token is its only appearance in clear. Release with pk_free(). */
int pk_serve_token_create(struct pk_serve *serve, const char *name, const char *role,
                          const char *user, char **ret_token, struct pk_error *err);
/* [{"name","role","createdAt","createdBy","lastUsedAt"}], by name. */
int pk_serve_token_list(struct pk_serve *serve, json_t **ret_list, struct pk_error *err);
int pk_serve_token_revoke(struct pk_serve *serve, const char *name, struct pk_error *err);

/* ---- check.c: all inputs of routes are hostile ---- */
/* Path parameters; the text is valid during the request. */
int pk_serve_fleet_param(const struct pk_http_request *request, const char **ret_fleet,
                         struct pk_error *err);
int pk_serve_name_param(const struct pk_http_request *request, const char *param,
                        const char **ret_name, struct pk_error *err);
int pk_serve_number_param(const struct pk_http_request *request, const char *param, uint64_t min,
                          uint64_t max, uint64_t *ret_value, struct pk_error *err);
/* Query parameters; absent gives other. */
int pk_serve_number_query(const struct pk_http_request *request, const char *name, uint64_t min,
                          uint64_t max, uint64_t other, uint64_t *ret_value, struct pk_error *err);
int pk_serve_time_query(const struct pk_http_request *request, const char *name, pk_nsec now,
                        pk_nsec other, pk_nsec *ret_when, struct pk_error *err);
/* The body as an object that has none but the named keys (NULL-terminated list). An empty body is
 * an empty object. */
int pk_serve_body_object(struct pk_http_request *request, const char *const *keys,
                         json_t **ret_object, struct pk_error *err);
/* A member that must be text when present; NULL when absent. */
int pk_serve_text_member(const json_t *object, const char *key, size_t max, const char **ret_text,
                         struct pk_error *err);
/* {"error": first, "errors": all} as a 422 answer. */
int pk_serve_reply_errors(struct pk_http_request *request, const struct pk_errors *errors);

/* ---- the routes: api_*.c. arg is the struct pk_serve ---- */
typedef int pk_serve_handler(void *arg, struct pk_http_request *request, struct pk_error *err);
pk_serve_handler pk_api_version;
pk_serve_handler pk_api_fleets, pk_api_status, pk_api_ledger, pk_api_revisions, pk_api_revision,
    pk_api_progress, pk_api_logs;
pk_serve_handler pk_api_plan_create, pk_api_plan_get, pk_api_plan_apply;
pk_serve_handler pk_api_node, pk_api_plane, pk_api_replay_start, pk_api_replay_get,
    pk_api_replay_stop, pk_api_lane_drain, pk_api_lane_restore;
pk_serve_handler pk_api_shunts_add, pk_api_shunts_remove, pk_api_shunts_list, pk_api_shunts_stats;
pk_serve_handler pk_api_events, pk_api_events_count, pk_api_events_follow, pk_api_events_stats,
    pk_api_ingest_sources, pk_api_ingest, pk_api_ingest_canaries;
pk_serve_handler pk_api_tokens, pk_api_token_create, pk_api_token_revoke;

#endif
