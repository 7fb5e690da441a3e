/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters: text of any kind compiles or is refused with a hint; and what is emitted for the BPF
 * path, of text or of any instructions that are accepted, does what the interpreter does, without
 * an access or jump that the kernel would not allow.
 *
 * Input: 0, text, 0, frame; or 1, number of instructions, instructions of 8 bytes, frame.
 */
#include <string.h>

#include "../unit/broker/ebpf.h"
#include "broker/bpf/filter.h"
#include "broker/filter.h"
#include "fuzz.h"
#include "packet/parse.h"

#define TEXT_MAX 200 /* libpcap takes seconds for much longer ones */

static void compare(const struct pk_filter *filter, const uint8_t *frame, size_t len)
{
    static struct pk_parser parser;
    struct pk_filter_use use = { .filter = filter, .name = "fuzz", .channel = 1 };
    struct pk_filter_code code;
    struct pk_error err = { 0 };
    if (pk_filter_emit(&use, 1, PK_FILTER_ROOM, &code, &err) < 0) {
        FUZZ_CHECK(err.code == PK_E_NOSPACE && err.hint[0] != '\0');
        return;
    }
    memset(parser.window, 0x5a, sizeof parser.window);
    memcpy(parser.window, frame, PK_MIN(len, PK_PARSE_WINDOW));
    pk_parse(&parser, (uint32_t)len, PK_HASH_FLOW);
    uint64_t mask = 0;
    const char *why = "";
    FUZZ_CHECK(ebpf_all_reached(code.insns, code.count));
    FUZZ_CHECK(ebpf_run(code.insns, code.count, &parser, sizeof parser, len, 1, &mask, &why));
    FUZZ_CHECK((mask & 1) == pk_filter_match(filter, frame, len, &parser.flow));
    FUZZ_CHECK((mask | 1) == UINT64_MAX);
    pk_filter_code_done(&code);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pk_error err = { 0 };
    PK_CLEANUP(pk_filter_free_p) struct pk_filter *filter = NULL;
    if (size < 2)
        return 0;
    bool is_text = data[0] % 2 == 0;
    data++;
    size--;
    int r;
    if (is_text) {
        char text[TEXT_MAX + 1] = "";
        size_t len = strnlen((const char *)data, PK_MIN(size, TEXT_MAX));
        memcpy(text, data, len);
        data += PK_MIN(len + 1, size);
        size -= PK_MIN(len + 1, size);
        struct pk_filter_fault fault = { 0 };
        json_t *value = json_string(text);
        if (value != NULL && text[0] == '{') {
            json_decref(value);
            value = json_loads(text, 0, NULL);
        }
        if (value == NULL)
            return 0;
        r = pk_filter_compile(value, &filter, &fault, &err);
        json_decref(value);
        FUZZ_CHECK(r >= 0 || (r == PK_E_INVALID && err.hint[0] != '\0'));
        FUZZ_CHECK(r >= 0 || fault.column <= len + 1);
    } else {
        struct pk_filter_op ops[255];
        size_t count = PK_MIN((size_t)data[0], (size - 1) / sizeof ops[0]);
        memcpy(ops, data + 1, count * sizeof ops[0]);
        data += 1 + count * sizeof ops[0];
        size -= 1 + count * sizeof ops[0];
        r = pk_filter_compile_ops(ops, count, "fuzz", &filter, &err);
    }
    if (r >= 0)
        compare(filter, data, size);
    return 0;
}
