/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fleets, revisions and small documents in one SQLite file. One connection behind one mutex: writes
 * are rare (a few per step of an apply), so a pool would only add states. Each write is one
 * transaction with synchronous=FULL: what a caller was told is on disk.
 */
#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "store/store.h"

/* Largest text that is read back: a revision's document is bounded by the specification's 4 MiB, a
 * frozen desired state by its rendered files. */
#define STATE_BUSY_MS   3000
#define STATE_LIST_MAX  1000u
#define STATE_MAX_BYTES (256 << 20)

/* Numbered from 1; never edited once released, only appended to. */
static const char *const migrations[] = {
    "CREATE TABLE fleet (name TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE revision ("
    " fleet TEXT NOT NULL, number INTEGER NOT NULL, created_at INTEGER NOT NULL,"
    " finished_at INTEGER NOT NULL DEFAULT 0, user TEXT NOT NULL, reason TEXT NOT NULL,"
    " document TEXT NOT NULL, plan_id TEXT NOT NULL, outcome TEXT NOT NULL,"
    " detail TEXT NOT NULL DEFAULT '', steps TEXT NOT NULL DEFAULT '[]',"
    " PRIMARY KEY (fleet, number));"
    "CREATE TABLE document (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,"
    " PRIMARY KEY (kind, key)) WITHOUT ROWID;",
    "CREATE TABLE sample (key TEXT NOT NULL, at INTEGER NOT NULL, value TEXT NOT NULL,"
    " PRIMARY KEY (key, at)) WITHOUT ROWID;",
};

enum statement {
    ST_BEGIN,
    ST_COMMIT,
    ST_ROLLBACK,
    ST_NEXT_NUMBER,
    ST_SUPERSEDE,
    ST_INSERT_REVISION,
    ST_SET_FLEET,
    ST_STEP,
    ST_FINISH,
    ST_GET,
    ST_NEWEST,
    ST_LIST,
    ST_FLEETS,
    ST_REMOVE_FLEET,
    ST_PUT,
    ST_DELETE,
    ST_GET_DOCUMENT,
    ST_LIST_DOCUMENTS,
    ST_PUT_SAMPLE,
    ST_GET_SAMPLE,
    ST_FIRST_SAMPLE,
    ST_THIN_SAMPLES,
    ST_COUNT,
};

#define REVISION_COLUMNS \
    "fleet, number, created_at, finished_at, user, reason, document, plan_id, outcome, detail, steps"

