/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Golden cases: tests/data/plans/<case>/{before.yaml,fleet.yaml,observed.json,want.json}. What is
 * there is what before.yaml gives, with the rows of observed.json laid over it. PK_UPDATE=1 writes
 * want.json. And the property that makes apply converge: once a plan is carried out, the next one
 * is empty.
 */
#include "pk_test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "observed_json.h"
#include "plan/internal.h"
#include "plan/plan.h"

static char *netns(const char *tag, const char *fleet, const char *group, unsigned index)
{
    return pk_asprintf("/run/netns/%s-%s-%s-%u", tag, fleet, group, index);
}

struct images {
    int code;
    char salt;
    const char *release;
};

static int find_image(void *arg, const char *image, char **ret_digest, char **ret_release,
                      struct pk_error *err)
{
    const struct images *images = arg;
    if (images->code != 0)
        return pk_fail(err, images->code, "no image %s", image);
    char hash[65];
    char salted[128];
    (void)snprintf(salted, sizeof(salted), "%s%c", image, images->salt);
    pk_sha256_hex(salted, strlen(salted), hash);
    *ret_digest = pk_asprintf("sha256:%s", hash);
    *ret_release = pk_strdup(images->release != NULL ? images->release : "");
    return 0;
}

static struct pk_catalog *catalog;
static const char *user; /* of pk_placement */
static char data_dir[512];

static int open_catalog(void **state)
{
    (void)state;
    char path[600];
    (void)snprintf(data_dir, sizeof(data_dir), "%s/tests/data/plans", getenv("PICKET_SOURCE"));
    (void)snprintf(path, sizeof(path), "%s/catalog", data_dir);
    const char *dirs[] = { path, NULL };
    struct pk_errors errors = { 0 };
    return pk_catalog_open(dirs, &catalog, &errors);
}

static int close_catalog(void **state)
{
    (void)state;
    pk_catalog_free(catalog);
    return 0;
}

static int build_with(const char *text, unsigned cpus, struct images *images,
                      struct pk_desired **ret_desired, struct pk_errors *errors)
{
    struct pk_fleet_spec *spec = NULL;
    int r = pk_spec_parse("fleet.yaml", text, strlen(text), &spec, errors);
    if (r < 0)
        return r;
    const struct pk_placement placement = { .tag = "pk0000",
                                            .state_dir = "/s",
                                            .lane_netns = netns,
                                            .cpu_count = cpus,
                                            .reserved_cpus = cpus > 1 ? 1 : 0,
                                            .image_find = find_image,
                                            .image_find_arg = images,
                                            .user = user };
    r = pk_desired_build(spec, catalog, &placement, ret_desired, errors);
    pk_spec_free(spec);
    return r;
}

static struct pk_desired *build(const char *text)
{
    struct pk_desired *desired = NULL;
    struct pk_errors errors = { 0 };
    struct images images = { 0 };
    if (build_with(text, 4, &images, &desired, &errors) < 0)
        fail_msg("%s:%u: %s", errors.list[0].file, errors.list[0].line, errors.list[0].msg);
    return desired;
}

