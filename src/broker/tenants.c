/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/tenants.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "packet/flow.h"

/* Selectors of one tap. Far more than any site has; what is beyond it is a mistake. */
#define SELECTORS_MAX 65536u

void pk_tenants_free(struct pk_tenants *tenants)
{
    if (tenants == NULL)
        return;
    pk_free(tenants->names);
    pk_free(tenants->numbers);
    pk_free(tenants->prefixes);
    pk_free(tenants);
}

int pk_tenants_find(const struct pk_tenants *tenants, const char *name)
{
    if (name == NULL || name[0] == '\0')
        return PK_TENANT_NONE;
    for (size_t i = 0; i < tenants->count; i++)
        if (strcmp(tenants->names[i], name) == 0)
            return (int)i;
    return -1;
}

/* ---- numbers ---- */

static int by_number(const void *a, const void *b)
{
    const struct pk_tenant_number *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return x->tenant < y->tenant ? -1 : x->tenant > y->tenant;
}

static int add_number(struct pk_tenants *tenants, uint32_t kind, uint32_t number, uint32_t limit,
                      uint32_t tenant, struct pk_error *err)
{
    if (number > limit)
        return pk_fail(err, PK_E_INVALID, "tenant %s: %u is more than %u", tenants->names[tenant],
                       number, limit);
    tenants->numbers[tenants->number_count++] = (struct pk_tenant_number){ kind, number, tenant };
    tenants->shape.kinds |= kind;
    return 0;
}

static int add_numbers(struct pk_tenants *tenants, const struct pk_broker_tenant *from,
                       uint32_t tenant, struct pk_error *err)
{
    int r = 0;
    for (size_t i = 0; i < from->vlan_count && r >= 0; i++) {
        const struct pk_broker_vlan *vlan = &from->vlans[i];
        if (vlan->inner > 4095 || vlan->inner < -1 || vlan->outer > 4095)
            r = pk_fail(err, PK_E_INVALID, "tenant %s: a VLAN's id is at most 4095", from->name);
        else if (vlan->inner < 0)
            r = add_number(tenants, PK_BY_VLAN, vlan->outer, 4095, tenant, err);
        else
            r = add_number(tenants, PK_BY_QINQ, (uint32_t)vlan->outer << 16 | (uint32_t)vlan->inner,
                           UINT32_MAX, tenant, err);
    }
    for (size_t i = 0; i < from->vni_count && r >= 0; i++)
        r = add_number(tenants, PK_BY_VNI, from->vnis[i], 0xffffff, tenant, err);
    for (size_t i = 0; i < from->gre_key_count && r >= 0; i++)
        r = add_number(tenants, PK_BY_GRE_KEY, from->gre_keys[i], UINT32_MAX, tenant, err);
    for (size_t i = 0; i < from->erspan_session_count && r >= 0; i++)
        r = add_number(tenants, PK_BY_ERSPAN, from->erspan_sessions[i], 1023, tenant, err);
    return r;
}

static void sort_numbers(struct pk_tenants *tenants)
{
    size_t kept = 0;
    if (tenants->number_count > 1)
        qsort(tenants->numbers, tenants->number_count, sizeof *tenants->numbers, by_number);
    for (size_t i = 0; i < tenants->number_count; i++)
        if (kept == 0 || tenants->numbers[kept - 1].kind != tenants->numbers[i].kind ||
            tenants->numbers[kept - 1].number != tenants->numbers[i].number)
            tenants->numbers[kept++] = tenants->numbers[i];
    tenants->number_count = kept;
}

/* ---- prefixes ---- */

static bool covers(const struct pk_tenant_prefix *prefix, uint8_t family, const uint8_t *address)
{
    size_t whole = prefix->bits / 8, rest = prefix->bits % 8;
    return prefix->family == family && memcmp(prefix->address, address, whole) == 0 &&
           (rest == 0 || ((prefix->address[whole] ^ address[whole]) >> (8 - rest)) == 0);
}

