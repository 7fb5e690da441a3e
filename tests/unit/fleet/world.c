/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"

/* ---- the agent ---- */

static int enter(struct world *world, struct pk_http_request *request, const char *method,
                 const char *path, bool changes, struct pk_error *err)
{
    (void)request;
    pthread_mutex_lock(&world->lock);
    unsigned delay = world->delay_ms;
    char call[300];
    (void)snprintf(call, sizeof(call), "%s %s", method, path);
    bool fails = world->fail_path != NULL && pk_str_starts(call, world->fail_path);
    if (changes && !fails) {
        world->changes++;
        (void)json_array_append_new(world->log, json_string(call));
    }
    pthread_mutex_unlock(&world->lock);
    if (delay > 0)
        pk_sleep_ms(delay);
    if (fails) {
        pk_fail(err, PK_E_IO, "the agent was told to fail %s", call);
        return pk_hint(err, "this is a test");
    }
    return 0;
}

static int get_node(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct world *world = arg;
    int r = enter(world, request, "GET", "/v1/node", false, err);
    if (r < 0)
        return r;
    json_t *list = json_array();
    pthread_mutex_lock(&world->lock);
    size_t i;
    json_t *name;
    json_array_foreach(world->interfaces, i, name)
    {
        (void)json_array_append_new(
            list, json_pack("{s:O,s:i,s:s,s:b}", "name", name, "mtu", 1500, "state",
                            strcmp(json_string_value(name), "lo") == 0 ? "loopback" : "up",
                            "defaultRoute", strcmp(json_string_value(name), "eth0") == 0));
    }
    pthread_mutex_unlock(&world->lock);
    return pk_http_reply_json_take(request, 200,
                                   json_pack("{s:s,s:o}", "hostname", "h", "interfaces", list));
}

static json_t *rows(json_t *object)
{
    json_t *list = json_array();
    const char *key;
    json_t *row;
    json_object_foreach(object, key, row)
    {
        (void)json_array_append_new(list, json_deep_copy(row));
    }
    return list;
}

static int get_plane(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct world *world = arg;
    int r = enter(world, request, "GET", "/v1/plane", false, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&world->lock);
    json_t *plane = json_pack("{s:o,s:o,s:o}", "taps", rows(world->taps), "groups",
                              rows(world->groups), "lanes", rows(world->lanes));
    pthread_mutex_unlock(&world->lock);
    return pk_http_reply_json_take(request, 200, plane);
}

/* Slots follow from the groups: as the broker deals them out. Lock held. */
static void deal(struct world *world)
{
    const char *key;
    json_t *lane;
    json_object_foreach(world->lanes, key, lane)
    {
        char group[128];
        (void)snprintf(group, sizeof(group), "%s/%s", pk_json_string_or(lane, "fleet", ""),
                       pk_json_string_or(lane, "group", ""));
        json_t *list = json_object_get(json_object_get(world->groups, group), "members");
        int slots = 0;
        size_t i;
        json_t *member;
        json_array_foreach(list, i, member)
        {
            if (pk_json_int_or(member, "index", -1) == pk_json_int_or(lane, "index", -2))
                slots = 65537 / (int)json_array_size(list);
        }
        (void)json_object_set_new(lane, "slots", json_integer(slots));
    }
}

/* As the agent tells of them: with what it counted, and what no tenant claims. New reference. */
static json_t *counted_tenants(const json_t *wanted)
{
    json_t *list = json_deep_copy(wanted);
    size_t i;
    json_t *tenant;
    json_array_foreach(list, i, tenant)
    {
        (void)json_object_set_new(tenant, "packets", json_integer(11));
    }
    (void)json_array_append_new(list, json_pack("{s:s,s:i}", "name", "", "packets", 9));
    return list;
}

