/* SPDX-License-Identifier: Apache-2.0 */
/* A query's text: an error with a position, or SQL in which no byte of the text is seen. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "store/query.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pk_query query;
    struct pk_error err = { 0 };
    char *text = pk_strndup((const char *)data, size);

    if (text == NULL)
        return 0;
    if (pk_query_parse(text, 0, &query, &err) == 0) {
        /* Everything but our own words and $n comes from the table of columns. */
        for (const char *c = query.where; *c != '\0'; c++)
            if ((unsigned char)*c >= 0x80 || *c == ';' || *c == '-')
                abort();
        pk_query_done(&query);
    } else if (err.code != PK_E_USAGE || err.hint[0] == '\0') {
        abort();
    }
    pk_free(text);
    return 0;
}
