/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing byte buffer with a mandatory maximum. Always NUL-terminated once data is non-NULL.
 * After a failed append the buffer is "failed": later appends do nothing, so a writer may check
 * once at the end. Not thread safe.
 */
#ifndef PICKET_BASE_BUF_H
#define PICKET_BASE_BUF_H

#include <stdarg.h>

#include "base/common.h"

struct pk_buf {
    char *data;
    size_t len;
    size_t capacity;
    size_t max; /* bytes; appends beyond it fail */
    bool failed;
};

#define PK_BUF_INIT(max_bytes) ((struct pk_buf){ .max = (max_bytes) })

void pk_buf_done(struct pk_buf *buf);
void pk_buf_clear(struct pk_buf *buf); /* keeps the memory, resets failed */
/* The appends return 0 or PK_E_NOMEM (out of memory) / PK_E_NOSPACE (over max). */
int pk_buf_add(struct pk_buf *buf, const void *data, size_t len);
int pk_buf_puts(struct pk_buf *buf, const char *text);
int pk_buf_putc(struct pk_buf *buf, char c);
int pk_buf_printf(struct pk_buf *buf, const char *fmt, ...) PK_PRINTF(2, 3);
int pk_buf_vprintf(struct pk_buf *buf, const char *fmt, va_list args) PK_PRINTF(2, 0);
/* Makes room for len more bytes at data + len without changing len. */
int pk_buf_reserve(struct pk_buf *buf, size_t len);
/* Removes the first len bytes. */
void pk_buf_consume(struct pk_buf *buf, size_t len);
/* Moves the text out; caller releases with pk_free(). NULL if the buffer failed (it is then
 * released); an empty buffer gives "". */
char *pk_buf_take(struct pk_buf *buf);

#endif
