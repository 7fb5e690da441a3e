/* SPDX-License-Identifier: Apache-2.0 */
/* SQL text of the event store, made from the column table; and its function for networks. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <string.h>

#include "store/events_internal.h"

void pk_sql_quote(struct pk_buf *sql, const char *text)
{
    (void)pk_buf_putc(sql, '\'');
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            (void)pk_buf_putc(sql, '\'');
        (void)pk_buf_putc(sql, *text);
    }
    (void)pk_buf_putc(sql, '\'');
}

const char *pk_sql_type(enum pk_column_type type)
{
    switch (type) {
    case PK_COL_TIME:
        return "TIMESTAMP_NS";
    case PK_COL_U64:
        return "BIGINT";
    case PK_COL_TEXT:
    case PK_COL_IP: /* as text, so that any tool can read the files */
        break;
    }
    return "VARCHAR";
}

static void add_columns(struct pk_buf *sql)
{
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);

    for (size_t i = 0; i < count; i++)
        (void)pk_buf_printf(sql, "\"%s\", ", columns[i].name);
    (void)pk_buf_puts(sql, "seq");
}

static void add_times(struct pk_buf *sql, pk_nsec since, pk_nsec until)
{
    (void)pk_buf_printf(sql,
                        " WHERE time >= make_timestamp_ns(%" PRId64
                        ") AND time < make_timestamp_ns(%" PRId64 ")",
                        since, until);
}

struct span {
    pk_nsec since, until;
    bool all;
};

static bool is_within(const struct pk_segment *segment, const struct span *span)
{
    /* A table may have grown since: what is known of its times is of the past. */
    return span->all || (!segment->memory && segment->min_time >= span->since &&
                         segment->max_time < span->until);
}

/* The files that are (not) wholly within the span. */
static void add_files(const struct pk_events *events, struct pk_segment *const *list, size_t count,
                      const struct span *span, bool within, bool same, size_t *parts,
                      struct pk_buf *sql)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        if (list[i]->memory || (same && is_within(list[i], span) != within))
            continue;
        if (n++ == 0 && same) {
            (void)pk_buf_puts(sql, (*parts)++ > 0 ? " UNION ALL SELECT " : "SELECT ");
            add_columns(sql);
            (void)pk_buf_puts(sql, " FROM read_parquet([");
        } else if (n == 1) {
            /* Files of an older picket lack columns: by name, with an empty row set that has all.
             */
            (void)pk_buf_puts(sql, (*parts)++ > 0
                                       ? " UNION ALL BY NAME SELECT * FROM read_parquet(["
                                       : "SELECT * FROM read_parquet([");
        } else {
            (void)pk_buf_puts(sql, ", ");
        }
        struct pk_buf path = PK_BUF_INIT(8192);
        (void)pk_buf_printf(&path, "%s/%s", events->dir, list[i]->name);
        if (path.failed)
            sql->failed = true;
        else
            pk_sql_quote(sql, path.data);
        pk_buf_done(&path);
    }
    if (n == 0)
        return;
    (void)pk_buf_printf(sql, "], hive_partitioning=false, union_by_name=%s)",
                        same ? "false" : "true");
    if (!within && !span->all)
        add_times(sql, span->since, span->until);
}

int pk_events_from_sql(const struct pk_events *events, struct pk_segment *const *list, size_t count,
                       pk_nsec since, pk_nsec until, struct pk_buf *sql, struct pk_error *err)
{
    const struct span span = { since, until, since == INT64_MIN && until == INT64_MAX };
    size_t column_count, parts = 0;
    const struct pk_column *columns = pk_event_columns(&column_count);
    bool same = true;

    (void)pk_buf_putc(sql, '(');
    for (size_t i = 0; i < count; i++) {
        if (!list[i]->memory) {
            same = same && list[i]->columns == pk_event_columns_hash();
            continue;
        }
        (void)pk_buf_puts(sql, parts++ > 0 ? " UNION ALL SELECT " : "SELECT ");
        add_columns(sql);
        (void)pk_buf_printf(sql, " FROM %s", list[i]->name);
        if (!span.all)
            add_times(sql, since, until);
    }
    add_files(events, list, count, &span, false, same, &parts, sql);
    if (same)
        add_files(events, list, count, &span, true, same, &parts, sql);
    if (parts == 0 || !same) {
        (void)pk_buf_puts(sql, parts > 0 ? " UNION ALL BY NAME SELECT " : "SELECT ");
        for (size_t i = 0; i < column_count; i++)
            (void)pk_buf_printf(sql, "NULL::%s AS \"%s\", ", pk_sql_type(columns[i].type),
                                columns[i].name);
        (void)pk_buf_puts(sql, "NULL::BIGINT AS seq WHERE false");
    }
    (void)pk_buf_putc(sql, ')');
    return sql->failed ? pk_fail(err, PK_E_NOMEM, "out of memory") : 0;
}