/* clang-format off */
static const char *const statement_text[ST_COUNT] = {
    [ST_BEGIN] = "BEGIN IMMEDIATE",
    [ST_COMMIT] = "COMMIT",
    [ST_ROLLBACK] = "ROLLBACK",
    [ST_NEXT_NUMBER] = "SELECT coalesce(max(number), 0) + 1 FROM revision WHERE fleet = ?1",
    [ST_SUPERSEDE] = "UPDATE revision SET outcome = 'interrupted', finished_at = ?2,"
                     " detail = 'superseded by revision ' || ?3"
                     " WHERE fleet = ?1 AND outcome = 'applying'",
    [ST_INSERT_REVISION] = "INSERT INTO revision (" REVISION_COLUMNS ")"
                           " VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, 'applying', '', ?8)",
    [ST_SET_FLEET] = "INSERT INTO fleet (name, revision) VALUES (?1, ?2)"
                     " ON CONFLICT (name) DO UPDATE SET revision = excluded.revision",
    [ST_STEP] = "UPDATE revision SET steps = ?3 WHERE fleet = ?1 AND number = ?2",
    [ST_FINISH] = "UPDATE revision SET outcome = ?3, detail = ?4, finished_at = ?5"
                  " WHERE fleet = ?1 AND number = ?2",
    [ST_GET] = "SELECT " REVISION_COLUMNS " FROM revision WHERE fleet = ?1 AND number = ?2",
    [ST_NEWEST] = "SELECT " REVISION_COLUMNS " FROM revision WHERE fleet = ?1"
                  " ORDER BY number DESC LIMIT 1",
    [ST_LIST] = "SELECT " REVISION_COLUMNS " FROM revision WHERE fleet = ?1 AND number < ?2"
                " ORDER BY number DESC LIMIT ?3",
    [ST_FLEETS] = "SELECT name, revision FROM fleet ORDER BY name",
    [ST_REMOVE_FLEET] = "DELETE FROM fleet WHERE name = ?1",
    [ST_PUT] = "INSERT INTO document (kind, key, value) VALUES (?1, ?2, ?3)"
               " ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
    [ST_DELETE] = "DELETE FROM document WHERE kind = ?1 AND key = ?2",
    [ST_GET_DOCUMENT] = "SELECT value FROM document WHERE kind = ?1 AND key = ?2",
    [ST_LIST_DOCUMENTS] = "SELECT key, value FROM document WHERE kind = ?1 ORDER BY key",
    [ST_PUT_SAMPLE] = "INSERT OR REPLACE INTO sample (key, at, value) VALUES (?1, ?2, ?3)",
    [ST_GET_SAMPLE] = "SELECT value FROM sample WHERE key = ?1 AND at <= ?2"
                      " ORDER BY at DESC LIMIT 1",
    [ST_FIRST_SAMPLE] = "SELECT value FROM sample WHERE key = ?1 ORDER BY at LIMIT 1",
    [ST_THIN_SAMPLES] = "DELETE FROM sample WHERE key = ?1 AND (at < ?2 OR (at < ?3 AND at NOT IN"
                        " (SELECT min(at) FROM sample WHERE key = ?1 AND at < ?3"
                        "  GROUP BY at / ?4)))",
};
/* clang-format on */

struct pk_state {
    pthread_mutex_t lock;
    sqlite3 *db;
    sqlite3_stmt *statements[ST_COUNT];
    char *path;
};

/* Turns SQLite's last failure into ours: the three that a user can act on are told apart. */
static int fail_db(struct pk_state *state, int rc, struct pk_error *err)
{
    int primary = rc & 0xff;
    int sys = state->db != NULL ? sqlite3_system_errno(state->db) : 0;
    const char *text = state->db != NULL ? sqlite3_errmsg(state->db) : sqlite3_errstr(rc);

    if (primary == SQLITE_NOMEM)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", state->path);
    if (primary == SQLITE_FULL || sys == ENOSPC || sys == EDQUOT) {
        pk_fail(err, PK_E_NOSPACE, "%s: no space left for the state", state->path);
        return pk_hint(err,
                       "free space on the file system of the state folder; nothing was changed");
    }
    if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB) {
        pk_fail(err, PK_E_IO, "the state database %s is damaged: %s", state->path, text);
        return pk_hint(err,
                       "stop picket, move the file and its -wal and -shm away, restore a copy or "
                       "'sqlite3 FILE .recover'; sensors keep running meanwhile");
    }
    if (primary == SQLITE_BUSY || primary == SQLITE_LOCKED) {
        pk_fail(err, PK_E_CONFLICT, "the state database %s is in use by another process",
                state->path);
        return pk_hint(err, "is a second 'picket serve' running on this state folder?");
    }
    if (primary == SQLITE_READONLY || primary == SQLITE_PERM || primary == SQLITE_AUTH ||
        sys == EACCES || sys == EPERM) {
        pk_fail(err, PK_E_DENIED, "the state database %s cannot be written: %s", state->path, text);
        return pk_hint(err, "make the state folder and its files writable for the user of serve");
    }
    pk_fail(err, PK_E_IO, "%s: %s", state->path, text);
    return pk_hint(err, "see the file system of the state folder; 'picket doctor' checks it");
}

static void end(sqlite3_stmt *statement)
{
    (void)sqlite3_reset(statement);
    (void)sqlite3_clear_bindings(statement);
}

