/* SPDX-License-Identifier: Apache-2.0 */
#include "ship/scan.h"

#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#    include <emmintrin.h>
#endif

#include "base/alloc.h"
#include "base/event.h"
#include "base/str.h"

#define NODES_MAX 160
#define BUCKETS   16u
#define KEY_MAX   64u

struct node {
    char key[KEY_MAX];
    uint8_t key_len;
    int32_t index;           /* when a member of a list: which; else -1 */
    int16_t bucket[BUCKETS]; /* first child by key, 0 = none (the root is nobody's child) */
    int16_t next;            /* in the parent's bucket */
    int16_t slot;            /* -1 = none */
    uint8_t rank;
    bool has_index_children;
};

struct pk_scan {
    struct node nodes[NODES_MAX];
    int count;
};

static unsigned bucket_of(const char *key, size_t len)
{
    return len == 0 ? 0
                    : ((unsigned char)key[0] * 5u + (unsigned char)key[len - 1] + (unsigned)len) %
                          BUCKETS;
}

int pk_scan_new(struct pk_scan **ret_scan, struct pk_error *err)
{
    struct pk_scan *scan = pk_zalloc(sizeof(*scan));

    if (scan == NULL)
        return pk_no_memory(err);
    scan->count = 1;
    scan->nodes[0].slot = -1;
    scan->nodes[0].index = -1;
    *ret_scan = scan;
    return 0;
}

void pk_scan_free(struct pk_scan *scan)
{
    pk_free(scan);
}

static int find_child(const struct pk_scan *scan, int parent, const char *key, size_t len)
{
    for (int at = scan->nodes[parent].bucket[bucket_of(key, len)]; at != 0;
         at = scan->nodes[at].next)
        if (scan->nodes[at].key_len == len && memcmp(scan->nodes[at].key, key, len) == 0)
            return at;
    return -1;
}

static int add_child(struct pk_scan *scan, int parent, const char *key, size_t len)
{
    int at = find_child(scan, parent, key, len);

    if (at >= 0)
        return at;
    if (scan->count == NODES_MAX || len >= KEY_MAX)
        return -1;
    at = scan->count++;
    struct node *node = &scan->nodes[at];
    if (len > 0)
        memcpy(node->key, key, len);
    node->key_len = (uint8_t)len;
    node->slot = -1;
    uint64_t index;
    bool is_index = len < 10 && pk_parse_u64(node->key, &index, NULL) == 0;
    node->index = is_index ? (int)index : -1;
    node->next = scan->nodes[parent].bucket[bucket_of(key, len)];
    scan->nodes[parent].bucket[bucket_of(key, len)] = (int16_t)at;
    scan->nodes[parent].has_index_children |= node->index >= 0;
    return at;
}

int pk_scan_add(struct pk_scan *scan, unsigned slot, const char *paths, bool literal,
                struct pk_error *err)
{
    uint8_t rank = 0;

    while (paths != NULL && slot < PK_SCAN_SLOTS_MAX) {
        const char *end = strchrnul(paths, '|');
        int at = 0;
        for (const char *part = paths; at >= 0 && part <= end;) {
            const char *dot = literal ? end : memchr(part, '.', (size_t)(end - part));
            if (dot == NULL)
                dot = end;
            at = add_child(scan, at, part, (size_t)(dot - part));
            part = dot + 1;
        }
        if (at < 0)
            return pk_fail(err, PK_E_INTERNAL, "too many paths, or too long: %s", paths);
        scan->nodes[at].slot = (int16_t)slot;
        scan->nodes[at].rank = rank++;
        paths = *end != '\0' ? end + 1 : NULL;
    }
    return 0;
}

/* ---- the scanner ---- */

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

