/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "engine/fake/fake.h"

#define FLEET(lanes, values)            \
    "apiVersion: picket.dev/v1alpha1\n" \
    "kind: Fleet\n"                     \
    "metadata:\n"                       \
    "  name: edge\n"                    \
    "spec:\n"                           \
    "  taps:\n"                         \
    "    - name: uplink\n"              \
    "      interface: eth7\n"           \
    "  groups:\n"                       \
    "    - name: analysis\n"            \
    "      taps: [uplink]\n"            \
    "      lanes: " lanes "\n"          \
    "      tools:\n"                    \
    "        - package: sniffer@1\n"    \
    "          values: {" values "}\n"

#define FLEET_ON(taps, feed)                                                        \
    "apiVersion: picket.dev/v1alpha1\nkind: Fleet\nmetadata: {name: edge}\nspec:\n" \
    "  " taps "\n  groups:\n    - {name: g, " feed ", tools: [{package: sniffer@1}]}\n"

static struct pk_engine *fake(const struct world *world)
{
    struct pk_engine *engine = NULL;
    assert_int_equal(pk_engine_fake_new(world->paths.tag, &engine, NULL), 0);
    return engine;
}

static const json_t *first_tool(const json_t *status, size_t lane)
{
    const json_t *group = json_array_get(json_object_get(status, "groups"), 0);
    const json_t *row = json_array_get(json_object_get(group, "lanes"), lane);
    return json_array_get(json_object_get(row, "tools"), 0);
}

static size_t unit_count(struct life *life)
{
    struct pk_unit_status *list = NULL;
    size_t count = 0;
    assert_int_equal(life->engine->ops->list(life->engine->self, "edge", &list, &count, NULL), 0);
    pk_unit_status_list_free(list, count);
    return count;
}

static void unit_name(const struct world *world, unsigned lane, char out[128])
{
    (void)snprintf(out, 128, "%s-edge-analysis-%u-sniffer", world->paths.tag, lane);
}

static void remove_fleet(struct life *life)
{
    const struct pk_plan_request request = { .fleet = "edge", .remove = true };
    struct pk_errors errors = { 0 };
    struct pk_error err = { 0 };
    PK_JSON plan = NULL;
    uint64_t revision = 0;
    if (pk_manager_plan(life->manager, &request, &plan, &errors, &err) < 0 ||
        pk_manager_apply(life->manager, pk_json_string_or(plan, "id", ""), "u", "r", &revision,
                         &err) < 0)
        fail_msg("%s", err.msg);
    PK_JSON progress = life_wait_outcome(life, "edge", revision);
    assert_string_equal(pk_json_string_or(progress, "outcome", ""), "applied");
}

static void test_life_of_a_fleet(void **state)
{
    struct world *world = *state;
    struct life life;
    life_begin(&life, world, fake(world));
    life_apply_ok(&life, FLEET("2", ""));
    PK_JSON status = life_wait_state(&life, "edge", "converged");
    assert_int_equal(pk_json_int_or(status, "revision", 0), 1);
    assert_int_equal(unit_count(&life), 2);
    assert_string_equal(pk_json_string_or(first_tool(status, 1), "state", ""), "running");
    assert_string_equal(pk_json_string_or(first_tool(status, 1), "name", ""), "sniffer");
    const json_t *tap = json_array_get(json_object_get(status, "taps"), 0);
    assert_int_equal(pk_json_int_or(tap, "packets", 0), 20);
    assert_int_equal(pk_json_int_or(tap, "dropped", 0), 1);

    /* The same again: nothing to do, no revision. */
    struct pk_error err = { 0 };
    uint64_t revision = 7;
    world_clear_log(world);
    assert_int_equal(life_apply(&life, FLEET("2", ""), &revision, &err), 0);
    assert_int_equal(revision, 0);
    assert_int_equal(world->changes, 0);

    /* One more lane: the first two are left alone. */
    unsigned long starts = pk_fake_calls(life.engine, PK_FAKE_START);
    life_apply_ok(&life, FLEET("3", ""));
    json_decref(life_wait_state(&life, "edge", "converged"));
    assert_int_equal(pk_fake_calls(life.engine, PK_FAKE_START), starts + 1);
    assert_true(world_logged(world, "PUT /v1/fleets/edge/lanes/analysis/2"));
    assert_true(world_logged(world, "PUT /v1/fleets/edge/groups/analysis"));
    assert_false(world_logged(world, "PUT /v1/fleets/edge/lanes/analysis/0"));
    assert_false(world_logged(world, "PUT /v1/fleets/edge/taps/uplink"));

    remove_fleet(&life);
    assert_int_equal(unit_count(&life), 0);
    assert_int_equal(json_object_size(world->taps), 0);
    assert_int_equal(json_object_size(world->lanes), 0);
    assert_int_equal(json_object_size(world->groups), 0);
    json_t *none = NULL;
    assert_int_equal(pk_manager_status(life.manager, "edge", &none, &err), PK_E_NOTFOUND);
    PK_JSON history = NULL;
    assert_int_equal(pk_manager_history(life.manager, "edge", 0, 10, &history, &err), 0);
    const json_t *newest = json_array_get(json_object_get(history, "revisions"), 0);
    assert_int_equal(json_array_size(json_object_get(history, "revisions")), 3);
    assert_true(pk_json_bool_or(newest, "removed", false));
    assert_string_equal(pk_json_string_or(newest, "user", ""), "u");
    assert_string_equal(pk_json_string_or(newest, "reason", ""), "r");
    life_end(&life);
}

