/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the event store. Events live in segments: tables in memory (the head that takes new
 * events, and for a moment the one being sealed) and Parquet files. A reader takes references to
 * the segments it needs; a segment that is dead (sealed table, merged or expired file) is dropped
 * with its last reference, so no reader ever meets a hole.
 *
 * Locks, in this order: ingest_lock (the writer's connection; held for a whole batch),
 * manifest_lock (SQLite), lock (everything else; held shortly, never over I/O).
 */
#ifndef PICKET_STORE_EVENTS_INTERNAL_H
#define PICKET_STORE_EVENTS_INTERNAL_H

#include <pthread.h>
#include <sqlite3.h>

#include "base/event.h"
#include "base/map.h"
#include "base/wire.h"
#include "store/duckdb_api.h"
#include "store/query.h"
#include "store/store.h"

#define PK_EVENTS_READERS   3u  /* connections for queries */
#define PK_EVENTS_PARTS_MAX 64u /* partitions that one seal makes at most */
#define PK_EVENTS_MIXED     "mixed"
#define PK_EVENTS_LEVEL_MAX 4u

/* Rows of one dataset and day within a table in memory; becomes one Parquet file. */
struct pk_part {
    char dataset[33]; /* [a-z0-9_-] */
    int64_t day;      /* since 1970-01-01 */
    uint64_t rows;
    pk_nsec min_time, max_time;
    uint64_t max_seq;
};

struct pk_parts {
    struct pk_part list[PK_EVENTS_PARTS_MAX];
    size_t count;
};

struct pk_segment {
    bool memory;
    bool dead;
    unsigned refs;
    uint64_t rows, bytes; /* bytes: of the file, or roughly in memory */
    pk_nsec min_time, max_time;
    uint64_t max_seq;
    char name[128]; /* table, or path below the store's folder */
    /* memory */
    struct pk_parts *parts; /* owned */
    pk_nsec born;           /* monotonic, of the first batch; 0 = empty */
    /* file */
    char dataset[33];
    int64_t day;
    unsigned level; /* how often merged */
    pk_nsec sealed_at;
    uint64_t columns; /* pk_event_columns_hash() when it was written */
};

struct pk_source {
    char *fleet, *group, *tool, *path;
    uint64_t lane;
    uint64_t received, sealing, sealed;
    bool dirty; /* received since the last switch */
    bool taken; /* belongs to the table being sealed */
    bool ended, sealing_end;
};

struct pk_totals { /* since the beginning, of one fleet */
    uint64_t received, lost, lost_bytes;
    uint64_t sealing, sealing_lost, sealing_lost_bytes;
    uint64_t stored, stored_lost, stored_lost_bytes;
};

struct pk_events {
    struct pk_events_options options; /* dir is owned; the rest under lock */
    char *dir;
    int lock_fd;
    char session[33];
    const struct pk_duckdb *duck;
    duckdb_database db;

    pthread_mutex_t ingest_lock;
    duckdb_connection writer;
    struct pk_rows *rows;

    pthread_mutex_t manifest_lock;
    sqlite3 *manifest;

    pthread_mutex_t lock;
    pthread_cond_t arrived; /* new events, or stopping */
    pthread_cond_t sealed;  /* room was made, or stopping */
    pthread_cond_t reader_free;
    duckdb_connection readers[PK_EVENTS_READERS];
    bool reader_busy[PK_EVENTS_READERS];
    pk_nsec reader_deadline[PK_EVENTS_READERS]; /* monotonic, 0 = none */
    pthread_cond_t reader_taken;
    struct pk_segment **segments;
    size_t segment_count;
    struct pk_segment *head, *sealing;
    uint64_t table_number, file_number;
    uint64_t next_seq;
    struct pk_map *sources;     /* id -> struct pk_source */
    struct pk_map *totals;      /* fleet -> struct pk_totals */
    struct pk_error seal_error; /* code 0 = the last seal went well */
    bool stopping;
    bool seal_now;
    pk_nsec space_checked; /* monotonic */
    bool space_low;

    pthread_t sealer, keeper, watchdog;
    duckdb_connection seal_connection, keep_connection;
    pthread_mutex_t trash_lock; /* taken alone */
    duckdb_connection trash_connection;
    bool sealer_runs, keeper_runs, watchdog_runs;
};

/* ---- events.c ---- */
struct pk_segment *pk_segment_new(void);
void pk_segment_unref(struct pk_events *events, struct pk_segment *segment);
/* The segments with events in [since, until) and above seq, of one dataset unless NULL or "";
 * release each and pk_free() the list. The newest come first: who wants
 * the newest events can then leave out most others by their times. */
int pk_events_snapshot(struct pk_events *events, pk_nsec since, pk_nsec until, uint64_t seq,
                       const char *dataset, struct pk_segment ***ret_list, size_t *ret_count,
                       struct pk_error *err);
/* Adds to the list of segments; takes it. Under lock. */
int pk_events_add_segment_take(struct pk_events *events, struct pk_segment *segment);
/* Takes it off the list and marks it dead; under lock. Its reference is then the caller's. */
void pk_events_remove_segment(struct pk_events *events, const struct pk_segment *segment);
void pk_events_dataset(const char *type, size_t len, char ret_dataset[33]);
struct pk_source *pk_events_source(struct pk_events *events, const char *id);
struct pk_totals *pk_events_totals(struct pk_events *events, const char *fleet);
void pk_events_day(int64_t day, char out[16]);

/* ---- events_rows.c: a chunk of rows for an appender; used by the writer alone ---- */
struct pk_rows;
int pk_rows_new(const struct pk_duckdb *duck, struct pk_rows **ret_rows, struct pk_error *err);
void pk_rows_free(struct pk_rows *rows); /* before its database is closed */
PK_DEFINE_CLEANUP(struct pk_rows, pk_rows_free);
/* While it is not full. The values' texts are borrowed until it is appended or discarded. */
void pk_rows_add(struct pk_rows *rows, const struct pk_value *values, uint64_t seq, size_t part);
bool pk_rows_full(const struct pk_rows *rows);
/* Hands the rows over; it is empty then, also after a failure. */
int pk_rows_append(struct pk_rows *rows, duckdb_appender appender, struct pk_error *err);
void pk_rows_discard(struct pk_rows *rows);

/* ---- events_manifest.c; all take manifest_lock ---- */
int pk_manifest_open(struct pk_events *events, struct pk_error *err);
/* Commits new files, the sealing offsets of sources and totals, and removals, at once. */
int pk_manifest_commit(struct pk_events *events, struct pk_segment *const *added,
                       size_t added_count, struct pk_segment *const *removed, size_t removed_count,
                       bool sealing, struct pk_error *err);

/* ---- events_seal.c ---- */
/* Makes a new, empty head. Under ingest_lock or before the threads run. */
int pk_events_new_head(struct pk_events *events, struct pk_error *err);
void *pk_events_sealer(void *arg);
void *pk_events_keeper(void *arg);
/* One seal of what is in memory; 0 also when there was nothing. */
int pk_events_seal(struct pk_events *events, struct pk_error *err);

/* ---- events_query.c ---- */
void *pk_events_watchdog(void *arg);

/* ---- events_sql.c ---- */
void pk_sql_select(struct pk_buf *sql); /* "SELECT <columns> FROM " */
/* "SELECT <columns> FROM all segments" as a derived table of the events in [since, until); empty
 * list gives no rows. Files that are wholly within are read without a look at their times. */
int pk_events_from_sql(const struct pk_events *events, struct pk_segment *const *list, size_t count,
                       pk_nsec since, pk_nsec until, struct pk_buf *sql, struct pk_error *err);
/* picket_in_net(address, network), picket_contains(text, word in ASCII), picket_among(number, list
 * of PK_AMONG_DIGITS hexadecimal digits each, ascending). */
#define PK_AMONG_DIGITS 16u
int pk_events_register_functions(struct pk_events *events, struct pk_error *err);
void pk_sql_quote(struct pk_buf *sql, const char *text); /* 'it''s' */
const char *pk_sql_type(enum pk_column_type type);

#endif
