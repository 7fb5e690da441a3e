/* SPDX-License-Identifier: Apache-2.0 */
/* Prints what the way of an event costs: parsing, storing, its size on disk, counts and queries
 * over many; beside it a typed table of SQLite, fed and asked in the same run. */
#include <arpa/inet.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/time.h"
#include "base/wire.h"
#include "ship/record.h"
#include "store/store.h"

#define EVENTS 1000000u
#define BATCH  4096u

static double seconds(int who)
{
    struct rusage usage;

    (void)getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Of this thread, milliseconds. */
static double cpu_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void must(int r, const struct pk_error *err)
{
    if (r >= 0)
        return;
    fprintf(stderr, "%s (%s)\n", err->msg, err->hint);
    exit(1);
}

static size_t make_line(uint32_t n, char *out, size_t size)
{
    static const char *const kinds[] = { "flow", "dns", "http", "tls", "alert" };
    uint32_t r = n * 2654435761u;
    char extra[300];

    switch (n % 5) {
    case 1:
        snprintf(
            extra, sizeof(extra),
            "\"dns\":{\"version\":2,\"type\":\"query\",\"id\":%u,\"rrname\":\"h%u.example.com\","
            "\"rrtype\":\"A\",\"tx_id\":0,\"opcode\":0}",
            r % 65536, r % 5000);
        break;
    case 2:
        snprintf(
            extra, sizeof(extra),
            "\"http\":{\"hostname\":\"www%u.example.org\",\"url\":\"/a/%u\",\"http_user_agent\":"
            "\"Mozilla/5.0 (X11; Linux x86_64)\",\"http_method\":\"GET\",\"status\":200}",
            r % 300, r % 9000);
        break;
    case 3:
        snprintf(extra, sizeof(extra),
                 "\"tls\":{\"sni\":\"s%u.example.net\",\"version\":\"TLS 1.3\"}", r % 700);
        break;
    case 4:
        snprintf(extra, sizeof(extra),
                 "\"alert\":{\"action\":\"allowed\",\"gid\":1,\"signature_id\":%u,\"rev\":7,"
                 "\"signature\":\"TEST rule %u\",\"category\":\"Misc activity\",\"severity\":3}",
                 9000000 + r % 50, r % 50);
        break;
    default:
        snprintf(extra, sizeof(extra),
                 "\"flow\":{\"pkts_toserver\":%u,\"pkts_toclient\":%u,\"bytes_toserver\":%u,"
                 "\"bytes_toclient\":%u,\"state\":\"closed\",\"reason\":\"timeout\"}",
                 r % 50, r % 60, r % 90000, r % 900000);
        break;
    }
    return (size_t)snprintf(
        out, size,
        "{\"timestamp\":\"2026-01-01T%02u:%02u:%02u.%06u+0000\",\"flow_id\":%u%u,\"in_iface\":"
        "\"tap0\",\"event_type\":\"%s\",\"src_ip\":\"10.%u.%u.%u\",\"src_port\":%u,\"dest_ip\":"
        "\"192.168.%u.%u\",\"dest_port\":%u,\"proto\":\"TCP\",\"community_id\":"
        "\"1:%08x%08xAAAAAAAAAA=\",\"pkt_src\":\"wire/pcap\",%s}",
        n / 500000 % 24, n / 8000 % 60, n / 130 % 60, n % 1000000, 100000 + n, r % 100000,
        kinds[n % 5], r % 4, r >> 8 & 255, r >> 16 & 255, 1024 + r % 60000, r % 3, r >> 5 & 127,
        n % 5 == 1 ? 53u : 443u, r, r * 7, extra);
}

/* ---- the peer: the same columns, each row inserted into a table of SQLite ---- */

struct peer {
    sqlite3 *db;
    sqlite3_stmt *insert;
    char path[64];
};

static void peer_must(const struct peer *peer, bool ok)
{
    if (ok)
        return;
    fprintf(stderr, "sqlite: %s\n", sqlite3_errmsg(peer->db));
    exit(1);
}

static void peer_open(struct peer *peer, const char *dir)
{
    struct pk_buf create = PK_BUF_INIT(64u << 10), insert = PK_BUF_INIT(64u << 10);
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);

    (void)snprintf(peer->path, sizeof(peer->path), "%s/peer.db", dir);
    (void)pk_buf_puts(&create,
                      "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE events (");
    (void)pk_buf_puts(&insert, "INSERT INTO events VALUES (");
    for (size_t i = 0; i < count; i++) {
        (void)pk_buf_printf(
            &create, "%s\"%s\" %s", i > 0 ? ", " : "", columns[i].name,
            columns[i].type == PK_COL_TIME || columns[i].type == PK_COL_U64 ? "INTEGER" : "TEXT");
        (void)pk_buf_puts(&insert, i > 0 ? ", ?" : "?");
    }
    (void)pk_buf_puts(&create, ")");
    (void)pk_buf_puts(&insert, ")");
    peer_must(peer,
              sqlite3_open(peer->path, &peer->db) == SQLITE_OK &&
                  sqlite3_exec(peer->db, create.data, NULL, NULL, NULL) == SQLITE_OK &&
                  sqlite3_prepare_v2(peer->db, insert.data, -1, &peer->insert, NULL) == SQLITE_OK);
    pk_buf_done(&create);
    pk_buf_done(&insert);
}

