/* SPDX-License-Identifier: Apache-2.0 */
#include "ship/ship.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/time.h"
#include "base/wire.h"
#include "ship/internal.h"

#define BATCH_MAX      (6u << 20)
#define BATCH_ENOUGH   (2u << 20)
#define SCAN_EVERY     (250 * PK_NSEC_PER_MS)
#define ASK_EVERY      PK_NSEC_PER_SEC
#define IDLE_MS        50u
#define BACKOFF_MAX    2000u
#define CANARIES_EVERY (2 * PK_NSEC_PER_SEC)
#define CANARIES_MAX   1024u /* waiting to be told; the newest count */
#define TYPICAL_LINE   500u  /* bytes, to tell how many events a gap may have held */

int pk_ship_new(const struct pk_ship_options *options, struct pk_ship **ret_ship,
                struct pk_error *err)
{
    PK_CLEANUP(pk_ship_free_p) struct pk_ship *ship = pk_zalloc(sizeof(*ship));

    if (ship == NULL)
        return pk_no_memory(err);
    if (sodium_init() < 0)
        return pk_fail(err, PK_E_INTERNAL, "libsodium does not start");
    ship->sink = options->sink;
    ship->keep = options->keep;
    ship->batch = PK_BUF_INIT(BATCH_MAX);
    ship->dir = pk_strdup(options->dir);
    ship->hold = pk_asprintf("%s/hold", options->dir);
    ship->chunk = pk_zalloc(PK_LINE_MAX + 1);
    ship->canaries = json_array();
    ship->host = pk_event_column("host");
    if (ship->canaries == NULL || ship->dir == NULL || ship->hold == NULL || ship->chunk == NULL)
        return pk_no_memory(err);
    /* Breaking a lease that we hold for an instant must not kill us. */
    (void)signal(SIGIO, SIG_IGN);
    int r = pk_records_new(&ship->records, err);
    if (r == 0)
        r = pk_mkdir_p(ship->hold, 0750, err);
    if (r == 0)
        r = pk_ship_load_hold(ship, err);
    if (r == 0)
        *ret_ship = PK_TAKE(ship);
    return r;
}

void pk_ship_free(struct pk_ship *ship)
{
    if (ship == NULL)
        return;
    for (size_t i = 0; i < ship->file_count; i++)
        pk_ship_file_free(ship->files[i]);
    pk_free(ship->files);
    pk_records_free(ship->records);
    pk_buf_done(&ship->batch);
    json_decref(ship->source_list);
    json_decref(ship->known);
    json_decref(ship->canaries);
    pk_free(ship->chunk);
    pk_free(ship->dir);
    pk_free(ship->hold);
    pk_free(ship);
}

struct pk_ship_numbers pk_ship_numbers(const struct pk_ship *ship)
{
    struct pk_ship_numbers numbers = ship->numbers;

    numbers.files = ship->file_count;
    for (size_t i = 0; i < ship->file_count; i++)
        numbers.pinned += ship->files[i]->held;
    return numbers;
}

/* ---- the store's side ---- */

/* Takes over what the store says. A session that changed: what was not sealed is gone from its
 * memory, and "received" says so already. */
static int ask(struct pk_ship *ship, bool resume, struct pk_error *err)
{
    json_t *reply = NULL;
    int r = ship->sink.sources(ship->sink.arg, &reply, err);

    if (r < 0)
        return r;
    const char *session = pk_json_string_or(reply, "session", "");
    bool fresh = strcmp(session, ship->session) != 0;
    (void)snprintf(ship->session, sizeof(ship->session), "%s", session);
    json_decref(ship->known);
    ship->known = json_incref(json_object_get(reply, "sources"));
    json_decref(reply);
    for (size_t i = 0; i < ship->file_count; i++) {
        struct pk_ship_file *file = ship->files[i];
        const json_t *known = json_object_get(ship->known, file->id);
        if (file->id[0] == '\0' || (file->done && known == NULL))
            continue;
        file->sealed = (uint64_t)pk_json_int_or(known, "sealed", 0);
        if (fresh || resume || !ship->synced)
            file->offset = (uint64_t)pk_json_int_or(known, "received", 0);
    }
    ship->asked_at = pk_time_monotonic();
    ship->synced = true;
    return 0;
}

