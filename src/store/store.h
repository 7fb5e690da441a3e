/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two stores. State: fleets, revisions, plans, journal (SQLite, WAL). Events: a DuckDB table in
 * memory for the recent ones, sealed every few seconds into Parquet files whose names and source
 * offsets are committed together in SQLite; a file that is not in the manifest does not exist. Both
 * are safe to call from any thread; each serialises internally.
 */
#ifndef PICKET_STORE_STORE_H
#define PICKET_STORE_STORE_H

#include <jansson.h>

#include "base/buf.h"
#include "base/common.h"
#include "base/error.h"

/* ---- state.c: rows are JSON documents with a few indexed columns ---- */
struct pk_state;
int pk_state_open(const char *path, struct pk_state **ret_state, struct pk_error *err);
void pk_state_close(struct pk_state *state);
PK_DEFINE_CLEANUP(struct pk_state, pk_state_close);

struct pk_revision {
    char *fleet;
    uint64_t number;                 /* from 1, per fleet */
    pk_nsec created_at, finished_at; /* finished_at 0 = under way or cut off */
    char *user, *reason;
    char *document; /* the YAML as given */
    char *plan_id;
    char *outcome; /* "applying", "applied", "failed", "interrupted" */
    char *detail;  /* error message, "" if none */
    json_t *steps; /* the journal: [{"name","op","kind","state":"done|failed|pending",..}] */
};
void pk_revision_done(struct pk_revision *revision);
void pk_revision_list_free(struct pk_revision *list, size_t count);

/* Gives the next number; *ret_number. The fleet's desired document becomes this revision's. */
int pk_state_revision_begin(struct pk_state *state, const struct pk_revision *revision,
                            uint64_t *ret_number, struct pk_error *err);
int pk_state_revision_step(struct pk_state *state, const char *fleet, uint64_t number,
                           const json_t *steps, struct pk_error *err);
int pk_state_revision_finish(struct pk_state *state, const char *fleet, uint64_t number,
                             const char *outcome, const char *detail, struct pk_error *err);
int pk_state_revision_get(struct pk_state *state, const char *fleet, uint64_t number,
                          struct pk_revision *ret_revision, struct pk_error *err); /* 0 = newest */
/* Newest first, at most limit, those below number before (0 = all). */
int pk_state_revision_list(struct pk_state *state, const char *fleet, uint64_t before, size_t limit,
                           struct pk_revision **ret_list, size_t *ret_count, struct pk_error *err);
/* Fleets that are to run: name -> desired revision number. A deleted fleet keeps its history. */
int pk_state_fleets(struct pk_state *state, json_t **ret_list, struct pk_error *err);
int pk_state_fleet_remove(struct pk_state *state, const char *fleet, struct pk_error *err);

/* Small documents by kind and key: saved plans, unit runtime rows, tokens. A NULL value removes.
 * get: *ret_value NULL-free; PK_E_NOTFOUND. list: {key: value}. */
int pk_state_put(struct pk_state *state, const char *kind, const char *key, const json_t *value,
                 struct pk_error *err);
int pk_state_get(struct pk_state *state, const char *kind, const char *key, json_t **ret_value,
                 struct pk_error *err);
int pk_state_list(struct pk_state *state, const char *kind, json_t **ret_values,
                  struct pk_error *err);
/* What something was at a moment; many per key, of which the old ones are thinned out. get: the
 * newest at or before the moment, else the oldest there is; PK_E_NOTFOUND. thin: drops all before
 * keep_from, and of those before thin_before all but the first of each span of every. */
int pk_state_sample_put(struct pk_state *state, const char *key, pk_nsec at, const json_t *value,
                        struct pk_error *err);
int pk_state_sample_get(struct pk_state *state, const char *key, pk_nsec at, json_t **ret_value,
                        struct pk_error *err);
int pk_state_sample_thin(struct pk_state *state, const char *key, pk_nsec keep_from,
                         pk_nsec thin_before, pk_nsec every, struct pk_error *err);

/* ---- events ---- */
struct pk_events;
struct pk_events_options {
    const char *dir; /* <state>/events */
    pk_nsec retain;
    uint64_t max_bytes; /* of Parquet files */
    pk_nsec seal_after;
    uint64_t memory_bytes; /* bound of the unsealed part; at it, ingest waits */
};
int pk_events_open(const struct pk_events_options *options, struct pk_events **ret_events,
                   struct pk_error *err);
/* Seals what is in memory first. */
void pk_events_close(struct pk_events *events);
PK_DEFINE_CLEANUP(struct pk_events, pk_events_close);
void pk_events_set_limits(struct pk_events *events, const struct pk_events_options *options);

/* What the shipper is told at the start and after each batch. {"session":"..", "sources":{id:
 * {"received":N,"sealed":N}}}; session changes when serve restarts: unsealed events are then gone
 * from memory and the shipper goes back to "sealed". New reference. */
json_t *pk_events_sources(struct pk_events *events, struct pk_error *err);
/* One batch in the wire format of base/wire.h: accepted only if its "from" offset
 * is what was received so far (PK_E_CONFLICT otherwise). *ret_reply as above for its source. */
int pk_events_ingest(struct pk_events *events, const void *data, size_t len, json_t **ret_reply,
                     struct pk_error *err);

struct pk_events_query {
    const char *filter;   /* query text, NULL = all; grammar in query.h */
    pk_nsec since, until; /* [since, until) */
    unsigned limit;       /* 1..10000 */
    const char *page;     /* token from the last page or NULL */
    unsigned timeout_ms;
};
/* Newest first. *ret_page: token for the next page or NULL; pk_free(). Events as JSON objects. */
int pk_events_query(struct pk_events *events, const struct pk_events_query *query,
                    json_t **ret_list, char **ret_page, struct pk_error *err);
/* [{"value":..,"count":N}] most first. field: any column. */
int pk_events_count(struct pk_events *events, const struct pk_events_query *query,
                    const char *field, json_t **ret_list, struct pk_error *err);
/* Events received after a cursor (for --follow): waits up to wait_ms. cursor 0 = from now. */
int pk_events_follow(struct pk_events *events, const char *filter, uint64_t cursor,
                     unsigned wait_ms, unsigned limit, json_t **ret_list, uint64_t *ret_cursor,
                     struct pk_error *err);
/* {"received","stored","lost","memoryRows","files","bytes","oldest","newest"} per fleet, or of all.
 */
json_t *pk_events_stats(struct pk_events *events, const char *fleet, struct pk_error *err);

#endif
