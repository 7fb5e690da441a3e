/* SPDX-License-Identifier: Apache-2.0 */
/* A line of a tool's log (EVE and Zeek JSON): the scanner agrees with jansson, and what becomes of
 * it is a row that the wire takes and gives back. */
#include "fuzz.h"

#include "base/wire.h"
#include "scan_check.h"
#include "ship/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pk_records *records;
    struct pk_value values[PK_EVENT_COLUMNS_MAX];
    static struct pk_wire_reader reader;
    const char *text = (const char *)data;

    if (size > PK_LINE_MAX || memchr(data, '\n', size) != NULL)
        return 0;
    if (records == NULL && pk_records_new(&records, NULL) < 0)
        abort();
    if (!scan_agrees(text, size))
        abort();
    for (int format = PK_LOG_EVE; format <= PK_LOG_ZEEK_JSON; format++) {
        struct pk_buf buf = PK_BUF_INIT(PK_WIRE_MAX);
        const struct pk_batch batch = { .session = "s", .source = "x", .to = 1 };
        bool valid = pk_records_parse(records, format, "conn", 1, text, size, values);
        if (!valid && pk_records_split(records, format, text, size) >= size && size > 0)
            abort();
        if (pk_wire_begin(&buf, &batch, NULL) < 0 || pk_wire_add(&buf, values, NULL) < 0 ||
            pk_wire_open(&reader, buf.data, buf.len, NULL) < 0 ||
            pk_wire_next(&reader, values, NULL) != 1 || pk_wire_next(&reader, values, NULL) != 0)
            abort();
        pk_buf_done(&buf);
    }
    return 0;
}