#define CAMPUS(vlan, filter)                                                            \
    "apiVersion: picket.dev/v1alpha1\n"                                                 \
    "kind: Fleet\n"                                                                     \
    "metadata: {name: edge}\n"                                                          \
    "spec:\n"                                                                           \
    "  taps: [{name: uplink, interface: eth7}]\n"                                       \
    "  tenants:\n"                                                                      \
    "    - {name: lab, match: {vlans: [" vlan "], prefixes: [2001:DB8::/32]}}\n"        \
    "    - {name: office, match: {vlans: ['100.200']}, priority: 200}\n"                \
    "  groups:\n"                                                                       \
    "    - {name: lab-b, taps: [uplink], tenant: lab, lanes: 1" filter ", tools: "      \
    "[{package: sniffer@1}]}\n"                                                         \
    "    - {name: lab-a, taps: [uplink], tenant: lab, lanes: 1, tools: [{package: "     \
    "sniffer@1}]}\n"                                                                    \
    "    - {name: office, taps: [uplink], tenant: office, lanes: 1, tools: [{package: " \
    "sniffer@1}]}\n"

/* What the agent is told of tenants, and what becomes of it in the status; what it counts is no
 * drift, and a change of a tenant or a filter is one step. */
static void test_tenants(void **state)
{
    struct world *world = *state;
    struct life life;
    life_begin(&life, world, fake(world));
    life_apply_ok(&life, CAMPUS("110", ""));
    PK_JSON status = life_wait_state(&life, "edge", "converged");
    const json_t *row = json_object_get(world->taps, "edge/uplink");
    PK_JSON groups =
        json_pack("[{s:s,s:s},{s:s,s:s},{s:s,s:s}]", "name", "lab-a", "tenant", "lab", "name",
                  "lab-b", "tenant", "lab", "name", "office", "tenant", "office");
    PK_JSON tenants =
        json_pack("[{s:s,s:[i],s:[s],s:i},{s:s,s:[s],s:i},{s:s,s:i}]", "name", "lab", "vlans", 110,
                  "prefixes", "2001:db8::/32", "packets", 11, "name", "office", "vlans", "100.200",
                  "packets", 11, "name", "", "packets", 9);
    assert_true(json_equal(json_object_get(row, "groups"), groups));
    assert_true(json_equal(json_object_get(row, "tenants"), tenants));
    const json_t *tap = json_array_get(json_object_get(status, "taps"), 0);
    assert_true(json_equal(json_object_get(tap, "groups"), groups));
    assert_true(json_equal(json_object_get(tap, "tenants"), tenants));
    const json_t *office = json_array_get(json_object_get(status, "groups"), 2);
    assert_string_equal(pk_json_string_or(office, "name", ""), "office");
    assert_string_equal(pk_json_string_or(office, "tenant", ""), "office");
    assert_int_equal(pk_json_int_or(office, "priority", 0), 200);
    assert_int_equal(pk_json_int_or(office, "counters.filtered", 0), 3);

    struct pk_error err = { 0 };
    uint64_t revision = 7;
    assert_int_equal(life_apply(&life, CAMPUS("110", ""), &revision, &err), 0);
    assert_int_equal(revision, 0);
    world_clear_log(world);
    life_apply_ok(&life, CAMPUS("111", ", filter: {ports: [53]}"));
    json_decref(life_wait_state(&life, "edge", "converged"));
    assert_int_equal(world->changes, 1);
    assert_true(world_logged(world, "PUT /v1/fleets/edge/taps/uplink"));

    /* Somebody changed it behind our back: it is put right. */
    pthread_mutex_lock(&world->lock);
    (void)json_array_clear(json_object_get(json_object_get(world->taps, "edge/uplink"), "tenants"));
    pthread_mutex_unlock(&world->lock);
    pk_nsec deadline = pk_time_monotonic() + 20 * PK_NSEC_PER_SEC;
    size_t count = 0;
    while (count == 0 && pk_time_monotonic() < deadline) {
        pk_sleep_ms(50);
        pthread_mutex_lock(&world->lock);
        count = json_array_size(
            json_object_get(json_object_get(world->taps, "edge/uplink"), "tenants"));
        pthread_mutex_unlock(&world->lock);
    }
    assert_int_equal(count, 3);
    remove_fleet(&life);
    life_end(&life);
}

