/* SPDX-License-Identifier: Apache-2.0 */
#include "ship/record.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/str.h"
#include "base/time.h"
#include "packet/community_id.h"
#include "ship/scan.h"

enum { /* slots beyond the columns */
       SLOT_ICMP_TYPE = PK_EVENT_COLUMNS_MAX,
       SLOT_ICMP_CODE,
};

struct pk_records {
    struct pk_scan *scans[2]; /* by format */
    int raw;
    char *scratch; /* decoded texts of one line; never longer than the line, with room to spare */
    size_t scratch_len;
    char community_id[PK_COMMUNITY_ID_SIZE];
    char second[19]; /* the last time stamp's text to the second, and what it was */
    char zone[8];
    size_t zone_len;
    pk_nsec second_time;
};

#define SCRATCH_MAX (8u * PK_LINE_MAX)

int pk_records_new(struct pk_records **ret_records, struct pk_error *err)
{
    PK_CLEANUP(pk_records_free_p) struct pk_records *records = pk_zalloc(sizeof(*records));
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);

    if (records == NULL)
        return pk_no_memory(err);
    records->raw = pk_event_column("raw");
    records->scratch = pk_zalloc(SCRATCH_MAX);
    if (records->scratch == NULL)
        return pk_no_memory(err);
    for (int format = 0; format < 2; format++) {
        int r = pk_scan_new(&records->scans[format], err);
        for (unsigned i = 0; r == 0 && i < count; i++)
            r = pk_scan_add(records->scans[format], i,
                            format == PK_LOG_EVE ? columns[i].eve : columns[i].zeek,
                            format == PK_LOG_ZEEK_JSON, err);
        if (r == 0 && format == PK_LOG_EVE)
            r = pk_scan_add(records->scans[format], SLOT_ICMP_TYPE, "icmp_type", true, err);
        if (r == 0 && format == PK_LOG_EVE)
            r = pk_scan_add(records->scans[format], SLOT_ICMP_CODE, "icmp_code", true, err);
        if (r < 0)
            return r;
    }
    *ret_records = PK_TAKE(records);
    return 0;
}

void pk_records_free(struct pk_records *records)
{
    if (records == NULL)
        return;
    pk_scan_free(records->scans[0]);
    pk_scan_free(records->scans[1]);
    pk_free(records->scratch);
    pk_free(records);
}

/* ---- values ---- */

static void take_text(struct pk_records *records, const struct pk_scan_value *found, bool lower,
                      struct pk_value *value)
{
    if (found->len == 0 || found->len > SCRATCH_MAX - records->scratch_len)
        return;
    if (!lower && !found->escaped) {
        *value = (struct pk_value){ .set = true, .text = found->at, .len = found->len };
        return;
    }
    char *text = records->scratch + records->scratch_len;
    size_t len = pk_scan_text(found, text);
    if (lower)
        for (size_t i = 0; i < len; i++)
            if (text[i] >= 'A' && text[i] <= 'Z')
                text[i] = (char)(text[i] + 32);
    records->scratch_len += len;
    *value = (struct pk_value){ .set = true, .text = text, .len = (uint32_t)len };
}

static bool digits_to_number(const char *at, size_t len, uint64_t *ret_number)
{
    uint64_t number = 0;

    if (len == 0 || len > 19)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (at[i] < '0' || at[i] > '9')
            return false;
        number = number * 10 + (uint64_t)(at[i] - '0');
    }
    if (number > INT64_MAX)
        return false;
    *ret_number = number;
    return true;
}

static void take_number(const struct pk_scan_value *found, struct pk_value *value)
{
    uint64_t number;

    if (found->type == PK_SCAN_INTEGER && digits_to_number(found->at, found->len, &number))
        *value = (struct pk_value){ .set = true, .number = number };
}

static void take_ip(const struct pk_scan_value *found, struct pk_value *value)
{
    char text[INET6_ADDRSTRLEN];

    if (found->type != PK_SCAN_STRING || found->escaped || found->len >= sizeof(text))
        return;
    memcpy(text, found->at, found->len);
    text[found->len] = '\0';
    if (inet_pton(AF_INET, text, value->ip) == 1)
        value->ip_len = 4;
    else if (inet_pton(AF_INET6, text, value->ip) == 1)
        value->ip_len = 16;
    else
        return;
    value->set = true;
}

