/* SPDX-License-Identifier: Apache-2.0 */
#include "tenancy.h"

#include <stdio.h>
#include <string.h>

/* ---- tenants ---- */

static void random_prefix(struct tenancy *tenancy, struct pk_broker_prefix *to)
{
    const struct frames_flow *flow = &tenancy->flows[frames_below(&tenancy->rng, TENANCY_FLOWS)];
    unsigned bits = flow->family == 4 ? 32 : 128;
    *to = (struct pk_broker_prefix){ .family = flow->family };
    memcpy(to->address, frames_below(&tenancy->rng, 2) ? flow->src : flow->dst, bits / 8);
    to->length =
        (uint8_t)(frames_below(&tenancy->rng, 16) == 0  ? 0
                  : frames_below(&tenancy->rng, 3) == 0 ? bits
                                                        : 1 + frames_below(&tenancy->rng, bits));
}

static void random_tenant(struct tenancy *tenancy, size_t i)
{
    struct frames_rng *rng = &tenancy->rng;
    struct pk_broker_tenant *to = &tenancy->tenants[i];
    snprintf(tenancy->names[i], sizeof tenancy->names[i], "t%zu", i);
    *to = (struct pk_broker_tenant){ .name = tenancy->names[i],
                                     .vlans = tenancy->vlans[i],
                                     .vnis = tenancy->vnis[i],
                                     .gre_keys = tenancy->gre_keys[i],
                                     .erspan_sessions = tenancy->sessions[i],
                                     .prefixes = tenancy->prefixes[i] };
    if (frames_below(rng, 24) == 0)
        return; /* claims all */
    for (unsigned n = 1 + frames_below(rng, 5); n > 0; n--) {
        uint32_t number = frames_below(rng, ENCAP_NUMBERS);
        switch (frames_below(rng, 6)) {
        case 0:
            if (to->vlan_count < TENANCY_EACH)
                tenancy->vlans[i][to->vlan_count++] = (struct pk_broker_vlan){
                    (uint16_t)number, frames_below(rng, 2) ? -1 : (int)frames_below(rng, 8)
                };
            break;
        case 1:
            if (to->vni_count < TENANCY_EACH)
                tenancy->vnis[i][to->vni_count++] = number;
            break;
        case 2:
            if (to->gre_key_count < TENANCY_EACH)
                tenancy->gre_keys[i][to->gre_key_count++] = number;
            break;
        case 3:
            if (to->erspan_session_count < TENANCY_EACH)
                tenancy->sessions[i][to->erspan_session_count++] = (uint16_t)number;
            break;
        default:
            if (to->prefix_count < TENANCY_EACH)
                random_prefix(tenancy, &tenancy->prefixes[i][to->prefix_count++]);
        }
    }
}

void tenancy_random(struct tenancy *tenancy, unsigned groups)
{
    for (size_t i = 0; i < TENANCY_FLOWS; i++)
        frames_flow_random(&tenancy->rng, frames_below(&tenancy->rng, 8) == 0, &tenancy->flows[i]);
    tenancy->count = frames_below(&tenancy->rng, TENANCY_MOST + 1);
    for (size_t i = 0; i < tenancy->count; i++)
        random_tenant(tenancy, i);
    tenancy->target_count = 0;
    for (unsigned i = 0; i < groups; i++) {
        unsigned of = frames_below(&tenancy->rng, (uint32_t)tenancy->count + 2);
        tenancy->tenant_of[i] = of < tenancy->count    ? of
                                : of == tenancy->count ? TENANCY_NONE
                                                       : UINT32_MAX;
        unsigned same = 0;
        for (unsigned k = 0; k < i; k++)
            same += tenancy->tenant_of[k] == tenancy->tenant_of[i];
        if (same >= PK_BROKER_TARGETS_MAX)
            tenancy->tenant_of[i] = UINT32_MAX;
        if (tenancy->tenant_of[i] == UINT32_MAX)
            continue;
        snprintf(tenancy->group_names[i], sizeof tenancy->group_names[i], "g%u", i);
        tenancy->groups[tenancy->target_count] = tenancy->group_names[i];
        tenancy->tenant_names[tenancy->target_count++] =
            of < tenancy->count ? tenancy->names[of] : "";
    }
}

