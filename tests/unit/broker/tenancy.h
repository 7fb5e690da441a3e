/* SPDX-License-Identifier: Apache-2.0 */
/* Random tenants, and random packets of which it is known whose they are: told by how they were
 * made, not by reading them. */
#ifndef PICKET_TESTS_BROKER_TENANCY_H
#define PICKET_TESTS_BROKER_TENANCY_H

#include "encap.h"
#include "plane.h"

#define TENANCY_FLOWS 24u
#define TENANCY_MOST  6u /* tenants */
#define TENANCY_EACH  4u /* selectors of a kind */
#define TENANCY_NONE  255u
#define TENANCY_PARTS 2u /* packets that tenancy_packets() makes at once */

struct tenancy {
    struct frames_rng rng;
    struct frames_flow flows[TENANCY_FLOWS];
    struct pk_broker_tenant tenants[TENANCY_MOST];
    size_t count;
    char names[TENANCY_MOST][24];
    struct pk_broker_vlan vlans[TENANCY_MOST][TENANCY_EACH];
    uint32_t vnis[TENANCY_MOST][TENANCY_EACH], gre_keys[TENANCY_MOST][TENANCY_EACH];
    uint16_t sessions[TENANCY_MOST][TENANCY_EACH];
    struct pk_broker_prefix prefixes[TENANCY_MOST][TENANCY_EACH];
    /* Targets: groups of the plane, each of one tenant or of none. */
    const char *groups[PLANE_GROUPS], *tenant_names[PLANE_GROUPS];
    unsigned tenant_of[PLANE_GROUPS]; /* of a group by number; UINT32_MAX = it is no target */
    char group_names[PLANE_GROUPS][24];
    size_t target_count;
    uint32_t next_id; /* of datagrams */
};

struct tenancy_packet {
    uint8_t frame[ENCAP_ROOM + 64];
    size_t len;
    unsigned tenant;  /* its number, or TENANCY_NONE */
    bool may_be_lost; /* a fragment that may not tell whose it is */
};

/* New tenants, targets and flows. */
void tenancy_random(struct tenancy *tenancy, unsigned groups);
void tenancy_attach(struct tenancy *tenancy, struct plane *plane);
/* One packet, or the first and a later fragment of a datagram in that order; how many. */
size_t tenancy_packets(struct tenancy *tenancy, struct tenancy_packet packets[TENANCY_PARTS]);

#endif
