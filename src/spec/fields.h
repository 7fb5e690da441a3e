/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Documents described by a table. One row per key says its path, type, range, default, meaning and
 * where its value goes in a struct; reading, defaults, validation, canonical print, JSON Schema,
 * the reference page and the example all come from the rows. Fleets (schema.c) and package
 * manifests (catalog/manifest.c) are such tables. To add a key: add a row.
 */
#ifndef PICKET_SPEC_FIELDS_H
#define PICKET_SPEC_FIELDS_H

#include <jansson.h>
#include <stdint.h>

#include "base/common.h"
#include "base/doc.h"
#include "base/error.h"

enum pk_field_type {                /* what the value is stored as: */
                     PK_FIELD_MAP,  /* nothing: its keys are rows of their own */
                     PK_FIELD_LIST, /* elem_size > 0: pointer and count; of strings: struct pk_strv;
                                       else the one element's keys are stored in the struct around
                                       the list */
                     PK_FIELD_STRING,   /* char * */
                     PK_FIELD_INT,      /* unsigned */
                     PK_FIELD_BOOL,     /* bool */
                     PK_FIELD_BYTES,    /* uint64_t; written "2GiB" or as a number */
                     PK_FIELD_DURATION, /* pk_nsec; written "30d" */
                     PK_FIELD_CHOICE,   /* unsigned: index into choices */
                     PK_FIELD_OBJECT,   /* json_t *: a map that somebody else checks */
                     PK_FIELD_VLAN,     /* in a list, struct pk_strv: a number within min and max,
                                           or text that the pattern takes: "100.200" */
};

#define PK_FIELD_REQUIRED 1u
#define PK_FIELD_OR_TEXT  4u /* OBJECT: or a string; without a default */
#define PK_FIELD_ONE_OF   2u /* exactly one of the siblings with this flag must be there */

/* How an INT's words are stored: the first as 0. */
#define PK_FIELD_WORD(index) ((index) == 0 ? 0u : UINT32_MAX - ((index)-1u))

#define PK_AT(type, member) (offsetof(type, member) + 1)

struct pk_field {
    const char
        *path; /* "spec.taps[].name"; "" is the document; a list is followed by its "[]" row */
    enum pk_field_type type;
    unsigned flags;
    int64_t min, max;    /* of the value, of a string's bytes, of a list's elements; max 0 = none */
    const char *choices; /* CHOICE: "shared|dedicated"; INT: words, stored as PK_FIELD_WORD():
                            "auto"; DURATION: one, stored as 0: "off" */
    const char *pattern; /* STRING (see pattern.h) ... */
    const char *what;    /* ... and the pattern in words: "a name (...)" */
    const char *init;    /* default as it would be written; NULL = none */
    /* Default that follows from the map around it; text in out, or NULL. */
    const char *(*derive)(const struct pk_node *map, char *out, size_t size);
    const char *derived;        /* the above in words, for the reference page */
    const char *unique;         /* the value occurs once below this path ("spec.taps") */
    const char *unique_hint;    /* NULL = "choose another" */
    const char *refers;         /* the value is one of this (unique) row's: "spec.taps[].name" */
    const char *help;           /* a sentence */
    const char *example;        /* as it would be written */
    size_t at;                  /* PK_AT(); 0 = not kept */
    size_t at_count, elem_size; /* LIST */
    size_t at_node;             /* const struct pk_node *: NULL when the user wrote none */
    size_t at_pos;              /* struct pk_pos of the value */
};

struct pk_table {
    const struct pk_field *fields; /* the first one is the document itself, path "" */
    size_t count;
    const char *title;     /* "Fleet" */
    const char *schema_id; /* "$id" of the exported JSON Schema */
};

/* Reads root into out (zeroed by the caller), with defaults. All faults are added to errors in the
 * order of their positions; PK_E_INVALID if there was any. Release with pk_table_done() always. */
int pk_table_read(const struct pk_table *table, const struct pk_doc *doc, void *out,
                  struct pk_errors *errors);
void pk_table_done(const struct pk_table *table, void *out);

/* The document in the table's order and its shortest notation; it must have been read without
 * fault. New reference, NULL = out of memory. */
json_t *pk_table_to_json(const struct pk_table *table, const struct pk_node *root,
                         bool with_defaults);
/* JSON Schema, draft 2020-12. New reference, NULL = out of memory. */
json_t *pk_table_json_schema(const struct pk_table *table);
/* The rows as a Markdown table, and as a commented document. pk_free(); NULL = out of memory. */
char *pk_table_reference(const struct pk_table *table);
char *pk_table_example(const struct pk_table *table);

/* Text from outside for an error message: quoted, control characters and bad UTF-8 escaped, cut
 * when long. Returns out. */
char *pk_quote(const char *text, char *out, size_t size);
/* Adds a fault at a node's value. */
void pk_fault(struct pk_errors *errors, const struct pk_doc *doc, unsigned line, unsigned col,
              const char *hint, const char *fmt, ...) PK_PRINTF(6, 7);
/* By line, then column; equal ones keep their order. */
void pk_errors_sort(struct pk_errors *errors);

/* ---- for fields.c and export.c ---- */
/* The row after index (start with parent's own index) that is a key of the map row parent, or
 * count. */
size_t pk_field_next_key(const struct pk_table *table, size_t parent, size_t index);
const char *pk_field_key(const struct pk_field *field); /* last part of its path */
/* What may be written: "a whole number from 1 to 256 or \"auto\"". Returns out. */
char *pk_field_expects(const struct pk_field *field, char *out, size_t size);
/* choices[index] into out; NULL past the end. */
const char *pk_field_choice(const struct pk_field *field, unsigned index, char *out, size_t size);

#endif