static int change(void *arg, struct pk_http_request *request, const char *method, const char *kind,
                  struct pk_error *err)
{
    struct world *world = arg;
    const char *fleet = pk_http_param(request, "fleet");
    const char *name = pk_http_param(request, "name");
    const char *index = pk_http_param(request, "index");
    bool put = strcmp(method, "PUT") == 0;
    PK_JSON body = NULL;
    if (put) {
        int r = pk_http_body_json(request, &body, err);
        if (r < 0)
            return r;
    }
    char key[200];
    char path[300];
    (void)snprintf(key, sizeof(key), "%s/%s%s%s", fleet, name, index != NULL ? "/" : "",
                   index != NULL ? index : "");
    (void)snprintf(path, sizeof(path), "/v1/fleets/%s/%s/%s%s%s", fleet, kind, name,
                   index != NULL ? "/" : "", index != NULL ? index : "");
    int r = enter(world, request, method, path, true, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&world->lock);
    json_t *object = strcmp(kind, "lanes") == 0    ? world->lanes
                     : strcmp(kind, "groups") == 0 ? world->groups
                                                   : world->taps;
    json_t *answer = json_object();
    if (!put) {
        (void)json_object_del(object, key);
    } else if (object == world->lanes) {
        char netns[200];
        (void)snprintf(netns, sizeof(netns), "/nonexistent/netns/%s-%s-%s-%s", world->paths.tag,
                       fleet, name, index);
        (void)json_object_set_new(
            object, key,
            json_pack("{s:s,s:s,s:i,s:s,s:s,s:I,s:s,s:s,s:i,s:i,s:i,s:i}", "fleet", fleet, "group",
                      name, "index", atoi(index), "netns", netns, "interface", "tap0", "mtu",
                      (json_int_t)pk_json_int_or(body, "mtu", 0), "state", "ready", "detail", "",
                      "slots", 0, "packets", 10, "bytes", 1000, "dropped", 0));
        (void)json_object_set_new(answer, "netns", json_string(netns));
    } else if (object == world->groups) {
        (void)json_object_set_new(object, key,
                                  json_pack("{s:s,s:s,s:i,s:O,s:s,s:I,s:{s:O*,s:O*}}", "fleet",
                                            fleet, "name", name, "filtered", 3, "members",
                                            json_object_get(body, "lanes"), "tenant",
                                            pk_json_string_or(body, "tenant", ""), "priority",
                                            (json_int_t)pk_json_int_or(body, "priority", 100),
                                            "options", "shunt", json_object_get(body, "shunt"),
                                            "overload", json_object_get(body, "overload")));
    } else {
        (void)json_object_set_new(
            object, key,
            json_pack("{s:s,s:s,s:s,s:s,s:O,s:o,s:I,s:s,s:s,s:i,s:i,s:i}", "fleet", fleet, "name",
                      name, "kind", pk_json_string_or(body, "kind", ""), "interface",
                      pk_json_string_or(body, "interface", ""), "groups",
                      json_object_get(body, "groups"), "tenants",
                      counted_tenants(json_object_get(body, "tenants")), "mtu",
                      (json_int_t)pk_json_int_or(body, "mtu", 1500), "mode", "generic", "state",
                      "up", "packets", 20, "bytes", 2000, "dropped", 1));
    }
    deal(world);
    pthread_mutex_unlock(&world->lock);
    return pk_http_reply_json_take(request, 200, answer);
}

#define ROUTE_FN(name, method, kind)                                                  \
    static int name(void *arg, struct pk_http_request *request, struct pk_error *err) \
    {                                                                                 \
        return change(arg, request, method, kind, err);                               \
    }
ROUTE_FN(put_lane, "PUT", "lanes")
ROUTE_FN(delete_lane, "DELETE", "lanes")
ROUTE_FN(put_group, "PUT", "groups")
ROUTE_FN(delete_group, "DELETE", "groups")
ROUTE_FN(put_tap, "PUT", "taps")
ROUTE_FN(delete_tap, "DELETE", "taps")

/* Nothing flows here: a lane has drained at once. */
static int put_drain(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    (void)arg;
    (void)err;
    return pk_http_reply_json_take(request, 200, json_object());
}

