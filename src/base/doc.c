/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree is built from libfyaml's events with a stack of our own, so that every limit is ours and
 * holds while reading. Nodes and texts live in an arena that goes with the document.
 */
#include "base/doc.h"

#include <libfyaml.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/doc_internal.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/map.h"
#include "base/str.h"

/* Aliases repeat texts: what the whole tree would hold if it were written out. */
#define MAX_TEXT_BYTES ((size_t)2 * PK_DOC_MAX_BYTES)

struct block {
    struct block *next;
    size_t used, size;
    _Alignas(16) char data[];
};

struct pk_doc {
    char *name;
    struct pk_node *root;
    struct block *blocks;
};

static void *arena_alloc(struct pk_doc *doc, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    struct block *block = doc->blocks;
    if (block == NULL || block->size - block->used < size) {
        size_t room = PK_MAX(size, (size_t)16384);
        block = pk_zalloc(sizeof(*block) + room);
        if (block == NULL)
            return NULL;
        block->size = room;
        block->next = doc->blocks;
        doc->blocks = block;
    }
    void *memory = block->data + block->used;
    block->used += size;
    return memory;
}

void pk_doc_free(struct pk_doc *doc)
{
    if (doc == NULL)
        return;
    for (struct block *block = doc->blocks, *next; block != NULL; block = next) {
        next = block->next;
        pk_free(block);
    }
    pk_free(doc->name);
    pk_free(doc);
}

/* ---- building ---- */

struct frame { /* a list or map that is being read */
    struct pk_node *node;
    struct pk_node **items; /* moved into the arena at its end */
    size_t capacity;
    struct pk_map *keys; /* of a map: key -> its node */
    const char *key;     /* read, its value still to come */
    unsigned key_line, key_col;
};

struct builder {
    struct pk_doc *doc;
    struct frame stack[PK_DOC_MAX_DEPTH];
    size_t depth;
    struct pk_map *anchors; /* name -> node */
    struct pk_buf scalar;   /* used again for each */
    size_t nodes, text_bytes;
    bool document_seen;
    unsigned last_line, last_col;
    struct pk_error *err;
};

static int no_memory(struct builder *b)
{
    return pk_fail(b->err, PK_E_NOMEM, "%s: out of memory", b->doc->name);
}

static int fail_at(struct builder *b, unsigned line, unsigned col, const char *hint,
                   const char *fmt, ...) PK_PRINTF(5, 6);

static int fail_at(struct builder *b, unsigned line, unsigned col, const char *hint,
                   const char *fmt, ...)
{
    char msg[256];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(msg, sizeof(msg), fmt, args);
    va_end(args);
    pk_fail(b->err, PK_E_INVALID, "%s", msg);
    pk_error_at(b->err, b->doc->name, line, col);
    pk_hint(b->err, "%s", hint);
    return PK_E_INVALID;
}

static int count_node(struct builder *b, size_t text_len, unsigned line, unsigned col)
{
    b->nodes++;
    b->text_bytes += text_len;
    if (b->nodes > PK_DOC_MAX_NODES || b->text_bytes > MAX_TEXT_BYTES)
        return fail_at(b, line, col, "make the document smaller, or use fewer aliases",
                       "the document has more than %u values or more than %zu bytes of text",
                       PK_DOC_MAX_NODES, MAX_TEXT_BYTES);
    return 0;
}

/* Puts a value where it belongs: the root, the list's end, or after the map's last key. */
static int attach(struct builder *b, struct pk_node *node)
{
    if (b->depth == 0) {
        b->doc->root = node;
        return 0;
    }
    struct frame *top = &b->stack[b->depth - 1];
    struct pk_node *parent = top->node;
    if (parent->count == top->capacity) {
        size_t capacity = PK_MAX(top->capacity * 2, (size_t)8);
        struct pk_node **grown = pk_realloc_array(top->items, capacity, sizeof(struct pk_node *));
        if (grown == NULL)
            return no_memory(b);
        top->items = grown;
        top->capacity = capacity;
    }
    if (parent->kind == PK_NODE_MAP) {
        node->key = top->key;
        node->key_line = top->key_line;
        node->key_col = top->key_col;
        if (pk_map_set_take(top->keys, top->key, node) < 0)
            return no_memory(b);
        top->key = NULL;
    }
    top->items[parent->count++] = node;
    return 0;
}

