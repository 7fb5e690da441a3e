/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fleet document. One table of data (schema.c) says which keys exist, their types, ranges,
 * defaults and meaning; parsing, defaults, validation, canonical print, JSON Schema and the
 * reference page all come from it. This header is the typed view that the rest of picket reads.
 */
#ifndef PICKET_SPEC_SPEC_H
#define PICKET_SPEC_SPEC_H

#include <jansson.h>

#include "base/common.h"
#include "base/doc.h"
#include "base/error.h"
#include "base/str.h"
#include "spec/nic.h"
#include "spec/rules.h"
#include "spec/tunnel.h"

#define PK_API_VERSION "picket.dev/v1alpha1"
#define PK_NAME_MAX    40u  /* fleets, taps, groups, tools */
#define PK_LANES_MAX   256u /* of one group */

#define PK_TENANTS_MAX           255u  /* of a fleet */
#define PK_SELECTORS_MAX         256u  /* of one kind, of a tenant */
#define PK_FLEET_SELECTORS_MAX   4096u /* of all tenants */
#define PK_GROUPS_PER_TENANT_MAX 8u    /* on one tap; as many again for what no tenant claims */
#define PK_PRIORITY_DEFAULT      100u

struct pk_pos {
    unsigned line, col;
};

enum pk_tap_kind { PK_TAP_INTERFACE, PK_TAP_REPLAY, PK_TAP_TUNNEL, PK_TAP_INLINE };
const char *pk_tap_kind_name(enum pk_tap_kind kind); /* "interface", as the agent's API has it */
enum pk_tap_kind pk_tap_kind_parse(const char *name);
/* Does it take an interface of the machine's? */
static inline bool pk_tap_has_interface(enum pk_tap_kind kind)
{
    return kind != PK_TAP_REPLAY;
}

/* taps[].tunnel as written; pk_spec_tunnel() reads it. */
struct pk_tunnel_spec {
    char *interface; /* until the document is read; then the tap's */
    char *type;
    struct pk_strv types, addresses;
    unsigned port; /* 0 = each type's own */
    bool decapsulate;
    const struct pk_node *node, *addresses_node, *port_node;
};

/* taps[].inline: a tool stands between the two interfaces. */
struct pk_inline_spec {
    struct pk_strv interfaces; /* two; the first is the tap's as well */
    unsigned closed;           /* drop when the tool fails; else packets go past it */
    pk_nsec fail_after;        /* that a packet may be unanswered; default 200 ms */
    const struct pk_node *node, *interfaces_node;
};

struct pk_tap_spec {
    char *name;
    enum pk_tap_kind kind;
    char *interface; /* the NIC; NULL where !pk_tap_has_interface() */
    unsigned mtu; /* PK_TAP_REPLAY: largest packet replayed (default 9216); 0 = the interface's */
    struct pk_tunnel_spec tunnel;
    struct pk_inline_spec pair;
    struct pk_nic_spec nic;
    const struct pk_node *nic_node;
    struct pk_pos pos;
};

/* Which packets: those on its taps that any selector takes; all of them where there is none. */
struct pk_tenant_spec {
    char *name;
    struct pk_strv taps;  /* empty = all */
    struct pk_strv vlans; /* "110" or, outermost first, "100.200"; no leading zeros */
    unsigned *vnis, *gre_keys, *erspan_sessions;
    size_t vni_count, gre_key_count, erspan_session_count;
    struct pk_strv prefixes; /* as written; pk_prefix_parse() takes each */
    unsigned priority;       /* default 100; lower ones are shed first */
    const struct pk_node *match_node;
    struct pk_pos pos;
};

struct pk_tool_spec {
    char *name;     /* unique in its group; defaults to the package's name */
    char *package;  /* "suricata" */
    char *version;  /* "7" or "7.0.10", as written after '@'; "" when left out */
    json_t *values; /* object, never NULL; checked against the package's value schema by catalog */
    const struct pk_node *values_node; /* NULL when the user wrote none; for positions */
    uint64_t memory_bytes;             /* limit; default 2 GiB */
    struct pk_pos pos, package_pos;
};

/* What of a packet is hashed to find its lane (packet/hash.h). */
enum pk_group_hash { PK_GROUP_OUTER, PK_GROUP_FLOW, PK_GROUP_ADDRESSES, PK_GROUP_HASHES };
const char *pk_group_hash_name(enum pk_group_hash hash);

/* Flows of which the group sees no more. Nothing where after and port_count are 0. */
struct pk_shunt_rule_spec {
    uint64_t after;  /* bytes of a flow that the group gets */
    unsigned *ports; /* of either end */
    size_t port_count;
    pk_nsec idle; /* 0 = PK_SHUNT_IDLE_DEFAULT_S */
};
#define PK_SHUNT_PORTS_MAX 16

