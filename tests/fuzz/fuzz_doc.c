/* SPDX-License-Identifier: Apache-2.0 */
/* YAML: faults have positions; what is read prints as YAML that reads back as the same value. */
#include <string.h>

#include "base/alloc.h"
#include "base/doc.h"
#include "fuzz.h"

static void check_round_trip(const struct pk_node *root)
{
    json_t *json = pk_node_to_json(root);
    FUZZ_CHECK(json != NULL);
    char *yaml = pk_yaml_of_json(json);
    FUZZ_CHECK(yaml != NULL);
    struct pk_doc *again = NULL;
    struct pk_error err = { 0 };
    int r = pk_doc_parse("again", yaml, strlen(yaml), &again, &err);
    /* Escapes and indentation may make it larger than what may be read. */
    bool too_large = strlen(yaml) > PK_DOC_MAX_BYTES;
    if (r < 0 && !too_large)
        (void)fprintf(stderr, "%u:%u: %s\n%s", err.line, err.col, err.msg, yaml);
    FUZZ_CHECK(r == 0 || too_large);
    if (r == 0) {
        json_t *value = pk_node_to_json(pk_doc_root(again));
        if (!json_equal(json, value))
            (void)fprintf(stderr, "%s", yaml);
        FUZZ_CHECK(json_equal(json, value));
        json_decref(value);
    }
    pk_doc_free(again);
    pk_free(yaml);
    json_decref(json);
}

static void check_positions(const struct pk_node *node, unsigned depth)
{
    FUZZ_CHECK(node->line > 0 && node->col > 0 && depth <= PK_DOC_MAX_DEPTH + 1);
    FUZZ_CHECK(node->key == NULL || node->key_line > 0);
    for (size_t i = 0; i < node->count; i++)
        check_positions(node->items[i], depth + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pk_doc *doc = NULL;
    struct pk_error err = { 0 };
    int r = pk_doc_parse("input", (const char *)data, size, &doc, &err);
    FUZZ_CHECK((r == 0) == (doc != NULL));
    if (r < 0) {
        FUZZ_CHECK(err.code == PK_E_INVALID && err.line > 0 && err.col > 0 && err.hint[0] != '\0');
    } else {
        check_positions(pk_doc_root(doc), 0);
        (void)pk_node_resolve(pk_doc_root(doc), "/a/0/b~1c");
        check_round_trip(pk_doc_root(doc));
        pk_doc_free(doc);
    }
    doc = NULL;
    pk_alloc_fail_nth(size % 32 + 1);
    r = pk_doc_parse("input", (const char *)data, size, &doc, NULL);
    pk_alloc_fail_nth(0);
    FUZZ_CHECK((r == 0) == (doc != NULL));
    pk_doc_free(doc);
    return 0;
}
