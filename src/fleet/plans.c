/* SPDX-License-Identifier: Apache-2.0 */
/* Making plans, and beginning to carry one out. */
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "fleet/internal.h"

#define LOOK_TIMEOUT_MS  15000u
#define CALL_TIMEOUT_MS  5000u
#define BUSY_TIMEOUT     (20 * PK_NSEC_PER_SEC)
#define PLANS_KEPT       50u
#define REVISIONS_FROZEN 10u /* rollbacks to these bring back the very images and files */
#define CPUS_RESERVED    1u
#define CPUS_MAX         1024u
/* Room that an apply wants on the state's file system beside its config files: the database's
 * journal, logs of the first minutes. */
#define SPACE_MIN_BYTES (8u << 20)
#define BOTH_PEERS      (1u << PK_PEER_ENGINE | 1u << PK_PEER_AGENT)

static int no_fleet(const char *fleet, struct pk_error *err)
{
    pk_fail(err, PK_E_NOTFOUND, "there is no fleet %s", fleet);
    return pk_hint(err, "'picket status' lists the fleets");
}

/* ---- what is wanted ---- */

static int image_find(void *arg, const char *image, char **ret_digest, char **ret_release,
                      struct pk_error *err)
{
    struct pk_manager *manager = arg;
    struct pk_engine *engine = manager->options.engine;
    return engine->ops->image_find(engine->self, image, ret_digest, ret_release, err);
}

static unsigned usable_cpus(unsigned *cpus)
{
    cpu_set_t set;
    unsigned count = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        for (unsigned i = 0; i < PK_MIN((unsigned)CPU_SETSIZE, CPUS_MAX); i++)
            if (CPU_ISSET(i, &set))
                cpus[count++] = i;
    if (count == 0)
        cpus[count++] = 0;
    return count;
}

/* The taps' interfaces: the second of an inline tap, as the agent is told of it; else "". */
static const char *second_interface(const json_t *options)
{
    return pk_json_string_or(json_object_get(options, "inline"), "interface", "");
}

/* Does the agent's tap have it? */
static bool tap_has_interface(const json_t *row, const char *name)
{
    return name[0] != '\0' &&
           (strcmp(pk_json_string_or(row, "interface", ""), name) == 0 ||
            strcmp(second_interface(json_object_get(row, "options")), name) == 0);
}

/* What the agent says of one of the machine's interfaces; NULL = there is none of that name. */
static const json_t *find_interface(const json_t *interfaces, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(interfaces, i, row)
    {
        if (strcmp(pk_json_string_or(row, "name", ""), name) == 0)
            return row;
    }
    return NULL;
}

/* Has a tap of the fleet it already? Then it may be away for now: the agent takes it when it is
 * back, and the rest of the fleet can be changed meanwhile. */
static bool is_own_tap(const json_t *plane, const char *fleet, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(plane, "taps"), i, row)
    {
        if (strcmp(pk_json_string_or(row, "fleet", ""), fleet) == 0 && tap_has_interface(row, name))
            return true;
    }
    return false;
}

static int no_interface(const json_t *interfaces, const char *what, const char *of,
                        const char *name, struct pk_error *err)
{
    const char *names[128];
    size_t count = 0;
    size_t i;
    json_t *row;
    json_array_foreach(interfaces, i, row)
    {
        const char *other = pk_json_string_or(row, "name", NULL);
        if (other != NULL && count < PK_ARRAY_SIZE(names))
            names[count++] = other;
    }
    const char *closest = pk_str_closest(name, names, count);
    pk_fail(err, PK_E_NOTFOUND, "%s %s: this machine has no interface %s", what, of, name);
    if (closest != NULL)
        return pk_hint(err, "did you mean %s?", closest);
    return pk_hint(err, "write one that 'ip link' lists, or plug it in first");
}

/* The agent refuses them too (node/tap.c, node/device.c), but only when all before it is done. */
static int check_not_own(const json_t *interfaces, const char *what, const char *of,
                         const char *name, bool leaves_rest, struct pk_error *err)
{
    const json_t *row = find_interface(interfaces, name);
    const char *why = "";
    if (row == NULL)
        return 0;
    if (strcmp(pk_json_string_or(row, "state", ""), "loopback") == 0)
        why = "is the machine's loopback";
    else if (!leaves_rest && json_is_true(json_object_get(row, "defaultRoute")))
        why = "carries the machine's default route";
    if (why[0] == '\0')
        return 0;
    pk_fail(err, PK_E_CONFLICT, "%s %s: interface %s %s", what, of, name, why);
    return pk_hint(err, "the machine itself would get no packets from it any more: use an "
                        "interface that only receives mirrored traffic");
}

