/* SPDX-License-Identifier: Apache-2.0 */
/* /v1/version and /v1/fleets: what runs and what ran. */
#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "serve/internal.h"

#define MAX_HISTORY   500u
#define MAX_WAIT_MS   30000u
#define WAIT_SLICE_MS 500u /* so that a stop of the server never waits longer for a long poll */
#define MAX_LOG_LINES 10000u
#define MAX_LOG_BYTES (4u << 20)
#define MAX_LANE      255u

int pk_api_version(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    (void)arg;
    (void)err;
    return pk_http_reply_json_take(
        request, 200,
        json_pack("{s:s,s:s,s:s}", "name", "picket", "version", PICKET_VERSION, "api", "v1"));
}

int pk_api_fleets(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    json_t *names = NULL;
    int r = pk_manager_fleets(serve->manager, &names, err);
    if (r < 0)
        return r;
    return pk_http_reply_json_take(request, 200, json_pack("{s:o}", "fleets", names));
}

int pk_api_status(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    const char *fleet = NULL;
    json_t *status = NULL;
    int r = pk_serve_fleet_param(request, &fleet, err);
    if (r >= 0)
        r = pk_manager_status(serve->manager, fleet, &status, err);
    return r < 0 ? r : pk_http_reply_json_take(request, 200, status);
}

int pk_api_ledger(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    const char *fleet = NULL;
    pk_nsec since = 0;
    json_t *ledger = NULL;
    int r = pk_serve_fleet_param(request, &fleet, err);
    if (r >= 0)
        r = pk_serve_time_query(request, "since", pk_time_now(), 0, &since, err);
    if (r >= 0)
        r = pk_manager_ledger(serve->manager, fleet, since, &ledger, err);
    return r < 0 ? r : pk_http_reply_json_take(request, 200, ledger);
}

int pk_api_revisions(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    const char *fleet = NULL;
    uint64_t before = 0, limit = 0;
    json_t *history = NULL;
    int r = pk_serve_fleet_param(request, &fleet, err);
    if (r >= 0)
        r = pk_serve_number_query(request, "before", 0, INT64_MAX, 0, &before, err);
    if (r >= 0)
        r = pk_serve_number_query(request, "limit", 1, MAX_HISTORY, 50, &limit, err);
    if (r >= 0)
        r = pk_manager_history(serve->manager, fleet, before, limit, &history, err);
    return r < 0 ? r : pk_http_reply_json_take(request, 200, history);
}

static int revision_params(struct pk_http_request *request, const char **ret_fleet,
                           uint64_t *ret_number, struct pk_error *err)
{
    int r = pk_serve_fleet_param(request, ret_fleet, err);
    if (r >= 0)
        r = pk_serve_number_param(request, "n", 1, INT64_MAX, ret_number, err);
    return r;
}

int pk_api_revision(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    const char *fleet = NULL;
    uint64_t number = 0;
    json_t *revision = NULL;
    int r = revision_params(request, &fleet, &number, err);
    if (r >= 0)
        r = pk_manager_revision(serve->manager, fleet, number, &revision, err);
    return r < 0 ? r : pk_http_reply_json_take(request, 200, revision);
}

int pk_api_progress(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    const char *fleet = NULL;
    uint64_t number = 0, after = 0, wait_ms = 0;
    int r = revision_params(request, &fleet, &number, err);
    if (r >= 0)
        r = pk_serve_number_query(request, "after", 0, INT64_MAX, 0, &after, err);
    if (r >= 0)
        r = pk_serve_number_query(request, "wait", 0, MAX_WAIT_MS, 0, &wait_ms, err);
    if (r < 0)
        return r;
    for (;;) {
        unsigned slice = (unsigned)PK_MIN(wait_ms, (uint64_t)WAIT_SLICE_MS);
        PK_JSON progress = NULL;
        r = pk_manager_progress(serve->manager, fleet, number, after, slice, &progress, err);
        if (r < 0)
            return r;
        wait_ms -= slice;
        bool over = !pk_str_equal(pk_json_string_or(progress, "outcome", ""), "applying");
        if (over || wait_ms == 0 || (uint64_t)pk_json_int_or(progress, "version", 0) > after ||
            atomic_load(&serve->stopping))
            return pk_http_reply_json_take(request, 200, PK_TAKE(progress));
    }
}

int pk_api_logs(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct pk_serve *serve = arg;
    const char *fleet = NULL, *group = NULL, *tool = NULL;
    uint64_t lane = 0, lines = 0;
    int r = pk_serve_fleet_param(request, &fleet, err);
    if (r >= 0)
        r = pk_serve_name_param(request, "group", &group, err);
    if (r >= 0)
        r = pk_serve_number_param(request, "lane", 0, MAX_LANE, &lane, err);
    if (r >= 0)
        r = pk_serve_name_param(request, "tool", &tool, err);
    if (r >= 0)
        r = pk_serve_number_query(request, "lines", 1, MAX_LOG_LINES, 200, &lines, err);
    if (r < 0)
        return r;
    char unit[128];
    (void)snprintf(unit, sizeof(unit), "%s/%llu/%s", group, (unsigned long long)lane, tool);
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(MAX_LOG_BYTES);
    r = pk_manager_logs(serve->manager, fleet, unit, (unsigned)lines, &out, err);
    if (r < 0)
        return r;
    return pk_http_reply(request, 200, "text/plain; charset=utf-8",
                         out.data == NULL ? "" : out.data, out.len);
}