/* Statements of one use: reset whichever way the function is left. */
static void end_p(sqlite3_stmt **statement)
{
    if (*statement != NULL)
        end(*statement);
}
#define STATEMENT PK_CLEANUP(end_p) sqlite3_stmt *

static void unlock_p(pthread_mutex_t **lock)
{
    (void)pthread_mutex_unlock(*lock);
}
#define LOCK(state)                           \
    (void)pthread_mutex_lock(&(state)->lock); \
    PK_CLEANUP(unlock_p) PK_UNUSED pthread_mutex_t *locked_ = &(state)->lock

/* The text stays the caller's until the statement is reset. */
static void bind_text(sqlite3_stmt *statement, int index, const char *text)
{
    (void)sqlite3_bind_text(statement, index, text != NULL ? text : "", -1, SQLITE_STATIC);
}

/* Runs a statement that gives no rows. */
static int run(struct pk_state *state, sqlite3_stmt *statement, struct pk_error *err)
{
    int rc = sqlite3_step(statement);
    if (rc != SQLITE_DONE && rc != SQLITE_ROW)
        return fail_db(state, sqlite3_extended_errcode(state->db), err);
    return 0;
}

static int run_plain(struct pk_state *state, enum statement which, struct pk_error *err)
{
    STATEMENT statement = state->statements[which];
    return run(state, statement, err);
}

/* Ends the transaction: a failed commit (a full disk shows here) is rolled back too. */
static int finish_transaction(struct pk_state *state, int r, struct pk_error *err)
{
    if (r >= 0)
        r = run_plain(state, ST_COMMIT, err);
    if (r < 0 && sqlite3_get_autocommit(state->db) == 0)
        (void)run_plain(state, ST_ROLLBACK, NULL);
    return r;
}

static int exec(struct pk_state *state, const char *sql, struct pk_error *err)
{
    int rc = sqlite3_exec(state->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : fail_db(state, rc, err);
}

/* The first column of the first row of a query. */
static int query_text(struct pk_state *state, const char *sql, char **ret_text,
                      struct pk_error *err)
{
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(state->db, sql, -1, &statement, NULL);
    if (rc != SQLITE_OK)
        return fail_db(state, rc, err);
    rc = sqlite3_step(statement);
    int r = 0;
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        r = fail_db(state, rc, err);
    } else {
        const char *text =
            rc == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
        *ret_text = pk_strdup(text != NULL ? text : "");
        if (*ret_text == NULL)
            r = pk_no_memory(err);
    }
    (void)sqlite3_finalize(statement);
    return r;
}

static int migrate(struct pk_state *state, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    int r = query_text(state, "PRAGMA user_version", &text, err);
    if (r < 0)
        return r;
    uint64_t parsed;
    r = pk_parse_u64(text, &parsed, err);
    if (r < 0)
        return r;
    size_t version = (size_t)parsed;
    if (version > PK_ARRAY_SIZE(migrations)) {
        pk_fail(err, PK_E_UNSUPPORTED,
                "the state database %s has schema %zu, this picket knows %zu", state->path, version,
                PK_ARRAY_SIZE(migrations));
        return pk_hint(err, "it was written by a newer picket: use that version or newer");
    }
    for (; version < PK_ARRAY_SIZE(migrations); version++) {
        char set[160];
        char now[36];
        (void)snprintf(
            set, sizeof(set), "INSERT INTO migration VALUES (%zu, '%s'); PRAGMA user_version = %zu",
            version + 1, pk_time_format(pk_time_now(), 3, now, sizeof(now)), version + 1);
        r = exec(state, "BEGIN IMMEDIATE", err);
        if (r < 0)
            return r;
        r = exec(state,
                 "CREATE TABLE IF NOT EXISTS migration"
                 " (version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL)",
                 err);
        if (r >= 0)
            r = exec(state, migrations[version], err);
        if (r >= 0)
            r = exec(state, set, err);
        if (r >= 0)
            r = exec(state, "COMMIT", err);
        if (r < 0) {
            (void)sqlite3_exec(state->db, "ROLLBACK", NULL, NULL, NULL);
            return r;
        }
    }
    return 0;
}

