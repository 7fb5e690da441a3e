/* SPDX-License-Identifier: Apache-2.0 */
/* A tap's tenants: checked, put in order for the kernel's maps, and asked in user space. */
#ifndef PICKET_BROKER_TENANTS_H
#define PICKET_BROKER_TENANTS_H

#include "broker/bpf/abi.h"
#include "broker/broker.h"

struct pk_fragment_memory;
struct pk_flow;

/* What is told by a number; sorted, each once, with the first tenant that has it. */
struct pk_tenant_number {
    uint32_t kind; /* PK_BY_* */
    uint32_t number;
    uint32_t tenant;
};
/* Sorted so that what covers a prefix comes before it. */
struct pk_tenant_prefix {
    uint8_t family;
    uint8_t bits;
    uint8_t address[16];
    uint32_t tenant; /* the first one of which a prefix covers all of this one */
};

struct pk_tenants {
    char (*names)[PK_BROKER_TENANT_NAME];
    size_t count;
    struct pk_tenant_number *numbers;
    size_t number_count;
    struct pk_tenant_prefix *prefixes;
    size_t prefix_count;
    struct pk_tenants_shape shape;
};

/* PK_E_INVALID: a tenant makes no sense. */
int pk_tenants_new(const struct pk_broker_tenant *tenants, size_t count,
                   struct pk_tenants **ret_tenants, struct pk_error *err);
void pk_tenants_free(struct pk_tenants *tenants);
/* Once, before it is used: the list is this tap's. What fragments leave is then the tap's alone,
 * for other taps may see the same addresses, of others. */
void pk_tenants_set_tap(struct pk_tenants *tenants, uint32_t tap);
PK_DEFINE_CLEANUP(struct pk_tenants, pk_tenants_free);
/* The number of a tenant; "" and NULL = PK_TENANT_NONE; -1 = there is none of that name. */
int pk_tenants_find(const struct pk_tenants *tenants, const char *name);
/* Whose is the packet of this flow (the innermost one)? As packet/tenant.h. */
unsigned pk_tenants_of(struct pk_tenants *tenants, struct pk_fragment_memory *memory,
                       const struct pk_flow *flow);

#endif
