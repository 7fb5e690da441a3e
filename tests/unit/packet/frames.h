/* SPDX-License-Identifier: Apache-2.0 */
/* Frames for tests and benches: random flows, and the ways in which a packet of one may look. */
#ifndef PICKET_TESTS_PACKET_FRAMES_H
#define PICKET_TESTS_PACKET_FRAMES_H

#include "base/common.h"

#define FRAMES_ROOM 2048

/* SplitMix64: the same sequence everywhere, from a seed that a failing test prints. */
struct frames_rng {
    uint64_t state;
};
uint64_t frames_next(struct frames_rng *rng);
uint32_t frames_below(struct frames_rng *rng, uint32_t limit);

struct frames_flow {
    uint8_t src[16];
    uint8_t dst[16];
    uint16_t sport;
    uint16_t dport;
    uint8_t family;
    uint8_t proto;
};
/* TCP, UDP or SCTP (or ICMP where icmp is set), IPv4 or IPv6; no tunnel's port. */
void frames_flow_random(struct frames_rng *rng, bool icmp, struct frames_flow *ret_flow);

enum frames_kind {
    FRAMES_PLAIN,    /* Ethernet, IP, transport and nothing else */
    FRAMES_WHOLE,    /* with random VLAN tags, options, extension headers */
    FRAMES_FIRST,    /* a first fragment, else as whole */
    FRAMES_LATER,    /* a later fragment */
    FRAMES_ICMP_ERR, /* an ICMP error from a third party that quotes a packet of the flow */
};
/* Writes a packet of the flow, reverse = from dst to src; returns its length. id: of the datagram,
 * for fragments. */
size_t frames_make(struct frames_rng *rng, const struct frames_flow *flow, enum frames_kind kind,
                   bool reverse, uint32_t id, uint8_t out[FRAMES_ROOM]);

/* Bends a frame: flips, cuts, swaps bytes, sets length fields; returns the new length, >= 14. */
size_t frames_mutate(struct frames_rng *rng, uint8_t *frame, size_t len);

#endif
