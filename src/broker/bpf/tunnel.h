/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A tunnel tap's first step: takes what mirrors send to this machine, opens it, and leaves all else
 * to the machine. What is in a tunnel then goes through the tap like a frame of an interface; the
 * tunnel's numbers (VNI, key, session) stay in parser->around for the choice of the tenant.
 */
#ifndef PICKET_BROKER_BPF_TUNNEL_H
#define PICKET_BROKER_BPF_TUNNEL_H

#include "packet/tunnel.h"

const volatile struct pk_tunnel_rules tunnel;

/* The datagram's own memory, apart from that of flows: whether it is the mirror's. */
static __always_inline void tunnel_fragment_key(const struct pk_parser *parser, __u32 tap,
                                                struct pk_fragment_key *ret_key)
{
    pk_fragment_key_for(&parser->flow.fragment[0], 0x8000u | tap,
                        parser->flow.fragment[0].key.scope, ret_key);
}

static __always_inline int tunnel_knows_fragment(const struct pk_parser *parser, __u32 tap)
{
    struct pk_fragment_key key;
    tunnel_fragment_key(parser, tap, &key);
    return pk_fragment_known(0, &parser->flow.fragment[0], &key, pk_fragment_now(0)) != 0;
}

static __always_inline void tunnel_note_fragment(const struct pk_parser *parser, __u32 tap)
{
    struct pk_fragment_key key;
    struct pk_fragment_entry entry = { .time = pk_fragment_now(0) };
    tunnel_fragment_key(parser, tap, &key);
    pk_fragment_store(0, &key, &entry);
}

/* Takes the outer headers off, and what was padded behind them. 0 = the frame is as it was. */
static __always_inline int tunnel_strip(struct xdp_md *ctx, const struct pk_parser *parser,
                                        __u32 size)
{
    __u32 strip = parser->offset, rest = size - parser->end;
    int ethernet = pk_tunnel_has_ethernet(parser->after);
    __u16 type = ethernet ? 0 : pk_tunnel_ethertype(parser);
    if (!ethernet && (type == 0 || strip < 14))
        return 0;
    if (!ethernet)
        strip -= 14;
    if (bpf_xdp_adjust_head(ctx, (int)strip) < 0)
        return 0;
    if (rest != 0 && rest < 64)
        (void)bpf_xdp_adjust_tail(ctx, -(int)rest);
    if (ethernet)
        return 1;
    __u8 *data = (__u8 *)(long)ctx->data;
    if (data + 14 > (const __u8 *)(long)ctx->data_end)
        return 1;
    /* 02:70:6b:00:00:02 to :01, locally administered: nobody's. */
    *(__u32 *)data = 0x006b7002;
    *(__u32 *)(data + 4) = 0x70020100;
    *(__u32 *)(data + 8) = 0x0200006b;
    *(__u16 *)(data + 12) = type;
    return 1;
}

/* 1 = the frame, now without its outer headers, is the tap's; 0 = it is the machine's. */
static __noinline int tunnel_open(struct xdp_md *ctx, __u32 tap)
{
    __u32 zero = 0, size = (__u32)bpf_xdp_get_buff_len(ctx), part = size;
    const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    struct pk_tap_counters *count = bpf_map_lookup_elem(&pk_tap_counts, &tap);
    if (!parser || !count)
        return 0;
    parser->around.tags = 0;
    if (pk_tunnel_is_other(data, end)) {
        count->passed++;
        return 0;
    }
    if (part > PK_PARSE_WINDOW)
        part = PK_PARSE_WINDOW;
    if (!copy_start(data, end, part, parser->window)) {
        asm volatile("" : "+r"(part)); /* Linux 6.1's verifier has lost the bound by now */
        if (part < 1 || part > PK_PARSE_WINDOW ||
            bpf_xdp_load_bytes(ctx, 0, parser->window, part) < 0) {
            count->passed++;
            return 0;
        }
    }
    const struct pk_tunnel_rules *rules = (const struct pk_tunnel_rules *)&tunnel;
    asm volatile("" : "+r"(rules)); /* or clang takes them for the zeros that they are here */
    pk_tunnel_begin(parser, rules, size);
    (void)pk_parse_headers(parser);
    __u32 verdict = pk_tunnel_judge(parser, rules);
    if (verdict == PK_TUNNEL_LATER && !tunnel_knows_fragment(parser, tap))
        verdict = PK_TUNNEL_OTHER;
    if (verdict == PK_TUNNEL_OTHER || verdict == PK_TUNNEL_BAD) {
        count->passed++;
        if (verdict == PK_TUNNEL_BAD)
            count->reasons[PK_REASON_MIRROR_BAD]++;
        return 0;
    }
    if (verdict == PK_TUNNEL_FIRST)
        tunnel_note_fragment(parser, tap);
    if (verdict != PK_TUNNEL_FRAME || tunnel.keep) {
        if (verdict != PK_TUNNEL_FRAME)
            count->reasons[PK_REASON_MIRROR_FRAGMENT]++;
        return 1;
    }
    if (!tunnel_strip(ctx, parser, size)) {
        count->reasons[PK_REASON_MIRROR_CLOSED]++;
        return 1;
    }
    parser->around.tags = parser->flow.tags;
    parser->around.vni = parser->flow.vni;
    parser->around.gre_key = parser->flow.gre_key;
    parser->around.erspan_session = parser->flow.erspan_session;
    return 1;
}

/* Between pk_parse_begin() and pk_parse_all() of what was in the tunnel: the outermost tunnel with
 * a number is the one that was opened. */
static __always_inline void tunnel_numbers(struct pk_parser *parser)
{
    if (!tunnel.types || parser->around.tags == 0)
        return;
    parser->flow.tags = parser->around.tags;
    parser->flow.vni = parser->around.vni;
    parser->flow.gre_key = parser->around.gre_key;
    parser->flow.erspan_session = parser->around.erspan_session;
}

#endif