static void test_plan_says_what_and_why(void **state)
{
    struct world *world = *state;
    struct life life;
    life_begin(&life, world, fake(world));
    life_apply_ok(&life, FLEET("2", ""));
    json_decref(life_wait_state(&life, "edge", "converged"));
    struct pk_errors errors = { 0 };
    struct pk_error err = { 0 };
    struct pk_plan_request request = { .document = FLEET("2", "verbose: true"),
                                       .document_name = "f" };
    PK_JSON plan = NULL;
    assert_int_equal(pk_manager_plan(life.manager, &request, &plan, &errors, &err), 0);
    const json_t *steps = json_object_get(plan, "steps");
    assert_int_equal(json_array_size(steps), 2);
    assert_string_equal(pk_json_string_or(json_array_get(steps, 0), "reason", ""),
                        "values changed: verbose");
    assert_non_null(strstr(pk_json_string_or(plan, "traffic", ""), "restart"));

    PK_JSON got = NULL; /* also by the beginning of its id */
    char prefix[7];
    (void)snprintf(prefix, sizeof(prefix), "%s", pk_json_string_or(plan, "id", ""));
    assert_int_equal(pk_manager_plan_get(life.manager, prefix, &got, &err), 0);
    assert_true(json_equal(got, plan));
    assert_int_equal(pk_manager_plan_get(life.manager, "ffffffffffff", &got, &err), PK_E_NOTFOUND);

    /* A value that changes no file: nothing restarts, but the document is a new revision. */
    unsigned long starts = pk_fake_calls(life.engine, PK_FAKE_START);
    life_apply_ok(&life, FLEET("2", "note: hello"));
    assert_int_equal(pk_fake_calls(life.engine, PK_FAKE_START), starts);
    life_end(&life);
}

static void test_stale_plan_is_refused(void **state)
{
    struct world *world = *state;
    struct life life;
    life_begin(&life, world, fake(world));
    char id[13];
    char other[13];
    struct pk_error err = { 0 };
    assert_int_equal(life_plan(&life, FLEET("1", ""), id, &err), 0);
    assert_int_equal(life_plan(&life, FLEET("2", ""), other, &err), 0);
    uint64_t revision = 0;
    assert_int_equal(pk_manager_apply(life.manager, id, "u", "r", &revision, &err), 0);
    json_decref(life_wait_outcome(&life, "edge", revision));
    assert_int_equal(pk_manager_apply(life.manager, other, "u", "r", &revision, &err),
                     PK_E_CONFLICT);
    assert_non_null(strstr(err.msg, "stale"));
    assert_non_null(strstr(err.hint, "plan again"));

    /* The same when only reality moved. */
    assert_int_equal(life_plan(&life, FLEET("2", ""), other, &err), 0);
    pthread_mutex_lock(&world->lock);
    (void)json_object_del(world->taps, "edge/uplink");
    pthread_mutex_unlock(&world->lock);
    int r = pk_manager_apply(life.manager, other, "u", "r", &revision, &err);
    /* The reconciler may have put it back by now: then the plan is good again. */
    assert_true(r == PK_E_CONFLICT || r == 0);
    life_end(&life);
}