static int new_node(struct builder *b, enum pk_node_kind kind, unsigned line, unsigned col,
                    struct pk_node **ret_node)
{
    struct pk_node *node = arena_alloc(b->doc, sizeof(*node));
    if (node == NULL)
        return no_memory(b);
    node->kind = kind;
    node->line = line;
    node->col = col;
    *ret_node = node;
    return 0;
}

static bool key_expected(const struct builder *b)
{
    return b->depth > 0 && b->stack[b->depth - 1].node->kind == PK_NODE_MAP &&
           b->stack[b->depth - 1].key == NULL;
}

static int keep_text(struct builder *b, const char *text, size_t len, unsigned line, unsigned col,
                     const char **ret_text, size_t *ret_len)
{
    if (memchr(text, '\0', len) != NULL || pk_utf8_prefix(text, len) != len)
        return fail_at(b, line, col, "write readable text here",
                       "the text has a NUL or a character that is not Unicode in it");
    char *copy = arena_alloc(b->doc, len + 1);
    if (copy == NULL)
        return no_memory(b);
    memcpy(copy, text, len);
    copy[len] = '\0';
    *ret_text = copy;
    *ret_len = len;
    return 0;
}

/* The text of an anchor, alias or tag. */
static int take_text(struct builder *b, struct fy_token *token, unsigned line, unsigned col,
                     const char **ret_text, size_t *ret_len)
{
    size_t len = 0;
    const char *text = fy_token_get_text(token, &len);
    return text == NULL ? no_memory(b) : keep_text(b, text, len, line, col, ret_text, ret_len);
}

/* The text of a scalar, piece by piece: fy_token_get_text() of libfyaml 0.7.12 leaks where a text
 * has many escapes or lines (found by fuzz_doc). */
static int take_scalar(struct builder *b, struct fy_token *token, unsigned line, unsigned col,
                       const char **ret_text, size_t *ret_len)
{
    pk_buf_clear(&b->scalar);
    if (token != NULL) {
        struct fy_token_iter *iterator = fy_token_iter_create(token);
        if (iterator == NULL)
            return no_memory(b);
        const struct fy_iter_chunk *chunk = NULL;
        int fault = 0;
        while ((chunk = fy_token_iter_chunk_next(iterator, chunk, &fault)) != NULL)
            (void)pk_buf_add(&b->scalar, chunk->str, chunk->len);
        fy_token_iter_destroy(iterator);
        if (fault != 0 && !b->scalar.failed) /* so says the iterator of an empty block, for one */
            return take_text(b, token, line, col, ret_text, ret_len);
    }
    if (b->scalar.failed)
        return no_memory(b);
    const char *text = b->scalar.data == NULL ? "" : b->scalar.data;
    return keep_text(b, text, b->scalar.len, line, col, ret_text, ret_len);
}

static int set_anchor(struct builder *b, struct fy_token *anchor, struct pk_node *node)
{
    if (anchor == NULL)
        return 0;
    const char *name;
    size_t len;
    int r = take_text(b, anchor, node->line, node->col, &name, &len);
    if (r < 0)
        return r;
    return pk_map_set_take(b->anchors, name, node) < 0 ? no_memory(b) : 0;
}

