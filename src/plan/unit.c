/* SPDX-License-Identifier: Apache-2.0 */
/* Units and the desired state as canonical JSON, there and back, and the hashes over it. */
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "plan/internal.h"
#include "plan/plan.h"

static const char *text_or_empty(const char *text)
{
    return text != NULL ? text : "";
}

/* ---- release ---- */

void pk_unit_done(struct pk_unit *unit)
{
    pk_free(unit->name);
    pk_free(unit->fleet);
    pk_free(unit->group);
    pk_free(unit->tool);
    pk_free(unit->package);
    pk_free(unit->version);
    pk_free(unit->release);
    pk_free(unit->image);
    pk_free(unit->image_digest);
    pk_free(unit->user);
    pk_strv_done(&unit->argv);
    pk_strv_done(&unit->capabilities);
    pk_free(unit->netns);
    pk_free(unit->cpuset);
    for (size_t i = 0; i < unit->mount_count; i++) {
        pk_free(unit->mounts[i].source);
        pk_free(unit->mounts[i].target);
    }
    pk_free(unit->mounts);
    pk_rendered_done(&unit->files);
    pk_free(unit->files_hash);
    pk_free(unit->hash);
    pk_free(unit->probe_socket);
    json_decref(unit->values);
    memset(unit, 0, sizeof(*unit));
}

struct pk_desired *pk_desired_new_empty(const char *fleet)
{
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *desired = pk_zalloc(sizeof(*desired));
    if (desired == NULL)
        return NULL;
    desired->fleet = pk_strdup(fleet);
    return desired->fleet != NULL ? PK_TAKE(desired) : NULL;
}

void pk_desired_free(struct pk_desired *desired)
{
    if (desired == NULL)
        return;
    pk_free(desired->fleet);
    for (size_t i = 0; i < desired->tap_count; i++) {
        pk_free(desired->taps[i].name);
        pk_free(desired->taps[i].interface);
        json_decref(desired->taps[i].options);
        json_decref(desired->taps[i].groups);
        json_decref(desired->taps[i].tenants);
    }
    pk_free(desired->taps);
    for (size_t i = 0; i < desired->lane_count; i++) {
        pk_free(desired->lanes[i].group);
        pk_free(desired->lanes[i].device);
    }
    pk_free(desired->lanes);
    for (size_t i = 0; i < desired->unit_count; i++)
        pk_unit_done(&desired->units[i]);
    pk_free(desired->units);
    for (size_t i = 0; i < desired->group_count; i++) {
        pk_free(desired->groups[i].name);
        pk_free(desired->groups[i].tenant);
        json_decref(desired->groups[i].options);
    }
    pk_free(desired->groups);
    pk_free(desired);
}

/* ---- hashes and order ---- */

int pk_json_hash(const json_t *json, char out[65], struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = json != NULL ? pk_json_canonical(json) : NULL;
    if (text == NULL)
        return pk_no_memory(err);
    pk_sha256_hex(text, strlen(text), out);
    return 0;
}

static char *json_hash_dup(const json_t *json)
{
    char hash[65];
    return pk_json_hash(json, hash, NULL) < 0 ? NULL : pk_strdup(hash);
}

/* {path: SHA-256 of the content}. */
static json_t *files_to_json(const struct pk_rendered *files)
{
    PK_JSON object = json_object();
    for (size_t i = 0; i < files->count && object != NULL; i++) {
        char hash[65];
        pk_sha256_hex(files->files[i].data, files->files[i].len, hash);
        if (json_object_set_new(object, files->files[i].path, json_string(hash)) < 0)
            return NULL;
    }
    return PK_TAKE(object);
}

char *pk_files_hash(const struct pk_rendered *files)
{
    PK_JSON json = files_to_json(files);
    return json_hash_dup(json);
}

char *pk_unit_hash(const struct pk_unit *unit)
{
    PK_JSON json = pk_unit_to_json(unit);
    if (json == NULL)
        return NULL;
    (void)json_object_del(json, "values");
    (void)json_object_del(json, "hash");
    return json_hash_dup(json);
}

static int compare_units(const void *a, const void *b)
{
    const struct pk_unit *left = a;
    const struct pk_unit *right = b;
    int c = strcmp(left->group, right->group);
    if (c == 0)
        c = left->lane < right->lane ? -1 : left->lane > right->lane;
    return c != 0 ? c : strcmp(left->tool, right->tool);
}