static int by_prefix(const void *a, const void *b)
{
    const struct pk_tenant_prefix *x = a, *y = b;
    if (x->family != y->family)
        return x->family < y->family ? -1 : 1;
    int r = memcmp(x->address, y->address, sizeof x->address);
    if (r != 0)
        return r;
    if (x->bits != y->bits)
        return x->bits < y->bits ? -1 : 1;
    return x->tenant < y->tenant ? -1 : x->tenant > y->tenant;
}

static int add_prefixes(struct pk_tenants *tenants, const struct pk_broker_tenant *from,
                        uint32_t tenant, struct pk_error *err)
{
    for (size_t i = 0; i < from->prefix_count; i++) {
        const struct pk_broker_prefix *prefix = &from->prefixes[i];
        if ((prefix->family != 4 && prefix->family != 6) ||
            prefix->length > (prefix->family == 4 ? 32 : 128))
            return pk_fail(err, PK_E_INVALID, "tenant %s: prefix %zu is none", from->name, i);
        struct pk_tenant_prefix *to = &tenants->prefixes[tenants->prefix_count++];
        *to = (struct pk_tenant_prefix){ .family = prefix->family,
                                         .bits = prefix->length,
                                         .tenant = tenant };
        for (unsigned bit = 0; bit < prefix->length; bit++)
            to->address[bit / 8] |= (uint8_t)(prefix->address[bit / 8] & 0x80u >> bit % 8);
        tenants->shape.kinds |= prefix->family == 4 ? PK_BY_PREFIX4 : PK_BY_PREFIX6;
    }
    return 0;
}

/* The kernel finds the longest prefix, so each one has the first tenant of all that cover it. */
static void sort_prefixes(struct pk_tenants *tenants)
{
    if (tenants->prefix_count > 1)
        qsort(tenants->prefixes, tenants->prefix_count, sizeof *tenants->prefixes, by_prefix);
    const struct pk_tenant_prefix *around[129]; /* each covers the next */
    size_t depth = 0, kept = 0;
    for (size_t i = 0; i < tenants->prefix_count; i++) {
        struct pk_tenant_prefix prefix = tenants->prefixes[i];
        while (depth > 0 && !covers(around[depth - 1], prefix.family, prefix.address))
            depth--;
        if (depth > 0 && around[depth - 1]->tenant < prefix.tenant)
            prefix.tenant = around[depth - 1]->tenant;
        if (depth > 0 && around[depth - 1]->bits == prefix.bits)
            continue; /* the same again, of a later tenant */
        tenants->prefixes[kept] = prefix;
        around[depth++] = &tenants->prefixes[kept++];
    }
    tenants->prefix_count = kept;
}

/* ---- all of them ---- */

static size_t selectors(const struct pk_broker_tenant *tenant)
{
    return tenant->vlan_count + tenant->vni_count + tenant->gre_key_count +
           tenant->erspan_session_count + tenant->prefix_count;
}

static int add_tenant(struct pk_tenants *tenants, const struct pk_broker_tenant *from,
                      struct pk_error *err)
{
    uint32_t tenant = (uint32_t)tenants->count;
    if (from->name == NULL || from->name[0] == '\0' ||
        strlen(from->name) >= PK_BROKER_TENANT_NAME || pk_tenants_find(tenants, from->name) >= 0)
        return pk_fail(err, PK_E_INVALID, "a tenant's name has 1 to %u bytes, and is there once",
                       PK_BROKER_TENANT_NAME - 1);
    memcpy(tenants->names[tenant], from->name, strlen(from->name));
    tenants->count++;
    struct pk_tenants_shape *shape = &tenants->shape;
    if (selectors(from) == 0 && shape->everything == PK_TENANT_NONE)
        shape->everything = tenant;
    if (from->vni_count + from->gre_key_count + from->erspan_session_count + from->prefix_count >
            0 &&
        shape->inside == PK_TENANT_NONE)
        shape->inside = tenant;
    int r = add_numbers(tenants, from, tenant, err);
    return r < 0 ? r : add_prefixes(tenants, from, tenant, err);
}

static uint32_t sum(uint32_t sum, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ ((const uint8_t *)data)[i]) * 0x01000193u; /* FNV-1a */
    return sum;
}

