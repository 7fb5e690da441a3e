/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's part of shunts: requests, lists, and a record of each one, exactly once. */
#include "pk_test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <jansson.h>

#include "../broker/net.h"
#include "../broker/shunt_probe.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/time.h"
#include "broker/broker.h"
#include "node/shunt.h"

static struct pk_error err;
static struct pk_broker *broker;
static struct pk_shunts *shunts;
static struct pk_paths paths;

#define OK(call)                                               \
    do {                                                       \
        int ok_ = (call);                                      \
        if (ok_ < 0)                                           \
            fail_msg("%s: %s (%s)", #call, err.msg, err.hint); \
    } while (0)

static const struct pk_shunt_spec no_rule;

static void open_all(void)
{
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err));
    OK(pk_shunts_new(broker, &paths, &shunts, &err));
}

static void close_all(void)
{
    pk_shunts_free(shunts);
    pk_broker_close(broker);
    shunts = NULL;
    broker = NULL;
}

static unsigned make_group(const char *fleet, const char *name)
{
    char key[80];
    snprintf(key, sizeof key, "%s/%s", fleet, name);
    OK(pk_broker_group_set(broker, key, PK_HASH_FLOW, NULL, 0, &err));
    OK(pk_shunts_group_set(shunts, fleet, name, &no_rule, &err));
    return (unsigned)pk_broker_group_number(broker, key);
}

static void drop_group(const char *key)
{
    for (bool done = false; !done;)
        OK(pk_shunts_group_forget(shunts, key, &done, &err));
    OK(pk_broker_group_remove(broker, key, &err));
}

static json_t *json_of(const char *format, ...)
{
    char text[8192];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *c = text; *c != '\0'; c++)
        if (*c == '\'')
            *c = '"';
    json_t *json = NULL;
    OK(pk_json_parse("test", text, strlen(text), &json, &err));
    return json;
}

static int call(int (*fn)(struct pk_shunts *, const char *, const json_t *, json_t **,
                          struct pk_error *),
                const char *fleet, json_t *body_take, json_t **ret_json)
{
    int r = fn(shunts, fleet, body_take, ret_json, &err);
    json_decref(body_take);
    return r;
}

static int64_t post(const char *fleet, json_t *body_take, const char *what)
{
    PK_JSON json = NULL;
    OK(call(pk_shunts_post, fleet, body_take, &json));
    return pk_json_int_or(json, what, -1);
}

static int64_t delete (const char *fleet, json_t *body_take)
{
    PK_JSON json = NULL;
    OK(call(pk_shunts_delete, fleet, body_take, &json));
    return pk_json_int_or(json, "removed", -1);
}

/* All records of a group, as a list. */
static json_t *records(const char *fleet, const char *group)
{
    json_t *list = json_array();
    PK_CLEANUP(pk_free_p) char *dir = pk_shunt_log_dir(&paths, fleet, group);
    for (unsigned i = 1;; i++) {
        PK_CLEANUP(pk_free_p) char *path = pk_asprintf("%s/shunt-%u.json", dir, i);
        PK_CLEANUP(pk_free_p) char *text = NULL;
        size_t len = 0;
        if (!pk_file_exists(path))
            return list;
        OK(pk_file_read(path, 64u << 20, &text, &len, &err));
        for (char *line = text, *next; *line != '\0'; line = next + 1) {
            next = strchr(line, '\n');
            assert_non_null(next);
            if (strspn(line, " ") == (size_t)(next - line))
                continue;
            json_t *record = NULL;
            OK(pk_json_parse(path, line, (size_t)(next - line), &record, &err));
            json_array_append_new(list, record);
        }
    }
}

static void forget_records(const char *fleet, const char *group)
{
    PK_CLEANUP(pk_free_p) char *dir = pk_shunt_log_dir(&paths, fleet, group);
    OK(pk_rm_rf(dir, &err));
}

#define FLOW "{'src':'10.0.0.2','srcPort':%u,'dst':'10.0.0.1','dstPort':443,'proto':'tcp'}"

