/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_ulong fail_nth;
static atomic_ulong made;

static bool must_fail(void)
{
    unsigned long nth = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) + 1;
    unsigned long fail = atomic_load_explicit(&fail_nth, memory_order_relaxed);
    return fail != 0 && nth == fail;
}

void pk_alloc_fail_nth(unsigned long nth)
{
    atomic_store(&made, 0);
    atomic_store(&fail_nth, nth);
}

unsigned long pk_alloc_count(void)
{
    return atomic_load(&made);
}

void *pk_zalloc(size_t size)
{
    return must_fail() ? NULL : calloc(1, size == 0 ? 1 : size);
}

void *pk_zalloc_array(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return pk_zalloc(bytes);
}

void *pk_realloc_array(void *old, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || must_fail())
        return NULL;
    return realloc(old, bytes == 0 ? 1 : bytes);
}

void *pk_alloc_or_abort(size_t size)
{
    void *memory = malloc(size == 0 ? 1 : size);
    if (memory == NULL)
        abort();
    return memory;
}

void *pk_memdup(const void *data, size_t len)
{
    void *copy = pk_zalloc(len);
    if (copy != NULL && len > 0)
        memcpy(copy, data, len);
    return copy;
}

char *pk_strndup(const char *text, size_t len)
{
    if (text == NULL)
        return NULL;
    len = strnlen(text, len);
    char *copy = pk_zalloc(len + 1);
    if (copy != NULL)
        memcpy(copy, text, len);
    return copy;
}

char *pk_strdup(const char *text)
{
    return text == NULL ? NULL : pk_strndup(text, strlen(text));
}

char *pk_vasprintf(const char *fmt, va_list args)
{
    va_list copy;
    va_copy(copy, args);
    int len = vsnprintf(NULL, 0, fmt, copy);
    va_end(copy);
    if (len < 0)
        return NULL;
    char *text = pk_zalloc((size_t)len + 1);
    if (text != NULL)
        (void)vsnprintf(text, (size_t)len + 1, fmt, args);
    return text;
}

char *pk_asprintf(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *text = pk_vasprintf(fmt, args);
    va_end(args);
    return text;
}

void pk_free(void *pointer)
{
    free(pointer);
}
