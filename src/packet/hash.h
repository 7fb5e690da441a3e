/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The flow hash, for BPF and user space. Order-free: each end (address and port) is mixed with the
 * seed, both results are joined by XOR and by SUM, and a finaliser spreads them. The mix before the
 * join matters: XOR and SUM of the bare ends stay the same when bits are swapped between them, with
 * any seed, so that a scan could be made to fall on one lane.
 */
#ifndef PICKET_PACKET_HASH_H
#define PICKET_PACKET_HASH_H

#include <linux/types.h>

#define PK_INLINE static inline __attribute__((always_inline))

#define PK_HASH_SLOTS 65537u

/* What of a packet is hashed; part of the pinned maps' layout (broker/bpf/abi.h). */
enum pk_hash_mode {
    PK_HASH_OUTER,     /* addresses, ports and protocol; of a tunnel its own two addresses */
    PK_HASH_FLOW,      /* addresses, ports and protocol of the innermost flow */
    PK_HASH_ADDRESSES, /* its two addresses alone */
    PK_HASH_MODES
};

PK_INLINE __u64 pk_hash_mix(__u64 x, __u64 seed)
{
    x = (x ^ seed) * 0x9e3779b97f4a7c15ull; /* 2^64 / golden ratio */
    return x ^ x >> 32;
}

/* One end of a flow. Addresses and ports as they are in the packet. */
PK_INLINE __u64 pk_hash_end4(__u32 address, __u16 port, __u64 seed)
{
    return pk_hash_mix((__u64)address << 16 | port, seed);
}

PK_INLINE __u64 pk_hash_end6(__u64 high, __u64 low, __u16 port, __u64 seed)
{
    return pk_hash_mix(pk_hash_mix(high, seed) + low, ~seed) + pk_hash_mix(port, seed);
}

PK_INLINE __u64 pk_hash_join64(__u64 a, __u64 b, __u8 proto)
{
    __u64 sum = a + b;
    __u64 x = (a ^ b) + (sum << 23 | sum >> 41) + proto;
    /* MurmurHash3's 64-bit finaliser (Appleby, public domain). */
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x;
}

PK_INLINE __u32 pk_hash_join(__u64 a, __u64 b, __u8 proto)
{
    return (__u32)(pk_hash_join64(a, b, proto) >> 32);
}

/* A slot by the upper end of a product: no division, and even to 1 part in 65,536. */
PK_INLINE __u32 pk_hash_slot(__u32 hash)
{
    return (__u32)((__u64)hash * PK_HASH_SLOTS >> 32);
}

#endif
