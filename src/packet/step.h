/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * One header of a frame, and what comes after it: the steps of packet/parse.h. pk_parse_step()
 * reads the header that parser->next names at parser->offset and moves both on, until the innermost
 * flow is found or something cannot be read. Each header is one case of one switch, so that the
 * kernel's verifier walks each of them once.
 *
 * Where the bytes lie in the window is bounded twice: by the frame's own end, which decides what
 * the parser says, and by a mask that the verifier can follow. The end moves inwards with each
 * length field, so that padding is not taken for headers.
 */
#ifndef PICKET_PACKET_STEP_H
#define PICKET_PACKET_STEP_H

#include <linux/types.h>

#include "packet/fragment.h"
#include "packet/hash.h"
#include "packet/reason.h"

#define PK_PARSE_WINDOW    512u /* power of 2; headers beyond it are PK_REASON_TOO_DEEP */
#define PK_PARSE_PAD       64u  /* longest read at one place */
#define PK_PARSE_ROOM      (PK_PARSE_WINDOW + PK_PARSE_PAD)
#define PK_PARSE_HEADERS   32u /* more are PK_REASON_TOO_DEEP; a tag and a label are one each */
#define PK_PARSE_TAGS      3u  /* VLAN tags of one header */
#define PK_PARSE_FRAGMENTS 2u  /* headers that say the packet is a fragment; power of 2 */

enum pk_fragment { PK_FRAGMENT_NONE, PK_FRAGMENT_FIRST, PK_FRAGMENT_LATER };

/* A header that says the packet is a fragment. */
struct pk_fragment_header {
    struct pk_fragment_key key;
    __u32 place;  /* enum pk_fragment */
    __u32 quoted; /* in what an ICMP error quotes: it tells about a datagram, but is none */
};

/* Which numbers a tunnel gives to what is in it. */
#define PK_TAG_VNI     1u
#define PK_TAG_GRE_KEY 2u
#define PK_TAG_ERSPAN  4u

/* The innermost flow, and what is around it. Addresses and ports as they are in the packet (network
 * order), all other numbers in host order. */
struct pk_flow {
    __u64 src[2]; /* IPv4: in the lower half of the first */
    __u64 dst[2];
    __u16 src_port; /* both ports and proto are 0 where the flow goes by address pair; ESP: */
    __u16 dst_port; /* both made of the SPI */
    __u8 proto;
    __u8 family; /* 4, 6, or 0: no addresses, and src and dst mean nothing */
    __u8 reason; /* enum pk_reason */
    __u8 fragments;
    __u8 tcp_flags; /* of the innermost TCP header; 0 = none, or cut before them */
    __u8 quoted;    /* the flow is the one that an ICMP error is about */
    __u8 vlans;     /* tags of the outermost Ethernet header */
    __u8 tags;      /* PK_TAG_*: what the outermost tunnel with any of them has */
    __u16 vlan[2];  /* the outermost tags' ids; 0 where there is no tag */
    __u32 vni;
    __u32 gre_key;
    __u16 erspan_session;
    __u8 protocol; /* IP protocol of the innermost header, whether it has ports or not */
    __u8 unused;
    struct pk_fragment_header fragment[PK_PARSE_FRAGMENTS]; /* outermost first */
};

/* Tunnels known by UDP port, and how what follows the UDP header is read. */
#define PK_TUNNEL_PORTS(X)                  \
    X(4789, PK_NEXT_VXLAN, "VXLAN")         \
    X(8472, PK_NEXT_VXLAN, "VXLAN, Linux")  \
    X(4790, PK_NEXT_VXLAN_GPE, "VXLAN-GPE") \
    X(6081, PK_NEXT_GENEVE, "GENEVE")       \
    X(2152, PK_NEXT_GTP, "GTP-U")           \
    X(3544, PK_NEXT_TEREDO, "Teredo")       \
    X(4754, PK_NEXT_PROTOCOL(47), "GRE")    \
    X(5072, PK_NEXT_AYIYA, "AYIYA")         \
    X(1701, PK_NEXT_UNKNOWN, "L2TP")        \
    X(6635, PK_NEXT_TYPE(0x8847), "MPLS in UDP")

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#    define PK_BE16(x) ((__u16)((__u16)(x) << 8 | (__u16)(x) >> 8))
#else
#    define PK_BE16(x) ((__u16)(x))
#endif

/* The kernel's verifier walks every path through a program, again for each place that inlines a
 * function and for each turn of a loop, but proves a global function only once, for any arguments.
 * Without that the parser is too much for it. */
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

PK_INLINE __u32 pk_load_be32(const __u8 *p)
{
    return (__u32)pk_load_be16(p) << 16 | pk_load_be16(p + 2);
}