static int put_canary(void *arg, struct pk_http_request *request, struct pk_error *err)
{
    struct world *world = arg;
    PK_JSON body = NULL;
    char key[200];
    int r = pk_http_body_json(request, &body, err);
    if (r < 0)
        return r;
    (void)snprintf(key, sizeof(key), "%s/%s/%s", pk_http_param(request, "fleet"),
                   pk_http_param(request, "name"), pk_http_param(request, "index"));
    pthread_mutex_lock(&world->lock);
    (void)json_object_set(world->canaries, key, body);
    pthread_mutex_unlock(&world->lock);
    return pk_http_reply_json_take(request, 200, json_object());
}

static const struct pk_http_route routes[] = {
    { "GET", "/v1/node", get_node, PK_ROUTE_PUBLIC },
    { "GET", "/v1/plane", get_plane, PK_ROUTE_PUBLIC },
    { "PUT", "/v1/fleets/{fleet}/lanes/{name}/{index}", put_lane, PK_ROUTE_PUBLIC },
    { "DELETE", "/v1/fleets/{fleet}/lanes/{name}/{index}", delete_lane, PK_ROUTE_PUBLIC },
    { "PUT", "/v1/fleets/{fleet}/lanes/{name}/{index}/drain", put_drain, PK_ROUTE_PUBLIC },
    { "PUT", "/v1/fleets/{fleet}/lanes/{name}/{index}/report", put_drain, PK_ROUTE_PUBLIC },
    { "PUT", "/v1/fleets/{fleet}/lanes/{name}/{index}/canary", put_canary, PK_ROUTE_PUBLIC },
    { "PUT", "/v1/fleets/{fleet}/groups/{name}", put_group, PK_ROUTE_PUBLIC },
    { "DELETE", "/v1/fleets/{fleet}/groups/{name}", delete_group, PK_ROUTE_PUBLIC },
    { "PUT", "/v1/fleets/{fleet}/taps/{name}", put_tap, PK_ROUTE_PUBLIC },
    { "DELETE", "/v1/fleets/{fleet}/taps/{name}", delete_tap, PK_ROUTE_PUBLIC },
};

void world_agent_start(struct world *world)
{
    const struct pk_http_server_options options = { .routes = routes,
                                                    .route_count = PK_ARRAY_SIZE(routes),
                                                    .arg = world,
                                                    .socket_path = world->socket,
                                                    .socket_mode = 0600,
                                                    .socket_gid = (gid_t)-1 };
    struct pk_error err = { 0 };
    if (pk_http_server_start(&options, &world->server, &err) < 0)
        fail_msg("%s", err.msg);
}

void world_agent_stop(struct world *world)
{
    pk_http_server_stop(world->server);
    world->server = NULL;
    (void)unlink(world->socket);
}

void world_fail(struct world *world, const char *path)
{
    pthread_mutex_lock(&world->lock);
    free(world->fail_path);
    world->fail_path = path != NULL ? strdup(path) : NULL;
    pthread_mutex_unlock(&world->lock);
}

bool world_logged(struct world *world, const char *call)
{
    bool found = false;
    pthread_mutex_lock(&world->lock);
    size_t i;
    json_t *row;
    json_array_foreach(world->log, i, row)
    {
        found |= strcmp(json_string_value(row), call) == 0;
    }
    pthread_mutex_unlock(&world->lock);
    return found;
}

void world_clear_log(struct world *world)
{
    pthread_mutex_lock(&world->lock);
    (void)json_array_clear(world->log);
    world->changes = 0;
    pthread_mutex_unlock(&world->lock);
}

/* ---- the engine of files ---- */

struct files_engine {
    char dir[96];
};

static void container_path(const struct files_engine *engine, const char *name, char out[320])
{
    (void)snprintf(out, 320, "%s/%s.json", engine->dir, name);
}

static int files_probe(void *self, struct pk_engine_info *info, struct pk_error *err)
{
    (void)self, (void)err;
    *info = (struct pk_engine_info){ .name = "files" };
    return 0;
}