static int hex4(const char *at)
{
    int value = 0;

    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* After the backslash; NULL if it is no escape. *ret_code: what it stands for. */
static const char *read_escape(const char *at, const char *end, uint32_t *ret_code)
{
    static const char names[] = "\"\\/bfnrt";
    static const char codes[] = "\"\\/\b\f\n\r\t";

    if (at >= end)
        return NULL;
    if (*at != 'u') {
        const char *found = *at != '\0' ? strchr(names, *at) : NULL;
        if (found == NULL)
            return NULL;
        *ret_code = (unsigned char)codes[found - names];
        return at + 1;
    }
    if (end - at < 5)
        return NULL;
    int high = hex4(at + 1);
    if (high < 0 || (high >= 0xdc00 && high <= 0xdfff))
        return NULL;
    at += 5;
    if (high >= 0xd800 && high <= 0xdbff) {
        if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
            return NULL;
        int low = hex4(at + 2);
        if (low < 0xdc00 || low > 0xdfff)
            return NULL;
        *ret_code = 0x10000u + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
        return at + 6;
    }
    *ret_code = (uint32_t)high;
    return at;
}

/* To the first byte of a string that needs a look: quote, backslash, control, non-ASCII. */
static const char *skip_plain(const char *at, const char *end)
{
#if defined(__SSE2__)
    while (end - at >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i special = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')),
                                       _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
        /* signed: bytes from 0x80 are below zero, so one comparison finds them and the controls */
        special = _mm_or_si128(special, _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20)));
        int mask = _mm_movemask_epi8(special);
        if (mask != 0)
            return at + __builtin_ctz((unsigned)mask);
        at += 16;
    }
#endif
    while (at < end && (signed char)*at >= 0x20 && *at != '"' && *at != '\\')
        at++;
    return at;
}

/* After the opening quote to after the closing one; NULL if it is no string. */
static const char *scan_string(const char *at, const char *end, struct pk_scan_value *ret,
                               bool *ret_nul)
{
    ret->type = PK_SCAN_STRING;
    ret->at = at;
    ret->escaped = false;
    for (;;) {
        at = skip_plain(at, end);
        if (at >= end)
            return NULL;
        if (*at == '"') {
            ret->len = (uint32_t)(at - ret->at);
            return at + 1;
        }
        if (*at == '\\') {
            uint32_t code = 0;
            ret->escaped = true;
            at = read_escape(at + 1, end, &code);
            if (at == NULL)
                return NULL;
            *ret_nul |= code == 0;
        } else if ((unsigned char)*at >= 0x80) {
            size_t window = PK_MIN((size_t)(end - at), 4u);
            static const uint8_t lens[] = { 2, 2, 3, 4 };
            size_t len = lens[((unsigned char)*at >> 4) & 3];
            if (len > window || pk_utf8_prefix(at, len) != len)
                return NULL;
            at += len;
        } else {
            return NULL; /* a control character */
        }
    }
}

static const char *scan_number(const char *at, const char *end, struct pk_scan_value *ret)
{
    ret->at = at;
    ret->type = PK_SCAN_INTEGER;
    ret->escaped = false;
    if (at < end && *at == '-')
        at++;
    if (at >= end || *at < '0' || *at > '9')
        return NULL;
    if (*at == '0')
        at++;
    else
        while (at < end && *at >= '0' && *at <= '9')
            at++;
    for (int part = 0; part < 2; part++) {
        if (at >= end || (part == 0 ? *at != '.' : (*at != 'e' && *at != 'E')))
            continue;
        ret->type = PK_SCAN_REAL;
        at++;
        if (part == 1 && at < end && (*at == '+' || *at == '-'))
            at++;
        if (at >= end || *at < '0' || *at > '9')
            return NULL;
        while (at < end && *at >= '0' && *at <= '9')
            at++;
    }
    ret->len = (uint32_t)(at - ret->at);
    return at;
}

static const char *scan_word(const char *at, const char *end, struct pk_scan_value *ret)
{
    static const struct {
        const char *text;
        uint32_t len;
        enum pk_scan_type type;
    } words[] = { { "true", 4, PK_SCAN_TRUE },
                  { "false", 5, PK_SCAN_FALSE },
                  { "null", 4, PK_SCAN_ABSENT } };

    for (size_t i = 0; i < PK_ARRAY_SIZE(words); i++)
        if ((size_t)(end - at) >= words[i].len && memcmp(at, words[i].text, words[i].len) == 0) {
            *ret = (struct pk_scan_value){ .type = words[i].type, .at = at, .len = words[i].len };
            return at + words[i].len;
        }
    return NULL;
}

struct frame {
    int16_t node; /* -1 = nothing below is asked for */
    bool list;
    int32_t index;
};

static int child_by_key(const struct pk_scan *scan, int parent, const struct pk_scan_value *key)
{
    char decoded[6 * KEY_MAX];

    if (parent < 0)
        return -1;
    if (!key->escaped)
        return find_child(scan, parent, key->at, key->len);
    if (key->len > sizeof(decoded))
        return -1; /* longer than any of ours */
    return find_child(scan, parent, decoded, pk_scan_text(key, decoded));
}