static void test_two_applies_at_once(void **state)
{
    struct world *world = *state;
    struct life life;
    life_begin(&life, world, fake(world));
    pk_fake_delay(life.engine, PK_FAKE_CREATE, 800);
    char one[13];
    char two[13];
    struct pk_error err = { 0 };
    uint64_t first = 0;
    uint64_t second = 0;
    assert_int_equal(life_plan(&life, FLEET("1", ""), one, &err), 0);
    assert_int_equal(life_plan(&life, FLEET("2", ""), two, &err), 0);
    assert_int_equal(pk_manager_apply(life.manager, one, "u", "r", &first, &err), 0);
    assert_int_equal(pk_manager_apply(life.manager, two, "u", "r", &second, &err), PK_E_CONFLICT);
    assert_non_null(strstr(err.msg, "another apply"));
    PK_JSON status = life_status(&life, "edge");
    assert_string_equal(pk_json_string_or(status, "state", ""), "applying");
    PK_JSON progress = life_wait_outcome(&life, "edge", first);
    assert_string_equal(pk_json_string_or(progress, "outcome", ""), "applied");
    life_end(&life);
}

static void test_repairs(void **state)
{
    struct world *world = *state;
    struct life life;
    life_begin(&life, world, fake(world));
    life_apply_ok(&life, FLEET("2", ""));
    json_decref(life_wait_state(&life, "edge", "converged"));
    char name[128];
    unit_name(world, 1, name);

    /* A container removed by hand. */
    assert_int_equal(pk_fake_vanish(life.engine, name, NULL), 0);
    for (int i = 0; i < 200 && unit_count(&life) < 2; i++)
        pk_sleep_ms(50);
    assert_int_equal(unit_count(&life), 2);
    json_decref(life_wait_state(&life, "edge", "converged"));

    /* A tool that crashed, with its reason. */
    assert_int_equal(pk_fake_write_log(life.engine, name, "cannot open tap0", NULL), 0);
    assert_int_equal(pk_fake_exit(life.engine, name, 3, false, NULL), 0);
    PK_JSON bad = life_wait_state(&life, "edge", "degraded");
    PK_JSON good = life_wait_state(&life, "edge", "converged");
    const json_t *tool = first_tool(good, 1);
    assert_true(pk_json_int_or(tool, "restarts", 0) >= 1);
    assert_non_null(strstr(pk_json_string_or(tool, "lastEnd.reason", ""), "exit code 3"));
    assert_non_null(strstr(pk_json_string_or(tool, "lastEnd.reason", ""), "cannot open tap0"));

    /* A tap that someone took away, and a lane. */
    world_clear_log(world);
    pthread_mutex_lock(&world->lock);
    (void)json_object_del(world->taps, "edge/uplink");
    (void)json_object_del(world->lanes, "edge/analysis/0");
    pthread_mutex_unlock(&world->lock);
    for (int i = 0; i < 200 && !world_logged(world, "PUT /v1/fleets/edge/taps/uplink"); i++)
        pk_sleep_ms(50);
    assert_true(world_logged(world, "PUT /v1/fleets/edge/lanes/analysis/0"));
    assert_true(world_logged(world, "PUT /v1/fleets/edge/taps/uplink"));
    json_decref(life_wait_state(&life, "edge", "converged"));

    /* A config file edited on disk. */
    PK_JSON status = life_status(&life, "edge");
    char path[400];
    struct pk_unit_status *list = NULL;
    size_t count = 0;
    assert_int_equal(life.engine->ops->list(life.engine->self, "edge", &list, &count, NULL), 0);
    (void)snprintf(path, sizeof(path), "%s/units/%s/config/%s/sniffer.conf", world->paths.state_dir,
                   list[0].name, pk_json_string_or(list[0].unit, "filesHash", ""));
    pk_unit_status_list_free(list, count);
    PK_CLEANUP(pk_free_p) char *before = NULL;
    size_t len = 0;
    assert_int_equal(pk_file_read(path, 10000, &before, &len, NULL), 0);
    assert_int_equal(pk_file_write(path, "evil", 4, 0644, NULL), 0);
    bool same = false;
    for (int i = 0; i < 200 && !same; i++) {
        PK_CLEANUP(pk_free_p) char *now = NULL;
        size_t now_len = 0;
        same = pk_file_read(path, 10000, &now, &now_len, NULL) == 0 && now_len == len &&
               memcmp(now, before, len) == 0;
        pk_sleep_ms(50);
    }
    assert_true(same);
    json_decref(life_wait_state(&life, "edge", "converged"));
    life_end(&life);
}

