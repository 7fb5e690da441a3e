/* SPDX-License-Identifier: Apache-2.0 */
/* picket lane: lanes that are to have no flows for a while. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/commands.h"

#define LOOK_EVERY_MS 500u

struct lane_args {
    const char *fleet;
    bool wait;
};
#define FLEET_OPT                                                                \
    {                                                                            \
        "fleet", 'f', PK_OPT_STRING, "FLEET", offsetof(struct lane_args, fleet), \
            "the fleet (the only one there is)", "fleet"                         \
    }

struct lane_name {
    char *fleet, *group;
    unsigned index;
};

static void lane_name_done(struct lane_name *name)
{
    pk_free(name->fleet);
    pk_free(name->group);
}

/* "analysis/1", or "lab/analysis/1" with its fleet. */
static int parse_name(struct pk_ctx *ctx, struct pk_http_client *client, const char *fleet,
                      const char *text, struct lane_name *ret_name, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *copy = pk_strdup(text);
    if (copy == NULL)
        return pk_no_memory(err);
    char *index = strrchr(copy, '/');
    uint64_t number = 0;
    bool good = index != NULL && pk_parse_u64(index + 1, &number, NULL) == 0 && number < 1024;
    if (index != NULL)
        *index = '\0';
    char *slash = strchr(copy, '/');
    const char *group = slash != NULL ? slash + 1 : copy;
    if (slash != NULL) {
        *slash = '\0';
        good &= fleet == NULL || strcmp(fleet, copy) == 0;
        fleet = copy;
    }
    if (!good || !pk_str_is_name(group, 63) || (slash != NULL && !pk_str_is_name(copy, 63))) {
        (void)pk_fail(err, PK_E_USAGE, "'%.80s' is no lane", text);
        return pk_hint(err, "write GROUP/NUMBER, as 'picket status' does: analysis/1");
    }
    int r = pk_client_fleet(ctx, client, fleet, &ret_name->fleet, err);
    ret_name->group = r == 0 ? pk_strdup(group) : NULL;
    ret_name->index = (unsigned)number;
    return r == 0 && ret_name->group == NULL ? pk_no_memory(err) : r;
}

/* What drains from the lane, borrowed from the plane; NULL = nothing does. */
static const json_t *drain_of(const json_t *plane, const struct lane_name *name)
{
    const json_t *lane;
    size_t i;
    json_array_foreach(json_object_get(plane, "lanes"), i, lane)
    {
        if (pk_json_int_or(lane, "index", -1) == name->index &&
            strcmp(pk_json_string_or(lane, "group", ""), name->group) == 0 &&
            strcmp(pk_json_string_or(lane, "fleet", ""), name->fleet) == 0)
            return json_object_get(lane, "drain");
    }
    return NULL;
}

static int wait_drained(struct pk_ctx *ctx, struct pk_http_client *client,
                        const struct lane_name *name, struct pk_error *err)
{
    for (;;) {
        PK_JSON plane = NULL;
        int r = pk_client_json(ctx, client, "GET", "/v1/plane", NULL, &plane, err);
        if (r < 0)
            return r;
        const json_t *drain = drain_of(plane, name);
        if (strcmp(pk_json_string_or(drain, "state", ""), "draining") != 0)
            return 0;
        if (!ctx->quiet)
            fprintf(stderr, "%s/%u: %" PRId64 " flows left, %" PRId64 " s at most\n", name->group,
                    name->index, pk_json_int_or(drain, "flows", 0),
                    (pk_json_int_or(drain, "leftMs", 0) + 999) / 1000);
        pk_sleep_ms(LOOK_EVERY_MS);
    }
}

static int turn(struct pk_ctx *ctx, const struct lane_args *args, const char *lane, bool drain,
                struct pk_error *err)
{
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(lane_name_done) struct lane_name name = { 0 };
    PK_JSON answer = NULL;
    int r = pk_ctx_client(ctx, &client, err);
    if (r == 0)
        r = parse_name(ctx, client, args->fleet, lane, &name, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p)
    char *path = pk_asprintf("/v1/fleets/%s/lanes/%s/%u/drain", name.fleet, name.group, name.index);
    if (path == NULL)
        return pk_no_memory(err);
    r = pk_client_json(ctx, client, drain ? "PUT" : "DELETE", path, NULL, &answer, err);
    if (r == 0 && drain && args->wait)
        r = wait_drained(ctx, client, &name, err);
    if (r < 0 || ctx->quiet)
        return r;
    if (!drain)
        printf("Lane %s/%u gets its slots back; flows stay where they are until they end.\n",
               name.group, name.index);
    else if (args->wait)
        printf("Lane %s/%u has drained: it gets no packets until 'picket lane restore'.\n",
               name.group, name.index);
    else
        printf("Lane %s/%u drains: new flows go to the other lanes ('picket status').\n",
               name.group, name.index);
    return 0;
}

static const struct pk_arg lane_pos[] = {
    { "LANE", "GROUP/NUMBER, as 'picket status' names it", NULL, false, false },
};

/* ---- drain ---- */

static const struct lane_args defaults = { .fleet = NULL };
static const struct pk_opt drain_opts[] = {
    FLEET_OPT,
    { "wait", 'w', PK_OPT_FLAG, NULL, offsetof(struct lane_args, wait),
      "until no flow is left in it", NULL },
};

static int run_drain(struct pk_ctx *ctx, const void *arguments, int argc, char **argv,
                     struct pk_error *err)
{
    (void)argc;
    return turn(ctx, arguments, argv[0], true, err);
}

static const char *const drain_examples[] = { "picket lane drain analysis/1",
                                              "picket lane drain analysis/1 --wait", NULL };
const struct pk_cmd pk_cmd_lane_drain = {
    .name = "lane drain",
    .group = "Run",
    .summary = "take a lane out of its group without cutting flows",
    .details = "New TCP flows go to the other lanes at once. All others stay until they end, at "
               "most for the group's 'drain' (30 s); then the lane gets no packets, and its tools "
               "can be looked into or stopped. That holds, also over restarts, until 'picket lane "
               "restore'.",
    .examples = drain_examples,
    .opts = drain_opts,
    .opt_count = PK_ARRAY_SIZE(drain_opts),
    .args = lane_pos,
    .arg_count = PK_ARRAY_SIZE(lane_pos),
    .args_size = sizeof(struct lane_args),
    .defaults = &defaults,
    .run = run_drain,
};

/* ---- restore ---- */

static const struct pk_opt restore_opts[] = { FLEET_OPT };

static int run_restore(struct pk_ctx *ctx, const void *arguments, int argc, char **argv,
                       struct pk_error *err)
{
    (void)argc;
    return turn(ctx, arguments, argv[0], false, err);
}

static const char *const restore_examples[] = { "picket lane restore analysis/1", NULL };
const struct pk_cmd pk_cmd_lane_restore = {
    .name = "lane restore",
    .group = "Run",
    .summary = "give a drained lane its slots back",
    .details = "It gets the same slots as before, by draining the others of them: new flows at "
               "once, known ones stay where they are.",
    .examples = restore_examples,
    .opts = restore_opts,
    .opt_count = PK_ARRAY_SIZE(restore_opts),
    .args = lane_pos,
    .arg_count = PK_ARRAY_SIZE(lane_pos),
    .args_size = sizeof(struct lane_args),
    .defaults = &defaults,
    .run = run_restore,
};
