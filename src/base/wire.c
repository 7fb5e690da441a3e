/* SPDX-License-Identifier: Apache-2.0 */
#include "base/wire.h"

#include <endian.h>
#include <string.h>

#include "base/str.h"

#define VERSION 1u

enum { /* offsets of the fixed part */
       AT_MAGIC = 0,
       AT_VERSION = 4,
       AT_COLUMNS = 8,
       AT_FROM = 16,
       AT_TO = 24,
       AT_LANE = 32,
       AT_LOST_EVENTS = 40,
       AT_LOST_BYTES = 48,
       AT_FLAGS = 56,
       AT_ROWS = 60,
       FIXED = 64,
};

static void put32(char *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof(value));
}

static void put64(char *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof(value));
}

static uint32_t get32(const void *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return le32toh(value);
}

static uint64_t get64(const void *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return le64toh(value);
}

static int add_name(struct pk_buf *buf, const char *what, const char *text, size_t max,
                    struct pk_error *err)
{
    size_t len = text != NULL ? strlen(text) : 0;
    uint16_t len16 = htole16((uint16_t)len);

    if (len > max)
        return pk_fail(err, PK_E_INVALID, "the %s of a batch has %zu bytes, at most %zu fit", what,
                       len, max);
    if (pk_buf_add(buf, &len16, sizeof(len16)) < 0 || pk_buf_add(buf, text, len) < 0)
        return pk_no_memory(err);
    return 0;
}