/* From the request to the record. */
static void whole_way(void **state)
{
    (void)state;
    open_all();
    unsigned analysis = make_group("f", "analysis"), capture = make_group("f", "capture");
    unsigned other = make_group("g", "analysis");
    probe_open();
    assert_int_equal(post("f",
                          json_of("{'flows':[" FLOW "],'groups':['analysis'],'by':'zeek'}", 40000),
                          "added"),
                     1);
    assert_int_equal(
        post("f", json_of("{'flows':[" FLOW "],'keepBytes':1500,'by':'me'}", 40000), "known"), 1);
    /* Now both groups of f have it, and none of g's. */
    for (unsigned i = 0; i < 4; i++) {
        assert_true(probe_tcp(analysis, B, 40000, A, 443, ACK, 1000));
        assert_int_equal(probe_tcp(capture, B, 40000, A, 443, ACK, 1000), i > 1);
        assert_false(probe_tcp(other, B, 40000, A, 443, ACK, 1000));
    }
    assert_true(probe_tcp(analysis, A, 443, B, 40000, ACK, 500));

    struct pk_buf text = PK_BUF_INIT(1 << 20);
    OK(pk_shunts_list(shunts, "f", "analysis", NULL, 1000, &text, &err));
    PK_JSON list = NULL;
    OK(pk_json_parse("list", text.data, text.len, &list, &err));
    pk_buf_done(&text);
    const json_t *entry = json_array_get(json_object_get(list, "shunts"), 0);
    assert_int_equal(json_array_size(json_object_get(list, "shunts")), 1);
    assert_string_equal(pk_json_string_or(entry, "group", ""), "analysis");
    assert_string_equal(pk_json_string_or(entry, "src", ""), "10.0.0.2");
    assert_string_equal(pk_json_string_or(entry, "by", ""), "zeek");
    assert_string_equal(pk_json_string_or(entry, "state", ""), "live");
    assert_int_equal(pk_json_int_or(entry, "bytesFromSrc", 0), 4000);
    assert_int_equal(pk_json_int_or(entry, "bytesFromDst", 0), 500);
    assert_true(json_is_null(json_object_get(list, "page")));

    PK_JSON stats = NULL;
    OK(pk_shunts_stats(shunts, "f", 1, &stats, &err));
    assert_int_equal(pk_json_int_or(stats, "entries", 0), 2);
    assert_int_equal(json_array_size(json_object_get(stats, "top")), 1);
    assert_int_equal(
        pk_json_int_or(json_array_get(json_object_get(stats, "top"), 0), "bytesFromSrc", 0), 4000);

    assert_int_equal(delete ("f", json_of("{'flows':[" FLOW "],'groups':['analysis']}", 40000)), 1);
    assert_int_equal(delete ("f", json_of("{'flows':[" FLOW "],'groups':['analysis']}", 40000)), 0);
    assert_false(probe_tcp(analysis, B, 40000, A, 443, ACK, 1000));
    assert_int_equal(delete ("f", json_of("{'all':true}")), 1);
    PK_JSON first = records("f", "analysis");
    PK_JSON second = records("f", "capture");
    assert_int_equal(json_array_size(first), 1);
    assert_int_equal(json_array_size(second), 1);
    const json_t *record = json_array_get(first, 0);
    assert_string_equal(pk_json_string_or(record, "event_type", ""), "shunt");
    assert_string_equal(pk_json_string_or(record, "src_ip", ""), "10.0.0.2");
    assert_string_equal(pk_json_string_or(record, "proto", ""), "tcp");
    assert_string_equal(pk_json_string_or(record, "shunt.reason", ""), "request");
    assert_string_equal(pk_json_string_or(record, "shunt.ended", ""), "removed");
    assert_int_equal(pk_json_int_or(record, "flow.pkts_toserver", 0), 4);
    assert_int_equal(pk_json_int_or(record, "flow.bytes_toserver", 0), 4000);
    assert_int_equal(pk_json_int_or(record, "flow.bytes_toclient", 0), 500);
    struct pk_tuple tuple = probe_tuple(6, B, 40000, A, 443);
    char id[PK_COMMUNITY_ID_SIZE];
    assert_string_equal(pk_json_string_or(record, "community_id", ""),
                        pk_community_id(&tuple, 0, id));
    pk_nsec end = 0;
    const char *when = pk_json_string_or(record, "timestamp", "");
    OK(pk_time_parse(when, strlen(when), &end, &err));
    assert_true(llabs(pk_time_now() - end) < 60 * PK_NSEC_PER_SEC);
    assert_int_equal(pk_json_int_or(json_array_get(second, 0), "shunt.passed_bytes", 0), 2000);
    assert_int_equal(pk_json_int_or(json_array_get(second, 0), "flow.bytes_toserver", 0), 2000);
    probe_close();
    forget_records("f", "analysis");
    forget_records("f", "capture");
    drop_group("f/analysis");
    drop_group("f/capture");
    drop_group("g/analysis");
    close_all();
}