/* What a tag asks for; false if it is none of the core schema's. */
static bool kind_of_tag(const char *tag, enum pk_node_kind *ret_kind)
{
    static const char *const names[] = {
        [PK_NODE_NULL] = "null",   [PK_NODE_BOOL] = "bool",  [PK_NODE_INT] = "int",
        [PK_NODE_FLOAT] = "float", [PK_NODE_STRING] = "str", [PK_NODE_LIST] = "seq",
        [PK_NODE_MAP] = "map",
    };
    static const char prefix[] = "tag:yaml.org,2002:";
    if (strcmp(tag, "!") == 0) {
        *ret_kind = PK_NODE_STRING;
        return true;
    }
    for (size_t i = 0; i < PK_ARRAY_SIZE(names); i++) {
        if (pk_str_starts(tag, prefix) && strcmp(tag + sizeof(prefix) - 1, names[i]) == 0) {
            *ret_kind = (enum pk_node_kind)i;
            return true;
        }
    }
    return false;
}

/* Holds a node to its tag, if it has one. "!!str 12" makes a string of a number. */
static int apply_tag(struct builder *b, struct fy_token *token, struct pk_node *node)
{
    if (token == NULL)
        return 0;
    const char *tag;
    size_t len;
    enum pk_node_kind kind;
    int r = take_text(b, token, node->line, node->col, &tag, &len);
    if (r < 0)
        return r;
    if (!kind_of_tag(tag, &kind))
        return fail_at(b, node->line, node->col, "remove the tag", "tag '%.80s' is not supported",
                       tag);
    bool scalar = node->kind < PK_NODE_LIST;
    if (kind == PK_NODE_STRING && scalar) {
        node->kind = PK_NODE_STRING;
        node->quoted = true;
        return 0;
    }
    if (kind == PK_NODE_FLOAT && node->kind == PK_NODE_INT) {
        node->kind = PK_NODE_FLOAT;
        return 0;
    }
    if (kind == node->kind || (strcmp(tag, "!") == 0 && !scalar))
        return 0;
    return fail_at(b, node->line, node->col, "remove the tag or change the value",
                   "the value is a %s but its tag asks for a %s", pk_node_kind_name(node->kind),
                   pk_node_kind_name(kind));
}

static int on_key(struct builder *b, struct fy_token *token, struct fy_token *anchor, unsigned line,
                  unsigned col)
{
    struct frame *top = &b->stack[b->depth - 1];
    const char *key;
    size_t len;
    int r = take_scalar(b, token, line, col, &key, &len);
    if (r < 0)
        return r;
    if (anchor != NULL)
        return fail_at(b, line, col, "put the anchor on a value", "a key cannot have an anchor");
    r = count_node(b, len, line, col);
    if (r < 0)
        return r;
    const struct pk_node *first = pk_map_get(top->keys, key);
    if (first != NULL)
        return fail_at(b, line, col, "remove one of the two",
                       "key '%.80s' is given twice: first at line %u, column %u", key,
                       first->key_line, first->key_col);
    top->key = key;
    top->key_line = line;
    top->key_col = col;
    return 0;
}

static int on_scalar(struct builder *b, const struct fy_event *event, unsigned line, unsigned col)
{
    struct fy_token *token = event->scalar.value;
    if (key_expected(b))
        return on_key(b, token, event->scalar.anchor, line, col);
    struct pk_node *node = NULL;
    size_t len;
    int r = new_node(b, PK_NODE_STRING, line, col, &node);
    if (r == 0)
        r = take_scalar(b, token, line, col, &node->text, &len);
    if (r == 0)
        r = count_node(b, len, line, col);
    if (r < 0)
        return r;
    node->quoted = token != NULL && fy_scalar_token_get_style(token) != FYSS_PLAIN;
    if (!node->quoted && !pk_doc_resolve_plain(node))
        return fail_at(b, line, col, "put it in quotes if it is meant as text",
                       "'%.80s' is not a number that can be represented", node->text);
    r = apply_tag(b, event->scalar.tag, node);
    if (r == 0)
        r = set_anchor(b, event->scalar.anchor, node);
    return r < 0 ? r : attach(b, node);
}