/* Has a tap of another fleet it, or, for a lane's device, any tap? */
static int check_not_taken(const json_t *plane, const char *fleet, const char *what, const char *of,
                           const char *name, struct pk_error *err)
{
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(plane, "taps"), i, row)
    {
        const char *owner = pk_json_string_or(row, "fleet", "");
        if (strcmp(owner, fleet) == 0 || !tap_has_interface(row, name))
            continue;
        pk_fail(err, PK_E_CONFLICT, "%s %s: interface %s is taken by tap %s of fleet %s", what, of,
                name, pk_json_string_or(row, "name", ""), owner);
        return pk_hint(err, "an interface belongs to one tap: add the group to fleet %s", owner);
    }
    json_array_foreach(json_object_get(plane, "lanes"), i, row)
    {
        const char *owner = pk_json_string_or(row, "fleet", "");
        if (strcmp(owner, fleet) == 0 || strcmp(pk_json_string_or(row, "device", ""), name) != 0)
            continue;
        pk_fail(err, PK_E_CONFLICT, "%s %s: interface %s is taken by lane %s/%lld of fleet %s",
                what, of, name, pk_json_string_or(row, "group", ""),
                (long long)pk_json_int_or(row, "index", 0), owner);
        return pk_hint(err, "use another interface, or remove that lane's group first");
    }
    return 0;
}

/* In a lane's namespace the machine's list does not have it. */
static bool is_a_lanes(const json_t *plane, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(plane, "lanes"), i, row)
    {
        if (strcmp(pk_json_string_or(row, "device", ""), name) == 0)
            return true;
    }
    return false;
}

static void add_fault(struct pk_errors *errors, const struct pk_fleet_spec *spec, struct pk_pos pos,
                      struct pk_error *fault)
{
    pk_error_at(fault, spec->doc != NULL ? pk_doc_name(spec->doc) : "", pos.line, pos.col);
    pk_errors_add(errors, fault);
}

/* What only the machine tells about the interfaces that a fleet file names. */
static void check_interfaces(const struct pk_fleet_spec *spec, const json_t *inventory,
                             const json_t *plane, struct pk_errors *errors)
{
    const json_t *interfaces = json_object_get(inventory, "interfaces");
    for (size_t t = 0; t < spec->tap_count; t++) {
        const struct pk_tap_spec *tap = &spec->taps[t];
        const char *names[] = { pk_tap_has_interface(tap->kind) ? tap->interface : "",
                                tap->kind == PK_TAP_INLINE ? tap->pair.interfaces.list[1] : "" };
        struct pk_error err = { 0 };
        int r = 0;
        for (size_t n = 0; n < PK_ARRAY_SIZE(names) && r >= 0; n++) {
            if (names[n][0] == '\0')
                continue;
            r = check_not_taken(plane, spec->name, "tap", tap->name, names[n], &err);
            if (r >= 0 && find_interface(interfaces, names[n]) == NULL &&
                !is_own_tap(plane, spec->name, names[n]))
                r = no_interface(interfaces, "tap", tap->name, names[n], &err);
            if (r >= 0)
                r = check_not_own(interfaces, "tap", tap->name, names[n],
                                  tap->kind == PK_TAP_TUNNEL, &err);
        }
        if (r < 0)
            add_fault(errors, spec, tap->pos, &err);
    }
    for (size_t g = 0; g < spec->group_count; g++) {
        const struct pk_group_spec *group = &spec->groups[g];
        for (size_t n = 0; n < group->devices.count; n++) {
            const char *name = group->devices.list[n];
            struct pk_error err = { 0 };
            int r = check_not_taken(plane, spec->name, "group", group->name, name, &err);
            if (r >= 0 && find_interface(interfaces, name) == NULL && !is_a_lanes(plane, name))
                r = no_interface(interfaces, "group", group->name, name, &err);
            if (r >= 0)
                r = check_not_own(interfaces, "group", group->name, name, false, &err);
            if (r < 0)
                add_fault(errors, spec, group->pos, &err);
        }
    }
}

