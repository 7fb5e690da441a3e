/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The columns of an event: one table (event.c), from which the shipper's parser, the wire format,
 * the store's table and Parquet schema, the query fields and the documentation are made. To add a
 * column: one row in the table, before "raw". Old Parquet files then simply lack it.
 */
#ifndef PICKET_BASE_EVENT_H
#define PICKET_BASE_EVENT_H

#include "base/common.h"

enum pk_column_type { PK_COL_TIME, PK_COL_TEXT, PK_COL_U64, PK_COL_IP };

#define PK_COLUMN_LOWER  1u /* kept in lower case, so that equality needs no folding */
#define PK_COLUMN_SOURCE 2u /* says where the event is from; the same for a whole batch */
#define PK_COLUMN_ALWAYS 4u /* in every JSON event, null when the record has no such thing */

struct pk_column {
    const char *name; /* "src_ip": in queries and in JSON */
    enum pk_column_type type;
    unsigned flags;    /* PK_COLUMN_* */
    const char *eve;   /* dotted path in an EVE record, several with '|', the first that is there
                          counts; a number is a list's index; NULL = made by ship */
    const char *zeek;  /* key in a Zeek JSON record (dots and all), several with '|' */
    const char *alias; /* other accepted names in queries, with '|': "source.ip|id.orig_h" */
    const char *help;
};
const struct pk_column *pk_event_columns(size_t *ret_count);
/* By name or alias; -1 if unknown. */
int pk_event_column(const char *name);
/* Changes when the table does: batches and files tell with it which columns they have. */
uint64_t pk_event_columns_hash(void);

/* Positions of the columns that code needs by name; event.c holds the table to them. */
enum {
    PK_EV_TIME,
    PK_EV_TYPE,
    PK_EV_FLEET,
    PK_EV_GROUP,
    PK_EV_LANE,
    PK_EV_TOOL,
    PK_EV_SRC_IP,
    PK_EV_SRC_PORT,
    PK_EV_DST_IP,
    PK_EV_DST_PORT,
    PK_EV_PROTO,
    PK_EV_COMMUNITY_ID,
    PK_EV_FIRST_FREE, /* the columns from here on are only in the table */
};
#define PK_EVENT_COLUMNS_MAX 32

/* One value of an event; which member holds it follows from the column's type. */
struct pk_value {
    bool set;
    uint8_t ip_len; /* IP: 4 or 16 */
    uint32_t len;   /* TEXT */
    union {
        const char *text; /* borrowed, UTF-8, not NUL-terminated */
        uint64_t number;  /* U64: at most INT64_MAX */
        pk_nsec time;
        uint8_t ip[16];
    };
};

#endif
