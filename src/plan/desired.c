/* SPDX-License-Identifier: Apache-2.0 */
/* From a fleet document and the catalog to what must run: taps, lanes, units with their files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/doc.h"
#include "base/json.h"
#include "plan/internal.h"
#include "plan/plan.h"

#define MTU_DEFAULT 1500u
#define LANE_DEVICE "tap0"
#define LANE_SECOND "tap1" /* of an inline lane */

/* What a build carries along. */
struct build {
    const struct pk_fleet_spec *fleet;
    const struct pk_catalog *catalog;
    const struct pk_placement *placement;
    struct pk_desired *desired;
    struct pk_errors *errors;
    size_t unit_capacity;
    unsigned next_cpu; /* position in placement->cpus of the next dedicated one */
    int code;          /* of the first fault */
    bool engine_gone;  /* said once, not once per tool */
};

static void fault(struct build *build, const struct pk_error *err)
{
    pk_errors_add(build->errors, err);
    if (build->code == 0)
        build->code = err->code;
}

static void fault_at(struct build *build, const struct pk_pos *pos, struct pk_error *err)
{
    pk_error_at(err, build->fleet->doc != NULL ? pk_doc_name(build->fleet->doc) : "", pos->line,
                pos->col);
    fault(build, err);
}

static unsigned cpu_at(const struct pk_placement *placement, unsigned position)
{
    return placement->cpus != NULL ? placement->cpus[position] : position;
}

/* Cores that lanes may have: all but the reserved ones, and at least one. */
static unsigned cpus_for_lanes(const struct pk_placement *placement)
{
    unsigned usable = PK_MAX(placement->cpu_count, 1u);
    return usable > placement->reserved_cpus ? usable - placement->reserved_cpus : 1;
}

/* Lanes of a group: as written; automatic ones share the cores that groups with a number leave. */
static unsigned lane_count(const struct build *build, const struct pk_group_spec *group)
{
    if (group->devices.count > 0)
        return (unsigned)group->devices.count;
    if (group->lanes != 0)
        return group->lanes;
    unsigned cpus = cpus_for_lanes(build->placement);
    if (group->cpu != PK_CPU_DEDICATED)
        return PK_MIN(cpus, PK_LANES_MAX);

    unsigned taken = 0;
    unsigned sharers = 0;
    unsigned position = 0;
    for (size_t i = 0; i < build->fleet->group_count; i++) {
        const struct pk_group_spec *other = &build->fleet->groups[i];
        if (other->cpu != PK_CPU_DEDICATED)
            continue;
        if (other == group)
            position = sharers;
        if (other->lanes == 0)
            sharers++;
        else
            taken += other->lanes;
    }
    unsigned left = cpus > taken ? cpus - taken : 0;
    unsigned share = left / sharers + (position < left % sharers ? 1 : 0);
    return PK_MIN(PK_MAX(share, 1u), PK_LANES_MAX);
}

/* The packets that a group's tools must be ready for. 0 with a NIC among its taps: how large those
 * are is the agent's business. */
static unsigned group_mtu(const struct build *build, const struct pk_group_spec *group)
{
    unsigned mtu = 0;
    for (size_t i = 0; i < build->fleet->tap_count; i++) {
        const struct pk_tap_spec *tap = &build->fleet->taps[i];
        if (!pk_strv_contains(&group->taps, tap->name))
            continue;
        if (pk_tap_has_interface(tap->kind))
            return 0;
        mtu = PK_MAX(mtu, tap->mtu);
    }
    return mtu;
}

