/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What is remembered of fragmented datagrams; part of the pinned maps' layout (broker/bpf/abi.h).
 */
#ifndef PICKET_PACKET_FRAGMENT_H
#define PICKET_PACKET_FRAGMENT_H

#include <linux/types.h>

#define PK_FRAGMENT_NSEC    30000000000ull /* as long as Linux waits for a datagram's rest */
#define PK_FRAGMENT_ENTRIES 65536u

struct pk_fragment_key {
    __u64 src[2];
    __u64 dst[2];
    __u32 id;
    __u32 proto; /* and what the entry is for (packet/decide.h) */
    __u64 scope;
};

struct pk_fragment_entry {
    __u64 time;
    __u32 hash;   /* or the tenant's number (packet/tenant.h) */
    __u32 orphan; /* left by a later fragment that came before the first one; or whose number */
};

#endif
