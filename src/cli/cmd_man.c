/* SPDX-License-Identifier: Apache-2.0 */
/* picket __man DIR: the manual pages, written from the command table while building. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "cli/commands.h"
#include "cli/parse.h"

/* The pages' date: that of the text, so that equal sources give equal pages. */
#define PAGE_DATE "2026-11-23"

/* Text for troff: no request at the start of a line, no escapes, real minus signs. */
static void put_text(struct pk_buf *out, const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        bool line_start = p == text || p[-1] == '\n';
        if (line_start && (*p == '.' || *p == '\''))
            (void)pk_buf_puts(out, "\\&");
        if (*p == '\\')
            (void)pk_buf_puts(out, "\\e");
        else if (*p == '-')
            (void)pk_buf_puts(out, "\\-");
        else
            (void)pk_buf_putc(out, *p);
    }
}

static void put_line(struct pk_buf *out, const char *before, const char *text, const char *after)
{
    (void)pk_buf_puts(out, before);
    put_text(out, text);
    (void)pk_buf_puts(out, after);
}

static void put_paragraphs(struct pk_buf *out, const char *text)
{
    bool first = true;
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        PK_CLEANUP(pk_free_p) char *paragraph = pk_strndup(text, len);
        if (paragraph == NULL) {
            out->failed = true;
            return;
        }
        if (len > 0)
            put_line(out, first ? "" : ".PP\n", paragraph, "\n");
        first = false;
        text += len;
        text += strspn(text, "\n");
    }
}

/* "picket spec check" -> "picket-spec-check" */
static void page_name(const char *command, char *out, size_t size)
{
    (void)snprintf(out, size, "picket-%s", command);
    for (char *p = out; *p != '\0'; p++)
        if (*p == ' ')
            *p = '-';
}

static void put_title(struct pk_buf *out, const char *name)
{
    (void)pk_buf_puts(out, ".\\\" SPDX-License-Identifier: Apache-2.0\n.TH ");
    for (const char *p = name; *p != '\0'; p++)
        (void)pk_buf_putc(out, *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p);
    (void)pk_buf_printf(out, " 1 %s \"picket %s\" \"picket manual\"\n.SH NAME\n", PAGE_DATE,
                        PICKET_VERSION);
}

static void put_options(struct pk_buf *out, const struct pk_opt *opts, size_t count,
                        const struct pk_cmd *global_of)
{
    for (size_t i = 0; i < count; i++) {
        if (global_of != NULL && !pk_global_fits(&opts[i], global_of))
            continue;
        PK_CLEANUP(pk_buf_done) struct pk_buf head = PK_BUF_INIT(200);
        pk_help_option_head(&opts[i], &head);
        const char *text = head.data == NULL ? "" : head.data;
        put_line(out, ".TP\n.B ", text + strspn(text, " "), "\n");
        put_line(out, "", opts[i].help, "\n");
    }
}

static void put_examples(struct pk_buf *out, const char *const *examples)
{
    if (examples == NULL)
        return;
    (void)pk_buf_puts(out, ".SH EXAMPLES\n");
    for (size_t i = 0; examples[i] != NULL; i++)
        put_line(out, i == 0 ? ".nf\n" : ".PP\n.nf\n", examples[i], "\n.fi\n");
}

static void write_command(const struct pk_cmd *cmd, struct pk_buf *out)
{
    char name[80];
    page_name(cmd->name, name, sizeof(name));
    put_title(out, name);
    put_text(out, name);
    put_line(out, " \\- ", cmd->summary, "\n.SH SYNOPSIS\n");
    PK_CLEANUP(pk_buf_done) struct pk_buf usage = PK_BUF_INIT(500);
    pk_help_usage(cmd, &usage);
    put_line(out, ".B ", usage.data == NULL ? "" : usage.data, "\n.SH DESCRIPTION\n");
    put_paragraphs(out, cmd->details != NULL ? cmd->details : cmd->summary);
    size_t count;
    const struct pk_cmd_alias *aliases = pk_cmd_aliases(&count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(aliases[i].command, cmd->name) == 0)
            put_line(out, ".PP\nThe same command: picket ", aliases[i].name, "\n");
    for (size_t i = 0; i < cmd->arg_count; i++) {
        put_line(out, ".TP\n.I ", cmd->args[i].name, "\n");
        put_line(out, "", cmd->args[i].help, "\n");
    }
    (void)pk_buf_puts(out, ".SH OPTIONS\n");
    put_options(out, cmd->opts, cmd->opt_count, NULL);
    const struct pk_opt *globals = pk_global_opts(&count);
    put_options(out, globals, count, cmd);
    put_examples(out, cmd->examples);
    (void)pk_buf_puts(out, ".SH SEE ALSO\n.BR picket (1)\n");
}

