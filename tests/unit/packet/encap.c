/* SPDX-License-Identifier: Apache-2.0 */
#include "encap.h"

#include <string.h>

/* Written from the end to the start, as a stack of headers is made. */
struct stack {
    struct frames_rng *rng;
    uint8_t *room;
    size_t start;  /* of what is there, which ends at ENCAP_ROOM */
    uint16_t type; /* EtherType of what is at the start; TEB = an Ethernet frame */
    struct encap_numbers numbers;
    bool are_few; /* numbers are below ENCAP_NUMBERS */
};
#define TEB 0x6558

static size_t size_of(const struct stack *stack)
{
    return ENCAP_ROOM - stack->start;
}

static uint8_t *push(struct stack *stack, size_t size)
{
    stack->start -= size;
    return memset(stack->room + stack->start, 0, size);
}

static void set16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void randomise(struct stack *stack, uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i++)
        p[i] = (uint8_t)frames_next(stack->rng);
}

static uint8_t *push_random(struct stack *stack, size_t size)
{
    uint8_t *p = push(stack, size);
    randomise(stack, p, size);
    return p;
}

static bool flip(struct stack *stack)
{
    return frames_below(stack->rng, 2) != 0;
}

static void push_ethernet(struct stack *stack)
{
    static const uint8_t starts[] = { 0x00, 0x02, 0x1c, 0x45, 0x4f, 0x60, 0x68, 0xb8 };
    uint8_t *p = push(stack, 14);
    randomise(stack, p, 12);
    p[0] = starts[frames_below(stack->rng, sizeof starts)];
    /* Under MPLS an address may be one that reads as an IP header with the packet's very length;
     * the parser cannot know better then. */
    p[2] |= 0x80;
    p[4] |= 0x80;
    p[6] = 2; /* never one that bytes 12 and 13 could be taken for */
    p[8] = 3;
    set16(p + 12, stack->type);
    stack->type = TEB;
}

static void push_tag(struct stack *stack)
{
    static const uint16_t tags[] = { 0x8100, 0x88a8, 0x9100 };
    uint8_t *p = push(stack, 4);
    set16(p, frames_below(stack->rng, 4096));
    set16(p + 2, stack->type);
    stack->type = tags[frames_below(stack->rng, 3)];
}

static void push_labels(struct stack *stack)
{
    for (unsigned n = 1 + frames_below(stack->rng, 4), i = 0; i < n; i++) {
        uint8_t *p = push(stack, 4);
        randomise(stack, p, 4);
        p[2] = (uint8_t)((p[2] & 0xfe) | (i == 0));
    }
    stack->type = 0x8847;
}

/* A tunnel's number of some bytes, of which p has the last one. */
static uint32_t number(struct stack *stack, uint8_t *p, size_t size)
{
    uint32_t value = 0;
    randomise(stack, p - size + 1, size);
    if (stack->are_few) {
        memset(p - size + 1, 0, size);
        *p = (uint8_t)frames_below(stack->rng, ENCAP_NUMBERS);
    }
    for (size_t i = 0; i < size; i++)
        value = value << 8 | p[i - size + 1];
    return value;
}

static void push_ip(struct stack *stack, const struct encap_outer *outer, uint8_t protocol)
{
    size_t payload = size_of(stack);
    if (outer->ends.family == 4) {
        uint8_t *p = push(stack, 20);
        p[0] = 0x45;
        set16(p + 2, (unsigned)(payload + 20));
        set16(p + 4, outer->id & 0xffff);
        p[6] = outer->fragment == 1 ? 0x20 : outer->fragment == 2 ? 0x01 : 0x40;
        p[8] = 64;
        p[9] = protocol;
        memcpy(p + 12, outer->ends.src, 4);
        memcpy(p + 16, outer->ends.dst, 4);
        stack->type = 0x0800;
        return;
    }
    if (outer->fragment != 0) {
        uint8_t *p = push(stack, 8);
        p[0] = protocol;
        p[2] = outer->fragment == 2;
        p[3] = outer->fragment == 1;
        set16(p + 4, outer->id >> 16);
        set16(p + 6, outer->id & 0xffff);
        protocol = 44;
        payload += 8;
    }
    uint8_t *p = push(stack, 40);
    p[0] = 0x60;
    set16(p + 4, (unsigned)payload);
    p[6] = protocol;
    p[7] = 64;
    memcpy(p + 8, outer->ends.src, 16);
    memcpy(p + 24, outer->ends.dst, 16);
    stack->type = 0x86dd;
}

