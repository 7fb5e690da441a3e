/* SPDX-License-Identifier: Apache-2.0 */
/* Every call that the server answers. To add one: a row here, a handler in api_<topic>.c, the
 * description in docs/api/openapi.json (a test fails while it lacks). */
#include "serve/internal.h"

#define FLEET "/v1/fleets/{fleet}"

/* clang-format off */
static const struct pk_http_route routes[] = {
    { "GET",    "/v1/version",                                    pk_api_version, PK_ROUTE_PUBLIC },
    { "POST",   "/v1/plans",                                      pk_api_plan_create, 0 },
    { "GET",    "/v1/plans/{id}",                                 pk_api_plan_get, 0 },
    { "POST",   "/v1/plans/{id}/apply",                           pk_api_plan_apply, 0 },
    { "GET",    "/v1/fleets",                                     pk_api_fleets, 0 },
    { "GET",    FLEET "/status",                                  pk_api_status, 0 },
    { "GET",    FLEET "/ledger",                                  pk_api_ledger, 0 },
    { "GET",    FLEET "/revisions",                               pk_api_revisions, 0 },
    { "GET",    FLEET "/revisions/{n}",                           pk_api_revision, 0 },
    { "GET",    FLEET "/revisions/{n}/progress",                  pk_api_progress, 0 },
    { "GET",    FLEET "/units/{group}/{lane}/{tool}/logs",        pk_api_logs, 0 },
    { "POST",   FLEET "/taps/{tap}/replay",                       pk_api_replay_start, 0 },
    { "GET",    FLEET "/taps/{tap}/replay",                       pk_api_replay_get, 0 },
    { "DELETE", FLEET "/taps/{tap}/replay",                       pk_api_replay_stop, 0 },
    { "PUT",    FLEET "/lanes/{group}/{lane}/drain",              pk_api_lane_drain, 0 },
    { "DELETE", FLEET "/lanes/{group}/{lane}/drain",              pk_api_lane_restore, 0 },
    { "POST",   FLEET "/shunts",                                  pk_api_shunts_add, 0 },
    { "GET",    FLEET "/shunts",                                  pk_api_shunts_list, 0 },
    { "DELETE", FLEET "/shunts",                                  pk_api_shunts_remove, 0 },
    { "GET",    FLEET "/shunts/stats",                            pk_api_shunts_stats, 0 },
    { "GET",    "/v1/node",                                       pk_api_node, 0 },
    { "GET",    "/v1/plane",                                      pk_api_plane, 0 },
    { "GET",    "/v1/events",                                     pk_api_events, 0 },
    { "GET",    "/v1/events/count",                               pk_api_events_count, 0 },
    { "GET",    "/v1/events/follow",                              pk_api_events_follow, 0 },
    { "GET",    "/v1/events/stats",                               pk_api_events_stats, 0 },
    { "GET",    "/v1/ingest",                                     pk_api_ingest_sources, 0 },
    { "POST",   "/v1/ingest",                                     pk_api_ingest, 0 },
    { "POST",   "/v1/ingest/canaries",                            pk_api_ingest_canaries, 0 },
    { "GET",    "/v1/tokens",                                     pk_api_tokens, 0 },
    { "POST",   "/v1/tokens",                                     pk_api_token_create, 0 },
    { "DELETE", "/v1/tokens/{name}",                              pk_api_token_revoke, 0 },
};
/* clang-format on */

const struct pk_http_route *pk_serve_routes(size_t *ret_count)
{
    *ret_count = PK_ARRAY_SIZE(routes);
    return routes;
}