static int on_start(struct builder *b, enum pk_node_kind kind, struct fy_token *anchor,
                    struct fy_token *tag, unsigned line, unsigned col)
{
    if (key_expected(b))
        return fail_at(b, line, col, "write the key as text", "a key cannot be a list or a map");
    if (b->depth == PK_DOC_MAX_DEPTH)
        return fail_at(b, line, col, "nest less", "values nest deeper than %u", PK_DOC_MAX_DEPTH);
    struct pk_node *node = NULL;
    int r = new_node(b, kind, line, col, &node);
    if (r == 0)
        r = count_node(b, 0, line, col);
    if (r == 0)
        r = apply_tag(b, tag, node);
    if (r == 0)
        r = set_anchor(b, anchor, node);
    if (r == 0)
        r = attach(b, node);
    if (r < 0)
        return r;
    struct frame frame = { .node = node };
    if (kind == PK_NODE_MAP) {
        frame.keys = pk_map_new(NULL);
        if (frame.keys == NULL)
            return no_memory(b);
    }
    b->stack[b->depth++] = frame;
    return 0;
}

static void free_frame(struct frame *frame)
{
    pk_free(frame->items);
    pk_map_free(frame->keys);
    *frame = (struct frame){ 0 };
}

static int on_end(struct builder *b)
{
    struct frame *top = &b->stack[b->depth - 1];
    struct pk_node *node = top->node;
    if (node->count > 0) {
        node->items = arena_alloc(b->doc, node->count * sizeof(struct pk_node *));
        if (node->items == NULL)
            return no_memory(b);
        memcpy(node->items, top->items, node->count * sizeof(struct pk_node *));
    }
    free_frame(top);
    b->depth--;
    return 0;
}

static bool is_open(const struct builder *b, const struct pk_node *node)
{
    for (size_t i = 0; i < b->depth; i++)
        if (b->stack[i].node == node)
            return true;
    return false;
}

/* A copy, as each place has its own key and position; texts are shared. Nodes nest at most
 * PK_DOC_MAX_DEPTH deep in what is copied, and at most as deep again through aliases in aliases:
 * the depth where it is put bounds it. */
static int copy_node(struct builder *b, const struct pk_node *from, size_t depth, unsigned line,
                     unsigned col, struct pk_node **ret_node)
{
    if (depth > PK_DOC_MAX_DEPTH)
        return fail_at(b, line, col, "nest less", "values nest deeper than %u", PK_DOC_MAX_DEPTH);
    int r = count_node(b, from->text == NULL ? 0 : strlen(from->text), line, col);
    if (r < 0)
        return r;
    struct pk_node *node = arena_alloc(b->doc, sizeof(*node));
    if (node == NULL)
        return no_memory(b);
    *node = *from;
    if (from->count > 0) {
        node->items = arena_alloc(b->doc, from->count * sizeof(struct pk_node *));
        if (node->items == NULL)
            return no_memory(b);
    }
    for (size_t i = 0; i < from->count; i++) {
        r = copy_node(b, from->items[i], depth + 1, line, col, &node->items[i]);
        if (r < 0)
            return r;
    }
    *ret_node = node;
    return 0;
}

static int on_alias(struct builder *b, struct fy_token *token, unsigned line, unsigned col)
{
    if (key_expected(b))
        return fail_at(b, line, col, "write the key as text", "a key cannot be an alias");
    const char *name;
    size_t len;
    int r = take_text(b, token, line, col, &name, &len);
    if (r < 0)
        return r;
    const struct pk_node *target = pk_map_get(b->anchors, name);
    if (target == NULL)
        return fail_at(b, line, col, "define it before its use with '&' and the name",
                       "alias '*%.80s' has no anchor before it", name);
    if (is_open(b, target))
        return fail_at(b, line, col, "write the value out", "alias '*%.80s' contains itself", name);
    struct pk_node *node = NULL;
    r = copy_node(b, target, b->depth, line, col, &node);
    if (r < 0)
        return r;
    node->line = line;
    node->col = col;
    node->key = NULL;
    return attach(b, node);
}