static int compare_lanes(const void *a, const void *b)
{
    const struct pk_lane_desired *left = a;
    const struct pk_lane_desired *right = b;
    int c = strcmp(left->group, right->group);
    return c != 0 ? c : (left->index < right->index ? -1 : left->index > right->index);
}

static int compare_groups(const void *a, const void *b)
{
    const struct pk_group_desired *left = a;
    const struct pk_group_desired *right = b;
    return strcmp(left->name, right->name);
}

static int compare_taps(const void *a, const void *b)
{
    const struct pk_tap_desired *left = a;
    const struct pk_tap_desired *right = b;
    return strcmp(left->name, right->name);
}

void pk_desired_sort(struct pk_desired *desired)
{
    if (desired->tap_count > 1)
        qsort(desired->taps, desired->tap_count, sizeof(*desired->taps), compare_taps);
    if (desired->lane_count > 1)
        qsort(desired->lanes, desired->lane_count, sizeof(*desired->lanes), compare_lanes);
    if (desired->unit_count > 1)
        qsort(desired->units, desired->unit_count, sizeof(*desired->units), compare_units);
    if (desired->group_count > 1)
        qsort(desired->groups, desired->group_count, sizeof(*desired->groups), compare_groups);
}

/* ---- to JSON ---- */

static json_t *strv_to_json(const struct pk_strv *strv)
{
    PK_JSON list = json_array();
    for (size_t i = 0; i < strv->count && list != NULL; i++)
        if (json_array_append_new(list, json_string(strv->list[i])) < 0)
            return NULL;
    return PK_TAKE(list);
}

static json_t *mounts_to_json(const struct pk_unit *unit)
{
    PK_JSON list = json_array();
    for (size_t i = 0; i < unit->mount_count && list != NULL; i++) {
        const struct pk_mount *mount = &unit->mounts[i];
        if (json_array_append_new(list,
                                  json_pack("{s:s,s:s,s:b}", "source", mount->source, "target",
                                            mount->target, "readOnly", (int)mount->read_only)) < 0)
            return NULL;
    }
    return PK_TAKE(list);
}

static const char *probe_name(enum pk_probe_kind probe)
{
    return probe == PK_PROBE_SURICATA ? "suricata" : "none";
}

json_t *pk_unit_to_json(const struct pk_unit *unit)
{
    PK_JSON json = json_pack(
        "{s:s,s:s,s:s,s:i,s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:s,s:s,"
        "s:s,s:s}",
        "name", unit->name, "fleet", unit->fleet, "group", unit->group, "lane", (int)unit->lane,
        "tool", unit->tool, "package", unit->package, "version", unit->version, "image",
        unit->image, "imageDigest", unit->image_digest, "argv", strv_to_json(&unit->argv),
        "capabilities", strv_to_json(&unit->capabilities), "netns", unit->netns, "cpuset",
        unit->cpuset, "memoryBytes", (json_int_t)unit->memory_bytes, "pidsMax",
        (json_int_t)unit->pids_max, "nofile", (json_int_t)unit->nofile, "tmpfsBytes",
        (json_int_t)unit->tmpfs_bytes, "stopTimeoutMs", (json_int_t)unit->stop_timeout_ms, "mounts",
        mounts_to_json(unit), "files", files_to_json(&unit->files), "filesHash",
        text_or_empty(unit->files_hash), "probe", probe_name(unit->probe), "probeSocket",
        text_or_empty(unit->probe_socket), "hash", text_or_empty(unit->hash));
    if (json == NULL)
        return NULL;
    /* Only where there is something to say, so that units of earlier versions stay what they are.
     */
    const char *release = text_or_empty(unit->release);
    const char *user = text_or_empty(unit->user);
    if ((release[0] != '\0' && json_object_set_new(json, "release", json_string(release)) < 0) ||
        (user[0] != '\0' && json_object_set_new(json, "user", json_string(user)) < 0) ||
        (unit->values != NULL && json_object_set(json, "values", unit->values) < 0))
        return NULL;
    return PK_TAKE(json);
}