static int files_list(void *self, const char *fleet, struct pk_unit_status **ret_list,
                      size_t *ret_count, struct pk_error *err)
{
    struct files_engine *engine = self;
    DIR *dir = opendir(engine->dir);
    if (dir == NULL)
        return pk_fail(err, PK_E_UNREACHABLE, "no engine");
    struct pk_unit_status *list = pk_zalloc_array(1000, sizeof(*list));
    size_t count = 0;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL && count < 1000) {
        char path[420];
        PK_JSON row = NULL;
        if (!pk_str_ends(entry->d_name, ".json"))
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", engine->dir, entry->d_name);
        if (pk_json_load(path, &row, NULL) < 0)
            continue; /* removed meanwhile */
        const json_t *unit = json_object_get(row, "unit");
        if (fleet != NULL && strcmp(fleet, pk_json_string_or(unit, "fleet", "")) != 0)
            continue;
        struct pk_unit_status *status = &list[count++];
        status->name = pk_strdup(pk_json_string_or(unit, "name", ""));
        status->fleet = pk_strdup(pk_json_string_or(unit, "fleet", ""));
        status->group = pk_strdup(pk_json_string_or(unit, "group", ""));
        status->tool = pk_strdup(pk_json_string_or(unit, "tool", ""));
        status->hash = pk_strdup(pk_json_string_or(unit, "hash", ""));
        status->lane = (unsigned)pk_json_int_or(unit, "lane", 0);
        status->state = pk_json_bool_or(row, "running", false) ? PK_UNIT_RUNNING : PK_UNIT_CREATED;
        status->started_at = pk_json_int_or(row, "startedAt", 0);
        status->unit = json_incref(json_object_get(row, "unit"));
    }
    (void)closedir(dir);
    *ret_list = list;
    *ret_count = count;
    return 0;
}

static int write_row(const char *path, json_t *row)
{
    PK_CLEANUP(pk_free_p) char *text = pk_json_compact(row);
    return pk_file_write(path, text, strlen(text), 0600, NULL);
}

static int files_create(void *self, const struct pk_unit *unit, struct pk_error *err)
{
    char path[320];
    container_path(self, unit->name, path);
    for (size_t i = 0; i < unit->mount_count; i++)
        if (!pk_file_exists(unit->mounts[i].source))
            return pk_fail(err, PK_E_NOTFOUND, "%s is not there", unit->mounts[i].source);
    PK_JSON old = NULL;
    if (pk_json_load(path, &old, NULL) >= 0 &&
        strcmp(pk_json_string_or(old, "unit.hash", ""), unit->hash) == 0)
        return 0;
    PK_JSON row = json_pack("{s:o,s:b}", "unit", pk_unit_to_json(unit), "running", 0);
    return write_row(path, row);
}

static int files_set_running(void *self, const char *name, bool running, struct pk_error *err)
{
    char path[320];
    container_path(self, name, path);
    PK_JSON row = NULL;
    int r = pk_json_load(path, &row, err);
    if (r < 0)
        return pk_fail(err, PK_E_NOTFOUND, "no container %s", name);
    if (running && !pk_json_bool_or(row, "running", false))
        (void)json_object_set_new(row, "startedAt", json_integer(pk_time_now()));
    (void)json_object_set_new(row, "running", json_boolean(running));
    return write_row(path, row);
}

static int files_start(void *self, const char *name, struct pk_error *err)
{
    return files_set_running(self, name, true, err);
}

static int files_stop(void *self, const char *name, unsigned timeout_ms, struct pk_error *err)
{
    (void)timeout_ms;
    return files_set_running(self, name, false, err);
}

static int files_remove(void *self, const char *name, struct pk_error *err)
{
    (void)err;
    char path[320];
    container_path(self, name, path);
    (void)unlink(path);
    return 0;
}

static int files_logs(void *self, const char *name, unsigned lines, struct pk_buf *out,
                      struct pk_error *err)
{
    (void)self, (void)name, (void)lines, (void)out, (void)err;
    return 0;
}