/* What comes next: one of these, an EtherType, or an IP protocol. */
enum pk_next {
    PK_NEXT_NONE, /* the parser has finished */
    PK_NEXT_ETHERNET,
    PK_NEXT_IP, /* of the version that its first half byte names */
    PK_NEXT_PPP,
    PK_NEXT_MPLS_PAYLOAD,
    PK_NEXT_GRE_ROUTE,
    PK_NEXT_ERSPAN, /* II or III */
    PK_NEXT_VXLAN,
    PK_NEXT_VXLAN_GPE,
    PK_NEXT_GENEVE,
    PK_NEXT_GTP,
    PK_NEXT_GTP_EXTENSION,
    PK_NEXT_TEREDO,
    PK_NEXT_AYIYA,
    PK_NEXT_UNKNOWN,
};
#define PK_NEXT_TYPE(type)       (0x10000u | PK_BE16(type)) /* EtherTypes as in the packet */
#define PK_NEXT_PROTOCOL(number) (0x20000u | (number))

/* The numbers of a tunnel that is not in the frame any more (packet/tunnel.h). */
struct pk_around {
    __u32 vni;
    __u32 gre_key;
    __u16 erspan_session;
    __u8 tags; /* 0 = there was none */
};

struct pk_parser {
    __u8 window[PK_PARSE_ROOM]; /* a copy of the frame's start */
    __u32 offset;
    __u32 end;
    __u32 next;
    __u32 after_route; /* what follows GRE's source routes */
    __u8 tags;         /* VLAN tags in a row */
    __u8 is_outermost; /* the Ethernet header at hand is the frame's own */
    __u8 is_tagging;   /* an ERSPAN header here belongs to the outermost tunnel with a number */
    __u8 inside;       /* of a tunnel, or of an ICMP error */
    __u8 quoted;       /* in the packet that an ICMP error quotes */
    __u8 is_first;     /* the IP header at hand is a first fragment's */
    __u8 mode;         /* enum pk_hash_mode */
    __u8 until_frame;  /* stop where the frame in the first tunnel begins, of the kind 'after' */
    __u16 until_port;  /* a UDP port (network order) that is a tunnel then, with until_next in it */
    __u16 port;        /* the tunnel's destination port (network order) */
    __u32 until_next;
    __u32 after; /* PK_NEXT_NONE: no frame in a tunnel was found */
    struct pk_around around;
    struct pk_flow flow;
};

/* A place in the window. The caller has held offset and what it reads there against the end. */
PK_INLINE const __u8 *pk_parse_at(const struct pk_parser *parser, __u32 offset)
{
#ifdef __bpf__
    asm volatile("" : "+r"(offset)); /* or clang drops the mask, which it knows to be idle */
#endif
    return parser->window + (offset & (PK_PARSE_WINDOW - 1));
}

PK_INLINE __u32 pk_parse_stop(struct pk_parser *parser, __u8 reason)
{
    parser->flow.reason = reason;
    return PK_NEXT_NONE;
}

/* Are size bytes there? If not, that is the reason to stop. */
PK_INLINE int pk_parse_lacks(struct pk_parser *parser, __u32 size)
{
    __u32 need = parser->offset + size;
    if (need <= parser->end && need <= PK_PARSE_WINDOW)
        return 0;
    parser->flow.reason = need > parser->end ? PK_REASON_TRUNCATED : PK_REASON_TOO_DEEP;
    return 1;
}

/* A tunnel begins. Returns 0 where it is not to be followed. */
PK_INLINE int pk_parse_enter(struct pk_parser *parser)
{
    if (parser->mode == PK_HASH_OUTER)
        return (int)pk_parse_stop(parser, PK_REASON_TUNNEL);
    parser->inside = 1;
    return 1;
}

PK_INLINE void pk_parse_limit(struct pk_parser *parser, __u32 size)
{
    if (parser->offset + size < parser->end)
        parser->end = parser->offset + size;
}

/* What of a packet tells apart datagrams of tenants that use the same addresses. */
PK_INLINE __u64 pk_flow_scope(const struct pk_flow *flow)
{
    __u32 number = flow->vni ^ flow->gre_key ^ (__u32)flow->erspan_session << 16;
    __u32 around = flow->vlan[0] | (__u32)flow->vlan[1] << 12 | (flow->vlans & 3u) << 24 |
                   (__u32)flow->tags << 26;
    return (__u64)around << 32 | number;
}

