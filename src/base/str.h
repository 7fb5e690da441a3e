/* SPDX-License-Identifier: Apache-2.0 */
/* Text: vectors of strings, numbers with units, did-you-mean. Any thread. */
#ifndef PICKET_BASE_STR_H
#define PICKET_BASE_STR_H

#include "base/common.h"
#include "base/error.h"

/* A NULL-terminated vector of owned strings; an empty one may be { NULL, 0 }. */
struct pk_strv {
    char **list;
    size_t count;
};
int pk_strv_add(struct pk_strv *strv, const char *text); /* copies; 0 or PK_E_NOMEM */
int pk_strv_addf(struct pk_strv *strv, const char *fmt, ...) PK_PRINTF(2, 3);
int pk_strv_copy(const struct pk_strv *from, struct pk_strv *ret_copy);
bool pk_strv_contains(const struct pk_strv *strv, const char *text);
void pk_strv_sort(struct pk_strv *strv);
void pk_strv_done(struct pk_strv *strv);

bool pk_str_equal(const char *a, const char *b); /* NULL equals only NULL */
bool pk_str_starts(const char *text, const char *prefix);
bool pk_str_ends(const char *text, const char *suffix);
/* A name as fleets, groups, taps and tools have it: [a-z0-9]([-a-z0-9]*[a-z0-9])?, 1 to max bytes.
 */
bool pk_str_is_name(const char *text, size_t max);

/* Bytes of text that are well-formed UTF-8 from the start (RFC 3629: no overlong forms, no
 * surrogates, at most U+10FFFF; NUL is fine): len when all are. */
size_t pk_utf8_prefix(const char *text, size_t len);
/* Decodes the character at *text, before end, and moves behind it; a wrong byte gives U+FFFD. */
uint32_t pk_utf8_next(const char **text, const char *end);

/* The candidate closest to text by Damerau-Levenshtein distance, if it is close enough to be a
 * slip of the pen (distance <= 1 + length/4); else NULL. The result is one of the candidates. */
const char *pk_str_closest(const char *text, const char *const *candidates, size_t count);

/* Whole text must match; PK_E_INVALID with a message that says what is accepted. */
int pk_parse_u64(const char *text, uint64_t *ret_value, struct pk_error *err);
/* Hexadecimal digits alone, at most 16 of them. */
/* The number in decimal digits at *at, which is moved behind it; false = there is none, or more
 * than 64 bits: *at stays. */
bool pk_take_u64(const char **at, uint64_t *ret_value);
int pk_parse_hex(const char *text, size_t len, uint64_t *ret_value, struct pk_error *err);
int pk_parse_i64(const char *text, int64_t *ret_value, struct pk_error *err);
int pk_parse_double(const char *text, double *ret_value, struct pk_error *err);
int pk_parse_bool(const char *text, bool *ret_value, struct pk_error *err); /* true|false|yes|no */
/* "512", "64KiB", "4MiB", "2TiB", "1GB" (powers of 1000 without the i) -> bytes. */
int pk_parse_bytes(const char *text, uint64_t *ret_bytes, struct pk_error *err);
/* "500ms", "10s", "5m", "1h30m", "30d", "2w" -> nanoseconds. */
int pk_parse_duration(const char *text, pk_nsec *ret_span, struct pk_error *err);

/* Write the shortest exact form that the parser reads back ("4MiB", "90s" -> "1m30s"); returns out.
 */
char *pk_format_bytes(uint64_t bytes, char *out, size_t size);
char *pk_format_duration(pk_nsec span, char *out, size_t size);
/* For people, rounded: "1.4 GiB", "12.3k", "2m". */
char *pk_human_bytes(uint64_t bytes, char *out, size_t size);
char *pk_human_count(uint64_t count, char *out, size_t size);
char *pk_human_duration(pk_nsec span, char *out, size_t size);

/* Lower-case hex; out holds 2 * len + 1. */
void pk_hex(const void *data, size_t len, char *out);
/* SHA-256 (FIPS 180-4, libsodium) as 64 hex digits. */
void pk_sha256_hex(const void *data, size_t len, char out[65]);

#endif