/* What ends by itself, and a new request for it before it was taken out. */
static void ends_by_itself(void **state)
{
    (void)state;
    open_all();
    unsigned group = make_group("f", "analysis");
    probe_open();
    assert_int_equal(
        post("f", json_of("{'flows':[" FLOW "," FLOW "],'idleSeconds':1}", 1, 2), "added"), 2);
    assert_true(probe_tcp(group, B, 1, A, 443, ACK, 100));
    assert_false(probe_tcp(group, B, 1, A, 443, SYN, 60)); /* another connection begins */
    assert_int_equal(post("f", json_of("{'flows':[" FLOW "],'idleSeconds':1}", 1), "added"), 1);
    PK_JSON one = records("f", "analysis");
    assert_int_equal(json_array_size(one), 1);
    assert_string_equal(pk_json_string_or(json_array_get(one, 0), "shunt.ended", ""), "renewed");
    OK(pk_shunts_sweep(shunts, &err));
    PK_JSON same = records("f", "analysis");
    assert_int_equal(json_array_size(same), 1);
    OK(pk_shunts_start(shunts, &err)); /* the thread finds them idle */
    for (unsigned i = 0; i < 100; i++) {
        PK_JSON now = records("f", "analysis");
        if (json_array_size(now) == 3)
            break;
        pk_sleep_ms(100);
    }
    PK_JSON all = records("f", "analysis");
    assert_int_equal(json_array_size(all), 3);
    assert_string_equal(pk_json_string_or(json_array_get(all, 2), "shunt.ended", ""), "idle");
    PK_JSON stats = NULL;
    OK(pk_shunts_stats(shunts, "f", 1, &stats, &err));
    assert_int_equal(pk_json_int_or(stats, "entries", 9), 0);
    probe_close();
    forget_records("f", "analysis");
    drop_group("f/analysis");
    close_all();
}

/* Agents are killed while they record; in the end each shunt is recorded once, with all that was
 * counted. */