static int desired_of_document(struct pk_manager *manager, const char *name, const char *text,
                               const char *fleet, const struct pk_view *view,
                               struct pk_desired **ret_desired, struct pk_errors *errors,
                               struct pk_error *err)
{
    PK_CLEANUP(pk_spec_free_p) struct pk_fleet_spec *spec = NULL;
    int r = pk_spec_parse(name, text, strlen(text), &spec, errors);
    if (r < 0)
        return pk_fail(err, r, "%s has %zu faults", name, errors->count + errors->dropped);
    if (fleet != NULL && strcmp(spec->name, fleet) != 0)
        return pk_fail(err, PK_E_INVALID, "%s describes the fleet %s, not %s", name, spec->name,
                       fleet);

    /* The folders of units are ours: whoever we are may write there, and root without rights only
     * when that is us. */
    char user[32] = "";
    if (geteuid() != 0)
        (void)snprintf(user, sizeof(user), "%u:%u", (unsigned)geteuid(), (unsigned)getegid());
    unsigned cpus[CPUS_MAX];
    struct pk_placement placement = { .tag = manager->paths.tag,
                                      .state_dir = manager->paths.state_dir,
                                      .lane_netns = manager->options.lane_netns,
                                      .cpus = cpus,
                                      .image_find = image_find,
                                      .image_find_arg = manager,
                                      .user = user };
    placement.cpu_count = usable_cpus(cpus);
    placement.reserved_cpus = placement.cpu_count > CPUS_RESERVED ? CPUS_RESERVED : 0;
    struct pk_desired *desired = NULL;
    r = pk_desired_build(spec, manager->options.catalog, &placement, &desired, errors);
    if (view != NULL) {
        PK_JSON inventory = NULL;
        int looked =
            pk_fleet_agent_call(manager, CALL_TIMEOUT_MS, "GET", NULL, &inventory, err, "/v1/node");
        if (looked < 0) {
            pk_desired_free(desired);
            return looked;
        }
        check_interfaces(spec, inventory, view->plane, errors);
    }
    if (errors->count > 0) {
        pk_desired_free(desired);
        const struct pk_error *first = &errors->list[0];
        if (r < 0 && errors->count == 1 && first->line == 0) { /* the engine's trouble */
            *err = *first;
            return first->code;
        }
        return pk_fail(err, r < 0 ? r : first->code, "%s has %zu faults", name,
                       errors->count + errors->dropped);
    }
    *ret_desired = desired;
    return 0;
}

/* Whether an image is still there: by its name, or by its digest alone when the name moved on. */
static bool has_image(struct pk_manager *manager, const struct pk_unit *unit)
{
    const char *const names[] = { unit->image, unit->image_digest };
    for (size_t i = 0; i < PK_ARRAY_SIZE(names); i++) {
        PK_CLEANUP(pk_free_p) char *digest = NULL;
        if (image_find(manager, names[i], &digest, NULL, NULL) >= 0 &&
            strcmp(digest, unit->image_digest) == 0)
            return true;
    }
    return false;
}

/* The frozen state of a revision, if all that it needs is still there. */
static struct pk_desired *thaw_revision(struct pk_manager *manager, const char *plan_id)
{
    PK_JSON frozen = NULL;
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *desired = NULL;
    if (pk_state_get(manager->options.state, PK_KIND_DESIRED, plan_id, &frozen, NULL) < 0 ||
        pk_desired_thaw(frozen, &desired, NULL) < 0)
        return NULL;
    for (size_t i = 0; i < desired->unit_count; i++)
        if (!has_image(manager, &desired->units[i]))
            return NULL;
    return PK_TAKE(desired);
}

static int desired_of_revision(struct pk_manager *manager, const char *fleet, uint64_t number,
                               const struct pk_view *view, struct pk_desired **ret_desired,
                               char **ret_document, struct pk_errors *errors, struct pk_error *err)
{
    struct pk_revision revision = { 0 };
    int r = pk_state_revision_get(manager->options.state, fleet, number, &revision, err);
    if (r < 0)
        return r;
    if (revision.document[0] == '\0') {
        pk_revision_done(&revision);
        pk_fail(err, PK_E_USAGE, "revision %" PRIu64 " removed the fleet", number);
        return pk_hint(err,
                       "'picket delete %s' removes it, 'picket history %s' lists revisions to "
                       "go back to",
                       fleet, fleet);
    }
    char name[96];
    (void)snprintf(name, sizeof(name), "%s revision %" PRIu64, fleet, number);
    *ret_desired = thaw_revision(manager, revision.plan_id);
    if (*ret_desired == NULL)
        r = desired_of_document(manager, name, revision.document, fleet, view, ret_desired, errors,
                                err);
    if (r >= 0)
        *ret_document = PK_TAKE(revision.document);
    pk_revision_done(&revision);
    return r;
}