static void test_failed_apply_stops_and_holds(void **state)
{
    struct world *world = *state;
    struct life life;
    life_begin(&life, world, fake(world));
    life_apply_ok(&life, FLEET("1", ""));
    json_decref(life_wait_state(&life, "edge", "converged"));
    world_fail(world, "PUT /v1/fleets/edge/lanes/analysis/1");
    struct pk_error err = { 0 };
    uint64_t revision = 0;
    assert_int_equal(life_apply(&life, FLEET("3", "verbose: true"), &revision, &err), 0);
    PK_JSON progress = life_wait_outcome(&life, "edge", revision);
    assert_string_equal(pk_json_string_or(progress, "outcome", ""), "failed");
    assert_non_null(strstr(pk_json_string_or(progress, "detail", ""), "told to fail"));
    const json_t *steps = json_object_get(progress, "steps");
    assert_string_equal(pk_json_string_or(json_array_get(steps, 0), "state", ""), "failed");
    assert_string_equal(pk_json_string_or(json_array_get(steps, 1), "state", ""), "pending");
    PK_JSON status = life_wait_state(&life, "edge", "degraded");

    /* Nothing later is done, also when it could be; but what runs is kept running. */
    world_fail(world, NULL);
    world_clear_log(world);
    char name[128];
    unit_name(world, 0, name);
    assert_int_equal(pk_fake_exit(life.engine, name, 1, false, NULL), 0);
    pk_sleep_ms(3500);
    assert_int_equal(world->changes, 0);
    assert_int_equal(unit_count(&life), 1);
    PK_JSON held = life_status(&life, "edge");
    assert_string_equal(pk_json_string_or(first_tool(held, 0), "state", ""), "running");
    assert_int_equal(pk_json_int_or(first_tool(held, 0), "restarts", 0), 1);

    /* A new apply of the same document carries it through. */
    life_apply_ok(&life, FLEET("3", "verbose: true"));
    json_decref(life_wait_state(&life, "edge", "converged"));
    assert_int_equal(unit_count(&life), 3);

    /* And back to the first. */
    const struct pk_plan_request request = { .fleet = "edge", .revision = 1 };
    struct pk_errors errors = { 0 };
    PK_JSON plan = NULL;
    assert_int_equal(pk_manager_plan(life.manager, &request, &plan, &errors, &err), 0);
    assert_int_equal(pk_manager_apply(life.manager, pk_json_string_or(plan, "id", ""), "u",
                                      "it was better", &revision, &err),
                     0);
    json_decref(life_wait_outcome(&life, "edge", revision));
    json_decref(life_wait_state(&life, "edge", "converged"));
    assert_int_equal(unit_count(&life), 1);
    life_end(&life);
}

static void expect_refused(struct life *life, const char *document, int code, const char *words)
{
    struct pk_error err = { 0 };
    uint64_t revision = 0;
    int r = life_apply(life, document, &revision, &err);
    if (r != code)
        print_error("%d: %s\n", r, err.msg);
    assert_int_equal(r, code);
    assert_non_null(strstr(err.msg, words));
    assert_true(err.hint[0] != '\0');
    assert_int_equal(life->world->changes, 0);
}

