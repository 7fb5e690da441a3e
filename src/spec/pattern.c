/* SPDX-License-Identifier: Apache-2.0 */
/* Pattern -> small program -> Pike's simulation of it over the text's code points. */
#include "spec/pattern.h"

#include <string.h>

#include "base/alloc.h"

#define PATTERN_MAX 1000u /* bytes: bounds the recursion too */
#define PROGRAM_MAX 4000u /* instructions */
#define RANGES_MAX  4000u
#define EMIT_MAX    50000u /* steps of the code generator: bounds nested empty repeats */
#define DEPTH_MAX   64u
#define REPEAT_MAX  1000u
#define RUNE_MAX    0x10ffffu

enum op { OP_SET, OP_SPLIT, OP_JUMP, OP_START, OP_END, OP_WORD, OP_NOT_WORD, OP_MATCH };

struct inst {
    enum op op;
    bool negated;  /* OP_SET */
    unsigned x, y; /* OP_SET: first range and their number; OP_SPLIT, OP_JUMP: targets */
};
struct range {
    uint32_t low, high;
};

enum node_kind { NODE_EMPTY, NODE_INST, NODE_SEQUENCE, NODE_EITHER, NODE_REPEAT };

struct node {
    enum node_kind kind;
    struct inst inst;     /* NODE_INST */
    unsigned left, right; /* nodes */
    unsigned min, max;    /* NODE_REPEAT of left */
    bool endless;
};

struct compiler {
    const char *pattern, *at;
    struct node *nodes; /* of a pattern of n bytes: less than 2n + 2 */
    struct inst *program;
    struct range *ranges;
    unsigned node_count, length, range_count, steps, depth;
    struct pk_error *err;
};

static const struct range digits[] = { { '0', '9' } };
static const struct range words[] = { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } };
static const struct range spaces[] = { { 9, 13 },          { ' ', ' ' },       { 0xa0, 0xa0 },
                                       { 0x1680, 0x1680 }, { 0x2000, 0x200a }, { 0x2028, 0x2029 },
                                       { 0x202f, 0x202f }, { 0x205f, 0x205f }, { 0x3000, 0x3000 },
                                       { 0xfeff, 0xfeff } };
static const struct range newlines[] = { { '\n', '\n' }, { '\r', '\r' }, { 0x2028, 0x2029 } };

static int bad(struct compiler *c, int code, const char *what)
{
    return pk_fail(c->err, code, "pattern: %s at offset %zu", what, (size_t)(c->at - c->pattern));
}

/* One code point; a broken sequence yields its first byte as 0xfffd, so that any text has a
 * reading. */
static uint32_t next_rune(const char **at, const char *end)
{
    const unsigned char *p = (const unsigned char *)*at;
    size_t left = (size_t)(end - *at), need = 0;
    uint32_t rune = p[0];
    if (rune < 0x80) {
        (*at)++;
        return rune;
    }
    if (rune >= 0xc2 && rune <= 0xdf)
        need = 1, rune &= 0x1f;
    else if (rune >= 0xe0 && rune <= 0xef)
        need = 2, rune &= 0x0f;
    else if (rune >= 0xf0 && rune <= 0xf4)
        need = 3, rune &= 0x07;
    if (need == 0 || need >= left)
        goto broken;
    for (size_t i = 1; i <= need; i++) {
        if ((p[i] & 0xc0) != 0x80)
            goto broken;
        rune = rune << 6 | (p[i] & 0x3f);
    }
    *at += need + 1;
    return rune;
broken:
    (*at)++;
    return 0xfffd;
}

static unsigned new_node(struct compiler *c, struct node node)
{
    c->nodes[c->node_count] = node;
    return c->node_count++;
}

static unsigned new_inst(struct compiler *c, enum op op, unsigned x, unsigned y)
{
    return new_node(c, (struct node){ .kind = NODE_INST, .inst = { .op = op, .x = x, .y = y } });
}

static int add_range(struct compiler *c, uint32_t low, uint32_t high)
{
    if (c->range_count == RANGES_MAX)
        return bad(c, PK_E_INVALID, "too large");
    c->ranges[c->range_count++] = (struct range){ low, high };
    return 0;
}

