/* SPDX-License-Identifier: Apache-2.0 */
/* The wire format gives back what it was given, and believes nothing that it reads. */
#include "pk_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/wire.h"

#define ROWS_AT  60 /* of the fixed part */
#define FLAGS_AT 56

static const struct pk_batch head = { .session = "session",
                                      .source = "source",
                                      .fleet = "fleet",
                                      .group = "group",
                                      .tool = "suricata",
                                      .path = "/var/log/eve.json",
                                      .lane = 3,
                                      .from = 100,
                                      .to = 100 };

static void fill(struct pk_value *values, uint64_t n)
{
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);
    static char text[32];

    memset(values, 0, PK_EVENT_COLUMNS_MAX * sizeof(*values));
    for (size_t i = 0; i < count; i++) {
        if ((columns[i].flags & PK_COLUMN_SOURCE) != 0 || (i != PK_EV_TIME && (n + i) % 3 == 0))
            continue;
        values[i].set = true;
        switch (columns[i].type) {
        case PK_COL_TIME:
            values[i].time = -5 + (pk_nsec)n;
            break;
        case PK_COL_U64:
            values[i].number = n % 2 == 0 ? INT64_MAX : n;
            break;
        case PK_COL_IP:
            values[i].ip_len = n % 2 == 0 ? 4 : 16;
            memset(values[i].ip, (int)n + 1, values[i].ip_len);
            break;
        case PK_COL_TEXT:
            values[i].text = text;
            values[i].len = (uint32_t)snprintf(text, sizeof(text), "\xc3\xa9 text");
            break;
        }
    }
}

static struct pk_buf make(unsigned rows)
{
    struct pk_buf buf = PK_BUF_INIT(PK_WIRE_MAX);
    struct pk_value values[PK_EVENT_COLUMNS_MAX];

    assert_int_equal(pk_wire_begin(&buf, &head, NULL), 0);
    for (unsigned n = 0; n < rows; n++) {
        fill(values, n);
        assert_int_equal(pk_wire_add(&buf, values, NULL), 0);
    }
    pk_wire_finish(&buf, 4711, 2, 999);
    return buf;
}

/* 0 or the error of reading all of it. */
static int read_all(const void *data, size_t len, unsigned *ret_rows)
{
    struct pk_wire_reader *reader = malloc(sizeof(*reader));
    struct pk_value values[PK_EVENT_COLUMNS_MAX];
    struct pk_error err = { 0 };
    unsigned rows = 0;
    /* A copy of just its size: a read beyond it is seen by the sanitizer. */
    char *copy = malloc(len > 0 ? len : 1);

    assert_non_null(reader);
    assert_non_null(copy);
    memcpy(copy, data, len);
    int r = pk_wire_open(reader, copy, len, &err);
    while (r == 0 && (r = pk_wire_next(reader, values, &err)) > 0) {
        rows++;
        r = 0;
    }
    if (r < 0)
        assert_true(err.code == r && err.msg[0] != '\0' && err.hint[0] != '\0');
    if (ret_rows != NULL)
        *ret_rows = rows;
    free(copy);
    free(reader);
    return r;
}

static void test_round_trip(void **state)
{
    (void)state;
    static struct pk_wire_reader reader;
    struct pk_value want[PK_EVENT_COLUMNS_MAX], got[PK_EVENT_COLUMNS_MAX];
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);
    PK_CLEANUP(pk_buf_done) struct pk_buf buf = make(10);

    assert_int_equal(pk_wire_rows(&buf), 10);
    assert_int_equal(pk_wire_open(&reader, buf.data, buf.len, NULL), 0);
    const struct pk_batch *batch = &reader.batch;
    assert_string_equal(batch->session, "session");
    assert_string_equal(batch->source, "source");
    assert_string_equal(batch->fleet, "fleet");
    assert_string_equal(batch->group, "group");
    assert_string_equal(batch->tool, "suricata");
    assert_string_equal(batch->path, "/var/log/eve.json");
    assert_true(batch->lane == 3 && batch->from == 100 && batch->to == 4711);
    assert_true(batch->lost_events == 2 && batch->lost_bytes == 999 && batch->flags == 0);
    for (unsigned n = 0; n < 10; n++) {
        fill(want, n);
        assert_int_equal(pk_wire_next(&reader, got, NULL), 1);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(got[i].set, want[i].set);
            if (!want[i].set)
                continue;
            if (columns[i].type == PK_COL_TEXT) {
                assert_int_equal(got[i].len, want[i].len);
                assert_memory_equal(got[i].text, want[i].text, want[i].len);
            } else if (columns[i].type == PK_COL_IP) {
                assert_int_equal(got[i].ip_len, want[i].ip_len);
                assert_memory_equal(got[i].ip, want[i].ip, want[i].ip_len);
            } else {
                assert_true(got[i].number == want[i].number);
            }
        }
    }
    assert_int_equal(pk_wire_next(&reader, got, NULL), 0);
    assert_int_equal(pk_wire_next(&reader, got, NULL), 0);
}