static json_t *taps_to_json(const struct pk_desired *desired)
{
    PK_JSON list = json_array();
    for (size_t i = 0; i < desired->tap_count && list != NULL; i++) {
        const struct pk_tap_desired *tap = &desired->taps[i];
        json_t *options = json_object_size(tap->options) > 0 ? tap->options : NULL;
        if (json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:I,s:O*,s:O,s:O}", "name",
                                                  tap->name, "kind", pk_tap_kind_name(tap->kind),
                                                  "interface", text_or_empty(tap->interface), "mtu",
                                                  (json_int_t)tap->mtu, "options", options,
                                                  "groups", tap->groups, "tenants", tap->tenants)) <
            0)
            return NULL;
    }
    return PK_TAKE(list);
}

static json_t *lanes_to_json(const struct pk_desired *desired)
{
    PK_JSON list = json_array();
    for (size_t i = 0; i < desired->lane_count && list != NULL; i++) {
        const struct pk_lane_desired *lane = &desired->lanes[i];
        if (json_array_append_new(
                list, json_pack("{s:s,s:I,s:I,s:o*,s:s*}", "group", lane->group, "index",
                                (json_int_t)lane->index, "mtu", (json_int_t)lane->mtu, "inline",
                                lane->is_inline ? json_true() : NULL, "device", lane->device)) < 0)
            return NULL;
    }
    return PK_TAKE(list);
}

/* The name alone where all else is as usual: so what has no settings stays described as it was. */
static json_t *group_to_json(const struct pk_group_desired *group)
{
    PK_JSON json = json_object();
    if ((group->hash != PK_GROUP_OUTER &&
         json_object_set_new(json, "hash", json_string(pk_group_hash_name(group->hash))) < 0) ||
        (group->tenant[0] != '\0' &&
         json_object_set_new(json, "tenant", json_string(group->tenant)) < 0) ||
        (group->priority != PK_PRIORITY_DEFAULT &&
         json_object_set_new(json, "priority", json_integer(group->priority)) < 0) ||
        (json_object_size(group->options) > 0 &&
         json_object_set(json, "options", group->options) < 0))
        return NULL;
    if (json != NULL && json_object_size(json) == 0)
        return json_string(group->name);
    return json_object_set_new(json, "name", json_string(group->name)) < 0 ? NULL : PK_TAKE(json);
}

static json_t *groups_to_json(const struct pk_desired *desired)
{
    PK_JSON list = json_array();
    for (size_t i = 0; i < desired->group_count && list != NULL; i++)
        if (json_array_append_new(list, group_to_json(&desired->groups[i])) < 0)
            return NULL;
    return PK_TAKE(list);
}

static json_t *units_to_json(const struct pk_desired *desired, bool with_values)
{
    PK_JSON list = json_array();
    for (size_t i = 0; i < desired->unit_count && list != NULL; i++) {
        json_t *unit = pk_unit_to_json(&desired->units[i]);
        if (unit != NULL && !with_values)
            (void)json_object_del(unit, "values");
        if (json_array_append_new(list, unit) < 0)
            return NULL;
    }
    return PK_TAKE(list);
}

static json_t *describe(const struct pk_desired *desired, bool with_values)
{
    PK_JSON json = json_pack(
        "{s:s,s:o,s:o,s:o,s:o,s:{s:I,s:I,s:I}}", "fleet", desired->fleet, "taps",
        taps_to_json(desired), "lanes", lanes_to_json(desired), "units",
        units_to_json(desired, with_values), "groups", groups_to_json(desired), "store", "retain",
        (json_int_t)desired->store.retain, "maxBytes", (json_int_t)desired->store.max_bytes,
        "sealAfter", (json_int_t)desired->store.seal_after);
    return PK_TAKE(json);
}

json_t *pk_desired_to_json(const struct pk_desired *desired)
{
    return describe(desired, true);
}

int pk_desired_hash(const struct pk_desired *desired, char out[65], struct pk_error *err)
{
    PK_JSON json = describe(desired, false);
    return pk_json_hash(json, out, err);
}

/* A file's content as text, or as {"hex"} where it is no UTF-8. */
static json_t *content_to_json(const struct pk_rendered_file *file)
{
    json_t *text = json_stringn(file->data, file->len);
    if (text != NULL)
        return text;
    PK_CLEANUP(pk_free_p) char *hex = pk_zalloc(2 * file->len + 1);
    if (hex == NULL)
        return NULL;
    pk_hex(file->data, file->len, hex);
    return json_pack("{s:s}", "hex", hex);
}

