/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one error type. Contract of every fallible function:
 * success returns >= 0, sets all ret_ parameters and leaves *err alone; failure returns a negative
 * enum pk_code, fills *err (err may be NULL) and touches no ret_ parameter. Library code neither
 * prints nor logs errors; the command line, the HTTP servers and the daemons' main loops do.
 */
#ifndef PICKET_BASE_ERROR_H
#define PICKET_BASE_ERROR_H

#include "base/common.h"

enum pk_code {
    PK_OK = 0,
    PK_E_NOMEM = -1,
    PK_E_USAGE = -2,   /* the command line or the request is wrong */
    PK_E_INVALID = -3, /* an input file is wrong in itself: has file, line, column */
    PK_E_NOTFOUND = -4,
    PK_E_CONFLICT = -5, /* fine in itself, but reality moved or is taken: plan again */
    PK_E_DENIED = -6,
    PK_E_IO = -7,
    PK_E_UNREACHABLE = -8, /* engine, agent or server does not answer */
    PK_E_TIMEOUT = -9,
    PK_E_UNSUPPORTED = -10,
    PK_E_PARTIAL = -11, /* carried out in part; the journal is kept */
    PK_E_NOSPACE = -12, /* a disk, map or queue is full */
    PK_E_INTERNAL = -13,
    PK_E_INTERRUPTED = -14,
};

struct pk_error {
    int code;      /* enum pk_code */
    int sys;       /* errno or 0 */
    unsigned line; /* in the user's file, from 1; 0 = none */
    unsigned col;
    char file[192];
    char msg[512];
    char hint[256];
};

/* One row per code: the single source of names, exit statuses and HTTP statuses. */
struct pk_code_info {
    int code;
    const char *name; /* "conflict", in JSON */
    int exit_status;  /* of the command line */
    int http_status;
    const char *meaning; /* for 'picket help exit-codes' */
};
const struct pk_code_info *pk_code_info(int code);                 /* never NULL */
const struct pk_code_info *pk_code_info_by_name(const char *name); /* NULL if unknown */
const struct pk_code_info *pk_code_table(size_t *ret_count);

/* All return code, so that "return pk_fail(...)" reads well. */
int pk_fail(struct pk_error *err, int code, const char *fmt, ...) PK_PRINTF(3, 4);
/* Appends ": strerror". The code follows from sys (ENOENT -> NOTFOUND, ENOSPC -> NOSPACE, ...). */
int pk_fail_errno(struct pk_error *err, int sys, const char *fmt, ...) PK_PRINTF(3, 4);
/* PK_E_NOMEM, "out of memory". */
int pk_no_memory(struct pk_error *err);
/* Puts "what: " before the message that is there. Keeps code, position and hint. */
int pk_wrap(struct pk_error *err, const char *fmt, ...) PK_PRINTF(2, 3);
/* Sets the hint: what to do or write instead. Returns err->code (PK_E_INTERNAL when err is NULL).
 */
int pk_hint(struct pk_error *err, const char *fmt, ...) PK_PRINTF(2, 3);
/* Sets the position in the user's file. */
void pk_error_at(struct pk_error *err, const char *file, unsigned line, unsigned col);

/* Several errors of one input, so that all of a file's faults are shown at once. Bounded: at most
 * PK_ERRORS_MAX are kept, the rest is only counted. */
#define PK_ERRORS_MAX 100
struct pk_errors {
    struct pk_error *list;
    size_t count;   /* kept */
    size_t dropped; /* beyond the limit */
};
/* Adds a copy. Out of memory: counted in dropped. */
void pk_errors_add(struct pk_errors *errors, const struct pk_error *err);
void pk_errors_done(struct pk_errors *errors);

#endif
