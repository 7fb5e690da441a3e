// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* pk_filter_mask() alone, as a tap's program calls it. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "broker/bpf/filter.h"
#include "packet/parse.h"

__u32 channel;
__u64 mask;

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct pk_parser);
} parsers SEC(".maps");

SEC("xdp.frags")
int filter_probe(struct xdp_md *ctx)
{
    __u32 zero = 0, size = (__u32)bpf_xdp_get_buff_len(ctx);
    struct pk_parser *parser = bpf_map_lookup_elem(&parsers, &zero);
    if (!parser)
        return XDP_DROP;
    __u64 last = (size > PK_PARSE_WINDOW ? PK_PARSE_WINDOW : size) - 1;
    asm volatile("" : "+r"(last)); /* or clang drops the check, and Linux 6.1 does not see why */
    if (last >= PK_PARSE_WINDOW || bpf_xdp_load_bytes(ctx, 0, parser->window, (__u32)last + 1) < 0)
        return XDP_DROP;
    pk_parse(parser, size, PK_HASH_FLOW);
    mask = pk_filter_mask(parser, size, channel);
    return XDP_PASS;
}

/* Another function behind, which must be found where it was. */
SEC("xdp.frags")
int filter_none(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