static void exactly_once(void **state)
{
    (void)state;
    enum { FLOWS = 6000, KILLS = 12 };
    open_all();
    unsigned group = make_group("f", "analysis");
    probe_open();
    for (unsigned i = 0; i < FLOWS; i += 50) {
        PK_JSON flows = json_array();
        for (unsigned k = i; k < i + 50; k++) {
            json_t *flow = json_of(FLOW, 1000 + k);
            json_array_append_new(flows, flow);
        }
        assert_int_equal(
            post("f", json_pack("{s:O,s:i}", "flows", flows, "ttlSeconds", 1), "added"), 50);
    }
    for (unsigned i = 0; i < FLOWS; i++)
        assert_true(probe_tcp(group, B, (uint16_t)(1000 + i), A, 443, ACK, 100 + i % 50));
    probe_close();
    close_all();
    pk_sleep_ms(1100);
    unsigned in_between = 0;
    for (unsigned i = 0; i < KILLS; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct pk_error none;
            if (pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker,
                               &none) < 0 ||
                pk_shunts_new(broker, &paths, &shunts, &none) < 0)
                _exit(1);
            (void)pk_shunts_sweep(shunts, &none);
            _exit(0);
        }
        /* Until something is being written, and then some. */
        for (unsigned wait = 0; wait < 5000; wait++) {
            PK_CLEANUP(pk_free_p) char *dir = pk_shunt_log_dir(&paths, "f", "analysis");
            PK_CLEANUP(pk_free_p) char *path = pk_asprintf("%s/shunt-1.json", dir);
            struct stat st;
            if (stat(path, &st) == 0 && st.st_size > 0)
                break;
            usleep(200);
        }
        usleep(i * 700);
        kill(pid, SIGKILL);
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        in_between += WIFSIGNALED(status);
    }
    open_all();
    OK(pk_shunts_sweep(shunts, &err));
    PK_JSON all = records("f", "analysis");
    print_message("# %u of %u agents were killed at work\n", in_between, (unsigned)KILLS);
    assert_int_equal(json_array_size(all), FLOWS);
    PK_JSON ids = json_object();
    uint64_t bytes = 0, want = 0;
    size_t i;
    json_t *record;
    json_array_foreach(all, i, record)
    {
        assert_int_equal(pk_json_int_or(record, "flow.pkts_toserver", 0), 1);
        bytes += (uint64_t)pk_json_int_or(record, "flow.bytes_toserver", 0);
        json_object_set_new(ids, pk_json_string_or(record, "shunt.id", ""), json_true());
        want += 100 + i % 50;
    }
    assert_int_equal(json_object_size(ids), FLOWS);
    assert_int_equal(bytes, want);
    forget_records("f", "analysis");
    drop_group("f/analysis");
    close_all();
}

/* Written, but not deleted from the kernel: the next agent must see that in the log. */
static void told_already(void **state)
{
    (void)state;
    open_all();
    unsigned group = make_group("f", "analysis");
    struct pk_tuple tuple = probe_tuple(6, B, 7, A, 443);
    struct pk_shunt_key key;
    struct pk_shunt shunt;
    bool from_b;
    assert_true(pk_shunt_key_of(&tuple, group, &key, &from_b));
    (void)post("f", json_of("{'flows':[" FLOW "]}", 7), "added");
    assert_true(pk_broker_shunt_get(broker, &key, &shunt));
    assert_int_equal(delete ("f", json_of("{'all':true}")), 1);
    close_all();

    shunt.state = PK_SHUNT_REMOVED;
    int map = bpf_obj_get(NET_PIN_DIR "/pk_shunts");
    assert_int_equal(bpf_map_update_elem(map, &key, &shunt, BPF_ANY), 0);
    /* And a line that was cut off. */
    PK_CLEANUP(pk_free_p) char *dir = pk_shunt_log_dir(&paths, "f", "analysis");
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("%s/shunt-1.json", dir);
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    fputs("{\"timestamp\":\"2026", file);
    fclose(file);
    open_all();
    OK(pk_shunts_sweep(shunts, &err));
    assert_false(pk_broker_shunt_get(broker, &key, &shunt));
    close(map);
    PK_CLEANUP(pk_free_p) char *text = NULL;
    size_t len = 0, lines = 0;
    OK(pk_file_read(path, 1 << 20, &text, &len, &err));
    for (size_t i = 0; i < len; i++)
        lines += text[i] == '\n';
    assert_int_equal(lines, 2);
    forget_records("f", "analysis");
    drop_group("f/analysis");
    close_all();
}

