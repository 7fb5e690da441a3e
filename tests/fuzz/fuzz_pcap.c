/* SPDX-License-Identifier: Apache-2.0 */
/* Capture files: the reader ends, stays within its bounds, and reads the same after going back. */
#include <stdio.h>
#include <string.h>

#include "fuzz.h"
#include "packet/pcap.h"

static uint64_t read_all(struct pk_pcap_reader *reader, int *ret_end)
{
    uint64_t sum = 0;
    struct pk_pcap_frame frame;
    struct pk_error err = { 0 };
    int r;
    while ((r = pk_pcap_next(reader, &frame, &err)) == 1) {
        FUZZ_CHECK(frame.len <= PK_PCAP_FRAME_MAX + 14 && frame.wire_len >= frame.len);
        FUZZ_CHECK(frame.time >= 0);
        sum = sum * 31 + frame.len + (uint64_t)frame.time;
        for (uint32_t i = 0; i < frame.len; i++)
            sum = sum * 31 + frame.data[i];
    }
    FUZZ_CHECK(r == 0 || (r == err.code && err.msg[0] != '\0' && err.hint[0] != '\0'));
    *ret_end = r;
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    FILE *file = fmemopen((void *)(uintptr_t)data, size, "rb");
    struct pk_pcap_reader *reader = NULL;
    struct pk_error err = { 0 };
    FUZZ_CHECK(file != NULL);
    int r = pk_pcap_open_file(file, "input", &reader, &err);
    if (r < 0) {
        FUZZ_CHECK(err.msg[0] != '\0' && err.hint[0] != '\0');
        return 0;
    }
    int end, again_end;
    uint64_t sum = read_all(reader, &end);
    FUZZ_CHECK(pk_pcap_rewind(reader, &err) == 0);
    FUZZ_CHECK(read_all(reader, &again_end) == sum && end == again_end);
    pk_pcap_close(reader);
    return 0;
}