static void write_topic(const struct pk_help_topic *topic, struct pk_buf *out)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf text = PK_BUF_INIT((size_t)1 << 16);
    topic->write(&text);
    if (text.failed) {
        out->failed = true;
        return;
    }
    bool was_row = false, first = true;
    for (char *line = text.data; *line != '\0';) {
        char *end = line + strcspn(line, "\n");
        char *tab = memchr(line, '\t', (size_t)(end - line));
        char *next = *end == '\n' ? end + 1 : end;
        *end = '\0';
        if (tab != NULL) {
            *tab = '\0';
            put_line(out, ".TP\n.B ", line, "\n");
            put_line(out, "", tab + 1, "\n");
        } else {
            put_line(out, was_row || !first ? ".PP\n" : "", line, "\n");
        }
        was_row = tab != NULL;
        first = false;
        line = next;
    }
}

static void write_overview(struct pk_buf *out)
{
    size_t count;
    put_title(out, "picket");
    (void)pk_buf_puts(
        out, "picket \\- network sensors in containers, fed by one packet broker\n"
             ".SH SYNOPSIS\n.B picket\n.I COMMAND\n.RI [ options ]\n.RI [ arguments ]\n"
             ".SH DESCRIPTION\n"
             "picket runs network sensors as one fleet. A fleet file says which interfaces are "
             "tapped and which tools see the packets; it is planned and applied. A broker in the "
             "kernel spreads flows over lanes, each a network namespace with the tools of a group "
             "in it, and what the tools report comes back into one store.\n"
             ".SH COMMANDS\n");
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    for (size_t i = 0; i < count; i++) {
        if ((table[i]->flags & PK_CMD_HIDDEN) != 0)
            continue;
        char name[80];
        page_name(table[i]->name, name, sizeof(name));
        put_line(out, ".TP\n.BR ", name, " (1)\n");
        put_line(out, "", table[i]->summary, "\n");
    }
    (void)pk_buf_puts(out, ".SH OPTIONS\n");
    const struct pk_opt *globals = pk_global_opts(&count);
    put_options(out, globals, count, NULL);
    static const struct {
        const char *heading, *topic;
    } sections[] = { { "EXIT STATUS", "exit-codes" },
                     { "ENVIRONMENT", "environment" },
                     { "OUTPUT", "output" },
                     { "QUERIES", "query" } };
    const struct pk_help_topic *topics = pk_help_topics(&count);
    for (size_t s = 0; s < PK_ARRAY_SIZE(sections); s++) {
        (void)pk_buf_printf(out, ".SH %s\n", sections[s].heading);
        for (size_t i = 0; i < count; i++)
            if (strcmp(topics[i].name, sections[s].topic) == 0)
                write_topic(&topics[i], out);
    }
}

static int write_page(const char *dir, const char *name, const struct pk_buf *page,
                      struct pk_error *err)
{
    if (page->failed)
        return pk_no_memory(err);
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("%s/%s.1", dir, name);
    if (path == NULL)
        return pk_no_memory(err);
    return pk_file_write(path, page->data, page->len, 0644, err);
}

static int run_man(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                   struct pk_error *err)
{
    (void)ctx;
    (void)args;
    (void)argc;
    PK_CLEANUP(pk_buf_done) struct pk_buf page = PK_BUF_INIT((size_t)1 << 20);
    int r = pk_mkdir_p(argv[0], 0755, err);
    write_overview(&page);
    if (r == 0)
        r = write_page(argv[0], "picket", &page, err);
    size_t count;
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    for (size_t i = 0; i < count && r == 0; i++) {
        if ((table[i]->flags & PK_CMD_HIDDEN) != 0)
            continue;
        char name[80];
        page_name(table[i]->name, name, sizeof(name));
        pk_buf_clear(&page);
        write_command(table[i], &page);
        r = write_page(argv[0], name, &page, err);
    }
    return r;
}

static const struct pk_arg man_args[] = {
    { "DIR", "where the pages are written", "dir", false, false },
};
const struct pk_cmd pk_cmd_man = {
    .name = "__man",
    .group = "Help",
    .summary = "write the manual pages",
    .args = man_args,
    .arg_count = PK_ARRAY_SIZE(man_args),
    .flags = PK_CMD_HIDDEN,
    .run = run_man,
};