/* Fragments that another list of tenants has left are not to be misread. */
static uint32_t identity(const struct pk_tenants *tenants)
{
    uint32_t id = sum(0x811c9dc5u, &tenants->shape, sizeof tenants->shape);
    id = sum(id, tenants->names, tenants->count * sizeof tenants->names[0]);
    id = sum(id, tenants->numbers, tenants->number_count * sizeof tenants->numbers[0]);
    for (size_t i = 0; i < tenants->prefix_count; i++) {
        const struct pk_tenant_prefix *prefix = &tenants->prefixes[i];
        id = sum(id, &prefix->family, 1);
        id = sum(id, &prefix->bits, 1);
        id = sum(id, prefix->address, sizeof prefix->address);
        id = sum(id, &prefix->tenant, sizeof prefix->tenant);
    }
    return id != 0 ? id : 1;
}

int pk_tenants_new(const struct pk_broker_tenant *from, size_t count,
                   struct pk_tenants **ret_tenants, struct pk_error *err)
{
    size_t all = 0;
    if (count > PK_BROKER_TENANTS_MAX)
        return pk_fail(err, PK_E_NOSPACE, "%zu tenants: %u are the most of a tap", count,
                       PK_BROKER_TENANTS_MAX);
    for (size_t i = 0; i < count; i++) {
        all += selectors(&from[i]);
        if (all > SELECTORS_MAX) {
            pk_fail(err, PK_E_NOSPACE, "tenants have more than %u selectors", SELECTORS_MAX);
            return pk_hint(err, "join prefixes into shorter ones");
        }
    }
    PK_CLEANUP(pk_tenants_free_p) struct pk_tenants *tenants = pk_zalloc(sizeof *tenants);
    if (tenants == NULL)
        return pk_no_memory(err);
    tenants->names = pk_zalloc_array(count + 1, sizeof *tenants->names);
    tenants->numbers = pk_zalloc_array(all + 1, sizeof *tenants->numbers);
    tenants->prefixes = pk_zalloc_array(all + 1, sizeof *tenants->prefixes);
    if (tenants->names == NULL || tenants->numbers == NULL || tenants->prefixes == NULL)
        return pk_no_memory(err);
    tenants->shape.everything = PK_TENANT_NONE;
    tenants->shape.inside = PK_TENANT_NONE;
    for (size_t i = 0; i < count; i++) {
        int r = add_tenant(tenants, &from[i], err);
        if (r < 0)
            return r;
    }
    sort_numbers(tenants);
    sort_prefixes(tenants);
    tenants->shape.id = identity(tenants);
    *ret_tenants = PK_TAKE(tenants);
    return 0;
}

void pk_tenants_set_tap(struct pk_tenants *tenants, uint32_t tap)
{
    uint32_t id = sum(tenants->shape.id, &tap, sizeof tap);
    tenants->shape.id = id != 0 ? id : 1;
}

/* ---- the same question in user space ---- */

#include "packet/fragment_memory.h"
#include "packet/tenant.h"

PK_INLINE __u32 pk_tenant_by_number(struct pk_tenants *tenants, __u32 kind, __u32 number)
{
    const struct pk_tenant_number key = { kind, number, 0 };
    size_t low = 0, high = tenants->number_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (by_number(&tenants->numbers[middle], &key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < tenants->number_count && tenants->numbers[low].kind == kind &&
                   tenants->numbers[low].number == number
               ? tenants->numbers[low].tenant
               : PK_TENANT_NONE;
}

PK_INLINE __u32 pk_tenant_by_address(struct pk_tenants *tenants, __u32 family,
                                     const __u64 address[2])
{
    __u32 first = PK_TENANT_NONE;
    for (size_t i = 0; i < tenants->prefix_count; i++)
        if (tenants->prefixes[i].tenant < first &&
            covers(&tenants->prefixes[i], (uint8_t)family, (const uint8_t *)address))
            first = tenants->prefixes[i].tenant;
    return first;
}

unsigned pk_tenants_of(struct pk_tenants *tenants, struct pk_fragment_memory *memory,
                       const struct pk_flow *flow)
{
    return pk_tenant_of(memory, tenants, &tenants->shape, flow);
}
