/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's HTTP API; node.h describes it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/http.h"
#include "base/json.h"
#include "base/str.h"
#include "node/agent.h"
#include "node/metrics.h"

#define LEASE_MAX_MS 3600000u

static int reply(struct pk_http_request *request, json_t *json, struct pk_error *err)
{
    if (json == NULL)
        return pk_no_memory(err);
    return pk_http_reply_json_take(request, 200, json);
}

static int get_node(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    json_t *json = NULL;
    int r = pk_agent_inventory(arg, &json, err);
    return r < 0 ? r : reply(request, json, err);
}

static int get_plane(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    json_t *json = NULL;
    int r = pk_agent_plane(arg, &json, err);
    return r < 0 ? r : reply(request, json, err);
}

static int get_metrics(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf text = PK_BUF_INIT(PK_METRICS_MAX);
    int r = pk_agent_metrics(arg, &text, err);
    return r < 0 ? r : pk_http_reply(request, 200, PK_METRICS_TYPE, text.data, text.len);
}

static int delete_plane(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    int r = pk_agent_delete_all(arg, err);
    return r < 0 ? r : reply(request, json_object(), err);
}

static int lane_index(const struct pk_http_request *request, unsigned *ret_index,
                      struct pk_error *err)
{
    uint64_t index = 0;
    const char *text = pk_http_param(request, "index");
    if (pk_parse_u64(text, &index, NULL) < 0 || index > UINT32_MAX)
        return pk_fail(err, PK_E_USAGE, "'%.40s' is no number of a lane", text);
    *ret_index = (unsigned)index;
    return 0;
}

static int put_lane(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_agent *agent = arg;
    PK_JSON body = NULL;
    struct pk_lane *lane = NULL;
    json_t *json = NULL;
    unsigned index = 0;
    int r = lane_index(request, &index, err);
    if (r == 0)
        r = pk_http_body_json(request, &body, err);
    if (r == 0)
        r = pk_lane_parse(agent->paths.tag, pk_http_param(request, "fleet"),
                          pk_http_param(request, "group"), index, body, &lane, err);
    if (r == 0)
        r = pk_agent_put_lane_take(agent, lane, &json, err);
    return r < 0 ? r : reply(request, json, err);
}

static int delete_lane(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    unsigned index = 0;
    int r = lane_index(request, &index, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p)
    char *key = pk_asprintf("%s/%s/%u", pk_http_param(request, "fleet"),
                            pk_http_param(request, "group"), index);
    if (key == NULL)
        return pk_no_memory(err);
    r = pk_agent_delete_lane(arg, key, err);
    return r < 0 ? r : reply(request, json_object(), err);
}

static char *lane_key(const struct pk_http_request *request, struct pk_error *err)
{
    unsigned index = 0;
    if (lane_index(request, &index, err) < 0)
        return NULL;
    char *key = pk_asprintf("%s/%s/%u", pk_http_param(request, "fleet"),
                            pk_http_param(request, "group"), index);
    if (key == NULL)
        (void)pk_no_memory(err);
    return key;
}

static int turn_drain(void *arg, struct pk_http_request *request, bool on, struct pk_error *err)
{
    struct pk_error own = { 0 };
    err = err != NULL ? err : &own;
    PK_CLEANUP(pk_free_p) char *key = lane_key(request, err);
    if (key == NULL)
        return err->code;
    int r = pk_agent_drain_lane(arg, key, on, err);
    return r < 0 ? r : reply(request, json_object(), err);
}

static int put_drain(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    static const char *const keys[] = { "leaseMs" };
    struct pk_error own = { 0 };
    err = err != NULL ? err : &own;
    PK_JSON body = NULL;
    uint64_t lease = 0;
    int r = pk_http_body_json(request, &body, err);
    if (r == 0)
        r = pk_check_keys("drain", body, keys, PK_ARRAY_SIZE(keys), err);
    if (r < 0)
        return r;
    if (json_object_get(body, "leaseMs") == NULL)
        return turn_drain(arg, request, true, err);
    PK_CLEANUP(pk_free_p) char *key = lane_key(request, err);
    if (key == NULL)
        return err->code;
    r = pk_check_uint("drain", body, "leaseMs", 0, LEASE_MAX_MS, -1, &lease, err);
    if (r == 0)
        r = pk_agent_lease_lane(arg, key, (pk_nsec)lease * PK_NSEC_PER_MS, err);
    return r < 0 ? r : reply(request, json_object(), err);
}

static int delete_drain(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    return turn_drain(arg, request, false, err);
}