/* Notes a fragment's header, whose addresses are the flow's. Returns 0 if it ends the parsing. */
PK_INLINE int pk_parse_fragment(struct pk_parser *parser, __u32 place, __u32 id, __u32 protocol)
{
    struct pk_flow *flow = &parser->flow;
    parser->is_first = place == PK_FRAGMENT_FIRST;
    if (parser->quoted && place == PK_FRAGMENT_FIRST)
        return 1;
    __u32 count = flow->fragments;
    if (count >= PK_PARSE_FRAGMENTS)
        return (int)pk_parse_stop(parser, PK_REASON_TOO_DEEP);
    struct pk_fragment_header *header = &flow->fragment[count & (PK_PARSE_FRAGMENTS - 1)];
    flow->fragments = (__u8)(count + 1);
    header->key.src[0] = flow->src[0];
    header->key.src[1] = flow->src[1];
    header->key.dst[0] = flow->dst[0];
    header->key.dst[1] = flow->dst[1];
    header->key.id = id;
    header->key.proto = protocol;
    header->key.scope = pk_flow_scope(flow);
    header->place = place;
    header->quoted = parser->quoted;
    flow->reason = PK_REASON_NONE;
    return place == PK_FRAGMENT_FIRST;
}

PK_INLINE __u32 pk_parse_ip4(struct pk_parser *parser)
{
    struct pk_flow *flow = &parser->flow;
    if (pk_parse_lacks(parser, 20))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    __u32 header = (p[0] & 15u) * 4, total = pk_load_be16(p + 2);
    /* Length 0 is what segmentation offload leaves in packets captured on the sender. */
    if ((p[0] & 0xf0) != 0x40 || header < 20 || (total != 0 && total < header))
        return pk_parse_stop(parser, PK_REASON_BAD_HEADER);
    if (total != 0)
        pk_parse_limit(parser, total);
    if (pk_parse_lacks(parser, header))
        return PK_NEXT_NONE;
    __u32 protocol = p[9];
    flow->protocol = (__u8)protocol;
    __u16 fragment = pk_load_be16(p + 6);
    flow->family = 4;
    flow->src[0] = PK_LOAD(__u32, p + 12);
    flow->src[1] = 0;
    flow->dst[0] = PK_LOAD(__u32, p + 16);
    flow->dst[1] = 0;
    parser->offset += header;
    parser->is_first = 0;
    parser->tags = 0;
    parser->is_outermost = 0;
    if ((fragment & 0x3fff) != 0 &&
        !pk_parse_fragment(parser, (fragment & 0x1fff) != 0 ? PK_FRAGMENT_LATER : PK_FRAGMENT_FIRST,
                           PK_LOAD(__u16, p + 4), protocol))
        return PK_NEXT_NONE;
    return PK_NEXT_PROTOCOL(protocol);
}

PK_INLINE __u32 pk_parse_ip6(struct pk_parser *parser)
{
    struct pk_flow *flow = &parser->flow;
    if (pk_parse_lacks(parser, 40))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    if ((p[0] & 0xf0) != 0x60)
        return pk_parse_stop(parser, PK_REASON_BAD_HEADER);
    __u32 payload = pk_load_be16(p + 4);
    flow->family = 6;
    flow->src[0] = PK_LOAD(__u64, p + 8);
    flow->src[1] = PK_LOAD(__u64, p + 16);
    flow->dst[0] = PK_LOAD(__u64, p + 24);
    flow->dst[1] = PK_LOAD(__u64, p + 32);
    parser->offset += 40;
    parser->is_first = 0;
    parser->tags = 0;
    parser->is_outermost = 0;
    /* Length 0: a jumbogram, or offload as above. */
    if (payload != 0)
        pk_parse_limit(parser, payload);
    flow->protocol = p[6];
    return PK_NEXT_PROTOCOL(p[6]);
}

PK_INLINE __u32 pk_parse_extension(struct pk_parser *parser, __u32 kind)
{
    /* Of these only AH is known to IPv4. */
    if (parser->flow.family != 6 && (kind != 51 || parser->mode == PK_HASH_OUTER))
        return pk_parse_stop(parser, PK_REASON_OTHER_PROTOCOL);
    if (pk_parse_lacks(parser, 8))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    __u32 next = p[0], size = kind == 51 ? (p[1] + 2u) * 4 : kind == 44 ? 8 : (p[1] + 1u) * 8;
    __u16 fragment = pk_load_be16(p + 2);
    parser->flow.protocol = (__u8)next;
    parser->offset += size;
    /* Neither offset nor more to come: an atomic fragment is a whole packet (RFC 6946). */
    if (kind == 44 && (fragment & 0xfff9) != 0 &&
        !pk_parse_fragment(parser, (fragment & 0xfff8) != 0 ? PK_FRAGMENT_LATER : PK_FRAGMENT_FIRST,
                           PK_LOAD(__u32, p + 4), next))
        return PK_NEXT_NONE;
    return PK_NEXT_PROTOCOL(next);
}

