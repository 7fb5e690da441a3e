/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/event.h"
#include "cli/parse.h"

#define HELP_WIDTH_MAX 100u
#define ROW_INDENT     2u
#define ROW_HEAD_MAX   28u

/* The order of the headings in the overview; a group that is not named here comes last. */
static const char *const group_order[] = { "Change", "Look", "Run", "Packages", "Server", "Help" };

static void put_spaces(struct pk_buf *out, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        (void)pk_buf_putc(out, ' ');
}

void pk_text_wrap(struct pk_buf *out, const char *text, unsigned column, unsigned indent,
                  unsigned width)
{
    bool first = true;
    for (const char *p = text; *p != '\0';) {
        p += strspn(p, " \n");
        size_t len = strcspn(p, " \n");
        if (len == 0)
            break;
        unsigned word = pk_text_width(p, len);
        if (!first && column + 1 + word > width) {
            (void)pk_buf_putc(out, '\n');
            put_spaces(out, indent);
            column = indent;
        } else if (!first) {
            (void)pk_buf_putc(out, ' ');
            column++;
        }
        (void)pk_buf_add(out, p, len);
        column += word;
        first = false;
        p += len;
    }
    (void)pk_buf_putc(out, '\n');
}

/* Paragraphs are separated by line feeds. */
static void put_paragraphs(struct pk_buf *out, const char *text, unsigned width)
{
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        PK_CLEANUP(pk_free_p) char *paragraph = pk_strndup(text, len);
        if (paragraph == NULL) {
            out->failed = true;
            return;
        }
        if (len > 0) {
            pk_text_wrap(out, paragraph, 0, 0, width);
            (void)pk_buf_putc(out, '\n');
        }
        text += len;
        text += strspn(text, "\n");
    }
}

static void put_row(struct pk_buf *out, const char *head, const char *text, unsigned head_width,
                    unsigned width)
{
    put_spaces(out, ROW_INDENT);
    (void)pk_buf_puts(out, head);
    unsigned indent = ROW_INDENT + head_width + 2;
    unsigned used = ROW_INDENT + pk_text_width(head, strlen(head));
    if (used + 2 > indent) {
        (void)pk_buf_putc(out, '\n');
        used = 0;
    }
    put_spaces(out, indent - used);
    pk_text_wrap(out, text, indent, indent, width);
}

void pk_help_option_head(const struct pk_opt *opt, struct pk_buf *out)
{
    if (opt->letter != 0)
        (void)pk_buf_printf(out, "-%c, ", opt->letter);
    else
        (void)pk_buf_puts(out, "    ");
    (void)pk_buf_printf(out, "--%s", opt->name);
    if (opt->type != PK_OPT_FLAG)
        (void)pk_buf_printf(out, " %s", opt->value);
}

void pk_help_usage(const struct pk_cmd *cmd, struct pk_buf *out)
{
    (void)pk_buf_printf(out, "picket %s [options]", cmd->name);
    for (size_t i = 0; i < cmd->arg_count; i++) {
        const struct pk_arg *arg = &cmd->args[i];
        (void)pk_buf_printf(out, arg->optional ? " [%s]" : " %s", arg->name);
        if (arg->many)
            (void)pk_buf_puts(out, "...");
    }
}

static void put_options(struct pk_buf *out, const struct pk_opt *opts, size_t count,
                        const struct pk_cmd *global_of, unsigned width)
{
    for (size_t i = 0; i < count; i++) {
        if (global_of != NULL && !pk_global_fits(&opts[i], global_of))
            continue;
        PK_CLEANUP(pk_buf_done) struct pk_buf head = PK_BUF_INIT(200);
        pk_help_option_head(&opts[i], &head);
        put_row(out, head.data == NULL ? "" : head.data, opts[i].help, ROW_HEAD_MAX, width);
    }
}

static void put_examples(struct pk_buf *out, const struct pk_cmd *cmd)
{
    if (cmd->examples == NULL)
        return;
    (void)pk_buf_puts(out, "Examples:\n");
    for (const char *const *example = cmd->examples; *example != NULL; example++)
        (void)pk_buf_printf(out, "  %s\n", *example);
    (void)pk_buf_putc(out, '\n');
}