void tenancy_attach(struct tenancy *tenancy, struct plane *plane)
{
    plane_attach(plane, tenancy->tenants, tenancy->count, tenancy->groups, tenancy->tenant_names,
                 tenancy->target_count);
}

/* ---- whose is it? ---- */

struct facts {
    unsigned vlans;
    uint16_t vlan[8];
    struct encap_numbers numbers;
    const struct frames_flow *flow; /* the innermost one */
};

static bool is_in(const uint8_t *address, const struct pk_broker_prefix *prefix)
{
    for (unsigned i = 0; i < prefix->length; i++)
        if (((address[i / 8] ^ prefix->address[i / 8]) & 0x80 >> i % 8) != 0)
            return false;
    return true;
}

static bool claims(const struct pk_broker_tenant *tenant, const struct facts *facts)
{
    const struct encap_numbers *numbers = &facts->numbers;
    if (tenant->vlan_count + tenant->vni_count + tenant->gre_key_count +
            tenant->erspan_session_count + tenant->prefix_count ==
        0)
        return true;
    for (size_t i = 0; i < tenant->vlan_count; i++)
        if (facts->vlans > 0 && facts->vlan[0] == tenant->vlans[i].outer &&
            (tenant->vlans[i].inner < 0 ||
             (facts->vlans > 1 && facts->vlan[1] == tenant->vlans[i].inner)))
            return true;
    for (size_t i = 0; i < tenant->vni_count; i++)
        if (numbers->has_vni && numbers->vni == tenant->vnis[i])
            return true;
    for (size_t i = 0; i < tenant->gre_key_count; i++)
        if (numbers->has_gre_key && numbers->gre_key == tenant->gre_keys[i])
            return true;
    for (size_t i = 0; i < tenant->erspan_session_count; i++)
        if (numbers->has_session && numbers->session == tenant->erspan_sessions[i])
            return true;
    for (size_t i = 0; i < tenant->prefix_count; i++)
        if (tenant->prefixes[i].family == facts->flow->family &&
            (is_in(facts->flow->src, &tenant->prefixes[i]) ||
             is_in(facts->flow->dst, &tenant->prefixes[i])))
            return true;
    return false;
}

static unsigned whose(const struct tenancy *tenancy, const struct facts *facts)
{
    for (size_t i = 0; i < tenancy->count; i++)
        if (claims(&tenancy->tenants[i], facts))
            return (unsigned)i;
    return TENANCY_NONE;
}

/* ---- packets ---- */

