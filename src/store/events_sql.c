/* SPDX-License-Identifier: Apache-2.0 */
/* SQL text of the event store, made from the column table; and its functions for networks and
 * texts. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <string.h>
#if defined(__SSE2__)
#    include <emmintrin.h>
#endif

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

void pk_sql_select(struct pk_buf *sql)
{
    (void)pk_buf_puts(sql, "SELECT ");
    add_columns(sql);
    (void)pk_buf_puts(sql, " FROM ");
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
    return sql->failed ? pk_no_memory(err) : 0;
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

static unsigned char fold(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

static bool matches_at(const char *text, const char *needle, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (fold((unsigned char)text[i]) != (unsigned char)needle[i])
            return false;
    return true;
}

/* needle is in lower case and not empty. Where its first and last byte fit, the rest is compared.
 */
static bool contains(const char *text, size_t len, const char *needle, size_t needle_len)
{
    size_t at = 0;

    if (len < needle_len)
        return false;
    size_t places = len - needle_len + 1;
#if defined(__SSE2__)
    const char first = needle[0], last = needle[needle_len - 1];
    const __m128i low_first = _mm_set1_epi8(first), low_last = _mm_set1_epi8(last);
    const __m128i up_first =
        _mm_set1_epi8((char)(first >= 'a' && first <= 'z' ? first - 32 : first));
    const __m128i up_last = _mm_set1_epi8((char)(last >= 'a' && last <= 'z' ? last - 32 : last));
    for (; places - at >= 16; at += 16) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)(text + at));
        __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(text + at + needle_len - 1));
        __m128i fits =
            _mm_and_si128(_mm_or_si128(_mm_cmpeq_epi8(a, low_first), _mm_cmpeq_epi8(a, up_first)),
                          _mm_or_si128(_mm_cmpeq_epi8(b, low_last), _mm_cmpeq_epi8(b, up_last)));
        for (unsigned mask = (unsigned)_mm_movemask_epi8(fits); mask != 0; mask &= mask - 1)
            if (matches_at(text + at + __builtin_ctz(mask), needle, needle_len))
                return true;
    }
#endif
    for (; at < places; at++)
        if (matches_at(text + at, needle, needle_len))
            return true;
    return false;
}

/* picket_contains(text, needle) for a needle in ASCII, whatever the case: as
 * contains(lower(text), lower(needle)), but makes no text in lower case. */
static void call_contains(duckdb_function_info info, duckdb_chunk input, duckdb_vector output)
{
    const struct pk_duckdb *duck;
    char needle[PK_QUERY_MAX];
    size_t needle_len = SIZE_MAX;
    const char *last = NULL;

    (void)info;
    if (pk_duckdb_load(&duck, NULL) < 0)
        return; /* cannot be: it called us */
    duckdb_vector texts = duck->data_chunk_get_vector(input, 0);
    duckdb_vector needles = duck->data_chunk_get_vector(input, 1);
    const union duckdb_string *text = duck->vector_get_data(texts);
    const union duckdb_string *wanted = duck->vector_get_data(needles);
    const uint64_t *text_valid = duck->vector_get_validity(texts);
    const uint64_t *wanted_valid = duck->vector_get_validity(needles);
    bool *result = duck->vector_get_data(output);
    duckdb_idx rows = duck->data_chunk_get_size(input);

    for (duckdb_idx i = 0; i < rows; i++) {
        size_t len;
        result[i] = false;
        if (!pk_duckdb_is_valid(text_valid, i) || !pk_duckdb_is_valid(wanted_valid, i))
            continue; /* DuckDB makes it NULL */
        const char *bytes = pk_duckdb_text(&wanted[i], &len);
        if (len != needle_len || (bytes != last && !matches_at(bytes, needle, len))) {
            needle_len = PK_MIN(len, sizeof(needle)); /* a query is no longer */
            for (size_t n = 0; n < needle_len; n++)
                needle[n] = (char)fold((unsigned char)bytes[n]);
        }
        last = bytes; /* a constant: made once per chunk */
        bytes = pk_duckdb_text(&text[i], &len);
        result[i] = needle_len == 0 || contains(bytes, len, needle, needle_len);
    }
}

/* picket_among(number, list): the list is numbers as 16 hexadecimal digits each, ascending. Unlike
 * IN, DuckDB asks it within the scan, before the other columns of the row are read. */
static void call_among(duckdb_function_info info, duckdb_chunk input, duckdb_vector output)
{
    static const char digits[] = "0123456789abcdef";
    const struct pk_duckdb *duck;

    (void)info;
    if (pk_duckdb_load(&duck, NULL) < 0)
        return; /* cannot be: it called us */
    duckdb_vector numbers = duck->data_chunk_get_vector(input, 0);
    duckdb_vector lists = duck->data_chunk_get_vector(input, 1);
    const int64_t *number = duck->vector_get_data(numbers);
    const union duckdb_string *list = duck->vector_get_data(lists);
    const uint64_t *number_valid = duck->vector_get_validity(numbers);
    const uint64_t *list_valid = duck->vector_get_validity(lists);
    bool *result = duck->vector_get_data(output);
    duckdb_idx rows = duck->data_chunk_get_size(input);

    for (duckdb_idx i = 0; i < rows; i++) {
        char key[PK_AMONG_DIGITS];
        size_t len;
        result[i] = false;
        if (!pk_duckdb_is_valid(number_valid, i) || !pk_duckdb_is_valid(list_valid, i))
            continue; /* DuckDB makes it NULL */
        const char *text = pk_duckdb_text(&list[i], &len);
        for (size_t n = 0; n < sizeof(key); n++)
            key[n] = digits[(uint64_t)number[i] >> (60 - 4 * n) & 15];
        size_t low = 0, high = len / sizeof(key);
        while (low < high && !result[i]) {
            size_t middle = low + (high - low) / 2;
            int order = memcmp(key, text + middle * sizeof(key), sizeof(key));
            result[i] = order == 0;
            if (order < 0)
                high = middle;
            else
                low = middle + 1;
        }
    }
}

static int register_test(struct pk_events *events, const char *name, int first_type,
                         void (*call)(duckdb_function_info, duckdb_chunk, duckdb_vector),
                         struct pk_error *err)
{
    const struct pk_duckdb *duck = events->duck;
    duckdb_function function = duck->create_scalar_function();
    duckdb_type first = duck->create_logical_type(first_type);
    duckdb_type text = duck->create_logical_type(DUCKDB_VARCHAR);
    duckdb_type truth = duck->create_logical_type(DUCKDB_BOOLEAN);

    duck->scalar_function_set_name(function, name);
    duck->scalar_function_add_parameter(function, first);
    duck->scalar_function_add_parameter(function, text);
    duck->scalar_function_set_return_type(function, truth);
    duck->scalar_function_set_function(function, call);
    int state = duck->register_scalar_function(events->writer, function);
    duck->destroy_logical_type(&first);
    duck->destroy_logical_type(&text);
    duck->destroy_logical_type(&truth);
    duck->destroy_scalar_function(&function);
    return state == DUCKDB_OK ? 0
                              : pk_fail(err, PK_E_INTERNAL, "DuckDB does not take our function");
}

int pk_events_register_functions(struct pk_events *events, struct pk_error *err)
{
    int r = register_test(events, "picket_in_net", DUCKDB_VARCHAR, call_in_net, err);

    if (r == 0)
        r = register_test(events, "picket_contains", DUCKDB_VARCHAR, call_contains, err);
    return r < 0 ? r : register_test(events, "picket_among", DUCKDB_BIGINT, call_among, err);
}
