/* SPDX-License-Identifier: Apache-2.0 */
/*
 * desired - observed = an ordered list of steps. Pure: no I/O, no clock, equal input gives equal
 * bytes. What must run is described engine-neutrally by units.
 */
#ifndef PICKET_PLAN_PLAN_H
#define PICKET_PLAN_PLAN_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"
#include "base/str.h"
#include "catalog/catalog.h"
#include "spec/spec.h"

struct pk_mount {
    char *source; /* on the host, absolute */
    char *target; /* in the container, absolute */
    bool read_only;
};

/* One container. */
struct pk_unit {
    char *name;      /* container name: "<tag>-<fleet>-<group>-<lane>-<tool>" */
    char *fleet, *group, *tool, *package, *version;
    unsigned lane;
    char *image;        /* "localhost/picket/suricata:7" */
    char *image_digest; /* "sha256:..."; what is run is pinned to it */
    struct pk_strv argv;
    struct pk_strv capabilities; /* added after drop all */
    char *netns;        /* path: "/run/netns/..." */
    char *cpuset;       /* "2" or "2-3"; "" = not pinned */
    uint64_t memory_bytes;
    unsigned pids_max, nofile;
    uint64_t tmpfs_bytes; /* of /tmp */
    unsigned stop_timeout_ms;
    struct pk_mount *mounts;
    size_t mount_count;
    struct pk_rendered files; /* written below the unit's folder by fleet; mounted read-only */
    char *files_hash;         /* SHA-256 over paths and contents */
    char *hash;               /* SHA-256 over everything above: label "io.picket.hash" */
    enum pk_probe_kind probe;
    char *probe_socket;       /* on the host, absolute; "" = none */
};

struct pk_lane_desired {
    char *group;
    unsigned index;
    unsigned mtu; /* 0 = follow the taps */
};
struct pk_tap_desired {
    char *name, *group;
    enum pk_tap_kind kind;
    char *interface;
    unsigned mtu;
};

struct pk_desired {
    char *fleet;
    struct pk_tap_desired *taps;
    size_t tap_count;
    struct pk_lane_desired *lanes;
    size_t lane_count;
    struct pk_unit *units;
    size_t unit_count;
    struct pk_strv groups;
    struct pk_store_spec store;
};

/* What placement needs to know of the machine, and the images that exist. */
struct pk_placement {
    const char *tag;       /* of pk_paths */
    const char *state_dir;
    /* Path of a lane's network namespace; pk_free(). */
    char *(*lane_netns)(const char *tag, const char *fleet, const char *group, unsigned index);
    unsigned cpu_count;    /* usable */
    unsigned reserved_cpus; /* kept for the system with cpu: dedicated */
    /* "localhost/picket/suricata:7" -> "sha256:...", PK_E_NOTFOUND with a hint when not built. */
    int (*image_digest)(void *arg, const char *image, char **ret_digest, struct pk_error *err);
    void *image_digest_arg;
};

/* All faults go to errors (too many lanes for the cores, image missing, ...). */
int pk_desired_build(const struct pk_fleet_spec *fleet, const struct pk_catalog *catalog,
                     const struct pk_placement *placement, struct pk_desired **ret_desired,
                     struct pk_errors *errors);
void pk_desired_free(struct pk_desired *desired);
PK_DEFINE_CLEANUP(struct pk_desired, pk_desired_free);
/* Canonical description (sorted, file contents as hashes): what a revision records. New reference. */
json_t *pk_desired_to_json(const struct pk_desired *desired);
json_t *pk_unit_to_json(const struct pk_unit *unit);

/* What is there: one row per thing of the fleet, found by the engine's labels, the agent's plane and
 * the files on disk. */
struct pk_observed_unit {
    char *name, *hash; /* hash as labelled; "" when the config files on disk differ from files_hash */
    char *group, *tool;
    unsigned lane;
    bool running;
    bool files_intact;
    json_t *unit;      /* the canonical unit it was made from, or NULL; for naming what changed */
};
struct pk_observed {
    struct pk_tap_desired *taps;
    size_t tap_count;
    struct pk_lane_desired *lanes; /* only healthy ones: namespace, interface and program are there */
    size_t lane_count;
    struct pk_strv groups;
    struct pk_observed_unit *units;
    size_t unit_count;
};
void pk_observed_free(struct pk_observed *observed);
PK_DEFINE_CLEANUP(struct pk_observed, pk_observed_free);
/* SHA-256 of what a plan depends on: a plan is stale when it differs. */
void pk_observed_hash(const struct pk_observed *observed, char out[65]);

enum pk_step_op { PK_STEP_ADD, PK_STEP_CHANGE, PK_STEP_REMOVE };
enum pk_step_kind { PK_STEP_LANE, PK_STEP_UNIT, PK_STEP_GROUP, PK_STEP_TAP };

struct pk_step {
    enum pk_step_op op;
    enum pk_step_kind kind;
    char *name;    /* "analysis/0", "analysis/0/suricata", "analysis", "uplink" */
    char *reason;  /* "new", "values changed: home-net", "container is gone", ... */
    char *traffic; /* effect on traffic in words; "" = none */
    size_t index;  /* into desired (add, change) or observed (remove) of that kind */
};

struct pk_plan {
    char id[13];            /* first 12 hex digits of the SHA-256 of the plan's content */
    char *fleet;
    char observed_hash[65]; /* the state it was made from */
    char desired_hash[65];
    struct pk_step *steps;  /* in the order of execution */
    size_t step_count;
    char *traffic;          /* the sum, in one sentence: shown first */
};

int pk_plan_make(const struct pk_desired *desired, const struct pk_observed *observed,
                 struct pk_plan **ret_plan, struct pk_error *err);
void pk_plan_free(struct pk_plan *plan);
PK_DEFINE_CLEANUP(struct pk_plan, pk_plan_free);
/* {apiVersion, kind:"Plan", id, fleet, traffic, steps:[{op,kind,name,reason,traffic}], ...} */
json_t *pk_plan_to_json(const struct pk_plan *plan);

#endif