int pk_wire_begin(struct pk_buf *buf, const struct pk_batch *batch, struct pk_error *err)
{
    char fixed[FIXED];

    memcpy(fixed + AT_MAGIC, "PKEB", 4);
    put32(fixed + AT_VERSION, VERSION);
    put64(fixed + AT_COLUMNS, pk_event_columns_hash());
    put64(fixed + AT_FROM, batch->from);
    put64(fixed + AT_TO, batch->to);
    put64(fixed + AT_LANE, batch->lane);
    put64(fixed + AT_LOST_EVENTS, batch->lost_events);
    put64(fixed + AT_LOST_BYTES, batch->lost_bytes);
    put32(fixed + AT_FLAGS, batch->flags);
    put32(fixed + AT_ROWS, 0);

    pk_buf_clear(buf);
    if (pk_buf_add(buf, fixed, sizeof(fixed)) < 0)
        return pk_no_memory(err);
    const struct {
        const char *what, *text;
        size_t max;
    } names[] = { { "session", batch->session, PK_WIRE_NAME_MAX },
                  { "source", batch->source, PK_WIRE_NAME_MAX },
                  { "fleet", batch->fleet, PK_WIRE_NAME_MAX },
                  { "group", batch->group, PK_WIRE_NAME_MAX },
                  { "tool", batch->tool, PK_WIRE_NAME_MAX },
                  { "path", batch->path, PK_WIRE_PATH_MAX } };
    for (size_t i = 0; i < PK_ARRAY_SIZE(names); i++) {
        int r = add_name(buf, names[i].what, names[i].text, names[i].max, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static size_t value_size(const struct pk_column *column, const struct pk_value *value)
{
    switch (column->type) {
    case PK_COL_TEXT:
        return 4 + (size_t)value->len;
    case PK_COL_IP:
        return 1 + (size_t)value->ip_len;
    case PK_COL_TIME:
    case PK_COL_U64:
        break;
    }
    return 8;
}

int pk_wire_add(struct pk_buf *buf, const struct pk_value *values, struct pk_error *err)
{
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);
    uint32_t mask = 0;
    size_t size = 4;

    for (size_t i = 0; i < count; i++)
        if (values[i].set && (columns[i].flags & PK_COLUMN_SOURCE) == 0) {
            mask |= 1u << i;
            size += value_size(&columns[i], &values[i]);
        }
    if (buf->len + size > buf->max || pk_wire_rows(buf) >= PK_WIRE_ROWS_MAX)
        return pk_fail(err, PK_E_NOSPACE, "the batch is full");
    if (pk_buf_reserve(buf, size) < 0)
        return pk_no_memory(err);

    char *at = buf->data + buf->len;
    put32(at, mask);
    at += 4;
    for (size_t i = 0; i < count; i++) {
        const struct pk_value *value = &values[i];
        if ((mask & 1u << i) == 0)
            continue;
        switch (columns[i].type) {
        case PK_COL_TEXT:
            put32(at, value->len);
            memcpy(at + 4, value->text, value->len);
            break;
        case PK_COL_IP:
            *at = (char)value->ip_len;
            memcpy(at + 1, value->ip, value->ip_len);
            break;
        case PK_COL_TIME:
            put64(at, (uint64_t)value->time);
            break;
        case PK_COL_U64:
            put64(at, value->number);
            break;
        }
        at += value_size(&columns[i], value);
    }
    buf->len += size;
    buf->data[buf->len] = '\0';
    put32(buf->data + AT_ROWS, pk_wire_rows(buf) + 1);
    return 0;
}

void pk_wire_finish(struct pk_buf *buf, uint64_t to, uint64_t lost_events, uint64_t lost_bytes)
{
    put64(buf->data + AT_TO, to);
    put64(buf->data + AT_LOST_EVENTS, lost_events);
    put64(buf->data + AT_LOST_BYTES, lost_bytes);
}

uint32_t pk_wire_rows(const struct pk_buf *buf)
{
    return get32(buf->data + AT_ROWS);
}

/* ---- reading: nothing in data is believed ---- */

static int broken(struct pk_error *err, const char *what)
{
    (void)pk_fail(err, PK_E_INVALID, "not a batch of events: %s", what);
    return pk_hint(err, "only 'picket ship' of the same version may send here");
}

static int read_name(struct pk_wire_reader *reader, size_t max, char **out, const char **ret_text,
                     struct pk_error *err)
{
    size_t left = (size_t)(reader->end - reader->at);

    if (left < 2)
        return broken(err, "it is cut off");
    size_t len = (size_t)reader->at[0] | (size_t)reader->at[1] << 8;
    if (len > max || len > left - 2)
        return broken(err, "a name is too long");
    const char *text = (const char *)reader->at + 2;
    if (memchr(text, 0, len) != NULL || pk_utf8_prefix(text, len) != len)
        return broken(err, "a name is not text");
    memcpy(*out, text, len);
    (*out)[len] = '\0';
    *ret_text = *out;
    *out += len + 1;
    reader->at += 2 + len;
    return 0;
}

int pk_wire_open(struct pk_wire_reader *reader, const void *data, size_t len, struct pk_error *err)
{
    const char *at = data;

    memset(reader, 0, offsetof(struct pk_wire_reader, names));
    if (len < FIXED || memcmp(at + AT_MAGIC, "PKEB", 4) != 0)
        return broken(err, "it does not begin like one");
    if (len > PK_WIRE_MAX)
        return broken(err, "it is too large");
    if (get32(at + AT_VERSION) != VERSION || get64(at + AT_COLUMNS) != pk_event_columns_hash()) {
        (void)pk_fail(err, PK_E_UNSUPPORTED, "the batch was made by another version of picket");
        return pk_hint(err,
                       "restart 'picket ship' and 'picket serve' so that both run the same one");
    }
    struct pk_batch *batch = &reader->batch;
    batch->from = get64(at + AT_FROM);
    batch->to = get64(at + AT_TO);
    batch->lane = get64(at + AT_LANE);
    batch->lost_events = get64(at + AT_LOST_EVENTS);
    batch->lost_bytes = get64(at + AT_LOST_BYTES);
    batch->flags = get32(at + AT_FLAGS);
    reader->rows = get32(at + AT_ROWS);
    reader->at = (const unsigned char *)data + FIXED;
    reader->end = (const unsigned char *)data + len;
    if (batch->to < batch->from || batch->to > INT64_MAX || batch->lane > INT64_MAX)
        return broken(err, "its offsets make no sense");
    if (batch->lost_events > INT64_MAX / 2 || batch->lost_bytes > INT64_MAX / 2)
        return broken(err, "its losses make no sense");
    if (reader->rows > PK_WIRE_ROWS_MAX || (batch->flags & ~PK_WIRE_END) != 0)
        return broken(err, "it has too many rows or unknown flags");

    char *out = reader->names;
    const struct {
        const char **text;
        size_t max;
    } names[] = { { &batch->session, PK_WIRE_NAME_MAX }, { &batch->source, PK_WIRE_NAME_MAX },
                  { &batch->fleet, PK_WIRE_NAME_MAX },   { &batch->group, PK_WIRE_NAME_MAX },
                  { &batch->tool, PK_WIRE_NAME_MAX },    { &batch->path, PK_WIRE_PATH_MAX } };
    for (size_t i = 0; i < PK_ARRAY_SIZE(names); i++) {
        int r = read_name(reader, names[i].max, &out, names[i].text, err);
        if (r < 0)
            return r;
    }
    if (batch->source[0] == '\0')
        return broken(err, "it names no source");
    return 0;
}

static int read_value(struct pk_wire_reader *reader, const struct pk_column *column,
                      struct pk_value *value, struct pk_error *err)
{
    size_t left = (size_t)(reader->end - reader->at);
    size_t head = column->type == PK_COL_TEXT ? 4 : column->type == PK_COL_IP ? 1 : 8;

    if (left < head)
        return broken(err, "it is cut off");
    value->set = true;
    switch (column->type) {
    case PK_COL_TEXT:
        value->len = get32(reader->at);
        if (value->len > left - head)
            return broken(err, "a text is longer than the batch");
        value->text = (const char *)reader->at + head;
        if (pk_utf8_prefix(value->text, value->len) != value->len)
            return broken(err, "a text is not UTF-8");
        break;
    case PK_COL_IP:
        value->ip_len = reader->at[0];
        if ((value->ip_len != 4 && value->ip_len != 16) || value->ip_len > left - head)
            return broken(err, "an address has a wrong length");
        memcpy(value->ip, reader->at + head, value->ip_len);
        break;
    case PK_COL_TIME:
        value->time = (pk_nsec)get64(reader->at);
        break;
    case PK_COL_U64:
        value->number = get64(reader->at);
        if (value->number > INT64_MAX)
            return broken(err, "a number is too large");
        break;
    }
    reader->at += value_size(column, value);
    return 0;
}

int pk_wire_next(struct pk_wire_reader *reader, struct pk_value *values, struct pk_error *err)
{
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);

    if (reader->row == reader->rows) {
        if (reader->at != reader->end)
            return broken(err, "something follows the last row");
        return 0;
    }
    if (reader->end - reader->at < 4)
        return broken(err, "it is cut off");
    uint32_t mask = get32(reader->at);
    reader->at += 4;
    if (count < 32 && mask >> count != 0)
        return broken(err, "a row has an unknown column");
    if ((mask & 1u << PK_EV_TIME) == 0)
        return broken(err, "a row has no time");
    for (size_t i = 0; i < count; i++) {
        values[i].set = false;
        if ((mask & 1u << i) == 0)
            continue;
        if ((columns[i].flags & PK_COLUMN_SOURCE) != 0)
            return broken(err, "a row names its own source");
        int r = read_value(reader, &columns[i], &values[i], err);
        if (r < 0)
            return r;
    }
    reader->row++;
    return 1;
}
