/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of EVE and Zeek logs -> columns. */
#include "pk_test.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/time.h"
#include "ship/record.h"

#define NOW (1750000000LL * PK_NSEC_PER_SEC)

static struct pk_records *records;

static int set_up(void **state)
{
    (void)state;
    return pk_records_new(&records, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    pk_records_free(records);
    return 0;
}

static bool parse(enum pk_log_format format, const char *line, struct pk_value *values)
{
    return pk_records_parse(records, format, "conn", NOW, line, strlen(line), values);
}

/* The column as text, "-" when it is not set. */
static const char *get(const struct pk_value *values, const char *name, char out[300])
{
    size_t count;
    int at = pk_event_column(name);
    const struct pk_column *columns = pk_event_columns(&count);

    assert_true(at >= 0);
    if (!values[at].set)
        return "-";
    switch (columns[at].type) {
    case PK_COL_TIME:
        return pk_time_format(values[at].time, 9, out, 300);
    case PK_COL_U64:
        (void)snprintf(out, 300, "%" PRIu64, values[at].number);
        break;
    case PK_COL_TEXT:
        (void)snprintf(out, 300, "%.*s", (int)values[at].len, values[at].text);
        break;
    case PK_COL_IP:
        (void)inet_ntop(values[at].ip_len == 4 ? AF_INET : AF_INET6, values[at].ip, out, 300);
        break;
    }
    return out;
}

struct want {
    const char *column, *value;
};

static void check(enum pk_log_format format, const char *line, const struct want *want)
{
    struct pk_value values[PK_EVENT_COLUMNS_MAX];
    char text[300];

    assert_true(parse(format, line, values));
    for (; want->column != NULL; want++) {
        const char *got = get(values, want->column, text);
        if (strcmp(got, want->value) != 0)
            fail_msg("%s is %s, not %s, in %s", want->column, got, want->value, line);
    }
    assert_string_equal(get(values, "raw", text), line);
}

static void test_eve(void **state)
{
    (void)state;
    check(
        PK_LOG_EVE,
        "{\"timestamp\":\"2024-06-10T06:13:20.000511+0000\",\"event_type\":\"Alert\",\"src_ip\":"
        "\"10.0.0.1\",\"src_port\":1,\"dest_ip\":\"2001:DB8::1\",\"dest_port\":65535,\"proto\":\"TCP\","
        "\"vlan\":[7,8],\"alert\":{\"signature_id\":5,\"signature\":\"A \\u00e9 \\\"q\\\"\","
        "\"severity\":1,\"action\":\"Allowed\"}}",
        (const struct want[]){ { "time", "2024-06-10T06:13:20.000511000Z" },
                               { "type", "alert" },
                               { "src_ip", "10.0.0.1" },
                               { "dst_ip", "2001:db8::1" },
                               { "dst_port", "65535" },
                               { "proto", "tcp" },
                               { "vlan", "7" },
                               { "signature_id", "5" },
                               { "signature", "A \xc3\xa9 \"q\"" },
                               { "severity", "1" },
                               { "action", "allowed" },
                               { "community_id", "-" }, /* IPv4 to IPv6 is no flow */
                               { "url", "-" },
                               { NULL, NULL } });
    check(PK_LOG_EVE,
          "{\"timestamp\":\"2024-06-10T08:13:20.000511+0200\",\"event_type\":\"dns\",\"dns\":"
          "{\"queries\":[{\"rrname\":\"WWW.Example.ORG\"}]}}",
          (const struct want[]){ { "time", "2024-06-10T06:13:20.000511000Z" },
                                 { "host", "www.example.org" },
                                 { NULL, NULL } });
}

static void test_community_id(void **state)
{
    (void)state;
    /* From the specification's own examples. */
    check(PK_LOG_EVE,
          "{\"event_type\":\"flow\",\"src_ip\":\"128.232.110.120\",\"src_port\":34855,\"dest_ip\":"
          "\"66.35.250.204\",\"dest_port\":80,\"proto\":\"TCP\"}",
          (const struct want[]){ { "community_id", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=" },
                                 { NULL, NULL } });
    check(
        PK_LOG_EVE,
        "{\"event_type\":\"flow\",\"src_ip\":\"10.0.0.1\",\"dest_ip\":\"10.0.0.2\",\"proto\":\"TCP\","
        "\"community_id\":\"1:given\"}",
        (const struct want[]){ { "community_id", "1:given" }, { NULL, NULL } });
}

static void test_zeek(void **state)
{
    (void)state;
    check(
        PK_LOG_ZEEK_JSON,
        "{\"ts\":1718000000.000511,\"uid\":\"CAbc\",\"id.orig_h\":\"10.0.0.1\",\"id.orig_p\":1024,"
        "\"id.resp_h\":\"10.0.0.2\",\"id.resp_p\":443,\"proto\":\"tcp\",\"service\":\"SSL\","
        "\"orig_ip_bytes\":10,\"resp_ip_bytes\":20}",
        (const struct want[]){ { "time", "2024-06-10T06:13:20.000511000Z" },
                               { "type", "conn" },
                               { "uid", "CAbc" },
                               { "src_ip", "10.0.0.1" },
                               { "src_port", "1024" },
                               { "dst_port", "443" },
                               { "app_proto", "ssl" },
                               { "bytes_toserver", "10" },
                               { "bytes_toclient", "20" },
                               { NULL, NULL } });
    check(PK_LOG_ZEEK_JSON, "{\"_path\":\"DNS\",\"ts\":\"2024-06-10T06:13:20Z\",\"query\":\"A.B\"}",
          (const struct want[]){ { "time", "2024-06-10T06:13:20.000000000Z" },
                                 { "type", "dns" },
                                 { "host", "a.b" },
                                 { NULL, NULL } });
    check(PK_LOG_ZEEK_JSON, "{\"ts\":1718000000123}", /* json_timestamps = JSON::TS_MILLIS */
          (const struct want[]){ { "time", "2024-06-10T06:13:20.123000000Z" }, { NULL, NULL } });
}

/* What does not fit its column leaves it empty; the record is kept all the same. */
static void test_wrong_types(void **state)
{
    (void)state;
    check(PK_LOG_EVE,
          "{\"timestamp\":\"yesterday\",\"event_type\":7,\"src_ip\":\"10.0.0.256\",\"src_port\":-1,"
          "\"dest_ip\":17,\"dest_port\":\"80\",\"flow_id\":18446744073709551615,\"proto\":null}",
          (const struct want[]){ { "time", "2025-06-15T15:06:40.000000000Z" }, /* NOW */
                                 { "src_ip", "-" },
                                 { "src_port", "-" },
                                 { "dst_ip", "-" },
                                 { "dst_port", "-" },
                                 { "flow_id", "-" },
                                 { "proto", "-" },
                                 { NULL, NULL } });
    check(PK_LOG_EVE, "{}", (const struct want[]){ { "type", "conn" }, { NULL, NULL } });
}

static void test_invalid(void **state)
{
    (void)state;
    struct pk_value values[PK_EVENT_COLUMNS_MAX];
    char text[300];
    static const struct {
        const char *line, *raw;
    } cases[] = {
        { "no json", "no json" },
        { "[1]", "[1]" },
        { "{\"a\":1}}", "{\"a\":1}}" },
        { "\xff{\"a\":1}\x80", "\\xff{\"a\":1}\\x80" },
    };

    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        assert_false(parse(PK_LOG_EVE, cases[i].line, values));
        assert_string_equal(get(values, "type", text), "invalid");
        assert_string_equal(get(values, "raw", text), cases[i].raw);
        assert_true(values[PK_EV_TIME].time == NOW);
    }
}

/* The longest line, all of it bytes that are written as four. */
static void test_long(void **state)
{
    (void)state;
    struct pk_value values[PK_EVENT_COLUMNS_MAX];
    char *line = malloc(PK_LINE_MAX);

    assert_non_null(line);
    memset(line, 0xff, PK_LINE_MAX);
    assert_false(pk_records_parse(records, PK_LOG_EVE, NULL, NOW, line, PK_LINE_MAX, values));
    assert_int_equal(values[pk_event_column("raw")].len, 4 * PK_LINE_MAX);
    memset(line, '[', PK_LINE_MAX); /* deep */
    assert_false(pk_records_parse(records, PK_LOG_EVE, NULL, NOW, line, PK_LINE_MAX, values));
    memcpy(line, "{\"host\":\"", 9);
    memset(line + 9, 'A', PK_LINE_MAX - 11);
    memcpy(line + PK_LINE_MAX - 2, "\"}", 2);
    assert_true(
        pk_records_parse(records, PK_LOG_ZEEK_JSON, "http", NOW, line, PK_LINE_MAX, values));
    assert_int_equal(values[pk_event_column("host")].len, PK_LINE_MAX - 11);
    assert_int_equal(values[pk_event_column("host")].text[PK_LINE_MAX - 12], 'a');
    free(line);
}

static void test_split(void **state)
{
    (void)state;
    static const char half[] = "{\"timestamp\":\"2024-06-10T06:13:2";
    static const char whole[] = "{\"timestamp\":\"2024-06-10T06:13:20Z\",\"event_type\":\"dns\"}";
    char line[200];

    (void)snprintf(line, sizeof(line), "%s%s", half, whole);
    assert_int_equal(pk_records_split(records, PK_LOG_EVE, line, strlen(line)), strlen(half));
    assert_int_equal(pk_records_split(records, PK_LOG_EVE, half, strlen(half)), 0);
    (void)snprintf(line, sizeof(line), "%s%s%s", half, half, whole);
    assert_int_equal(pk_records_split(records, PK_LOG_EVE, line, strlen(line)), 2 * strlen(half));
}

static void test_no_memory(void **state)
{
    (void)state;
    struct pk_records *made = NULL;
    int r;

    PK_TEST_EACH_ALLOC_FAILS(r, {
        r = pk_records_new(&made, NULL);
        if (r == 0)
            pk_records_free(made);
    });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eve),     cmocka_unit_test(test_community_id),
        cmocka_unit_test(test_zeek),    cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_invalid), cmocka_unit_test(test_long),
        cmocka_unit_test(test_split),   cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