static void test_refused_before_the_first_step(void **state)
{
    struct world *world = *state;
    struct life life;
    life_begin(&life, world, fake(world));
    /* The image is missing: said at plan time, at the package's place in the file. */
    assert_int_equal(pk_fake_image_missing(life.engine, "localhost/picket/sniffer:1", true, NULL),
                     0);
    expect_refused(&life, FLEET("1", ""), PK_E_NOTFOUND, "image");
    assert_int_equal(pk_fake_image_missing(life.engine, "localhost/picket/sniffer:1", false, NULL),
                     0);
    /* The interface is missing. */
    pthread_mutex_lock(&world->lock);
    (void)json_array_remove(world->interfaces, 1);
    pthread_mutex_unlock(&world->lock);
    expect_refused(&life, FLEET("1", ""), PK_E_NOTFOUND, "eth7");
    pthread_mutex_lock(&world->lock);
    (void)json_array_append_new(world->interfaces, json_string("eth7"));
    pthread_mutex_unlock(&world->lock);
    /* The machine needs it itself. */
    expect_refused(&life, FLEET_ON("taps: [{name: u, interface: lo}]", "taps: [u]"), PK_E_CONFLICT,
                   "tap u: interface lo is the machine's loopback");
    expect_refused(&life, FLEET_ON("taps: [{name: u, interface: eth0}]", "taps: [u]"),
                   PK_E_CONFLICT, "tap u: interface eth0 carries the machine's default route");
    expect_refused(&life, FLEET_ON("", "lane: {device: eth0}"), PK_E_CONFLICT,
                   "group g: interface eth0 carries the machine's default route");
    expect_refused(&life, FLEET_ON("", "lane: {device: eth9}"), PK_E_NOTFOUND,
                   "group g: this machine has no interface eth9");
    /* The engine is away. */
    pk_fake_fail(life.engine, PK_FAKE_LIST, PK_E_UNREACHABLE, 1000000);
    expect_refused(&life, FLEET("1", ""), PK_E_UNREACHABLE, "told to fail");
    pk_fake_fail(life.engine, PK_FAKE_LIST, PK_E_UNREACHABLE, 0);
    /* The agent is down. */
    world_agent_stop(world);
    expect_refused(&life, FLEET("1", ""), PK_E_UNREACHABLE, "agent");
    world_agent_start(world);
    expect_refused(&life, "kind: Fleet\n", PK_E_INVALID, "");
    PK_JSON names = NULL;
    assert_int_equal(pk_manager_fleets(life.manager, &names, NULL), 0);
    assert_int_equal(json_array_size(names), 0);
    life_apply_ok(&life, FLEET("1", ""));
    life_end(&life);
}

static void test_full_disk(void **state)
{
    struct world *world = *state;
    if (geteuid() != 0 || mount("none", world->paths.state_dir, "tmpfs", 0, "size=3m") < 0)
        PK_SKIP("needs root to mount a small disk");
    struct life life;
    life_begin(&life, world, fake(world));
    expect_refused(&life, FLEET("1", ""), PK_E_NOSPACE, "free");
    assert_int_equal(unit_count(&life), 0);
    assert_int_equal(mount("none", world->paths.state_dir, "tmpfs", MS_REMOUNT, "size=64m"), 0);
    life_apply_ok(&life, FLEET("1", ""));
    life_end(&life);
    assert_int_equal(umount(world->paths.state_dir), 0);
}

/* Peers that hang make the status old, never slow. */
static void test_status_does_not_wait(void **state)
{
    struct world *world = *state;
    struct life life;
    life_begin(&life, world, fake(world));
    life_apply_ok(&life, FLEET("1", ""));
    json_decref(life_wait_state(&life, "edge", "converged"));
    pk_fake_delay(life.engine, PK_FAKE_LIST, 3000);
    pthread_mutex_lock(&world->lock);
    world->delay_ms = 3000;
    pthread_mutex_unlock(&world->lock);
    pk_sleep_ms(2500);
    pk_nsec begun = pk_time_monotonic();
    PK_JSON status = life_status(&life, "edge");
    assert_true(pk_time_monotonic() - begun < 500 * PK_NSEC_PER_MS);
    assert_true(pk_json_int_or(status, "ageMs", 0) > 1000);
    pk_fake_delay(life.engine, PK_FAKE_LIST, 0);
    pthread_mutex_lock(&world->lock);
    world->delay_ms = 0;
    pthread_mutex_unlock(&world->lock);
    life_end(&life);
}

