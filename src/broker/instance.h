/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap's instance of the program: the tap's configuration as constants and as maps of its own. Any
 * change makes another instance, which takes the place of the one that runs.
 */
#ifndef PICKET_BROKER_INSTANCE_H
#define PICKET_BROKER_INSTANCE_H

#include "broker/bpf/abi.h"
#include "broker/broker.h"
#include "broker/tenants.h"
#include "packet/tunnel.h"

/* What a tap was attached with. */
struct pk_tap_target {
    uint32_t group; /* its number */
    uint32_t tenant;
    struct pk_filter *filter; /* NULL = all */
};
struct pk_tap_setup {
    enum pk_broker_tap_kind kind;
    struct pk_tunnel_rules tunnel; /* of a tunnel tap, else zeros */
    struct pk_tenants *tenants;
    struct pk_tap_target targets[PK_GROUPS_MAX]; /* by tenant */
    size_t target_count;
    bool is_copied;   /* pk_tap_copy belongs to it */
    unsigned ifindex; /* that it was attached to */
};

/* Checks and copies a configuration. */
int pk_tap_setup_new(struct pk_broker *broker, const struct pk_broker_tap_config *config,
                     struct pk_tap_setup **ret_setup, struct pk_error *err);
void pk_tap_setup_free(struct pk_tap_setup *setup);
PK_DEFINE_CLEANUP(struct pk_tap_setup, pk_tap_setup_free);

/* The maps that an instance has for itself, by the name they have in the programs. */
enum pk_own_map {
    PK_OWN_VLANS,
    PK_OWN_NUMBERS,
    PK_OWN_PREFIXES4,
    PK_OWN_PREFIXES6,
    PK_OWN_COMBOS,
    PK_OWN_COUNT
};

/* Combinations of lanes that a tap's targets may make. What goes beyond, the kernel copies (see
 * bpf/send.h): some 3 kB of memory each, and time to make them when a lane changes. */
#define PK_COMBOS_MAX 16384u

/* An instance as it is to be: everything that follows from the setup, the groups' hash modes and
 * the lanes that there are. */
struct pk_instance_plan {
    struct pk_instance constants;
    uint32_t sizes[PK_OWN_COUNT];
    uint64_t groups; /* bits */
    uint64_t digest; /* of all of it, but for the programs */
    bool needs_copier;
};
void pk_instance_plan(struct pk_broker *broker, uint32_t tap, const struct pk_tap_setup *setup,
                      struct pk_instance_plan *ret_plan);
/* Loads it and fills its maps. program: PK_PROGRAM_TAP, or the one that tests ask. */
int pk_instance_load(struct pk_broker *broker, uint32_t tap, const struct pk_tap_setup *setup,
                     const struct pk_instance_plan *plan, int program, int *ret_fd,
                     struct pk_error *err);

/* ---- copier.c: pk_tap_copy at the interface's ingress ---- */

/* Is it there, of this build? */
bool pk_copier_is_on(struct pk_broker *broker, uint32_t tap, unsigned ifindex);
int pk_copier_attach(struct pk_broker *broker, uint32_t tap, unsigned ifindex,
                     struct pk_error *err);
/* Wherever the tap has one, but not on that interface (0 = everywhere). Absent is success. */
int pk_copier_remove(struct pk_broker *broker, uint32_t tap, unsigned but, struct pk_error *err);
/* Does the kernel keep packets of the interface back to merge them (GRO)? What it does not keep
 * back would overtake them on the way up to pk_tap_copy. */
bool pk_copier_is_merging(unsigned ifindex);
/* Copies shall come to this end of a lane with their tags in place, as redirected packets do. */
void pk_copier_keep_tags(unsigned ifindex);
/* By the name of its pin. */
bool pk_copier_is_pin(const char *name);
int pk_copier_drop(const char *pin_dir, const char *name, struct pk_error *err);

#endif