static void push_udp(struct stack *stack, const struct encap_outer *outer, uint16_t port)
{
    size_t size = size_of(stack) + 8;
    uint8_t *p = push(stack, 8);
    set16(p, outer->ends.sport);
    set16(p + 2, port);
    set16(p + 4, (unsigned)size);
    push_ip(stack, outer, 17);
}

/* GRE with any of checksum, routes, key; sequence: 0 or 1, else at random. */
static void push_gre_header(struct stack *stack, uint16_t type, unsigned sequence)
{
    unsigned flags = 0;
    if (frames_below(stack->rng, 8) == 0) {
        flags |= 0x4000;
        push(stack, 4);
        for (unsigned n = frames_below(stack->rng, 3); n > 0; n--) {
            unsigned size = 1 + frames_below(stack->rng, 12);
            push_random(stack, size);
            uint8_t *route = push(stack, 4);
            set16(route, 0x0800);
            route[3] = (uint8_t)size;
        }
    }
    if (sequence > 1 ? flip(stack) : sequence != 0) {
        flags |= 0x1000;
        push_random(stack, 4);
    }
    if (flip(stack)) {
        flags |= 0x2000;
        stack->numbers.has_gre_key = true;
        stack->numbers.gre_key = number(stack, push(stack, 4) + 3, 4);
    }
    if (flip(stack))
        flags |= 0x8000;
    if ((flags & 0xc000) != 0)
        push_random(stack, 4);
    uint8_t *p = push(stack, 4);
    set16(p, flags);
    set16(p + 2, type);
}

static void push_gre(struct stack *stack, const struct encap_outer *outer, uint16_t type,
                     unsigned sequence)
{
    push_gre_header(stack, type, sequence);
    push_ip(stack, outer, 47);
}

static void push_ayiya(struct stack *stack, const struct encap_outer *outer)
{
    unsigned id = frames_below(stack->rng, 7), signature = frames_below(stack->rng, 8);
    push_random(stack, (1u << id) + signature * 4);
    uint8_t *p = push_random(stack, 8);
    p[0] = (uint8_t)(id << 4 | (p[0] & 15));
    p[1] = (uint8_t)(signature << 4 | (p[1] & 15));
    p[2] = (uint8_t)((p[2] & 0xf0) | 1);
    p[3] = stack->type == 0x0800 ? 4 : 41;
    push_udp(stack, outer, 5072);
}

static void push_gtp(struct stack *stack, const struct encap_outer *outer)
{
    size_t payload = size_of(stack);
    unsigned flags = 0x30 | frames_below(stack->rng, 8);
    if ((flags & 7) != 0) {
        uint8_t next = 0;
        if ((flags & 4) != 0) {
            for (unsigned n = frames_below(stack->rng, 3); n > 0; n--) {
                unsigned words = 1 + frames_below(stack->rng, 3);
                uint8_t *p = push(stack, words * 4);
                randomise(stack, p, words * 4);
                p[0] = (uint8_t)words;
                p[words * 4 - 1] = next;
                next = 0x85;
            }
        }
        uint8_t *p = push(stack, 4);
        randomise(stack, p, 3);
        p[3] = next;
    }
    payload = size_of(stack);
    uint8_t *p = push(stack, 8);
    p[0] = (uint8_t)flags;
    p[1] = 0xff;
    set16(p + 2, (unsigned)payload);
    randomise(stack, p + 4, 4);
    push_udp(stack, outer, 2152);
}