static json_t *load_sources(const struct world *world)
{
    char path[200];
    json_t *json = NULL;
    (void)snprintf(path, sizeof(path), "%s/ship/sources.json", world->paths.state_dir);
    assert_int_equal(pk_json_load(path, &json, NULL), 0);
    return json;
}

/* The tool's own; the agent's records of the group's shunts are another one. */
static const json_t *source_of(const json_t *sources, const char *tool)
{
    size_t i;
    json_t *source;
    json_array_foreach(json_object_get(sources, "sources"), i, source)
    {
        if (strcmp(pk_json_string_or(source, "tool", ""), tool) == 0)
            return source;
    }
    return NULL;
}

static void test_sources(void **state)
{
    struct world *world = *state;
    struct life life;
    life_begin(&life, world, fake(world));
    life_apply_ok(&life, FLEET("1", ""));
    json_t *sources = load_sources(world);
    for (unsigned i = 0; i < 200 && source_of(sources, "picket") == NULL; i++) {
        pk_sleep_ms(50); /* listed by the next look at the fleet */
        json_decref(sources);
        sources = load_sources(world);
    }
    const json_t *source = source_of(sources, "picket");
    assert_int_equal(json_array_size(json_object_get(sources, "sources")), 2);
    assert_string_equal(pk_json_string_or(source, "fleet", ""), "edge");
    assert_non_null(strstr(pk_json_string_or(source, "dir", ""), ".shunts/log"));
    source = source_of(sources, "sniffer");
    assert_true(pk_json_bool_or(source, "active", false));
    assert_string_equal(pk_json_string_or(source, "package", ""), "sniffer");
    const json_t *log = json_array_get(json_object_get(source, "logs"), 0);
    assert_string_equal(pk_json_string_or(log, "glob", ""), "eve-*.json");
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/eve-1.json", pk_json_string_or(source, "dir", ""));
    assert_int_equal(pk_file_write(path, "{}\n", 3, 0644, NULL), 0);

    json_decref(sources);

    remove_fleet(&life); /* the log stays, the source is listed until it is gone */
    assert_true(pk_file_exists(path));
    PK_JSON retired = load_sources(world);
    assert_int_equal(json_array_size(json_object_get(retired, "sources")), 1);
    source = source_of(retired, "sniffer");
    assert_false(pk_json_bool_or(source, "active", true));
    life_end(&life);

    life_begin(&life, world, fake(world)); /* also over a restart */
    life_apply_ok(&life, FLEET("2", ""));
    assert_int_equal(unlink(path), 0);
    remove_fleet(&life);
    PK_JSON left = load_sources(world);
    assert_int_equal(json_array_size(json_object_get(left, "sources")), 0);
    char unit[300];
    char name[128];
    unit_name(world, 0, name);
    (void)snprintf(unit, sizeof(unit), "%s/units/%s", world->paths.state_dir, name);
    assert_false(pk_file_exists(unit));
    life_end(&life);
}

/* ---- canaries ---- */

/* What the agent was told of the lane's canaries, once that has so many numbers. */
static json_t *told_of(struct world *world, const char *lane, size_t numbers)
{
    for (unsigned i = 0; i < 400; i++) {
        pthread_mutex_lock(&world->lock);
        json_t *body = json_deep_copy(json_object_get(world->canaries, lane));
        pthread_mutex_unlock(&world->lock);
        if (body != NULL && json_array_size(json_object_get(body, "seen")) >= numbers)
            return body;
        json_decref(body);
        pk_sleep_ms(25);
    }
    fail_msg("the agent was not told of %zu canaries of %s", numbers, lane);
    return NULL;
}

static int seen(struct life *life, const char *text)
{
    PK_JSON json = json_loads(text, 0, NULL);
    assert_non_null(json);
    struct pk_error err = { 0 };
    return pk_manager_canaries(life->manager, json, &err);
}