static int add_ranges(struct compiler *c, const struct range *list, size_t count, bool negated)
{
    uint32_t from = 0;
    int r = 0;
    for (size_t i = 0; i < count && r == 0; i++) {
        if (!negated)
            r = add_range(c, list[i].low, list[i].high);
        else if (list[i].low > from)
            r = add_range(c, from, list[i].low - 1);
        from = list[i].high + 1;
    }
    if (r == 0 && negated)
        r = add_range(c, from, RUNE_MAX);
    return r;
}

static int hex_escape(struct compiler *c, unsigned count, uint32_t *ret_rune)
{
    uint32_t rune = 0;
    for (unsigned i = 0; i < count; i++, c->at++) {
        char h = *c->at;
        if (h >= '0' && h <= '9')
            rune = rune << 4 | (uint32_t)(h - '0');
        else if ((h | 32) >= 'a' && (h | 32) <= 'f')
            rune = rune << 4 | (uint32_t)((h | 32) - 'a' + 10);
        else
            return bad(c, PK_E_INVALID, "bad hexadecimal escape");
    }
    *ret_rune = rune;
    return 0;
}

/* After a backslash. *ret_rune is the code point meant; a class escape adds its ranges and sets
 * *ret_class. */
static int escape(struct compiler *c, uint32_t *ret_rune, bool *ret_class)
{
    char e = *c->at;
    *ret_class = true;
    switch (e) {
    case 'd':
    case 'D':
        c->at++;
        return add_ranges(c, digits, PK_ARRAY_SIZE(digits), e == 'D');
    case 'w':
    case 'W':
        c->at++;
        return add_ranges(c, words, PK_ARRAY_SIZE(words), e == 'W');
    case 's':
    case 'S':
        c->at++;
        return add_ranges(c, spaces, PK_ARRAY_SIZE(spaces), e == 'S');
    default:
        break;
    }
    *ret_class = false;
    static const char names[] = "tnrfv0", values[] = "\t\n\r\f\v\0";
    const char *known = e != '\0' ? strchr(names, e) : NULL;
    if (known != NULL && !(e == '0' && c->at[1] >= '0' && c->at[1] <= '9')) {
        *ret_rune = (unsigned char)values[known - names];
        c->at++;
        return 0;
    }
    if (e == 'x' || e == 'u') {
        c->at++;
        return hex_escape(c, e == 'x' ? 2 : 4, ret_rune);
    }
    if (e == 'c' && (c->at[1] | 32) >= 'a' && (c->at[1] | 32) <= 'z') {
        *ret_rune = (uint32_t)(c->at[1] & 31);
        c->at += 2;
        return 0;
    }
    if (e == 'p' || e == 'P')
        return bad(c, PK_E_UNSUPPORTED, "\\p{...} is not supported");
    if (e >= '0' && e <= '9')
        return bad(c, PK_E_UNSUPPORTED, "back references are not supported");
    if (e == '\0' || strchr("^$\\.*+?()[]{}|/-", e) == NULL)
        return bad(c, PK_E_INVALID, "unknown escape");
    *ret_rune = (unsigned char)e;
    c->at++;
    return 0;
}

static int set_member(struct compiler *c, uint32_t *ret_rune, bool *ret_class)
{
    *ret_class = false;
    if (*c->at == '\\') {
        c->at++;
        if (*c->at == 'b') {
            c->at++;
            *ret_rune = '\b';
            return 0;
        }
        return escape(c, ret_rune, ret_class);
    }
    *ret_rune = next_rune(&c->at, c->at + strlen(c->at));
    return 0;
}

static int char_class(struct compiler *c, unsigned *ret_node)
{
    unsigned first = c->range_count;
    bool negated = *c->at == '^';
    if (negated)
        c->at++;
    while (*c->at != ']') {
        uint32_t low = 0, high = 0;
        bool class_low, class_high;
        if (*c->at == '\0')
            return bad(c, PK_E_INVALID, "'[' without ']'");
        int r = set_member(c, &low, &class_low);
        if (r < 0)
            return r;
        high = low;
        if (c->at[0] == '-' && c->at[1] != ']' && c->at[1] != '\0') {
            c->at++;
            r = set_member(c, &high, &class_high);
            if (r < 0)
                return r;
            if (class_low || class_high)
                return bad(c, PK_E_INVALID, "a class escape cannot bound a range");
            if (high < low)
                return bad(c, PK_E_INVALID, "range out of order");
        }
        if (!class_low && (r = add_range(c, low, high)) < 0)
            return r;
    }
    c->at++;
    *ret_node = new_inst(c, OP_SET, first, c->range_count - first);
    c->nodes[*ret_node].inst.negated = negated;
    return 0;
}