/* ---- saved plans ---- */

static int compare_saved(const void *a, const void *b)
{
    json_t *const *left = a;
    json_t *const *right = b;
    int64_t x = pk_json_int_or(*left, "savedAt", 0);
    int64_t y = pk_json_int_or(*right, "savedAt", 0);
    return x > y ? -1 : x < y;
}

static bool is_frozen_for_revision(struct pk_manager *manager, const char *fleet, const char *id)
{
    struct pk_revision *list = NULL;
    size_t count = 0;
    if (pk_state_revision_list(manager->options.state, fleet, 0, REVISIONS_FROZEN, &list, &count,
                               NULL) < 0)
        return true;
    bool found = false;
    for (size_t i = 0; i < count; i++)
        found |= strcmp(list[i].plan_id, id) == 0;
    pk_revision_list_free(list, count);
    return found;
}

/* Forgets the oldest plans beyond PLANS_KEPT. What stays behind is only space. */
static void prune_plans(struct pk_manager *manager)
{
    struct pk_state *state = manager->options.state;
    PK_JSON plans = NULL;
    if (pk_state_list(state, PK_KIND_PLAN, &plans, NULL) < 0 ||
        json_object_size(plans) <= PLANS_KEPT)
        return;
    size_t count = 0;
    PK_CLEANUP(pk_free_p)
    json_t **rows = pk_zalloc_array(json_object_size(plans), sizeof(json_t *));
    const char *id;
    json_t *row;
    json_object_foreach(plans, id, row)
    {
        if (rows != NULL)
            rows[count++] = row;
    }
    if (count > 0)
        qsort(rows, count, sizeof(json_t *), compare_saved);
    for (size_t i = PLANS_KEPT; i < count; i++) {
        const char *old = pk_json_string_or(rows[i], "plan.id", "");
        const char *fleet = pk_json_string_or(rows[i], "plan.fleet", "");
        if (is_frozen_for_revision(manager, fleet, old))
            continue; /* its row says whose it is: both go when the revision is old enough */
        (void)pk_state_put(state, PK_KIND_PLAN, old, NULL, NULL);
        (void)pk_state_put(state, PK_KIND_DESIRED, old, NULL, NULL);
    }
}

static int save_plan(struct pk_manager *manager, const json_t *plan,
                     const struct pk_desired *desired, const char *document, uint64_t base,
                     struct pk_error *err)
{
    const char *id = pk_json_string_or(plan, "id", "");
    PK_JSON frozen = pk_desired_freeze(desired);
    PK_JSON row = json_pack("{s:O,s:s,s:I,s:I}", "plan", plan, "document", document, "base",
                            (json_int_t)base, "savedAt", (json_int_t)pk_time_now());
    if (frozen == NULL || row == NULL)
        return pk_no_memory(err);
    struct pk_state *state = manager->options.state;
    /* The row that names it comes last: a plan that can be found is whole. */
    int r = pk_state_put(state, PK_KIND_DESIRED, id, frozen, err);
    if (r >= 0)
        r = pk_state_put(state, PK_KIND_PLAN, id, row, err);
    if (r >= 0)
        prune_plans(manager);
    return r;
}

/* A plan by its id or the beginning of it. */
static int find_plan(struct pk_manager *manager, const char *id, json_t **ret_row,
                     struct pk_error *err)
{
    PK_JSON plans = NULL;
    int r = pk_state_get(manager->options.state, PK_KIND_PLAN, id, ret_row, err);
    if (r != PK_E_NOTFOUND)
        return r;
    r = pk_state_list(manager->options.state, PK_KIND_PLAN, &plans, err);
    if (r < 0)
        return r;
    json_t *found = NULL;
    const char *key;
    json_t *row;
    json_object_foreach(plans, key, row)
    {
        if (!pk_str_starts(key, id))
            continue;
        if (found != NULL) {
            pk_fail(err, PK_E_USAGE, "several plans begin with %s", id);
            return pk_hint(err, "write more of the plan's id");
        }
        found = row;
    }
    if (found == NULL) {
        pk_fail(err, PK_E_NOTFOUND, "there is no plan %s", id);
        return pk_hint(err, "plans are kept for a while: make a new one with 'picket plan'");
    }
    *ret_row = json_incref(found);
    return 0;
}