enum pk_overload_mode {
    PK_OVERLOAD_MODE_AUTO,
    PK_OVERLOAD_MODE_SHUNT,
    PK_OVERLOAD_MODE_SHED,
    PK_OVERLOAD_MODE_OFF
};
enum pk_rebalance_mode { PK_REBALANCE_AUTO, PK_REBALANCE_OFF };

enum pk_cpu_mode { PK_CPU_SHARED, PK_CPU_DEDICATED };

struct pk_group_spec {
    char *name;
    char *device;           /* until the document is read; then in devices */
    struct pk_strv devices; /* each feeds a lane, and there are no taps; empty = the taps do */
    const struct pk_node *lane_node;
    struct pk_strv taps;
    const struct pk_node *taps_node;
    char *tenant;   /* NULL = what no tenant claims */
    json_t *filter; /* as pk_filter_compile() takes it, which it did; NULL = all */
    const struct pk_node *filter_node;
    struct pk_pos tenant_pos;
    unsigned lanes; /* 0 = auto */
    enum pk_cpu_mode cpu;
    enum pk_group_hash hash;
    struct pk_shunt_rule_spec shunt;
    const struct pk_node *shunt_node;
    enum pk_overload_mode overload;
    pk_nsec drain; /* how long flows may stay where they are; 0 = not at all */
    enum pk_rebalance_mode rebalance;
    pk_nsec canary; /* between two; 0 = none are sent */
    struct pk_tool_spec *tools;
    size_t tool_count;
    struct pk_pos pos;
};

struct pk_store_spec {
    pk_nsec retain;     /* default 30 d */
    uint64_t max_bytes; /* default 50 GiB */
    pk_nsec seal_after; /* default 5 s */
};

struct pk_fleet_spec {
    char *name;
    struct pk_tap_spec *taps;
    size_t tap_count;
    struct pk_tenant_spec *tenants; /* in this order they claim packets */
    size_t tenant_count;
    struct pk_group_spec *groups;
    size_t group_count;
    struct pk_store_spec store; /* events.sinks[].store */
    struct pk_doc *doc;         /* owned; positions point into it */
};

/* What a tap's kind adds to what the agent is told of it: {"tunnel":{..},"inline":{..},"nic":{..}},
 * each where it says something. New reference, NULL = out of memory. */
json_t *pk_tap_options(const struct pk_tap_spec *tap);
/* The inline tap that the group's tools stand in, or NULL. */
const struct pk_tap_spec *pk_group_inline_tap(const struct pk_fleet_spec *fleet,
                                              const struct pk_group_spec *group);
/* What the agent is told of a group besides its lanes: {"shunt":{..},"overload":{..}}, each where
 * it says something. New reference, NULL = out of memory. */
json_t *pk_group_options(const struct pk_group_spec *group);
/* The tenant's selectors as JSON, in canonical notation: {"name","vlans":[110,"100.200"],"vnis":[],
 * "greKeys":[],"erspanSessions":[],"prefixes":["10.20.0.0/16"]} without the empty ones. New
 * reference, NULL = out of memory. */
json_t *pk_tenant_to_json(const struct pk_tenant_spec *tenant);
/* Whether it has traffic on the tap. */
bool pk_tenant_has_tap(const struct pk_tenant_spec *tenant, const char *tap);
/* NULL when there is none of this name. */
const struct pk_tenant_spec *pk_spec_tenant(const struct pk_fleet_spec *fleet, const char *name);

/*
 * Parses, fills defaults and validates, also references between sections (a group's taps exist,
 * names are unique, no interface twice). All faults are added to errors, each with code
 * PK_E_INVALID, the file's name, line, column and a hint where there is one. Returns PK_E_INVALID
 * if there was any. Package names and values are not looked up here: catalog does that.
 */
int pk_spec_parse(const char *name, const char *text, size_t len, struct pk_fleet_spec **ret_fleet,
                  struct pk_errors *errors);
int pk_spec_load(const char *path, struct pk_fleet_spec **ret_fleet, struct pk_errors *errors);
void pk_spec_free(struct pk_fleet_spec *fleet);
PK_DEFINE_CLEANUP(struct pk_fleet_spec, pk_spec_free);

/* The document with defaults filled in (or not), keys in the table's order. New reference /
 * pk_free(). */
json_t *pk_spec_to_json(const struct pk_fleet_spec *fleet, bool with_defaults);
char *pk_spec_to_yaml(const struct pk_fleet_spec *fleet, bool with_defaults);
/* JSON Schema (draft 2020-12) of the document. New reference, NULL = out of memory. */
json_t *pk_spec_json_schema(void);
/* A commented document that is valid. Static text. */
const char *pk_spec_example(void);

#endif
