/* SPDX-License-Identifier: Apache-2.0 */
/* picket top: rates of two ledgers, the order, and a screen that fits. */
#include "pk_test.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/str.h"
#include "cli/parse.h"
#include "cli/top.h"

/* at: seconds; n: packets of each kind so far */
static json_t *ledger(int at, json_int_t n, const char *name)
{
    char when[40];
    (void)snprintf(when, sizeof(when), "2026-11-23T07:00:%02d.000Z", at);
    json_t *tools = json_pack("[{s:s,s:s,s:I,s:I,s:I}]", "name", "suricata", "state", "running",
                              "received", n, "dropped", n / 10, "unconfirmed", (json_int_t)0);
    json_t *lanes =
        json_pack("[{s:s,s:s,s:I,s:I,s:I,s:I,s:O},{s:s,s:s,s:I,s:I,s:I,s:I,s:[]}]", "name", "g/0",
                  "state", "ready", "slots", (json_int_t)32769, "sent", n, "bytes", n * 100, "lost",
                  n / 4, "tools", tools, "name", "g/1", "state", "unread", "slots",
                  (json_int_t)32768, "sent", 3 * n, "bytes", n, "lost", (json_int_t)0, "tools");
    json_decref(tools);
    json_t *json = json_pack(
        "{s:s,s:s,s:[{s:s,s:s,s:I,s:I,s:[{s:s,s:I,s:I}],s:{s:I}}],s:[{s:s,s:I,s:I,s:O,s:[{s:I,s:I}]}]}",
        "fleet", "f", "at", when, "taps", "name", name, "state", "up", "in", 4 * n, "bytes",
        400 * n, "tenants", "name", "lab", "packets", 4 * n, "bytes", 400 * n, "balance", "lost",
        (json_int_t)0, "groups", "name", "g", "in", 4 * n, "bytes", 400 * n, "lanes", lanes,
        "balances", "lost", n / 4, "unconfirmed", (json_int_t)0);
    json_decref(lanes);
    assert_non_null(json);
    return json;
}

static json_t *row(const json_t *rows, const char *key)
{
    size_t i;
    json_t *one;
    json_array_foreach(rows, i, one)
    {
        if (strcmp(pk_json_string_or(one, "key", ""), key) == 0)
            return one;
    }
    fail_msg("no row %s", key);
    return NULL;
}

static double real(const json_t *one, const char *name)
{
    return json_real_value(json_object_get(one, name));
}

static void test_rates(void **state)
{
    (void)state;
    PK_JSON before = ledger(10, 1000, "up");
    PK_JSON now = ledger(12, 3000, "up");
    PK_JSON rows = pk_top_rows(before, now, PK_TOP_BY_WAY);
    assert_int_equal(json_array_size(rows), 6);
    const json_t *lane = row(rows, "f lane g/0");
    assert_true(real(lane, "packetsPerSecond") == 1000.0);
    assert_true(real(lane, "bitsPerSecond") == 800000.0);
    assert_true(real(lane, "lostPerSecond") == 250.0);
    assert_true(real(lane, "lostShare") == 0.25);
    assert_null(json_object_get(row(rows, "f tool g/0/suricata"), "bitsPerSecond"));
    assert_true(real(row(rows, "f tap up"), "packetsPerSecond") == 4000.0);
    assert_true(real(row(rows, "f tenant up/lab"), "packetsPerSecond") == 4000.0);
}

/* The first look, a fleet that was made anew, a row that is new: no wrong rates. */
static void test_no_rates(void **state)
{
    (void)state;
    PK_JSON now = ledger(12, 3000, "up");
    PK_JSON first = pk_top_rows(NULL, now, PK_TOP_BY_WAY);
    assert_null(json_object_get(row(first, "f tap up"), "packetsPerSecond"));
    PK_JSON more = ledger(11, 9000, "up");
    PK_JSON anew = pk_top_rows(more, now, PK_TOP_BY_WAY);
    assert_true(real(row(anew, "f tap up"), "packetsPerSecond") == 0.0);
    PK_JSON other = ledger(11, 1000, "other");
    PK_JSON added = pk_top_rows(other, now, PK_TOP_BY_WAY);
    assert_null(json_object_get(row(added, "f tap up"), "packetsPerSecond"));
    PK_JSON same = pk_top_rows(now, now, PK_TOP_BY_WAY);
    assert_null(json_object_get(row(same, "f tap up"), "packetsPerSecond"));
}

static void test_order(void **state)
{
    (void)state;
    PK_JSON before = ledger(10, 1000, "up");
    PK_JSON now = ledger(12, 3000, "up");
    static const struct {
        enum pk_top_sort sort;
        const char *lanes[2];
    } cases[] = { { PK_TOP_BY_WAY, { "g/0", "g/1" } },
                  { PK_TOP_BY_PACKETS, { "g/1", "g/0" } },
                  { PK_TOP_BY_BITS, { "g/0", "g/1" } },
                  { PK_TOP_BY_LOSS, { "g/0", "g/1" } } };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        PK_JSON rows = pk_top_rows(before, now, cases[i].sort);
        size_t found = 0, at;
        const json_t *one;
        assert_int_equal(json_array_size(rows), 6);
        json_array_foreach(rows, at, one)
        {
            if (strcmp(pk_json_string_or(one, "kind", ""), "lane") == 0)
                assert_string_equal(pk_json_string_or(one, "name", ""), cases[i].lanes[found++]);
            if (strcmp(pk_json_string_or(one, "kind", ""), "tool") == 0) /* below its lane */
                assert_string_equal(pk_json_string_or(json_array_get(rows, at - 1), "name", ""),
                                    "g/0");
        }
        assert_int_equal(found, 2);
    }
}