static int deliver(struct pk_ship *ship, struct pk_ship_file *file, uint64_t to,
                   struct pk_error *err)
{
    json_t *reply = NULL;
    int r = ship->sink.deliver(ship->sink.arg, ship->batch.data, ship->batch.len, &reply, err);

    if (r < 0) {
        ship->numbers.retries++;
        /* Whether it arrived or not, the store knows: ask before anything else is sent. */
        ship->synced = false;
        return r;
    }
    const json_t *known = json_object_get(json_object_get(reply, "sources"), file->id);
    file->offset = to;
    file->sealed = PK_MAX(file->sealed, (uint64_t)pk_json_int_or(known, "sealed", 0));
    json_decref(reply);
    ship->numbers.batches++;
    return 0;
}

static int begin_batch(struct pk_ship *ship, const struct pk_ship_file *file, uint32_t flags,
                       struct pk_error *err)
{
    const struct pk_batch batch = { .session = ship->session,
                                    .source = file->id,
                                    .fleet = file->fleet,
                                    .group = file->group,
                                    .tool = file->tool,
                                    .path = file->path,
                                    .lane = file->lane,
                                    .from = file->offset,
                                    .to = file->offset,
                                    .flags = flags };

    return pk_wire_begin(&ship->batch, &batch, err);
}

/* ---- reading ---- */

/* It may be lost on the way to the server, which then waits for the next. */
static void note_canary(struct pk_ship *ship, struct pk_ship_file *file, uint64_t number,
                        pk_nsec now)
{
    int64_t delay = now / PK_NSEC_PER_MS - (int64_t)number;
    if (number == file->canary_number)
        return;
    file->canary_number = number;
    if (json_array_size(ship->canaries) >= CANARIES_MAX)
        (void)json_array_remove(ship->canaries, 0);
    (void)json_array_append_new(ship->canaries,
                                json_pack("{s:s, s:s, s:I, s:s, s:I, s:I}", "fleet", file->fleet,
                                          "group", file->group, "lane", (json_int_t)file->lane,
                                          "tool", file->tool, "number", (json_int_t)number,
                                          "delayMs", (json_int_t)PK_MAX(delay, 0)));
}

/* A record of one of the agent's canaries, of whatever kind: nothing for the store. Nearly all
 * others differ in the first comparison of addresses. */
static bool take_canary(struct pk_ship *ship, struct pk_ship_file *file,
                        const struct pk_value *values, pk_nsec now)
{
    const struct pk_value *source = &values[PK_EV_SRC_IP], *target = &values[PK_EV_DST_IP];
    const struct pk_value *host = &values[ship->host];
    uint64_t number;

    if (!source->set || !target->set || source->ip_len != 4 || target->ip_len != 4 ||
        !pk_canary_may_be(source->ip, target->ip) || !file->has_canary)
        return false;
    const struct pk_canary_flow flow = { .source = source->ip,
                                         .target = target->ip,
                                         .source_port = values[PK_EV_SRC_PORT].number,
                                         .target_port = values[PK_EV_DST_PORT].number };
    if (!values[PK_EV_SRC_PORT].set || !values[PK_EV_DST_PORT].set ||
        !pk_canary_is_flow(&file->canary, &flow))
        return false;
    if (host->set &&
        pk_canary_is_name(&file->canary, file->group, file->lane, host->text, host->len, &number))
        note_canary(ship, file, number, now);
    ship->numbers.canaries++;
    return true;
}

static int add_line(struct pk_ship *ship, struct pk_ship_file *file, pk_nsec now, const char *line,
                    size_t len, struct pk_error *err)
{
    struct pk_value values[PK_EVENT_COLUMNS_MAX];
    const char *type = file->format == PK_LOG_ZEEK_JSON ? file->type : NULL;

    if (pk_records_parse(ship->records, file->format, type, now, line, len, values)) {
        if (take_canary(ship, file, values, now))
            return 0;
        int r = pk_wire_add(&ship->batch, values, err);
        ship->numbers.events += r == 0;
        return r;
    }
    size_t split = pk_records_split(ship->records, file->format, line, len);
    if (split > 0)
        (void)pk_records_parse(ship->records, file->format, type, now, line, split, values);
    int r = pk_wire_add(&ship->batch, values, err);
    ship->numbers.invalid += r == 0;
    return r == 0 && split > 0 ? add_line(ship, file, now, line + split, len - split, err) : r;
}

