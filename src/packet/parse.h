/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The header parser: what flow does a frame belong to? One source for the BPF programs and user
 * space.
 *
 * pk_parse_plain() takes the bulk of the traffic straight from the packet: Ethernet, at most two
 * VLAN tags, IPv4 without options or IPv6 without extension headers, TCP, UDP or SCTP, no fragment.
 * pk_parse() takes everything, from a copy of the frame's first PK_PARSE_WINDOW bytes, through all
 * encapsulations to the innermost flow (packet/step.h); where both take a frame, they agree
 * (tests/unit/packet/test_flow.c).
 */
#ifndef PICKET_PACKET_PARSE_H
#define PICKET_PACKET_PARSE_H

#include <linux/types.h>

#include "packet/hash.h"
#include "packet/step.h"

PK_INLINE int pk_is_vlan(__u16 type)
{
    return type == PK_BE16(0x8100) || type == PK_BE16(0x88a8) || type == PK_BE16(0x9100);
}

PK_INLINE __u64 pk_hash_ends(const struct pk_flow *flow, __u16 sport, __u16 dport, __u8 proto,
                             __u64 seed)
{
    if (flow->family == 4)
        return pk_hash_join64(pk_hash_end4((__u32)flow->src[0], sport, seed),
                              pk_hash_end4((__u32)flow->dst[0], dport, seed), proto);
    return pk_hash_join64(pk_hash_end6(flow->src[0], flow->src[1], sport, seed),
                          pk_hash_end6(flow->dst[0], flow->dst[1], dport, seed), proto);
}

/* Of all that tells flows apart, whatever they are balanced by. */
PK_INLINE __u64 pk_flow_hash64(const struct pk_flow *flow, __u64 seed)
{
    return pk_hash_ends(flow, flow->src_port, flow->dst_port, flow->proto, seed);
}

/* For PK_HASH_OUTER the flow must have been parsed so. */
PK_INLINE __u32 pk_flow_hash(const struct pk_flow *flow, __u32 mode, __u64 seed)
{
    __u16 sport = flow->src_port, dport = flow->dst_port;
    __u8 proto = flow->proto;
    if (mode == PK_HASH_ADDRESSES)
        sport = dport = proto = 0;
    return (__u32)(pk_hash_ends(flow, sport, dport, proto, seed) >> 32);
}

/* Before the first header. */
PK_INLINE void pk_flow_begin(struct pk_flow *flow)
{
    flow->src_port = 0;
    flow->dst_port = 0;
    flow->proto = 0;
    flow->family = 0;
    flow->reason = PK_REASON_NONE;
    flow->fragments = 0;
    flow->tcp_flags = 0;
    flow->vlans = 0;
    flow->tags = 0;
    flow->vlan[0] = 0;
    flow->vlan[1] = 0;
    flow->vni = 0;
    flow->gre_key = 0;
    flow->erspan_session = 0;
    flow->protocol = 0;
}

/* Is it UDP that is no tunnel, TCP or SCTP? */
PK_INLINE int pk_is_plain(__u8 proto, __u16 sport, __u16 dport)
{
    if (proto == 17)
        return !pk_tunnel_by_port(sport) && !pk_tunnel_by_port(dport);
    return proto == 6 || proto == 132;
}

/* The flow of a plain packet with ports, as pk_parse() sees it in any mode; 0 = it is not one, ask
 * pk_parse(). There are no fragments, so flow->fragment stays as it is. */
