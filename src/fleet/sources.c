/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <state>/ship/sources.json: what the shipper follows. The file is its own record: it is read back
 * at the start, and a source is listed from before its tool runs until its last log file is gone.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "fleet/internal.h"

static char *sources_path(const struct pk_manager *manager)
{
    return pk_asprintf("%s/ship/sources.json", manager->paths.state_dir);
}

static char *log_dir(const struct pk_manager *manager, const char *unit)
{
    return pk_asprintf("%s/units/%s/log", manager->paths.state_dir, unit);
}

/* Lock held: the file is small, and two writers must not swap order. */
static int write_file(struct pk_manager *manager, struct pk_error *err)
{
    PK_JSON list = json_array();
    const char *name;
    json_t *source;
    json_object_foreach(manager->sources, name, source)
    {
        if (json_array_append(list, source) < 0)
            return pk_no_memory(err);
    }
    PK_JSON document = json_pack("{s:O}", "sources", list);
    PK_CLEANUP(pk_free_p) char *text = document != NULL ? pk_json_pretty(document) : NULL;
    PK_CLEANUP(pk_free_p) char *path = sources_path(manager);
    if (text == NULL || path == NULL)
        return pk_no_memory(err);
    if (manager->sources_written != NULL && strcmp(manager->sources_written, text) == 0)
        return 0;
    int r = pk_file_write(path, text, strlen(text), 0640, err); /* it has tokens */
    if (r < 0)
        return r;
    pk_free(manager->sources_written);
    manager->sources_written = PK_TAKE(text);
    return 0;
}

int pk_sources_load(struct pk_manager *manager, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *folder = pk_path_join(manager->paths.state_dir, "ship");
    PK_CLEANUP(pk_free_p) char *path = sources_path(manager);
    manager->sources = json_object();
    if (folder == NULL || path == NULL || manager->sources == NULL)
        return pk_no_memory(err);
    int r = pk_mkdir_p(folder, 0755, err);
    if (r < 0 || !pk_file_exists(path))
        return r;
    struct pk_error trouble = { 0 };
    PK_JSON document = NULL;
    if (pk_json_load(path, &document, &trouble) < 0) {
        /* Sources of running units are listed anew by pk_sources_ensure(). */
        pk_log_error(PK_LOG_INFO, "fleet", &trouble, "the list of sources is made anew");
        return 0;
    }
    size_t i;
    json_t *source;
    json_array_foreach(json_object_get(document, "sources"), i, source)
    {
        /* ".../units/<name>/log": the folder says which unit's it is. */
        const char *dir = pk_json_string_or(source, "dir", "");
        PK_CLEANUP(pk_free_p) char *copy = pk_strdup(dir);
        char *slash = copy != NULL ? strrchr(copy, '/') : NULL;
        if (slash == NULL)
            continue;
        *slash = '\0';
        slash = strrchr(copy, '/');
        if (slash != NULL && json_object_set(manager->sources, slash + 1, source) < 0)
            return pk_no_memory(err);
    }
    return 0;
}

static json_t *logs_of(struct pk_manager *manager, const struct pk_unit *unit, struct pk_error *err)
{
    const struct pk_package *package = NULL;
    const struct pk_package_version *version = NULL;
    int r = pk_catalog_find(manager->options.catalog, unit->package, unit->version, &package,
                            &version, err);
    if (r < 0)
        return NULL;
    json_t *logs = json_array();
    for (size_t i = 0; i < version->log_count; i++)
        (void)json_array_append_new(logs, json_pack("{s:s,s:s}", "glob", version->logs[i].glob,
                                                    "format", version->logs[i].format));
    if (logs == NULL)
        (void)pk_no_memory(err);
    return logs;
}

int pk_sources_add(struct pk_manager *manager, const struct pk_unit *unit, struct pk_error *err)
{
    struct pk_error trouble = { 0 };
    PK_CLEANUP(pk_free_p) char *dir = log_dir(manager, unit->name);
    json_t *logs = logs_of(manager, unit, &trouble);
    pk_manager_lock(manager);
    /* A package that left the catalog: what its logs were is still listed. */
    if (logs == NULL)
        logs = json_incref(json_object_get(json_object_get(manager->sources, unit->name), "logs"));
    int r = 0;
    if (logs == NULL || dir == NULL) {
        if (err != NULL)
            *err = trouble;
        r = trouble.code != 0 ? trouble.code : pk_no_memory(err);
        json_decref(logs);
    } else {
        json_t *source = json_pack("{s:s,s:s,s:I,s:s,s:s,s:s,s:s,s:o,s:b}", "fleet", unit->fleet,
                                   "group", unit->group, "lane", (json_int_t)unit->lane, "tool",
                                   unit->tool, "package", unit->package, "version", unit->version,
                                   "dir", dir, "logs", logs, "active", 1);
        char token[PK_CANARY_TOKEN_TEXT];
        pk_canary_token_text(manager, unit, token);
        if (json_object_set_new(source, "canary", json_string(token)) < 0 ||
            json_object_set(manager->sources, unit->name, source) < 0)
            r = pk_no_memory(err);
        else
            r = write_file(manager, err);
        json_decref(source);
    }
    pk_manager_unlock(manager);
    return r;
}