static int alternatives(struct compiler *c, unsigned *ret_node);

static int atom(struct compiler *c, unsigned *ret_node)
{
    unsigned first = c->range_count;
    uint32_t rune = 0;
    bool is_class = false;
    int r;
    switch (*c->at) {
    case '(':
        c->at++;
        if (c->at[0] == '?') {
            if (c->at[1] != ':')
                return bad(c, PK_E_UNSUPPORTED, "look-around and named groups are not supported");
            c->at += 2;
        }
        if (++c->depth > DEPTH_MAX)
            return bad(c, PK_E_INVALID, "nested too deeply");
        r = alternatives(c, ret_node);
        if (r < 0)
            return r;
        c->depth--;
        if (*c->at != ')')
            return bad(c, PK_E_INVALID, "'(' without ')'");
        c->at++;
        return 0;
    case '[':
        c->at++;
        return char_class(c, ret_node);
    case '.':
        c->at++;
        r = add_ranges(c, newlines, PK_ARRAY_SIZE(newlines), true);
        break;
    case '*':
    case '+':
    case '?':
    case '{':
        return bad(c, PK_E_INVALID, "nothing to repeat");
    case ']':
    case '}':
        return bad(c, PK_E_INVALID, "unmatched bracket");
    case '\\':
        c->at++;
        r = escape(c, &rune, &is_class);
        if (r == 0 && !is_class)
            r = add_range(c, rune, rune);
        break;
    default:
        rune = next_rune(&c->at, c->at + strlen(c->at));
        r = add_range(c, rune, rune);
        break;
    }
    if (r == 0)
        *ret_node = new_inst(c, OP_SET, first, c->range_count - first);
    return r;
}

static int number(struct compiler *c, unsigned *ret_number)
{
    if (*c->at < '0' || *c->at > '9')
        return bad(c, PK_E_INVALID, "'{' without a count");
    unsigned value = 0;
    while (*c->at >= '0' && *c->at <= '9') {
        value = value * 10 + (unsigned)(*c->at++ - '0');
        if (value > REPEAT_MAX)
            return bad(c, PK_E_INVALID, "repeats too often (at most 1000)");
    }
    *ret_number = value;
    return 0;
}

static int quantifier(struct compiler *c, unsigned *node)
{
    struct node repeat = { .kind = NODE_REPEAT, .left = *node, .min = 1, .max = 1 };
    int r = 0;
    if (*c->at == '*' || *c->at == '+') {
        repeat.min = *c->at == '+';
        repeat.endless = true;
        c->at++;
    } else if (*c->at == '?') {
        repeat.min = 0;
        c->at++;
    } else if (*c->at == '{') {
        c->at++;
        r = number(c, &repeat.min);
        repeat.max = repeat.min;
        if (r == 0 && *c->at == ',') {
            c->at++;
            repeat.endless = *c->at == '}';
            if (!repeat.endless)
                r = number(c, &repeat.max);
        }
        if (r < 0)
            return r;
        if (*c->at != '}' || (!repeat.endless && repeat.max < repeat.min))
            return bad(c, PK_E_INVALID, "bad count");
        c->at++;
    } else {
        return 0;
    }
    if (*c->at == '?') /* lazy: matches the same texts */
        c->at++;
    *node = new_node(c, repeat);
    return 0;
}

static int sequence(struct compiler *c, unsigned *ret_node)
{
    unsigned all = new_node(c, (struct node){ .kind = NODE_EMPTY });
    while (*c->at != '\0' && *c->at != '|' && *c->at != ')') {
        unsigned one = 0;
        if (*c->at == '^' || *c->at == '$') {
            one = new_inst(c, *c->at == '^' ? OP_START : OP_END, 0, 0);
            c->at++;
        } else if (c->at[0] == '\\' && (c->at[1] == 'b' || c->at[1] == 'B')) {
            one = new_inst(c, c->at[1] == 'b' ? OP_WORD : OP_NOT_WORD, 0, 0);
            c->at += 2;
        } else {
            int r = atom(c, &one);
            if (r < 0 || (r = quantifier(c, &one)) < 0)
                return r;
        }
        all = new_node(c, (struct node){ .kind = NODE_SEQUENCE, .left = all, .right = one });
    }
    *ret_node = all;
    return 0;
}