/* A log that cannot be written keeps the entries. */
static void no_room_for_records(void **state)
{
    (void)state;
    open_all();
    (void)make_group("f", "analysis");
    (void)post("f", json_of("{'flows':[" FLOW "]}", 7), "added");
    PK_CLEANUP(pk_free_p) char *dir = pk_shunt_log_dir(&paths, "f", "analysis");
    PK_CLEANUP(pk_free_p) char *above = pk_strndup(dir, strlen(dir) - strlen("/log"));
    OK(pk_rm_rf(above, &err));
    OK(pk_mkdir_p(paths.state_dir, 0700, &err));
    PK_CLEANUP(pk_free_p) char *units = pk_asprintf("%s/units", paths.state_dir);
    OK(pk_mkdir_p(units, 0700, &err));
    OK(pk_file_write(above, "", 0, 0600, &err)); /* where the folder should be */
    PK_JSON json = NULL;
    assert_true(call(pk_shunts_delete, "f", json_of("{'all':true}"), &json) < 0);
    assert_true(pk_shunts_sweep(shunts, &err) < 0);
    assert_int_equal(unlink(above), 0);
    /* Whoever has the folder may put a link there: nothing is written to where it leads. */
    PK_CLEANUP(pk_free_p) char *aim = pk_asprintf("%s/aim", paths.state_dir);
    PK_CLEANUP(pk_free_p) char *folder = pk_asprintf("%s/log", aim);
    OK(pk_mkdir_p(folder, 0700, &err));
    assert_int_equal(symlink(aim, above), 0);
    assert_true(pk_shunts_sweep(shunts, &err) < 0);
    assert_int_equal(unlink(above), 0);
    assert_int_equal(rmdir(folder), 0); /* it is empty */
    assert_int_equal(rmdir(aim), 0);
    OK(pk_shunts_sweep(shunts, &err));
    PK_JSON all = records("f", "analysis");
    assert_int_equal(json_array_size(all), 1);
    forget_records("f", "analysis");
    drop_group("f/analysis");
    close_all();
}

/* A group's number goes to another one: none of its shunts may. */
static void group_goes(void **state)
{
    (void)state;
    open_all();
    unsigned before = make_group("f", "analysis");
    probe_open();
    (void)post("f", json_of("{'flows':[" FLOW "]}", 7), "added");
    drop_group("f/analysis");
    PK_JSON all = records("f", "analysis");
    assert_int_equal(json_array_size(all), 1);
    unsigned after = make_group("g", "analysis");
    assert_int_equal(before, after);
    assert_false(probe_tcp(after, B, 7, A, 443, ACK, 100));
    probe_close();
    forget_records("f", "analysis");
    drop_group("g/analysis");
    close_all();
}

/* Flows of the given ports, and of hosts from 10.1.0.0 on. */
static int64_t post_many(const char *group, unsigned count)
{
    json_t *flows = json_array();
    for (unsigned i = 0; i < count; i++) {
        char source[32];
        snprintf(source, sizeof source, "10.1.%u.%u", i / 250, 1 + i % 250);
        json_array_append_new(flows,
                              json_pack("{s:s,s:i,s:s,s:i,s:s}", "src", source, "srcPort", 1024,
                                        "dst", "10.0.0.1", "dstPort", 443, "proto", "tcp"));
    }
    return post("f", json_pack("{s:o,s:[s]}", "flows", flows, "groups", group), "added");
}

static int64_t stat_of(const char *what)
{
    PK_JSON json = NULL;
    OK(pk_shunts_stats(shunts, "f", 0, &json, &err));
    return pk_json_int_or(json, what, -1);
}

/* One that has many goes in many steps, and what else is asked for does not wait. */
static void a_large_group_goes(void **state)
{
    (void)state;
    enum { FLOWS = 16384 };
    open_all();
    (void)make_group("f", "analysis");
    (void)make_group("f", "capture");
    assert_int_equal(post_many("analysis", FLOWS), FLOWS);
    assert_int_equal(post_many("capture", 500), 500);
    bool done = false;
    unsigned calls = 0;
    for (; !done; calls++) {
        OK(pk_shunts_group_forget(shunts, "f/analysis", &done, &err));
        /* Of a group that goes nobody gets a shunt any more; the other one works on. */
        PK_JSON json = NULL;
        assert_int_equal(call(pk_shunts_post, "f",
                              json_of("{'groups':['analysis'],'flows':[" FLOW "]}", 9), &json),
                         PK_E_NOTFOUND);
        assert_int_equal(
            post("f", json_of("{'groups':['capture'],'flows':[" FLOW "]}", 20 + calls), "added"),
            1);
        OK(pk_shunts_sweep(shunts, &err)); /* a look between the steps */
    }
    assert_true(calls > 1);
    OK(pk_broker_group_remove(broker, "f/analysis", &err));
    PK_JSON all = records("f", "analysis");
    assert_int_equal(json_array_size(all), FLOWS);
    assert_int_equal(stat_of("entries"), 500 + calls);
    assert_int_equal(stat_of("unrecorded"), 0);
    assert_int_equal(delete ("f", json_of("{'all':true}")), 500 + calls);

    /* It is asked for again before it is gone. */
    (void)make_group("f", "analysis");
    assert_int_equal(post_many("analysis", FLOWS), FLOWS);
    OK(pk_shunts_group_forget(shunts, "f/analysis", &done, &err));
    assert_false(done);
    OK(pk_shunts_group_set(shunts, "f", "analysis", &no_rule, &err));
    assert_int_equal(post("f", json_of("{'groups':['analysis'],'flows':[" FLOW "]}", 9), "added"),
                     1);
    forget_records("f", "analysis");
    forget_records("f", "capture");
    drop_group("f/analysis");
    drop_group("f/capture");
    forget_records("f", "analysis");
    close_all();
}