PK_INLINE __u32 pk_tunnel_by_port(__u16 port)
{
    switch (port) {
#define PK_TUNNEL_CASE(number, next, name) \
case PK_BE16(number):                      \
    return next;
        PK_TUNNEL_PORTS(PK_TUNNEL_CASE)
#undef PK_TUNNEL_CASE
    default:
        return PK_NEXT_NONE;
    }
}

/* The protocols with ports, and ESP, which has an SPI in their place. */
PK_INLINE __u32 pk_parse_transport(struct pk_parser *parser, __u32 protocol)
{
    struct pk_flow *flow = &parser->flow;
    if (pk_parse_lacks(parser, 4)) {
        /* A first fragment may be too short for ports: then its later ones go as it does. */
        if (parser->is_first)
            flow->reason = PK_REASON_FRAGMENT_UNKNOWN;
        return PK_NEXT_NONE;
    }
    const __u8 *p = pk_parse_at(parser, parser->offset);
    __u16 src = PK_LOAD(__u16, p), dst = PK_LOAD(__u16, p + 2);
    if (protocol == 17) {
        __u32 next = pk_tunnel_by_port(dst);
        if (next == PK_NEXT_NONE)
            next = pk_tunnel_by_port(src);
        if (parser->until_frame && dst == parser->until_port)
            next = parser->until_next;
        if (next != PK_NEXT_NONE) {
            if (!pk_parse_enter(parser))
                return PK_NEXT_NONE;
            parser->port = dst;
            parser->offset += 8;
            return next;
        }
    } else if (protocol == 50) {
        src ^= dst;
        dst = src;
    } else if (protocol == 6 && parser->offset + 14 <= parser->end &&
               parser->offset + 14 <= PK_PARSE_WINDOW) {
        flow->tcp_flags = p[13];
    }
    flow->src_port = src;
    flow->dst_port = dst;
    flow->proto = (__u8)protocol;
    return pk_parse_stop(parser, PK_REASON_NONE);
}

/* ICMP types that quote the packet they are about: the error belongs to that packet's flow. */
PK_INLINE __u32 pk_parse_icmp(struct pk_parser *parser, __u32 protocol)
{
    int is_6 = protocol == 58;
    if (is_6 != (parser->flow.family == 6))
        return pk_parse_stop(parser, PK_REASON_OTHER_PROTOCOL);
    if (pk_parse_lacks(parser, 8))
        return pk_parse_stop(parser, PK_REASON_NONE);
    __u8 type = *pk_parse_at(parser, parser->offset);
    if (is_6 ? type < 1 || type > 4
             : type != 3 && type != 4 && type != 5 && type != 11 && type != 12)
        return pk_parse_stop(parser, PK_REASON_NONE);
    parser->offset += 8;
    parser->inside = 1;
    parser->quoted = 1;
    return is_6 ? PK_NEXT_TYPE(0x86dd) : PK_NEXT_TYPE(0x0800);
}

PK_INLINE __u32 pk_parse_gre(struct pk_parser *parser)
{
    if (!pk_parse_enter(parser) || pk_parse_lacks(parser, 4))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    __u32 flags = pk_load_be16(p), size = 4, next = PK_NEXT_TYPE(0) | PK_LOAD(__u16, p + 2);
    if ((flags & 7) > 1)
        return pk_parse_stop(parser, PK_REASON_BAD_HEADER);
    if ((flags & 0xc000) != 0) /* checksum, routing: both have the place for both */
        size += 4;
    if ((flags & 0x2000) != 0) /* key */
        size += 4;
    if ((flags & 0x1000) != 0) /* sequence number */
        size += 4;
    if ((flags & 7) == 1) { /* PPTP */
        if (next != PK_NEXT_TYPE(0x880b) || (flags & 0xe000) != 0x2000)
            return pk_parse_stop(parser, PK_REASON_BAD_HEADER);
        if ((flags & 0x1000) == 0) /* acknowledges only */
            return pk_parse_stop(parser, PK_REASON_TUNNEL);
        if ((flags & 0x0080) != 0)
            size += 4;
    }
    parser->is_tagging = parser->flow.tags == 0;
    if ((flags & 0x2007) == 0x2000 && parser->is_tagging) {
        __u32 at = (flags & 0xc000) != 0 ? 8 : 4;
        if (pk_parse_lacks(parser, at + 4))
            return PK_NEXT_NONE;
        parser->flow.gre_key = pk_load_be32(p + at);
        parser->flow.tags = PK_TAG_GRE_KEY;
    }
    parser->offset += size;
    if (next == PK_NEXT_TYPE(0x880b))
        next = PK_NEXT_PPP;
    else if (next == PK_NEXT_TYPE(0x88be)) /* ERSPAN I has no header, and no sequence number */
        next = (flags & 0x1000) != 0 ? PK_NEXT_ERSPAN : PK_NEXT_ETHERNET;
    else if (next == PK_NEXT_TYPE(0x22eb))
        next = PK_NEXT_ERSPAN;
    if ((flags & 0x4000) == 0)
        return next;
    parser->after_route = next;
    return PK_NEXT_GRE_ROUTE;
}