/* libfyaml's mark of a quoted scalar stands behind the quote, an alias's behind the '*', and an
 * empty value has none: it is said to be where its key is, or where the last thing was. */
static void find_position(struct builder *b, struct fy_event *event, unsigned *ret_line,
                          unsigned *ret_col)
{
    const struct fy_mark *mark = fy_event_start_mark(event);
    if (mark == NULL || (event->type == FYET_SCALAR && event->scalar.value == NULL)) {
        const struct frame *top = b->depth == 0 ? NULL : &b->stack[b->depth - 1];
        bool has_key = top != NULL && top->key != NULL;
        *ret_line = has_key ? top->key_line : b->last_line;
        *ret_col = has_key ? top->key_col : b->last_col;
        return;
    }
    unsigned back = event->type == FYET_ALIAS ? 1 : 0;
    if (event->type == FYET_SCALAR) {
        enum fy_scalar_style style = fy_scalar_token_get_style(event->scalar.value);
        back = style == FYSS_SINGLE_QUOTED || style == FYSS_DOUBLE_QUOTED ? 1 : 0;
    }
    *ret_line = (unsigned)PK_MAX(mark->line, 0) + 1;
    *ret_col = (unsigned)PK_MAX(mark->column, 0) + 1;
    *ret_col -= PK_MIN(back, *ret_col - 1);
    b->last_line = *ret_line;
    b->last_col = *ret_col;
}

static int on_event(struct builder *b, struct fy_event *event)
{
    unsigned line, col;
    find_position(b, event, &line, &col);
    switch (event->type) {
    case FYET_DOCUMENT_START:
        if (b->document_seen)
            return fail_at(b, line, col, "keep one document per file",
                           "a second document starts here");
        b->document_seen = true;
        return 0;
    case FYET_SCALAR:
        return on_scalar(b, event, line, col);
    case FYET_ALIAS:
        return on_alias(b, event->alias.anchor, line, col);
    case FYET_MAPPING_START:
        return on_start(b, PK_NODE_MAP, event->mapping_start.anchor, event->mapping_start.tag, line,
                        col);
    case FYET_SEQUENCE_START:
        return on_start(b, PK_NODE_LIST, event->sequence_start.anchor, event->sequence_start.tag,
                        line, col);
    case FYET_MAPPING_END:
    case FYET_SEQUENCE_END:
        return on_end(b);
    default:
        return 0;
    }
}

/* ---- reading ---- */

static int syntax_error(struct builder *b, struct fy_diag *diag)
{
    void *iterator = NULL;
    const struct fy_diag_error *fault = fy_diag_errors_iterate(diag, &iterator);
    unsigned line = 1, col = 1;
    if (fault != NULL && fault->line > 0) {
        line = (unsigned)fault->line;
        col = (unsigned)PK_MAX(fault->column, 1);
    }
    return fail_at(b, line, col, "check indentation, quotes and brackets at this place",
                   "not valid YAML: %.180s",
                   fault != NULL && fault->msg != NULL ? fault->msg : "it cannot be read");
}

static int read_events(struct builder *b, struct fy_parser *parser, struct fy_diag *diag)
{
    for (;;) {
        struct fy_event *event = fy_parser_parse(parser);
        if (event == NULL)
            break;
        bool end = event->type == FYET_STREAM_END;
        int r = on_event(b, event);
        fy_parser_event_free(parser, event);
        if (r < 0)
            return r;
        if (end)
            break;
    }
    if (fy_parser_get_stream_error(parser) || fy_diag_got_error(diag) || b->depth > 0)
        return syntax_error(b, diag);
    if (b->doc->root == NULL) {
        int r = new_node(b, PK_NODE_NULL, 1, 1, &b->doc->root);
        if (r < 0)
            return r;
        b->doc->root->text = "";
    }
    return 0;
}

/* libfyaml reports to nobody but the error list. */
static void drop_diagnostics(struct fy_diag *diag PK_UNUSED, void *user PK_UNUSED,
                             const char *text PK_UNUSED, size_t len PK_UNUSED)
{
}

