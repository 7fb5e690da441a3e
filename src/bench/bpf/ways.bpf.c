// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* What the ways of 'picket bench net' need in the kernel besides the broker. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#define CONTAINERS_MAX 32 /* power of 2 */

/* Of the tc way: the outer ends of the containers' veths, those of a group in a row. */
const volatile __u32 outer[CONTAINERS_MAX];
const volatile __u32 groups;
const volatile __u32 lanes;

/* A copy for each group but the last, which takes the packet itself and without the way through the
 * outer end. */
SEC("tc")
int spread(struct __sk_buff *skb)
{
    __u32 lane = bpf_get_hash_recalc(skb) % (lanes ? lanes : 1);
    for (__u32 i = 0; i + 1 < groups && i < CONTAINERS_MAX; i++)
        bpf_clone_redirect(skb, outer[(i * lanes + lane) & (CONTAINERS_MAX - 1)], 0);
    return (int)bpf_redirect_peer(outer[((groups - 1) * lanes + lane) & (CONTAINERS_MAX - 1)], 0);
}

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} sockets SEC(".maps");

/* On a lane's inner end, in the place of the broker's gate. */
SEC("xdp")
int to_socket(struct xdp_md *ctx)
{
    return (int)bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

/* A veth that is sent frames needs a program at its other end. */
SEC("xdp")
int pass(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_PASS;
}

SEC("xdp")
int drop(struct xdp_md *ctx)
{
    (void)ctx;
    return XDP_DROP;
}

char _license[] SEC("license") = "GPL";
