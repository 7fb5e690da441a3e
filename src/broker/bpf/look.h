/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What flow is a packet of, and where in the groups' tables is it? */
#ifndef PICKET_BROKER_BPF_LOOK_H
#define PICKET_BROKER_BPF_LOOK_H

#include "broker/bpf/maps.h"
#include "packet/decide.h"

static __always_inline struct pk_fragment_entry *pk_fragment_find(struct pk_fragment_memory *memory,
                                                                  const struct pk_fragment_key *key)
{
    (void)memory;
    return bpf_map_lookup_elem(&pk_fragments, key);
}

static __always_inline void pk_fragment_store(struct pk_fragment_memory *memory,
                                              const struct pk_fragment_key *key,
                                              const struct pk_fragment_entry *entry)
{
    (void)memory;
    bpf_map_update_elem(&pk_fragments, key, entry, BPF_ANY);
}

static __always_inline __u64 pk_fragment_now(struct pk_fragment_memory *memory)
{
    (void)memory;
    return bpf_ktime_get_coarse_ns();
}

/* Copies size bytes of a packet, size <= PK_PARSE_WINDOW; 0 = they are not all in its first buffer.
 * bpf_xdp_load_bytes() does the same for some 50 ns more. */
static __always_inline int copy_start(const __u8 *data, const __u8 *end, __u32 size, __u8 *out)
{
    __u32 at = 0;
    for (__u32 i = 0; i < PK_PARSE_WINDOW / 32; i++) {
        const __u64 *from = (const __u64 *)(data + at);
        if ((const __u8 *)(from + 4) > end)
            break;
        __u64 *to = (__u64 *)(out + at);
        to[0] = from[0];
        to[1] = from[1];
        to[2] = from[2];
        to[3] = from[3];
        at += 32;
    }
    /* The rest in powers of 2. at <= PK_PARSE_WINDOW, and the window has room beyond that. */
#define COPY_ONE(type)                                    \
    if (at < size && data + at + sizeof(type) <= end) {   \
        *(type *)(out + at) = *(const type *)(data + at); \
        at += sizeof(type);                               \
    }
    COPY_ONE(__u64)
    COPY_ONE(__u64)
    COPY_ONE(__u64)
    COPY_ONE(__u32)
    COPY_ONE(__u16)
    COPY_ONE(__u8)
#undef COPY_ONE
    return at >= size;
}

static __always_inline int copy_window(struct xdp_md *ctx, __u32 size, struct pk_parser *parser)
{
    __u32 part = size > PK_PARSE_WINDOW ? PK_PARSE_WINDOW : size;
    if (copy_start((const __u8 *)(long)ctx->data, (const __u8 *)(long)ctx->data_end, part,
                   parser->window))
        return 1;
    asm volatile("" : "+r"(part)); /* Linux 6.1's verifier has lost the bound by now, */
    if (part > PK_PARSE_WINDOW)
        return 0;
    asm volatile("" : "+r"(part)); /* and clang would make one check of both */
    return part >= 1 && bpf_xdp_load_bytes(ctx, 0, parser->window, part) == 0;
}

#include "broker/bpf/tunnel.h"

/* What the parser has in its window; of a tunnel that was opened here, with its numbers. */
static __always_inline void parse(struct pk_parser *parser, __u32 size, __u32 mode)
{
    pk_parse_begin(parser, size, mode);
    tunnel_numbers(parser);
    pk_parse_all(parser);
}

/* Everything but plain packets with ports. */
static __noinline __u32 decide_slow(struct xdp_md *ctx, __u32 size, __u32 mode, __u32 *ret_hash)
{
    __u32 zero = 0;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    *ret_hash = 0;
    if (!parser || !copy_window(ctx, size, parser))
        return PK_REASON_TRUNCATED;
    parse(parser, size, mode);
    return pk_decide(0, &parser->flow, mode, seed, ret_hash);
}

/* Of a plain packet; 0 = it is not one. */
static __always_inline int parse_plain(struct xdp_md *ctx, struct pk_parser *parser)
{
    const __u8 *data = (const __u8 *)(long)ctx->data;
    const __u8 *end = (const __u8 *)(long)ctx->data_end;
    if (!pk_parse_plain(data, end, &parser->flow))
        return 0;
    tunnel_numbers(parser);
    return 1;
}

/* A packet's place by one mode: the reason, and the hash. */
static __always_inline __u32 decide(struct xdp_md *ctx, __u32 size, __u32 mode, __u32 *ret_hash)
{
    __u32 zero = 0;
    struct pk_parser *parser = bpf_map_lookup_elem(&pk_parsers, &zero);
    if (parser && parse_plain(ctx, parser)) {
        *ret_hash = pk_flow_hash(&parser->flow, mode, seed);
        return PK_REASON_NONE;
    }
    return decide_slow(ctx, size, mode, ret_hash);
}

#endif
