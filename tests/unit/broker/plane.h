/* SPDX-License-Identifier: Apache-2.0 */
/* A tap with several groups "f/g0", "f/g1", ..., each with real lanes that are read: which numbered
 * packets came to which of them. */
#ifndef PICKET_TESTS_BROKER_PLANE_H
#define PICKET_TESTS_BROKER_PLANE_H

#include "base/common.h"
#include "broker/broker.h"
#include "net.h"

#define PLANE_GROUPS  12u
#define PLANE_LANES   4u
#define PLANE_PACKETS 262144u
#define PLANE_TRAILER 8u /* bytes at a packet's end: "pk", '#', 0, number */

struct plane {
    struct pk_broker *broker;
    unsigned groups, lanes;
    struct net_lane lane[PLANE_GROUPS][PLANE_LANES];
    int readers[PLANE_GROUPS][PLANE_LANES];
    int sender; /* what is sent here comes in at the tap */
    unsigned tap, mtu;
    /* Per packet: how often it came to the group, and its last lane there. */
    uint8_t got[PLANE_GROUPS][PLANE_PACKETS];
    uint8_t in_lane[PLANE_GROUPS][PLANE_PACKETS];
    uint64_t foreign; /* packets without a number */
};

void plane_up(struct plane *plane, unsigned groups, unsigned lanes, unsigned mtu);
void plane_down(struct plane *plane);
void plane_open(struct plane *plane);
/* Slots to the first count lanes of a group. */
void plane_lanes(struct plane *plane, unsigned group, unsigned count, enum pk_hash_mode mode);
/* groups: names without "f/"; tenant_names[i] of each, or all NULL. */
void plane_attach(struct plane *plane, const struct pk_broker_tenant *tenants, size_t tenant_count,
                  const char *const groups[], const char *const tenant_names[], size_t count);

/* An IPv4 TCP frame of a flow, with its number at the end. */
void plane_frame(uint8_t *out, size_t len, uint16_t flow, uint32_t number);
void plane_number(uint8_t *frame, size_t len, uint32_t number);
/* Reads all lanes until nothing comes any more; how many packets came. */
unsigned plane_receive(struct plane *plane);
/* The same, but waits for that many first: some seconds at most. */
void plane_receive_all(struct plane *plane, unsigned count);
void plane_forget(struct plane *plane); /* what came so far */
unsigned plane_got(const struct plane *plane, unsigned group, uint32_t number);
/* The next packet of the group's lane 0 is this frame, its tag in its place. */
void plane_receive_one(struct plane *plane, unsigned group, const uint8_t *frame, size_t len);

uint64_t plane_count(struct plane *plane, unsigned group, const char *name);
/* The group's counters add up, to these (bytes: UINT64_MAX = whatever), and its lanes have all of
 * what was sent. */
void plane_sums(struct plane *plane, unsigned group, uint64_t packets, uint64_t bytes);

#endif
