/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes and small macros used everywhere. */
#ifndef PICKET_BASE_COMMON_H
#define PICKET_BASE_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PK_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define PK_MUST_CHECK        __attribute__((warn_unused_result))
#define PK_UNUSED            __attribute__((unused))

/* Runs fn(&variable) when the variable goes out of scope. */
#define PK_CLEANUP(fn) __attribute__((cleanup(fn)))

/* Moves a pointer out of a PK_CLEANUP variable: yields it and leaves NULL behind. */
#define PK_TAKE(pointer)                           \
    __extension__({                                \
        __typeof__(pointer) pk_taken_ = (pointer); \
        (pointer) = NULL;                          \
        pk_taken_;                                 \
    })

/* Defines name_p(type **), the function that PK_CLEANUP calls, from name(type *). */
#define PK_DEFINE_CLEANUP(type, name)           \
    static inline void name##_p(type **pointer) \
    {                                           \
        name(*pointer);                         \
    }                                           \
    struct pk_swallow_semicolon_

#define PK_ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define PK_MIN(a, b)         ((a) < (b) ? (a) : (b))
#define PK_MAX(a, b)         ((a) > (b) ? (a) : (b))

/* Nanoseconds: since the Unix epoch for a point in time, else a span. The only time type. */
typedef int64_t pk_nsec;
#define PK_NSEC_PER_SEC 1000000000LL
#define PK_NSEC_PER_MS  1000000LL

#endif
