/* SPDX-License-Identifier: Apache-2.0 */
/* A name and a flow out of a tool's log: what is taken for a canary is one, byte by byte. */
#include "fuzz.h"

#include <string.h>

#include "base/canary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct pk_canary_token token = { { 1, 2, 3, 4 } };
    const char *text = (const char *)data;
    struct pk_canary canary;
    uint64_t number = 0;

    if (pk_canary_is_name(&token, "g", 0, text, size, &number)) {
        pk_canary_make(&token, "g", 0, number, &canary);
        FUZZ_CHECK(strlen(canary.name) == size && memcmp(canary.name, text, size) == 0);
    }
    if (size < 12)
        return 0;
    const struct pk_canary_flow flow = { .source = data,
                                         .target = data + 4,
                                         .source_port = (uint64_t)(data[8] << 8 | data[9]),
                                         .target_port = (uint64_t)(data[10] << 8 | data[11]) };
    if (pk_canary_is_flow(&token, &flow))
        FUZZ_CHECK(pk_canary_may_be(data, data + 4) &&
                   (flow.source_port == PK_CANARY_PORT || flow.target_port == PK_CANARY_PORT));
    /* A number's canary is always known again. */
    memcpy(&number, data, sizeof number);
    number &= INT64_MAX;
    pk_canary_make(&token, "g", 0, number, &canary);
    uint64_t again = 0;
    const struct pk_canary_flow own = { canary.server, canary.client, PK_CANARY_PORT, canary.port };
    FUZZ_CHECK(pk_canary_is_name(&token, "g", 0, canary.name, strlen(canary.name), &again));
    FUZZ_CHECK(again == number && pk_canary_is_flow(&token, &own));
    return 0;
}