/* Of a list that an empty entry ends. */
PK_INLINE __u32 pk_parse_gre_route(struct pk_parser *parser)
{
    if (pk_parse_lacks(parser, 4))
        return PK_NEXT_NONE;
    __u32 size = pk_parse_at(parser, parser->offset)[3];
    parser->offset += 4 + size;
    return size != 0 ? PK_NEXT_GRE_ROUTE : parser->after_route;
}

PK_INLINE __u32 pk_parse_erspan(struct pk_parser *parser)
{
    if (pk_parse_lacks(parser, 8))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    if (parser->is_tagging && (p[0] >> 4 == 1 || p[0] >> 4 == 2)) {
        parser->flow.erspan_session = pk_load_be16(p + 2) & 0x3ff;
        parser->flow.tags |= PK_TAG_ERSPAN;
        parser->is_tagging = 0;
    }
    if (p[0] >> 4 == 1) {
        parser->offset += 8;
        return PK_NEXT_ETHERNET;
    }
    if (p[0] >> 4 != 2)
        return pk_parse_stop(parser, PK_REASON_BAD_HEADER);
    if (pk_parse_lacks(parser, 12))
        return PK_NEXT_NONE;
    __u32 frame = p[10] >> 2 & 31;
    parser->offset += (p[11] & 1) != 0 ? 20 : 12;
    return frame == 0 ? PK_NEXT_ETHERNET : frame == 2 ? PK_NEXT_IP : PK_NEXT_UNKNOWN;
}

/* A VNI, in the first 3 bytes at p. */
PK_INLINE void pk_parse_vni(struct pk_parser *parser, const __u8 *p)
{
    if (parser->flow.tags != 0)
        return;
    parser->flow.vni = pk_load_be32(p) >> 8;
    parser->flow.tags = PK_TAG_VNI;
}

PK_INLINE __u32 pk_parse_vxlan(struct pk_parser *parser, int is_gpe)
{
    if (pk_parse_lacks(parser, 8))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    if ((p[0] & 8) == 0)
        return pk_parse_stop(parser, PK_REASON_BAD_HEADER);
    parser->offset += 8;
    pk_parse_vni(parser, p + 4);
    if (!is_gpe || (p[0] & 4) == 0)
        return PK_NEXT_ETHERNET;
    switch (p[3]) {
    case 1:
        return PK_NEXT_TYPE(0x0800);
    case 2:
        return PK_NEXT_TYPE(0x86dd);
    case 3:
        return PK_NEXT_ETHERNET;
    case 5:
        return PK_NEXT_TYPE(0x8847);
    default:
        return PK_NEXT_UNKNOWN;
    }
}

PK_INLINE __u32 pk_parse_geneve(struct pk_parser *parser)
{
    if (pk_parse_lacks(parser, 8))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    if ((p[0] & 0xc0) != 0)
        return pk_parse_stop(parser, PK_REASON_BAD_HEADER);
    parser->offset += 8 + (p[0] & 63u) * 4;
    pk_parse_vni(parser, p + 4);
    return PK_NEXT_TYPE(0) | PK_LOAD(__u16, p + 2);
}

PK_INLINE __u32 pk_parse_gtp(struct pk_parser *parser)
{
    if (pk_parse_lacks(parser, 8))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    if ((p[0] & 0xf0) != 0x30)
        return pk_parse_stop(parser, PK_REASON_BAD_HEADER);
    if (p[1] != 0xff) /* the tunnel's own messages */
        return pk_parse_stop(parser, PK_REASON_TUNNEL);
    if ((p[0] & 7) == 0) {
        parser->offset += 8;
        return PK_NEXT_IP;
    }
    if (pk_parse_lacks(parser, 12))
        return PK_NEXT_NONE;
    parser->offset += 12;
    return (p[0] & 4) != 0 && p[11] != 0 ? PK_NEXT_GTP_EXTENSION : PK_NEXT_IP;
}

