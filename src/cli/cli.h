/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: one table of commands (commands.c) drives parsing, help, man pages and
 * completion. To add a command: write cmd_<name>.c with its option table and run function, add one
 * row.
 */
#ifndef PICKET_CLI_CLI_H
#define PICKET_CLI_CLI_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"
#include "base/http.h"
#include "base/paths.h"
#include "base/str.h"

enum pk_opt_type {
    PK_OPT_FLAG,     /* bool */
    PK_OPT_STRING,   /* const char * */
    PK_OPT_UINT,     /* uint64_t */
    PK_OPT_DOUBLE,   /* double */
    PK_OPT_BYTES,    /* uint64_t */
    PK_OPT_DURATION, /* pk_nsec */
    PK_OPT_CHOICE,   /* const char *, one of choices */
};

struct pk_opt {
    const char *name; /* "since", without dashes */
    char letter;      /* 0 = none */
    enum pk_opt_type type;
    const char *value; /* metavariable: "TIME"; with PK_OPT_CHOICE the choices: "table|json" */
    size_t offset;     /* into the command's args struct */
    const char *help;
    const char *complete; /* "file", "dir", "fleet", "tap", "package", "a|b|c" or NULL */
};

enum pk_output { PK_OUT_TABLE, PK_OUT_WIDE, PK_OUT_JSON, PK_OUT_YAML, PK_OUT_NAME };

struct pk_ctx {
    struct pk_paths paths;
    const char *server; /* --server URL or NULL: unix:<run>/serve.sock */
    const char *token_file;
    enum pk_output output;
    bool no_headers, quiet, verbose, yes, color, tty; /* tty: stdout is a terminal */
    bool error_reported;                              /* the command printed its errors itself */
};

#define PK_CMD_OUTPUT  1u /* takes -o */
#define PK_CMD_HIDDEN  2u
#define PK_CMD_CONFIRM 4u /* takes --yes */

struct pk_arg {       /* positional argument, for help and completion */
    const char *name; /* "FLEET" */
    const char *help;
    const char *complete; /* as in pk_opt */
    bool optional, many;
};

struct pk_cmd {
    const char *name;            /* "plan", "spec check" */
    const char *group;           /* heading in help: "Change", "Look", "Run", "Packages", "Help" */
    const char *summary;         /* one line */
    const char *details;         /* paragraphs for help and the man page, or NULL */
    const char *const *examples; /* NULL-terminated, "picket plan demo.yaml" */
    const struct pk_opt *opts;
    size_t opt_count;
    const struct pk_arg *args;
    size_t arg_count;
    size_t args_size;     /* of the args struct, zeroed before parsing */
    const void *defaults; /* NULL or an args struct to start from */
    unsigned flags;
    /* argv holds the positional arguments. Returns 0, a negative pk_code with *err, or a positive
     * exit status (10 with --exit-code). */
    int (*run)(struct pk_ctx *ctx, const void *args, int argc, char **argv, struct pk_error *err);
};

/* All commands, sorted as help shows them. */
const struct pk_cmd *const *pk_cmd_table(size_t *ret_count);
/* Parses, runs, reports. Returns the exit status. */
int pk_cli_main(int argc, char **argv);

/* A client of serve with the context's socket or URL and token. */
int pk_ctx_client(const struct pk_ctx *ctx, struct pk_http_client **ret_client,
                  struct pk_error *err);

/* ---- output: one JSON document or one table of rows, in the form that -o asks for ---- */
struct pk_table_column {
    const char *title;
    const char *path;   /* dotted path in the row's JSON */
    unsigned priority;  /* 1 = always shown; higher ones go first when the terminal is narrow;
                           0 = only with -o wide */
    bool right;         /* numbers */
    const char *format; /* NULL | "bytes" | "count" | "time" | "ago" | "state" */
    bool free_text;     /* of any length: shortened on a terminal before other columns go */
};
/* rows: JSON list. json/yaml print document (NULL = rows); name prints name_path of each row. */
int pk_out_table(const struct pk_ctx *ctx, const json_t *document, const json_t *rows,
                 const struct pk_table_column *columns, size_t column_count, const char *name_path,
                 struct pk_error *err);
int pk_out_document(const struct pk_ctx *ctx, const json_t *document, struct pk_error *err);
/* "[y/N]" on a terminal; off one without --yes: PK_E_USAGE with a hint. */
int pk_confirm(const struct pk_ctx *ctx, const char *question, struct pk_error *err);
/* Prints "picket: file:line:col: message" and "hint: ..." on stderr, or JSON with -o json. */
void pk_report_error(const struct pk_ctx *ctx, const struct pk_error *err);
void pk_report_errors(const struct pk_ctx *ctx, const struct pk_errors *errors);

#endif
