/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The header parser: what flow does a frame belong to? One source for the BPF programs and user
 * space.
 *
 * pk_parse_fast() takes the bulk of the traffic straight from the packet: Ethernet, at most one
 * VLAN tag, IPv4 without options or IPv6 without extension headers, TCP or UDP, no fragment.
 * pk_parse() takes everything, from a copy of the frame's first PK_PARSE_WINDOW bytes; where both
 * take a frame, they agree (tests/unit/packet/test_parse.c).
 *
 * Where the bytes lie in the copy is bounded twice: by the frame's own end, which decides what the
 * parser says, and by a mask that the kernel's verifier can follow.
 */
#ifndef PICKET_PACKET_PARSE_H
#define PICKET_PACKET_PARSE_H

#include <linux/types.h>

#include "packet/hash.h"
#include "packet/reason.h"

#define PK_PARSE_WINDOW  512u /* power of 2; headers beyond it are PK_REASON_TOO_DEEP */
#define PK_PARSE_PAD     64u  /* longest read at one place */
#define PK_PARSE_ROOM    (PK_PARSE_WINDOW + PK_PARSE_PAD)
#define PK_PARSE_EXT_MAX 8 /* IPv6 extension headers */

enum pk_fragment { PK_FRAGMENT_NONE, PK_FRAGMENT_FIRST, PK_FRAGMENT_LATER };

/* A copy of a frame's start. */
struct pk_window {
    __u8 data[PK_PARSE_ROOM];
};

/* All numbers as they are in the packet (network order). */
struct pk_flow {
    __u64 src[2]; /* IPv4: in the lower half of the first */
    __u64 dst[2];
    __u32 fragment_id;
    __u16 src_port; /* both ports and proto are 0 where the flow goes by address pair */
    __u16 dst_port;
    __u8 proto;
    __u8 family;         /* 4, 6, or 0: no addresses */
    __u8 fragment;       /* enum pk_fragment */
    __u8 fragment_proto; /* as the fragment's header names it */
    __u8 quoted;         /* taken from the packet that an ICMP error quotes */
    __u8 reason;         /* enum pk_reason */
};

/* Tunnels known by UDP port: they go by address pair until their inside is parsed. */
#define PK_TUNNEL_PORTS(X)  \
    X(4789, "VXLAN")        \
    X(8472, "VXLAN, Linux") \
    X(4790, "VXLAN-GPE")    \
    X(6081, "GENEVE")       \
    X(2152, "GTP-U")        \
    X(3544, "Teredo")       \
    X(1701, "L2TP")         \
    X(6635, "MPLS in UDP")

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#    define PK_BE16(x) ((__u16)((__u16)(x) << 8 | (__u16)(x) >> 8))
#else
#    define PK_BE16(x) ((__u16)(x))
#endif

/* The kernel's verifier walks every path through a program, again for each place that inlines a
 * function, but proves a global function only once, for any arguments. Without that the parser is
 * too much for it. */
#ifdef __bpf__
#    define PK_LOAD(type, p) (*(const type *)(p))
#    define PK_PROVED_ONCE   __attribute__((noinline))
#else
#    define PK_PROVED_ONCE static inline
#    define PK_LOAD(type, p)                                 \
        __extension__({                                      \
            type loaded_;                                    \
            __builtin_memcpy(&loaded_, (p), sizeof loaded_); \
            loaded_;                                         \
        })
#endif

PK_INLINE __u16 pk_load_be16(const __u8 *p)
{
    __u16 raw = PK_LOAD(__u16, p);
    return PK_BE16(raw);
}

PK_INLINE int pk_is_tunnel_port(__u16 port)
{
    switch (port) {
#define PK_TUNNEL_CASE(number, name) case PK_BE16(number):
        PK_TUNNEL_PORTS(PK_TUNNEL_CASE)
#undef PK_TUNNEL_CASE
        return 1;
    default:
        return 0;
    }
}

PK_INLINE int pk_is_vlan(__u16 type)
{
    return type == PK_BE16(0x8100) || type == PK_BE16(0x88a8) || type == PK_BE16(0x9100);
}