/* Records can wait, a group that is to go cannot. */
static void goes_without_records(void **state)
{
    (void)state;
    open_all();
    (void)make_group("f", "analysis");
    (void)make_group("f", "capture");
    PK_CLEANUP(pk_free_p) char *dir = pk_shunt_log_dir(&paths, "f", "analysis");
    assert_int_equal(post_many("analysis", 300), 300);
    assert_int_equal(delete ("f", json_of("{'groups':['analysis'],'flows':["
                                          "{'src':'10.1.0.1','srcPort':1024,'dst':'10.0.0.1',"
                                          "'dstPort':443,'proto':'tcp'}]}")),
                     1);
    PK_CLEANUP(pk_free_p) char *file = pk_asprintf("%s/shunt-1.json", dir);
    PK_CLEANUP(pk_free_p) char *kept = pk_asprintf("%s/kept", dir);
    assert_int_equal(rename(file, kept), 0);
    assert_int_equal(mkdir(file, 0700), 0); /* no log can be written */
    drop_group("f/analysis");
    assert_int_equal(stat_of("unrecorded"), 299);
    assert_int_equal(stat_of("entries"), 0);
    assert_int_equal(rmdir(file), 0);
    assert_int_equal(rename(kept, file), 0);
    PK_JSON all = records("f", "analysis");
    assert_int_equal(json_array_size(all), 1);
    forget_records("f", "analysis");
    drop_group("f/capture");
    close_all();
}

static void pages(void **state)
{
    (void)state;
    enum { FLOWS = 2000 };
    open_all();
    (void)make_group("f", "analysis");
    (void)make_group("f", "capture");
    for (unsigned i = 0; i < FLOWS; i++)
        (void)post("f", json_of("{'flows':[" FLOW "]}", i), "added");
    unsigned count = 0, rounds = 0;
    char page[24] = "";
    do {
        struct pk_buf text = PK_BUF_INIT(16 << 20);
        PK_JSON list = NULL;
        OK(pk_shunts_list(shunts, "f", "capture", page[0] != '\0' ? page : NULL, 300, &text, &err));
        OK(pk_json_parse("list", text.data, text.len, &list, &err));
        pk_buf_done(&text);
        count += (unsigned)json_array_size(json_object_get(list, "shunts"));
        snprintf(page, sizeof page, "%s", pk_json_string_or(list, "page", ""));
        rounds++;
    } while (page[0] != '\0');
    assert_int_equal(count, FLOWS);
    assert_true(rounds > 10);
    struct pk_buf text = PK_BUF_INIT(1 << 20);
    assert_int_equal(pk_shunts_list(shunts, "f", NULL, "x", 300, &text, &err), PK_E_USAGE);
    assert_int_equal(pk_shunts_list(shunts, "f", "none", NULL, 300, &text, &err), PK_E_NOTFOUND);
    pk_buf_done(&text);
    assert_int_equal(delete ("f", json_of("{'all':true}")), 2 * FLOWS);
    forget_records("f", "analysis");
    forget_records("f", "capture");
    drop_group("f/analysis");
    drop_group("f/capture");
    close_all();
}

