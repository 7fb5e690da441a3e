/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The query language for events, and its translation to SQL. Values never become SQL text: they are
 * bound as parameters.
 *
 *   query   = [or]
 *   or      = and { "OR" and }
 *   and     = not { ["AND"] not }             a space means AND
 *   not     = ["NOT" | "-"] primary
 *   primary = "(" or ")" | field op value | word | phrase
 *   op      = ":" | ":>=" | ":<=" | ":>" | ":<" | ">=" | "<=" | ">" | "<" | "="
 *   value   = word | phrase
 *   phrase  = '"' any text, \" and \\ for a quote and a backslash '"'
 *
 * A word or phrase alone is looked for in the raw record, whatever the case. In a field's value, *
 * is any text; a value of only * asks that the field is there. Address fields take a network
 * (10.0.0.0/8); time takes what --since takes. "ip" and "port" stand for source or destination.
 * Text is compared whatever the case. AND, OR, NOT are in capitals.
 */
#ifndef PICKET_STORE_QUERY_H
#define PICKET_STORE_QUERY_H

#include "base/buf.h"
#include "base/common.h"
#include "base/error.h"
#include "base/event.h"

#define PK_QUERY_MAX       4096u /* bytes of a query */
#define PK_QUERY_PARAM_MAX 256u
#define PK_QUERY_DEPTH_MAX 32u

struct pk_param {
    bool is_text;
    int64_t number;
    char *text; /* owned */
    size_t len;
};

struct pk_query {
    char *where; /* SQL condition with $1.. for params; "true" for an empty query */
    struct pk_param *params;
    size_t param_count;
    bool heavy;    /* looks into texts row by row */
    char type[33]; /* when only events of one type can match: that type; else "" */
};

/* text may be NULL. Errors are PK_E_USAGE with the column in the query (file "query"). */
int pk_query_parse(const char *text, pk_nsec now, struct pk_query *ret_query, struct pk_error *err);
void pk_query_done(struct pk_query *query);
/* Adds a parameter, *ret_index as in SQL ($1 is 1). */
int pk_query_param_number(struct pk_query *query, int64_t number, size_t *ret_index,
                          struct pk_error *err);

/* The error for a field that is not there, with the closest one as hint; col 0 = no position. */
int pk_query_unknown_field(const char *name, unsigned col, struct pk_error *err);

/* "10.0.0.0/8", "2001:db8::1" -> 16 bytes (IPv4 mapped) and the prefix length in them. */
bool pk_query_net(const char *text, size_t len, uint8_t ret_net[16], unsigned *ret_bits);

#endif
