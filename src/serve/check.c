/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of what comes in with a request, each with an error that says what is accepted. */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "serve/internal.h"
#include "spec/spec.h"

static int check_name(const char *what, const char *text, struct pk_error *err)
{
    if (text != NULL && pk_str_is_name(text, PK_NAME_MAX))
        return 0;
    (void)pk_fail(err, PK_E_USAGE, "%.60s is not the name of a %s", text == NULL ? "" : text, what);
    return pk_hint(err, "names have lower-case letters, digits and '-', at most %u of them",
                   PK_NAME_MAX);
}

int pk_serve_name_param(const struct pk_http_request *request, const char *param,
                        const char **ret_name, struct pk_error *err)
{
    const char *text = pk_http_param(request, param);
    int r = check_name(param, text, err);
    if (r < 0)
        return r;
    *ret_name = text;
    return 0;
}

int pk_serve_fleet_param(const struct pk_http_request *request, const char **ret_fleet,
                         struct pk_error *err)
{
    return pk_serve_name_param(request, "fleet", ret_fleet, err);
}

static int check_number(const char *name, const char *text, uint64_t min, uint64_t max,
                        uint64_t *ret_value, struct pk_error *err)
{
    uint64_t value = 0;
    if (text == NULL || pk_parse_u64(text, &value, NULL) < 0 || value < min || value > max) {
        (void)pk_fail(err, PK_E_USAGE, "%s: '%.40s' is not accepted", name,
                      text == NULL ? "" : text);
        return pk_hint(err, "give a whole number from %llu to %llu", (unsigned long long)min,
                       (unsigned long long)max);
    }
    *ret_value = value;
    return 0;
}

int pk_serve_number_param(const struct pk_http_request *request, const char *param, uint64_t min,
                          uint64_t max, uint64_t *ret_value, struct pk_error *err)
{
    return check_number(param, pk_http_param(request, param), min, max, ret_value, err);
}

int pk_serve_number_query(const struct pk_http_request *request, const char *name, uint64_t min,
                          uint64_t max, uint64_t other, uint64_t *ret_value, struct pk_error *err)
{
    const char *text = pk_http_query(request, name);
    if (text != NULL)
        return check_number(name, text, min, max, ret_value, err);
    *ret_value = other;
    return 0;
}

int pk_serve_time_query(const struct pk_http_request *request, const char *name, pk_nsec now,
                        pk_nsec other, pk_nsec *ret_when, struct pk_error *err)
{
    const char *text = pk_http_query(request, name);
    if (text == NULL || text[0] == '\0') {
        *ret_when = other;
        return 0;
    }
    int r = pk_time_parse_user(text, now, ret_when, err);
    if (r < 0) {
        (void)pk_wrap(err, "%s", name);
        err->code = PK_E_USAGE; /* the request is wrong, not an input file */
        return PK_E_USAGE;
    }
    return 0;
}

int pk_serve_body_object(struct pk_http_request *request, const char *const *keys,
                         json_t **ret_object, struct pk_error *err)
{
    size_t len = 0;
    (void)pk_http_body(request, &len);
    PK_JSON body = NULL;
    if (len == 0) {
        body = json_object();
        if (body == NULL)
            return pk_no_memory(err);
    } else {
        int r = pk_http_body_json(request, &body, err);
        if (r < 0)
            return r;
    }
    if (!json_is_object(body)) {
        (void)pk_fail(err, PK_E_USAGE, "the body is not a JSON object");
        return pk_hint(err, "send an object: {...}");
    }
    size_t count = 0;
    while (keys[count] != NULL)
        count++;
    const char *key;
    json_t *value;
    json_object_foreach(body, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < count; i++)
            known = known || strcmp(keys[i], key) == 0;
        if (known)
            continue;
        (void)pk_fail(err, PK_E_USAGE, "the body has an unknown key '%.60s'", key);
        const char *near = pk_str_closest(key, keys, count);
        if (near != NULL)
            return pk_hint(err, "did you mean '%s'?", near);
        return pk_hint(err, "docs/api/openapi.json lists the keys of each call");
    }
    *ret_object = PK_TAKE(body);
    return 0;
}

int pk_serve_text_member(const json_t *object, const char *key, size_t max, const char **ret_text,
                         struct pk_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value)) {
        *ret_text = NULL;
        return 0;
    }
    const char *text = json_string_value(value);
    if (text == NULL || json_string_length(value) > max ||
        strlen(text) != json_string_length(value)) {
        (void)pk_fail(err, PK_E_USAGE, "'%s' must be text of at most %zu bytes", key, max);
        return pk_hint(err, "send {\"%s\": \"...\"}", key);
    }
    *ret_text = text;
    return 0;
}

int pk_serve_reply_errors(struct pk_http_request *request, const struct pk_errors *errors)
{
    PK_JSON list = json_array();
    for (size_t i = 0; i < errors->count; i++)
        if (list == NULL || json_array_append_new(list, pk_json_of_error(&errors->list[i])) < 0)
            return PK_E_NOMEM;
    json_t *answer = json_pack("{s:o,s:O,s:I}", "error", pk_json_of_error(&errors->list[0]),
                               "errors", list, "dropped", (json_int_t)errors->dropped);
    if (answer == NULL)
        return PK_E_NOMEM;
    return pk_http_reply_json_take(request, 422, answer);
}
