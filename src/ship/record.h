/* SPDX-License-Identifier: Apache-2.0 */
/* One line of a tool's log -> the columns of an event. */
#ifndef PICKET_SHIP_RECORD_H
#define PICKET_SHIP_RECORD_H

#include "base/common.h"
#include "base/error.h"
#include "base/event.h"

enum pk_log_format { PK_LOG_EVE, PK_LOG_ZEEK_JSON };

#define PK_LINE_MAX (1u << 20) /* longer lines are cut and kept as "invalid" */

struct pk_records; /* scanner, scratch memory, caches; one thread */
int pk_records_new(struct pk_records **ret_records, struct pk_error *err);
void pk_records_free(struct pk_records *records);
PK_DEFINE_CLEANUP(struct pk_records, pk_records_free);

/* Fills values (one per column) from the line, which is without its line end and at most
 * PK_LINE_MAX long; texts point into it or into records until the next call. log_type: the type
 * where the record names none (Zeek's file name), or NULL. now: the time of records without one.
 * Returns true for a record, false for a line that is none (then type is "invalid" and raw holds
 * the line). */
bool pk_records_parse(struct pk_records *records, enum pk_log_format format, const char *log_type,
                      pk_nsec now, const char *line, size_t len, struct pk_value *values);

/* Where a second record begins inside a line that is none, as after a tool died in the middle of
 * writing and began anew in the same file; 0 = nowhere. */
size_t pk_records_split(struct pk_records *records, enum pk_log_format format, const char *line,
                        size_t len);

#endif