PK_INLINE __u32 pk_flow_hash(const struct pk_flow *flow, __u64 seed)
{
    if (flow->family == 4)
        return pk_hash_join(pk_hash_end4((__u32)flow->src[0], flow->src_port, seed),
                            pk_hash_end4((__u32)flow->dst[0], flow->dst_port, seed), flow->proto);
    return pk_hash_join(pk_hash_end6(flow->src[0], flow->src[1], flow->src_port, seed),
                        pk_hash_end6(flow->dst[0], flow->dst[1], flow->dst_port, seed),
                        flow->proto);
}

/* The hash of a plain packet with ports; 0 = not one, ask pk_parse(). */
PK_INLINE int pk_parse_fast(const __u8 *p, const __u8 *end, __u64 seed, __u32 *ret_hash)
{
    if (p + 22 > end)
        return 0;
    __u16 type = PK_LOAD(__u16, p + 12);
    if (type != PK_BE16(0x0800) && pk_is_vlan(type)) {
        type = PK_LOAD(__u16, p + 16);
        p += 4;
        if (pk_is_vlan(type)) {
            type = PK_LOAD(__u16, p + 16);
            p += 4;
        }
    }
    if (type == PK_BE16(0x0800)) {
        if (p + 38 > end)
            return 0;
        __u8 proto = p[23];
        if (p[14] != 0x45 || (PK_LOAD(__u16, p + 20) & PK_BE16(0x3fff)) != 0 ||
            pk_load_be16(p + 16) < 24)
            return 0;
        __u16 sport = PK_LOAD(__u16, p + 34), dport = PK_LOAD(__u16, p + 36);
        if (proto == 17) {
            if (pk_is_tunnel_port(sport) || pk_is_tunnel_port(dport))
                return 0;
        } else if (proto != 6 && proto != 132) {
            return 0;
        }
        *ret_hash = pk_hash_join(pk_hash_end4(PK_LOAD(__u32, p + 26), sport, seed),
                                 pk_hash_end4(PK_LOAD(__u32, p + 30), dport, seed), proto);
        return 1;
    }
    if (type == PK_BE16(0x86dd)) {
        if (p + 58 > end)
            return 0;
        __u8 proto = p[20];
        if ((p[14] & 0xf0) != 0x60 || pk_load_be16(p + 18) < 4)
            return 0;
        __u16 sport = PK_LOAD(__u16, p + 54), dport = PK_LOAD(__u16, p + 56);
        if (proto == 17) {
            if (pk_is_tunnel_port(sport) || pk_is_tunnel_port(dport))
                return 0;
        } else if (proto != 6 && proto != 132) {
            return 0;
        }
        *ret_hash = pk_hash_join(
            pk_hash_end6(PK_LOAD(__u64, p + 22), PK_LOAD(__u64, p + 30), sport, seed),
            pk_hash_end6(PK_LOAD(__u64, p + 38), PK_LOAD(__u64, p + 46), dport, seed), proto);
        return 1;
    }
    return 0;
}

/* A place in the copy. The caller has held offset and what it reads there against the end. */
PK_INLINE const __u8 *pk_parse_at(const struct pk_window *window, __u32 offset)
{
#ifdef __bpf__
    asm volatile("" : "+r"(offset)); /* or clang drops the mask, which it knows to be idle */
#endif
    return window->data + (offset & (PK_PARSE_WINDOW - 1));
}

/* Are size bytes there? PK_REASON_NONE if so. */
PK_INLINE __u8 pk_parse_need(__u32 offset, __u32 size, __u32 end)
{
    if (offset + size > end)
        return PK_REASON_TRUNCATED;
    return offset + size > PK_PARSE_WINDOW ? PK_REASON_TOO_DEEP : PK_REASON_NONE;
}

