/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

void pk_buf_done(struct pk_buf *buf)
{
    pk_free(buf->data);
    *buf = PK_BUF_INIT(buf->max);
}

void pk_buf_clear(struct pk_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
    if (buf->data != NULL)
        buf->data[0] = '\0';
}

static int fail(struct pk_buf *buf, int code)
{
    buf->failed = true;
    return code;
}

int pk_buf_reserve(struct pk_buf *buf, size_t len)
{
    if (buf->failed)
        return PK_E_NOSPACE;
    if (len > buf->max || buf->len > buf->max - len)
        return fail(buf, PK_E_NOSPACE);
    size_t need = buf->len + len + 1; /* the NUL is not counted against max */
    if (need <= buf->capacity)
        return 0;
    size_t capacity = PK_MAX(buf->capacity * 2, (size_t)64);
    capacity = PK_MIN(PK_MAX(capacity, need), buf->max + 1);
    char *grown = pk_realloc_array(buf->data, capacity, 1);
    if (grown == NULL)
        return fail(buf, PK_E_NOMEM);
    buf->data = grown;
    buf->capacity = capacity;
    buf->data[buf->len] = '\0';
    return 0;
}

int pk_buf_add(struct pk_buf *buf, const void *data, size_t len)
{
    int r = pk_buf_reserve(buf, len);
    if (r < 0)
        return r;
    if (len > 0)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
    return 0;
}

int pk_buf_puts(struct pk_buf *buf, const char *text)
{
    return pk_buf_add(buf, text, strlen(text));
}

int pk_buf_putc(struct pk_buf *buf, char c)
{
    return pk_buf_add(buf, &c, 1);
}

int pk_buf_vprintf(struct pk_buf *buf, const char *fmt, va_list args)
{
    va_list copy;
    va_copy(copy, args);
    int len = vsnprintf(NULL, 0, fmt, copy);
    va_end(copy);
    if (len < 0)
        return fail(buf, PK_E_NOSPACE);
    int r = pk_buf_reserve(buf, (size_t)len);
    if (r < 0)
        return r;
    (void)vsnprintf(buf->data + buf->len, (size_t)len + 1, fmt, args);
    buf->len += (size_t)len;
    return 0;
}

int pk_buf_printf(struct pk_buf *buf, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int r = pk_buf_vprintf(buf, fmt, args);
    va_end(args);
    return r;
}

void pk_buf_consume(struct pk_buf *buf, size_t len)
{
    len = PK_MIN(len, buf->len);
    if (len == 0)
        return;
    memmove(buf->data, buf->data + len, buf->len - len);
    buf->len -= len;
    buf->data[buf->len] = '\0';
}

char *pk_buf_take(struct pk_buf *buf)
{
    if (buf->failed || (buf->data == NULL && pk_buf_reserve(buf, 0) < 0)) {
        pk_buf_done(buf);
        return NULL;
    }
    char *text = PK_TAKE(buf->data);
    *buf = PK_BUF_INIT(buf->max);
    return text;
}