static int prepare(struct pk_state *state, struct pk_error *err)
{
    for (size_t i = 0; i < ST_COUNT; i++) {
        int rc = sqlite3_prepare_v3(state->db, statement_text[i], -1, SQLITE_PREPARE_PERSISTENT,
                                    &state->statements[i], NULL);
        if (rc != SQLITE_OK)
            return fail_db(state, rc, err);
    }
    return 0;
}

int pk_state_open(const char *path, struct pk_state **ret_state, struct pk_error *err)
{
    PK_CLEANUP(pk_state_close_p) struct pk_state *state = pk_zalloc(sizeof(*state));
    if (state == NULL)
        return pk_no_memory(err);
    (void)pthread_mutex_init(&state->lock, NULL);
    state->path = pk_strdup(path);
    if (state->path == NULL)
        return pk_no_memory(err);

    int rc = sqlite3_open_v2(path, &state->db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                                 SQLITE_OPEN_NOFOLLOW,
                             NULL);
    if (rc != SQLITE_OK)
        return fail_db(state, rc, err);
    (void)sqlite3_extended_result_codes(state->db, 1);
    (void)sqlite3_busy_timeout(state->db, STATE_BUSY_MS);
    (void)sqlite3_limit(state->db, SQLITE_LIMIT_LENGTH, STATE_MAX_BYTES);

    PK_CLEANUP(pk_free_p) char *mode = NULL;
    int r = query_text(state, "PRAGMA journal_mode = WAL", &mode, err);
    if (r < 0)
        return r;
    r = exec(state, "PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF", err);
    if (r < 0)
        return r;

    /* Found now, not in the middle of an apply. */
    PK_CLEANUP(pk_free_p) char *check = NULL;
    r = query_text(state, "PRAGMA quick_check(1)", &check, err);
    if (r < 0)
        return r;
    if (!pk_str_equal(check, "ok")) {
        r = fail_db(state, SQLITE_CORRUPT, err);
        return r;
    }
    r = migrate(state, err);
    if (r < 0)
        return r;
    r = prepare(state, err);
    if (r < 0)
        return r;
    *ret_state = PK_TAKE(state);
    return 0;
}

void pk_state_close(struct pk_state *state)
{
    if (state == NULL)
        return;
    for (size_t i = 0; i < ST_COUNT; i++)
        (void)sqlite3_finalize(state->statements[i]);
    (void)sqlite3_close_v2(state->db);
    (void)pthread_mutex_destroy(&state->lock);
    pk_free(state->path);
    pk_free(state);
}

void pk_revision_done(struct pk_revision *revision)
{
    pk_free(revision->fleet);
    pk_free(revision->user);
    pk_free(revision->reason);
    pk_free(revision->document);
    pk_free(revision->plan_id);
    pk_free(revision->outcome);
    pk_free(revision->detail);
    json_decref(revision->steps);
    memset(revision, 0, sizeof(*revision));
}

void pk_revision_list_free(struct pk_revision *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pk_revision_done(&list[i]);
    pk_free(list);
}

static int read_text(sqlite3_stmt *statement, int column, char **ret_text, struct pk_error *err)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    *ret_text = pk_strdup(text != NULL ? text : "");
    return *ret_text != NULL ? 0 : pk_no_memory(err);
}

static int read_json(struct pk_state *state, sqlite3_stmt *statement, int column, json_t **ret_json,
                     struct pk_error *err)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    size_t len = (size_t)sqlite3_column_bytes(statement, column);
    return pk_json_parse(state->path, text != NULL ? text : "null", text != NULL ? len : 4,
                         ret_json, err);
}

