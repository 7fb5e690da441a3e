/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The end of mirrors' tunnels: is a frame one of those that are sent to this machine in a tunnel of
 * the wanted kinds, and where does the frame in it begin? The headers are read by the one parser
 * (packet/step.h); everything else that comes in on the interface is the machine's own. One source
 * for the BPF programs and user space.
 */
#ifndef PICKET_PACKET_TUNNEL_H
#define PICKET_PACKET_TUNNEL_H

#include <linux/types.h>

#include "packet/parse.h"

#define PK_TUNNEL_IS_VXLAN  1u
#define PK_TUNNEL_IS_GENEVE 2u
#define PK_TUNNEL_IS_GRE    4u
#define PK_TUNNEL_IS_ERSPAN 8u

#define PK_TUNNEL_ENDS 64u

struct pk_tunnel_end {
    __u64 address[2]; /* as in struct pk_flow */
    __u32 family;     /* 4 or 6 */
    __u32 reserved;
};

struct pk_tunnel_rules {
    __u32 types; /* PK_TUNNEL_IS_*; 0 = this is no tunnel tap */
    __u16 port;  /* network order, of VXLAN or GENEVE; 0 = the registered ones */
    __u16 keep;  /* outer headers stay */
    __u32 end_count;
    __u32 reserved;
    struct pk_tunnel_end ends[PK_TUNNEL_ENDS];
};

enum pk_tunnel_verdict {
    PK_TUNNEL_OTHER, /* not the mirror's: for the machine */
    PK_TUNNEL_BAD,   /* sent to a tunnel here, but contradicts itself: for the machine, counted */
    PK_TUNNEL_FIRST, /* first fragment of a tunnel's datagram, which cannot be put together here */
    PK_TUNNEL_LATER, /* another fragment, of whatever: as the first one went */
    PK_TUNNEL_FRAME, /* a whole frame or packet */
};

/* What a cheap look tells apart: most of what a machine gets is TCP. */
PK_INLINE int pk_tunnel_is_other(const __u8 *p, const __u8 *end)
{
    if (p + 34 > end)
        return 0;
    __u16 type = PK_LOAD(__u16, p + 12);
    __u8 protocol = type == PK_BE16(0x0800) ? p[23] : p[20];
    return (type == PK_BE16(0x0800) || type == PK_BE16(0x86dd)) &&
           (protocol == 6 || protocol == 1 || protocol == 58);
}

PK_INLINE void pk_tunnel_begin(struct pk_parser *parser, const struct pk_tunnel_rules *rules,
                               __u32 size)
{
    pk_parse_begin(parser, size, PK_HASH_FLOW);
    parser->until_frame = 1;
    parser->until_port = rules->port;
    parser->until_next =
        (rules->types & PK_TUNNEL_IS_GENEVE) != 0 ? (__u32)PK_NEXT_GENEVE : (__u32)PK_NEXT_VXLAN;
    if (rules->port == 0)
        parser->until_port = PK_BE16(4789); /* which is one anyway */
    if (rules->port == 0)
        parser->until_next = PK_NEXT_VXLAN;
    parser->port = 0;
    parser->after = PK_NEXT_NONE;
}

PK_INLINE int pk_tunnel_is_end(const struct pk_tunnel_rules *rules, const struct pk_flow *flow)
{
    for (__u32 i = 0; i < PK_TUNNEL_ENDS && i < rules->end_count; i++) {
        const struct pk_tunnel_end *end = &rules->ends[i];
        if (end->family == flow->family && end->address[0] == flow->dst[0] &&
            end->address[1] == flow->dst[1])
            return 1;
    }
    return 0;
}