/* ICMP types that quote the packet they are about. */
PK_INLINE int pk_icmp_quotes(__u8 family, __u8 type)
{
    if (family == 6)
        return type >= 1 && type <= 4;
    return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

/* Notes the transport header's flow. Returns where the packet begins that an ICMP error quotes,
 * else 0. */
PK_PROVED_ONCE __u32 pk_parse_transport(const struct pk_window *window, __u32 offset, __u32 end,
                                        __u32 proto, struct pk_flow *flow)
{
    if (!window || !flow)
        return 0;
    const __u8 *p = pk_parse_at(window, offset);
    __u8 lack;
    switch (proto) {
    case 6:   /* TCP */
    case 17:  /* UDP */
    case 132: /* SCTP */
        lack = pk_parse_need(offset, 4, end);
        if (lack != PK_REASON_NONE) {
            /* A first fragment may be too short for ports: then the later ones, which have no
             * entry, go by address pair just as it does. */
            if (flow->fragment == PK_FRAGMENT_FIRST) {
                flow->fragment = PK_FRAGMENT_NONE;
                lack = PK_REASON_FRAGMENT_UNKNOWN;
            }
            flow->reason = lack;
            return 0;
        }
        if (proto == 17 &&
            (pk_is_tunnel_port(PK_LOAD(__u16, p)) || pk_is_tunnel_port(PK_LOAD(__u16, p + 2)))) {
            flow->reason = PK_REASON_TUNNEL;
            return 0;
        }
        flow->src_port = PK_LOAD(__u16, p);
        flow->dst_port = PK_LOAD(__u16, p + 2);
        flow->proto = (__u8)proto;
        return 0;
    case 1:  /* ICMP */
    case 58: /* ICMPv6 */
        if ((proto == 1) != (flow->family == 4))
            break;
        if (pk_parse_need(offset, 8, end) == PK_REASON_NONE && pk_icmp_quotes(flow->family, p[0]))
            return offset + 8;
        return 0;
    case 4:   /* IPv4 in IP */
    case 41:  /* IPv6 in IP */
    case 47:  /* GRE */
    case 55:  /* minimal encapsulation */
    case 94:  /* IPIP */
    case 97:  /* EtherIP */
    case 98:  /* RFC 1241 */
    case 115: /* L2TPv3 */
    case 137: /* MPLS in IP */
        flow->reason = PK_REASON_TUNNEL;
        return 0;
    default:
        break;
    }
    flow->reason = PK_REASON_OTHER_PROTOCOL;
    return 0;
}

PK_PROVED_ONCE __u32 pk_parse_ip4(const struct pk_window *window, __u32 offset, __u32 end,
                                  struct pk_flow *flow)
{
    if (!window || !flow)
        return 0;
    __u8 lack = pk_parse_need(offset, 20, end);
    if (lack != PK_REASON_NONE) {
        flow->reason = lack;
        return 0;
    }
    const __u8 *p = pk_parse_at(window, offset);
    __u32 header = (p[0] & 15u) * 4, total = pk_load_be16(p + 2);
    /* Length 0 is what segmentation offload leaves in packets captured on the sender. */
    if ((p[0] & 0xf0) != 0x40 || header < 20 || (total != 0 && total < header)) {
        flow->reason = PK_REASON_BAD_HEADER;
        return 0;
    }
    if (total != 0 && offset + total < end)
        end = offset + total;
    lack = pk_parse_need(offset, header, end);
    if (lack != PK_REASON_NONE) {
        flow->reason = lack;
        return 0;
    }
    flow->family = 4;
    flow->src[0] = PK_LOAD(__u32, p + 12);
    flow->dst[0] = PK_LOAD(__u32, p + 16);
    __u8 proto = p[9];
    __u16 fragment = pk_load_be16(p + 6);
    if ((fragment & 0x3fff) != 0) {
        flow->fragment_id = PK_LOAD(__u16, p + 4);
        flow->fragment_proto = proto;
        if ((fragment & 0x1fff) != 0) {
            flow->fragment = PK_FRAGMENT_LATER;
            return 0;
        }
        flow->fragment = PK_FRAGMENT_FIRST;
    }
    return pk_parse_transport(window, offset + header, end, proto, flow);
}

PK_PROVED_ONCE __u32 pk_parse_ip6(const struct pk_window *window, __u32 offset, __u32 end,
                                  struct pk_flow *flow)
{
    if (!window || !flow)
        return 0;
    __u8 lack = pk_parse_need(offset, 40, end);
    if (lack != PK_REASON_NONE) {
        flow->reason = lack;
        return 0;
    }
    const __u8 *p = pk_parse_at(window, offset);
    if ((p[0] & 0xf0) != 0x60) {
        flow->reason = PK_REASON_BAD_HEADER;
        return 0;
    }
    __u32 payload = pk_load_be16(p + 4);
    __u8 next = p[6];
    flow->family = 6;
    flow->src[0] = PK_LOAD(__u64, p + 8);
    flow->src[1] = PK_LOAD(__u64, p + 16);
    flow->dst[0] = PK_LOAD(__u64, p + 24);
    flow->dst[1] = PK_LOAD(__u64, p + 32);
    offset += 40;
    /* Length 0: a jumbogram, or offload as above. */
    if (payload != 0 && offset + payload < end)
        end = offset + payload;
    for (int i = 0; i < PK_PARSE_EXT_MAX; i++) {
        if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60)
            return pk_parse_transport(window, offset, end, next, flow);
        lack = pk_parse_need(offset, 8, end);
        if (lack != PK_REASON_NONE) {
            flow->reason = lack;
            return 0;
        }
        p = pk_parse_at(window, offset);
        __u32 size = (p[1] + 1u) * 8;
        if (next == 51)
            size = (p[1] + 2u) * 4;
        if (next == 44) {
            size = 8;
            __u16 fragment = pk_load_be16(p + 2);
            /* Neither offset nor more to come: an atomic fragment is a whole packet (RFC 6946). */
            if ((fragment & 0xfff9) != 0) {
                flow->fragment_id = PK_LOAD(__u32, p + 4);
                flow->fragment_proto = p[0];
                if ((fragment & 0xfff8) != 0) {
                    flow->fragment = PK_FRAGMENT_LATER;
                    return 0;
                }
                flow->fragment = PK_FRAGMENT_FIRST;
            }
        }
        next = p[0];
        offset += size;
    }
    flow->reason = PK_REASON_TOO_DEEP;
    return 0;
}