PK_INLINE __u32 pk_parse_gtp_extension(struct pk_parser *parser)
{
    if (pk_parse_lacks(parser, 4))
        return PK_NEXT_NONE;
    __u32 size = *pk_parse_at(parser, parser->offset) * 4u;
    if (size == 0)
        return pk_parse_stop(parser, PK_REASON_BAD_HEADER);
    if (pk_parse_lacks(parser, size))
        return PK_NEXT_NONE;
    parser->offset += size;
    return *pk_parse_at(parser, parser->offset - 1) != 0 ? PK_NEXT_GTP_EXTENSION : PK_NEXT_IP;
}

/* Authentication and origin may come before the IPv6 packet. */
PK_INLINE __u32 pk_parse_teredo(struct pk_parser *parser)
{
    if (pk_parse_lacks(parser, 8))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    if ((p[0] & 0xf0) == 0x60)
        return PK_NEXT_TYPE(0x86dd);
    if (p[0] != 0 || p[1] > 1)
        return pk_parse_stop(parser, PK_REASON_BAD_HEADER);
    parser->offset += p[1] == 0 ? 8 : 13u + p[2] + p[3];
    return PK_NEXT_TEREDO;
}

/* An identity and a signature, each of a stated size, before the packet. */
PK_INLINE __u32 pk_parse_ayiya(struct pk_parser *parser)
{
    if (pk_parse_lacks(parser, 8))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    if ((p[2] & 15) != 1) /* only this one forwards a packet */
        return pk_parse_stop(parser, PK_REASON_TUNNEL);
    parser->offset += 8 + (1u << (p[0] >> 4)) + (p[1] >> 4) * 4u;
    return p[3] == 41  ? PK_NEXT_TYPE(0x86dd)
           : p[3] == 4 ? PK_NEXT_TYPE(0x0800)
                       : (__u32)PK_NEXT_UNKNOWN;
}

PK_INLINE __u32 pk_parse_pppoe(struct pk_parser *parser)
{
    if (pk_parse_lacks(parser, 6))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    if (p[0] != 0x11)
        return pk_parse_stop(parser, PK_REASON_BAD_HEADER);
    if (p[1] != 0)
        return pk_parse_stop(parser, PK_REASON_ENCAPSULATED);
    parser->offset += 6;
    pk_parse_limit(parser, pk_load_be16(p + 4));
    return PK_NEXT_PPP;
}

PK_INLINE __u32 pk_parse_ppp(struct pk_parser *parser)
{
    if (pk_parse_lacks(parser, 4))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    __u32 skip = p[0] == 0xff && p[1] == 3 ? 2 : 0;
    __u32 protocol = skip != 0 ? p[2] : p[0], size = 1;
    if ((protocol & 1) == 0) { /* not compressed to one byte */
        protocol = protocol << 8 | (skip != 0 ? p[3] : p[1]);
        size = 2;
    }
    parser->offset += skip + size;
    switch (protocol) {
    case 0x21:
        return PK_NEXT_TYPE(0x0800);
    case 0x57:
        return PK_NEXT_TYPE(0x86dd);
    case 0x281:
        return PK_NEXT_TYPE(0x8847);
    default:
        return pk_parse_stop(parser, PK_REASON_ENCAPSULATED);
    }
}

/* Does an Ethernet header seem to be there? 15 bytes are read. */
PK_INLINE int pk_looks_like_ethernet(const __u8 *p)
{
    switch (PK_LOAD(__u16, p + 12)) {
    case PK_BE16(0x0800):
        return p[14] >> 4 == 4;
    case PK_BE16(0x86dd):
        return p[14] >> 4 == 6;
    case PK_BE16(0x0806):
    case PK_BE16(0x8100):
    case PK_BE16(0x88a8):
    case PK_BE16(0x9100):
    case PK_BE16(0x8847):
    case PK_BE16(0x8848):
    case PK_BE16(0x8864):
    case PK_BE16(0x88e7):
    case PK_BE16(0x8903):
    case PK_BE16(0x8926):
        return 1;
    default:
        return 0;
    }
}

/* A label does not say what is under it. IP tells by its version, and where that may as well be an
 * address, by its length, which is that of all that is left, or less in the shortest frames. A
 * pseudowire's control word begins with half a byte of 0, as do many MAC addresses. */
