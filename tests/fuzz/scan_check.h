/* SPDX-License-Identifier: Apache-2.0 */
/* Holds ship's scanner to jansson: the same texts are records, the same values are found. Shared by
 * the unit test and the fuzz target. */
#ifndef PICKET_TESTS_SCAN_CHECK_H
#define PICKET_TESTS_SCAN_CHECK_H

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/event.h"
#include "ship/scan.h"

/* jansson's value at one path, following our rule for lists and dots. */
static inline const json_t *scan_at(const json_t *json, const char *path, size_t len, bool literal)
{
    char key[128];

    while (json != NULL) {
        const char *dot = literal ? NULL : memchr(path, '.', len);
        size_t part = dot != NULL ? (size_t)(dot - path) : len;
        memcpy(key, path, part);
        key[part] = '\0';
        if (json_is_array(json))
            json = key[0] >= '0' && key[0] <= '9' ? json_array_get(json, (size_t)atoi(key)) : NULL;
        else
            json = json_object_get(json, key);
        if (dot == NULL)
            return json;
        path += part + 1;
        len -= part + 1;
    }
    return NULL;
}

static inline bool scan_same(const struct pk_scan_value *found, const json_t *want)
{
    char *text;
    bool same;

    switch (found->type) {
    case PK_SCAN_ABSENT:
        return want == NULL || json_is_null(want) || json_is_object(want) || json_is_array(want);
    case PK_SCAN_TRUE:
        return json_is_true(want);
    case PK_SCAN_FALSE:
        return json_is_false(want);
    case PK_SCAN_INTEGER:
    case PK_SCAN_REAL:
        text = strndup(found->at, found->len);
        same = found->type == PK_SCAN_INTEGER
                   ? json_is_integer(want) && strtoll(text, NULL, 10) == json_integer_value(want)
                   : json_is_real(want) && !(strtod(text, NULL) < json_real_value(want)) &&
                         !(strtod(text, NULL) > json_real_value(want));
        free(text);
        return same;
    case PK_SCAN_STRING:
        break;
    }
    text = malloc(found->len + 1);
    size_t len = pk_scan_text(found, text);
    same = json_is_string(want) && json_string_length(want) == len &&
           memcmp(json_string_value(want), text, len) == 0;
    free(text);
    return same;
}

static inline const json_t *scan_first(const json_t *json, const char *paths, bool literal)
{
    while (paths != NULL) {
        const char *end = strchrnul(paths, '|');
        const json_t *at = scan_at(json, paths, (size_t)(end - paths), literal);
        if (at != NULL && !json_is_null(at) && !json_is_object(at) && !json_is_array(at))
            return at;
        paths = *end != '\0' ? end + 1 : NULL;
    }
    return NULL;
}

static inline bool scan_agrees_as(const char *text, size_t len, bool zeek)
{
    struct pk_scan_value values[PK_SCAN_SLOTS_MAX];
    struct pk_scan *scan = NULL;
    json_error_t error;
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);
    bool same;

    if (pk_scan_new(&scan, NULL) < 0)
        abort();
    for (unsigned i = 0; i < count; i++)
        if (pk_scan_add(scan, i, zeek ? columns[i].zeek : columns[i].eve, zeek, NULL) < 0)
            abort();
    bool valid = pk_scan_record(scan, text, len, values);
    json_t *json = json_loadb(text, len, JSON_ALLOW_NUL, &error);
    json_t *strict = json_loadb(text, len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
    if (memchr(text, 0, len) != NULL) {
        same = !valid; /* jansson overlooks a NUL that follows a number */
    } else if (json == NULL) {
        /* Numbers beyond double and int64 are JSON all the same; and how deep is a limit of taste.
         */
        enum json_error_code code = json_error_code(&error);
        same = !valid || code == json_error_numeric_overflow || code == json_error_stack_overflow;
    } else if (!json_is_object(json)) {
        same = !valid;
    } else {
        same = valid;
        for (size_t i = 0; same && strict != NULL && i < count; i++)
            same = scan_same(&values[i],
                             scan_first(json, zeek ? columns[i].zeek : columns[i].eve, zeek));
    }
    json_decref(json);
    json_decref(strict);
    pk_scan_free(scan);
    return same;
}

static inline bool scan_agrees(const char *text, size_t len)
{
    return scan_agrees_as(text, len, false) && scan_agrees_as(text, len, true);
}

#endif