/* Puts the lines of the chunk into the batch; *ret_used: bytes that it then stands for. */
static int add_lines(struct pk_ship *ship, struct pk_ship_file *file, size_t len, size_t *ret_used,
                     struct pk_error *err)
{
    pk_nsec now = pk_time_now();
    size_t at = 0;

    while (at < len && ship->batch.len < BATCH_ENOUGH && pk_wire_rows(&ship->batch) < 32768) {
        const char *line = ship->chunk + at;
        const char *end = memchr(line, '\n', len - at);
        size_t line_len = end != NULL ? (size_t)(end - line) : len - at;
        /* Without its end a line counts only when no more will come, or when it is beyond reason.
         */
        if (end == NULL && !file->closed && !(at == 0 && len == PK_LINE_MAX))
            break;
        if (end == NULL && at > 0 && len == PK_LINE_MAX)
            break; /* the rest is in the next chunk */
        if (line_len > 0) {
            int r = add_line(ship, file, now, line, line_len, err);
            if (r < 0)
                return r;
        }
        at += line_len + (end != NULL);
    }
    *ret_used = at;
    return 0;
}

/* What was given up is an event too, so that it can be searched: when, where, why, how much. */
static int add_loss(struct pk_ship *ship, const struct pk_ship_file *file, uint64_t lost,
                    struct pk_error *err)
{
    struct pk_value values[PK_EVENT_COLUMNS_MAX] = { 0 };
    PK_JSON loss =
        json_pack("{s:s, s:s, s:s, s:I, s:I}", "event_type", "loss", "reason", "truncated", "path",
                  file->path, "bytes", (json_int_t)lost, "offset", (json_int_t)file->offset);
    PK_CLEANUP(pk_free_p) char *text = loss != NULL ? pk_json_compact(loss) : NULL;

    if (text == NULL)
        return pk_fail(err, PK_E_NOMEM, "out of memory");
    values[PK_EV_TIME] = (struct pk_value){ .set = true, .time = pk_time_now() };
    values[PK_EV_TYPE] = (struct pk_value){ .set = true, .text = "loss", .len = 4 };
    values[pk_event_column("raw")] =
        (struct pk_value){ .set = true, .text = text, .len = (uint32_t)strlen(text) };
    return pk_wire_add(&ship->batch, values, err);
}

/* The end of what the file was before it was truncated. It may have arrived although no answer
 * came: then nothing is left to be told, or, once that is sealed, the store knows the source no
 * more. */
static int tell_loss(struct pk_ship *ship, struct pk_ship_file *file, bool *ret_more,
                     struct pk_error *err)
{
    uint64_t lost = file->lost_until > file->offset ? file->lost_until - file->offset : 0;

    if (!file->loss_sent || json_object_get(ship->known, file->id) != NULL) {
        int r = begin_batch(ship, file, PK_WIRE_END, err);
        if (r == 0 && lost > 0)
            r = add_loss(ship, file, lost, err);
        if (r < 0)
            return r;
        pk_wire_finish(&ship->batch, file->offset + lost, (lost + TYPICAL_LINE - 1) / TYPICAL_LINE,
                       lost);
        if (!file->loss_sent)
            pk_log(PK_LOG_INFO, "ship", "%s was truncated: %llu bytes are lost", file->path,
                   (unsigned long long)lost);
        ship->numbers.lost_bytes += file->loss_sent ? 0 : lost;
        bool before = file->loss_sent;
        file->loss_sent = true;
        r = deliver(ship, file, file->offset + lost, err);
        if (r == PK_E_CONFLICT) /* it was refused, so it did not arrive */
            file->loss_sent = before;
        if (r < 0)
            return r;
    }
    *ret_more = true;
    return pk_ship_next_epoch(ship, file, err);
}