PK_INLINE __u32 pk_parse_mpls_payload(struct pk_parser *parser)
{
    if (pk_parse_lacks(parser, 15))
        return PK_NEXT_NONE;
    const __u8 *p = pk_parse_at(parser, parser->offset);
    __u32 room = parser->end - parser->offset, length;
    switch (p[0] >> 4) {
    case 4:
        length = pk_load_be16(p + 2);
        if (length != room && (length > room || room > 46) && pk_looks_like_ethernet(p))
            return PK_NEXT_ETHERNET;
        return PK_NEXT_TYPE(0x0800);
    case 6:
        length = pk_load_be16(p + 4) + 40u;
        if (length != room && (length > room || room > 46) && pk_looks_like_ethernet(p))
            return PK_NEXT_ETHERNET;
        return PK_NEXT_TYPE(0x86dd);
    case 0:
        if (!pk_looks_like_ethernet(p))
            parser->offset += 4;
        return PK_NEXT_ETHERNET;
    case 1: /* of the pseudowire itself, unless it is an address */
        if (!pk_looks_like_ethernet(p))
            return pk_parse_stop(parser, PK_REASON_ENCAPSULATED);
        return PK_NEXT_ETHERNET;
    default:
        return PK_NEXT_ETHERNET;
    }
}

/* A header of fixed size, whose last two bytes may be the EtherType of what follows. */
PK_INLINE __u32 pk_parse_typed(struct pk_parser *parser, __u32 size)
{
    if (pk_parse_lacks(parser, size))
        return PK_NEXT_NONE;
    parser->offset += size;
    return PK_NEXT_TYPE(0) | PK_LOAD(__u16, pk_parse_at(parser, parser->offset - 2));
}

PK_INLINE __u32 pk_parse_vlan(struct pk_parser *parser)
{
    struct pk_flow *flow = &parser->flow;
    if (parser->tags++ >= PK_PARSE_TAGS)
        return pk_parse_stop(parser, PK_REASON_VLAN_DEPTH);
    if (pk_parse_lacks(parser, 4))
        return PK_NEXT_NONE;
    if (parser->is_outermost) {
        __u16 id = pk_load_be16(pk_parse_at(parser, parser->offset)) & 0xfff;
        if (flow->vlans == 0)
            flow->vlan[0] = id;
        else if (flow->vlans == 1)
            flow->vlan[1] = id;
        flow->vlans++;
    }
    return pk_parse_typed(parser, 4);
}