json_t *pk_desired_freeze(const struct pk_desired *desired)
{
    PK_JSON json = describe(desired, true);
    PK_JSON contents = json_object();
    if (json == NULL || contents == NULL)
        return NULL;
    for (size_t i = 0; i < desired->unit_count; i++) {
        const struct pk_rendered *files = &desired->units[i].files;
        for (size_t f = 0; f < files->count; f++) {
            char hash[65];
            pk_sha256_hex(files->files[f].data, files->files[f].len, hash);
            if (json_object_get(contents, hash) == NULL &&
                json_object_set_new(contents, hash, content_to_json(&files->files[f])) < 0)
                return NULL;
        }
    }
    if (json_object_set(json, "contents", contents) < 0)
        return NULL;
    return PK_TAKE(json);
}

/* ---- from JSON: what was frozen by this program, but read back from a file ---- */

static int get_text(const json_t *json, const char *key, char **ret_text, struct pk_error *err)
{
    const char *text = NULL;
    int r = pk_json_get_string(json, key, &text, err);
    if (r < 0)
        return r;
    *ret_text = pk_strdup(text);
    return *ret_text != NULL ? 0 : pk_no_memory(err);
}

static int get_u64(const json_t *json, const char *key, uint64_t max, uint64_t *ret_value,
                   struct pk_error *err)
{
    uint64_t value = 0;
    int r = pk_json_get_u64(json, key, &value, err);
    if (r < 0)
        return r;
    if (value > max)
        return pk_fail(err, PK_E_INVALID, "%s: %" PRIu64 " is too large", key, value);
    *ret_value = value;
    return 0;
}

static int get_unsigned(const json_t *json, const char *key, unsigned *ret_value,
                        struct pk_error *err)
{
    uint64_t value = 0;
    int r = get_u64(json, key, INT32_MAX, &value, err);
    if (r >= 0)
        *ret_value = (unsigned)value;
    return r;
}

static int get_strv(const json_t *json, const char *key, struct pk_strv *strv, struct pk_error *err)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(json, key), i, item)
    {
        if (!json_is_string(item))
            return pk_fail(err, PK_E_INVALID, "%s: not a list of strings", key);
        if (pk_strv_add(strv, json_string_value(item)) < 0)
            return pk_no_memory(err);
    }
    return 0;
}