/* ---- plan ---- */

/* Both peers were just seen, or their own error is given. */
static int look(struct pk_manager *manager, struct pk_view *ret_view, struct pk_error *err)
{
    int r = pk_view_fresh(manager, BOTH_PEERS, LOOK_TIMEOUT_MS, ret_view, err);
    if (r < 0)
        return r;
    const struct pk_error *trouble =
        ret_view->engine_error.code < 0 ? &ret_view->engine_error : &ret_view->agent_error;
    if (trouble->code == 0)
        return 0;
    *err = *trouble;
    pk_view_done(ret_view);
    return err->code;
}

static void view_done_p(struct pk_view *view)
{
    pk_view_done(view);
}

/* The fleet's present revision and what was known of it; zero for one that is not there. */
static int present(struct pk_manager *manager, const char *name, uint64_t *ret_revision,
                   struct pk_strv *ret_known, struct pk_error *err)
{
    pk_manager_lock(manager);
    const struct pk_fleet *fleet = pk_manager_find(manager, name);
    *ret_revision = fleet != NULL ? fleet->revision : 0;
    int r = fleet != NULL ? pk_strv_copy(&fleet->known, ret_known) : 0;
    pk_manager_unlock(manager);
    return r < 0 ? pk_no_memory(err) : 0;
}

/* How the machine's interfaces are set up, for what the plan says of it. */
static int observe_nics(struct pk_manager *manager, struct pk_observed *observed,
                        struct pk_error *err)
{
    PK_JSON inventory = NULL;
    int r = pk_fleet_agent_call(manager, CALL_TIMEOUT_MS, "GET", NULL, &inventory, err, "/v1/node");
    if (r < 0)
        return r;
    const json_t *list = json_object_get(inventory, "interfaces");
    observed->nics = pk_zalloc_array(json_array_size(list) + 1, sizeof(*observed->nics));
    if (observed->nics == NULL)
        return pk_no_memory(err);
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row)
    {
        const json_t *setup = json_object_get(row, "setup");
        if (setup == NULL)
            continue;
        struct pk_observed_nic *nic = &observed->nics[observed->nic_count++];
        nic->interface = pk_strdup(pk_json_string_or(row, "name", ""));
        if (nic->interface == NULL)
            return pk_no_memory(err);
        pk_nic_facts_from_json(setup, &nic->facts);
    }
    return 0;
}

static int make_plan(struct pk_manager *manager, const struct pk_view *view,
                     const struct pk_desired *desired, uint64_t *ret_revision,
                     struct pk_plan **ret_plan, struct pk_error *err)
{
    PK_CLEANUP(pk_strv_done) struct pk_strv known = { 0 };
    PK_CLEANUP(pk_observed_free_p) struct pk_observed *observed = NULL;
    int r = present(manager, desired->fleet, ret_revision, &known, err);
    if (r >= 0)
        r = pk_observe(manager, view, desired->fleet, desired, &known, &observed, err);
    if (r >= 0)
        r = observe_nics(manager, observed, err);
    if (r >= 0)
        r = pk_plan_make(desired, observed, ret_plan, err);
    return r;
}