static void push_geneve(struct stack *stack, const struct encap_outer *outer)
{
    unsigned words = flip(stack) ? 0 : frames_below(stack->rng, 16);
    push_random(stack, words * 4);
    uint8_t *p = push(stack, 8);
    p[0] = (uint8_t)words;
    p[1] = flip(stack) ? 0x40 : 0;
    set16(p + 2, stack->type);
    stack->numbers.has_vni = true;
    stack->numbers.vni = number(stack, p + 6, 3);
    push_udp(stack, outer, 6081);
}

static void push_teredo(struct stack *stack, const struct encap_outer *outer)
{
    if (flip(stack)) /* origin */
        set16(push_random(stack, 8), 0);
    if (flip(stack)) { /* authentication */
        unsigned id = frames_below(stack->rng, 5), value = frames_below(stack->rng, 5);
        push_random(stack, 9 + id + value);
        uint8_t *p = push(stack, 4);
        p[1] = 1;
        p[2] = (uint8_t)id;
        p[3] = (uint8_t)value;
    }
    push_udp(stack, outer, 3544);
}

static void push_pptp(struct stack *stack, const struct encap_outer *outer)
{
    uint8_t *p;
    if (flip(stack)) {
        push(stack, 1)[0] = stack->type == 0x0800 ? 0x21 : 0x57;
    } else {
        set16(push(stack, 2), stack->type == 0x0800 ? 0x21 : 0x57);
        if (flip(stack))
            set16(push(stack, 2), 0xff03);
    }
    size_t payload = size_of(stack);
    bool acknowledges = flip(stack);
    push_random(stack, acknowledges ? 8 : 4);
    p = push(stack, 8);
    set16(p, acknowledges ? 0x3081 : 0x3001);
    set16(p + 2, 0x880b);
    set16(p + 4, (unsigned)payload);
    randomise(stack, p + 6, 2);
    push_ip(stack, outer, 47);
}

static void session(struct stack *stack, uint8_t *p)
{
    if (stack->are_few)
        set16(p, frames_below(stack->rng, 64) << 10 | frames_below(stack->rng, ENCAP_NUMBERS));
    stack->numbers.has_session = true;
    stack->numbers.session = (uint16_t)((p[0] & 3) << 8 | p[1]);
}

static void push_erspan3(struct stack *stack, const struct encap_outer *outer)
{
    bool more = flip(stack);
    if (more)
        push_random(stack, 8);
    uint8_t *p = push(stack, 12);
    randomise(stack, p, 12);
    p[0] = (uint8_t)(0x20 | (p[0] & 15));
    session(stack, p + 2);
    p[10] &= 0x83; /* an Ethernet frame */
    p[11] = (uint8_t)((p[11] & 0xfe) | more);
    push_gre(stack, outer, 0x22eb, 1);
}

static void push_vxlan(struct stack *stack, const struct encap_outer *outer, bool is_gpe)
{
    uint8_t *p = push(stack, 8);
    stack->numbers.has_vni = true;
    stack->numbers.vni = number(stack, p + 6, 3);
    p[0] = is_gpe ? 0x0c : 0x08;
    if (is_gpe)
        p[3] = stack->type == 0x0800 ? 1 : stack->type == 0x86dd ? 2 : stack->type == TEB ? 3 : 5;
    push_udp(stack, outer, is_gpe ? 4790 : flip(stack) ? 4789 : 8472);
}

static bool is_ip(const struct stack *stack)
{
    return stack->type == 0x0800 || stack->type == 0x86dd;
}

/* The header at the start is Ethernet's: takes it off, so that type is that of what is in it. */
static void pop_ethernet(struct stack *stack)
{
    const uint8_t *p = stack->room + stack->start;
    stack->type = (uint16_t)(p[12] << 8 | p[13]);
    stack->start += 14;
}

const char *encap_name(enum encap kind)
{
    static const char *const names[] = {
#define ENCAP_NAME(id, name) name,
        ENCAPS(ENCAP_NAME)
#undef ENCAP_NAME
    };
    return names[kind];
}