static int alternatives(struct compiler *c, unsigned *ret_node)
{
    unsigned all = 0, one = 0;
    int r = sequence(c, &all);
    while (r == 0 && *c->at == '|') {
        c->at++;
        r = sequence(c, &one);
        if (r == 0)
            all = new_node(c, (struct node){ .kind = NODE_EITHER, .left = all, .right = one });
    }
    if (r == 0)
        *ret_node = all;
    return r;
}

static int emit(struct compiler *c, enum op op, unsigned *ret_at)
{
    if (c->length == PROGRAM_MAX)
        return pk_fail(c->err, PK_E_INVALID, "pattern: too large");
    c->program[c->length] = (struct inst){ .op = op };
    *ret_at = c->length++;
    return 0;
}

static int generate(struct compiler *c, unsigned index);

/* x{2,4} becomes x x (x (x)?)?; x{2,} becomes x x, then a loop over x that may be left at once. */
static int generate_repeat(struct compiler *c, const struct node *node)
{
    unsigned split = 0, jump = 0;
    int r = 0;
    for (unsigned i = 0; i < node->min && r == 0; i++)
        r = generate(c, node->left);
    if (r == 0 && node->endless) {
        if ((r = emit(c, OP_SPLIT, &split)) < 0 || (r = generate(c, node->left)) < 0 ||
            (r = emit(c, OP_JUMP, &jump)) < 0)
            return r;
        c->program[jump].x = c->program[jump].y = split;
        c->program[split].x = split + 1;
        c->program[split].y = c->length;
        return 0;
    }
    unsigned optional = c->length;
    for (unsigned i = node->min; i < node->max && r == 0; i++) {
        r = emit(c, OP_SPLIT, &split);
        if (r == 0) {
            c->program[split].x = split + 1;
            c->program[split].y =
                0; /* 0 = the end, which is known below; no split goes back to 0 */
            r = generate(c, node->left);
        }
    }
    for (unsigned i = optional; i < c->length; i++)
        if (c->program[i].op == OP_SPLIT && c->program[i].y == 0)
            c->program[i].y = c->length;
    return r;
}

static int generate(struct compiler *c, unsigned index)
{
    const struct node *node = &c->nodes[index];
    unsigned at = 0, jump = 0;
    int r;
    if (++c->steps > EMIT_MAX)
        return pk_fail(c->err, PK_E_INVALID, "pattern: too large");
    switch (node->kind) {
    case NODE_EMPTY:
        return 0;
    case NODE_INST:
        if ((r = emit(c, OP_SET, &at)) == 0)
            c->program[at] = node->inst;
        return r;
    case NODE_SEQUENCE:
        return (r = generate(c, node->left)) < 0 ? r : generate(c, node->right);
    case NODE_EITHER:
        if ((r = emit(c, OP_SPLIT, &at)) < 0 || (r = generate(c, node->left)) < 0 ||
            (r = emit(c, OP_JUMP, &jump)) < 0)
            return r;
        c->program[at].x = at + 1;
        c->program[at].y = c->length;
        if ((r = generate(c, node->right)) < 0)
            return r;
        c->program[jump].x = c->program[jump].y = c->length;
        return 0;
    case NODE_REPEAT:
        return generate_repeat(c, node);
    }
    return pk_fail(c->err, PK_E_INTERNAL, "pattern: unknown node");
}

static void compiler_done(struct compiler *c)
{
    pk_free(c->nodes);
    pk_free(c->program);
    pk_free(c->ranges);
}

static int compile(const char *pattern, struct compiler *c, struct pk_error *err)
{
    size_t len = strlen(pattern);
    *c = (struct compiler){ .pattern = pattern, .at = pattern, .err = err };
    if (len > PATTERN_MAX)
        return pk_fail(err, PK_E_INVALID, "pattern: longer than %u bytes", PATTERN_MAX);
    c->nodes = pk_zalloc_array(4 * len + 4, sizeof(c->nodes[0]));
    c->program = pk_zalloc_array(PROGRAM_MAX, sizeof(c->program[0]));
    c->ranges = pk_zalloc_array(RANGES_MAX, sizeof(c->ranges[0]));
    if (c->nodes == NULL || c->program == NULL || c->ranges == NULL)
        return pk_fail(err, PK_E_NOMEM, "pattern: out of memory");
    unsigned root = 0, match = 0;
    int r = alternatives(c, &root);
    if (r == 0 && *c->at != '\0')
        r = bad(c, PK_E_INVALID, "')' without '('");
    if (r == 0)
        r = generate(c, root);
    return r == 0 ? emit(c, OP_MATCH, &match) : r;
}