/* Reads the row that the statement stands on; on failure the half-read revision is released. */
static int read_revision(struct pk_state *state, sqlite3_stmt *statement,
                         struct pk_revision *revision, struct pk_error *err)
{
    struct pk_revision row = { 0 };
    struct {
        int column;
        char **text;
    } const texts[] = {
        { 0, &row.fleet },   { 4, &row.user },    { 5, &row.reason }, { 6, &row.document },
        { 7, &row.plan_id }, { 8, &row.outcome }, { 9, &row.detail },
    };
    row.number = (uint64_t)sqlite3_column_int64(statement, 1);
    row.created_at = sqlite3_column_int64(statement, 2);
    row.finished_at = sqlite3_column_int64(statement, 3);
    int r = 0;
    for (size_t i = 0; i < PK_ARRAY_SIZE(texts) && r >= 0; i++)
        r = read_text(statement, texts[i].column, texts[i].text, err);
    if (r >= 0)
        r = read_json(state, statement, 10, &row.steps, err);
    if (r < 0) {
        pk_revision_done(&row);
        return r;
    }
    *revision = row;
    return 0;
}

static int begin_in_transaction(struct pk_state *state, const struct pk_revision *revision,
                                const char *steps, uint64_t *ret_number, struct pk_error *err)
{
    STATEMENT next = state->statements[ST_NEXT_NUMBER];
    bind_text(next, 1, revision->fleet);
    int r = run(state, next, err);
    if (r < 0)
        return r;
    int64_t number = sqlite3_column_int64(next, 0);
    pk_nsec created_at = revision->created_at != 0 ? revision->created_at : pk_time_now();

    STATEMENT supersede = state->statements[ST_SUPERSEDE];
    bind_text(supersede, 1, revision->fleet);
    (void)sqlite3_bind_int64(supersede, 2, created_at);
    (void)sqlite3_bind_int64(supersede, 3, number);
    r = run(state, supersede, err);
    if (r < 0)
        return r;

    STATEMENT insert = state->statements[ST_INSERT_REVISION];
    bind_text(insert, 1, revision->fleet);
    (void)sqlite3_bind_int64(insert, 2, number);
    (void)sqlite3_bind_int64(insert, 3, created_at);
    bind_text(insert, 4, revision->user);
    bind_text(insert, 5, revision->reason);
    bind_text(insert, 6, revision->document);
    bind_text(insert, 7, revision->plan_id);
    bind_text(insert, 8, steps);
    r = run(state, insert, err);
    if (r < 0)
        return r;

    STATEMENT set = state->statements[ST_SET_FLEET];
    bind_text(set, 1, revision->fleet);
    (void)sqlite3_bind_int64(set, 2, number);
    r = run(state, set, err);
    if (r < 0)
        return r;
    *ret_number = (uint64_t)number;
    return 0;
}

int pk_state_revision_begin(struct pk_state *state, const struct pk_revision *revision,
                            uint64_t *ret_number, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p)
    char *steps = revision->steps != NULL ? pk_json_compact(revision->steps) : pk_strdup("[]");
    if (steps == NULL)
        return pk_no_memory(err);
    LOCK(state);
    int r = run_plain(state, ST_BEGIN, err);
    if (r < 0)
        return r;
    uint64_t number = 0;
    r = begin_in_transaction(state, revision, steps, &number, err);
    r = finish_transaction(state, r, err);
    if (r < 0)
        return r;
    *ret_number = number;
    return 0;
}

static int no_revision(const char *fleet, uint64_t number, struct pk_error *err)
{
    if (number == 0)
        pk_fail(err, PK_E_NOTFOUND, "fleet %s has no revision", fleet);
    else
        pk_fail(err, PK_E_NOTFOUND, "fleet %s has no revision %llu", fleet,
                (unsigned long long)number);
    return pk_hint(err, "'picket history %s' lists them", fleet);
}

