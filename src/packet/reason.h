/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Why a packet was not taken by its own flow's ports, or not delivered. The one table: the BPF
 * programs count by number, JSON and documentation show the names. The order is part of the pinned
 * maps' layout: new rows go to the end and raise PK_BROKER_ABI (broker/bpf/abi.h).
 */
#ifndef PICKET_PACKET_REASON_H
#define PICKET_PACKET_REASON_H

/* clang-format off */
#define PK_REASONS(X)                                                                              \
    X(NONE,             "",                 "parsed whole: both ends' addresses and ports")         \
    X(NON_IP,           "non-ip",           "neither IPv4 nor IPv6: the group's first lane")        \
    X(VLAN_DEPTH,       "vlan-depth",       "more than three VLAN tags: the group's first lane")    \
    X(ENCAPSULATED,     "encapsulated",     "PPP control, MACsec and the like: the first lane")     \
    X(BAD_HEADER,       "bad-header",       "a header contradicts itself: the group's first lane")  \
    X(TRUNCATED,        "truncated",        "ends within its headers: the group's first lane")      \
    X(TOO_DEEP,         "too-deep",         "too many or too long headers: the group's first lane") \
    X(TUNNEL,           "tunnel",           "a tunnel, not looked into: by the tunnel's addresses") \
    X(OTHER_PROTOCOL,   "other-protocol",   "a protocol without ports: by address pair")            \
    X(FRAGMENT_UNKNOWN, "fragment-unknown", "a fragment before its first one: by address pair")     \
    X(NO_LANE,          "no-lane",          "the group has no lane: dropped")                       \
    X(NOT_SENT,         "not-sent",         "the redirect failed: dropped")                         \
    X(TUNNEL_BAD,       "tunnel-malformed", "cut or contradictory inside: by the tunnel's addresses") \
    X(TUNNEL_DEEP,      "tunnel-too-deep",  "too many or too long headers: by the tunnel's addresses") \
    X(TENANT_UNKNOWN,   "tenant-unknown",   "a fragment whose tenant is not known: dropped")        \
    X(MIRROR_BAD,       "mirror-malformed", "a tunnel to this machine that contradicts itself: left to the machine") \
    X(MIRROR_FRAGMENT,  "mirror-fragment",  "a fragment of a mirror's packet: delivered with its outer headers") \
    X(MIRROR_CLOSED,    "mirror-closed",    "the tunnel's headers are not in one piece: delivered with them") \
    X(UNWANTED,         "unwanted",         "no group wanted it (filters, shunts): dropped")
/* clang-format on */

enum pk_reason {
#define PK_REASON_ENUM(id, name, text) PK_REASON_##id,
    PK_REASONS(PK_REASON_ENUM)
#undef PK_REASON_ENUM
        PK_REASON_COUNT
};

#endif