int pk_manager_plan(struct pk_manager *manager, const struct pk_plan_request *request,
                    json_t **ret_plan, struct pk_errors *errors, struct pk_error *err)
{
    struct pk_error trouble = { 0 };
    if (err == NULL)
        err = &trouble;
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *desired = NULL;
    PK_CLEANUP(pk_free_p) char *document = NULL;
    if (request->document != NULL) { /* the file's own faults first: they need no engine */
        struct pk_fleet_spec *spec = NULL;
        const char *name = request->document_name != NULL ? request->document_name : "fleet";
        int r = pk_spec_parse(name, request->document, strlen(request->document), &spec, errors);
        if (r >= 0)
            r = pk_catalog_check_fleet(manager->options.catalog, spec, errors);
        pk_spec_free(spec);
        if (r < 0)
            return pk_fail(err, r, "%s has %zu faults", name, errors->count + errors->dropped);
    } else if (request->fleet == NULL || (request->revision == 0 && !request->remove)) {
        return pk_fail(err, PK_E_USAGE,
                       "a plan needs a document, a fleet and revision, or a fleet "
                       "to remove");
    }
    if (request->remove) {
        pk_manager_lock(manager);
        bool found = pk_manager_find(manager, request->fleet) != NULL;
        pk_manager_unlock(manager);
        if (!found)
            return no_fleet(request->fleet, err);
    }

    PK_CLEANUP(view_done_p) struct pk_view view = { 0 };
    int r = look(manager, &view, err);
    if (r < 0)
        return r;
    if (request->document != NULL) {
        document = pk_strdup(request->document);
        r = desired_of_document(manager,
                                request->document_name != NULL ? request->document_name : "fleet",
                                request->document, NULL, &view, &desired, errors, err);
    } else if (request->remove) {
        document = pk_strdup("");
        desired = pk_desired_new_empty(request->fleet);
        r = desired != NULL ? 0 : pk_no_memory(err);
    } else {
        r = desired_of_revision(manager, request->fleet, request->revision, &view, &desired,
                                &document, errors, err);
    }
    if (r >= 0 && document == NULL)
        r = pk_no_memory(err);
    if (r < 0)
        return r;

    PK_CLEANUP(pk_plan_free_p) struct pk_plan *plan = NULL;
    uint64_t base = 0;
    r = make_plan(manager, &view, desired, &base, &plan, err);
    if (r < 0)
        return r;
    PK_JSON json = pk_plan_to_json(plan);
    if (json == NULL)
        return pk_no_memory(err);
    r = save_plan(manager, json, desired, document, base, err);
    if (r < 0)
        return pk_wrap(err, "saving the plan"), r;
    (void)json_object_set_new(json, "document", json_string(document));
    (void)json_object_set_new(json, "baseRevision", json_integer((json_int_t)base));
    (void)json_object_set_new(json, "errors", json_array());
    (void)json_object_set_new(json, "saved", json_true());
    *ret_plan = PK_TAKE(json);
    return 0;
}

int pk_manager_plan_get(struct pk_manager *manager, const char *id, json_t **ret_plan,
                        struct pk_error *err)
{
    PK_JSON row = NULL;
    int r = find_plan(manager, id, &row, err);
    if (r < 0)
        return r;
    PK_JSON plan = json_deep_copy(json_object_get(row, "plan"));
    if (plan == NULL || json_object_set(plan, "document", json_object_get(row, "document")) < 0 ||
        json_object_set(plan, "baseRevision", json_object_get(row, "base")) < 0 ||
        json_object_set_new(plan, "errors", json_array()) < 0 ||
        json_object_set_new(plan, "saved", json_true()) < 0)
        return pk_no_memory(err);
    *ret_plan = PK_TAKE(plan);
    return 0;
}

/* ---- apply ---- */