static int build(struct builder *b, const char *text, size_t len)
{
    struct fy_diag_cfg diag_cfg;
    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = NULL;
    diag_cfg.output_fn = drop_diagnostics;
    diag_cfg.colorize = false;
    struct fy_diag *diag = fy_diag_create(&diag_cfg);
    if (diag == NULL)
        return no_memory(b);
    fy_diag_set_collect_errors(diag, true);
    const struct fy_parse_cfg cfg = {
        .flags = FYPCF_QUIET | FYPCF_JSON_NONE | FYPCF_DEFAULT_VERSION_1_2 | FYPCF_DISABLE_MMAP_OPT,
        .diag = diag,
    };
    struct fy_parser *parser = fy_parser_create(&cfg);
    int r;
    if (parser == NULL || fy_parser_set_string(parser, text, len) != 0)
        r = no_memory(b);
    else
        r = read_events(b, parser, diag);
    if (parser != NULL)
        fy_parser_destroy(parser);
    fy_diag_destroy(diag);
    return r;
}

/* libfyaml is given text only: the position of the first byte that is not. */
static int check_text(struct builder *b, const char *text, size_t len)
{
    unsigned line = 1, col = 1;
    const char *end = text + len;
    for (const char *p = text; p < end;) {
        const char *start = p;
        uint32_t c = pk_utf8_next(&p, end);
        if (c == 0 || (c == 0xfffd && p - start == 1))
            return fail_at(b, line, col, "save the file as UTF-8 text",
                           "byte 0x%02x is not UTF-8 text", (unsigned)(unsigned char)*start);
        col++;
        if (c == '\n') {
            line++;
            col = 1;
        }
    }
    return 0;
}

int pk_doc_parse(const char *name, const char *text, size_t len, struct pk_doc **ret_doc,
                 struct pk_error *err)
{
    PK_CLEANUP(pk_doc_free_p) struct pk_doc *doc = pk_zalloc(sizeof(*doc));
    PK_CLEANUP(pk_free_p) struct builder *b = pk_zalloc(sizeof(*b));
    PK_CLEANUP(pk_map_free_p) struct pk_map *anchors = pk_map_new(NULL);
    if (doc != NULL)
        doc->name = pk_strdup(name);
    if (doc == NULL || doc->name == NULL || b == NULL || anchors == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
    b->doc = doc;
    b->anchors = anchors;
    b->scalar = PK_BUF_INIT(PK_DOC_MAX_BYTES);
    b->err = err;
    b->last_line = b->last_col = 1;
    if (len > PK_DOC_MAX_BYTES) {
        pk_fail(err, PK_E_INVALID, "the document is larger than %u bytes", PK_DOC_MAX_BYTES);
        pk_error_at(err, name, 1, 1);
        pk_hint(err, "make the document smaller");
        return PK_E_INVALID;
    }
    /* libfyaml 0.7.12 reads a block at the end of a text without a line feed wrongly. */
    PK_CLEANUP(pk_free_p) char *ended = NULL;
    int r = check_text(b, text, len);
    if (r == 0 && len > 0 && text[len - 1] != '\n') {
        ended = pk_realloc_array(NULL, len + 1, 1);
        if (ended == NULL)
            return no_memory(b);
        memcpy(ended, text, len);
        ended[len++] = '\n';
    }
    if (r == 0)
        r = build(b, ended != NULL ? ended : text, len);
    for (size_t i = 0; i < b->depth; i++)
        free_frame(&b->stack[i]);
    pk_buf_done(&b->scalar);
    if (r < 0)
        return r;
    *ret_doc = PK_TAKE(doc);
    return 0;
}

int pk_doc_load(const char *path, struct pk_doc **ret_doc, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    size_t len;
    int r = pk_file_read(path, PK_DOC_MAX_BYTES, &text, &len, err);
    if (r < 0)
        return r;
    return pk_doc_parse(strcmp(path, "-") == 0 ? "standard input" : path, text, len, ret_doc, err);
}

/* ---- access ---- */

const char *pk_doc_name(const struct pk_doc *doc)
{
    return doc->name;
}

const struct pk_node *pk_doc_root(const struct pk_doc *doc)
{
    return doc->root;
}

const struct pk_node *pk_node_get(const struct pk_node *map, const char *key)
{
    if (map == NULL || map->kind != PK_NODE_MAP)
        return NULL;
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->items[i]->key, key) == 0)
            return map->items[i];
    return NULL;
}

