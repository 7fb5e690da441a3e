/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"

#define JSON_FILE_MAX ((size_t)64 << 20)

/* jansson's reader writes outside its buffer when that cannot grow (2.14, found by fuzz_json).
 * Ending is better than that; everywhere else in jansson a failed allocation is an error. */
static _Thread_local bool reading;

static void *json_alloc(size_t size)
{
    return reading ? pk_alloc_or_abort(size) : pk_realloc_array(NULL, size, 1);
}

/* Before main(): no JSON value may be made by one allocator and released by another. */
__attribute__((constructor)) static void use_our_allocator(void)
{
    json_set_alloc_funcs(json_alloc, pk_free);
}

static int raw_nul(const char *name, const char *text, struct pk_error *err)
{
    unsigned line = 1, col = 1;
    for (const char *p = text; *p != '\0'; p++) {
        col = *p == '\n' ? 1 : col + 1;
        line += *p == '\n' ? 1 : 0;
    }
    pk_fail(err, PK_E_INVALID, "not valid JSON: a NUL byte");
    pk_error_at(err, name, line, col);
    pk_hint(err, "save the file as UTF-8 text");
    return PK_E_INVALID;
}

int pk_json_parse(const char *name, const char *text, size_t len, json_t **ret_json,
                  struct pk_error *err)
{
    if (memchr(text, '\0', len) != NULL) /* jansson takes one at the end for the end */
        return raw_nul(name, text, err);
    json_error_t fault;
    reading = true;
    /* A NUL in a string is legal JSON and occurs in event logs: kept, C readers see the part
     * before. */
    json_t *json =
        json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &fault);
    if (json == NULL) {
        if (json_error_code(&fault) == json_error_out_of_memory)
            return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
        pk_fail(err, PK_E_INVALID, "not valid JSON: %s", fault.text);
        pk_error_at(err, name, fault.line > 0 ? (unsigned)fault.line : 1,
                    fault.column > 0 ? (unsigned)fault.column : 1);
        pk_hint(err, json_error_code(&fault) == json_error_duplicate_key
                         ? "remove one of the two members of that name"
                         : "correct the JSON at this position");
        return PK_E_INVALID;
    }
    *ret_json = json;
    return 0;
}

int pk_json_load(const char *path, json_t **ret_json, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    size_t len;
    int r = pk_file_read(path, JSON_FILE_MAX, &text, &len, err);
    if (r < 0)
        return r;
    return pk_json_parse(strcmp(path, "-") == 0 ? "standard input" : path, text, len, ret_json,
                         err);
}

char *pk_json_canonical(const json_t *json)
{
    return json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
}

char *pk_json_pretty(const json_t *json)
{
    return json_dumps(json, JSON_INDENT(2) | JSON_ENCODE_ANY);
}

char *pk_json_compact(const json_t *json)
{
    return json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
}

json_t *pk_json_at(const json_t *json, const char *path)
{
    const char *part = path;
    for (;;) {
        size_t len = strcspn(part, ".");
        char key[128];
        if (len >= sizeof(key))
            return NULL;
        memcpy(key, part, len);
        key[len] = '\0';
        json_t *member = json_object_get(json, key);
        if (member == NULL || part[len] == '\0')
            return member;
        json = member;
        part += len + 1;
    }
}

int pk_json_get_string(const json_t *json, const char *path, const char **ret_text,
                       struct pk_error *err)
{
    const json_t *value = pk_json_at(json, path);
    if (value == NULL)
        return pk_fail(err, PK_E_NOTFOUND, "'%s' is missing", path);
    if (!json_is_string(value))
        return pk_fail(err, PK_E_INVALID, "'%s' is not a string", path);
    *ret_text = json_string_value(value);
    return 0;
}

int pk_json_get_u64(const json_t *json, const char *path, uint64_t *ret_value, struct pk_error *err)
{
    const json_t *value = pk_json_at(json, path);
    if (value == NULL)
        return pk_fail(err, PK_E_NOTFOUND, "'%s' is missing", path);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return pk_fail(err, PK_E_INVALID, "'%s' is not a whole number from 0 on", path);
    *ret_value = (uint64_t)json_integer_value(value);
    return 0;
}

const char *pk_json_string_or(const json_t *json, const char *path, const char *other)
{
    const json_t *value = pk_json_at(json, path);
    return json_is_string(value) ? json_string_value(value) : other;
}

int64_t pk_json_int_or(const json_t *json, const char *path, int64_t other)
{
    const json_t *value = pk_json_at(json, path);
    return json_is_integer(value) ? json_integer_value(value) : other;
}

bool pk_json_bool_or(const json_t *json, const char *path, bool other)
{
    const json_t *value = pk_json_at(json, path);
    return json_is_boolean(value) ? json_is_true(value) : other;
}

/* Messages carry bytes from outside, perhaps cut in the middle of a character: what is not UTF-8
 * becomes '?', so that an error can always be sent. */
static json_t *lossy_string(const char *text)
{
    json_t *value = json_string(text);
    if (value != NULL)
        return value;
    PK_CLEANUP(pk_free_p) char *copy = pk_strdup(text);
    for (char *p = copy; p != NULL && *p != '\0'; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    return copy == NULL ? NULL : json_string(copy);
}

json_t *pk_json_of_error(const struct pk_error *err)
{
    PK_JSON json = json_object();
    int r = json_object_set_new(json, "code", json_string(pk_code_info(err->code)->name));
    r |= json_object_set_new(json, "message", lossy_string(err->msg));
    if (err->hint[0] != '\0')
        r |= json_object_set_new(json, "hint", lossy_string(err->hint));
    if (err->file[0] != '\0')
        r |= json_object_set_new(json, "file", lossy_string(err->file));
    if (err->line > 0)
        r |= json_object_set_new(json, "line", json_integer(err->line));
    if (err->col > 0)
        r |= json_object_set_new(json, "column", json_integer(err->col));
    return r == 0 ? PK_TAKE(json) : NULL;
}

static unsigned position(const json_t *json, const char *key)
{
    int64_t value = pk_json_int_or(json, key, 0);
    return value > 0 && value <= INT32_MAX ? (unsigned)value : 0;
}

void pk_json_to_error(const json_t *json, struct pk_error *ret_err)
{
    const struct pk_code_info *info = pk_code_info_by_name(pk_json_string_or(json, "code", ""));
    int code = info == NULL || info->code == PK_OK ? PK_E_INTERNAL : info->code;
    pk_fail(ret_err, code, "%s", pk_json_string_or(json, "message", "an error without a message"));
    pk_hint(ret_err, "%s", pk_json_string_or(json, "hint", ""));
    pk_error_at(ret_err, pk_json_string_or(json, "file", ""), position(json, "line"),
                position(json, "column"));
}