/* What is there once all of it is carried out. */
static json_t *carried_out(const struct pk_desired *desired)
{
    json_t *taps = json_array();
    json_t *lanes = json_array();
    json_t *groups = json_array();
    json_t *units = json_array();
    for (size_t i = 0; i < desired->tap_count; i++)
        (void)json_array_append_new(
            taps,
            json_pack("{s:s,s:O,s:O,s:s,s:i}", "name", desired->taps[i].name, "groups",
                      desired->taps[i].groups, "tenants", desired->taps[i].tenants, "interface",
                      desired->taps[i].interface, "mtu", (int)desired->taps[i].mtu));
    for (size_t i = 0; i < desired->lane_count; i++)
        (void)json_array_append_new(
            lanes, json_pack("{s:s,s:i,s:i}", "group", desired->lanes[i].group, "index",
                             (int)desired->lanes[i].index, "mtu", (int)desired->lanes[i].mtu));
    for (size_t g = 0; g < desired->group_count; g++) {
        json_t *members = json_array();
        for (size_t i = 0; i < desired->lane_count; i++)
            if (strcmp(desired->lanes[i].group, desired->groups[g].name) == 0)
                (void)json_array_append_new(members, json_integer(desired->lanes[i].index));
        (void)json_array_append_new(
            groups,
            json_pack("{s:s,s:o,s:s,s:s,s:i,s:O}", "name", desired->groups[g].name, "lanes",
                      members, "hash", pk_group_hash_name(desired->groups[g].hash), "tenant",
                      desired->groups[g].tenant, "priority", (int)desired->groups[g].priority,
                      "options", desired->groups[g].options));
    }
    for (size_t i = 0; i < desired->unit_count; i++)
        (void)json_array_append_new(
            units, json_pack("{s:o}", "unit", pk_unit_to_json(&desired->units[i])));
    return json_pack("{s:o,s:o,s:o,s:o,s:[]}", "taps", taps, "lanes", lanes, "groups", groups,
                     "units", units, "known");
}

/* ---- golden ---- */

/* observed.json: {"remove": {"units": ["name"]}, "set": {"units": {"0": {"fault": ".."}}}, "known":
 * []}: rows are named by their place, which is canonical. */
static void lay_over(json_t *observed, const json_t *changes)
{
    const char *kind;
    json_t *rows;
    json_object_foreach(json_object_get(changes, "set"), kind, rows)
    {
        const char *place;
        json_t *members;
        json_object_foreach(rows, place, members)
        {
            json_t *row = json_array_get(json_object_get(observed, kind), strtoul(place, NULL, 10));
            assert_non_null(row);
            (void)json_object_update(row, members);
        }
    }
    json_object_foreach(json_object_get(changes, "remove"), kind, rows)
    {
        for (size_t i = json_array_size(rows); i-- > 0;)
            assert_int_equal(json_array_remove(json_object_get(observed, kind),
                                               (size_t)json_integer_value(json_array_get(rows, i))),
                             0);
    }
    if (json_object_get(changes, "known") != NULL)
        (void)json_object_set(observed, "known", json_object_get(changes, "known"));
}

static char *read_text(const char *dir, const char *name)
{
    char path[900];
    char *text = NULL;
    size_t len = 0;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return pk_file_read(path, 1 << 20, &text, &len, NULL) < 0 ? NULL : text;
}

static void check_case(const char *dir)
{
    PK_CLEANUP(pk_free_p) char *before = read_text(dir, "before.yaml");
    PK_CLEANUP(pk_free_p) char *after = read_text(dir, "fleet.yaml");
    PK_CLEANUP(pk_free_p) char *changes_text = read_text(dir, "observed.json");
    PK_CLEANUP(pk_desired_free_p)
    struct pk_desired *old = before != NULL ? build(before) : pk_desired_new_empty("edge");
    PK_CLEANUP(pk_desired_free_p)
    struct pk_desired *desired = after != NULL ? build(after) : pk_desired_new_empty("edge");
    PK_JSON there = carried_out(old);
    if (changes_text != NULL) {
        PK_JSON changes = NULL;
        assert_int_equal(
            pk_json_parse("observed.json", changes_text, strlen(changes_text), &changes, NULL), 0);
        lay_over(there, changes);
    }
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *observed = observed_of_json(there);
    PK_CLEANUP(pk_plan_free_p) struct pk_plan *plan = NULL;
    assert_int_equal(pk_plan_make(desired, observed, &plan, NULL), 0);
    PK_JSON json = pk_plan_to_json(plan);
    /* Hashes depend on each other and on the machine's naming: the steps are what is held. */
    (void)json_object_del(json, "id");
    (void)json_object_del(json, "observedHash");
    (void)json_object_del(json, "desiredHash");
    PK_CLEANUP(pk_free_p) char *got = pk_json_pretty(json);
    char path[900];
    (void)snprintf(path, sizeof(path), "%s/want.json", dir);
    if (getenv("PK_UPDATE") != NULL)
        assert_int_equal(pk_file_write(path, got, strlen(got), 0644, NULL), 0);
    PK_CLEANUP(pk_free_p) char *want = read_text(dir, "want.json");
    assert_non_null(want);
    if (strcmp(got, want) != 0)
        fail_msg("%s: got %s", dir, got);
}