static int child_by_index(const struct pk_scan *scan, int parent, int32_t index)
{
    if (parent < 0 || !scan->nodes[parent].has_index_children || index > 9)
        return -1;
    return find_child(scan, parent, &(char){ (char)('0' + index) }, 1);
}

static void keep(const struct pk_scan *scan, int node, struct pk_scan_value *found,
                 struct pk_scan_value *values)
{
    if (node < 0 || scan->nodes[node].slot < 0)
        return;
    struct pk_scan_value *value = &values[scan->nodes[node].slot];
    found->rank = scan->nodes[node].rank;
    if (found->type != PK_SCAN_ABSENT) {
        if (value->type == PK_SCAN_ABSENT || found->rank <= value->rank)
            *value = *found;
    } else if (value->type != PK_SCAN_ABSENT && value->rank == found->rank) {
        value->type = PK_SCAN_ABSENT; /* the key again, now null or no scalar */
    }
}

bool pk_scan_record(const struct pk_scan *scan, const char *text, size_t len,
                    struct pk_scan_value *values)
{
    struct frame frames[PK_SCAN_DEPTH_MAX];
    const char *end = text + len;
    const char *at = skip_space(text, end);
    int depth = 0;
    bool first = true; /* nothing in the container yet */

    for (unsigned i = 0; i < PK_SCAN_SLOTS_MAX; i++)
        values[i].type = PK_SCAN_ABSENT;
    if (len > UINT32_MAX || at >= end || *at != '{')
        return false;
    at++;
    frames[0] = (struct frame){ .node = 0 };
    while (depth >= 0) {
        struct frame *frame = &frames[depth];
        struct pk_scan_value found = { 0 };
        bool nul = false;
        int node;

        at = skip_space(at, end);
        if (at >= end)
            return false;
        if (*at == (frame->list ? ']' : '}')) { /* after a comma it is refused below */
            at++;
            depth--;
            first = false;
            continue;
        }
        if (!first) {
            if (*at != ',')
                return false;
            at = skip_space(at + 1, end);
            if (at >= end)
                return false;
        }
        if (frame->list) {
            node = child_by_index(scan, frame->node, frame->index++);
        } else {
            struct pk_scan_value key = { 0 };
            if (*at != '"' || (at = scan_string(at + 1, end, &key, &nul)) == NULL || nul)
                return false;
            node = child_by_key(scan, frame->node, &key);
            at = skip_space(at, end);
            if (at >= end || *at != ':')
                return false;
            at = skip_space(at + 1, end);
            if (at >= end)
                return false;
        }
        first = false;
        if (*at == '{' || *at == '[') {
            keep(scan, node, &found, values);
            /* jansson counts the values within, hence one less */
            if (++depth >= PK_SCAN_DEPTH_MAX - 1)
                return false;
            frames[depth] = (struct frame){ .node = (int16_t)node, .list = *at == '[' };
            at++;
            first = true;
            continue;
        }
        at = *at == '"'                                 ? scan_string(at + 1, end, &found, &nul)
             : *at == '-' || (*at >= '0' && *at <= '9') ? scan_number(at, end, &found)
                                                        : scan_word(at, end, &found);
        if (at == NULL)
            return false;
        keep(scan, node, &found, values);
    }
    return skip_space(at, end) == end;
}

size_t pk_scan_text(const struct pk_scan_value *value, char *out)
{
    const char *at = value->at, *end = value->at + value->len;
    char *to = out;

    if (!value->escaped) {
        memcpy(out, at, value->len);
        return value->len;
    }
    while (at < end) {
        uint32_t code = 0;
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        at = read_escape(at + 1, end, &code);
        if (at == NULL) /* it was checked: cannot be */
            break;
        if (code < 0x80) {
            *to++ = (char)code;
        } else if (code < 0x800) {
            *to++ = (char)(0xc0 | code >> 6);
            *to++ = (char)(0x80 | (code & 0x3f));
        } else if (code < 0x10000) {
            *to++ = (char)(0xe0 | code >> 12);
            *to++ = (char)(0x80 | (code >> 6 & 0x3f));
            *to++ = (char)(0x80 | (code & 0x3f));
        } else {
            *to++ = (char)(0xf0 | code >> 18);
            *to++ = (char)(0x80 | (code >> 12 & 0x3f));
            *to++ = (char)(0x80 | (code >> 6 & 0x3f));
            *to++ = (char)(0x80 | (code & 0x3f));
        }
    }
    return (size_t)(to - out);
}