void pk_help_command(const struct pk_cmd *cmd, unsigned width, struct pk_buf *out)
{
    width = PK_MIN(width, HELP_WIDTH_MAX);
    (void)pk_buf_printf(out, "picket %s: %s\n\nUsage: ", cmd->name, cmd->summary);
    pk_help_usage(cmd, out);
    (void)pk_buf_puts(out, "\n\n");
    size_t count;
    const struct pk_cmd_alias *aliases = pk_cmd_aliases(&count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(aliases[i].command, cmd->name) == 0)
            (void)pk_buf_printf(out, "Also: picket %s\n\n", aliases[i].name);
    put_examples(out, cmd);
    if (cmd->details != NULL)
        put_paragraphs(out, cmd->details, width);
    if (cmd->arg_count > 0) {
        (void)pk_buf_puts(out, "Arguments:\n");
        for (size_t i = 0; i < cmd->arg_count; i++)
            put_row(out, cmd->args[i].name, cmd->args[i].help, ROW_HEAD_MAX, width);
        (void)pk_buf_putc(out, '\n');
    }
    if (cmd->opt_count > 0) {
        (void)pk_buf_puts(out, "Options:\n");
        put_options(out, cmd->opts, cmd->opt_count, NULL, width);
        (void)pk_buf_putc(out, '\n');
    }
    (void)pk_buf_puts(out, "Options of every command:\n");
    const struct pk_opt *globals = pk_global_opts(&count);
    put_options(out, globals, count, cmd, width);
}

static bool listed(const struct pk_cmd *cmd)
{
    return (cmd->flags & PK_CMD_HIDDEN) == 0;
}

static unsigned widest_name(void)
{
    size_t count;
    unsigned widest = 0;
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    for (size_t i = 0; i < count; i++)
        if (listed(table[i]))
            widest = PK_MAX(widest, (unsigned)strlen(table[i]->name));
    return widest;
}

static size_t rank(const char *group)
{
    size_t i = 0;
    while (i < PK_ARRAY_SIZE(group_order) && strcmp(group_order[i], group) != 0)
        i++;
    return i;
}

void pk_help_overview(unsigned width, struct pk_buf *out)
{
    width = PK_MIN(width, HELP_WIDTH_MAX);
    size_t count;
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    (void)pk_buf_puts(out, "picket: network sensors in containers, fed by one packet broker\n\n"
                           "Usage: picket COMMAND [options] [arguments]\n\n"
                           "Examples:\n"
                           "  picket doctor               is this machine fit?\n"
                           "  picket up demo.yaml         start everything, apply a fleet\n"
                           "  picket status               what runs, what it counts\n"
                           "  picket events --since 1h    what the sensors saw\n");
    for (size_t group = 0; group <= PK_ARRAY_SIZE(group_order); group++) {
        bool headed = false;
        for (size_t i = 0; i < count; i++) {
            if (!listed(table[i]) || rank(table[i]->group) != group)
                continue;
            if (!headed)
                (void)pk_buf_printf(out, "\n%s:\n", table[i]->group);
            headed = true;
            put_row(out, table[i]->name, table[i]->summary, widest_name(), width);
        }
    }
    (void)pk_buf_puts(out, "\nTopics ('picket help TOPIC'):\n");
    const struct pk_help_topic *topics = pk_help_topics(&count);
    for (size_t i = 0; i < count; i++)
        put_row(out, topics[i].name, topics[i].summary, widest_name(), width);
    (void)pk_buf_puts(out, "\n'picket COMMAND --help' explains a command.\n");
}

void pk_help_group(const char *group, unsigned width, struct pk_buf *out)
{
    width = PK_MIN(width, HELP_WIDTH_MAX);
    size_t count, len = strlen(group);
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    (void)pk_buf_printf(out, "Usage: picket %s COMMAND [options] [arguments]\n\n", group);
    for (size_t i = 0; i < count; i++)
        if (listed(table[i]) && strncmp(table[i]->name, group, len) == 0 &&
            table[i]->name[len] == ' ')
            put_row(out, table[i]->name, table[i]->summary, widest_name(), width);
}

/* ---- topics: text lines; a tab in a line makes it a row of a table ---- */

static void write_exit_codes(struct pk_buf *out)
{
    (void)pk_buf_puts(out, "Each command ends with one of these statuses.\n");
    size_t count;
    const struct pk_code_info *table = pk_code_table(&count);
    for (int status = 0; status < 256; status++) {
        const char *mark = "\t";
        for (size_t i = 0; i < count; i++) {
            if (table[i].exit_status != status)
                continue;
            if (mark[0] == '\t')
                (void)pk_buf_printf(out, "%d", status);
            (void)pk_buf_printf(out, "%s%s (%s)", mark, table[i].meaning, table[i].name);
            mark = "; ";
        }
        if (mark[0] != '\t')
            (void)pk_buf_putc(out, '\n');
        else if (status == 10)
            (void)pk_buf_puts(out, "10\tthere are changes or findings; only with --exit-code\n");
    }
    (void)pk_buf_puts(out, "The names in brackets are the codes of errors in JSON.\n");
}

