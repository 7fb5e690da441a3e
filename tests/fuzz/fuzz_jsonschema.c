/* SPDX-License-Identifier: Apache-2.0 */
/* JSON Schema: the input is [schema, value]. Also every string in it as a pattern on every other.
 */
#include <string.h>

#include "base/alloc.h"
#include "catalog/catalog.h"
#include "fuzz.h"
#include "spec/pattern.h"

struct seen {
    unsigned faults;
};

static void on_fault(void *arg, const char *pointer, const char *message, const char *hint)
{
    struct seen *seen = arg;
    FUZZ_CHECK(pointer[0] == '\0' || pointer[0] == '/');
    FUZZ_CHECK(message[0] != '\0' && hint != NULL);
    seen->faults++;
}

static void check_pattern(const char *pattern, const json_t *texts)
{
    struct pk_error err = { 0 };
    int r = pk_pattern_check(pattern, &err);
    FUZZ_CHECK(r == 0 || r == PK_E_INVALID || r == PK_E_UNSUPPORTED);
    FUZZ_CHECK(r == 0 || err.msg[0] != '\0');
    size_t i;
    json_t *text;
    json_array_foreach(texts, i, text)
    {
        bool match = false;
        if (r == 0 && json_is_string(text) && json_string_length(text) < 1000)
            FUZZ_CHECK(pk_pattern_match(pattern, json_string_value(text), json_string_length(text),
                                        &match, NULL) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *input = size < 20000 ? json_loadb((const char *)data, size, 0, NULL) : NULL;
    const json_t *schema = json_array_get(input, 0);
    json_t *value = json_array_get(input, 1);
    struct pk_error err = { 0 };
    if (schema != NULL && value != NULL && pk_jsonschema_check(schema, &err) == 0) {
        struct seen seen = { 0 };
        int r = pk_jsonschema_validate(schema, value, on_fault, &seen, &err);
        FUZZ_CHECK(r == 0 || r == PK_E_INVALID);
        FUZZ_CHECK(r == 0 || err.msg[0] != '\0');
        FUZZ_CHECK(pk_jsonschema_validate(schema, value, NULL, NULL, &err) == r);
        r = pk_jsonschema_fill_defaults(schema, value, &err);
        FUZZ_CHECK(r == 0 || r == PK_E_INVALID);
    } else if (schema != NULL) {
        FUZZ_CHECK(value == NULL || err.msg[0] != '\0');
    }
    size_t i;
    json_t *text;
    json_array_foreach(input, i, text)
    {
        if (json_is_string(text))
            check_pattern(json_string_value(text), input);
    }
    json_decref(input);
    return 0;
}