static void bad_bodies(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "[]",
        "{}",
        "{'flows':[]}",
        "{'flows':{}}",
        "{'flows':[1]}",
        "{'flows':[{}]}",
        "{'flows':[{'src':'10.0.0.1','srcPort':1,'dst':'::1','dstPort':2,'proto':'tcp'}]}",
        "{'flows':[{'src':'10.0.0.1','srcPort':1,'dst':'10.0.0.2','dstPort':65536,'proto':'tcp'}]}",
        "{'flows':[{'src':'10.0.0.1','srcPort':-1,'dst':'10.0.0.2','dstPort':1,'proto':'tcp'}]}",
        "{'flows':[{'src':'10.0.0.1','srcPort':1,'dst':'10.0.0.2','dstPort':1,'proto':'icmp'}]}",
        "{'flows':[{'src':'10.0.0.1','srcPort':1,'dst':'10.0.0.2','dstPort':1,'proto':6}]}",
        "{'flows':[{'src':'10.0.0.1','dst':'10.0.0.2','dstPort':1,'proto':'tcp'}]}",
        "{'flows':[{'src':'10.0.0.1','srcPort':1,'dst':'10.0.0.2','dstPort':1,'proto':'tcp',"
        "'x':1}]}",
#define GOOD "'flows':[{'src':'10.0.0.1','srcPort':1,'dst':'10.0.0.2','dstPort':1,'proto':'tcp'}]"
        "{" GOOD ",'groups':[]}",
        "{" GOOD ",'groups':['No']}",
        "{" GOOD ",'groups':[1]}",
        "{" GOOD ",'groups':'a'}",
        "{" GOOD ",'keepBytes':-1}",
        "{" GOOD ",'keepBytes':1.5}",
        "{" GOOD ",'ttlSeconds':0}",
        "{" GOOD ",'ttlSeconds':604801}",
        "{" GOOD ",'idleSeconds':0}",
        "{" GOOD ",'idleSeconds':86401}",
        "{" GOOD ",'by':'with space'}",
        "{" GOOD ",'by':'much-too-long-a-name'}",
        "{" GOOD ",'by':1}",
        "{" GOOD ",'all':true}",
    };
    open_all();
    (void)make_group("f", "analysis");
    for (size_t i = 0; i < PK_ARRAY_SIZE(bodies); i++) {
        PK_JSON body = json_of("%s", bodies[i]);
        json_t *json = NULL;
        int r = pk_shunts_post(shunts, "f", body, &json, &err);
        if (r != PK_E_INVALID && r != PK_E_USAGE)
            fail_msg("%s: %d", bodies[i], r);
    }
    json_t *json = NULL;
    assert_int_equal(call(pk_shunts_post, "nobody", json_of("{" GOOD "}"), &json), PK_E_NOTFOUND);
    assert_int_equal(call(pk_shunts_post, "f", json_of("{" GOOD ",'groups':['x']}"), &json),
                     PK_E_NOTFOUND);
    assert_int_equal(call(pk_shunts_delete, "f", json_of("{}"), &json), PK_E_INVALID);
    assert_int_equal(call(pk_shunts_delete, "f", json_of("{'all':false}"), &json), PK_E_INVALID);
    assert_int_equal(call(pk_shunts_delete, "f", json_of("{'all':true," GOOD "}"), &json),
                     PK_E_INVALID);
    struct pk_shunt_order order;
    int r = 0;
    PK_JSON body = json_of("{" GOOD ",'by':'zeek'}");
    PK_TEST_EACH_ALLOC_FAILS(r, r = pk_shunt_order_parse(body, false, &order, &err);
                             if (r == 0) pk_shunt_order_done(&order));
    drop_group("f/analysis");
    close_all();
}

