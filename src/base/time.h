/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PICKET_BASE_TIME_H
#define PICKET_BASE_TIME_H

#include "base/common.h"
#include "base/error.h"

pk_nsec pk_time_now(void);       /* CLOCK_REALTIME */
pk_nsec pk_time_monotonic(void); /* CLOCK_MONOTONIC */
void pk_sleep_ms(unsigned ms);   /* resumes after signals */

/* RFC 3339 in UTC, with as many decimals (0, 3, 6 or 9) as asked; out needs 36 bytes; returns out.
 */
char *pk_time_format(pk_nsec when, int decimals, char *out, size_t size);
/* RFC 3339 with any offset, also "+0000" as Suricata writes it, "Z" or a space for "T"; digits are
 * read as text, never through a double. len bytes, whole text must match. */
int pk_time_parse(const char *text, size_t len, pk_nsec *ret_when, struct pk_error *err);
/* For --since and --until: RFC 3339, "now", a span ago ("1h", "2d"), "today", "yesterday". */
int pk_time_parse_user(const char *text, pk_nsec now, pk_nsec *ret_when, struct pk_error *err);

#endif
