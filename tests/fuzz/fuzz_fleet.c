/* SPDX-License-Identifier: Apache-2.0 */
/* Fleets: a fleet or faults with places; what is printed reads back as the same; our JSON Schema
 * takes every good one. */
#include <string.h>

#include "base/alloc.h"
#include "catalog/catalog.h"
#include "fuzz.h"
#include "spec/spec.h"

static void check_good(const struct pk_fleet_spec *fleet, bool defaults)
{
    static json_t *schema;
    if (schema == NULL)
        schema = pk_spec_json_schema();
    json_t *json = pk_spec_to_json(fleet, defaults);
    FUZZ_CHECK(json != NULL);
    if (pk_jsonschema_validate(schema, json, NULL, NULL, NULL) < 0)
        (void)json_dumpf(json, stderr, JSON_INDENT(1));
    FUZZ_CHECK(pk_jsonschema_validate(schema, json, NULL, NULL, NULL) == 0);
    json_decref(json);

    char *once = pk_spec_to_yaml(fleet, defaults);
    FUZZ_CHECK(once != NULL);
    struct pk_fleet_spec *again = NULL;
    struct pk_errors errors = { 0 };
    int r = pk_spec_parse("again", once, strlen(once), &again, &errors);
    if (r < 0 && strlen(once) <= PK_DOC_MAX_BYTES) {
        (void)fprintf(stderr, "%s\n%s", errors.list[0].msg, once);
        FUZZ_CHECK(r == 0);
    }
    if (r == 0) {
        char *twice = pk_spec_to_yaml(again, defaults);
        FUZZ_CHECK(twice != NULL && strcmp(once, twice) == 0);
        pk_free(twice);
    }
    pk_spec_free(again);
    pk_errors_done(&errors);
    pk_free(once);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pk_fleet_spec *fleet = NULL;
    struct pk_errors errors = { 0 };
    int r = pk_spec_parse("input", (const char *)data, size, &fleet, &errors);
    FUZZ_CHECK((r == 0) == (fleet != NULL) && (r == 0) == (errors.count == 0));
    for (size_t i = 0; i < errors.count; i++) {
        const struct pk_error *err = &errors.list[i];
        FUZZ_CHECK(err->code == PK_E_INVALID && err->line > 0 && err->col > 0);
        FUZZ_CHECK(err->msg[0] != '\0' && err->hint[0] != '\0');
        FUZZ_CHECK(i == 0 || errors.list[i - 1].line <= err->line);
    }
    if (fleet != NULL) {
        check_good(fleet, false);
        check_good(fleet, true);
    }
    pk_spec_free(fleet);
    pk_errors_done(&errors);

    fleet = NULL;
    pk_alloc_fail_nth(size % 64 + 1);
    r = pk_spec_parse("input", (const char *)data, size, &fleet, &errors);
    pk_alloc_fail_nth(0);
    FUZZ_CHECK((r == 0) == (fleet != NULL));
    pk_spec_free(fleet);
    pk_errors_done(&errors);
    return 0;
}
