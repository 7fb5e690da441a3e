// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Makes packets of many flows out of one, for BPF_PROG_RUN with live frames: the kernel sends each
 * as if a driver had received it. Hands them to the broker's tap program, sends them straight into
 * a veth, or drops them, which tells what making them costs. Frames are used again with what was
 * written into them, so all that changes is written each time.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define FLOWS 16384 /* power of 2 */

const volatile __u32 to_broker;
const volatile __u32 to_nowhere;
const volatile __u32 imix;
__u32 counter; /* one thread runs this */

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} tap SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} wire SEC(".maps");

SEC("xdp.frags")
int generate(struct xdp_md *ctx)
{
    __u32 n = counter++;
    if (imix) {
        /* 7 : 4 : 1 of 64, 594 and 1,518 bytes on the wire, of which 4 are the checksum */
        __u32 kind = n % 12;
        int cut = kind < 7 ? 1514 - 60 : kind < 11 ? 1514 - 590 : 0;
        if (cut && bpf_xdp_adjust_tail(ctx, -cut) < 0)
            return XDP_ABORTED;
    }
    __u8 *p = (__u8 *)(long)ctx->data;
    if (p + 42 > (__u8 *)(long)ctx->data_end)
        return XDP_ABORTED;
    __u32 flow = n * 2654435761u >> 18; /* 14 bits, in no order */
    *(__u32 *)(p + 26) = 0x0a | (flow & 0xff) << 24 | (flow >> 8) << 16;
    *(__u16 *)(p + 34) = (__u16)(flow ^ 0x5555);
    /* Valid, as bridges drop what is not: the length of what was cut, and the checksum. */
    __u16 *ip = (__u16 *)(p + 14), length = (__u16)(ctx->data_end - ctx->data - 14);
    __u32 sum = 0;
    ip[1] = (__u16)(length << 8 | length >> 8);
    ip[5] = 0;
    for (__u32 i = 0; i < 10; i++)
        sum += ip[i];
    sum = (sum & 0xffff) + (sum >> 16);
    ip[5] = (__u16) ~(sum + (sum >> 16));
    if (to_broker) {
        bpf_tail_call(ctx, &tap, 0);
        return XDP_ABORTED;
    }
    if (to_nowhere)
        return XDP_DROP;
    return (int)bpf_redirect_map(&wire, 0, XDP_ABORTED);
}

char _license[] SEC("license") = "GPL";
