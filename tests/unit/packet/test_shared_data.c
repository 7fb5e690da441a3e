/* SPDX-License-Identifier: Apache-2.0 */
/* Tests on other projects' data beside the repository; skipped where that is not there. */
#include "pk_test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "packet/community_id.h"

/* Every flow of the specification's own baseline, where the data is there. */
static void baseline(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        uint16_t seed;
    } files[] = { { "baseline_deflt.json", 0 }, { "baseline_seed1.json", 1 } };
    for (size_t f = 0; f < PK_ARRAY_SIZE(files); f++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/../shared/data/community-id/baseline/%s",
                 getenv("PICKET_SOURCE") ? getenv("PICKET_SOURCE") : ".", files[f].file);
        json_t *flows = json_load_file(path, 0, NULL);
        assert_non_null(flows);
        size_t i;
        json_t *flow;
        json_array_foreach(flows, i, flow)
        {
            struct pk_tuple tuple = {
                .proto = (uint8_t)json_integer_value(json_object_get(flow, "proto")),
                .src_port = (uint16_t)json_integer_value(json_object_get(flow, "sport")),
                .dst_port = (uint16_t)json_integer_value(json_object_get(flow, "dport")),
            };
            char id[PK_COMMUNITY_ID_SIZE];
            assert_true(pk_tuple_set_addresses(&tuple,
                                               json_string_value(json_object_get(flow, "saddr")),
                                               json_string_value(json_object_get(flow, "daddr"))));
            assert_string_equal(pk_community_id(&tuple, files[f].seed, id),
                                json_string_value(json_object_get(flow, "communityid")));
        }
        assert_true(i > 0);
        print_message("%zu flows of %s\n", i, files[f].file);
        json_decref(flows);
    }
}

int main(void)
{
    const char *source = getenv("PICKET_SOURCE");
    char path[4096];
    snprintf(path, sizeof path, "%s/../shared/data/README.md", source != NULL ? source : ".");
    if (access(path, R_OK) != 0) {
        printf("1..0 # SKIP no %s\n", path);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(baseline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