bool encap_is_tunnel(enum encap kind)
{
    return kind > ENCAP_PPPOE;
}

size_t encap_wrap(struct frames_rng *rng, enum encap kind, const struct encap_outer *outer,
                  const uint8_t *frame, size_t len, uint8_t out[ENCAP_ROOM])
{
    static uint8_t room[ENCAP_ROOM];
    struct stack made = { .rng = rng, .room = room, .start = ENCAP_ROOM - len, .type = TEB };
    struct stack *stack = &made;
    made.are_few = outer->numbers != NULL;
    memcpy(room + made.start, frame, len);

    /* What goes in: an Ethernet frame, an IP packet, or either. */
    bool as_ethernet = kind == ENCAP_PBB || kind == ENCAP_FABRIC || kind == ENCAP_MPLS_ETH ||
                       kind == ENCAP_MPLS_CW || kind == ENCAP_GRE_ETH || kind == ENCAP_ETHERIP ||
                       kind == ENCAP_VXLAN || (kind >= ENCAP_ERSPAN1 && kind <= ENCAP_ERSPAN3) ||
                       ((kind == ENCAP_GENEVE || kind == ENCAP_VXLAN_GPE) && flip(stack));
    pop_ethernet(stack);
    if (as_ethernet)
        push_ethernet(stack);
    else if (!is_ip(stack) && kind != ENCAP_VLAN3 && kind != ENCAP_VNTAG && kind != ENCAP_GRE &&
             kind != ENCAP_GENEVE)
        return 0;
    switch (kind) {
    case ENCAP_VLAN3:
        if (!is_ip(stack))
            return 0; /* it may have tags already */
        push_tag(stack);
        push_tag(stack);
        push_tag(stack);
        break;
    case ENCAP_VNTAG: {
        uint8_t *p = push_random(stack, 6);
        set16(p + 4, stack->type);
        stack->type = 0x8926;
        break;
    }
    case ENCAP_PBB:
        push_random(stack, 4);
        stack->type = 0x88e7;
        break;
    case ENCAP_FABRIC:
        push_random(stack, 2);
        stack->type = 0x8903;
        break;
    case ENCAP_MPLS_CW:
        if (size_of(stack) < 60)
            return 0;
        push_random(stack, 4)[0] = 0;
        push_labels(stack);
        break;
    case ENCAP_MPLS:
    case ENCAP_MPLS_ETH:
        /* Short frames are padded before they get into a pseudowire. */
        if (kind == ENCAP_MPLS_ETH && size_of(stack) < 60)
            return 0;
        push_labels(stack);
        break;
    case ENCAP_PPPOE: {
        size_t size = size_of(stack) + 2;
        uint8_t *p = push(stack, 8);
        p[0] = 0x11;
        set16(p + 2, 7);
        set16(p + 4, (unsigned)size);
        set16(p + 6, stack->type == 0x0800 ? 0x21 : 0x57);
        stack->type = 0x8864;
        break;
    }
    case ENCAP_IPIP:
        push_ip(stack, outer, stack->type == 0x0800 ? 4 : 41);
        break;
    case ENCAP_AH: {
        uint8_t next = stack->type == 0x0800 ? 4 : 41;
        uint8_t *p = push_random(stack, 24);
        p[0] = next;
        p[1] = 4;
        push_ip(stack, outer, 51);
        break;
    }
    case ENCAP_GRE:
    case ENCAP_GRE_ETH:
        push_gre(stack, outer, stack->type, 2);
        break;
    case ENCAP_GRE_MPLS:
        push_labels(stack);
        push_gre(stack, outer, stack->type, 2);
        break;
    case ENCAP_PPTP:
        push_pptp(stack, outer);
        break;
    case ENCAP_ERSPAN1:
        push_gre(stack, outer, 0x88be, 0);
        break;
    case ENCAP_ERSPAN2: {
        uint8_t *p = push_random(stack, 8);
        p[0] = (uint8_t)(0x10 | (p[0] & 15));
        session(stack, p + 2);
        push_gre(stack, outer, 0x88be, 1);
        break;
    }
    case ENCAP_ERSPAN3:
        push_erspan3(stack, outer);
        break;
    case ENCAP_VXLAN:
    case ENCAP_VXLAN_GPE:
        push_vxlan(stack, outer, kind == ENCAP_VXLAN_GPE);
        break;
    case ENCAP_GENEVE:
        push_geneve(stack, outer);
        break;
    case ENCAP_GTP:
        push_gtp(stack, outer);
        break;
    case ENCAP_TEREDO:
        if (stack->type != 0x86dd)
            return 0;
        push_teredo(stack, outer);
        break;
    case ENCAP_ETHERIP:
        push(stack, 2)[0] = 0x30;
        push_ip(stack, outer, 97);
        break;
    case ENCAP_MPLS_UDP:
        push_labels(stack);
        push_udp(stack, outer, 6635);
        break;
    case ENCAP_GRE_UDP:
        push_gre_header(stack, stack->type, 2);
        push_udp(stack, outer, 4754);
        break;
    case ENCAP_AYIYA:
        push_ayiya(stack, outer);
        break;
    case ENCAP_COUNT:
        return 0;
    }
    push_ethernet(stack);
    const struct encap_numbers *numbers = &made.numbers;
    if (made.are_few && (numbers->has_vni || numbers->has_gre_key || numbers->has_session))
        *outer->numbers = *numbers;
    memcpy(out, room + made.start, size_of(stack));
    return size_of(stack);
}