static void rule_of_a_group(void **state)
{
    (void)state;
    static const char *const bad[] = { "{}",
                                       "[]",
                                       "{'after':-1}",
                                       "{'ports':[]}",
                                       "{'ports':[0]}",
                                       "{'ports':[65536]}",
                                       "{'ports':['x']}",
                                       "{'ports':[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}",
                                       "{'after':1,'idleSeconds':0}",
                                       "{'after':1,'other':0}" };
    struct pk_shunt_spec spec;
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++) {
        PK_JSON json = json_of("%s", bad[i]);
        assert_int_equal(pk_shunt_spec_parse(json, &spec, &err), PK_E_INVALID);
    }
    PK_JSON json = json_of("{'after':3000,'ports':[443,8443],'idleSeconds':7}");
    OK(pk_shunt_spec_parse(json, &spec, &err));
    PK_JSON again = pk_shunt_spec_to_json(&spec);
    assert_true(json_equal(json, again));

    open_all();
    unsigned group = make_group("f", "analysis");
    probe_open();
    OK(pk_shunts_group_set(shunts, "f", "analysis", &spec, &err));
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(probe_tcp(group, B, 50000, A, 443, ACK, 1000), i >= 3);
        assert_false(probe_tcp(group, B, 50000, A, 80, ACK, 1000));
    }
    /* Under overload flows of all ports go, when they are large. */
    OK(pk_shunts_group_overload(shunts, "f", "analysis", true, &err));
    unsigned given = 0;
    for (unsigned i = 0; i < 1000; i++)
        given += !probe_tcp(group, B, 50001, A, 80, ACK, 1500);
    assert_int_equal(given, PK_SHUNT_OVERLOAD_AFTER / 1500);
    OK(pk_shunts_group_overload(shunts, "f", "analysis", false, &err));
    assert_false(probe_tcp(group, B, 50002, A, 80, ACK, 1500));
    probe_close();
    drop_group("f/analysis");
    PK_JSON all = records("f", "analysis");
    assert_int_equal(json_array_size(all), 2);
    forget_records("f", "analysis");
    close_all();
}

/* Shunts that come while the thread looks, some of them where it has been: their groups stay looked
 * up, or their packets would be delivered and their entries never end. */
static void comes_during_a_look(void **state)
{
    (void)state;
    open_all();
    (void)make_group("f", "analysis");
    uint64_t wanted = 0;
    for (unsigned i = 0; i < 3; i++) {
        PK_JSON flows = json_array();
        for (unsigned k = 0; k < 16000; k++)
            json_array_append_new(flows, json_of(FLOW, 1 + i * 16000 + k));
        assert_int_equal(post("f", json_pack("{s:O}", "flows", flows), "added"), 16000);
    }
    OK(pk_shunts_start(shunts, &err));
    pk_sleep_ms(300); /* one step or two of the first look */
    for (unsigned i = 0; i < 10; i++) {
        char name[8];
        snprintf(name, sizeof name, "g%u", i);
        wanted |= 1ull << make_group("f", name);
        assert_int_equal(
            post("f", json_of("{'flows':[" FLOW "],'groups':['%s']}", 60000, name), "added"), 1);
    }
    for (unsigned i = 0; i < 15; i++) {
        pk_sleep_ms(100);
        assert_int_equal(pk_broker_shunts_groups(broker) & wanted, wanted);
    }
    for (unsigned i = 0; i < 10; i++) {
        char key[16];
        snprintf(key, sizeof key, "f/g%u", i);
        drop_group(key);
        forget_records("f", key + 2);
    }
    drop_group("f/analysis");
    forget_records("f", "analysis");
    close_all();
}

int main(void)
{
    char state[] = "/tmp/picket-test-shunt-XXXXXX";
    if (!net_begin())
        return 0;
    if (mkdtemp(state) == NULL || pk_paths_init(state, "/run/picket-test", &paths, &err) < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_way),
        cmocka_unit_test(ends_by_itself),
        cmocka_unit_test(exactly_once),
        cmocka_unit_test(told_already),
        cmocka_unit_test(group_goes),
        cmocka_unit_test(no_room_for_records),
        cmocka_unit_test(a_large_group_goes),
        cmocka_unit_test(goes_without_records),
        cmocka_unit_test(pages),
        cmocka_unit_test(bad_bodies),
        cmocka_unit_test(rule_of_a_group),
        cmocka_unit_test(comes_during_a_look),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    (void)pk_rm_rf(state, NULL);
    return r;
}
