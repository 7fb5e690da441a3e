/* SPDX-License-Identifier: Apache-2.0 */
/* Templates: text or a fault with a place, and the same each time. The input is the template and
 * its own partial "p". */
#include <string.h>

#include "base/alloc.h"
#include "catalog/catalog.h"
#include "fuzz.h"

static const char *self;
static size_t self_len;

static int partial(void *arg, const char *name, const char **ret_text, size_t *ret_len)
{
    (void)arg;
    if (strcmp(name, "p") != 0)
        return strcmp(name, "q") == 0 ? PK_E_INVALID : PK_E_NOTFOUND;
    *ret_text = self;
    *ret_len = self_len;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static json_t *context;
    if (context == NULL)
        context =
            json_loads("{\"a\": \"<x>&\\\"\", \"b\": [1, 2.5, {\"c\": true}], \"n\": null,"
                       "\"m\": {\"k\": {\"v\": \"deep\"}}, \"e\": [], \"7\": true, \"s\": \"\"}",
                       0, NULL);
    FUZZ_CHECK(context != NULL);
    if (size > 4096) /* the partial may be rendered very often: that is bounded, but slow */
        return 0;
    self = (const char *)data;
    self_len = size;
    for (int escape = 0; escape < 2; escape++) {
        char *one = NULL, *two = NULL;
        size_t one_len = 0, two_len = 0;
        struct pk_error err = { 0 };
        int r = pk_mustache_render("t", self, size, context, partial, NULL, escape != 0, &one,
                                   &one_len, &err);
        FUZZ_CHECK((r == 0) == (one != NULL));
        FUZZ_CHECK(r == 0 || (r == PK_E_INVALID && err.line > 0 && err.hint[0] != '\0') ||
                   r == PK_E_NOSPACE);
        int again = pk_mustache_render("t", self, size, context, partial, NULL, escape != 0, &two,
                                       &two_len, NULL);
        FUZZ_CHECK(again == r && one_len == two_len);
        FUZZ_CHECK(one == NULL || memcmp(one, two, one_len) == 0);
        pk_free(one);
        pk_free(two);
    }
    return 0;
}
