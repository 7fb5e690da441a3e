/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shunts: flows of which a group is to see no more. The programs count in an entry per flow and
 * group what they leave out; this reads, makes and takes out entries. Pinned as all of the plane.
 *
 * An entry is taken out in three steps, so that nothing is counted in it that has not been read,
 * and a process that is killed between them loses nothing: pk_broker_shunts_close() stops it where
 * it lies, pk_broker_shunts_settle() waits for programs that still use it, and after its numbers
 * were read and kept, pk_broker_shunts_delete() lets go of it. A closed entry shunts nothing.
 *
 * These calls use maps of their own, so they may run beside the broker's other calls, but one at a
 * time among themselves; all that take a key look at the broker's groups, and are the exception.
 */
#ifndef PICKET_BROKER_SHUNT_H
#define PICKET_BROKER_SHUNT_H

#include "base/common.h"
#include "base/error.h"
#include "broker/bpf/shunt_abi.h"
#include "packet/community_id.h"

struct pk_broker;

/* The number by which keys of shunts name a group; -1 when there is none of this key. */
int pk_broker_group_number(struct pk_broker *broker, const char *key);
/* The group's key, borrowed until the group is removed; NULL when the number is free. */
const char *pk_broker_group_key(struct pk_broker *broker, unsigned number);

/* ---- rules ---- */

struct pk_shunt_rule_options {
    uint64_t after;              /* bytes of a flow that the group gets; 0 = none */
    unsigned idle_ms;            /* 1.. */
    uint64_t life_nsec;          /* a shunt ends at the latest then */
    enum pk_shunt_reason reason; /* PK_SHUNT_RULE or PK_SHUNT_OVERLOAD */
    const uint16_t *ports;       /* of either end; at most PK_SHUNT_PORTS */
    size_t port_count;           /* 0 = all */
};
/* NULL takes the rule away; its shunts stay until they end. */
int pk_broker_shunt_rule_set(struct pk_broker *broker, unsigned group,
                             const struct pk_shunt_rule_options *options, struct pk_error *err);

/* ---- entries ---- */

/* True where both ends and the protocol can be in an entry's key: TCP, UDP or SCTP. */
bool pk_shunt_key_of(const struct pk_tuple *tuple, unsigned group, struct pk_shunt_key *ret_key,
                     bool *ret_from_b);
/* The flow, its originator first. */
void pk_shunt_tuple(const struct pk_shunt_key *key, const struct pk_shunt *shunt,
                    struct pk_tuple *ret_tuple);
const char *pk_shunt_reason_name(unsigned reason); /* "request", "rule", "overload" */
const char *pk_shunt_state_name(unsigned state);   /* "live", "idle", ... */
/* CLOCK_MONOTONIC_COARSE, as in the entries. */
uint64_t pk_shunt_now(void);

struct pk_shunt_request {
    unsigned group;
    uint64_t keep;      /* bytes of the flow that the group still gets */
    unsigned idle_ms;   /* 1.. */
    uint64_t life_nsec; /* 1.. */
    const char *by;     /* who asks; cut to PK_SHUNT_BY_SIZE - 1 */
};
struct pk_shunt_added {
    size_t added;
    size_t known;   /* were shunted already, and are as they were */
    size_t closing; /* an entry that ended has not been deleted yet: try again when it is */
    size_t full;    /* no room */
};
/* In effect when it returns. Flows that pk_shunt_key_of() refuses are skipped. */
int pk_broker_shunts_add(struct pk_broker *broker, const struct pk_shunt_request *request,
                         const struct pk_tuple *flows, size_t count, struct pk_shunt_added *added,
                         struct pk_error *err);

struct pk_shunt_page {
    struct pk_shunt_key *keys;
    struct pk_shunt *values;
    size_t size;   /* room, at least 256 */
    size_t count;  /* filled */
    uint32_t next; /* where to go on; 0 = from the start */
    bool end;      /* of all entries */
};
int pk_shunt_page_init(struct pk_shunt_page *page, size_t size, struct pk_error *err);
void pk_shunt_page_done(struct pk_shunt_page *page);
/* Reads a page from page->next on. An entry that is there from the first page to the last is read
 * at least once, and only once unless others are added or deleted meanwhile. */
int pk_broker_shunts_read(struct pk_broker *broker, struct pk_shunt_page *page,
                          struct pk_error *err);
/* False when there is none. */
bool pk_broker_shunt_get(struct pk_broker *broker, const struct pk_shunt_key *key,
                         struct pk_shunt *ret_shunt);

/* The first call loads a program, which must not run beside other calls of the broker: one with
 * count 0 does no more than that. */
int pk_broker_shunts_close(struct pk_broker *broker, const struct pk_shunt_key *keys, size_t count,
                           enum pk_shunt_state state, struct pk_error *err);
/* Some milliseconds. */
void pk_broker_shunts_settle(void);
int pk_broker_shunts_delete(struct pk_broker *broker, const struct pk_shunt_key *keys, size_t count,
                            struct pk_error *err);

/* After a whole pass over the entries: groups without entries and rules are not looked up any more.
 * used: bit = group with entries. */
int pk_broker_shunts_used(struct pk_broker *broker, uint64_t used, struct pk_error *err);
/* The groups that are looked up. */
uint64_t pk_broker_shunts_groups(struct pk_broker *broker);
/* Shunts by rule for which there was no room, since the plane was made. */
uint64_t pk_broker_shunts_refused(struct pk_broker *broker);

#endif
