/* SPDX-License-Identifier: Apache-2.0 */
/* Prints what the way of an event costs: parsing, storing, its size on disk, a count over many. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/time.h"
#include "base/wire.h"
#include "ship/record.h"
#include "store/store.h"

#define EVENTS 1000000u
#define BATCH  4096u

static double cpu_seconds(void)
{
    struct rusage usage;

    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
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

int main(void)
{
    char dir[] = "/tmp/bench-events-XXXXXX", line[1024], session[40];
    struct pk_error err = { 0 };
    struct pk_records *records = NULL;
    struct pk_value values[PK_EVENT_COLUMNS_MAX];
    struct pk_buf batch = PK_BUF_INIT(PK_WIRE_MAX);
    uint64_t raw = 0, offset = 0;
    double parse = 0, store = 0;

    if (mkdtemp(dir) == NULL)
        return 1;
    struct pk_events_options options = { .dir = dir,
                                         .seal_after = PK_NSEC_PER_SEC,
                                         .memory_bytes = 512u << 20 };
    struct pk_events *events = NULL;
    must(pk_events_open(&options, &events, &err), &err);
    must(pk_records_new(&records, &err), &err);
    json_t *sources = pk_events_sources(events, &err);
    snprintf(session, sizeof(session), "%s", pk_json_string_or(sources, "session", ""));
    json_decref(sources);

    char *lines = malloc((size_t)BATCH * sizeof(line));
    size_t lens[BATCH];
    if (lines == NULL)
        return 1;
    for (uint32_t n = 0; n < EVENTS; n += BATCH) {
        for (uint32_t i = 0; i < BATCH; i++)
            lens[i] = make_line(n + i, lines + i * sizeof(line), sizeof(line));
        struct pk_batch head = { .session = session,
                                 .source = "bench",
                                 .fleet = "bench",
                                 .group = "g",
                                 .tool = "suricata",
                                 .from = offset,
                                 .to = offset };
        struct rusage thread;
        (void)getrusage(RUSAGE_THREAD, &thread);
        double start = (double)thread.ru_utime.tv_sec + (double)thread.ru_utime.tv_usec / 1e6;
        must(pk_wire_begin(&batch, &head, &err), &err);
        for (uint32_t i = 0; i < BATCH; i++) {
            (void)pk_records_parse(records, PK_LOG_EVE, NULL, 0, lines + i * sizeof(line), lens[i],
                                   values);
            must(pk_wire_add(&batch, values, &err), &err);
            raw += lens[i] + 1;
            offset += lens[i] + 1;
        }
        (void)getrusage(RUSAGE_THREAD, &thread);
        parse += (double)thread.ru_utime.tv_sec + (double)thread.ru_utime.tv_usec / 1e6 - start;
        pk_wire_finish(&batch, offset, 0, 0);
        double before = cpu_seconds();
        json_t *reply = NULL;
        must(pk_events_ingest(events, batch.data, batch.len, &reply, &err), &err);
        json_decref(reply);
        store += cpu_seconds() - before;
    }
    double before = cpu_seconds();
    json_t *stats = NULL;
    do {
        json_decref(stats);
        pk_sleep_ms(100);
        stats = pk_events_stats(events, NULL, &err);
    } while (pk_json_int_or(stats, "memoryRows", 0) > 0);
    store += cpu_seconds() - before;
    int64_t bytes = pk_json_int_or(stats, "bytes", 0);
    uint32_t made = (EVENTS + BATCH - 1) / BATCH * BATCH;
    printf("parse and encode   %8.0f events per CPU second (%.0f bytes a record)\n", made / parse,
           (double)raw / made);
    printf("ingest and seal    %8.0f events per CPU second\n", made / store);
    printf("size on disk       %8.3f of the raw records\n", (double)bytes / (double)raw);
    json_decref(stats);
    static const char *const fields[] = { "type", "signature", "dst_ip", "host" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(fields); i++) {
        struct pk_events_query query = { .until = INT64_MAX, .limit = 10 };
        double best = 1e9;
        for (int round = 0; round < 5; round++) {
            json_t *list = NULL;
            pk_nsec start = pk_time_monotonic();
            must(pk_events_count(events, &query, fields[i], &list, &err), &err);
            best = PK_MIN(best, (double)(pk_time_monotonic() - start) / 1e6);
            json_decref(list);
        }
        printf("count by %-9s %8.1f ms over %u events\n", fields[i], best, made);
    }
    free(lines);
    pk_buf_done(&batch);
    pk_records_free(records);
    pk_events_close(events);
    return pk_rm_rf(dir, &err) < 0;
}