static void test_golden(void **state)
{
    (void)state;
    DIR *dir = opendir(data_dir);
    assert_non_null(dir);
    size_t cases = 0;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        char path[800];
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "catalog") == 0)
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", data_dir, entry->d_name);
        check_case(path);
        cases++;
    }
    (void)closedir(dir);
    assert_true(cases >= 8);
}

/* ---- the property ---- */

/* Up to three taps, tenants by VLAN and by tap, groups on any of the taps. */
static char *random_fleet(unsigned *seed)
{
    struct pk_buf out = PK_BUF_INIT(65536);
    unsigned groups = 1 + (unsigned)rand_r(seed) % 4, taps = 1 + (unsigned)rand_r(seed) % 3;
    unsigned tenants = (unsigned)rand_r(seed) % 3, first = (unsigned)rand_r(seed) % 2;
    (void)pk_buf_puts(&out, "apiVersion: picket.dev/v1alpha1\nkind: Fleet\nmetadata: {name: edge}\n"
                            "spec:\n  taps:\n");
    for (unsigned i = 0; i < taps; i++) {
        if (rand_r(seed) % 2)
            (void)pk_buf_printf(&out, "    - {name: t%u, replay: {}}\n", i);
        else
            (void)pk_buf_printf(&out, "    - {name: t%u, interface: eth%u}\n", i,
                                i * 2 + (unsigned)rand_r(seed) % 2);
    }
    (void)pk_buf_puts(&out, tenants > 0 ? "  tenants:\n" : "");
    for (unsigned i = 0; i < tenants; i++)
        (void)pk_buf_printf(&out, "    - {name: o%u, match: {vlans: [%u]}, priority: %u}\n",
                            (i + first) % 2, 10 * i + 1 + (unsigned)rand_r(seed) % 3,
                            100 + (unsigned)rand_r(seed) % 2);
    (void)pk_buf_puts(&out, "  groups:\n");
    for (unsigned i = 0; i < groups; i++) {
        (void)pk_buf_printf(
            &out, "    - name: g%u\n      taps: [t%u]\n      lanes: %u\n      hash: %s\n", i,
            (unsigned)rand_r(seed) % taps, 1 + (unsigned)rand_r(seed) % 4,
            pk_group_hash_name((enum pk_group_hash)(rand_r(seed) % PK_GROUP_HASHES)));
        if (rand_r(seed) % 2 && tenants == 2)
            (void)pk_buf_printf(&out, "      tenant: o%u\n", (unsigned)rand_r(seed) % 2);
        if (rand_r(seed) % 3 == 0)
            (void)pk_buf_printf(&out,
                                rand_r(seed) % 2 ? "      filter: port %u\n"
                                                 : "      filter: {ports: [%u]}\n",
                                80 + (unsigned)rand_r(seed) % 2);
        (void)pk_buf_puts(&out, "      tools:\n");
        for (unsigned t = 0; t <= (unsigned)rand_r(seed) % 2; t++)
            (void)pk_buf_printf(
                &out, "        - {name: s%u, package: sniffer@%u, values: {verbose: %s}}\n", t,
                1 + (unsigned)rand_r(seed) % 2, rand_r(seed) % 2 ? "true" : "false");
    }
    return pk_buf_take(&out);
}