static int files_image(void *self, const char *image, char **ret_digest, char **ret_release,
                       struct pk_error *err)
{
    (void)self;
    char digest[80] = "sha256:";
    if (!pk_str_starts(image, "localhost/"))
        return pk_fail(err, PK_E_NOTFOUND, "no image %s", image);
    pk_sha256_hex(image, strlen(image), digest + 7);
    *ret_digest = pk_strdup(digest);
    if (ret_release != NULL)
        *ret_release = pk_strdup("");
    return 0;
}

static int files_wait(void *self, unsigned timeout_ms, bool *ret_changed, struct pk_error *err)
{
    (void)self, (void)err;
    pk_sleep_ms(PK_MIN(timeout_ms, 200u));
    *ret_changed = true;
    return 0;
}

static void files_free(void *self)
{
    free(self);
}

static const struct pk_engine_ops files_ops = {
    .probe = files_probe,
    .list = files_list,
    .create = files_create,
    .start = files_start,
    .stop = files_stop,
    .remove = files_remove,
    .logs = files_logs,
    .image_find = files_image,
    .wait_change = files_wait,
    .free = files_free,
};

int world_engine(const struct world *world, struct pk_engine **ret_engine)
{
    struct files_engine *files = calloc(1, sizeof(*files));
    (void)snprintf(files->dir, sizeof(files->dir), "%s/containers", world->dir);
    assert_int_equal(pk_mkdir_p(files->dir, 0700, NULL), 0);
    struct pk_engine *engine = pk_zalloc(sizeof(*engine));
    engine->ops = &files_ops;
    engine->self = files;
    *ret_engine = engine;
    return 0;
}

/* ---- the world ---- */

int world_setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    (void)snprintf(world->dir, sizeof(world->dir), "/tmp/pk-test-fleet-XXXXXX");
    if (mkdtemp(world->dir) == NULL)
        return -1;
    char run[80];
    char data[80];
    (void)snprintf(run, sizeof(run), "%s/run", world->dir);
    (void)snprintf(data, sizeof(data), "%s/state", world->dir);
    (void)snprintf(world->socket, sizeof(world->socket), "%s/run/node.sock", world->dir);
    if (pk_paths_init(data, run, &world->paths, NULL) < 0 || pk_mkdir_p(run, 0700, NULL) < 0 ||
        pk_mkdir_p(data, 0700, NULL) < 0)
        return -1;
    pthread_mutex_init(&world->lock, NULL);
    world->taps = json_object();
    world->lanes = json_object();
    world->groups = json_object();
    world->log = json_array();
    world->canaries = json_object();
    world->interfaces = json_pack("[s,s,s,s]", "lo", "eth7", "eth8", "eth0");
    world_agent_start(world);
    *state = world;
    return 0;
}

int world_teardown(void **state)
{
    struct world *world = *state;
    if (world->server != NULL)
        world_agent_stop(world);
    json_decref(world->taps);
    json_decref(world->lanes);
    json_decref(world->groups);
    json_decref(world->log);
    json_decref(world->canaries);
    json_decref(world->interfaces);
    free(world->fail_path);
    pthread_mutex_destroy(&world->lock);
    (void)pk_rm_rf(world->dir, NULL);
    free(world);
    return 0;
}

struct pk_catalog *world_catalog(void)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/tests/data/plans/catalog", getenv("PICKET_SOURCE"));
    const char *dirs[] = { path, NULL };
    struct pk_catalog *catalog = NULL;
    struct pk_errors errors = { 0 };
    int r = pk_catalog_open(dirs, &catalog, &errors);
    if (r < 0 || errors.count > 0)
        fail_msg("%s: %s", path, errors.count > 0 ? errors.list[0].msg : "");
    return catalog;
}

static char *lane_netns(const char *tag, const char *fleet, const char *group, unsigned index)
{
    return pk_asprintf("/nonexistent/netns/%s-%s-%s-%u", tag, fleet, group, index);
}

