/* SPDX-License-Identifier: Apache-2.0 */
/* For tools/analyse only, before every file but base/error.c: what the analysers cannot know. */
#include "base/error.h"

/* A failure is negative: without this they follow it into code that only success reaches. */
static inline int pk_negative(int code)
{
    if (code >= 0)
        __builtin_unreachable();
    return code;
}
#define pk_fail(...) pk_negative(pk_fail(__VA_ARGS__))
#define pk_fail_errno(...) pk_negative(pk_fail_errno(__VA_ARGS__))
#define pk_no_memory(err) pk_negative(pk_no_memory(err))
#define pk_wrap(...) pk_negative(pk_wrap(__VA_ARGS__))
#define pk_hint(...) pk_negative(pk_hint(__VA_ARGS__))
