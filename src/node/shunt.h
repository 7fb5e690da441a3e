/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's part of shunts: it takes requests of tools and of people, ends what is over, and
 * writes a record of each shunt that ended, exactly once, to a log that 'picket ship' follows as it
 * follows the tools' logs.
 *
 * A thread of its own looks at all entries in turn. Lock order: the agent's lock, then this one's;
 * nothing here takes the agent's.
 */
#ifndef PICKET_NODE_SHUNT_H
#define PICKET_NODE_SHUNT_H

#include <jansson.h>

#include "base/buf.h"
#include "base/common.h"
#include "base/error.h"
#include "base/paths.h"
#include "broker/shunt.h"
#include "spec/rules.h"

struct pk_shunts;

/* groups[].shunt of the fleet file, as the agent's API has it. */
struct pk_shunt_spec {
    bool on;
    uint64_t after;   /* bytes; 0 = from the first packet */
    unsigned idle_ms; /* 0 = the default */
    uint16_t ports[PK_SHUNT_PORTS];
    size_t port_count;
};
#define PK_SHUNT_IDLE_MAX_S     86400u
#define PK_SHUNT_LIFE_DEFAULT_S 86400u
#define PK_SHUNT_LIFE_MAX_S     (7u * 86400u)
#define PK_SHUNT_FLOWS_AT_ONCE  16384u /* of one request */

/* {"after":BYTES,"ports":[..],"idleSeconds":N}; NULL or null = none. In JSON as pk_group_options()
 * of spec writes it. */
int pk_shunt_spec_parse(const json_t *json, struct pk_shunt_spec *ret_spec, struct pk_error *err);
json_t *pk_shunt_spec_to_json(const struct pk_shunt_spec *spec); /* NULL = off or out of memory */
/* groups[].overload. */
int pk_overload_parse(const json_t *json, struct pk_overload_spec *ret_spec, struct pk_error *err);
json_t *pk_overload_to_json(const struct pk_overload_spec *spec); /* as above */
bool pk_shunt_spec_equal(const struct pk_shunt_spec *a, const struct pk_shunt_spec *b);

/* Borrows the broker. Knows its groups from the start; entries that an agent before this one had
 * stopped, but not deleted, are recorded if they are not yet. */
int pk_shunts_new(struct pk_broker *broker, const struct pk_paths *paths,
                  struct pk_shunts **ret_shunts, struct pk_error *err);
int pk_shunts_start(struct pk_shunts *shunts, struct pk_error *err); /* the thread */
void pk_shunts_free(struct pk_shunts *shunts); /* ends the thread; all entries stay */
PK_DEFINE_CLEANUP(struct pk_shunts, pk_shunts_free);
/* One look at all entries. Tests; else the thread does it bit by bit. */
int pk_shunts_sweep(struct pk_shunts *shunts, struct pk_error *err);

/* The broker has the group "fleet/group". rule->on = false: only requests make shunts. */
int pk_shunts_group_set(struct pk_shunts *shunts, const char *fleet, const char *group,
                        const struct pk_shunt_spec *rule, struct pk_error *err);
/* While the group is overloaded: its flows above PK_SHUNT_OVERLOAD_AFTER leave too. */
int pk_shunts_group_overload(struct pk_shunts *shunts, const char *fleet, const char *group,
                             bool on, struct pk_error *err);
#define PK_SHUNT_OVERLOAD_AFTER (1u << 20)
/* Before the broker's group is removed: ends and records its shunts, some thousands with each call,
 * until *ret_done. What cannot be recorded goes too, is counted ("unrecorded" of
 * pk_shunts_stats()) and logged. From the first call on nobody can ask for shunts of the group;
 * pk_shunts_group_set() takes it back. */
int pk_shunts_group_forget(struct pk_shunts *shunts, const char *key, bool *ret_done,
                           struct pk_error *err);

/* ---- calls of the API: node.h describes them ---- */

int pk_shunts_post(struct pk_shunts *shunts, const char *fleet, const json_t *body,
                   json_t **ret_json, struct pk_error *err);
int pk_shunts_delete(struct pk_shunts *shunts, const char *fleet, const json_t *body,
                     json_t **ret_json, struct pk_error *err);
int pk_shunts_stats(struct pk_shunts *shunts, const char *fleet, unsigned top, json_t **ret_json,
                    struct pk_error *err);
/* One page as JSON text, at most limit entries; group NULL = all; page NULL = the first. */
#define PK_SHUNT_PAGE_MAX 65536u
int pk_shunts_list(struct pk_shunts *shunts, const char *fleet, const char *group, const char *page,
                   unsigned limit, struct pk_buf *buf, struct pk_error *err);

/* ---- shunt_api.c: what requests say. Pure. ---- */

struct pk_shunt_order {
    const json_t *groups; /* borrowed; NULL = all of the fleet */
    struct pk_tuple *flows;
    size_t flow_count;
    bool all; /* DELETE: every flow */
    uint64_t keep;
    uint64_t idle_s, life_s;
    char by[PK_SHUNT_BY_SIZE];
};
/* All of the input is checked. is_delete: flows may be missing where "all" is true. */
int pk_shunt_order_parse(const json_t *body, bool is_delete, struct pk_shunt_order *ret_order,
                         struct pk_error *err);
void pk_shunt_order_done(struct pk_shunt_order *order);

/* ---- shunt_text.c: pure ---- */

/* Nanoseconds to add to an entry's times to get such since 1970. */
int64_t pk_shunt_clock_offset(void);
/* An entry as a JSON object. */
void pk_shunt_print(struct pk_buf *buf, const struct pk_shunt_key *key,
                    const struct pk_shunt *shunt, const char *group, int64_t clock_offset);
/* An ended entry as one line in the form of EVE, and the number that tells it from all others. */
void pk_shunt_record(struct pk_buf *buf, const struct pk_shunt_key *key,
                     const struct pk_shunt *shunt, int64_t clock_offset);
uint64_t pk_shunt_record_id(const struct pk_shunt_key *key, const struct pk_shunt *shunt);
/* The id in a line made by pk_shunt_record(); false = there is none. */
bool pk_shunt_record_find_id(const char *line, size_t len, uint64_t *ret_id);

/* ---- shunt_log.c: a group's records ---- */

struct pk_shunt_log {
    char *dir;
    uid_t uid; /* who owns what is made; (uid_t)-1 = leave */
    gid_t gid;
    unsigned number; /* of the file that is written; 0 = not looked for yet */
    uint64_t size;   /* of it */
    uint64_t *known; /* ids of its last records, sorted */
    size_t known_count;
};
/* What is asked of a log at once: the tail that is looked at covers it. */
#define PK_SHUNT_LOG_BATCH 4096u
#define PK_SHUNT_LOG_TAIL  (4u << 20)
/* "<state>/units/<tag>-<fleet>-<group>.shunts/log" */
char *pk_shunt_log_dir(const struct pk_paths *paths, const char *fleet, const char *group);
/* Reads the tail of what is there. */
int pk_shunt_log_open(struct pk_shunt_log *log, const char *dir, uid_t uid, gid_t gid,
                      struct pk_error *err);
void pk_shunt_log_done(struct pk_shunt_log *log);
bool pk_shunt_log_knows(const struct pk_shunt_log *log, uint64_t id);
void pk_shunt_log_forget_known(struct pk_shunt_log *log);
/* Whole lines, each at most 4,096 bytes. What was written before a failure is known
 * then. */
int pk_shunt_log_write(struct pk_shunt_log *log, const char *text, size_t len,
                       struct pk_error *err);

#endif
