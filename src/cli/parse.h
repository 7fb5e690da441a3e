/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the command line itself: finding the command, reading options, help. */
#ifndef PICKET_CLI_PARSE_H
#define PICKET_CLI_PARSE_H

#include "base/buf.h"
#include "cli/cli.h"

/* The options that every command takes; read into this. */
struct pk_globals {
    const char *state_dir, *run_dir, *server, *token_file, *output;
    bool no_headers, quiet, verbose, yes, help, version;
};
const struct pk_opt *pk_global_opts(size_t *ret_count);
/* Is this global option one that the command takes? -o and --yes are only for those that say so. */
bool pk_global_fits(const struct pk_opt *opt, const struct pk_cmd *cmd);

/* Short forms and other names of commands, for help and the man page too. */
struct pk_cmd_alias {
    const char *name, *command;
};
const struct pk_cmd_alias *pk_cmd_aliases(size_t *ret_count);

/* The command named by the first words; *ret_words says how many (1 or 2). NULL if there is none.
 */
const struct pk_cmd *pk_cmd_find(int argc, char *const *argv, int *ret_words);
/* Is word the first of commands of two words ("spec")? */
bool pk_cmd_is_group(const char *word);

struct pk_parsed {
    const struct pk_cmd *cmd; /* NULL: none given */
    const char *group;        /* "spec" with --help and no second word */
    struct pk_globals globals;
    void *args;  /* of the command; pk_free() */
    char **rest; /* positional arguments, borrowed strings; pk_free() */
    int rest_count;
};
int pk_parse(int argc, char **argv, struct pk_parsed *ret_parsed, struct pk_error *err);
void pk_parsed_done(struct pk_parsed *parsed);
/* The value of -o wherever it stands, so that even a usage error comes in the right form. */
const char *pk_scan_output(int argc, char **argv);

/* "picket plan [options] FLEET" */
void pk_help_usage(const struct pk_cmd *cmd, struct pk_buf *out);
void pk_help_command(const struct pk_cmd *cmd, unsigned width, struct pk_buf *out);
void pk_help_overview(unsigned width, struct pk_buf *out);
/* The commands whose names begin with "<group> ". */
void pk_help_group(const char *group, unsigned width, struct pk_buf *out);
/* "-o, --output FORMAT" */
void pk_help_option_head(const struct pk_opt *opt, struct pk_buf *out);

struct pk_help_topic {
    const char *name, *summary;
    /* Paragraphs, and rows "  word<TAB>meaning". */
    void (*write)(struct pk_buf *out);
};
const struct pk_help_topic *pk_help_topics(size_t *ret_count);
void pk_help_topic_print(const struct pk_help_topic *topic, unsigned width, struct pk_buf *out);

/* Columns of the terminal on standard output; 80 off a terminal. */
unsigned pk_terminal_width(void);
/* Terminal columns that a text takes. */
unsigned pk_text_width(const char *text, size_t len);
/* Words of text up to width, further lines indented. The cursor stands in column `column`. */
void pk_text_wrap(struct pk_buf *out, const char *text, unsigned column, unsigned indent,
                  unsigned width);

#endif
