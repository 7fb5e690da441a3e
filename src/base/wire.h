/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A batch of events on its way from ship to the store. Little endian:
 *
 *   "PKEB"  u32 version  u64 hash of the column table  u64 from  u64 to  u64 lane
 *   u64 lost events  u64 lost bytes  u32 flags  u32 rows
 *   texts, each u16 length + bytes: session, source, fleet, group, tool, path
 *   rows, each: u32 mask of the columns that are set, then their values in the table's order:
 *     TIME, U64: 8 bytes   IP: u8 length (4 or 16) + bytes   TEXT: u32 length + UTF-8
 *   nothing after the last row
 *
 * from and to are offsets in the source: the batch stands for its bytes [from, to), whether they
 * became rows or were given up (lost). That makes delivery exactly-once: the store takes a batch
 * only if it goes on where the last one ended. The columns with PK_COLUMN_SOURCE are never in rows.
 */
#ifndef PICKET_BASE_WIRE_H
#define PICKET_BASE_WIRE_H

#include "base/buf.h"
#include "base/common.h"
#include "base/error.h"
#include "base/event.h"

#define PK_WIRE_TYPE     "application/x-picket-events"
#define PK_WIRE_MAX      (8u << 20) /* bytes of a batch */
#define PK_WIRE_ROWS_MAX 65536u
#define PK_WIRE_END      1u /* flag: the source is complete and its file is gone */
#define PK_WIRE_NAME_MAX 128u
#define PK_WIRE_PATH_MAX 1024u

struct pk_batch {
    const char *session, *source, *fleet, *group, *tool, *path; /* path: the log file, for people */
    uint64_t lane;
    uint64_t from, to;
    uint64_t lost_events, lost_bytes;
    uint32_t flags;
};

/* Starts a batch in buf (cleared first; its max should be PK_WIRE_MAX). */
int pk_wire_begin(struct pk_buf *buf, const struct pk_batch *batch, struct pk_error *err);
/* Adds a row; values has one entry per column. PK_E_NOSPACE and nothing added when the batch is
 * full: deliver it and begin another. */
int pk_wire_add(struct pk_buf *buf, const struct pk_value *values, struct pk_error *err);
/* Fills in what is known only now. */
void pk_wire_finish(struct pk_buf *buf, uint64_t to, uint64_t lost_events, uint64_t lost_bytes);
uint32_t pk_wire_rows(const struct pk_buf *buf);

struct pk_wire_reader {
    struct pk_batch batch; /* texts point into names */
    uint32_t rows, row;
    const unsigned char *at, *end;
    char names[5 * (PK_WIRE_NAME_MAX + 1) + PK_WIRE_PATH_MAX + 1];
};
/* data is borrowed until the last pk_wire_next(). PK_E_INVALID: no batch; PK_E_UNSUPPORTED: made
 * with another version of the column table. */
int pk_wire_open(struct pk_wire_reader *reader, const void *data, size_t len, struct pk_error *err);
/* 1 = a row (texts borrowed from data), 0 = the end and nothing is left over. */
int pk_wire_next(struct pk_wire_reader *reader, struct pk_value *values, struct pk_error *err);

#endif