/* "1718000000.000511", seconds since the epoch in decimal: read as text, never through a double.
 * A whole number beyond the year 5000 is in milliseconds. */
static bool epoch_time(const char *at, size_t len, pk_nsec *ret_when)
{
    const char *dot = memchr(at, '.', len);
    size_t whole = dot != NULL ? (size_t)(dot - at) : len;
    uint64_t seconds, fraction = 0;

    if (!digits_to_number(at, whole, &seconds))
        return false;
    if (dot == NULL && seconds > 100000000000u) {
        if (seconds > (uint64_t)INT64_MAX / PK_NSEC_PER_MS)
            return false;
        *ret_when = (pk_nsec)seconds * PK_NSEC_PER_MS;
        return true;
    }
    size_t digits = dot != NULL ? len - whole - 1 : 0;
    for (size_t i = 0; i < 9; i++) {
        char c = i < digits ? dot[1 + i] : '0';
        if (c < '0' || c > '9')
            return false;
        fraction = fraction * 10 + (uint64_t)(c - '0');
    }
    if (seconds > (uint64_t)INT64_MAX / PK_NSEC_PER_SEC - 1)
        return false;
    *ret_when = (pk_nsec)seconds * PK_NSEC_PER_SEC + (pk_nsec)fraction;
    return true;
}

/* "2024-06-10T06:13:20.000511+0000". Neighbours mostly share the second: only the fraction is read.
 */
static bool text_time(struct pk_records *records, const char *at, size_t len, pk_nsec *ret_when)
{
    size_t digits = 0;
    pk_nsec fraction = 0;

    if (len > 20 && at[19] == '.')
        while (20 + digits < len && at[20 + digits] >= '0' && at[20 + digits] <= '9')
            digits++;
    size_t zone = len > 20 && at[19] == '.' ? 20 + digits : PK_MIN(len, 19);
    if (len >= 19 && digits <= 9 && len - zone == records->zone_len && records->zone_len > 0 &&
        memcmp(at, records->second, sizeof(records->second)) == 0 &&
        memcmp(at + zone, records->zone, records->zone_len) == 0) {
        for (size_t i = 0; i < 9; i++)
            fraction = fraction * 10 + (i < digits ? at[20 + i] - '0' : 0);
        *ret_when = records->second_time + fraction;
        return true;
    }
    if (pk_time_parse(at, len, ret_when, NULL) < 0)
        return false;
    if (len >= 20 && digits <= 9 && len - zone < sizeof(records->zone)) {
        for (size_t i = 0; i < 9; i++)
            fraction = fraction * 10 + (i < digits ? at[20 + i] - '0' : 0);
        memcpy(records->second, at, sizeof(records->second));
        records->zone_len = len - zone;
        memcpy(records->zone, at + zone, records->zone_len);
        records->second_time = *ret_when - fraction;
    }
    return true;
}

static void take_time(struct pk_records *records, const struct pk_scan_value *found,
                      struct pk_value *value)
{
    pk_nsec when;
    bool ok = found->type == PK_SCAN_STRING
                  ? !found->escaped && text_time(records, found->at, found->len, &when)
                  : epoch_time(found->at, found->len, &when);

    if (ok)
        *value = (struct pk_value){ .set = true, .time = when };
}

static uint64_t slot_number(const struct pk_scan_value *found)
{
    struct pk_value value = { 0 };

    take_number(found, &value);
    return value.set ? value.number : 0;
}

static void add_community_id(struct pk_records *records, const struct pk_scan_value *found,
                             struct pk_value *values)
{
    struct pk_tuple tuple = { 0 };
    char name[24];
    const struct pk_value *src = &values[PK_EV_SRC_IP], *dst = &values[PK_EV_DST_IP];
    const struct pk_value *proto = &values[PK_EV_PROTO];