/* A batch as one transaction, read from the same bytes as the store's. */
static void peer_ingest(struct peer *peer, const struct pk_buf *batch)
{
    static struct pk_wire_reader reader;
    struct pk_value values[PK_EVENT_COLUMNS_MAX];
    struct pk_error err = { 0 };
    char text[INET6_ADDRSTRLEN];
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);

    must(pk_wire_open(&reader, batch->data, batch->len, &err), &err);
    peer_must(peer, sqlite3_exec(peer->db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK);
    int r;
    while ((r = pk_wire_next(&reader, values, &err)) > 0) {
        (void)sqlite3_clear_bindings(peer->insert);
        for (size_t i = 0; i < count; i++) {
            int at = (int)i + 1;
            const struct pk_value *value = &values[i];
            if (!value->set)
                continue;
            if (columns[i].type == PK_COL_TEXT)
                (void)sqlite3_bind_text(peer->insert, at, value->text, (int)value->len,
                                        SQLITE_STATIC);
            else if (columns[i].type == PK_COL_IP)
                (void)sqlite3_bind_text(peer->insert, at,
                                        inet_ntop(value->ip_len == 4 ? AF_INET : AF_INET6,
                                                  value->ip, text, sizeof(text)),
                                        -1, SQLITE_TRANSIENT);
            else
                (void)sqlite3_bind_int64(peer->insert, at,
                                         columns[i].type == PK_COL_TIME ? value->time
                                                                        : (int64_t)value->number);
        }
        peer_must(peer, sqlite3_step(peer->insert) == SQLITE_DONE);
        (void)sqlite3_reset(peer->insert);
    }
    must(r, &err);
    peer_must(peer, sqlite3_exec(peer->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
}

static double peer_count(struct peer *peer, const char *field)
{
    sqlite3_stmt *stmt = NULL;
    char sql[200];

    (void)snprintf(sql, sizeof(sql),
                   "SELECT \"%s\", count(*) AS n FROM events WHERE \"%s\" IS NOT NULL GROUP BY 1"
                   " ORDER BY n DESC LIMIT 10",
                   field, field);
    double start = cpu_ms();
    peer_must(peer, sqlite3_prepare_v2(peer->db, sql, -1, &stmt, NULL) == SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW)
        continue;
    (void)sqlite3_finalize(stmt);
    return cpu_ms() - start;
}

static int64_t peer_close(struct peer *peer)
{
    struct stat st = { 0 };

    (void)sqlite3_finalize(peer->insert);
    (void)sqlite3_close(peer->db);
    (void)stat(peer->path, &st);
    return st.st_size;
}

/* ---- questions ---- */

/* Best of five, in milliseconds of CPU: on a small machine one thread does it all. */
static double count_ms(struct pk_events *events, const char *field)
{
    const struct pk_events_query query = { .until = INT64_MAX, .limit = 10 };
    struct pk_error err = { 0 };
    double best = 1e9;

    for (int round = 0; round < 5; round++) {
        json_t *list = NULL;
        double start = cpu_ms();
        must(pk_events_count(events, &query, field, &list, &err), &err);
        best = PK_MIN(best, cpu_ms() - start);
        json_decref(list);
    }
    return best;
}

static double query_ms(struct pk_events *events, const char *filter, size_t *ret_found)
{
    const struct pk_events_query query = { .filter = filter, .until = INT64_MAX, .limit = 100 };
    struct pk_error err = { 0 };
    double best = 1e9;

    for (int round = 0; round < 3; round++) {
        json_t *list = NULL;
        char *page = NULL;
        double start = cpu_ms();
        must(pk_events_query(events, &query, &list, &page, &err), &err);
        best = PK_MIN(best, cpu_ms() - start);
        *ret_found = json_array_size(list);
        json_decref(list);
        pk_free(page);
    }
    return best;
}

static void ask(struct pk_events *events, struct peer *peer)
{
    static const char *const fields[] = { "type", "signature", "dst_ip", "host" };
    static const char *const filters[] = {
        "",
        "type:alert",
        "no-such-needle",
        "host:*4999.example*",
        "host:*.nowhere",
        "dst_ip:192.168.2.0/28",
        "ip:172.16.0.0/12",
        "signature_id:9000007 src_port>60000",
    };

    for (size_t i = 0; i < PK_ARRAY_SIZE(fields); i++) {
        double ours = count_ms(events, fields[i]);
        double theirs = peer_count(peer, fields[i]);
        printf("count by %-9s  %8.1f CPU ms, sqlite %8.1f ms (%.0f times faster)\n", fields[i],
               ours, theirs, theirs / ours);
    }
    for (size_t i = 0; i < PK_ARRAY_SIZE(filters); i++) {
        size_t found = 0;
        double ms = query_ms(events, filters[i], &found);
        printf("newest 100         %8.1f CPU ms, %3zu found  %s\n", ms, found, filters[i]);
    }
}

int main(void)
{
    char dir[] = "/tmp/bench-events-XXXXXX", store_dir[64], line[1024], session[40];
    struct pk_error err = { 0 };
    struct pk_records *records = NULL;
    struct pk_value values[PK_EVENT_COLUMNS_MAX];
    struct pk_buf batch = PK_BUF_INIT(PK_WIRE_MAX);
    uint64_t raw = 0, offset = 0;
    double parse = 0, ingest = 0, peer_time = 0, other = 0;
    struct peer peer;

    if (mkdtemp(dir) == NULL)
        return 1;
    (void)snprintf(store_dir, sizeof(store_dir), "%s/events", dir);
    struct pk_events_options options = { .dir = store_dir, .memory_bytes = 512u << 20 };
    struct pk_events *events = NULL;
    must(pk_events_open(&options, &events, &err), &err);
    must(pk_records_new(&records, &err), &err);
    json_t *sources = pk_events_sources(events, &err);
    snprintf(session, sizeof(session), "%s", pk_json_string_or(sources, "session", ""));
    json_decref(sources);
    peer_open(&peer, dir);

    char *lines = malloc((size_t)BATCH * sizeof(line));
    size_t lens[BATCH];
    if (lines == NULL)
        return 1;
    double process = seconds(RUSAGE_SELF);
    for (uint32_t n = 0; n < EVENTS; n += BATCH) {
        double at = seconds(RUSAGE_THREAD);
        for (uint32_t i = 0; i < BATCH; i++)
            lens[i] = make_line(n + i, lines + i * sizeof(line), sizeof(line));
        struct pk_batch head = { .session = session,
                                 .source = "bench",
                                 .fleet = "bench",
                                 .group = "g",
                                 .tool = "suricata",
                                 .from = offset,
                                 .to = offset };
        double start = seconds(RUSAGE_THREAD);
        must(pk_wire_begin(&batch, &head, &err), &err);
        for (uint32_t i = 0; i < BATCH; i++) {
            (void)pk_records_parse(records, PK_LOG_EVE, NULL, 0, lines + i * sizeof(line), lens[i],
                                   values);
            must(pk_wire_add(&batch, values, &err), &err);
            raw += lens[i] + 1;
            offset += lens[i] + 1;
        }
        pk_wire_finish(&batch, offset, 0, 0);
        double parsed = seconds(RUSAGE_THREAD);
        parse += parsed - start;
        peer_ingest(&peer, &batch); /* in turns: whatever else this machine does hits both */
        double peered = seconds(RUSAGE_THREAD);
        peer_time += peered - parsed;
        other += peered - at;
        json_t *reply = NULL;
        must(pk_events_ingest(events, batch.data, batch.len, &reply, &err), &err);
        json_decref(reply);
        ingest += seconds(RUSAGE_THREAD) - peered;
    }
    json_t *stats = NULL;
    do {
        json_decref(stats);
        pk_sleep_ms(100);
        stats = pk_events_stats(events, NULL, &err);
    } while (pk_json_int_or(stats, "memoryRows", 0) > 0);
    /* All that the process used but for the making of events: also what other threads sealed. */
    double store = seconds(RUSAGE_SELF) - process - other;
    int64_t bytes = pk_json_int_or(stats, "bytes", 0);
    uint32_t made = (EVENTS + BATCH - 1) / BATCH * BATCH;
    printf("%u events of %.0f bytes, in %lld files\n", made, (double)raw / made,
           (long long)pk_json_int_or(stats, "files", 0));
    printf("parse and encode   %8.0f events per CPU second\n", made / parse);
    printf("ingest and seal    %8.0f events per CPU second (ingest alone %.0f), sqlite %.0f (%.1f "
           "times faster)\n",
           made / store, made / ingest, made / peer_time, peer_time / store);
    json_decref(stats);
    ask(events, &peer);
    int64_t peer_bytes = peer_close(&peer);
    printf("size on disk       %8.3f of the raw records, sqlite %.3f\n",
           (double)bytes / (double)raw, (double)peer_bytes / (double)raw);
    free(lines);
    pk_buf_done(&batch);
    pk_records_free(records);
    pk_events_close(events);
    return pk_rm_rf(dir, &err) < 0;
}
