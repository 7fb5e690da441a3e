/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemons' log: lines on standard error, text or JSON, one write(2) each. Libraries log at most
 * PK_LOG_INFO; warnings and errors are the business of main loops. Any thread.
 */
#ifndef PICKET_BASE_LOG_H
#define PICKET_BASE_LOG_H

#include "base/common.h"
#include "base/error.h"

enum pk_log_level { PK_LOG_ERROR, PK_LOG_WARN, PK_LOG_INFO, PK_LOG_DEBUG };

void pk_log_setup(enum pk_log_level level, bool json);
/* area is the module's name: "broker", "node", ... */
void pk_log(enum pk_log_level level, const char *area, const char *fmt, ...) PK_PRINTF(3, 4);
/* "what: message (hint)" with code and position. */
void pk_log_error(enum pk_log_level level, const char *area, const struct pk_error *err,
                  const char *fmt, ...) PK_PRINTF(4, 5);

#endif