    if (!src->set || !dst->set || src->ip_len != dst->ip_len || !proto->set ||
        proto->len >= sizeof(name))
        return;
    memcpy(name, proto->text, proto->len);
    name[proto->len] = '\0';
    int number = pk_ip_proto_by_name(name);
    if (number < 0)
        return;
    memcpy(tuple.src, src->ip, src->ip_len);
    memcpy(tuple.dst, dst->ip, dst->ip_len);
    tuple.family = src->ip_len == 4 ? 4 : 6;
    tuple.proto = (uint8_t)number;
    tuple.src_port = (uint16_t)(values[PK_EV_SRC_PORT].set ? values[PK_EV_SRC_PORT].number : 0);
    tuple.dst_port = (uint16_t)(values[PK_EV_DST_PORT].set ? values[PK_EV_DST_PORT].number : 0);
    if ((number == 1 || number == 58) && found[SLOT_ICMP_TYPE].type == PK_SCAN_INTEGER) {
        tuple.src_port = (uint16_t)slot_number(&found[SLOT_ICMP_TYPE]);
        tuple.dst_port = (uint16_t)slot_number(&found[SLOT_ICMP_CODE]);
    }
    (void)pk_community_id(&tuple, 0, records->community_id);
    values[PK_EV_COMMUNITY_ID] = (struct pk_value){
        .set = true, .text = records->community_id, .len = (uint32_t)strlen(records->community_id)
    };
}

/* ---- lines ---- */

static void set_static(struct pk_value *value, const char *text)
{
    *value = (struct pk_value){ .set = true, .text = text, .len = (uint32_t)strlen(text) };
}

/* A line as UTF-8: what is none becomes \xHH, as Zeek writes it. */
static void take_line(struct pk_records *records, const char *line, size_t len,
                      struct pk_value *value)
{
    size_t good = pk_utf8_prefix(line, len);

    if (good == len) {
        *value = (struct pk_value){ .set = true, .text = line, .len = (uint32_t)len };
        return;
    }
    char *out = records->scratch, *to = out;
    for (size_t at = 0; at < len;) {
        good = pk_utf8_prefix(line + at, len - at);
        memcpy(to, line + at, good);
        to += good;
        at += good;
        if (at < len)
            to += snprintf(to, 5, "\\x%02x", (unsigned char)line[at++]);
    }
    *value = (struct pk_value){ .set = true, .text = out, .len = (uint32_t)(to - out) };
}

bool pk_records_parse(struct pk_records *records, enum pk_log_format format, const char *log_type,
                      pk_nsec now, const char *line, size_t len, struct pk_value *values)
{
    struct pk_scan_value found[PK_SCAN_SLOTS_MAX];
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);

    for (size_t i = 0; i < count; i++)
        values[i].set = false;
    records->scratch_len = 0;
    if (!pk_scan_record(records->scans[format], line, len, found)) {
        values[PK_EV_TIME] = (struct pk_value){ .set = true, .time = now };
        set_static(&values[PK_EV_TYPE], "invalid");
        take_line(records, line, len, &values[records->raw]);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (found[i].type == PK_SCAN_ABSENT)
            continue;
        switch (columns[i].type) {
        case PK_COL_TEXT:
            take_text(records, &found[i], (columns[i].flags & PK_COLUMN_LOWER) != 0, &values[i]);
            break;
        case PK_COL_U64:
            take_number(&found[i], &values[i]);
            break;
        case PK_COL_IP:
            take_ip(&found[i], &values[i]);
            break;
        case PK_COL_TIME:
            take_time(records, &found[i], &values[i]);
            break;
        }
    }
    if (!values[PK_EV_TIME].set)
        values[PK_EV_TIME] = (struct pk_value){ .set = true, .time = now };
    if (!values[PK_EV_TYPE].set)
        set_static(&values[PK_EV_TYPE], log_type != NULL ? log_type : "unknown");
    if (!values[PK_EV_COMMUNITY_ID].set)
        add_community_id(records, found, values);
    values[records->raw] = (struct pk_value){ .set = true, .text = line, .len = (uint32_t)len };
    return true;
}

size_t pk_records_split(struct pk_records *records, enum pk_log_format format, const char *line,
                        size_t len)
{
    static const char *const starts[] = { "{\"timestamp\":", "{\"ts\":" };
    struct pk_scan_value found[PK_SCAN_SLOTS_MAX];
    const char *start = starts[format];
    size_t start_len = strlen(start), tries = 0;

    for (size_t from = 1; from < len && tries < 8; tries++) {
        const char *at = memmem(line + from, len - from, start, start_len);
        if (at == NULL)
            return 0;
        size_t offset = (size_t)(at - line);
        if (pk_scan_record(records->scans[format], at, len - offset, found))
            return offset;
        from = offset + 1;
    }
    return 0;
}