static void test_canaries(void **state)
{
    struct world *world = *state;
    struct life life;
    life_begin(&life, world, fake(world));
    life_apply_ok(&life, FLEET("2", ""));
    json_decref(life_wait_state(&life, "edge", "converged"));
    PK_JSON sources = load_sources(world);
    char token[64];
    (void)snprintf(token, sizeof(token), "%s",
                   pk_json_string_or(source_of(sources, "sniffer"), "canary", ""));
    assert_int_equal(strlen(token), 32);
    unsigned lane = (unsigned)pk_json_int_or(source_of(sources, "sniffer"), "lane", 9);
    char key[64];
    (void)snprintf(key, sizeof(key), "edge/analysis/%u", lane);

    /* Nobody looks whether they come back: none are asked for. */
    pk_sleep_ms(2200);
    pthread_mutex_lock(&world->lock);
    assert_int_equal(json_object_size(world->canaries), 0);
    pthread_mutex_unlock(&world->lock);

    static const char *const bad[] = { "{}", "[]", "{\"canaries\":1}", "{\"canaries\":{}}" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++)
        assert_int_equal(seen(&life, bad[i]), PK_E_INVALID);
    assert_int_equal(
        seen(&life, "{\"canaries\":[1,null,{},{\"fleet\":\"edge\"},{\"fleet\":\"x\",\"lane\":0},"
                    "{\"fleet\":\"edge\",\"group\":\"analysis\",\"lane\":7,\"tool\":\"sniffer\","
                    "\"number\":5},{\"fleet\":\"edge\",\"group\":\"analysis\",\"lane\":0,"
                    "\"tool\":\"sniffer\",\"number\":-5},{\"fleet\":\"edge\",\"group\":"
                    "\"analysis\",\"lane\":0,\"tool\":\"other\",\"number\":5}]}"),
        0);
    json_t *told = told_of(world, key, 0);
    assert_string_equal(pk_json_string_or(told, "token", ""), token);
    assert_int_equal(json_array_size(json_object_get(told, "seen")), 0);
    json_decref(told);

    /* The newest are told of, each once. */
    for (int number = 1; number <= 20; number++) {
        char text[300];
        (void)snprintf(text, sizeof(text),
                       "{\"canaries\":[{\"fleet\":\"edge\",\"group\":\"analysis\",\"lane\":%u,"
                       "\"tool\":\"sniffer\",\"number\":%d,\"delayMs\":%d}]}",
                       lane, number, 100 + number);
        assert_int_equal(seen(&life, text), 0);
        assert_int_equal(seen(&life, text), 0);
    }
    told = told_of(world, key, 16);
    bool has[21] = { false };
    size_t i;
    const json_t *number;
    json_array_foreach(json_object_get(told, "seen"), i, number)
    {
        assert_in_range(json_integer_value(number), 5, 20);
        assert_false(has[json_integer_value(number)]);
        has[json_integer_value(number)] = true;
    }
    assert_int_equal(pk_json_int_or(told, "delayMs", 0), 120);
    json_decref(told);
    life_end(&life);

    life_begin(&life, world, fake(world)); /* the key stays */
    PK_JSON again = load_sources(world);
    assert_string_equal(pk_json_string_or(source_of(again, "sniffer"), "canary", ""), token);
    pthread_mutex_lock(&world->lock);
    (void)json_object_clear(world->canaries);
    pthread_mutex_unlock(&world->lock);
    assert_int_equal(seen(&life, "{\"canaries\":[]}"), 0);
    told = told_of(world, key, 0);
    assert_string_equal(pk_json_string_or(told, "token", ""), token);
    json_decref(told);
    life_end(&life);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_life_of_a_fleet, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_tenants, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_plan_says_what_and_why, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_stale_plan_is_refused, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_two_applies_at_once, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_repairs, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_failed_apply_stops_and_holds, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_refused_before_the_first_step, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_full_disk, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_status_does_not_wait, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_sources, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_canaries, world_setup, world_teardown),
    };
    return cmocka_run_group_tests_name("fleet/manager", tests, NULL, NULL);
}