PK_INLINE __u32 pk_parse_header(struct pk_parser *parser)
{
    __u32 next = parser->next;
    const __u8 *p;
    switch (next) {
    case PK_NEXT_TYPE(0x6558):
    case PK_NEXT_ETHERNET:
        parser->tags = 0;
        parser->is_outermost = parser->offset == 0;
        return pk_parse_typed(parser, 14);
    case PK_NEXT_TYPE(0x8100):
    case PK_NEXT_TYPE(0x88a8):
    case PK_NEXT_TYPE(0x9100):
        return pk_parse_vlan(parser);
    case PK_NEXT_TYPE(0x8926): /* VN-Tag */
        return pk_parse_typed(parser, 6);
    case PK_NEXT_TYPE(0x88e7): /* provider backbone bridge */
        parser->offset += 4;
        return PK_NEXT_ETHERNET;
    case PK_NEXT_TYPE(0x8903): /* FabricPath: 2 bytes, and the whole frame */
        parser->offset += 2;
        return PK_NEXT_ETHERNET;
    case PK_NEXT_TYPE(0x8847):
    case PK_NEXT_TYPE(0x8848):
        if (pk_parse_lacks(parser, 4))
            return PK_NEXT_NONE;
        p = pk_parse_at(parser, parser->offset);
        parser->offset += 4;
        return (p[2] & 1) != 0 ? (__u32)PK_NEXT_MPLS_PAYLOAD : PK_NEXT_TYPE(0x8847);
    case PK_NEXT_MPLS_PAYLOAD:
        return pk_parse_mpls_payload(parser);
    case PK_NEXT_TYPE(0x8864):
        return pk_parse_pppoe(parser);
    case PK_NEXT_TYPE(0x8863): /* PPPoE discovery */
    case PK_NEXT_TYPE(0x88e5): /* MACsec */
    case PK_NEXT_TYPE(0x88be): /* ERSPAN, but not in GRE */
    case PK_NEXT_TYPE(0x22eb):
        return pk_parse_stop(parser, PK_REASON_ENCAPSULATED);
    case PK_NEXT_PPP:
        return pk_parse_ppp(parser);

    case PK_NEXT_IP:
        if (pk_parse_lacks(parser, 1))
            return PK_NEXT_NONE;
        p = pk_parse_at(parser, parser->offset);
        return p[0] >> 4 == 4   ? PK_NEXT_TYPE(0x0800)
               : p[0] >> 4 == 6 ? PK_NEXT_TYPE(0x86dd)
                                : (__u32)PK_NEXT_UNKNOWN;
    case PK_NEXT_TYPE(0x0800):
        return pk_parse_ip4(parser);
    case PK_NEXT_TYPE(0x86dd):
        return pk_parse_ip6(parser);
    case PK_NEXT_PROTOCOL(0):  /* hop-by-hop options */
    case PK_NEXT_PROTOCOL(43): /* routing */
    case PK_NEXT_PROTOCOL(44): /* fragment */
    case PK_NEXT_PROTOCOL(51): /* AH */
    case PK_NEXT_PROTOCOL(60): /* destination options */
        return pk_parse_extension(parser, next & 0xff);
    case PK_NEXT_PROTOCOL(1):
    case PK_NEXT_PROTOCOL(58):
        return pk_parse_icmp(parser, next & 0xff);
    case PK_NEXT_PROTOCOL(50):
        /* Tools that know no SPI have one flow for all of two addresses' ESP. */
        if (parser->mode == PK_HASH_OUTER)
            return pk_parse_stop(parser, PK_REASON_OTHER_PROTOCOL);
        return pk_parse_transport(parser, 50);
    case PK_NEXT_PROTOCOL(6):
    case PK_NEXT_PROTOCOL(17):
    case PK_NEXT_PROTOCOL(132):
        return pk_parse_transport(parser, next & 0xff);

    case PK_NEXT_PROTOCOL(4):
        return pk_parse_enter(parser) ? PK_NEXT_TYPE(0x0800) : (__u32)PK_NEXT_NONE;
    case PK_NEXT_PROTOCOL(41):
        return pk_parse_enter(parser) ? PK_NEXT_TYPE(0x86dd) : (__u32)PK_NEXT_NONE;
    case PK_NEXT_PROTOCOL(47):
        return pk_parse_gre(parser);
    case PK_NEXT_PROTOCOL(97): /* EtherIP */
        parser->offset += 2;
        return pk_parse_enter(parser) ? PK_NEXT_ETHERNET : PK_NEXT_NONE;
    case PK_NEXT_PROTOCOL(137): /* MPLS in IP */
        return pk_parse_enter(parser) ? PK_NEXT_TYPE(0x8847) : (__u32)PK_NEXT_NONE;
    case PK_NEXT_PROTOCOL(55):  /* minimal encapsulation */
    case PK_NEXT_PROTOCOL(94):  /* IPIP */
    case PK_NEXT_PROTOCOL(98):  /* RFC 1241 */
    case PK_NEXT_PROTOCOL(115): /* L2TPv3 */
        return pk_parse_stop(parser, PK_REASON_TUNNEL);
    case PK_NEXT_GRE_ROUTE:
        return pk_parse_gre_route(parser);
    case PK_NEXT_ERSPAN:
        return pk_parse_erspan(parser);
    case PK_NEXT_VXLAN:
        return pk_parse_vxlan(parser, 0);
    case PK_NEXT_VXLAN_GPE:
        return pk_parse_vxlan(parser, 1);
    case PK_NEXT_GENEVE:
        return pk_parse_geneve(parser);
    case PK_NEXT_GTP:
        return pk_parse_gtp(parser);
    case PK_NEXT_GTP_EXTENSION:
        return pk_parse_gtp_extension(parser);
    case PK_NEXT_TEREDO:
        return pk_parse_teredo(parser);
    case PK_NEXT_AYIYA:
        return pk_parse_ayiya(parser);
    default:
        return pk_parse_stop(parser, next >= PK_NEXT_PROTOCOL(0) ? PK_REASON_OTHER_PROTOCOL
                                                                 : PK_REASON_NON_IP);
    }
}

/* Is what comes next a frame, or a packet, in the first tunnel? */
PK_INLINE int pk_parse_is_frame(const struct pk_parser *parser, __u32 next)
{
    return parser->inside && !parser->quoted &&
           (next == PK_NEXT_ETHERNET || next == PK_NEXT_IP ||
            (next >= PK_NEXT_TYPE(0) && next < PK_NEXT_PROTOCOL(0)));
}

/*
 * Reads header after header. One loop in one function, since each return costs as much as a header
 * where the kernel guards returns. What the parser knows lies in memory between two headers, not in
 * registers: so all paths through a header meet in one state, and the verifier walks each header
 * once per turn instead of once for each way to get there.
 */
PK_PROVED_ONCE int pk_parse_headers(struct pk_parser *parser)
{
    if (!parser)
        return 0;
    for (__u32 i = 0; i < PK_PARSE_HEADERS; i++) {
        __u32 next = pk_parse_header(parser);
        if (next == PK_NEXT_NONE)
            return 1;
        if (parser->until_frame && pk_parse_is_frame(parser, next)) {
            parser->after = next; /* and parser->next is the tunnel's header */
            return 1;
        }
        parser->next = next;
        asm volatile("" ::: "memory");
    }
    return 0;
}

#endif
