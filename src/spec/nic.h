/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a network interface is set up for a sensor: what the fleet file asks for (taps[].nic), what
 * an interface has, and what would be changed. The plan shows with the same code what the agent
 * then does. Pure.
 */
#ifndef PICKET_SPEC_NIC_H
#define PICKET_SPEC_NIC_H

#include <jansson.h>
#include <stdint.h>

#include "base/common.h"
#include "base/error.h"

/* Words in place of a number, as the fleet's table stores them (PK_FIELD_WORD()). */
#define PK_NIC_AUTO 0u
#define PK_NIC_MAX  UINT32_MAX        /* rings */
#define PK_NIC_KEEP (UINT32_MAX - 1u) /* rings */

#define PK_NIC_COALESCE_KEEP     0u
#define PK_NIC_COALESCE_ADAPTIVE UINT32_MAX

#define PK_NIC_RINGS_MAX    65536u
#define PK_NIC_QUEUES_MAX   1024u
#define PK_NIC_COALESCE_MAX 10000u

enum pk_nic_choice { PK_NIC_BY_KIND, PK_NIC_OFF, PK_NIC_LEAVE };

/* As written. All zero is the default: everything 'auto'. */
struct pk_nic_spec {
    unsigned rings;              /* entries of each receive ring, or PK_NIC_AUTO, _MAX, _KEEP */
    unsigned queues;             /* receive queues; 0 = keep */
    unsigned no_symmetric_hash;  /* 0 = where the NIC has one */
    unsigned vlan, merge, pause; /* enum pk_nic_choice: off or keep */
    unsigned coalesce;           /* microseconds, or PK_NIC_COALESCE_* */
};

/* The members that are not the default; an empty object = all are. New reference, NULL = memory. */
json_t *pk_nic_spec_to_json(const struct pk_nic_spec *spec);
/* All of the input is checked. json NULL: the default. */
int pk_nic_spec_parse(const json_t *json, struct pk_nic_spec *ret_spec, struct pk_error *err);
/* Each 'auto' in the words that it stands for. shared: the host itself uses the interface too, so
 * nothing is touched that would stop its link or cost it speed. */
struct pk_nic_spec pk_nic_resolve(const struct pk_nic_spec *spec, bool shared);

enum pk_nic_hash {
    PK_NIC_HASH_NONE,  /* one queue, or the driver tells nothing of its hash */
    PK_NIC_HASH_OTHER, /* both directions of a flow may get different queues */
    PK_NIC_HASH_KEY,   /* Toeplitz with a key whose 16-bit words repeat (Woo and Park, 2012) */
    PK_NIC_HASH_XOR,   /* the NIC exclusive-ors both ends (Linux 6.8) */
};

/* What an interface has. A maximum of 0: the driver does not let it be changed. */
struct pk_nic_facts {
    char driver[33];
    unsigned rings, rings_max;
    unsigned queues, queues_max;
    enum pk_nic_hash hash;
    unsigned hash_key_size; /* bytes; 0 = the key cannot be set */
    bool hash_toeplitz;
    bool vlan, gro, lro; /* VLAN tags are stripped; packets are merged */
    bool has_pause, pause_rx, pause_tx;
    bool has_coalesce, coalesce_adaptive;
    unsigned coalesce_usecs;
};
json_t *pk_nic_facts_to_json(const struct pk_nic_facts *facts);
/* Members that are missing are zero: an agent may be older. */
void pk_nic_facts_from_json(const json_t *json, struct pk_nic_facts *ret_facts);

enum pk_nic_setting {
    PK_NIC_QUEUES,
    PK_NIC_RINGS,
    PK_NIC_HASH,
    PK_NIC_VLAN,
    PK_NIC_GRO,
    PK_NIC_LRO,
    PK_NIC_PAUSE,
    PK_NIC_COALESCE,
    PK_NIC_SETTINGS
};
const char *pk_nic_setting_name(enum pk_nic_setting setting); /* "receive rings" */

struct pk_nic_change {
    enum pk_nic_setting setting;
    unsigned value; /* of rings, queues, coalescing */
    char from[24], to[24];
    char why_not[120]; /* "" = it can be done, as far as the driver tells */
};
/* What is not as the (resolved) spec wants it, in the order in which it is to be done. Returns how
 * many. What was left to 'auto' and cannot be done is told too, with why_not. */
size_t pk_nic_changes(const struct pk_nic_spec *spec, const struct pk_nic_facts *facts,
                      struct pk_nic_change changes[PK_NIC_SETTINGS]);
/* What of an interface's set-up differs between two looks. Returns how many. */
size_t pk_nic_compare(const struct pk_nic_facts *was, const struct pk_nic_facts *now,
                      struct pk_nic_change changes[PK_NIC_SETTINGS]);

#endif
