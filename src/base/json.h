/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON through jansson, plus typed getters that give errors naming the path. Emitted JSON has raw
 * UTF-8, unescaped slashes and sorted keys where pk_json_canonical() is asked for.
 */
#ifndef PICKET_BASE_JSON_H
#define PICKET_BASE_JSON_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"

static inline void pk_json_decref_p(json_t **json)
{
    json_decref(*json);
}
#define PK_JSON PK_CLEANUP(pk_json_decref_p) json_t *

/* Parses one document; depth and size are bounded (jansson's 2048 levels). name is for errors,
 * which carry line and column. Duplicate keys are refused. */
int pk_json_parse(const char *name, const char *text, size_t len, json_t **ret_json,
                  struct pk_error *err);
int pk_json_load(const char *path, json_t **ret_json, struct pk_error *err);
/* Compact and sorted: equal values give equal bytes. Release with pk_free(); NULL = out of memory.
 */
char *pk_json_canonical(const json_t *json);
char *pk_json_pretty(const json_t *json);  /* two spaces, keys in insertion order */
char *pk_json_compact(const json_t *json); /* one line, keys in insertion order */

/* Member of an object. Missing is PK_E_NOTFOUND for the required form and leaves the default for
 * the _or form; a wrong type is PK_E_INVALID for the first and the default for the second. Text is
 * borrowed from the JSON. Paths are dotted: "stats.capture.kernel_packets". */
int pk_json_get_string(const json_t *json, const char *path, const char **ret_text,
                       struct pk_error *err);
int pk_json_get_u64(const json_t *json, const char *path, uint64_t *ret_value,
                    struct pk_error *err);
const char *pk_json_string_or(const json_t *json, const char *path, const char *other);
int64_t pk_json_int_or(const json_t *json, const char *path, int64_t other);
bool pk_json_bool_or(const json_t *json, const char *path, bool other);
json_t *pk_json_at(const json_t *json, const char *path); /* borrowed, NULL if absent */

/* An error as {"code","message","hint","file","line","column"} without the empty ones; and back. */
json_t *pk_json_of_error(const struct pk_error *err);
void pk_json_to_error(const json_t *json, struct pk_error *ret_err);

#endif
