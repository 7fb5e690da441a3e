/* SPDX-License-Identifier: Apache-2.0 */
/* What 'picket top' shows: ledgers become rows with rates, rows become lines. No I/O. */
#ifndef PICKET_CLI_TOP_H
#define PICKET_CLI_TOP_H

#include <jansson.h>

#include "base/buf.h"
#include "base/common.h"

enum pk_top_sort { PK_TOP_BY_WAY, PK_TOP_BY_PACKETS, PK_TOP_BY_BITS, PK_TOP_BY_LOSS };
const char *pk_top_sort_name(enum pk_top_sort sort);

/* Two ledgers of one fleet, one later than the other (NULL = there was none: no rates), as rows in
 * the order of the way, in each of its places sorted as asked:
 * [{"key","fleet","kind":"tap|tenant|group|lane|tool","name","depth","state","slots","packets",
 *   "bytes","lost","packetsPerSecond","bitsPerSecond","lostPerSecond","lostShare"}]
 * NULL = out of memory. */
json_t *pk_top_rows(const json_t *before, const json_t *now, enum pk_top_sort sort);

#define PK_TOP_HISTORY 120u
/* Puts the rows' packet rates to their histories: {key: [rates, newest last]}. Rows that are gone
 * are forgotten. */
int pk_top_remember(json_t *histories, const json_t *rows);

struct pk_top_view {
    unsigned width, height;
    bool color, utf8;
    bool paused, help;
    bool busy_only; /* leave out what has no packets */
    size_t first;   /* row at the top of the list; kept within bounds by pk_top_draw() */
    enum pk_top_sort sort;
    const char *title;   /* "border  07:12:31Z" */
    const char *trouble; /* shown in place of the keys; "" = none */
};
/* One screen, lines separated by "\r\n", each at most width columns wide. */
int pk_top_draw(struct pk_top_view *view, const json_t *rows, const json_t *histories,
                struct pk_buf *out);
/* "12.3k" in at most 6 columns, "-" for less than 0. Returns out. */
char *pk_top_number(double value, char out[16]);

#endif