/* Breaks things at random: rows go, get faults, stop. */
static void damage(json_t *there, unsigned *seed)
{
    static const char *const kinds[] = { "taps", "lanes", "groups", "units" };
    for (size_t k = 0; k < PK_ARRAY_SIZE(kinds); k++) {
        json_t *rows = json_object_get(there, kinds[k]);
        for (size_t i = json_array_size(rows); i-- > 0;) {
            json_t *row = json_array_get(rows, i);
            switch (rand_r(seed) % 8) {
            case 0:
                (void)json_array_remove(rows, i);
                break;
            case 1:
                (void)json_object_set_new(row, "fault", json_string("is broken"));
                break;
            case 2:
                (void)json_object_set_new(row, "running", json_false());
                break;
            default:
                break;
            }
        }
    }
}

static json_t *find_row(json_t *rows, const char *name, const char *group, int64_t index,
                        size_t *ret_place)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        bool same = name != NULL ? strcmp(pk_json_string_or(row, "name", ""), name) == 0 ||
                                       strcmp(pk_json_string_or(row, "unit.name", ""), name) == 0
                                 : strcmp(pk_json_string_or(row, "group", ""), group) == 0 &&
                                       pk_json_int_or(row, "index", -1) == index;
        if (same) {
            *ret_place = i;
            return row;
        }
    }
    return NULL;
}

/* Carries one step out on the rows, as the executor does on the world. Steps must come in an order
 * in which each is possible: that is asserted. */
static void carry_out(json_t *there, const json_t *goal, const struct pk_desired *desired,
                      const struct pk_observed *observed, const struct pk_step *step)
{
    static const char *const kinds[] = { "lanes", "units", "groups", "taps" };
    json_t *rows = json_object_get(there, kinds[step->kind]);
    bool remove = step->op == PK_STEP_REMOVE;
    const char *name = NULL;
    const char *group = NULL;
    int64_t index = 0;
    size_t at = 0;
    switch (step->kind) {
    case PK_STEP_LANE:
        group = remove ? observed->lanes[step->index].group : desired->lanes[step->index].group;
        index = remove ? observed->lanes[step->index].index : desired->lanes[step->index].index;
        break;
    case PK_STEP_UNIT:
        name = remove ? observed->units[step->index].name : desired->units[step->index].name;
        if (!remove) /* its lane is there and whole */
            assert_string_equal(pk_json_string_or(find_row(json_object_get(there, "lanes"), NULL,
                                                           desired->units[step->index].group,
                                                           desired->units[step->index].lane, &at),
                                                  "fault", ""),
                                "");
        break;
    case PK_STEP_GROUP:
        name = remove ? observed->groups[step->index].name : desired->groups[step->index].name;
        break;
    case PK_STEP_TAP:
        name = remove ? observed->taps[step->index].name : desired->taps[step->index].name;
        /* packets may go to its groups */
        for (size_t g = 0; !remove && g < json_array_size(desired->taps[step->index].groups); g++) {
            const json_t *target = json_array_get(desired->taps[step->index].groups, g);
            assert_non_null(find_row(json_object_get(there, "groups"),
                                     pk_json_string_or(target, "name", ""), NULL, 0, &at));
        }
        break;
    }
    json_t *old = find_row(rows, name, group, index, &at);
    assert_true(step->op == PK_STEP_ADD ? old == NULL : old != NULL);
    if (old != NULL)
        (void)json_array_remove(rows, at);
    if (remove)
        return;
    json_t *wanted = find_row(json_object_get(goal, kinds[step->kind]), name, group, index, &at);
    assert_non_null(wanted);
    (void)json_array_append(rows, wanted);
}