static bool address_bytes(const char *text, size_t len, uint8_t out[16])
{
    unsigned bits;

    return memchr(text, '/', len) == NULL && pk_query_net(text, len, out, &bits);
}

static bool in_net(const uint8_t ip[16], const uint8_t net[16], unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;

    return memcmp(ip, net, whole) == 0 &&
           (rest == 0 || (ip[whole] ^ net[whole]) >> (8 - rest) == 0);
}

/* picket_in_net(address, network); NULL where the address is. Called on DuckDB's threads. */
static void call_in_net(duckdb_function_info info, duckdb_chunk input, duckdb_vector output)
{
    const struct pk_duckdb *duck;
    uint8_t net[16], ip[16];
    char last[64];
    size_t last_len = SIZE_MAX;
    unsigned bits = 0;
    bool valid = false;

    (void)info;
    if (pk_duckdb_load(&duck, NULL) < 0)
        return; /* cannot be: it called us */
    duckdb_vector addresses = duck->data_chunk_get_vector(input, 0);
    duckdb_vector nets = duck->data_chunk_get_vector(input, 1);
    const union duckdb_string *address = duck->vector_get_data(addresses);
    const union duckdb_string *network = duck->vector_get_data(nets);
    const uint64_t *address_valid = duck->vector_get_validity(addresses);
    const uint64_t *net_valid = duck->vector_get_validity(nets);
    bool *result = duck->vector_get_data(output);
    duckdb_idx rows = duck->data_chunk_get_size(input);

    for (duckdb_idx i = 0; i < rows; i++) {
        result[i] = false;
        if (!pk_duckdb_is_valid(address_valid, i) || !pk_duckdb_is_valid(net_valid, i))
            continue; /* DuckDB makes it NULL */
        size_t len;
        const char *text = pk_duckdb_text(&network[i], &len);
        if (len != last_len || memcmp(text, last, len) != 0) { /* a constant: once per chunk */
            valid = len < sizeof(last) && pk_query_net(text, len, net, &bits);
            last_len = len < sizeof(last) ? len : SIZE_MAX;
            if (last_len != SIZE_MAX)
                memcpy(last, text, len);
        }
        text = pk_duckdb_text(&address[i], &len);
        result[i] = valid && address_bytes(text, len, ip) && in_net(ip, net, bits);
    }
}

int pk_events_register_functions(struct pk_events *events, struct pk_error *err)
{
    const struct pk_duckdb *duck = events->duck;
    duckdb_function function = duck->create_scalar_function();
    duckdb_type text = duck->create_logical_type(DUCKDB_VARCHAR);
    duckdb_type truth = duck->create_logical_type(DUCKDB_BOOLEAN);

    duck->scalar_function_set_name(function, "picket_in_net");
    duck->scalar_function_add_parameter(function, text);
    duck->scalar_function_add_parameter(function, text);
    duck->scalar_function_set_return_type(function, truth);
    duck->scalar_function_set_function(function, call_in_net);
    int state = duck->register_scalar_function(events->writer, function);
    duck->destroy_logical_type(&text);
    duck->destroy_logical_type(&truth);
    duck->destroy_scalar_function(&function);
    return state == DUCKDB_OK ? 0
                              : pk_fail(err, PK_E_INTERNAL, "DuckDB does not take our function");
}