size_t encap_later(struct frames_rng *rng, const struct encap_outer *outer, const uint8_t *first,
                   uint8_t out[ENCAP_ROOM])
{
    uint8_t protocol = outer->ends.family == 4 ? first[14 + 9] : first[14 + 40];
    static uint8_t room[ENCAP_ROOM];
    struct stack stack = { .rng = rng, .room = room, .start = ENCAP_ROOM };
    struct encap_outer later = *outer;
    later.fragment = 2;
    push_random(&stack, 8 + frames_below(rng, 200));
    push_ip(&stack, &later, protocol);
    push_ethernet(&stack);
    memcpy(out, room + stack.start, size_of(&stack));
    return size_of(&stack);
}

size_t encap_any(struct frames_rng *rng, uint8_t out[ENCAP_ROOM])
{
    static uint8_t room[ENCAP_ROOM];
    struct frames_flow flow;
    bool is_bent = frames_below(rng, 4) != 0;
    frames_flow_random(rng, frames_below(rng, 8) == 0, &flow);
    /* The kinds with more parts are bent in more ways; plain packets in few. */
    size_t len = frames_make(rng, &flow, (enum frames_kind)frames_below(rng, 5), false,
                             frames_below(rng, 100), out);
    for (unsigned n = frames_below(rng, 4); n > 0 && len < 1200; n--) {
        struct encap_outer outer = { .id = frames_below(rng, 100),
                                     .fragment = frames_below(rng, 8) == 0 };
        frames_flow_random(rng, false, &outer.ends);
        if (is_bent && frames_below(rng, 4) == 0)
            len = frames_mutate(rng, out, len);
        size_t more = len < 15 ? 0
                               : encap_wrap(rng, (enum encap)frames_below(rng, ENCAP_COUNT), &outer,
                                            out, len, room);
        if (more == 0)
            continue;
        len = more;
        memcpy(out, room, len);
    }
    if (frames_below(rng, 256) == 0 && len >= 12 && len + 16 <= ENCAP_ROOM) {
        /* More tags than are read. */
        memmove(out + 28, out + 12, len - 12);
        for (size_t at = 12; at < 28; at += 4)
            memcpy(out + at, "\x81\x00\x00\x07", 4);
        len += 16;
    }
    return is_bent ? frames_mutate(rng, out, len) : len;
}