static void test_second_plan_is_empty(void **state)
{
    (void)state;
    unsigned seed = 20261123;
    for (int round = 0; round < 300; round++) {
        PK_CLEANUP(pk_free_p) char *from_text = random_fleet(&seed);
        PK_CLEANUP(pk_free_p) char *to_text = random_fleet(&seed);
        PK_CLEANUP(pk_desired_free_p) struct pk_desired *from = build(from_text);
        PK_CLEANUP(pk_desired_free_p)
        struct pk_desired *to = round % 10 == 0 ? pk_desired_new_empty("edge") : build(to_text);
        PK_JSON there = carried_out(from);
        PK_JSON goal = carried_out(to);
        damage(there, &seed);
        PK_CLEANUP(pk_observed_free_p) struct pk_observed *observed = observed_of_json(there);
        PK_CLEANUP(pk_plan_free_p) struct pk_plan *plan = NULL;
        PK_CLEANUP(pk_plan_free_p) struct pk_plan *same = NULL;
        assert_int_equal(pk_plan_make(to, observed, &plan, NULL), 0);
        assert_int_equal(pk_plan_make(to, observed, &same, NULL), 0);
        assert_string_equal(plan->id, same->id);
        for (size_t i = 0; i < plan->step_count; i++)
            carry_out(there, goal, to, observed, &plan->steps[i]);
        PK_CLEANUP(pk_observed_free_p) struct pk_observed *now = observed_of_json(there);
        PK_CLEANUP(pk_plan_free_p) struct pk_plan *next = NULL;
        assert_int_equal(pk_plan_make(to, now, &next, NULL), 0);
        if (next->step_count != 0)
            fail_msg("round %d: %s %s: %s\n%s", round, pk_step_op_name(next->steps[0].op),
                     next->steps[0].name, next->steps[0].reason, to_text);
        assert_string_equal(next->traffic, "none");
    }
}

/* ---- the rest ---- */

#define GROUP(lanes, cpu)                                                           \
    "apiVersion: picket.dev/v1alpha1\nkind: Fleet\nmetadata: {name: edge}\nspec:\n" \
    "  taps: [{name: t, interface: eth0}]\n"                                        \
    "  groups:\n"                                                                   \
    "    - {name: g, taps: [t], lanes: " lanes ", cpu: " cpu ", tools: [{package: sniffer}]}\n"

static void test_frozen(void **state)
{
    (void)state;
    unsigned seed = 7;
    for (int round = 0; round < 20; round++) {
        PK_CLEANUP(pk_free_p) char *text = random_fleet(&seed);
        PK_CLEANUP(pk_desired_free_p) struct pk_desired *desired = build(text);
        PK_CLEANUP(pk_desired_free_p) struct pk_desired *back = NULL;
        PK_JSON frozen = pk_desired_freeze(desired);
        struct pk_error err = { 0 };
        assert_int_equal(pk_desired_thaw(frozen, &back, &err), 0);
        PK_JSON one = pk_desired_to_json(desired);
        PK_JSON two = pk_desired_to_json(back);
        assert_true(json_equal(one, two));
        PK_CLEANUP(pk_free_p) char *hash = pk_unit_hash(&back->units[0]);
        assert_string_equal(hash, desired->units[0].hash);
    }
    /* A file that is no text comes back byte by byte. */
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *odd = build(GROUP("1", "shared"));
    struct pk_unit *unit = &odd->units[0];
    memcpy(unit->files.files[0].data, "\xff\0x", 3);
    unit->files.files[0].len = 3;
    PK_JSON frozen_odd = pk_desired_freeze(odd);
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *odd_back = NULL;
    assert_int_equal(pk_desired_thaw(frozen_odd, &odd_back, NULL), 0);
    assert_int_equal(odd_back->units[0].files.files[0].len, 3);
    assert_memory_equal(odd_back->units[0].files.files[0].data, "\xff\0x", 3);

    struct pk_desired *none = NULL;
    PK_JSON broken = json_pack("{s:s,s:[{s:s}]}", "fleet", "x", "units", "name", "only");
    struct pk_error err = { 0 };
    assert_true(pk_desired_thaw(broken, &none, &err) < 0);
    assert_true(err.msg[0] != '\0');
}

