/* SPDX-License-Identifier: Apache-2.0 */
/* A batch from somebody who is not ship: refused or read within its bounds. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pk_wire_reader reader;
    struct pk_value values[PK_EVENT_COLUMNS_MAX];
    unsigned char *copy = malloc(size + 1);

    if (copy == NULL)
        return 0;
    memcpy(copy, data, size);
    if (size >= 16) { /* the column table changes; the rest of the corpus should not */
        uint64_t hash = pk_event_columns_hash();
        memcpy(copy + 8, &hash, sizeof(hash));
    }
    if (pk_wire_open(&reader, copy, size, NULL) == 0)
        while (pk_wire_next(&reader, values, NULL) > 0)
            continue;
    free(copy);
    return 0;
}
