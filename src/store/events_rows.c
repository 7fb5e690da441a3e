/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of a batch -> DuckDB's vectors. This runs for every value of every event, so the vectors'
 * memory is written directly: short texts inline, long ones as pointers into the batch, which
 * DuckDB copies when it takes the chunk. The wire format's reader has checked that they are UTF-8.
 */
#include <arpa/inet.h>
#include <string.h>

#include "base/alloc.h"
#include "store/events_internal.h"

struct pk_rows {
    const struct pk_duckdb *duck;
    duckdb_chunk chunk;
    duckdb_idx filled;
    size_t columns; /* of an event; then seq and part */
    void *data[PK_EVENT_COLUMNS_MAX + 2];
    uint64_t *valid[PK_EVENT_COLUMNS_MAX];
    char (*addresses)[INET6_ADDRSTRLEN]; /* texts of the chunk's addresses, by row */
    size_t address_columns;
};

static void begin_chunk(struct pk_rows *rows)
{
    rows->duck->data_chunk_reset(rows->chunk);
    rows->filled = 0;
    for (size_t i = 0; i < rows->columns + 2; i++) {
        duckdb_vector vector = rows->duck->data_chunk_get_vector(rows->chunk, i);
        rows->data[i] = rows->duck->vector_get_data(vector);
        if (i < rows->columns) {
            rows->duck->vector_ensure_validity_writable(vector);
            rows->valid[i] = rows->duck->vector_get_validity(vector);
        }
    }
}

int pk_rows_new(const struct pk_duckdb *duck, struct pk_rows **ret_rows, struct pk_error *err)
{
    PK_CLEANUP(pk_rows_free_p) struct pk_rows *rows = pk_zalloc(sizeof(*rows));
    duckdb_type types[PK_EVENT_COLUMNS_MAX + 2];
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);

    if (rows == NULL)
        return pk_no_memory(err);
    rows->duck = duck;
    rows->columns = count;
    for (size_t i = 0; i < count; i++)
        rows->address_columns += columns[i].type == PK_COL_IP;
    rows->addresses =
        pk_zalloc_array(rows->address_columns * DUCKDB_VECTOR_ROWS, sizeof(*rows->addresses));
    if (rows->addresses == NULL)
        return pk_no_memory(err);
    for (size_t i = 0; i < count + 2; i++)
        types[i] =
            duck->create_logical_type(i >= count || columns[i].type == PK_COL_U64 ? DUCKDB_BIGINT
                                      : columns[i].type == PK_COL_TIME ? DUCKDB_TIMESTAMP_NS
                                                                       : DUCKDB_VARCHAR);
    rows->chunk = duck->create_data_chunk(types, count + 2);
    for (size_t i = 0; i < count + 2; i++)
        duck->destroy_logical_type(&types[i]);
    if (rows->chunk == NULL)
        return pk_fail(err, PK_E_INTERNAL, "DuckDB gives no memory for rows");
    begin_chunk(rows);
    *ret_rows = PK_TAKE(rows);
    return 0;
}

void pk_rows_free(struct pk_rows *rows)
{
    if (rows == NULL)
        return;
    if (rows->chunk != NULL)
        rows->duck->destroy_data_chunk(&rows->chunk);
    pk_free(rows->addresses);
    pk_free(rows);
}

static void set_text(union duckdb_string *slot, const char *text, size_t len)
{
    slot->near.length = (uint32_t)len;
    if (len <= sizeof(slot->near.text)) {
        memset(slot->near.text, 0, sizeof(slot->near.text)); /* the rest is compared too */
        memcpy(slot->near.text, text, len);
    } else {
        memcpy(slot->far.prefix, text, sizeof(slot->far.prefix));
        slot->far.pointer = (char *)(uintptr_t)text; /* read only */
    }
}

static size_t ip4_text(const uint8_t ip[4], char *out)
{
    char *to = out;

    for (int i = 0; i < 4; i++) {
        unsigned n = ip[i];
        if (i > 0)
            *to++ = '.';
        if (n >= 100)
            *to++ = (char)('0' + n / 100);
        if (n >= 10)
            *to++ = (char)('0' + n / 10 % 10);
        *to++ = (char)('0' + n % 10);
    }
    return (size_t)(to - out);
}

static size_t ip_text(const struct pk_value *value, char out[INET6_ADDRSTRLEN])
{
    if (value->ip_len == 4)
        return ip4_text(value->ip, out);
    (void)inet_ntop(AF_INET6, value->ip, out, INET6_ADDRSTRLEN);
    return strlen(out);
}

void pk_rows_add(struct pk_rows *rows, const struct pk_value *values, uint64_t seq, size_t part)
{
    size_t row = rows->filled++, count, address = row * rows->address_columns;
    const struct pk_column *columns = pk_event_columns(&count);

    for (size_t i = 0; i < count; i++) {
        const struct pk_value *value = &values[i];
        if (!value->set) {
            rows->valid[i][row / 64] &= ~(1ull << (row % 64));
            if (columns[i].type == PK_COL_TEXT || columns[i].type == PK_COL_IP)
                set_text((union duckdb_string *)rows->data[i] + row, "", 0);
            continue;
        }
        switch (columns[i].type) {
        case PK_COL_TIME:
            ((int64_t *)rows->data[i])[row] = value->time;
            break;
        case PK_COL_U64:
            ((int64_t *)rows->data[i])[row] = (int64_t)value->number;
            break;
        case PK_COL_TEXT:
            set_text((union duckdb_string *)rows->data[i] + row, value->text, value->len);
            break;
        case PK_COL_IP: {
            char *text = rows->addresses[address++];
            set_text((union duckdb_string *)rows->data[i] + row, text, ip_text(value, text));
            break;
        }
        }
    }
    ((int64_t *)rows->data[count])[row] = (int64_t)seq;
    ((int64_t *)rows->data[count + 1])[row] = (int64_t)part;
}

bool pk_rows_full(const struct pk_rows *rows)
{
    return rows->filled == DUCKDB_VECTOR_ROWS;
}

int pk_rows_append(struct pk_rows *rows, duckdb_appender appender, struct pk_error *err)
{
    int r = 0;

    if (rows->filled == 0)
        return 0;
    rows->duck->data_chunk_set_size(rows->chunk, rows->filled);
    if (rows->duck->append_data_chunk(appender, rows->chunk) != DUCKDB_OK)
        r = pk_duckdb_fail(err, "cannot add events", rows->duck->appender_error(appender));
    begin_chunk(rows);
    return r;
}

void pk_rows_discard(struct pk_rows *rows)
{
    begin_chunk(rows);
}