static void test_placement(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned cpus, lanes;
        const char *first_cpu;
    } cases[] = {
        { GROUP("auto", "shared"), 8, 7, "" },     { GROUP("auto", "shared"), 1, 1, "" },
        { GROUP("auto", "dedicated"), 8, 7, "1" }, { GROUP("auto", "dedicated"), 2, 1, "1" },
        { GROUP("auto", "dedicated"), 1, 1, "0" }, { GROUP("3", "dedicated"), 4, 3, "1" },
        { GROUP("5", "shared"), 2, 5, "" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        PK_CLEANUP(pk_desired_free_p) struct pk_desired *desired = NULL;
        struct pk_errors errors = { 0 };
        struct images images = { 0 };
        assert_int_equal(build_with(cases[i].text, cases[i].cpus, &images, &desired, &errors), 0);
        assert_int_equal(desired->lane_count, cases[i].lanes);
        assert_int_equal(desired->unit_count, cases[i].lanes);
        assert_string_equal(desired->units[0].cpuset, cases[i].first_cpu);
    }
    struct pk_desired *desired = NULL;
    struct pk_errors errors = { 0 };
    struct images images = { 0 };
    assert_int_equal(build_with(GROUP("4", "dedicated"), 4, &images, &desired, &errors),
                     PK_E_INVALID);
    assert_null(desired);
    assert_int_equal(errors.count, 1);
    assert_int_equal(errors.list[0].line, 7);
    assert_non_null(strstr(errors.list[0].hint, "lanes: 3"));
    pk_errors_done(&errors);
}

static void test_images(void **state)
{
    (void)state;
    struct pk_desired *desired = NULL;
    struct pk_errors errors = { 0 };
    struct images missing = { .code = PK_E_NOTFOUND };
    assert_int_equal(build_with(GROUP("1", "shared"), 4, &missing, &desired, &errors),
                     PK_E_NOTFOUND);
    assert_int_equal(errors.list[0].line, 7);
    assert_non_null(strstr(errors.list[0].hint, "picket image build sniffer"));
    pk_errors_done(&errors);
    errors = (struct pk_errors){ 0 };
    struct images away = { .code = PK_E_UNREACHABLE };
    assert_int_equal(build_with(GROUP("1", "shared"), 4, &away, &desired, &errors),
                     PK_E_UNREACHABLE);
    assert_int_equal(errors.count, 1);
    assert_int_equal(errors.list[0].line, 0);
    pk_errors_done(&errors);

    /* A new build of an image of the same name is a change, and named so. */
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *old = build(GROUP("1", "shared"));
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *new = NULL;
    errors = (struct pk_errors){ 0 };
    struct images other = { .salt = 'x' };
    assert_int_equal(build_with(GROUP("1", "shared"), 4, &other, &new, &errors), 0);
    PK_JSON there = carried_out(old);
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *observed = observed_of_json(there);
    PK_CLEANUP(pk_plan_free_p) struct pk_plan *plan = NULL;
    assert_int_equal(pk_plan_make(new, observed, &plan, NULL), 0);
    assert_int_equal(plan->step_count, 1);
    assert_true(pk_str_starts(plan->steps[0].reason, "image sha256:"));
}