static int put_report(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    static const char *const keys[] = { "packets", "dropped" };
    struct pk_error own = { 0 };
    err = err != NULL ? err : &own;
    PK_JSON body = NULL;
    uint64_t told = 0, lost = 0;
    PK_CLEANUP(pk_free_p) char *key = lane_key(request, err);
    if (key == NULL)
        return err->code;
    int r = pk_http_body_json(request, &body, err);
    if (r == 0)
        r = pk_check_keys("report", body, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = pk_check_uint("report", body, "packets", 0, INT64_MAX, -1, &told, err);
    if (r == 0)
        r = pk_check_uint("report", body, "dropped", 0, INT64_MAX, -1, &lost, err);
    if (r == 0)
        r = pk_agent_report_lane(arg, key, told, lost, err);
    return r < 0 ? r : reply(request, json_object(), err);
}

static int put_canary(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_error own = { 0 };
    err = err != NULL ? err : &own;
    PK_JSON body = NULL;
    PK_CLEANUP(pk_free_p) char *key = lane_key(request, err);
    if (key == NULL)
        return err->code;
    int r = pk_http_body_json(request, &body, err);
    if (r == 0)
        r = pk_agent_canary_lane(arg, key, body, err);
    return r < 0 ? r : reply(request, json_object(), err);
}

static int put_group(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    PK_JSON body = NULL;
    struct pk_group *group = NULL;
    int r = pk_http_body_json(request, &body, err);
    if (r == 0)
        r = pk_group_parse(pk_http_param(request, "fleet"), pk_http_param(request, "group"), body,
                           &group, err);
    if (r == 0)
        r = pk_agent_put_group_take(arg, group, err);
    return r < 0 ? r : reply(request, json_object(), err);
}

static int delete_group(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    int r = pk_agent_delete_group(arg, pk_http_param(request, "fleet"),
                                  pk_http_param(request, "group"), err);
    return r < 0 ? r : reply(request, json_object(), err);
}

static int put_tap(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_agent *agent = arg;
    PK_JSON body = NULL;
    struct pk_tap *tap = NULL;
    int r = pk_http_body_json(request, &body, err);
    if (r == 0)
        r = pk_tap_parse(agent->paths.tag, pk_http_param(request, "fleet"),
                         pk_http_param(request, "tap"), body, &tap, err);
    if (r == 0)
        r = pk_agent_put_tap_take(agent, tap, err);
    return r < 0 ? r : reply(request, json_object(), err);
}

static int delete_tap(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    int r = pk_agent_delete_tap(arg, pk_http_param(request, "fleet"), pk_http_param(request, "tap"),
                                err);
    return r < 0 ? r : reply(request, json_object(), err);
}

static int post_replay(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    PK_JSON body = NULL;
    json_t *json = NULL;
    int r = pk_http_body_json(request, &body, err);
    if (r == 0)
        r = pk_agent_replay_start(arg, pk_http_param(request, "fleet"),
                                  pk_http_param(request, "tap"), body, &json, err);
    return r < 0 ? r : reply(request, json, err);
}

static int get_replay(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    json_t *json = NULL;
    int r = pk_agent_replay_status(arg, pk_http_param(request, "fleet"),
                                   pk_http_param(request, "tap"), &json, err);
    return r < 0 ? r : reply(request, json, err);
}

static int delete_replay(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    json_t *json = NULL;
    int r = pk_agent_replay_stop(arg, pk_http_param(request, "fleet"),
                                 pk_http_param(request, "tap"), &json, err);
    return r < 0 ? r : reply(request, json, err);
}

static int post_shunts(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_agent *agent = arg;
    PK_JSON body = NULL;
    json_t *json = NULL;
    int r = pk_http_body_json(request, &body, err);
    if (r == 0)
        r = pk_shunts_post(agent->shunts, pk_http_param(request, "fleet"), body, &json, err);
    return r < 0 ? r : reply(request, json, err);
}

static int delete_shunts(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_agent *agent = arg;
    PK_JSON body = NULL;
    json_t *json = NULL;
    int r = pk_http_body_json(request, &body, err);
    if (r == 0)
        r = pk_shunts_delete(agent->shunts, pk_http_param(request, "fleet"), body, &json, err);
    return r < 0 ? r : reply(request, json, err);
}

static int query_number(const struct pk_http_request *request, const char *name, uint64_t max,
                        unsigned fallback, unsigned *ret_number, struct pk_error *err)
{
    const char *text = pk_http_query(request, name);
    uint64_t number = fallback;
    if (text != NULL && (pk_parse_u64(text, &number, NULL) < 0 || number < 1 || number > max))
        return pk_fail(err, PK_E_USAGE, "'%s' must be a number from 1 to %llu", name,
                       (unsigned long long)max);
    *ret_number = (unsigned)number;
    return 0;
}

static int get_shunts(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_agent *agent = arg;
    unsigned limit = 0;
    int r = query_number(request, "limit", PK_SHUNT_PAGE_MAX, 1000, &limit, err);
    if (r < 0)
        return r;
    struct pk_buf text = PK_BUF_INIT((size_t)1024 * (PK_SHUNT_PAGE_MAX + 1));
    r = pk_shunts_list(agent->shunts, pk_http_param(request, "fleet"),
                       pk_http_query(request, "group"), pk_http_query(request, "page"), limit,
                       &text, err);
    if (r == 0)
        r = pk_http_reply(request, 200, "application/json", text.data, text.len);
    pk_buf_done(&text);
    return r;
}

static int get_shunt_stats(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_agent *agent = arg;
    unsigned top = 0;
    json_t *json = NULL;
    int r = query_number(request, "top", 100, 10, &top, err);
    if (r == 0)
        r = pk_shunts_stats(agent->shunts, pk_http_param(request, "fleet"), top, &json, err);
    return r < 0 ? r : reply(request, json, err);
}

static const struct pk_http_route routes[] = {
    { "GET", "/v1/node", get_node, 0 },
    { "GET", "/v1/plane", get_plane, 0 },
    { "DELETE", "/v1/plane", delete_plane, 0 },
    { "GET", "/metrics", get_metrics, 0 },
    { "PUT", "/v1/fleets/{fleet}/lanes/{group}/{index}", put_lane, 0 },
    { "DELETE", "/v1/fleets/{fleet}/lanes/{group}/{index}", delete_lane, 0 },
    { "PUT", "/v1/fleets/{fleet}/lanes/{group}/{index}/drain", put_drain, 0 },
    { "DELETE", "/v1/fleets/{fleet}/lanes/{group}/{index}/drain", delete_drain, 0 },
    { "PUT", "/v1/fleets/{fleet}/lanes/{group}/{index}/report", put_report, 0 },
    { "PUT", "/v1/fleets/{fleet}/lanes/{group}/{index}/canary", put_canary, 0 },
    { "PUT", "/v1/fleets/{fleet}/groups/{group}", put_group, 0 },
    { "DELETE", "/v1/fleets/{fleet}/groups/{group}", delete_group, 0 },
    { "PUT", "/v1/fleets/{fleet}/taps/{tap}", put_tap, 0 },
    { "DELETE", "/v1/fleets/{fleet}/taps/{tap}", delete_tap, 0 },
    { "POST", "/v1/fleets/{fleet}/taps/{tap}/replay", post_replay, 0 },
    { "GET", "/v1/fleets/{fleet}/taps/{tap}/replay", get_replay, 0 },
    { "DELETE", "/v1/fleets/{fleet}/taps/{tap}/replay", delete_replay, 0 },
    { "POST", "/v1/fleets/{fleet}/shunts", post_shunts, 0 },
    { "GET", "/v1/fleets/{fleet}/shunts", get_shunts, 0 },
    { "DELETE", "/v1/fleets/{fleet}/shunts", delete_shunts, 0 },
    { "GET", "/v1/fleets/{fleet}/shunts/stats", get_shunt_stats, 0 },
};

/* Who may open the socket at all is the matter of its mode and group. */
static int authorise_group(void *arg, const struct pk_http_peer *peer, const char *method,
                           const char *path, struct pk_error *err)
{
    (void)arg;
    (void)method;
    (void)path;
    return peer->local ? 0 : pk_fail(err, PK_E_DENIED, "only over the unix socket");
}

static int authorise_owner(void *arg, const struct pk_http_peer *peer, const char *method,
                           const char *path, struct pk_error *err)
{
    int r = authorise_group(arg, peer, method, path, err);
    if (r < 0 || peer->uid == 0 || peer->uid == geteuid())
        return r;
    return pk_fail(err, PK_E_DENIED, "only root may speak with the agent");
}

int pk_node_api_start(struct pk_agent *agent, gid_t socket_gid, struct pk_http_server **ret_server,
                      struct pk_error *err)
{
    char socket_path[sizeof(agent->paths.run_dir) + 16];
    (void)snprintf(socket_path, sizeof(socket_path), "%s/node.sock", agent->paths.run_dir);
    bool for_group = socket_gid != (gid_t)-1;
    const struct pk_http_server_options options = {
        .routes = routes,
        .route_count = PK_ARRAY_SIZE(routes),
        .arg = agent,
        .socket_path = socket_path,
        .socket_mode = for_group ? 0660 : 0600,
        .socket_gid = socket_gid,
        .max_body = 1u << 20,
        .max_connections = 64,
        .authorise = for_group ? authorise_group : authorise_owner,
    };
    return pk_http_server_start(&options, ret_server, err);
}

int pk_node_metrics_start(struct pk_agent *agent, const char *listen,
                          struct pk_http_server **ret_server, struct pk_error *err)
{
    static const struct pk_http_route metrics_routes[] = {
        { "GET", "/metrics", get_metrics, PK_ROUTE_PUBLIC },
    };
    char address[64];
    struct pk_http_server_options options = {
        .routes = metrics_routes,
        .route_count = PK_ARRAY_SIZE(metrics_routes),
        .arg = agent,
        .address = address,
        .clear = true,
        .max_body = 4096,
        .max_connections = 16,
        .authorise = authorise_group, /* asked for no route */
    };
    int r = pk_http_parse_listen("--metrics", listen, "127.0.0.1", address, sizeof(address),
                                 &options.port, err);
    return r < 0 ? r : pk_http_server_start(&options, ret_server, err);
}