static void test_history_is_bounded(void **state)
{
    (void)state;
    PK_JSON before = ledger(10, 1000, "up");
    PK_JSON now = ledger(12, 3000, "up");
    PK_JSON rows = pk_top_rows(before, now, PK_TOP_BY_WAY);
    PK_JSON histories = json_object();
    for (int i = 0; i < 500; i++)
        assert_int_equal(pk_top_remember(histories, rows), 0);
    assert_int_equal(json_array_size(json_object_get(histories, "f tap up")), PK_TOP_HISTORY);
    PK_JSON none = json_array();
    assert_int_equal(pk_top_remember(histories, none), 0);
    assert_int_equal(json_object_size(histories), 0);
}

/* The text of a screen without its escape sequences, and whether each line fits. */
static void check_screen(const char *text, unsigned width, unsigned height, bool color)
{
    unsigned lines = 1;
    char line[2048];
    size_t len = 0;
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '\033') {
            const char *end = at + 1 + strcspn(at + 1, "mKC");
            /* Without colour only the cursor moves. */
            assert_true(color || *end != 'm');
            at = end;
        } else if (*at == '\r') {
            assert_true(pk_text_width(line, len) <= width);
            len = 0;
        } else if (*at == '\n') {
            lines++;
        } else {
            assert_true(len < sizeof(line) && (unsigned char)*at >= 0x20);
            line[len++] = *at;
        }
    }
    assert_true(pk_text_width(line, len) <= width);
    assert_true(lines <= height);
}

static void test_screen_fits(void **state)
{
    (void)state;
    PK_JSON before = ledger(10, 1000, "a-very-long-name-of-a-tap-that-somebody-thought-good");
    PK_JSON now = ledger(12, 3000, "a-very-long-name-of-a-tap-that-somebody-thought-good");
    PK_JSON rows = pk_top_rows(before, now, PK_TOP_BY_WAY);
    json_object_set_new(json_array_get(rows, 0), "state", json_string("\033[31mevil\t"));
    PK_JSON histories = json_object();
    for (int i = 0; i < 100; i++)
        (void)pk_top_remember(histories, rows);
    for (unsigned width = 20; width <= 220; width += 7) {
        for (unsigned height = 6; height <= 50; height += 11) {
            for (unsigned flags = 0; flags < 8; flags++) {
                struct pk_top_view view = { .width = width,
                                            .height = height,
                                            .color = flags & 1,
                                            .utf8 = flags & 2,
                                            .help = flags & 4,
                                            .paused = flags & 1,
                                            .first = 1000,
                                            .title = "f  07:00:12Z",
                                            .trouble = flags & 2 ? "no server answers" : "" };
                struct pk_buf out = PK_BUF_INIT(1 << 20);
                assert_int_equal(pk_top_draw(&view, rows, histories, &out), 0);
                check_screen(out.data, width, height, view.color);
                assert_true(view.first < 6);
                pk_buf_done(&out);
            }
        }
    }
}

/* Two fleets may have taps and groups of the same names. */
static void test_fleets_are_told_apart(void **state)
{
    (void)state;
    PK_JSON before = ledger(10, 1000, "wire");
    PK_JSON now = ledger(12, 3000, "wire");
    PK_JSON rows = pk_top_rows(before, now, PK_TOP_BY_WAY);
    PK_JSON histories = json_object();
    for (int several = 0; several < 2; several++) {
        if (several) {
            json_object_set_new(now, "fleet", json_string("other"));
            json_object_set_new(before, "fleet", json_string("other"));
            PK_JSON more = pk_top_rows(before, now, PK_TOP_BY_WAY);
            assert_int_equal(json_array_extend(rows, more), 0);
        }
        struct pk_top_view view = { .width = 100, .height = 40, .title = "", .trouble = "" };
        struct pk_buf out = PK_BUF_INIT(1 << 20);
        assert_int_equal(pk_top_draw(&view, rows, histories, &out), 0);
        assert_true((strstr(out.data, "tap wire ") != NULL) == !several);
        assert_true((strstr(out.data, "tap f/wire ") != NULL) == several);
        assert_true((strstr(out.data, "group other/g ") != NULL) == several);
        pk_buf_done(&out);
    }
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = { { -1, "-" },       { 0, "0" },        { 0.04, "0.0" },     { 3.25, "3.2" },
                  { 12, "12" },      { 999, "999" },    { 999.7, "1.0k" },   { 1234, "1.2k" },
                  { 99960, "100k" }, { 1.5e6, "1.5M" }, { 9.99e9, "10.0G" }, { 4e14, "400T" } };
    char text[16];
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++)
        assert_string_equal(pk_top_number(cases[i].value, text), cases[i].text);
    assert_true(strlen(pk_top_number(1e40, text)) < 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_no_rates),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_history_is_bounded),
        cmocka_unit_test(test_screen_fits),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_fleets_are_told_apart),
    };
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    return cmocka_run_group_tests_name("cli/top", tests, NULL, NULL);
}