PK_INLINE int pk_parse_plain(const __u8 *p, const __u8 *end, struct pk_flow *flow)
{
    __u16 vlan[2] = { 0, 0 }, sport, dport;
    __u8 vlans = 0, family, proto, tcp_flags = 0;
    __u64 src[2], dst[2];
    if (p + 22 > end)
        return 0;
    __u16 type = PK_LOAD(__u16, p + 12);
    if (type != PK_BE16(0x0800) && pk_is_vlan(type)) {
        vlan[0] = pk_load_be16(p + 14) & 0xfff;
        vlans = 1;
        type = PK_LOAD(__u16, p + 16);
        p += 4;
        if (pk_is_vlan(type)) {
            vlan[1] = pk_load_be16(p + 14) & 0xfff;
            vlans = 2;
            type = PK_LOAD(__u16, p + 16);
            p += 4;
        }
    }
    if (type == PK_BE16(0x0800)) {
        if (p + 38 > end)
            return 0;
        __u32 total = pk_load_be16(p + 16);
        proto = p[23];
        if (p[14] != 0x45 || (PK_LOAD(__u16, p + 20) & PK_BE16(0x3fff)) != 0 || total < 24)
            return 0;
        sport = PK_LOAD(__u16, p + 34);
        dport = PK_LOAD(__u16, p + 36);
        if (!pk_is_plain(proto, sport, dport))
            return 0;
        if (proto == 6) {
            if (p + 48 > end || total < 34)
                return 0;
            tcp_flags = p[47];
        }
        family = 4;
        src[0] = PK_LOAD(__u32, p + 26);
        src[1] = 0;
        dst[0] = PK_LOAD(__u32, p + 30);
        dst[1] = 0;
    } else if (type == PK_BE16(0x86dd)) {
        if (p + 58 > end)
            return 0;
        __u32 payload = pk_load_be16(p + 18);
        proto = p[20];
        if ((p[14] & 0xf0) != 0x60 || payload < 4)
            return 0;
        sport = PK_LOAD(__u16, p + 54);
        dport = PK_LOAD(__u16, p + 56);
        if (!pk_is_plain(proto, sport, dport))
            return 0;
        if (proto == 6) {
            if (p + 68 > end || payload < 14)
                return 0;
            tcp_flags = p[67];
        }
        family = 6;
        src[0] = PK_LOAD(__u64, p + 22);
        src[1] = PK_LOAD(__u64, p + 30);
        dst[0] = PK_LOAD(__u64, p + 38);
        dst[1] = PK_LOAD(__u64, p + 46);
    } else {
        return 0;
    }
    pk_flow_begin(flow);
    flow->src[0] = src[0];
    flow->src[1] = src[1];
    flow->dst[0] = dst[0];
    flow->dst[1] = dst[1];
    flow->src_port = sport;
    flow->dst_port = dport;
    flow->proto = proto;
    flow->protocol = proto;
    flow->family = family;
    flow->tcp_flags = tcp_flags;
    flow->quoted = 0;
    flow->vlans = vlans;
    flow->vlan[0] = vlan[0];
    flow->vlan[1] = vlan[1];
    return 1;
}

/* Does a packet with this reason go to the group's first lane, since it has no flow to go by? */
PK_INLINE int pk_reason_is_first_lane(__u32 reason)
{
    return reason >= PK_REASON_NON_IP && reason <= PK_REASON_TOO_DEEP;
}

/* Before the first header. */
PK_INLINE void pk_parse_begin(struct pk_parser *parser, __u32 size, __u32 mode)
{
    parser->offset = 0;
    parser->end = size;
    parser->next = PK_NEXT_ETHERNET;
    parser->inside = 0;
    parser->quoted = 0;
    parser->mode = (__u8)mode;
    parser->is_outermost = 0;
    parser->is_tagging = 0;
    parser->until_frame = 0;
    pk_flow_begin(&parser->flow);
}

/* All headers, to the innermost flow unless the mode is PK_HASH_OUTER. */
PK_INLINE void pk_parse_all(struct pk_parser *parser)
{
    struct pk_flow *flow = &parser->flow;
    if (!pk_parse_headers(parser))
        flow->reason = PK_REASON_TOO_DEEP;
    flow->quoted = parser->quoted;

    /* What is inside cannot be told: by the innermost addresses that could. */
    if (!parser->inside || flow->family == 0 || !pk_reason_is_first_lane(flow->reason))
        return;
    if (parser->quoted)
        flow->reason = PK_REASON_OTHER_PROTOCOL;
    else if (flow->reason == PK_REASON_BAD_HEADER || flow->reason == PK_REASON_TRUNCATED)
        flow->reason = PK_REASON_TUNNEL_BAD;
    else if (flow->reason == PK_REASON_TOO_DEEP || flow->reason == PK_REASON_VLAN_DEPTH)
        flow->reason = PK_REASON_TUNNEL_DEEP;
    else
        flow->reason = PK_REASON_TUNNEL;
}

/* parser->window holds the first bytes of a frame that is size bytes long. Sets parser->flow. */
PK_INLINE void pk_parse(struct pk_parser *parser, __u32 size, __u32 mode)
{
    pk_parse_begin(parser, size, mode);
    pk_parse_all(parser);
}

#endif