/* Of the tunnel whose header the parser read last; 0 = of none that is wanted. */
PK_INLINE __u32 pk_tunnel_type(const struct pk_parser *parser, const struct pk_tunnel_rules *rules)
{
    __u32 types = rules->types;
    switch (parser->next) {
    case PK_NEXT_VXLAN:
    case PK_NEXT_VXLAN_GPE:
        if (parser->port == (rules->port != 0 ? rules->port : PK_BE16(4789)))
            return types & PK_TUNNEL_IS_VXLAN;
        return 0;
    case PK_NEXT_GENEVE:
        if (parser->port == (rules->port != 0 ? rules->port : PK_BE16(6081)))
            return types & PK_TUNNEL_IS_GENEVE;
        return 0;
    case PK_NEXT_ERSPAN:
        return types & PK_TUNNEL_IS_ERSPAN;
    case PK_NEXT_PROTOCOL(47):
    case PK_NEXT_GRE_ROUTE:
        if (parser->port != 0) /* GRE in UDP, which no mirror sends */
            return 0;
        /* ERSPAN I is nothing but a type of GRE; of one that cannot be read it may be either. */
        if (parser->after == PK_NEXT_NONE)
            return types & (PK_TUNNEL_IS_GRE | PK_TUNNEL_IS_ERSPAN);
        return types & (parser->after == PK_NEXT_ETHERNET ? PK_TUNNEL_IS_ERSPAN : PK_TUNNEL_IS_GRE);
    default:
        return 0;
    }
}

/* Is it something that a tool can read? GRE also carries routers' talk among themselves. */
PK_INLINE int pk_tunnel_is_payload(__u32 after)
{
    switch (after) {
    case PK_NEXT_ETHERNET:
    case PK_NEXT_IP:
    case PK_NEXT_TYPE(0x6558):
    case PK_NEXT_TYPE(0x0800):
    case PK_NEXT_TYPE(0x86dd):
    case PK_NEXT_TYPE(0x8100):
    case PK_NEXT_TYPE(0x88a8):
    case PK_NEXT_TYPE(0x8847):
    case PK_NEXT_TYPE(0x8848):
        return 1;
    default:
        return 0;
    }
}

PK_INLINE int pk_tunnel_has_ethernet(__u32 after)
{
    return after == PK_NEXT_ETHERNET || after == PK_NEXT_TYPE(0x6558);
}

/*
 * After pk_parse_headers() on what pk_tunnel_begin() prepared. For PK_TUNNEL_FRAME, what is in the
 * tunnel is of the kind parser->after and lies from parser->offset to parser->end, and the flow has
 * the tunnel's numbers.
 */
PK_INLINE __u32 pk_tunnel_judge(const struct pk_parser *parser, const struct pk_tunnel_rules *rules)
{
    const struct pk_flow *flow = &parser->flow;
    if (flow->family == 0 || parser->quoted || !pk_tunnel_is_end(rules, flow))
        return PK_TUNNEL_OTHER;
    if (!parser->inside) {
        __u8 protocol = (__u8)flow->fragment[0].key.proto;
        int wanted =
            protocol == 17   ? (rules->types & (PK_TUNNEL_IS_VXLAN | PK_TUNNEL_IS_GENEVE)) != 0
            : protocol == 47 ? (rules->types & (PK_TUNNEL_IS_GRE | PK_TUNNEL_IS_ERSPAN)) != 0
                             : 0;
        return flow->fragments == 1 && flow->fragment[0].place == PK_FRAGMENT_LATER && wanted
                   ? PK_TUNNEL_LATER
                   : PK_TUNNEL_OTHER;
    }
    if (pk_tunnel_type(parser, rules) == 0)
        return PK_TUNNEL_OTHER;
    if (parser->after != PK_NEXT_NONE && !pk_tunnel_is_payload(parser->after))
        return PK_TUNNEL_OTHER;
    if (flow->fragments != 0)
        return PK_TUNNEL_FIRST;
    /* Ethernet's header, or IPv4's smallest: less is no packet. */
    __u32 least = pk_tunnel_has_ethernet(parser->after) ? 14 : 20;
    if (parser->after == PK_NEXT_NONE || parser->offset + least > parser->end ||
        parser->offset > PK_PARSE_WINDOW)
        return PK_TUNNEL_BAD;
    return PK_TUNNEL_FRAME;
}

/* The EtherType (network order) of what is not in an Ethernet frame; 0 = it cannot be told. */
PK_INLINE __u16 pk_tunnel_ethertype(const struct pk_parser *parser)
{
    if (parser->after != PK_NEXT_IP)
        return (__u16)(parser->after & 0xffff);
    if (parser->offset >= PK_PARSE_WINDOW)
        return 0;
    __u8 version = pk_parse_at(parser, parser->offset)[0] >> 4;
    return version == 4 ? PK_BE16(0x0800) : version == 6 ? PK_BE16(0x86dd) : 0;
}

#endif