/* Runs an update that must meet one revision. */
static int run_on_revision(struct pk_state *state, sqlite3_stmt *statement, const char *fleet,
                           uint64_t number, struct pk_error *err)
{
    bind_text(statement, 1, fleet);
    (void)sqlite3_bind_int64(statement, 2, (int64_t)number);
    int r = run(state, statement, err);
    if (r < 0)
        return r;
    return sqlite3_changes(state->db) == 1 ? 0 : no_revision(fleet, number, err);
}

int pk_state_revision_step(struct pk_state *state, const char *fleet, uint64_t number,
                           const json_t *steps, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = pk_json_compact(steps);
    if (text == NULL)
        return pk_no_memory(err);
    LOCK(state);
    STATEMENT statement = state->statements[ST_STEP];
    bind_text(statement, 3, text);
    return run_on_revision(state, statement, fleet, number, err);
}

int pk_state_revision_finish(struct pk_state *state, const char *fleet, uint64_t number,
                             const char *outcome, const char *detail, struct pk_error *err)
{
    LOCK(state);
    STATEMENT statement = state->statements[ST_FINISH];
    bind_text(statement, 3, outcome);
    bind_text(statement, 4, detail);
    (void)sqlite3_bind_int64(statement, 5, pk_time_now());
    return run_on_revision(state, statement, fleet, number, err);
}

int pk_state_revision_get(struct pk_state *state, const char *fleet, uint64_t number,
                          struct pk_revision *ret_revision, struct pk_error *err)
{
    if (number > INT64_MAX)
        return no_revision(fleet, number, err);
    LOCK(state);
    STATEMENT statement = state->statements[number == 0 ? ST_NEWEST : ST_GET];
    bind_text(statement, 1, fleet);
    if (number != 0)
        (void)sqlite3_bind_int64(statement, 2, (int64_t)number);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_DONE)
        return no_revision(fleet, number, err);
    if (rc != SQLITE_ROW)
        return fail_db(state, rc, err);
    return read_revision(state, statement, ret_revision, err);
}

int pk_state_revision_list(struct pk_state *state, const char *fleet, uint64_t before, size_t limit,
                           struct pk_revision **ret_list, size_t *ret_count, struct pk_error *err)
{
    limit = PK_MIN(limit, STATE_LIST_MAX);
    struct pk_revision *list = pk_zalloc_array(PK_MAX(limit, 1u), sizeof(*list));
    if (list == NULL)
        return pk_no_memory(err);
    LOCK(state);
    STATEMENT statement = state->statements[ST_LIST];
    bind_text(statement, 1, fleet);
    (void)sqlite3_bind_int64(statement, 2,
                             before == 0 || before > INT64_MAX ? INT64_MAX : (int64_t)before);
    (void)sqlite3_bind_int64(statement, 3, (int64_t)limit);
    size_t count = 0;
    int r = 0;
    int rc = SQLITE_DONE;
    while (r >= 0 && count < limit && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
        r = read_revision(state, statement, &list[count], err);
        if (r >= 0)
            count++;
    }
    if (r >= 0 && rc != SQLITE_ROW && rc != SQLITE_DONE)
        r = fail_db(state, rc, err);
    if (r < 0) {
        pk_revision_list_free(list, count);
        return r;
    }
    *ret_list = list;
    *ret_count = count;
    return 0;
}

int pk_state_fleets(struct pk_state *state, json_t **ret_list, struct pk_error *err)
{
    PK_JSON list = json_object();
    if (list == NULL)
        return pk_no_memory(err);
    LOCK(state);
    STATEMENT statement = state->statements[ST_FLEETS];
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(statement, 0);
        if (name == NULL ||
            json_object_set_new(list, name, json_integer(sqlite3_column_int64(statement, 1))) < 0)
            return pk_no_memory(err);
    }
    if (rc != SQLITE_DONE)
        return fail_db(state, rc, err);
    *ret_list = PK_TAKE(list);
    return 0;
}

int pk_state_fleet_remove(struct pk_state *state, const char *fleet, struct pk_error *err)
{
    LOCK(state);
    STATEMENT statement = state->statements[ST_REMOVE_FLEET];
    bind_text(statement, 1, fleet);
    return run(state, statement, err);
}

