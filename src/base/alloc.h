/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All heap memory comes from here. Out of line and without malloc attributes: tests make the Nth
 * allocation fail, and static analysers do not report false leaks with the cleanup attribute.
 */
#ifndef PICKET_BASE_ALLOC_H
#define PICKET_BASE_ALLOC_H

#include <stdarg.h>

#include "base/common.h"

/* Zeroed memory, or NULL. Release with pk_free(). Any thread. */
void *pk_zalloc(size_t size);
/* As pk_zalloc(count * size), NULL on overflow. */
void *pk_zalloc_array(size_t count, size_t size);
/* As realloc(old, count * size); NULL on overflow or failure, old is then unchanged. New bytes are
 * not zeroed. */
void *pk_realloc_array(void *old, size_t count, size_t size);
/* Not zeroed, never NULL, never failed by tests: without memory the process ends. Only for code
 * that is not ours and does not survive a failure. */
void *pk_alloc_or_abort(size_t size);
char *pk_strdup(const char *text);              /* NULL gives NULL */
char *pk_strndup(const char *text, size_t len); /* stops at a NUL too */
void *pk_memdup(const void *data, size_t len);  /* len 0 gives 1 byte */
char *pk_asprintf(const char *fmt, ...) PK_PRINTF(1, 2);
char *pk_vasprintf(const char *fmt, va_list args) PK_PRINTF(1, 0);
void pk_free(void *pointer); /* NULL is fine */

/* PK_CLEANUP(pk_free_p) for any pointer type. */
static inline void pk_free_p(void *pointer_to_pointer)
{
    pk_free(*(void **)pointer_to_pointer);
}

/* Tests: the nth allocation from now (1 = the next one) fails, once. 0 = never. */
void pk_alloc_fail_nth(unsigned long nth);
/* Tests: allocations made since the last pk_alloc_fail_nth(). */
unsigned long pk_alloc_count(void);

#endif
