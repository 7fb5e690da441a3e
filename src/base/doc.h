/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A document tree with positions, read from YAML 1.2 (so also JSON) with libfyaml. Fleets, package
 * manifests, value schemas and recipes are read with it; their errors name file, line and column.
 * Anchors and aliases are resolved with a bound on the expansion; duplicate keys, several documents
 * and tags other than the core schema's are errors. Immutable after parsing; any thread.
 */
#ifndef PICKET_BASE_DOC_H
#define PICKET_BASE_DOC_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"

enum pk_node_kind {
    PK_NODE_NULL,
    PK_NODE_BOOL,
    PK_NODE_INT,
    PK_NODE_FLOAT,
    PK_NODE_STRING,
    PK_NODE_LIST,
    PK_NODE_MAP
};

struct pk_doc;

struct pk_node {
    enum pk_node_kind kind;
    unsigned line, col;         /* of the value, from 1 */
    unsigned key_line, key_col; /* of the key, for members of a map */
    const char *key;            /* for members of a map, else NULL */
    const char *text;           /* scalars as written (after YAML unquoting) */
    bool quoted;                /* a quoted scalar is always a string */
    int64_t integer;            /* PK_NODE_INT, and 0/1 for PK_NODE_BOOL */
    double number;              /* PK_NODE_FLOAT and PK_NODE_INT */
    struct pk_node **items;     /* of a list, or a map's values in order */
    size_t count;
};

#define PK_DOC_MAX_BYTES (4u << 20)
#define PK_DOC_MAX_NODES 200000u
#define PK_DOC_MAX_DEPTH 64u

/* name is what errors call the file. The first syntax error is reported with its position. An empty
 * document is a PK_NODE_NULL root. */
int pk_doc_parse(const char *name, const char *text, size_t len, struct pk_doc **ret_doc,
                 struct pk_error *err);
int pk_doc_load(const char *path, struct pk_doc **ret_doc, struct pk_error *err); /* "-" = stdin */
void pk_doc_free(struct pk_doc *doc);
PK_DEFINE_CLEANUP(struct pk_doc, pk_doc_free);
const char *pk_doc_name(const struct pk_doc *doc);
const struct pk_node *pk_doc_root(const struct pk_doc *doc); /* valid until pk_doc_free() */

const struct pk_node *pk_node_get(const struct pk_node *map, const char *key); /* NULL if absent */
const char *pk_node_kind_name(enum pk_node_kind kind); /* "string", "list", ... */
/* A JSON value of the tree; NULL when out of memory. */
json_t *pk_node_to_json(const struct pk_node *node);
/* Follows a JSON pointer (RFC 6901, "/lanes/0") as far as it goes; never NULL. For positions of
 * errors found in the JSON form. */
const struct pk_node *pk_node_resolve(const struct pk_node *root, const char *pointer);
/* Fills code PK_E_INVALID, message and the node's position. Returns PK_E_INVALID. */
int pk_node_fail(const struct pk_doc *doc, const struct pk_node *node, struct pk_error *err,
                 const char *fmt, ...) PK_PRINTF(4, 5);

/* Canonical YAML of a JSON value: block style, two spaces, strings quoted only where YAML would
 * read them as something else, keys in insertion order. Release with pk_free(); NULL = out of
 * memory. */
char *pk_yaml_of_json(const json_t *json);

#endif
