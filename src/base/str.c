/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include <math.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* ---- vectors ---- */

static int strv_add_take(struct pk_strv *strv, char *text)
{
    if (text == NULL)
        return PK_E_NOMEM;
    char **grown = pk_realloc_array(strv->list, strv->count + 2, sizeof(*grown));
    if (grown == NULL) {
        pk_free(text);
        return PK_E_NOMEM;
    }
    strv->list = grown;
    strv->list[strv->count++] = text;
    strv->list[strv->count] = NULL;
    return 0;
}

int pk_strv_add(struct pk_strv *strv, const char *text)
{
    return strv_add_take(strv, pk_strdup(text));
}

int pk_strv_addf(struct pk_strv *strv, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *text = pk_vasprintf(fmt, args);
    va_end(args);
    return strv_add_take(strv, text);
}

int pk_strv_copy(const struct pk_strv *from, struct pk_strv *ret_copy)
{
    struct pk_strv copy = { 0 };
    for (size_t i = 0; i < from->count; i++) {
        if (pk_strv_add(&copy, from->list[i]) < 0) {
            pk_strv_done(&copy);
            return PK_E_NOMEM;
        }
    }
    *ret_copy = copy;
    return 0;
}

bool pk_strv_contains(const struct pk_strv *strv, const char *text)
{
    for (size_t i = 0; i < strv->count; i++)
        if (strcmp(strv->list[i], text) == 0)
            return true;
    return false;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void pk_strv_sort(struct pk_strv *strv)
{
    if (strv->count > 1)
        qsort(strv->list, strv->count, sizeof(*strv->list), compare);
}

void pk_strv_done(struct pk_strv *strv)
{
    for (size_t i = 0; i < strv->count; i++)
        pk_free(strv->list[i]);
    pk_free(strv->list);
    *strv = (struct pk_strv){ 0 };
}

/* ---- comparing ---- */

bool pk_str_equal(const char *a, const char *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return strcmp(a, b) == 0;
}

bool pk_str_starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool pk_str_ends(const char *text, const char *suffix)
{
    size_t len = strlen(text), end = strlen(suffix);
    return end <= len && memcmp(text + len - end, suffix, end) == 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool pk_str_is_name(const char *text, size_t max)
{
    size_t len = strnlen(text, max + 1);
    if (len == 0 || len > max || text[0] == '-' || text[len - 1] == '-')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!(text[i] >= 'a' && text[i] <= 'z') && !is_digit(text[i]) && text[i] != '-')
            return false;
    return true;
}

/* The length of the character at text, 0 if it is malformed or cut. */
static size_t decode(const unsigned char *text, size_t left, uint32_t *ret_char)
{
    static const struct {
        unsigned char mask, lead;
        uint32_t least;
    } forms[] = {
        { 0x80, 0x00, 0 }, { 0xe0, 0xc0, 0x80 }, { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 }
    };
    for (size_t more = 0; more < PK_ARRAY_SIZE(forms); more++) {
        if ((text[0] & forms[more].mask) != forms[more].lead)
            continue;
        if (left < more + 1)
            return 0;
        uint32_t c = text[0] & (unsigned char)~forms[more].mask;
        for (size_t i = 1; i <= more; i++) {
            if ((text[i] & 0xc0) != 0x80)
                return 0;
            c = c << 6 | (text[i] & 0x3f);
        }
        if (c < forms[more].least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
            return 0;
        *ret_char = c;
        return more + 1;
    }
    return 0;
}

size_t pk_utf8_prefix(const char *text, size_t len)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t at = 0;
    while (at < len) {
        uint64_t eight; /* text is ASCII as a rule: a step over eight at once */
        if (len - at >= sizeof(eight)) {
            memcpy(&eight, bytes + at, sizeof(eight));
            if ((eight & 0x8080808080808080u) == 0) {
                at += sizeof(eight);
                continue;
            }
        }
        uint32_t c;
        size_t step = decode(bytes + at, len - at, &c);
        if (step == 0)
            break;
        at += step;
    }
    return at;
}

uint32_t pk_utf8_next(const char **text, const char *end)
{
    uint32_t c = 0xfffd;
    size_t n = decode((const unsigned char *)*text, (size_t)(end - *text), &c);
    *text += PK_MAX(n, (size_t)1);
    return n == 0 ? 0xfffd : c;
}

/* Longer words are not compared: the table below stays small whatever is typed. */
#define CLOSEST_MAX 64

/* Damerau-Levenshtein distance (neighbours swapped count one), three rows at a time. */
static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t rows[3][CLOSEST_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= b_len; j++)
        last[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        now[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t change = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            now[j] = PK_MIN(change, PK_MIN(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = PK_MIN(now[j], before[j - 2] + 1);
        }
        size_t *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[b_len];
}

const char *pk_str_closest(const char *text, const char *const *candidates, size_t count)
{
    size_t len = strlen(text);
    if (len == 0 || len > CLOSEST_MAX)
        return NULL;
    const char *best = NULL;
    size_t best_distance = 1 + len / 4 + 1;
    for (size_t i = 0; i < count; i++) {
        size_t candidate_len = strlen(candidates[i]);
        if (candidate_len > CLOSEST_MAX)
            continue;
        size_t d = distance(text, len, candidates[i], candidate_len);
        if (d < best_distance && d < PK_MAX(len, candidate_len)) {
            best = candidates[i];
            best_distance = d;
        }
    }
    return best;
}

/* ---- numbers ---- */

/* Decimal digits at *text; moves *text behind them. False on overflow or when there is none. */
static bool read_digits(const char **text, uint64_t *ret_value)
{
    uint64_t value = 0;
    const char *p = *text;
    if (!is_digit(*p))
        return false;
    for (; is_digit(*p); p++)
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return false;
    *text = p;
    *ret_value = value;
    return true;
}

int pk_parse_u64(const char *text, uint64_t *ret_value, struct pk_error *err)
{
    const char *p = text;
    uint64_t value;
    if (!read_digits(&p, &value) || *p != '\0') {
        pk_fail(err, PK_E_INVALID, "'%s' is not a whole number from 0 to %llu", text,
                (unsigned long long)UINT64_MAX);
        pk_hint(err, "write digits only, such as 42");
        return PK_E_INVALID;
    }
    *ret_value = value;
    return 0;
}

bool pk_take_u64(const char **at, uint64_t *ret_value)
{
    const char *p = *at;
    uint64_t value = 0;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return false;
    if (p == *at)
        return false;
    *at = p;
    *ret_value = value;
    return true;
}

int pk_parse_hex(const char *text, size_t len, uint64_t *ret_value, struct pk_error *err)
{
    uint64_t value = 0;
    bool good = len > 0 && len <= 16;
    for (size_t i = 0; good && i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        unsigned char letter = c | 0x20;
        good = is_digit((char)c) || (letter >= 'a' && letter <= 'f');
        value = value << 4 | (unsigned)(is_digit((char)c) ? c - '0' : letter - 'a' + 10);
    }
    if (!good) {
        pk_fail(err, PK_E_INVALID, "'%.*s' is not a hexadecimal number of at most 16 digits",
                (int)PK_MIN(len, (size_t)40), text);
        pk_hint(err, "write digits and the letters a to f only");
        return PK_E_INVALID;
    }
    *ret_value = value;
    return 0;
}

int pk_parse_i64(const char *text, int64_t *ret_value, struct pk_error *err)
{
    bool negative = text[0] == '-';
    const char *p = text + (negative || text[0] == '+' ? 1 : 0);
    uint64_t value;
    if (!read_digits(&p, &value) || *p != '\0' ||
        value > (uint64_t)INT64_MAX + (negative ? 1 : 0)) {
        pk_fail(err, PK_E_INVALID, "'%s' is not a whole number of 64 bits", text);
        pk_hint(err, "write digits only, such as 42 or -42");
        return PK_E_INVALID;
    }
    *ret_value = negative ? (int64_t)(0 - value) : (int64_t)value;
    return 0;
}

static const char *skip_digits(const char *p)
{
    while (is_digit(*p))
        p++;
    return p;
}

/* [-+]? digits? (. digits?)? ([eE] [-+]? digits)? with at least one digit before the exponent:
 * strtod() alone would also take "inf", "nan", hexadecimal and leading blanks. */
static bool is_decimal(const char *text)
{
    const char *p = text + (*text == '-' || *text == '+' ? 1 : 0);
    const char *whole = p;
    p = skip_digits(p);
    size_t digits = (size_t)(p - whole);
    if (*p == '.') {
        const char *fraction = ++p;
        p = skip_digits(p);
        digits += (size_t)(p - fraction);
    }
    if (digits == 0)
        return false;
    if (*p == 'e' || *p == 'E') {
        p += p[1] == '-' || p[1] == '+' ? 2 : 1;
        if (!is_digit(*p))
            return false;
        p = skip_digits(p);
    }
    return *p == '\0';
}

int pk_parse_double(const char *text, double *ret_value, struct pk_error *err)
{
    double value = is_decimal(text) ? strtod(text, NULL) : (double)INFINITY;
    if (!isfinite(value)) {
        pk_fail(err, PK_E_INVALID, "'%s' is not a number", text);
        pk_hint(err, "write a decimal number, such as 0.5 or 1e6");
        return PK_E_INVALID;
    }
    *ret_value = value;
    return 0;
}

int pk_parse_bool(const char *text, bool *ret_value, struct pk_error *err)
{
    if (strcmp(text, "true") == 0 || strcmp(text, "yes") == 0) {
        *ret_value = true;
        return 0;
    }
    if (strcmp(text, "false") == 0 || strcmp(text, "no") == 0) {
        *ret_value = false;
        return 0;
    }
    pk_fail(err, PK_E_INVALID, "'%s' is neither true nor false", text);
    pk_hint(err, "write true or false");
    return PK_E_INVALID;
}

/* Largest first, the binary unit before the decimal one, so that the first that divides is written.
 */
static const struct {
    const char *name;
    uint64_t factor;
} byte_units[] = {
    { "EiB", 1ull << 60 },
    { "PiB", 1ull << 50 },
    { "TiB", 1ull << 40 },
    { "GiB", 1ull << 30 },
    { "MiB", 1ull << 20 },
    { "KiB", 1ull << 10 },
    { "EB", 1000000000000000000ull },
    { "PB", 1000000000000000ull },
    { "TB", 1000000000000ull },
    { "GB", 1000000000ull },
    { "MB", 1000000ull },
    { "kB", 1000ull },
};

int pk_parse_bytes(const char *text, uint64_t *ret_bytes, struct pk_error *err)
{
    const char *p = text;
    uint64_t value, factor = 0;
    if (read_digits(&p, &value)) {
        if (*p == '\0' || strcmp(p, "B") == 0)
            factor = 1;
        else if (strcmp(p, "KB") == 0)
            factor = 1000;
        for (size_t i = 0; i < PK_ARRAY_SIZE(byte_units) && factor == 0; i++)
            if (strcmp(p, byte_units[i].name) == 0)
                factor = byte_units[i].factor;
    }
    if (factor == 0 || __builtin_mul_overflow(value, factor, &value)) {
        pk_fail(err, PK_E_INVALID, "'%s' is not a size in bytes", text);
        pk_hint(err, "write a whole number with a unit: 512, 64KiB, 4MiB, 2TiB, 1GB");
        return PK_E_INVALID;
    }
    *ret_bytes = value;
    return 0;
}

char *pk_format_bytes(uint64_t bytes, char *out, size_t size)
{
    for (size_t i = 0; bytes > 0 && i < PK_ARRAY_SIZE(byte_units); i++) {
        if (bytes % byte_units[i].factor == 0) {
            (void)snprintf(out, size, "%llu%s", (unsigned long long)(bytes / byte_units[i].factor),
                           byte_units[i].name);
            return out;
        }
    }
    (void)snprintf(out, size, "%llu", (unsigned long long)bytes);
    return out;
}

static const struct {
    const char *name;
    pk_nsec span;
} time_units[] = {
    { "w", 7 * 86400 * PK_NSEC_PER_SEC },
    { "d", 86400 * PK_NSEC_PER_SEC },
    { "h", 3600 * PK_NSEC_PER_SEC },
    { "m", 60 * PK_NSEC_PER_SEC },
    { "s", PK_NSEC_PER_SEC },
    { "ms", PK_NSEC_PER_MS },
    { "us", 1000 },
    { "ns", 1 },
};

/* One "<digits><unit>" with a unit smaller than the last one. */
static bool read_span(const char **text, size_t *unit, pk_nsec *total)
{
    uint64_t value;
    if (!read_digits(text, &value) || value > (uint64_t)INT64_MAX)
        return false;
    size_t letters = 0;
    while ((*text)[letters] >= 'a' && (*text)[letters] <= 'z')
        letters++;
    for (; *unit < PK_ARRAY_SIZE(time_units); (*unit)++) {
        const char *name = time_units[*unit].name;
        if (strlen(name) != letters || strncmp(*text, name, letters) != 0)
            continue;
        pk_nsec span;
        if (__builtin_mul_overflow((pk_nsec)value, time_units[*unit].span, &span) ||
            __builtin_add_overflow(*total, span, total))
            return false;
        *text += letters;
        (*unit)++;
        return true;
    }
    return false;
}

int pk_parse_duration(const char *text, pk_nsec *ret_span, struct pk_error *err)
{
    const char *p = text;
    size_t unit = 0;
    pk_nsec total = 0;
    do {
        if (!read_span(&p, &unit, &total)) {
            pk_fail(err, PK_E_INVALID, "'%s' is not a span of time", text);
            pk_hint(err, "write numbers with units (ms, s, m, h, d, w): 500ms, 10s, 1h30m, 30d");
            return PK_E_INVALID;
        }
    } while (*p != '\0');
    *ret_span = total;
    return 0;
}

char *pk_format_duration(pk_nsec span, char *out, size_t size)
{
    uint64_t rest = span < 0 ? 0 - (uint64_t)span : (uint64_t)span;
    int used = snprintf(out, size, "%s", rest == 0 ? "0s" : span < 0 ? "-" : "");
    for (size_t i = 0; i < PK_ARRAY_SIZE(time_units) && rest > 0; i++) {
        uint64_t factor = (uint64_t)time_units[i].span;
        if (rest < factor || (i == 0 && rest % factor != 0)) /* weeks only where they fit: 30d */
            continue;
        if (used >= 0 && (size_t)used < size)
            used += snprintf(out + used, size - (size_t)used, "%llu%s",
                             (unsigned long long)(rest / factor), time_units[i].name);
        rest %= factor;
    }
    return out;
}

static char *human(double value, double step, const char *const *units, size_t count,
                   const char *blank, char *out, size_t size)
{
    size_t unit = 0;
    /* What would be printed as "1000.0" or "1024.0" belongs to the next unit. */
    while (unit + 1 < count && value >= step - (unit == 0 ? 0.5 : 0.05)) {
        value /= step;
        unit++;
    }
    (void)snprintf(out, size, unit == 0 ? "%.0f%s%s" : "%.1f%s%s", value, blank, units[unit]);
    return out;
}

char *pk_human_bytes(uint64_t bytes, char *out, size_t size)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    return human((double)bytes, 1024, units, PK_ARRAY_SIZE(units), " ", out, size);
}

char *pk_human_count(uint64_t count, char *out, size_t size)
{
    static const char *const units[] = { "", "k", "M", "G", "T", "P", "E" };
    return human((double)count, 1000, units, PK_ARRAY_SIZE(units), "", out, size);
}

char *pk_human_duration(pk_nsec span, char *out, size_t size)
{
    const char *sign = span < 0 ? "-" : "";
    uint64_t value = span < 0 ? 0 - (uint64_t)span : (uint64_t)span;
    for (size_t i = 1; i < PK_ARRAY_SIZE(time_units); i++) { /* no weeks: "10d" reads better */
        uint64_t factor = (uint64_t)time_units[i].span;
        if (value >= factor) {
            (void)snprintf(out, size, "%s%llu%s", sign, (unsigned long long)(value / factor),
                           time_units[i].name);
            return out;
        }
    }
    (void)snprintf(out, size, "0s");
    return out;
}

/* ---- digests ---- */

void pk_hex(const void *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *bytes = data;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * len] = '\0';
}

void pk_sha256_hex(const void *data, size_t len, char out[65])
{
    unsigned char digest[crypto_hash_sha256_BYTES];
    (void)crypto_hash_sha256(digest, data, len);
    pk_hex(digest, sizeof(digest), out);
}