static int pump(struct pk_ship *ship, struct pk_ship_file *file, bool *ret_more,
                struct pk_error *err)
{
    if (file->truncated)
        return tell_loss(ship, file, ret_more, err);
    if (file->id[0] == '\0' || file->offset >= file->size)
        return 0;
    size_t want = (size_t)PK_MIN(file->size - file->offset, (uint64_t)PK_LINE_MAX);
    ssize_t n = pread(file->fd, ship->chunk, want, (off_t)file->offset);
    if (n < 0)
        return pk_fail_errno(err, errno, "cannot read %s", file->path);
    int r = begin_batch(ship, file, 0, err);
    size_t used = 0;
    if (r == 0)
        r = add_lines(ship, file, (size_t)n, &used, err);
    if (r < 0 || used == 0)
        return r;
    pk_wire_finish(&ship->batch, file->offset + used, 0, 0);
    r = deliver(ship, file, file->offset + used, err);
    if (r < 0)
        return r;
    ship->numbers.bytes += used;
    *ret_more = *ret_more || file->offset < file->size;
    return 0;
}

/* Sealed, complete and deleted: the store may forget it, then so do we. */
static int finish(struct pk_ship *ship, struct pk_ship_file *file, struct pk_error *err)
{
    if (file->id[0] != '\0' && !file->sent_end && json_object_get(ship->known, file->id) != NULL) {
        int r = begin_batch(ship, file, PK_WIRE_END, err);
        if (r == 0)
            r = deliver(ship, file, file->offset, err);
        if (r < 0)
            return r;
    }
    file->sent_end = true;
    pk_ship_forget_hold(ship, file);
    return 0;
}

/* ---- rounds ---- */

static int file_step(struct pk_ship *ship, struct pk_ship_file *file, bool *ret_more,
                     struct pk_error *err)
{
    int r = pk_ship_refresh(ship, file, err);

    if (r == 0)
        r = pump(ship, file, ret_more, err);
    if (r == 0)
        pk_ship_settle(ship, file);
    if (r == 0 && file->gone)
        r = finish(ship, file, err);
    return r;
}

static void drop_finished(struct pk_ship *ship)
{
    size_t kept = 0;

    for (size_t i = 0; i < ship->file_count; i++) {
        if (ship->files[i]->gone && ship->files[i]->sent_end)
            pk_ship_file_free(ship->files[i]);
        else
            ship->files[kept++] = ship->files[i];
    }
    ship->file_count = kept;
}

static bool waits_for_seal(const struct pk_ship *ship)
{
    for (size_t i = 0; i < ship->file_count; i++)
        if (ship->files[i]->sealed < ship->files[i]->offset)
            return true;
    return false;
}

/* Also when there are none: it says that the shipper works. */
static void tell_canaries(struct pk_ship *ship)
{
    pk_nsec now = pk_time_monotonic();

    if (ship->sink.canaries == NULL ||
        (ship->canaries_at != 0 && now - ship->canaries_at < CANARIES_EVERY))
        return;
    ship->canaries_at = now;
    PK_JSON body = json_pack("{s:O}", "canaries", ship->canaries);
    if (body != NULL && ship->sink.canaries(ship->sink.arg, body, NULL) == 0)
        (void)json_array_clear(ship->canaries);
}