/* The set of program positions that are alive at one place in the text. */
struct threads {
    unsigned *list, *mark; /* mark[i] == generation: i is in the list */
    unsigned count, generation;
};

struct place {
    bool start, end, word_edge;
};

static void add_thread(const struct compiler *c, struct threads *threads, unsigned *stack,
                       unsigned pc, const struct place *place)
{
    unsigned depth = 0;
    stack[depth++] = pc;
    while (depth > 0) {
        pc = stack[--depth];
        if (threads->mark[pc] == threads->generation)
            continue;
        threads->mark[pc] = threads->generation;
        const struct inst *inst = &c->program[pc];
        bool pass = (inst->op == OP_START && place->start) || (inst->op == OP_END && place->end) ||
                    (inst->op == OP_WORD && place->word_edge) ||
                    (inst->op == OP_NOT_WORD && !place->word_edge);
        if (inst->op == OP_SET || inst->op == OP_MATCH)
            threads->list[threads->count++] = pc;
        else if (pass)
            stack[depth++] = pc + 1;
        else if (inst->op == OP_SPLIT || inst->op == OP_JUMP) {
            stack[depth++] = inst->x;
            stack[depth++] = inst->y;
        }
    }
}

static bool in_set(const struct compiler *c, const struct inst *inst, uint32_t rune)
{
    for (unsigned i = 0; i < inst->y; i++)
        if (rune >= c->ranges[inst->x + i].low && rune <= c->ranges[inst->x + i].high)
            return !inst->negated;
    return inst->negated;
}

static bool is_word(uint32_t rune)
{
    return (rune >= '0' && rune <= '9') || (rune >= 'A' && rune <= 'Z') || rune == '_' ||
           (rune >= 'a' && rune <= 'z');
}

static bool simulate(const struct compiler *c, unsigned *memory, const char *text, size_t len)
{
    unsigned n = c->length, waiting_count = 0;
    unsigned *waiting = memory; /* program positions to go on from, before zero-width steps */
    struct threads ready = { .list = memory + n, .mark = memory + 2 * n };
    unsigned *stack = memory + 3 * n; /* two targets for each position at most, and the first */
    const char *at = text, *end = text + len;
    uint32_t before = 0;
    for (;;) {
        const char *after = at;
        uint32_t rune = at < end ? next_rune(&after, end) : 0;
        struct place place = { .start = at == text,
                               .end = at == end,
                               .word_edge = is_word(before) != is_word(rune) };
        ready.count = 0;
        ready.generation++;
        for (unsigned i = 0; i < waiting_count; i++)
            add_thread(c, &ready, stack, waiting[i], &place);
        add_thread(c, &ready, stack, 0, &place); /* a match may begin anywhere */
        waiting_count = 0;
        for (unsigned i = 0; i < ready.count; i++) {
            const struct inst *inst = &c->program[ready.list[i]];
            if (inst->op == OP_MATCH)
                return true;
            if (at < end && in_set(c, inst, rune))
                waiting[waiting_count++] = ready.list[i] + 1;
        }
        if (at == end)
            return false;
        before = rune;
        at = after;
    }
}

int pk_pattern_check(const char *pattern, struct pk_error *err)
{
    PK_CLEANUP(compiler_done) struct compiler c;
    return compile(pattern, &c, err);
}

int pk_pattern_match(const char *pattern, const char *text, size_t len, bool *ret_match,
                     struct pk_error *err)
{
    PK_CLEANUP(compiler_done) struct compiler c;
    int r = compile(pattern, &c, err);
    if (r < 0)
        return r;
    unsigned *memory = pk_zalloc_array(6 * (size_t)c.length + 8, sizeof(*memory));
    if (memory == NULL)
        return pk_fail(err, PK_E_NOMEM, "pattern: out of memory");
    *ret_match = simulate(&c, memory, text, len);
    pk_free(memory);
    return 0;
}
