/* SPDX-License-Identifier: Apache-2.0 */
/* How a unit is said to Podman. */
#include <signal.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/json.h"
#include "engine/podman/internal.h"

/* A tool's own standard output is for faults, not for events: a few MiB tell enough. */
#define LOG_BYTES (8 << 20)
/* Sensors use shared memory little or not at all. */
#define SHM_BYTES (1 << 20)
/* Of the user, so of all containers together: the bound for one container is pids_max. Podman's
 * default is more than a service without CAP_SYS_RESOURCE may ask for, so it is always said. */
#define NPROC_MAX 4096

static json_t *mount_json(const char *type, const char *source, const char *target,
                          const char *const *options)
{
    json_t *list = json_array();
    for (; list != NULL && *options != NULL; options++)
        json_array_append_new(list, json_string(*options));
    return json_pack("{s:s, s:s, s:s, s:o}", "type", type, "source", source, "destination", target,
                     "options", list);
}

static json_t *mounts_json(const struct pk_unit *unit)
{
    static const char *const read_only[] = { "rbind", "ro", "nosuid", "nodev", "noexec", NULL };
    static const char *const writable[] = { "rbind", "rw", "nosuid", "nodev", "noexec", NULL };

    json_t *list = json_array();
    if (list == NULL)
        return NULL;
    for (size_t i = 0; i < unit->mount_count; i++) {
        const struct pk_mount *mount = &unit->mounts[i];
        json_array_append_new(list, mount_json("bind", mount->source, mount->target,
                                               mount->read_only ? read_only : writable));
    }
    if (unit->tmpfs_bytes > 0) {
        char size[40];
        snprintf(size, sizeof(size), "size=%llu", (unsigned long long)unit->tmpfs_bytes);
        const char *const options[] = { size, "mode=1777", "nosuid", "nodev", "noexec", NULL };
        json_array_append_new(list, mount_json("tmpfs", "tmpfs", "/tmp", options));
    }
    return list;
}

static json_t *labels_json(const struct pk_unit *unit, const char *tag)
{
    char lane[16];
    snprintf(lane, sizeof(lane), "%u", unit->lane);
    PK_JSON json = pk_unit_to_json(unit);
    PK_CLEANUP(pk_free_p) char *text = json != NULL ? pk_json_canonical(json) : NULL;
    if (text == NULL)
        return NULL;
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", PK_LABEL_INSTANCE, tag, PK_LABEL_FLEET,
                     unit->fleet, PK_LABEL_GROUP, unit->group, PK_LABEL_LANE, lane, PK_LABEL_TOOL,
                     unit->tool, PK_LABEL_HASH, unit->hash, PK_LABEL_UNIT, text);
}

static json_t *limits_json(const struct pk_unit *unit)
{
    json_t *limits = json_object();
    if (limits == NULL)
        return NULL;
    if (unit->cpuset != NULL && unit->cpuset[0] != '\0')
        json_object_set_new(limits, "cpu", json_pack("{s:s}", "cpus", unit->cpuset));
    if (unit->memory_bytes > 0)
        json_object_set_new(limits, "memory",
                            json_pack("{s:I}", "limit", (json_int_t)unit->memory_bytes));
    if (unit->pids_max > 0)
        json_object_set_new(limits, "pids",
                            json_pack("{s:I}", "limit", (json_int_t)unit->pids_max));
    return limits;
}

static json_t *rlimit_json(const char *type, unsigned value)
{
    /* Without "RLIMIT_": Podman puts it before the name itself. */
    return json_pack("{s:s, s:I, s:I}", "type", type, "soft", (json_int_t)value, "hard",
                     (json_int_t)value);
}

json_t *pk_podman_spec(const struct pk_unit *unit, const char *tag)
{
    json_t *command = json_array();
    for (size_t i = 0; command != NULL && i < unit->argv.count; i++)
        json_array_append_new(command, json_string(unit->argv.list[i]));
    json_t *caps = json_array();
    for (size_t i = 0; caps != NULL && i < unit->capabilities.count; i++)
        json_array_append_new(caps, json_sprintf("CAP_%s", unit->capabilities.list[i]));
    json_t *netns = unit->netns != NULL && unit->netns[0] != '\0'
                        ? json_pack("{s:s, s:s}", "nsmode", "path", "value", unit->netns)
                        : json_pack("{s:s}", "nsmode", "none");

    /* What runs is pinned to the digest; the tag may move. Restarts are ours (restart_policy no):
     * conmon's clean-up would restart with another configuration than the API's. */
    PK_JSON spec = json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:o, s:[s], s:o, s:b, s:b, s:o, s:[o,o,o], s:s, s:o, s:i, s:I}",
        "name", unit->name, "image", unit->image_digest, "entrypoint", json_array(), "command",
        command, "labels", labels_json(unit, tag), "netns", netns, "cap_drop", "all", "cap_add",
        caps, "no_new_privileges", 1, "read_only_filesystem", 1, "resource_limits",
        limits_json(unit), "r_limits",
        rlimit_json("NOFILE", unit->nofile > 0 ? unit->nofile : 1024),
        rlimit_json("NPROC", NPROC_MAX), rlimit_json("CORE", 0), "restart_policy", "no", "mounts",
        mounts_json(unit), "stop_signal", SIGTERM, "shm_size", (json_int_t)SHM_BYTES);
    PK_JSON rest = json_pack(
        "{s:I, s:{s:s, s:I}, s:s, s:s, s:b, s:b, s:b, s:n}", "stop_timeout",
        (json_int_t)((unit->stop_timeout_ms + 999) / 1000), "log_configuration", "driver",
        "k8s-file", "size", (json_int_t)LOG_BYTES, "systemd", "false", "sdnotifyMode", "ignore",
        "use_image_hosts", 1, "use_image_resolve_conf", 1, "env_host", 0, "healthconfig");
    if (spec == NULL || rest == NULL || json_object_update(spec, rest) < 0)
        return NULL;
    /* For a user other than root Podman makes what is added ambient too, so that the program starts
     * with just these. */
    if (unit->user != NULL && unit->user[0] != '\0' &&
        json_object_set_new(spec, "user", json_string(unit->user)) < 0)
        return NULL;
    return PK_TAKE(spec);
}
