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
    char *name; /* container name: "<tag>-<fleet>-<group>-<lane>-<tool>" */
    char *fleet, *group, *tool, *package, *version;
    unsigned lane;
    char *release;      /* full version of the tool in the image: "7.0.10"; "" = not known */
    char *image;        /* "localhost/picket/suricata:7" */
    char *image_digest; /* "sha256:..."; what is run is pinned to it */
    char *user;         /* whom the tool runs as: "990:990"; "" = root without its rights */
    struct pk_strv argv;
    struct pk_strv capabilities; /* added after drop all */
    char *netns;                 /* path: "/run/netns/..." */
    char *cpuset;                /* "2" or "2-3"; "" = not pinned */
    uint64_t memory_bytes;
    unsigned pids_max, nofile;
    uint64_t tmpfs_bytes; /* of /tmp */
    unsigned stop_timeout_ms;
    struct pk_mount *mounts;
    size_t mount_count;
    struct pk_rendered files; /* written below the unit's folder by fleet; mounted read-only */
    char *files_hash;         /* SHA-256 over paths and contents */
    char *hash;               /* SHA-256 over all but values: label "io.picket.hash" */
    enum pk_probe_kind probe;
    char *probe_socket; /* on the host, absolute; "" = none */
    json_t *values;     /* as set, with defaults: names what changed. Not in the hash: a value
                           that changes no file and no setting restarts nothing */
};
void pk_unit_done(struct pk_unit *unit);

struct pk_lane_desired {
    char *group;
    unsigned index;
    unsigned mtu; /* at least; 0 = follow the taps */
    bool is_inline;
    char *device; /* the interface that feeds it; NULL = its taps do */
};
/* Groups and tenants are kept as the agent's API has them (node/node.h), in canonical notation: so
 * what is desired and what is there compare as JSON. */
struct pk_tap_desired {
    char *name;
    enum pk_tap_kind kind;
    char *interface;
    unsigned mtu;
    json_t *options; /* of pk_tap_options() */
    json_t
        *groups; /* array of {"name","tenant","filter"}, by name; what does not apply is absent */
    json_t *tenants; /* array of pk_tenant_to_json(), in the order in which they claim packets */
};

struct pk_group_desired {
    char *name;
    enum pk_group_hash hash;
    char *tenant;      /* "" = none */
    unsigned priority; /* its tenant's; PK_PRIORITY_DEFAULT without one */
    json_t *options;   /* of pk_group_options() */
};

struct pk_desired {
    char *fleet;
    struct pk_tap_desired *taps;
    size_t tap_count;
    struct pk_lane_desired *lanes;
    size_t lane_count;
    struct pk_unit *units;
    size_t unit_count;
    struct pk_group_desired *groups;
    size_t group_count;
    struct pk_store_spec store;
};

/* What placement needs to know of the machine, and the images that exist. */
struct pk_placement {
    const char *tag; /* of pk_paths */
    const char *state_dir;
    /* Path of a lane's network namespace; pk_free(). */
    char *(*lane_netns)(const char *tag, const char *fleet, const char *group, unsigned index);
    unsigned cpu_count;     /* usable */
    const unsigned *cpus;   /* their numbers; NULL = 0 .. cpu_count - 1 */
    unsigned reserved_cpus; /* the first ones, kept for the system */
    /* "localhost/picket/suricata:7" -> "sha256:..." and the full version of the tool in it ("" when
     * the image does not say), PK_E_NOTFOUND with a hint when not built. */
    int (*image_find)(void *arg, const char *image, char **ret_digest, char **ret_release,
                      struct pk_error *err);
    void *image_find_arg;
    /* "UID:GID" that tools run as, so that they may write into the folders made for them; NULL or
     * "" = root. */
    const char *user;
};

/* All faults go to errors (too many lanes for the cores, image missing, ...). */
int pk_desired_build(const struct pk_fleet_spec *fleet, const struct pk_catalog *catalog,
                     const struct pk_placement *placement, struct pk_desired **ret_desired,
                     struct pk_errors *errors);
void pk_desired_free(struct pk_desired *desired);
PK_DEFINE_CLEANUP(struct pk_desired, pk_desired_free);
/* What is desired of a fleet that is to go: nothing. NULL = out of memory. */
struct pk_desired *pk_desired_new_empty(const char *fleet);
/* Canonical description (sorted, file contents as hashes): what a revision records. New reference.
 */
json_t *pk_desired_to_json(const struct pk_desired *desired);
json_t *pk_unit_to_json(const struct pk_unit *unit);
/* SHA-256 of what is to run: the description without the units' values. PK_E_NOMEM. */
int pk_desired_hash(const struct pk_desired *desired, char out[65], struct pk_error *err);
/* The description with the contents of all files (each once), and back: a revision is frozen when
 * it is applied, so that neither a newer catalog nor a newer image changes what a repair brings
 * back. */
json_t *pk_desired_freeze(const struct pk_desired *desired);
int pk_desired_thaw(const json_t *frozen, struct pk_desired **ret_desired, struct pk_error *err);

/* What is there: one row per thing of the fleet, found by the engine's labels, the agent's plane
 * and the files on disk. A fault is a few words ("namespace is gone"), "" when all is well. */