/* All that can be known before the first step: what fails here has changed nothing. */
static int preflight(struct pk_manager *manager, const struct pk_desired *desired,
                     struct pk_error *err)
{
    struct pk_engine *engine = manager->options.engine;
    struct pk_engine_info info;
    int r = engine->ops->probe(engine->self, &info, err);
    if (r < 0)
        return r;
    PK_JSON inventory = NULL;
    PK_JSON plane = NULL;
    r = pk_fleet_agent_call(manager, CALL_TIMEOUT_MS, "GET", NULL, &inventory, err, "/v1/node");
    if (r >= 0)
        r = pk_fleet_agent_call(manager, CALL_TIMEOUT_MS, "GET", NULL, &plane, err, "/v1/plane");
    if (r < 0)
        return r;
    for (size_t i = 0; i < desired->tap_count; i++) {
        const struct pk_tap_desired *tap = &desired->taps[i];
        const json_t *interfaces = json_object_get(inventory, "interfaces");
        const char *const names[] = { pk_tap_has_interface(tap->kind) ? tap->interface : "",
                                      second_interface(tap->options) };
        for (size_t n = 0; n < PK_ARRAY_SIZE(names); n++) {
            if (names[n][0] == '\0' || find_interface(interfaces, names[n]) != NULL ||
                is_own_tap(plane, desired->fleet, names[n]))
                continue;
            pk_fail(err, PK_E_NOTFOUND, "tap %s: this machine has no interface %s", tap->name,
                    names[n]);
            return pk_hint(err, "make the interface, or name another in the fleet file");
        }
    }
    uint64_t wanted = SPACE_MIN_BYTES;
    for (size_t i = 0; i < desired->unit_count; i++) {
        const struct pk_unit *unit = &desired->units[i];
        for (size_t f = 0; f < unit->files.count; f++)
            wanted += unit->files.files[f].len;
        if (!has_image(manager, unit)) {
            pk_fail(err, PK_E_NOTFOUND, "the image %s that the plan was made with is gone",
                    unit->image);
            return pk_hint(err, "build it again with 'picket image build %s' and plan again",
                           unit->package);
        }
    }
    uint64_t free_bytes = 0;
    r = pk_disk_free(manager->paths.state_dir, &free_bytes, err);
    if (r < 0)
        return r;
    if (free_bytes < wanted) {
        char have[32];
        char need[32];
        pk_fail(err, PK_E_NOSPACE, "%s has %s free, an apply needs %s", manager->paths.state_dir,
                pk_human_bytes(free_bytes, have, sizeof(have)),
                pk_human_bytes(wanted, need, sizeof(need)));
        return pk_hint(err, "free space on that file system; nothing was changed");
    }
    return 0;
}

/* Takes hold of the fleet: a repair under way is asked to end after its step. */
static int seize(struct pk_manager *manager, const char *name, struct pk_fleet **ret_fleet,
                 struct pk_error *err)
{
    pk_nsec deadline = pk_time_monotonic() + BUSY_TIMEOUT;
    int r = 0;
    pk_manager_lock(manager);
    for (;;) {
        struct pk_fleet *fleet = pk_manager_find_or_add(manager, name);
        if (fleet == NULL) {
            r = pk_no_memory(err);
            break;
        }
        if ((fleet->job && !fleet->resumed) || fleet->yield) {
            pk_fail(err, PK_E_CONFLICT, "fleet %s: another apply is under way", name);
            r = pk_hint(err, "wait for it: 'picket status %s --watch' shows its progress", name);
            break;
        }
        if (!fleet->busy) {
            fleet->busy = true;
            *ret_fleet = fleet;
            break;
        }
        if (manager->stop || pk_time_monotonic() >= deadline) {
            pk_fail(err, PK_E_CONFLICT, "fleet %s: a repair is under way and does not end", name);
            r = pk_hint(err, "'picket status %s' shows what it waits for; try again", name);
            break;
        }
        fleet->yield = true;
        pk_manager_wait(manager, PK_MIN(deadline, pk_time_monotonic() + PK_NSEC_PER_SEC));
        fleet = pk_manager_find(manager, name);
        if (fleet != NULL)
            fleet->yield = false;
    }
    pk_manager_unlock(manager);
    return r;
}

/* Lets go; a fleet that was only made for this is forgotten. Takes the lock. */
static void let_go(struct pk_manager *manager, struct pk_fleet *fleet)
{
    pk_manager_lock(manager);
    fleet->busy = false;
    if (fleet->revision == 0)
        pk_manager_drop(manager, fleet);
    (void)pthread_cond_broadcast(&manager->changed);
    pk_manager_unlock(manager);
}

struct wanted {
    const char *id, *user, *reason, *document;
    uint64_t base;
    const char *observed_hash;
    struct pk_desired *desired; /* taken when the revision is begun */
};

static int stale(const char *fleet, const char *why, struct pk_error *err)
{
    pk_fail(err, PK_E_CONFLICT, "the plan is stale: %s", why);
    return pk_hint(err, "plan again: 'picket plan' shows what is to be done now for fleet %s",
                   fleet);
}