/* A full version is what the image has, or it is refused where it stands. */
static void test_full_version(void **state)
{
    (void)state;
    static const struct {
        const char *wanted, *has, *fault, *hint;
    } cases[] = {
        { "sniffer@2.0.1", "2.0.1", NULL, NULL },
        { "sniffer@2", "2.0.1", NULL, NULL },
        { "sniffer@2", "", NULL, NULL },
        { "sniffer@2.0.1", "2.1.0", "sniffer 2.1.0, not 2.0.1", "write sniffer@2.1.0" },
        { "sniffer@2.0", "2.0.1", "sniffer 2.0.1, not 2.0", "write sniffer@2.0.1" },
        { "sniffer@2.0.1", "", "does not say", "picket image build sniffer@2 --force" },
        { "sniffer@20.1", "20.1", "has no version", "write one of" },
        { "sniffer@2.", "2.0.1", "has no version", "write one of" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        PK_CLEANUP(pk_free_p) char *text = pk_strdup(GROUP("1", "shared"));
        char *at = strstr(text, "package: ");
        assert_non_null(at);
        size_t rest = strcspn(at, ",}\n");
        *at = '\0';
        PK_CLEANUP(pk_free_p)
        char *fleet = pk_asprintf("%spackage: %s%s", text, cases[i].wanted, at + rest);
        PK_CLEANUP(pk_desired_free_p) struct pk_desired *desired = NULL;
        struct pk_errors errors = { 0 };
        struct images images = { .release = cases[i].has };
        int r = build_with(fleet, 4, &images, &desired, &errors);
        if (cases[i].fault == NULL) {
            assert_int_equal(r, 0);
            assert_string_equal(desired->units[0].version, "2");
            assert_string_equal(desired->units[0].release, cases[i].has);
        } else {
            assert_true(r < 0);
            assert_int_equal(errors.count, 1);
            assert_non_null(strstr(errors.list[0].msg, cases[i].fault));
            assert_non_null(strstr(errors.list[0].hint, cases[i].hint));
            assert_true(errors.list[0].line > 0);
        }
        pk_errors_done(&errors);
    }
}

/* Units of another user are others: the files of one cannot be written by the other. */
static void test_user(void **state)
{
    (void)state;
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *old = build(GROUP("1", "shared"));
    assert_string_equal(old->units[0].user, "");
    user = "990:991";
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *new = build(GROUP("1", "shared"));
    user = NULL;
    PK_JSON frozen = pk_desired_freeze(new);
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *thawed = NULL;
    assert_int_equal(pk_desired_thaw(frozen, &thawed, NULL), 0);
    assert_string_equal(thawed->units[0].user, "990:991");

    PK_JSON there = carried_out(old);
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *observed = observed_of_json(there);
    PK_CLEANUP(pk_plan_free_p) struct pk_plan *plan = NULL;
    assert_int_equal(pk_plan_make(new, observed, &plan, NULL), 0);
    assert_int_equal(plan->step_count, 1);
    assert_string_equal(plan->steps[0].reason, "user none -> 990:991");
}

static void test_stale_means_what_a_plan_depends_on(void **state)
{
    (void)state;
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *desired = build(GROUP("2", "shared"));
    PK_JSON there = carried_out(desired);
    char first[65];
    char second[65];
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *one = observed_of_json(there);
    assert_int_equal(pk_observed_hash(one, first, NULL), 0);
    json_t *unit = json_array_get(json_object_get(there, "units"), 0);
    (void)json_object_set_new(unit, "running", json_false());
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *two = observed_of_json(there);
    assert_int_equal(pk_observed_hash(two, second, NULL), 0);
    assert_string_equal(first, second); /* a crash of a tool */
    (void)json_object_set_new(unit, "fault", json_string("config file x edited on disk"));
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *three = observed_of_json(there);
    assert_int_equal(pk_observed_hash(three, second, NULL), 0);
    assert_string_not_equal(first, second);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *desired = build(GROUP("2", "shared"));
    PK_JSON there = carried_out(desired);
    json_t *row = json_array_get(json_object_get(there, "lanes"), 0);
    (void)json_object_set_new(row, "fault", json_string("namespace is gone"));
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *observed = observed_of_json(there);
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        struct pk_plan *plan = NULL;
        r = pk_plan_make(desired, observed, &plan, NULL);
        pk_plan_free(plan);
    });
    assert_int_equal(r, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_second_plan_is_empty),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_placement),
        cmocka_unit_test(test_images),
        cmocka_unit_test(test_full_version),
        cmocka_unit_test(test_user),
        cmocka_unit_test(test_stale_means_what_a_plan_depends_on),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests_name("plan/plan", tests, open_catalog, close_catalog);
}