static int get_mounts(const json_t *json, struct pk_unit *unit, struct pk_error *err)
{
    const json_t *list = json_object_get(json, "mounts");
    unit->mounts = pk_zalloc_array(json_array_size(list) + 1, sizeof(*unit->mounts));
    if (unit->mounts == NULL)
        return pk_no_memory(err);
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        struct pk_mount *mount = &unit->mounts[unit->mount_count++];
        mount->read_only = pk_json_bool_or(item, "readOnly", true);
        int r = get_text(item, "source", &mount->source, err);
        if (r >= 0)
            r = get_text(item, "target", &mount->target, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int get_content(const json_t *content, struct pk_rendered_file *file, struct pk_error *err)
{
    if (json_is_string(content)) {
        file->len = json_string_length(content);
        file->data = pk_zalloc(file->len + 1);
        if (file->data == NULL)
            return pk_no_memory(err);
        memcpy(file->data, json_string_value(content), file->len);
        return 0;
    }
    const char *hex = pk_json_string_or(content, "hex", NULL);
    if (hex == NULL)
        return pk_fail(err, PK_E_INVALID, "the content of %s is missing", file->path);
    size_t size = strlen(hex) / 2;
    file->data = pk_zalloc(size + 1);
    if (file->data == NULL)
        return pk_no_memory(err);
    if (sodium_hex2bin((unsigned char *)file->data, size, hex, strlen(hex), NULL, &file->len,
                       NULL) != 0)
        return pk_fail(err, PK_E_INVALID, "the content of %s is damaged", file->path);
    return 0;
}

static int get_files(const json_t *json, const json_t *contents, struct pk_unit *unit,
                     struct pk_error *err)
{
    json_t *files = json_object_get(json, "files");
    unit->files.files = pk_zalloc_array(json_object_size(files) + 1, sizeof(*unit->files.files));
    if (unit->files.files == NULL)
        return pk_no_memory(err);
    const char *path;
    json_t *hash;
    json_object_foreach(files, path, hash)
    {
        struct pk_rendered_file *file = &unit->files.files[unit->files.count++];
        file->path = pk_strdup(path);
        if (file->path == NULL)
            return pk_no_memory(err);
        const char *key = json_is_string(hash) ? json_string_value(hash) : "";
        int r = get_content(json_object_get(contents, key), file, err);
        if (r < 0)
            return r;
        char actual[65];
        pk_sha256_hex(file->data, file->len, actual);
        if (strcmp(actual, key) != 0)
            return pk_fail(err, PK_E_INVALID, "the content of %s is damaged", path);
    }
    return 0;
}

static int thaw_unit(const json_t *json, const json_t *contents, struct pk_unit *unit,
                     struct pk_error *err)
{
    struct {
        const char *key;
        char **text;
    } const texts[] = {
        { "name", &unit->name },
        { "fleet", &unit->fleet },
        { "group", &unit->group },
        { "tool", &unit->tool },
        { "package", &unit->package },
        { "version", &unit->version },
        { "image", &unit->image },
        { "imageDigest", &unit->image_digest },
        { "netns", &unit->netns },
        { "cpuset", &unit->cpuset },
        { "filesHash", &unit->files_hash },
        { "hash", &unit->hash },
        { "probeSocket", &unit->probe_socket },
    };
    struct {
        const char *key;
        unsigned *value;
    } const numbers[] = {
        { "lane", &unit->lane },
        { "pidsMax", &unit->pids_max },
        { "nofile", &unit->nofile },
        { "stopTimeoutMs", &unit->stop_timeout_ms },
    };
    int r = 0;
    for (size_t i = 0; i < PK_ARRAY_SIZE(texts) && r >= 0; i++)
        r = get_text(json, texts[i].key, texts[i].text, err);
    for (size_t i = 0; i < PK_ARRAY_SIZE(numbers) && r >= 0; i++)
        r = get_unsigned(json, numbers[i].key, numbers[i].value, err);
    if (r >= 0)
        r = get_u64(json, "memoryBytes", INT64_MAX, &unit->memory_bytes, err);
    if (r >= 0)
        r = get_u64(json, "tmpfsBytes", INT64_MAX, &unit->tmpfs_bytes, err);
    if (r >= 0)
        r = get_strv(json, "argv", &unit->argv, err);
    if (r >= 0)
        r = get_strv(json, "capabilities", &unit->capabilities, err);
    if (r >= 0)
        r = get_mounts(json, unit, err);
    if (r >= 0)
        r = get_files(json, contents, unit, err);
    if (r < 0)
        return r;
    unit->release = pk_strdup(pk_json_string_or(json, "release", ""));
    unit->user = pk_strdup(pk_json_string_or(json, "user", ""));
    if (unit->release == NULL || unit->user == NULL)
        return pk_no_memory(err);
    unit->probe = strcmp(pk_json_string_or(json, "probe", ""), "suricata") == 0 ? PK_PROBE_SURICATA
                                                                                : PK_PROBE_NONE;
    unit->values = json_incref(json_object_get(json, "values"));
    return 0;
}

/* Of a tap: "groups" and "tenants", or, frozen by an earlier version, "group": "g". */
static int thaw_targets(const json_t *item, struct pk_tap_desired *tap, struct pk_error *err)
{
    json_t *groups = json_object_get(item, "groups"), *tenants = json_object_get(item, "tenants");
    const char *group = pk_json_string_or(item, "group", NULL);
    tap->groups = group != NULL ? json_pack("[{s:s}]", "name", group) : json_incref(groups);
    tap->tenants = tenants != NULL ? json_incref(tenants) : json_array();
    size_t i;
    json_t *row;
    json_array_foreach(tap->groups, i, row)
    {
        if (pk_json_string_or(row, "name", NULL) == NULL)
            return pk_fail(err, PK_E_INVALID, "tap %s: a group has no name", tap->name);
    }
    return json_is_array(tap->groups) && json_is_array(tap->tenants)
               ? 0
               : pk_fail(err, PK_E_INVALID, "tap %s: groups or tenants are no list", tap->name);
}

static int thaw_taps(const json_t *json, struct pk_desired *desired, struct pk_error *err)
{
    const json_t *list = json_object_get(json, "taps");
    desired->taps = pk_zalloc_array(json_array_size(list) + 1, sizeof(*desired->taps));
    if (desired->taps == NULL)
        return pk_no_memory(err);
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        struct pk_tap_desired *tap = &desired->taps[desired->tap_count++];
        tap->kind = pk_tap_kind_parse(pk_json_string_or(item, "kind", ""));
        tap->options = json_incref(json_object_get(item, "options"));
        int r = get_text(item, "name", &tap->name, err);
        if (r >= 0)
            r = thaw_targets(item, tap, err);
        if (r >= 0)
            r = get_text(item, "interface", &tap->interface, err);
        if (r >= 0)
            r = get_unsigned(item, "mtu", &tap->mtu, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int thaw_lanes(const json_t *json, struct pk_desired *desired, struct pk_error *err)
{
    const json_t *list = json_object_get(json, "lanes");
    desired->lanes = pk_zalloc_array(json_array_size(list) + 1, sizeof(*desired->lanes));
    if (desired->lanes == NULL)
        return pk_no_memory(err);
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        struct pk_lane_desired *lane = &desired->lanes[desired->lane_count++];
        int r = get_text(item, "group", &lane->group, err);
        if (r >= 0)
            r = get_unsigned(item, "index", &lane->index, err);
        if (r >= 0)
            r = get_unsigned(item, "mtu", &lane->mtu, err);
        lane->is_inline = pk_json_bool_or(item, "inline", false);
        const char *device = pk_json_string_or(item, "device", NULL);
        if (device != NULL && (lane->device = pk_strdup(device)) == NULL)
            return pk_no_memory(err);
        if (r >= 0 && lane->index >= PK_LANES_MAX)
            r = pk_fail(err, PK_E_INVALID, "lane %u is out of range", lane->index);
        if (r < 0)
            return r;
    }
    return 0;
}

/* A name, or an object with what is not as usual; an earlier version had the hashes apart. */
static int thaw_groups(const json_t *json, struct pk_desired *desired, struct pk_error *err)
{
    const json_t *list = json_object_get(json, "groups"), *hashes = json_object_get(json, "hashes");
    desired->groups = pk_zalloc_array(json_array_size(list) + 1, sizeof(*desired->groups));
    if (desired->groups == NULL)
        return pk_no_memory(err);
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *name =
            json_is_string(item) ? json_string_value(item) : pk_json_string_or(item, "name", NULL);
        if (name == NULL)
            return pk_fail(err, PK_E_INVALID, "groups: not a list of names");
        struct pk_group_desired *group = &desired->groups[desired->group_count++];
        int64_t priority = pk_json_int_or(item, "priority", PK_PRIORITY_DEFAULT);
        group->name = pk_strdup(name);
        group->tenant = pk_strdup(pk_json_string_or(item, "tenant", ""));
        group->priority = (unsigned)PK_MIN(PK_MAX(priority, 1), INT32_MAX);
        group->options = json_incref(json_object_get(item, "options"));
        if (group->name == NULL || group->tenant == NULL)
            return pk_no_memory(err);
        const char *hash =
            pk_json_string_or(item, "hash", pk_json_string_or(hashes, name, "outer"));
        while (group->hash < PK_GROUP_HASHES && strcmp(pk_group_hash_name(group->hash), hash) != 0)
            group->hash++;
        if (group->hash == PK_GROUP_HASHES)
            return pk_fail(err, PK_E_INVALID, "group %s: there is no hash \"%s\"", name, hash);
    }
    return 0;
}

int pk_desired_thaw(const json_t *frozen, struct pk_desired **ret_desired, struct pk_error *err)
{
    const char *fleet = NULL;
    int r = pk_json_get_string(frozen, "fleet", &fleet, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_desired_free_p) struct pk_desired *desired = pk_desired_new_empty(fleet);
    if (desired == NULL)
        return pk_no_memory(err);
    desired->store.retain = pk_json_int_or(frozen, "store.retain", 0);
    desired->store.max_bytes = (uint64_t)pk_json_int_or(frozen, "store.maxBytes", 0);
    desired->store.seal_after = pk_json_int_or(frozen, "store.sealAfter", 0);
    r = thaw_taps(frozen, desired, err);
    if (r >= 0)
        r = thaw_lanes(frozen, desired, err);
    if (r >= 0)
        r = thaw_groups(frozen, desired, err);
    if (r < 0)
        return r;

    const json_t *list = json_object_get(frozen, "units");
    const json_t *contents = json_object_get(frozen, "contents");
    desired->units = pk_zalloc_array(json_array_size(list) + 1, sizeof(*desired->units));
    if (desired->units == NULL)
        return pk_no_memory(err);
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        r = thaw_unit(item, contents, &desired->units[desired->unit_count++], err);
        if (r < 0)
            return r;
    }
    pk_desired_sort(desired);
    *ret_desired = PK_TAKE(desired);
    return 0;
}