/* Begins the revision and hands the fleet to the reconciler: with job set, nobody else gets it. */
static int begin(struct pk_manager *manager, struct pk_fleet *fleet, struct wanted *wanted,
                 const struct pk_plan *plan, uint64_t *ret_revision, struct pk_error *err)
{
    PK_JSON steps = pk_journal_of_plan(plan);
    char *document = pk_strdup(wanted->document);
    if (steps == NULL || document == NULL) {
        pk_free(document);
        return pk_no_memory(err);
    }
    PK_CLEANUP(pk_free_p) char *name = pk_strdup(fleet->name);
    PK_CLEANUP(pk_free_p) char *user = pk_strdup(wanted->user != NULL ? wanted->user : "");
    PK_CLEANUP(pk_free_p) char *reason = pk_strdup(wanted->reason != NULL ? wanted->reason : "");
    PK_CLEANUP(pk_free_p) char *id = pk_strdup(wanted->id);
    struct pk_revision revision = { .fleet = name,
                                    .user = user,
                                    .reason = reason,
                                    .document = document,
                                    .plan_id = id,
                                    .steps = steps };
    uint64_t number = 0;
    int r = name != NULL && user != NULL && reason != NULL && id != NULL
                ? pk_state_revision_begin(manager->options.state, &revision, &number, err)
                : pk_no_memory(err);
    if (r < 0) {
        pk_free(document);
        return r;
    }
    pk_log(PK_LOG_INFO, "fleet", "fleet %s: applying revision %" PRIu64 " (%zu steps)", fleet->name,
           number, plan->step_count);
    pk_manager_lock(manager);
    fleet->revision = number;
    fleet->outcome = PK_OUTCOME_APPLYING;
    pk_free(fleet->document);
    fleet->document = document;
    json_decref(fleet->journal);
    fleet->journal = json_incref(steps);
    fleet->version = 1;
    fleet->job = true;
    fleet->resumed = false;
    pk_fleet_set_desired_take(manager, fleet, PK_TAKE(wanted->desired));
    pk_manager_unlock(manager);
    *ret_revision = number;
    return 0;
}

static int check_and_begin(struct pk_manager *manager, struct pk_fleet *fleet,
                           struct wanted *wanted, uint64_t *ret_revision, struct pk_error *err)
{
    if (fleet->revision != wanted->base)
        return stale(fleet->name, "another revision was applied since", err);
    PK_CLEANUP(view_done_p) struct pk_view view = { 0 };
    int r = look(manager, &view, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_plan_free_p) struct pk_plan *plan = NULL;
    uint64_t revision = 0;
    r = make_plan(manager, &view, wanted->desired, &revision, &plan, err);
    if (r < 0)
        return r;
    if (strcmp(plan->observed_hash, wanted->observed_hash) != 0)
        return stale(fleet->name, "what is there has changed since", err);
    if (plan->step_count == 0 && fleet->revision != 0 && fleet->outcome == PK_OUTCOME_APPLIED &&
        strcmp(fleet->document, wanted->document) == 0) {
        *ret_revision = 0;
        return 0;
    }
    r = preflight(manager, wanted->desired, err);
    if (r < 0)
        return r;
    return begin(manager, fleet, wanted, plan, ret_revision, err);
}

int pk_manager_apply(struct pk_manager *manager, const char *plan_id, const char *user,
                     const char *reason, uint64_t *ret_revision, struct pk_error *err)
{
    struct pk_error trouble = { 0 };
    if (err == NULL)
        err = &trouble;
    PK_JSON row = NULL;
    PK_JSON frozen = NULL;
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *desired = NULL;
    int r = find_plan(manager, plan_id, &row, err);
    if (r < 0)
        return r;
    const char *id = pk_json_string_or(row, "plan.id", "");
    const char *name = pk_json_string_or(row, "plan.fleet", "");
    r = pk_state_get(manager->options.state, PK_KIND_DESIRED, id, &frozen, err);
    if (r >= 0)
        r = pk_desired_thaw(frozen, &desired, err);
    if (r < 0)
        return pk_wrap(err, "plan %s", id), r;

    struct wanted wanted = { .id = id,
                             .user = user,
                             .reason = reason,
                             .document = pk_json_string_or(row, "document", ""),
                             .base = (uint64_t)pk_json_int_or(row, "base", 0),
                             .observed_hash = pk_json_string_or(row, "plan.observedHash", ""),
                             .desired = PK_TAKE(desired) };
    struct pk_fleet *fleet = NULL;
    uint64_t revision = 0;
    r = seize(manager, name, &fleet, err);
    if (r >= 0) {
        r = check_and_begin(manager, fleet, &wanted, &revision, err);
        let_go(manager, fleet);
    }
    pk_desired_free(wanted.desired);
    if (r < 0)
        return r;
    *ret_revision = revision;
    return 0;
}
