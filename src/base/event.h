/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The columns of an event: one table (event.c), from which the shipper's parser, the wire format, the
 * store's table and Parquet schema, the query fields and the documentation are made.
 */
#ifndef PICKET_BASE_EVENT_H
#define PICKET_BASE_EVENT_H

#include "base/common.h"

enum pk_column_type { PK_COL_TIME, PK_COL_TEXT, PK_COL_U64, PK_COL_IP };

struct pk_column {
    const char *name;       /* "src_ip": in queries and in JSON */
    enum pk_column_type type;
    const char *eve;        /* dotted path in an EVE record, several with '|'; NULL = made by ship */
    const char *zeek;       /* key in a Zeek JSON record, several with '|' */
    const char *alias;      /* other accepted names in queries, with '|': "source.ip|id.orig_h" */
    const char *help;
};
const struct pk_column *pk_event_columns(size_t *ret_count);
/* By name or alias; -1 if unknown. */
int pk_event_column(const char *name);

#endif
