/* SPDX-License-Identifier: Apache-2.0 */
/* Rendering for tests: partials come from a JSON object, and the contract of the result is checked.
 */
#ifndef PICKET_TESTS_MUSTACHE_TEST_H
#define PICKET_TESTS_MUSTACHE_TEST_H

#include <string.h>

#include "pk_test.h"

#include "base/json.h"
#include "catalog/catalog.h"

static inline int partial_of_json(void *arg, const char *name, const char **ret_text,
                                  size_t *ret_len)
{
    const json_t *partial = json_object_get(arg, name);
    if (partial == NULL)
        return PK_E_NOTFOUND;
    *ret_text = json_string_value(partial);
    *ret_len = json_string_length(partial);
    return 0;
}

static inline char *render(const char *text, const json_t *data, json_t *partials, bool escape,
                           struct pk_error *err)
{
    char *out = NULL;
    size_t len;
    int r = pk_mustache_render("t", text, strlen(text), data, partial_of_json, partials, escape,
                               &out, &len, err);
    assert_true((r == 0) == (out != NULL));
    assert_true(r == 0 || err->msg[0] != '\0');
    if (out != NULL)
        assert_int_equal(strlen(out), len);
    return out;
}

#endif