static void write_output(struct pk_buf *out)
{
    (void)pk_buf_puts(
        out,
        "Results go to standard output, messages and errors to standard error. -o chooses the form:\n"
        "table\tfor people: fits the terminal, leaves out columns where it is narrow\n"
        "wide\tthe same with all columns\n"
        "json\tone document with apiVersion and kind, or one object per line for events\n"
        "yaml\tthe same document as YAML\n"
        "name\tonly names, one a line\n"
        "Off a terminal nothing is cut or coloured. Scripts should read json: keys may be added, so "
        "unknown ones must be ignored. Sizes are bytes, times are RFC 3339 in UTC.\n"
        "With -o json an error is one line of JSON on standard error: {\"error\": {\"code\", "
        "\"message\", \"hint\", \"file\", \"line\", \"column\"}}, or {\"errors\": [...]} when a file "
        "has several.\n"
        "--no-headers leaves out the titles of tables; NO_COLOR turns colours off.\n");
}

/* Held to the code by tests/house/check_environment.py. */
static const struct {
    const char *name, *meaning;
} variables[] = {
    { "PICKET_STATE_DIR", "as --state-dir" },
    { "PICKET_RUN_DIR", "as --run-dir" },
    { "PICKET_SERVER", "as --server" },
    { "PICKET_TOKEN_FILE", "as --token-file" },
    { "PICKET_CA_FILE", "PEM file of the authority that signed the server's certificate" },
    { "PICKET_CATALOG", "folder of packages, in place of the installed ones" },
    { "PICKET_DUCKDB", "libduckdb.so to load, in place of the one beside the program" },
    { "PICKET_METRICS", "ADDRESS:PORT of the agent's metrics, as 'picket node --metrics'" },
    { "PICKET_REGISTRY", "HOST[:PORT] of the registry of base images, or none" },
    { "PICKET_DEBIAN_MIRROR", "URI of the Debian mirror that images are built from" },
    { "PICKET_DEBIAN_SECURITY_MIRROR", "the same for security updates" },
    { "NO_COLOR", "set and not empty: no colours" },
    { "TERM", "dumb: no colours" },
};

static void write_environment(struct pk_buf *out)
{
    (void)pk_buf_puts(out, "Options of the command line come before these variables.\n");
    for (size_t i = 0; i < PK_ARRAY_SIZE(variables); i++)
        (void)pk_buf_printf(out, "%s\t%s\n", variables[i].name, variables[i].meaning);
}

static void write_query(struct pk_buf *out)
{
    (void)pk_buf_puts(
        out, "'picket events' takes a query: conditions FIELD:VALUE, all of which must hold. A '-' "
             "before a condition turns it round. Values with blanks stand in double quotes; '*' at "
             "the end of a text matches any rest; addresses may be networks.\n"
             "Examples: type:alert -src_ip:10.0.0.0/8 and dst_port:53 proto:udp\n"
             "The fields:\n");
    size_t count;
    const struct pk_column *columns = pk_event_columns(&count);
    for (size_t i = 0; i < count; i++)
        (void)pk_buf_printf(out, "%s\t%s\n", columns[i].name, columns[i].help);
}

static const struct pk_help_topic topics[] = {
    { "exit-codes", "the statuses that commands end with", write_exit_codes },
    { "output", "forms of output, for people and scripts", write_output },
    { "environment", "environment variables", write_environment },
    { "query", "how to search events", write_query },
};

const struct pk_help_topic *pk_help_topics(size_t *ret_count)
{
    *ret_count = PK_ARRAY_SIZE(topics);
    return topics;
}

void pk_help_topic_print(const struct pk_help_topic *topic, unsigned width, struct pk_buf *out)
{
    width = PK_MIN(width, HELP_WIDTH_MAX);
    PK_CLEANUP(pk_buf_done) struct pk_buf text = PK_BUF_INIT((size_t)1 << 16);
    topic->write(&text);
    if (text.failed) {
        out->failed = true;
        return;
    }
    bool in_table = false;
    for (char *line = text.data; *line != '\0';) {
        char *end = line + strcspn(line, "\n");
        char *tab = memchr(line, '\t', (size_t)(end - line));
        char *next = *end == '\n' ? end + 1 : end;
        *end = '\0';
        if (line != text.data && in_table != (tab != NULL))
            (void)pk_buf_putc(out, '\n');
        if (tab != NULL) {
            *tab = '\0';
            put_row(out, line, tab + 1, 17, width);
        } else {
            pk_text_wrap(out, line, 0, 0, width);
        }
        in_table = tab != NULL;
        line = next;
    }
}