int pk_ship_step(struct pk_ship *ship, bool *ret_more, struct pk_error *err)
{
    pk_nsec now = pk_time_monotonic();
    int r = 0;

    *ret_more = false;
    if (ship->scanned_at == 0 || now - ship->scanned_at >= SCAN_EVERY) {
        struct pk_error trouble = { 0 };
        if (pk_ship_scan(ship, &trouble) < 0 && ship->last_trouble != trouble.code) {
            ship->last_trouble = trouble.code;
            pk_log_error(PK_LOG_WARN, "ship", &trouble, "looking for logs");
        }
        ship->scanned_at = now;
    }
    if (!ship->synced || (now - ship->asked_at >= ASK_EVERY && waits_for_seal(ship)))
        r = ask(ship, !ship->synced, err);
    for (size_t i = 0; r == 0 && ship->synced && i < ship->file_count; i++) {
        struct pk_ship_file *file = ship->files[i];
        struct pk_error trouble = { 0 };
        int one = file_step(ship, file, ret_more, &trouble);
        if (one < 0 && !ship->synced) { /* the store: the others would fare no better */
            r = one;
            if (err != NULL)
                *err = trouble;
        } else if (one < 0 && !file->trouble_told) {
            file->trouble_told = true;
            pk_log_error(PK_LOG_WARN, "ship", &trouble, "%s", file->path);
        }
    }
    drop_finished(ship);
    if (r == 0 && ship->synced)
        tell_canaries(ship);
    return r;
}

int pk_ship_run(struct pk_ship *ship, atomic_bool *stop, struct pk_error *err)
{
    unsigned wait = 0;
    int told = 0;

    (void)err;
    while (!atomic_load(stop)) {
        struct pk_error trouble = { 0 };
        bool more = false;
        int r = pk_ship_step(ship, &more, &trouble);
        if (r < 0) {
            /* A conflict is no trouble: the store was restarted, the next round asks it. */
            if (r != PK_E_CONFLICT && told != r)
                pk_log_error(PK_LOG_WARN, "ship", &trouble, "delivery waits");
            told = r != PK_E_CONFLICT ? r : told;
            wait = wait == 0 ? 100 : PK_MIN(wait * 2, BACKOFF_MAX);
        } else {
            if (told != 0)
                pk_log(PK_LOG_INFO, "ship", "delivery goes on");
            told = 0;
            wait = more ? 0 : IDLE_MS;
        }
        for (unsigned slept = 0; slept < wait && !atomic_load(stop); slept += IDLE_MS)
            pk_sleep_ms(IDLE_MS);
        if (r == 0)
            wait = 0;
    }
    return 0;
}

/* ---- over HTTP ---- */

static int http_call(struct pk_http_client *client, const struct pk_http_call *call,
                     json_t **ret_reply, struct pk_error *err)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf body = PK_BUF_INIT(64u << 20);
    PK_JSON answer = NULL;
    unsigned status = 0;
    int r = pk_http_call(client, call, &status, &body, err);

    if (r == 0)
        r = pk_json_parse("the server's answer", body.data != NULL ? body.data : "", body.len,
                          &answer, err);
    if (r < 0)
        return r;
    if (status >= 400) {
        struct pk_error fault = { 0 };
        pk_json_to_error(json_object_get(answer, "error"), &fault);
        if (fault.code >= 0)
            return pk_fail(err, PK_E_IO, "the server answered %u", status);
        if (err != NULL)
            *err = fault;
        return fault.code;
    }
    *ret_reply = json_incref(answer);
    return 0;
}

static int http_sources(void *arg, json_t **ret_reply, struct pk_error *err)
{
    const struct pk_http_call call = { .method = "GET", .path = "/v1/ingest" };

    return http_call(arg, &call, ret_reply, err);
}

static int http_deliver(void *arg, const void *data, size_t len, json_t **ret_reply,
                        struct pk_error *err)
{
    const struct pk_http_call call = { .method = "POST",
                                       .path = "/v1/ingest",
                                       .data = data,
                                       .data_len = len,
                                       .content_type = PK_WIRE_TYPE };

    return http_call(arg, &call, ret_reply, err);
}

static int http_canaries(void *arg, const json_t *seen, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = pk_json_compact(seen);
    PK_JSON reply = NULL;

    if (text == NULL)
        return pk_no_memory(err);
    const struct pk_http_call call = { .method = "POST",
                                       .path = "/v1/ingest/canaries",
                                       .data = text,
                                       .data_len = strlen(text),
                                       .content_type = "application/json" };
    return http_call(arg, &call, &reply, err);
}

struct pk_ship_sink pk_ship_http_sink(struct pk_http_client *client)
{
    return (struct pk_ship_sink){
        .sources = http_sources, .deliver = http_deliver, .canaries = http_canaries, .arg = client
    };
}
