/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass over a JSON record: checks it whole, as strictly as jansson, and takes out the values at
 * the paths that were asked for. Nothing is allocated per record. A key that comes twice: the last
 * one counts. The fuzz target holds it to jansson's answers.
 */
#ifndef PICKET_SHIP_SCAN_H
#define PICKET_SHIP_SCAN_H

#include "base/common.h"
#include "base/error.h"

#define PK_SCAN_SLOTS_MAX 48u
#define PK_SCAN_DEPTH_MAX 2048 /* as jansson */

enum pk_scan_type {
    PK_SCAN_ABSENT, /* also null, objects and lists */
    PK_SCAN_STRING,
    PK_SCAN_INTEGER,
    PK_SCAN_REAL,
    PK_SCAN_TRUE,
    PK_SCAN_FALSE,
};

struct pk_scan_value {
    enum pk_scan_type type;
    uint8_t rank;   /* of the path that it was found at: lower wins */
    bool escaped;   /* has \ escapes: pk_scan_text() makes the text */
    const char *at; /* in the record: between the quotes, or the number's digits */
    uint32_t len;
};

struct pk_scan; /* compiled paths; read-only once compiled, any thread */
int pk_scan_new(struct pk_scan **ret_scan, struct pk_error *err);
void pk_scan_free(struct pk_scan *scan);
PK_DEFINE_CLEANUP(struct pk_scan, pk_scan_free);
/* paths: several with '|', the first that is there counts. literal: the path is one key, dots and
 * all; else dots go down, and a number is a list's index. */
int pk_scan_add(struct pk_scan *scan, unsigned slot, const char *paths, bool literal,
                struct pk_error *err);

/* True when text is one JSON object and nothing else but white space. values has PK_SCAN_SLOTS_MAX
 * entries; all are set. */
bool pk_scan_record(const struct pk_scan *scan, const char *text, size_t len,
                    struct pk_scan_value *values);
/* The string's text with its escapes resolved into out, which has room for value->len bytes;
 * returns its length. Without escapes it is copied as it is. */
size_t pk_scan_text(const struct pk_scan_value *value, char *out);

#endif
