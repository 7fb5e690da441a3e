/* SPDX-License-Identifier: Apache-2.0 */
/* JSON: what is read prints and reads back as the same value; the typed getters never fail badly.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "fuzz.h"

static void check_round_trip(const json_t *json, char *text_take)
{
    FUZZ_CHECK(text_take != NULL);
    json_t *again = NULL;
    FUZZ_CHECK(pk_json_parse("again", text_take, strlen(text_take), &again, NULL) == 0);
    FUZZ_CHECK(json_equal(json, again));
    json_decref(again);
    pk_free(text_take);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = NULL;
    struct pk_error err = { 0 };
    int r = pk_json_parse("input", (const char *)data, size, &json, &err);
    FUZZ_CHECK((r == 0) == (json != NULL));
    if (r < 0) {
        FUZZ_CHECK(err.line > 0 && err.col > 0 && err.msg[0] != '\0' && err.hint[0] != '\0');
    } else {
        check_round_trip(json, pk_json_compact(json));
        check_round_trip(json, pk_json_canonical(json));
        check_round_trip(json, pk_json_pretty(json));
        struct pk_error back;
        pk_json_to_error(json, &back);
        json_t *told = pk_json_of_error(&back);
        FUZZ_CHECK(told != NULL);
        json_decref(told);
        uint64_t number;
        const char *text;
        (void)pk_json_get_u64(json, "a.b", &number, &err);
        (void)pk_json_get_string(json, "a", &text, &err);
        json_decref(json);
    }
    json = NULL;
    pk_alloc_fail_nth(size % 32 + 1);
    r = pk_json_parse("input", (const char *)data, size, &json, NULL);
    pk_alloc_fail_nth(0);
    FUZZ_CHECK((r == 0) == (json != NULL));
    json_decref(json);
    return 0;
}