static void test_cut_off(void **state)
{
    (void)state;
    PK_CLEANUP(pk_buf_done) struct pk_buf buf = make(4);

    assert_int_equal(read_all(buf.data, buf.len, NULL), 0);
    for (size_t len = 0; len < buf.len; len++)
        assert_int_equal(read_all(buf.data, len, NULL), PK_E_INVALID);
    assert_int_equal(pk_buf_add(&buf, "x", 1), 0);
    assert_int_equal(read_all(buf.data, buf.len, NULL), PK_E_INVALID);
}

static void put(struct pk_buf *buf, size_t at, const void *bytes, size_t len)
{
    memcpy(buf->data + at, bytes, len);
}

static void expect(size_t at, const char *bytes, size_t len, int code)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf buf = make(3);

    put(&buf, at, bytes, len);
    if (read_all(buf.data, buf.len, NULL) != code)
        fail_msg("bytes at %zu: not %d", at, code);
}

static void test_hostile(void **state)
{
    (void)state;
    expect(0, "PKEX", 4, PK_E_INVALID);
    expect(4, "\2", 1, PK_E_UNSUPPORTED);                            /* version */
    expect(8, "\0\0\0\0", 4, PK_E_UNSUPPORTED);                      /* other columns */
    expect(16, "\xff\xff\xff\xff\xff\xff\xff\x7f", 8, PK_E_INVALID); /* from beyond to */
    expect(24, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, PK_E_INVALID); /* to beyond int64 */
    expect(32, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, PK_E_INVALID); /* lane */
    expect(40, "\xff\xff\xff\xff\xff\xff\xff\x7f", 8, PK_E_INVALID); /* lost events */
    expect(48, "\xff\xff\xff\xff\xff\xff\xff\x7f", 8, PK_E_INVALID); /* lost bytes */
    expect(FLAGS_AT, "\2", 1, PK_E_INVALID);
    expect(ROWS_AT, "\xff\xff\xff\xff", 4, PK_E_INVALID);
    expect(ROWS_AT, "\4", 1, PK_E_INVALID);  /* more rows than there are */
    expect(ROWS_AT, "\2", 1, PK_E_INVALID);  /* fewer: something is left over */
    expect(64, "\xff\xff", 2, PK_E_INVALID); /* a name longer than the batch */
    expect(64, "\x81\0", 2, PK_E_INVALID);   /* a name of 129 bytes */
    expect(66, "\0", 1, PK_E_INVALID);       /* a NUL in a name */
    expect(66, "\xff", 1, PK_E_INVALID);     /* not UTF-8 */

    /* Where the first row's mask is: after the names. */
    size_t mask = 64 + 6 * 2 + strlen("sessionsourcefleetgroupsuricata/var/log/eve.json");
    expect(mask, "\xff\xff\xff\xff", 4, PK_E_INVALID); /* columns that do not exist */
    expect(mask, "\0\0\0\0", 4, PK_E_INVALID);         /* no time */
    expect(mask, "\5\0\0\0", 4, PK_E_INVALID);         /* its own fleet */
}

/* Every value of every byte, one at a time: an error or rows, never more, and no crash. */
static void test_each_byte(void **state)
{
    (void)state;
    PK_CLEANUP(pk_buf_done) struct pk_buf buf = make(2);

    for (size_t at = 0; at < buf.len; at++) {
        char before = buf.data[at];
        for (unsigned value = 0; value < 256; value += at < 128 ? 1 : 15) {
            unsigned rows = 0;
            buf.data[at] = (char)value;
            int r = read_all(buf.data, buf.len, &rows);
            assert_true(r == 0 || r == PK_E_INVALID || r == PK_E_UNSUPPORTED);
            assert_true(rows <= 2);
        }
        buf.data[at] = before;
    }
}

static void test_bounds(void **state)
{
    (void)state;
    struct pk_buf buf = PK_BUF_INIT(4096);
    struct pk_value values[PK_EVENT_COLUMNS_MAX] = { 0 };
    struct pk_error err = { 0 };
    char name[PK_WIRE_NAME_MAX + 2];
    unsigned rows = 0, read = 0;

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    struct pk_batch batch = head;
    batch.fleet = name;
    assert_int_equal(pk_wire_begin(&buf, &batch, &err), PK_E_INVALID);
    assert_int_equal(pk_wire_begin(&buf, &head, &err), 0);
    values[PK_EV_TIME] = (struct pk_value){ .set = true, .time = 1 };
    values[PK_EV_TYPE] = (struct pk_value){ .set = true, .text = name, .len = 100 };
    int r;
    while ((r = pk_wire_add(&buf, values, &err)) == 0)
        rows++;
    assert_int_equal(r, PK_E_NOSPACE); /* and what is there is still a batch */
    assert_true(rows > 20 && buf.len <= 4096);
    assert_int_equal(read_all(buf.data, buf.len, &read), 0);
    assert_int_equal(read, rows);
    pk_buf_done(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_hostile),    cmocka_unit_test(test_each_byte),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
