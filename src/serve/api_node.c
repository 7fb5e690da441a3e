/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent answers, handed on: /v1/node, /v1/plane, replay and shunts. */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "serve/internal.h"

#define MAX_LANE 1023u

static int hand_on(struct pk_serve *serve, struct pk_http_request *request, const char *method,
                   const char *path, const json_t *body, struct pk_error *err)
{
    const struct pk_http_client_options options = { .base_url = serve->node_url,
                                                    .timeout_ms = 20000 };
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    json_t *answer = NULL;
    int r = pk_http_client_new(&options, &client, err);
    if (r < 0)
        return r;
    r = pk_http_json(client, method, path, body, &answer, err);
    if (r == PK_E_UNREACHABLE) {
        (void)pk_fail(err, r, "the agent ('picket node') does not answer");
        return pk_hint(err, "see its log; 'picket up' or 'systemctl start picket-node' starts it");
    }
    if (r < 0)
        return r;
    if (answer == NULL)
        answer = json_object();
    return pk_http_reply_json_take(request, 200, answer);
}

int pk_api_node(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    return hand_on(arg, request, "GET", "/v1/node", NULL, err);
}

int pk_api_plane(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    return hand_on(arg, request, "GET", "/v1/plane", NULL, err);
}

static int replay(void *arg, struct pk_http_request *request, const char *method,
                  const json_t *body, struct pk_error *err)
{
    const char *fleet = NULL, *tap = NULL;
    int r = pk_serve_fleet_param(request, &fleet, err);
    if (r >= 0)
        r = pk_serve_name_param(request, "tap", &tap, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("/v1/fleets/%s/taps/%s/replay", fleet, tap);
    if (path == NULL)
        return pk_no_memory(err);
    return hand_on(arg, request, method, path, body, err);
}

int pk_api_replay_get(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    return replay(arg, request, "GET", NULL, err);
}

int pk_api_replay_stop(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    return replay(arg, request, "DELETE", NULL, err);
}

/* The agent opens the files as root: only someone who could read them anyway may name them. That
 * holds for the unix socket's users, who administrate this machine, and for admin tokens by their
 * role. */
int pk_api_replay_start(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    static const char *const keys[] = { "files", "mode", "speed", "maxGapMs",
                                        "pps",   "mbps", "loops", NULL };
    PK_JSON body = NULL;
    int r = pk_serve_body_object(request, keys, &body, err);
    if (r < 0)
        return r;
    return replay(arg, request, "POST", body, err);
}

/* ---- lanes ---- */

static int turn_drain(void *arg, struct pk_http_request *request, const char *method,
                      struct pk_error *err)
{
    const char *fleet = NULL, *group = NULL, *lane = pk_http_param(request, "lane");
    uint64_t index = 0;
    int r = pk_serve_fleet_param(request, &fleet, err);
    if (r >= 0)
        r = pk_serve_name_param(request, "group", &group, err);
    if (r >= 0 && (pk_parse_u64(lane, &index, NULL) < 0 || index > MAX_LANE)) {
        (void)pk_fail(err, PK_E_USAGE, "'%.40s' is no number of a lane", lane);
        r = pk_hint(err, "lanes are numbered from 0; 'picket status' lists them");
    }
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p)
    char *path = pk_asprintf("/v1/fleets/%s/lanes/%s/%u/drain", fleet, group, (unsigned)index);
    PK_JSON body = json_object();
    if (path == NULL || body == NULL)
        return pk_no_memory(err);
    return hand_on(arg, request, method, path, method[0] == 'P' ? body : NULL, err);
}

int pk_api_lane_drain(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    return turn_drain(arg, request, "PUT", err);
}

int pk_api_lane_restore(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    return turn_drain(arg, request, "DELETE", err);
}

/* ---- shunts: the agent checks the bodies ---- */

static int shunts(void *arg, struct pk_http_request *request, const char *method, const char *query,
                  struct pk_error *err)
{
    const char *fleet = NULL;
    PK_JSON body = NULL;
    size_t len = 0;
    int r = pk_serve_fleet_param(request, &fleet, err);
    (void)pk_http_body(request, &len);
    if (r >= 0 && len > 0)
        r = pk_http_body_json(request, &body, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("/v1/fleets/%s/shunts%s", fleet, query);
    if (path == NULL)
        return pk_no_memory(err);
    return hand_on(arg, request, method, path, body, err);
}

int pk_api_shunts_add(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    return shunts(arg, request, "POST", "", err);
}

int pk_api_shunts_remove(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    return shunts(arg, request, "DELETE", "", err);
}

int pk_api_shunts_list(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    uint64_t limit = 0, page = 0;
    int r = pk_serve_number_query(request, "limit", 1, 4096, 1000, &limit, err);
    if (r >= 0)
        r = pk_serve_number_query(request, "page", 0, UINT32_MAX, 0, &page, err);
    if (r < 0)
        return r;
    const char *group = pk_http_query(request, "group");
    PK_CLEANUP(pk_free_p) char *name = group != NULL ? pk_url_escape(group) : NULL;
    PK_CLEANUP(pk_free_p)
    char *query = pk_asprintf("?limit=%u&page=%u%s%s", (unsigned)limit, (unsigned)page,
                              name != NULL ? "&group=" : "", name != NULL ? name : "");
    return query == NULL ? pk_no_memory(err) : shunts(arg, request, "GET", query, err);
}

int pk_api_shunts_stats(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    uint64_t top = 0;
    int r = pk_serve_number_query(request, "top", 1, 100, 10, &top, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p) char *query = pk_asprintf("/stats?top=%u", (unsigned)top);
    return query == NULL ? pk_no_memory(err) : shunts(arg, request, "GET", query, err);
}
