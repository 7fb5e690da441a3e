/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

static const struct pk_code_info code_table[] = {
    { PK_OK, "ok", 0, 200, "success" },
    { PK_E_NOMEM, "no-memory", 1, 503, "out of memory" },
    { PK_E_USAGE, "usage", 2, 400, "the command line or request is wrong" },
    { PK_E_INVALID, "invalid", 2, 422, "an input file is wrong" },
    { PK_E_NOTFOUND, "not-found", 3, 404, "something named does not exist" },
    { PK_E_CONFLICT, "conflict", 5, 409, "the state has moved on, or a name or port is taken" },
    { PK_E_DENIED, "denied", 4, 403, "not permitted" },
    { PK_E_IO, "io", 1, 500, "an input or output operation failed" },
    { PK_E_UNREACHABLE, "unreachable", 6, 502, "the server, agent or engine does not answer" },
    { PK_E_TIMEOUT, "timeout", 7, 504, "it took too long" },
    { PK_E_UNSUPPORTED, "unsupported", 1, 501, "not supported here" },
    { PK_E_PARTIAL, "partial", 8, 500, "partly applied; the journal is kept" },
    { PK_E_NOSPACE, "no-space", 1, 507, "a disk or a table is full" },
    { PK_E_INTERNAL, "internal", 1, 500, "a fault of picket itself" },
    { PK_E_INTERRUPTED, "interrupted", 130, 500, "interrupted" },
};

const struct pk_code_info *pk_code_table(size_t *ret_count)
{
    *ret_count = PK_ARRAY_SIZE(code_table);
    return code_table;
}

const struct pk_code_info *pk_code_info(int code)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(code_table); i++)
        if (code_table[i].code == code)
            return &code_table[i];
    return pk_code_info(PK_E_INTERNAL);
}

const struct pk_code_info *pk_code_info_by_name(const char *name)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(code_table); i++)
        if (strcmp(code_table[i].name, name) == 0)
            return &code_table[i];
    return NULL;
}

static void fill(struct pk_error *err, int code, int sys, const char *fmt, va_list args)
{
    memset(err, 0, sizeof(*err));
    err->code = code;
    err->sys = sys;
    (void)vsnprintf(err->msg, sizeof(err->msg), fmt, args);
}

int pk_fail(struct pk_error *err, int code, const char *fmt, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, fmt);
        fill(err, code, 0, fmt, args);
        va_end(args);
    }
    return code;
}

static int code_of_errno(int sys)
{
    switch (sys) {
    case ENOMEM:
        return PK_E_NOMEM;
    case ENOENT:
    case ENODEV:
    case ENOTDIR:
        return PK_E_NOTFOUND;
    case EACCES:
    case EPERM:
        return PK_E_DENIED;
    case EEXIST:
    case EBUSY:
    case EADDRINUSE:
        return PK_E_CONFLICT;
    case ENOSPC:
    case EDQUOT:
        return PK_E_NOSPACE;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
        return PK_E_UNREACHABLE;
    case ETIMEDOUT:
        return PK_E_TIMEOUT;
    case EOPNOTSUPP:
    case ENOSYS:
        return PK_E_UNSUPPORTED;
    case EINTR:
        return PK_E_INTERRUPTED;
    default:
        return PK_E_IO;
    }
}

int pk_fail_errno(struct pk_error *err, int sys, const char *fmt, ...)
{
    int code = code_of_errno(sys);
    if (err == NULL)
        return code;
    va_list args;
    va_start(args, fmt);
    fill(err, code, sys, fmt, args);
    va_end(args);
    size_t used = strlen(err->msg);
    char text[128];
    (void)snprintf(err->msg + used, sizeof(err->msg) - used, ": %s",
                   strerror_r(sys, text, sizeof(text)));
    return code;
}

int pk_no_memory(struct pk_error *err)
{
    return pk_fail(err, PK_E_NOMEM, "out of memory");
}

int pk_wrap(struct pk_error *err, const char *fmt, ...)
{
    if (err == NULL)
        return PK_E_INTERNAL;
    char old[sizeof(err->msg)];
    memcpy(old, err->msg, sizeof(old));
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(err->msg, sizeof(err->msg), fmt, args);
    va_end(args);
    size_t used = strlen(err->msg);
    (void)snprintf(err->msg + used, sizeof(err->msg) - used, ": %s", old);
    return err->code;
}

int pk_hint(struct pk_error *err, const char *fmt, ...)
{
    if (err == NULL)
        return PK_E_INTERNAL;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(err->hint, sizeof(err->hint), fmt, args);
    va_end(args);
    return err->code;
}

void pk_error_at(struct pk_error *err, const char *file, unsigned line, unsigned col)
{
    if (err == NULL)
        return;
    (void)snprintf(err->file, sizeof(err->file), "%s", file);
    err->line = line;
    err->col = col;
}

void pk_errors_add(struct pk_errors *errors, const struct pk_error *err)
{
    struct pk_error *grown = NULL;
    if (errors->count < PK_ERRORS_MAX)
        grown = pk_realloc_array(errors->list, errors->count + 1, sizeof(*grown));
    if (grown == NULL) {
        errors->dropped++;
        return;
    }
    errors->list = grown;
    errors->list[errors->count++] = *err;
}

void pk_errors_done(struct pk_errors *errors)
{
    pk_free(errors->list);
    memset(errors, 0, sizeof(*errors));
}