int pk_state_put(struct pk_state *state, const char *kind, const char *key, const json_t *value,
                 struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    if (value != NULL) {
        text = pk_json_compact(value);
        if (text == NULL)
            return pk_no_memory(err);
    }
    LOCK(state);
    STATEMENT statement = state->statements[value != NULL ? ST_PUT : ST_DELETE];
    bind_text(statement, 1, kind);
    bind_text(statement, 2, key);
    if (value != NULL)
        bind_text(statement, 3, text);
    return run(state, statement, err);
}

int pk_state_get(struct pk_state *state, const char *kind, const char *key, json_t **ret_value,
                 struct pk_error *err)
{
    LOCK(state);
    STATEMENT statement = state->statements[ST_GET_DOCUMENT];
    bind_text(statement, 1, kind);
    bind_text(statement, 2, key);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_DONE) {
        pk_fail(err, PK_E_NOTFOUND, "there is no %s %s", kind, key);
        return PK_E_NOTFOUND;
    }
    if (rc != SQLITE_ROW)
        return fail_db(state, rc, err);
    return read_json(state, statement, 0, ret_value, err);
}

int pk_state_list(struct pk_state *state, const char *kind, json_t **ret_values,
                  struct pk_error *err)
{
    PK_JSON values = json_object();
    if (values == NULL)
        return pk_no_memory(err);
    LOCK(state);
    STATEMENT statement = state->statements[ST_LIST_DOCUMENTS];
    bind_text(statement, 1, kind);
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *key = (const char *)sqlite3_column_text(statement, 0);
        json_t *value = NULL;
        int r = read_json(state, statement, 1, &value, err);
        if (r < 0)
            return r;
        if (key == NULL || json_object_set_new(values, key, value) < 0)
            return pk_no_memory(err);
    }
    if (rc != SQLITE_DONE)
        return fail_db(state, rc, err);
    *ret_values = PK_TAKE(values);
    return 0;
}

int pk_state_sample_put(struct pk_state *state, const char *key, pk_nsec at, const json_t *value,
                        struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = pk_json_compact(value);
    if (text == NULL)
        return pk_no_memory(err);
    LOCK(state);
    STATEMENT statement = state->statements[ST_PUT_SAMPLE];
    bind_text(statement, 1, key);
    (void)sqlite3_bind_int64(statement, 2, at);
    bind_text(statement, 3, text);
    return run(state, statement, err);
}

int pk_state_sample_get(struct pk_state *state, const char *key, pk_nsec at, json_t **ret_value,
                        struct pk_error *err)
{
    static const enum statement in_turn[] = { ST_GET_SAMPLE, ST_FIRST_SAMPLE };
    LOCK(state);
    for (size_t i = 0; i < PK_ARRAY_SIZE(in_turn); i++) {
        STATEMENT statement = state->statements[in_turn[i]];
        bind_text(statement, 1, key);
        if (in_turn[i] == ST_GET_SAMPLE)
            (void)sqlite3_bind_int64(statement, 2, at);
        int rc = sqlite3_step(statement);
        if (rc == SQLITE_ROW)
            return read_json(state, statement, 0, ret_value, err);
        if (rc != SQLITE_DONE)
            return fail_db(state, rc, err);
    }
    return pk_fail(err, PK_E_NOTFOUND, "there is no sample of %s", key);
}

int pk_state_sample_thin(struct pk_state *state, const char *key, pk_nsec keep_from,
                         pk_nsec thin_before, pk_nsec every, struct pk_error *err)
{
    LOCK(state);
    STATEMENT statement = state->statements[ST_THIN_SAMPLES];
    bind_text(statement, 1, key);
    (void)sqlite3_bind_int64(statement, 2, keep_from);
    (void)sqlite3_bind_int64(statement, 3, thin_before);
    (void)sqlite3_bind_int64(statement, 4, every);
    return run(state, statement, err);
}