struct pk_observed_tap {
    char *name;
    enum pk_tap_kind kind;
    char *interface; /* "" for PK_TAP_REPLAY */
    unsigned mtu;
    json_t *options; /* as in struct pk_tap_desired; NULL = none */
    json_t *set;     /* [{setting,from,to}]: how its interface is set up; not in the hash */
    json_t *groups, *tenants; /* as desired; arrays, never NULL */
    char *fault;
};
struct pk_observed_lane {
    char *group;
    unsigned index;
    unsigned mtu;
    bool is_inline;
    char *device; /* as desired */
    char *fault;
};
struct pk_observed_group {
    char *name;
    bool lanes[PK_LANES_MAX]; /* those that have slots */
    char *hash;               /* its name; NULL = outer */
    char *tenant;             /* NULL = none */
    unsigned priority;
    json_t *options; /* as in struct pk_group_desired; NULL = none */
};
struct pk_observed_unit {
    char *name, *hash; /* hash as labelled */
    char *group, *tool;
    unsigned lane;
    bool running;
    char *fault;   /* other than not running: "config file suricata.yaml edited on disk" */
    char *stopped; /* why it does not run: "exit code 1"; "" if unknown or running */
    json_t *unit;  /* the canonical unit it was made from, or NULL; for naming what changed */
};
/* An interface of the machine, as the agent lists it. */
struct pk_observed_nic {
    char *interface;
    struct pk_nic_facts facts;
};
struct pk_observed {
    struct pk_observed_nic *nics; /* only for plans; not in the hash */
    size_t nic_count;
    struct pk_observed_tap *taps;
    size_t tap_count;
    struct pk_observed_lane *lanes;
    size_t lane_count;
    struct pk_observed_group *groups;
    size_t group_count;
    struct pk_observed_unit *units;
    size_t unit_count;
    /* What was there once as it is desired now ("lane analysis/0", "unit analysis/0/suricata",
     * "group analysis lanes 2", "tap uplink"): missing, it is gone; else it is new. */
    struct pk_strv known;
};
/* How known names a group. */
void pk_group_key(char *key, size_t size, const char *name, unsigned lanes,
                  enum pk_group_hash hash);
void pk_observed_free(struct pk_observed *observed);
PK_DEFINE_CLEANUP(struct pk_observed, pk_observed_free);
/* SHA-256 of what a plan depends on: a plan is stale when it differs. Whether a tool runs right now
 * is left out: a tool that crashes between plan and apply does not make the plan wrong. PK_E_NOMEM.
 */
int pk_observed_hash(const struct pk_observed *observed, char out[65], struct pk_error *err);

enum pk_step_op { PK_STEP_ADD, PK_STEP_CHANGE, PK_STEP_REMOVE };
enum pk_step_kind { PK_STEP_LANE, PK_STEP_UNIT, PK_STEP_GROUP, PK_STEP_TAP };
const char *pk_step_op_name(enum pk_step_op op);       /* "add", "change", "remove" */
const char *pk_step_kind_name(enum pk_step_kind kind); /* "lane", "unit", "group", "tap" */

/* Why a step is there. The first two change what is to be, the others bring back what was. */
enum pk_step_cause {
    PK_CAUSE_NEW,     /* newly wanted, or no longer wanted */
    PK_CAUSE_CHANGED, /* its definition changed */
    PK_CAUSE_GONE,    /* it was there */
    PK_CAUSE_FAULT,   /* it is there, but broken */
    PK_CAUSE_STOPPED, /* a unit that does not run; nothing else is wrong with it */
};
const char *pk_step_cause_name(enum pk_step_cause cause);

struct pk_step {
    enum pk_step_op op;
    enum pk_step_kind kind;
    enum pk_step_cause cause;
    char *name;    /* "analysis/0", "analysis/0/suricata", "analysis", "uplink" */
    char *reason;  /* "new", "values changed: home-net", "container is gone", ... */
    char *traffic; /* effect on traffic in words; "" = none */
    bool drains;   /* a unit whose lane is drained before it is replaced */
    json_t
        *settings; /* of a tap's interface: [{setting,from,to,why}], why = it cannot be; or NULL */
    size_t index;  /* into desired (add, change) or observed (remove) of that kind; a group: into
                      desired->groups or observed->groups */
};

struct pk_plan {
    char id[13]; /* first 12 hex digits of the SHA-256 of the plan's content */
    char *fleet;
    char observed_hash[65]; /* the state it was made from */
    char desired_hash[65];
    struct pk_step *steps; /* in the order of execution */
    size_t step_count;
    char *traffic; /* the sum, in one sentence: shown first */
};

int pk_plan_make(const struct pk_desired *desired, const struct pk_observed *observed,
                 struct pk_plan **ret_plan, struct pk_error *err);
void pk_plan_free(struct pk_plan *plan);
PK_DEFINE_CLEANUP(struct pk_plan, pk_plan_free);
/* {apiVersion, kind:"Plan", id, fleet, traffic, summary:{add,change,remove},
 * steps:[{op,kind,name,cause,reason,traffic,settings}], observedHash, desiredHash} */
json_t *pk_plan_to_json(const struct pk_plan *plan);

#endif