/* The agent's records of what it shunted, by group: no unit has a name with a '.' in it. */
static char *shunts_name(const struct pk_manager *manager, const char *fleet, const char *group)
{
    return pk_asprintf("%s-%s-%s.shunts", manager->paths.tag, fleet, group);
}

static int add_shunts(struct pk_manager *manager, const char *fleet, const char *group,
                      struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *name = shunts_name(manager, fleet, group);
    PK_CLEANUP(pk_free_p) char *dir = name != NULL ? log_dir(manager, name) : NULL;
    if (dir == NULL)
        return pk_no_memory(err);
    pk_manager_lock(manager);
    const json_t *known = json_object_get(manager->sources, name);
    int r = 0;
    if (known == NULL || !pk_json_bool_or(known, "active", true)) {
        json_t *source =
            json_pack("{s:s,s:s,s:i,s:s,s:s,s:s,s:s,s:[{s:s,s:s}],s:b}", "fleet", fleet, "group",
                      group, "lane", 0, "tool", "picket", "package", "", "version", "", "dir", dir,
                      "logs", "glob", "shunt-*.json", "format", "eve", "active", 1);
        r = json_object_set_new(manager->sources, name, source) < 0 ? pk_no_memory(err)
                                                                    : write_file(manager, err);
    }
    pk_manager_unlock(manager);
    return r;
}

int pk_sources_retire_shunts(struct pk_manager *manager, const char *fleet, const char *group,
                             struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *name = shunts_name(manager, fleet, group);
    return name == NULL ? pk_no_memory(err) : pk_sources_retire(manager, name, err);
}

void pk_sources_ensure(struct pk_manager *manager, const struct pk_desired *desired)
{
    for (size_t i = 0; i < desired->group_count; i++) {
        struct pk_error err = { 0 };
        if (add_shunts(manager, desired->fleet, desired->groups[i].name, &err) < 0)
            pk_log_error(PK_LOG_INFO, "fleet", &err, "listing the shunts of group %s",
                         desired->groups[i].name);
    }
    for (size_t i = 0; i < desired->unit_count; i++) {
        const struct pk_unit *unit = &desired->units[i];
        struct pk_error err = { 0 };
        pk_manager_lock(manager);
        const json_t *source = json_object_get(manager->sources, unit->name);
        bool listed = source != NULL && pk_json_bool_or(source, "active", true) &&
                      json_object_get(source, "canary") != NULL; /* an earlier version had none */
        pk_manager_unlock(manager);
        if (!listed && pk_sources_add(manager, unit, &err) < 0)
            pk_log_error(PK_LOG_INFO, "fleet", &err, "listing the logs of %s", unit->name);
    }
}

static bool is_empty(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL)
        return errno == ENOENT;
    bool empty = true;
    const struct dirent *entry;
    while (empty && (entry = readdir(dir)) != NULL)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    (void)closedir(dir);
    return empty;
}

/* Removes the rest of a retired unit's folder once its logs are gone. Lock held. */
static bool forget_if_empty(struct pk_manager *manager, const char *unit)
{
    PK_CLEANUP(pk_free_p) char *logs = log_dir(manager, unit);
    PK_CLEANUP(pk_free_p)
    char *folder = pk_asprintf("%s/units/%s", manager->paths.state_dir, unit);
    if (logs == NULL || folder == NULL || !is_empty(logs))
        return false;
    (void)rmdir(logs);
    (void)rmdir(folder);
    return true;
}

int pk_sources_retire(struct pk_manager *manager, const char *unit, struct pk_error *err)
{
    pk_manager_lock(manager);
    json_t *source = json_object_get(manager->sources, unit);
    int r = 0;
    if (forget_if_empty(manager, unit))
        (void)json_object_del(manager->sources, unit);
    else if (source != NULL && json_object_set_new(source, "active", json_false()) < 0)
        r = pk_no_memory(err);
    if (r >= 0)
        r = write_file(manager, err);
    pk_manager_unlock(manager);
    return r;
}

void pk_sources_sweep(struct pk_manager *manager)
{
    pk_manager_lock(manager);
    const char *name;
    json_t *source;
    void *next;
    json_object_foreach_safe(manager->sources, next, name, source)
    {
        if (!pk_json_bool_or(source, "active", true) && forget_if_empty(manager, name))
            (void)json_object_del(manager->sources, name);
    }
    PK_CLEANUP(pk_free_p) char *path = sources_path(manager);
    if (path != NULL && !pk_file_exists(path)) { /* somebody removed it */
        pk_free(manager->sources_written);
        manager->sources_written = NULL;
    }
    (void)write_file(manager, NULL); /* tried again with the next sweep */
    pk_manager_unlock(manager);
}