static unsigned type_at(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static bool is_tag(unsigned type)
{
    return type == 0x8100 || type == 0x88a8 || type == 0x9100;
}

static bool is_tagged(const uint8_t *frame)
{
    return is_tag(type_at(frame + 12)) || type_at(frame + 12) == 0x8926;
}

static void read_tags(const uint8_t *frame, struct facts *facts)
{
    facts->vlans = 0;
    for (const uint8_t *p = frame + 12;;) {
        if (type_at(p) == 0x8926) { /* VN-Tag */
            p += 6;
        } else if (is_tag(type_at(p)) && facts->vlans < PK_ARRAY_SIZE(facts->vlan)) {
            facts->vlan[facts->vlans++] = type_at(p + 2) & 0xfff;
            p += 4;
        } else {
            return;
        }
    }
}

static void insert(struct tenancy_packet *packet, const uint8_t *tags, size_t size)
{
    memmove(packet->frame + 12 + size, packet->frame + 12, packet->len - 12);
    memcpy(packet->frame + 12, tags, size);
    packet->len += size;
}

static void finish(struct tenancy *tenancy, struct tenancy_packet *packet, struct facts *facts)
{
    read_tags(packet->frame, facts);
    packet->tenant = whose(tenancy, facts);
    memset(packet->frame + packet->len, 0, PLANE_TRAILER);
    packet->len += PLANE_TRAILER;
}

/* Puts a tunnel's headers around a packet. */
static bool wrap_one(struct tenancy *tenancy, struct tenancy_packet *packet, struct facts *facts,
                     bool may_cut, enum encap *ret_kind, struct encap_outer *ret_outer)
{
    static uint8_t room[ENCAP_ROOM];
    struct frames_rng *rng = &tenancy->rng;
    enum encap kind = (enum encap)frames_below(rng, ENCAP_COUNT);
    struct encap_numbers numbers = facts->numbers;
    struct encap_outer outer = { .id = tenancy->next_id, .numbers = &numbers };
    outer.ends = tenancy->flows[frames_below(rng, TENANCY_FLOWS)];
    outer.fragment = may_cut && encap_is_tunnel(kind) && frames_below(rng, 3) == 0;
    size_t len = encap_wrap(rng, kind, &outer, packet->frame, packet->len, room);
    if (len == 0)
        return false;
    facts->numbers = numbers;
    memcpy(packet->frame, room, len);
    packet->len = len;
    outer.numbers = NULL;
    *ret_kind = kind;
    *ret_outer = outer;
    return true;
}

/* The same headers around all parts; or around one packet, which may be cut into two then. Returns
 * how many there are. */
static size_t wrap(struct tenancy *tenancy, struct tenancy_packet packets[TENANCY_PARTS],
                   size_t count, struct facts *facts, bool may_cut)
{
    static struct tenancy_packet before[TENANCY_PARTS];
    const struct frames_rng state = tenancy->rng;
    const struct facts facts_before = *facts;
    enum encap kind;
    struct encap_outer outer;
    memcpy(before, packets, sizeof before);
    tenancy->next_id++;
    for (size_t i = 0; i < count; i++) {
        tenancy->rng = state;
        *facts = facts_before;
        if (wrap_one(tenancy, &packets[i], facts, may_cut, &kind, &outer))
            continue;
        memcpy(packets, before, sizeof before);
        *facts = facts_before;
        return count;
    }
    if (count > 1 || outer.fragment == 0)
        return count;
    packets[1].len = encap_later(&tenancy->rng, &outer, packets[0].frame, packets[1].frame);
    return 2;
}

size_t tenancy_packets(struct tenancy *tenancy, struct tenancy_packet packets[TENANCY_PARTS])
{
    struct frames_rng *rng = &tenancy->rng;
    struct facts facts = { .flow = &tenancy->flows[frames_below(rng, TENANCY_FLOWS)] };
    enum frames_kind kind = (enum frames_kind)frames_below(rng, 5);
    uint32_t id = ++tenancy->next_id;
    size_t count = kind == FRAMES_FIRST ? 2 : 1;
    bool cut = kind == FRAMES_FIRST || kind == FRAMES_LATER, reverse = frames_below(rng, 2) != 0;
    memset(packets, 0, TENANCY_PARTS * sizeof *packets);
    packets[0].len = frames_make(rng, facts.flow, kind, reverse, id, packets[0].frame);
    if (count > 1)
        packets[1].len = frames_make(rng, facts.flow, FRAMES_LATER, reverse, id, packets[1].frame);
    size_t bare = packets[0].len;
    for (unsigned n = frames_below(rng, 3); n > 0 && packets[0].len < 1200; n--) {
        count = wrap(tenancy, packets, count, &facts, !cut);
        cut |= count > 1;
    }
    /* A later fragment does not show what it may be part of, unless its first one came before it
     * with the same tags, which those that are bare have at random. */
    if (kind == FRAMES_LATER)
        packets[0].may_be_lost = true;
    if (kind == FRAMES_FIRST && (packets[0].len == bare || is_tagged(packets[0].frame)))
        packets[1].may_be_lost = is_tagged(packets[0].frame) || is_tagged(packets[1].frame);

    uint8_t tags[8] = { 0x81, 0,    0, (uint8_t)frames_below(rng, 8),
                        0x88, 0xa8, 0, (uint8_t)frames_below(rng, 8) };
    tags[4] = frames_below(rng, 2) ? 0x81 : 0x91;
    tags[5] = 0;
    size_t size = 4 * frames_below(rng, 3);
    for (size_t i = 0; i < count; i++)
        if (is_tagged(packets[i].frame))
            size = 0;
    for (size_t i = 0; i < count; i++) {
        insert(&packets[i], tags, size);
        finish(tenancy, &packets[i], &facts);
    }
    return count;
}