const char *pk_node_kind_name(enum pk_node_kind kind)
{
    static const char *const names[] = {
        [PK_NODE_NULL] = "null",    [PK_NODE_BOOL] = "boolean",  [PK_NODE_INT] = "whole number",
        [PK_NODE_FLOAT] = "number", [PK_NODE_STRING] = "string", [PK_NODE_LIST] = "list",
        [PK_NODE_MAP] = "map",
    };
    return names[kind];
}

json_t *pk_node_to_json(const struct pk_node *node)
{
    PK_JSON json = NULL;
    switch (node->kind) {
    case PK_NODE_NULL:
        return json_null();
    case PK_NODE_BOOL:
        return json_boolean(node->integer != 0);
    case PK_NODE_INT:
        return json_integer(node->integer);
    case PK_NODE_FLOAT:
        return json_real(node->number);
    case PK_NODE_STRING:
        return json_string(node->text);
    case PK_NODE_LIST:
        json = json_array();
        break;
    case PK_NODE_MAP:
        json = json_object();
        break;
    }
    for (size_t i = 0; json != NULL && i < node->count; i++) {
        const struct pk_node *item = node->items[i];
        json_t *value = pk_node_to_json(item);
        int r = value == NULL                ? -1
                : node->kind == PK_NODE_LIST ? json_array_append_new(json, value)
                                             : json_object_set_new(json, item->key, value);
        if (r < 0)
            return NULL;
    }
    return PK_TAKE(json);
}

/* One token of a JSON pointer compared with a key: "~1" stands for '/', "~0" for '~'. */
static bool token_is(const char *token, size_t len, const char *key)
{
    for (size_t i = 0; i < len; i++, key++) {
        char c = token[i];
        if (c == '~' && i + 1 < len && (token[i + 1] == '0' || token[i + 1] == '1'))
            c = token[++i] == '0' ? '~' : '/';
        if (*key == '\0' || c != *key)
            return false;
    }
    return *key == '\0';
}

static const struct pk_node *step(const struct pk_node *node, const char *token, size_t len)
{
    if (node->kind == PK_NODE_LIST) {
        char digits[12];
        uint64_t index;
        if (len >= sizeof(digits))
            return NULL;
        memcpy(digits, token, len);
        digits[len] = '\0';
        return pk_parse_u64(digits, &index, NULL) == 0 && index < node->count ? node->items[index]
                                                                              : NULL;
    }
    for (size_t i = 0; node->kind == PK_NODE_MAP && i < node->count; i++)
        if (token_is(token, len, node->items[i]->key))
            return node->items[i];
    return NULL;
}

const struct pk_node *pk_node_resolve(const struct pk_node *root, const char *pointer)
{
    const struct pk_node *node = root;
    while (*pointer == '/') {
        size_t len = strcspn(++pointer, "/");
        const struct pk_node *next = step(node, pointer, len);
        if (next == NULL)
            break;
        node = next;
        pointer += len;
    }
    return node;
}

int pk_node_fail(const struct pk_doc *doc, const struct pk_node *node, struct pk_error *err,
                 const char *fmt, ...)
{
    char msg[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(msg, sizeof(msg), fmt, args);
    va_end(args);
    pk_fail(err, PK_E_INVALID, "%s", msg);
    pk_error_at(err, doc->name, node->line, node->col);
    return PK_E_INVALID;
}