void life_begin(struct life *life, struct world *world, struct pk_engine *engine)
{
    struct pk_error err = { 0 };
    char db[200];
    *life = (struct life){ .world = world, .catalog = world_catalog(), .engine = engine };
    (void)snprintf(db, sizeof(db), "%s/fleet.db", world->paths.state_dir);
    if (pk_state_open(db, &life->state, &err) < 0)
        fail_msg("%s", err.msg);
    if (engine == NULL)
        assert_int_equal(world_engine(world, &life->engine), 0);
    const struct pk_manager_options options = { .paths = world->paths,
                                                .catalog = life->catalog,
                                                .engine = life->engine,
                                                .state = life->state,
                                                .lane_netns = lane_netns };
    if (pk_manager_start(&options, &life->manager, &err) < 0)
        fail_msg("%s", err.msg);
}

void life_end(struct life *life)
{
    pk_manager_stop(life->manager);
    pk_engine_free(life->engine);
    pk_state_close(life->state);
    pk_catalog_free(life->catalog);
}

int life_plan(struct life *life, const char *document, char id[13], struct pk_error *err)
{
    struct pk_errors errors = { 0 };
    const struct pk_plan_request request = { .document = document, .document_name = "fleet.yaml" };
    PK_JSON plan = NULL;
    int r = pk_manager_plan(life->manager, &request, &plan, &errors, err);
    if (r >= 0)
        (void)snprintf(id, 13, "%s", pk_json_string_or(plan, "id", ""));
    else if (errors.count > 0)
        *err = errors.list[0];
    pk_errors_done(&errors);
    return r;
}

int life_apply(struct life *life, const char *document, uint64_t *ret_revision,
               struct pk_error *err)
{
    char id[13];
    int r = life_plan(life, document, id, err);
    if (r < 0)
        return r;
    return pk_manager_apply(life->manager, id, "tester", "test", ret_revision, err);
}

json_t *life_wait_outcome(struct life *life, const char *fleet, uint64_t revision)
{
    uint64_t after = 0;
    pk_nsec deadline = pk_time_monotonic() + 60 * PK_NSEC_PER_SEC;
    while (pk_time_monotonic() < deadline) {
        json_t *progress = NULL;
        struct pk_error err = { 0 };
        if (pk_manager_progress(life->manager, fleet, revision, after, 1000, &progress, &err) < 0)
            fail_msg("%s", err.msg);
        if (strcmp(pk_json_string_or(progress, "outcome", ""), "applying") != 0)
            return progress;
        after = (uint64_t)pk_json_int_or(progress, "version", 0);
        json_decref(progress);
    }
    fail_msg("revision %llu of %s does not end", (unsigned long long)revision, fleet);
    return NULL;
}

void life_apply_ok(struct life *life, const char *document)
{
    struct pk_error err = { 0 };
    uint64_t revision = 0;
    if (life_apply(life, document, &revision, &err) < 0)
        fail_msg("%s (%s)", err.msg, err.hint);
    assert_true(revision > 0);
    /* "name: x" is the first name of the document. */
    const char *at = strstr(document, "name: ") + 6;
    char fleet[64];
    (void)snprintf(fleet, sizeof(fleet), "%.*s", (int)strcspn(at, "\n,}"), at);
    PK_JSON progress = life_wait_outcome(life, fleet, revision);
    if (strcmp(pk_json_string_or(progress, "outcome", ""), "applied") != 0)
        fail_msg("%s", pk_json_string_or(progress, "detail", ""));
}

json_t *life_status(struct life *life, const char *fleet)
{
    json_t *status = NULL;
    struct pk_error err = { 0 };
    if (pk_manager_status(life->manager, fleet, &status, &err) < 0)
        fail_msg("%s", err.msg);
    return status;
}

json_t *life_wait_state(struct life *life, const char *fleet, const char *state)
{
    pk_nsec deadline = pk_time_monotonic() + 20 * PK_NSEC_PER_SEC;
    json_t *status = NULL;
    while (pk_time_monotonic() < deadline) {
        json_decref(status);
        status = life_status(life, fleet);
        if (strcmp(pk_json_string_or(status, "state", ""), state) == 0)
            return status;
        pk_sleep_ms(50);
    }
    PK_CLEANUP(pk_free_p) char *text = pk_json_pretty(status);
    fail_msg("not %s: %s", state, text);
    return status;
}