/* Does a packet with this reason go to the group's first lane, since it has no flow to go by? */
PK_INLINE int pk_reason_is_first_lane(__u32 reason)
{
    return reason >= PK_REASON_NON_IP && reason <= PK_REASON_TOO_DEEP;
}

/* window holds the first bytes of a frame that is size bytes long. Sets all of *flow. */
PK_INLINE void pk_parse(const struct pk_window *window, __u32 size, struct pk_flow *flow)
{
    __builtin_memset(flow, 0, sizeof *flow);
    if (size < 14) {
        flow->reason = PK_REASON_TRUNCATED;
        return;
    }
    __u32 offset = 14, quote;
    __u16 type = PK_LOAD(__u16, window->data + 12);
    for (int tags = 0; tags < 2 && pk_is_vlan(type); tags++) {
        if (size < offset + 4) {
            flow->reason = PK_REASON_TRUNCATED;
            return;
        }
        type = PK_LOAD(__u16, window->data + offset + 2);
        offset += 4;
    }
    switch (type) {
    case PK_BE16(0x0800):
        quote = pk_parse_ip4(window, offset, size, flow);
        break;
    case PK_BE16(0x86dd):
        quote = pk_parse_ip6(window, offset, size, flow);
        break;
    case PK_BE16(0x8100):
    case PK_BE16(0x88a8):
    case PK_BE16(0x9100):
        flow->reason = PK_REASON_VLAN_DEPTH;
        return;
    case PK_BE16(0x8847): /* MPLS */
    case PK_BE16(0x8848):
    case PK_BE16(0x8863): /* PPPoE */
    case PK_BE16(0x8864):
    case PK_BE16(0x88e7): /* provider backbone bridge */
    case PK_BE16(0x88e5): /* MACsec */
    case PK_BE16(0x88be): /* ERSPAN */
    case PK_BE16(0x22eb):
        flow->reason = PK_REASON_ENCAPSULATED;
        return;
    default:
        flow->reason = PK_REASON_NON_IP;
        return;
    }
    if (quote == 0)
        return;

    /* An ICMP error belongs to the flow that it quotes. Where the quote cannot be read, it goes by
     * its own addresses. */
    struct pk_flow inner;
    __builtin_memset(&inner, 0, sizeof inner);
    inner.quoted = 1;
    if (type == PK_BE16(0x0800))
        pk_parse_ip4(window, quote, size, &inner);
    else
        pk_parse_ip6(window, quote, size, &inner);
    if (pk_reason_is_first_lane(inner.reason))
        flow->reason = PK_REASON_OTHER_PROTOCOL;
    else
        *flow = inner;
}

#endif