static int compare_names(const void *a, const void *b)
{
    const struct pk_group_spec *const *left = a;
    const struct pk_group_spec *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

/* The groups that the tap feeds, by name. NULL = out of memory. */
static json_t *groups_of_tap(const struct pk_fleet_spec *fleet, const char *tap)
{
    PK_CLEANUP(pk_free_p)
    const struct pk_group_spec **groups =
        pk_zalloc_array(PK_MAX(fleet->group_count, 1u), sizeof(struct pk_group_spec *));
    PK_JSON list = json_array();
    size_t count = 0;
    if (groups == NULL || list == NULL)
        return NULL;
    for (size_t i = 0; i < fleet->group_count; i++)
        if (pk_strv_contains(&fleet->groups[i].taps, tap))
            groups[count++] = &fleet->groups[i];
    qsort(groups, count, sizeof(*groups), compare_names);
    for (size_t i = 0; i < count; i++)
        if (json_array_append_new(list,
                                  json_pack("{s:s,s:s*,s:O*}", "name", groups[i]->name, "tenant",
                                            groups[i]->tenant, "filter", groups[i]->filter)) < 0)
            return NULL;
    return PK_TAKE(list);
}

/* All tenants that have traffic on it, also those whose traffic goes to nobody: others must not get
 * it. */
static json_t *tenants_of_tap(const struct pk_fleet_spec *fleet, const char *tap)
{
    PK_JSON list = json_array();
    for (size_t i = 0; i < fleet->tenant_count && list != NULL; i++)
        if (pk_tenant_has_tap(&fleet->tenants[i], tap) &&
            json_array_append_new(list, pk_tenant_to_json(&fleet->tenants[i])) < 0)
            return NULL;
    return PK_TAKE(list);
}

static int add_taps(struct build *build, struct pk_error *err)
{
    const struct pk_fleet_spec *fleet = build->fleet;
    struct pk_desired *desired = build->desired;
    desired->taps = pk_zalloc_array(PK_MAX(fleet->tap_count, 1u), sizeof(*desired->taps));
    if (desired->taps == NULL)
        return pk_no_memory(err);
    for (size_t i = 0; i < fleet->tap_count; i++) {
        const struct pk_tap_spec *spec = &fleet->taps[i];
        PK_JSON groups = groups_of_tap(fleet, spec->name);
        if (groups == NULL)
            return pk_no_memory(err);
        if (json_array_size(groups) == 0) /* no group wants its packets: it is not taken */
            continue;
        struct pk_tap_desired *tap = &desired->taps[desired->tap_count++];
        tap->kind = spec->kind;
        tap->mtu = spec->mtu;
        tap->groups = json_incref(groups);
        tap->tenants = spec->kind == PK_TAP_INLINE ? json_array() /* all go through its tool */
                                                   : tenants_of_tap(fleet, spec->name);
        tap->name = pk_strdup(spec->name);
        tap->interface = pk_strdup(spec->interface != NULL ? spec->interface : "");
        tap->options = pk_tap_options(spec);
        if (tap->options == NULL || tap->tenants == NULL || tap->name == NULL ||
            tap->interface == NULL)
            return pk_no_memory(err);
    }
    return 0;
}

static json_t *render_context(const struct build *build, const struct pk_group_spec *group,
                              const struct pk_tool_spec *tool,
                              const struct pk_package_version *version, const json_t *values,
                              unsigned lane, unsigned lanes, unsigned mtu, int cpu)
{
    json_t *cpus = json_array();
    if (cpus != NULL && cpu >= 0)
        (void)json_array_append_new(cpus, json_integer(cpu));
    const struct pk_tap_spec *tap = pk_group_inline_tap(build->fleet, group);
    json_t *pair =
        tap != NULL ? json_pack("{s:s,s:b}", "second", LANE_SECOND, "closed", (int)tap->pair.closed)
                    : json_false();
    return json_pack(
        "{s:O,s:o,s:s,s:s,s:s,s:i,s:i,s:s,s:i,s:o,s:{s:b},s:I,s:{s:s,s:s,s:s}}", "values", values,
        "inline", pair, "fleet", build->fleet->name, "group", group->name, "tool", tool->name,
        "lane", (int)lane, "lanes", (int)lanes, "interface", LANE_DEVICE, "mtu", (int)mtu, "cpus",
        cpus, "version", version->version, 1, "memoryBytes", (json_int_t)tool->memory_bytes,
        "paths", "config", version->config_dir, "log", version->log_dir, "run", version->run_dir);
}

static int set_mount(struct pk_mount *mount, char *source, const char *target, bool read_only)
{
    mount->source = source;
    mount->target = pk_strdup(target);
    mount->read_only = read_only;
    return mount->source != NULL && mount->target != NULL ? 0 : PK_E_NOMEM;
}

static int set_mounts(struct pk_unit *unit, const struct pk_package_version *version,
                      const char *state_dir)
{
    unit->mounts = pk_zalloc_array(3, sizeof(*unit->mounts));
    if (unit->mounts == NULL)
        return PK_E_NOMEM;
    unit->mount_count = 3;
    int r = set_mount(&unit->mounts[0],
                      pk_asprintf("%s/units/%s/config/%s", state_dir, unit->name, unit->files_hash),
                      version->config_dir, true);
    if (r >= 0)
        r = set_mount(&unit->mounts[1], pk_asprintf("%s/units/%s/log", state_dir, unit->name),
                      version->log_dir, false);
    if (r >= 0)
        r = set_mount(&unit->mounts[2], pk_asprintf("%s/units/%s/run", state_dir, unit->name),
                      version->run_dir, false);
    return r;
}

/* What is the same for each lane of a tool. */
struct tool {
    const struct pk_group_spec *group;
    const struct pk_tool_spec *spec;
    const struct pk_package *package;
    const struct pk_package_version *version;
    json_t *values;
    char *digest, *release;
    unsigned lanes, mtu;
};

static int fill_unit(struct build *build, const struct tool *tool, unsigned lane, int cpu,
                     struct pk_unit *unit, struct pk_error *err)
{
    const struct pk_placement *placement = build->placement;
    const struct pk_package_version *version = tool->version;
    const char *fleet = build->fleet->name;

    unit->lane = lane;
    unit->memory_bytes = tool->spec->memory_bytes;
    unit->pids_max = version->pids_max;
    unit->nofile = version->nofile;
    unit->tmpfs_bytes = version->tmpfs_bytes;
    unit->stop_timeout_ms = version->stop_timeout_ms;
    unit->probe = version->probe;
    unit->values = json_incref(tool->values);
    unit->name = pk_asprintf("%s-%s-%s-%u-%s", placement->tag, fleet, tool->group->name, lane,
                             tool->spec->name);
    unit->fleet = pk_strdup(fleet);
    unit->group = pk_strdup(tool->group->name);
    unit->tool = pk_strdup(tool->spec->name);
    unit->package = pk_strdup(tool->spec->package);
    unit->version = pk_strdup(version->version);
    unit->release = pk_strdup(tool->release);
    unit->user = pk_strdup(placement->user != NULL ? placement->user : "");
    unit->image = pk_strdup(version->image);
    unit->image_digest = pk_strdup(tool->digest);
    unit->netns = placement->lane_netns(placement->tag, fleet, tool->group->name, lane);
    unit->cpuset = cpu >= 0 ? pk_asprintf("%d", cpu) : pk_strdup("");
    if (unit->name == NULL || unit->fleet == NULL || unit->group == NULL || unit->tool == NULL ||
        unit->package == NULL || unit->version == NULL || unit->release == NULL ||
        unit->user == NULL || unit->image == NULL || unit->image_digest == NULL ||
        unit->netns == NULL || unit->cpuset == NULL ||
        pk_strv_copy(&version->argv, &unit->argv) < 0 ||
        pk_strv_copy(&version->capabilities, &unit->capabilities) < 0)
        return pk_no_memory(err);
    unit->probe_socket = unit->probe != PK_PROBE_NONE
                             ? pk_asprintf("%s/units/%s/run/%s", placement->state_dir, unit->name,
                                           version->probe_socket)
                             : pk_strdup("");
    if (unit->probe_socket == NULL)
        return pk_no_memory(err);

    PK_JSON context = render_context(build, tool->group, tool->spec, version, tool->values, lane,
                                     tool->lanes, tool->mtu != 0 ? tool->mtu : MTU_DEFAULT, cpu);
    if (context == NULL)
        return pk_no_memory(err);
    int r = pk_package_render(tool->package, version, context, &unit->files, err);
    if (r < 0)
        return r;
    unit->files_hash = pk_files_hash(&unit->files);
    if (unit->files_hash == NULL || set_mounts(unit, version, placement->state_dir) < 0)
        return pk_no_memory(err);
    unit->hash = pk_unit_hash(unit);
    return unit->hash != NULL ? 0 : pk_no_memory(err);
}

static int add_unit(struct build *build, const struct tool *tool, unsigned lane, int cpu,
                    struct pk_error *err)
{
    struct pk_desired *desired = build->desired;
    if (desired->unit_count == build->unit_capacity) {
        size_t capacity = build->unit_capacity != 0 ? 2 * build->unit_capacity : 16;
        struct pk_unit *units = pk_realloc_array(desired->units, capacity, sizeof(*units));
        if (units == NULL)
            return pk_no_memory(err);
        desired->units = units;
        build->unit_capacity = capacity;
    }
    struct pk_unit *unit = &desired->units[desired->unit_count];
    memset(unit, 0, sizeof(*unit));
    int r = fill_unit(build, tool, lane, cpu, unit, err);
    if (r < 0) {
        pk_unit_done(unit);
        return r;
    }
    desired->unit_count++;
    return 0;
}

/* A fleet that names a full version gets that or nothing. */
static bool check_release(struct build *build, const struct tool *tool)
{
    const struct pk_tool_spec *spec = tool->spec;
    const char *line = tool->version->version;
    if (spec->version[0] == '\0' || strcmp(spec->version, line) == 0 ||
        strcmp(spec->version, tool->release) == 0)
        return true;
    struct pk_error err = { 0 };
    if (tool->release[0] == '\0') {
        pk_fail(&err, PK_E_CONFLICT, "the image %s does not say which version of %s it has",
                tool->version->image, spec->package);
        (void)pk_hint(&err, "build it anew: picket image build %s@%s --force", spec->package, line);
    } else {
        pk_fail(&err, PK_E_CONFLICT, "the image %s has %s %s, not %s", tool->version->image,
                spec->package, tool->release, spec->version);
        (void)pk_hint(&err,
                      "write %s@%s, or %s@%s for whichever is built, or build the image anew: "
                      "picket image build %s@%s --force",
                      spec->package, tool->release, spec->package, line, spec->package, line);
    }
    fault_at(build, &spec->package_pos, &err);
    return false;
}

/* Looks a tool up and checks its values. False = a fault was reported. */
static bool resolve_tool(struct build *build, struct tool *tool)
{
    struct pk_error err = { 0 };
    const struct pk_tool_spec *spec = tool->spec;
    bool is_inline = pk_group_inline_tap(build->fleet, tool->group) != NULL;
    if (pk_catalog_find(build->catalog, spec->package, spec->version, &tool->package,
                        &tool->version, &err) < 0) {
        fault_at(build, &spec->package_pos, &err);
        return false;
    }
    if (pk_package_check_role(tool->package, is_inline, &err) < 0) {
        fault_at(build, &spec->package_pos, &err);
        return false;
    }
    int r = pk_package_check_values(tool->package, tool->version, build->fleet->doc,
                                    spec->values_node, &tool->values, build->errors);
    if (r < 0) { /* it added the faults itself */
        build->code = build->code != 0 ? build->code : r;
        return false;
    }
    if (build->engine_gone)
        return false;
    r = build->placement->image_find(build->placement->image_find_arg, tool->version->image,
                                     &tool->digest, &tool->release, &err);
    if (r == PK_E_NOTFOUND) {
        if (err.hint[0] == '\0')
            (void)pk_hint(&err, "build it: picket image build %s@%s", spec->package,
                          tool->version->version);
        fault_at(build, &spec->package_pos, &err);
    } else if (r < 0) { /* the engine's trouble, not the file's */
        build->engine_gone = true;
        fault(build, &err);
    }
    return r >= 0 && check_release(build, tool);
}

static int add_lanes(struct build *build, const struct pk_group_spec *group, unsigned lanes,
                     struct pk_error *err)
{
    struct pk_desired *desired = build->desired;
    struct pk_lane_desired *list =
        pk_realloc_array(desired->lanes, desired->lane_count + lanes, sizeof(*list));
    if (list == NULL)
        return pk_no_memory(err);
    desired->lanes = list;
    unsigned mtu = group_mtu(build, group);
    for (unsigned i = 0; i < lanes; i++) {
        struct pk_lane_desired *lane = &list[desired->lane_count];
        *lane =
            (struct pk_lane_desired){ .index = i,
                                      .mtu = mtu,
                                      .is_inline = pk_group_inline_tap(build->fleet, group) != NULL,
                                      .group = pk_strdup(group->name) };
        if (i < group->devices.count)
            lane->device = pk_strdup(group->devices.list[i]);
        desired->lane_count++;
        if (lane->group == NULL || (i < group->devices.count && lane->device == NULL))
            return pk_no_memory(err);
    }
    return 0;
}

/* Takes cores for a group's lanes. False = a fault was reported. */
static bool take_cpus(struct build *build, const struct pk_group_spec *group, unsigned lanes,
                      unsigned *ret_first)
{
    const struct pk_placement *placement = build->placement;
    unsigned usable = PK_MAX(placement->cpu_count, 1u);
    unsigned have = cpus_for_lanes(placement);
    unsigned left = build->next_cpu < usable ? usable - build->next_cpu : 0;
    if (lanes > left) {
        struct pk_error err = { 0 };
        pk_fail(&err, PK_E_INVALID,
                "group %s: %u lanes with cpu: dedicated need %u cores, %u of %u are left",
                group->name, lanes, lanes, left, have);
        if (left > 0)
            (void)pk_hint(&err, "write 'lanes: %u' or 'lanes: auto', or 'cpu: shared'", left);
        else
            (void)pk_hint(&err, "write 'cpu: shared'");
        fault_at(build, &group->pos, &err);
        return false;
    }
    *ret_first = build->next_cpu;
    build->next_cpu += lanes;
    return true;
}

static int add_group(struct build *build, const struct pk_group_spec *group, struct pk_error *err)
{
    unsigned lanes = lane_count(build, group);
    unsigned first = 0;
    bool dedicated = group->cpu == PK_CPU_DEDICATED;
    if (dedicated && !take_cpus(build, group, lanes, &first))
        dedicated = false; /* go on: the other faults of the file are wanted too */
    struct pk_desired *desired = build->desired;
    struct pk_group_desired *groups =
        pk_realloc_array(desired->groups, desired->group_count + 1, sizeof(*groups));
    if (groups == NULL)
        return pk_no_memory(err);
    desired->groups = groups;
    const struct pk_tenant_spec *tenant = pk_spec_tenant(build->fleet, group->tenant);
    struct pk_group_desired *want = &groups[desired->group_count++];
    *want = (struct pk_group_desired){
        .name = pk_strdup(group->name),
        .hash = group->hash,
        .tenant = pk_strdup(tenant != NULL ? tenant->name : ""),
        .priority = tenant != NULL ? tenant->priority : PK_PRIORITY_DEFAULT,
        .options = pk_group_options(group),
    };
    if (want->options == NULL || want->name == NULL || want->tenant == NULL)
        return pk_no_memory(err);
    int r = add_lanes(build, group, lanes, err);
    for (size_t t = 0; t < group->tool_count && r >= 0; t++) {
        struct tool tool = {
            .group = group, .spec = &group->tools[t], .lanes = lanes, .mtu = group_mtu(build, group)
        };
        bool usable = resolve_tool(build, &tool);
        /* With a fault elsewhere nothing will run: what is left to find is found without rendering.
         */
        for (unsigned lane = 0; usable && build->code == 0 && lane < lanes && r >= 0; lane++) {
            int cpu = dedicated ? (int)cpu_at(build->placement, first + lane) : -1;
            r = add_unit(build, &tool, lane, cpu, err);
            if (r < 0 && r != PK_E_NOMEM) { /* a template's trouble, said once per tool */
                fault_at(build, &tool.spec->package_pos, err);
                r = 0;
            }
        }
        json_decref(tool.values);
        pk_free(tool.digest);
        pk_free(tool.release);
    }
    return r;
}

int pk_desired_build(const struct pk_fleet_spec *fleet, const struct pk_catalog *catalog,
                     const struct pk_placement *placement, struct pk_desired **ret_desired,
                     struct pk_errors *errors)
{
    struct pk_error err = { 0 };
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *desired = pk_desired_new_empty(fleet->name);
    struct build build = { .fleet = fleet,
                           .catalog = catalog,
                           .placement = placement,
                           .desired = desired,
                           .errors = errors };
    /* Reserved cores come first; where there are too few, the last one is shared with the system.
     */
    build.next_cpu = PK_MIN(placement->reserved_cpus, PK_MAX(placement->cpu_count, 1u) - 1u);
    int r = desired != NULL ? add_taps(&build, &err) : pk_no_memory(&err);
    for (size_t i = 0; i < fleet->group_count && r >= 0; i++)
        r = add_group(&build, &fleet->groups[i], &err);
    if (r < 0) {
        pk_errors_add(errors, &err);
        return r;
    }
    if (build.code < 0)
        return build.code;
    desired->store = fleet->store;
    pk_desired_sort(desired);
    *ret_desired = PK_TAKE(desired);
    return 0;
}
