/* SPDX-License-Identifier: Apache-2.0 */
#include "packet/flow.h"

#include <string.h>

#include "base/alloc.h"
#include "packet/decide.h"
#include "packet/fragment_memory.h"

struct pk_fragment_memory *pk_fragment_memory_new(void)
{
    return pk_zalloc(sizeof(struct pk_fragment_memory));
}

void pk_fragment_memory_free(struct pk_fragment_memory *memory)
{
    pk_free(memory);
}

static void parse(struct pk_parser *parser, const void *frame, size_t len, enum pk_hash_mode mode)
{
    size_t part = PK_MIN(len, PK_PARSE_WINDOW);
    memset(parser, 0, sizeof *parser);
    if (part > 0)
        memcpy(parser->window, frame, part);
    pk_parse(parser, (uint32_t)PK_MIN(len, UINT32_MAX / 2), mode);
}

void pk_flow_parse(const void *frame, size_t len, enum pk_hash_mode mode, struct pk_flow *ret_flow)
{
    struct pk_parser parser;
    parse(&parser, frame, len, mode);
    *ret_flow = parser.flow;
}

unsigned pk_flow_decide_slow(struct pk_fragment_memory *memory, const void *frame, size_t len,
                             enum pk_hash_mode mode, uint64_t seed, uint32_t *ret_hash)
{
    struct pk_parser parser;
    parse(&parser, frame, len, mode);
    return pk_decide(memory, &parser.flow, mode, seed, ret_hash);
}

unsigned pk_flow_decide(struct pk_fragment_memory *memory, const void *frame, size_t len,
                        enum pk_hash_mode mode, uint64_t seed, uint32_t *ret_hash)
{
    const uint8_t *p = frame;
    struct pk_flow flow;
    if (len >= 22 && pk_parse_plain(p, p + len, &flow)) {
        *ret_hash = pk_flow_hash(&flow, mode, seed);
        return PK_REASON_NONE;
    }
    return pk_flow_decide_slow(memory, frame, len, mode, seed, ret_hash);
}

static const char *const mode_names[PK_HASH_MODES] = { "outer", "flow", "addresses" };

const char *pk_hash_mode_name(enum pk_hash_mode mode)
{
    return mode_names[mode];
}

bool pk_hash_mode_parse(const char *name, enum pk_hash_mode *ret_mode)
{
    for (size_t i = 0; i < PK_HASH_MODES; i++) {
        if (strcmp(mode_names[i], name) != 0)
            continue;
        *ret_mode = (enum pk_hash_mode)i;
        return true;
    }
    return false;
}

static const struct {
    const char *name;
    const char *text;
} reasons[] = {
#define REASON_ROW(id, name, text) { name, text },
    PK_REASONS(REASON_ROW)
#undef REASON_ROW
};

const char *pk_reason_name(unsigned reason)
{
    return reason < PK_ARRAY_SIZE(reasons) ? reasons[reason].name : "";
}

const char *pk_reason_text(unsigned reason)
{
    return reason < PK_ARRAY_SIZE(reasons) ? reasons[reason].text : "";
}
