/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/parse.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

#define GLOBAL(member) offsetof(struct pk_globals, member)

static const struct pk_opt global_opts[] = {
    { "state-dir", 0, PK_OPT_STRING, "DIR", GLOBAL(state_dir),
      "where state is kept (" PK_DEFAULT_STATE_DIR ")", "dir" },
    { "run-dir", 0, PK_OPT_STRING, "DIR", GLOBAL(run_dir),
      "where sockets and pins are (" PK_DEFAULT_RUN_DIR ")", "dir" },
    { "server", 0, PK_OPT_STRING, "URL", GLOBAL(server),
      "the server to talk to (unix:RUN-DIR/serve.sock)", NULL },
    { "token-file", 0, PK_OPT_STRING, "FILE", GLOBAL(token_file),
      "a file that holds the token for a server elsewhere", "file" },
    { "output", 'o', PK_OPT_CHOICE, "table|wide|json|yaml|name", GLOBAL(output),
      "the form of the output (table)", NULL },
    { "no-headers", 0, PK_OPT_FLAG, NULL, GLOBAL(no_headers), "leave out the titles of tables",
      NULL },
    { "yes", 'y', PK_OPT_FLAG, NULL, GLOBAL(yes), "do not ask before changing something", NULL },
    { "quiet", 'q', PK_OPT_FLAG, NULL, GLOBAL(quiet), "print results and errors only", NULL },
    { "verbose", 'v', PK_OPT_FLAG, NULL, GLOBAL(verbose), "print more of what goes on", NULL },
    { "help", 'h', PK_OPT_FLAG, NULL, GLOBAL(help), "print help", NULL },
    { "version", 0, PK_OPT_FLAG, NULL, GLOBAL(version), "print the version", NULL },
};

const struct pk_opt *pk_global_opts(size_t *ret_count)
{
    *ret_count = PK_ARRAY_SIZE(global_opts);
    return global_opts;
}

bool pk_global_fits(const struct pk_opt *opt, const struct pk_cmd *cmd)
{
    if (opt->offset == GLOBAL(output) || opt->offset == GLOBAL(no_headers))
        return (cmd->flags & PK_CMD_OUTPUT) != 0;
    if (opt->offset == GLOBAL(yes))
        return (cmd->flags & PK_CMD_CONFIRM) != 0;
    return opt->offset != GLOBAL(version);
}

/* ---- finding the command ---- */

static const struct pk_cmd_alias aliases[] = { { "deploy", "apply" }, { "check", "spec check" } };

const struct pk_cmd_alias *pk_cmd_aliases(size_t *ret_count)
{
    *ret_count = PK_ARRAY_SIZE(aliases);
    return aliases;
}

static const struct pk_cmd *by_name(const char *name)
{
    size_t count;
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    return NULL;
}

const struct pk_cmd *pk_cmd_find(int argc, char *const *argv, int *ret_words)
{
    char name[64];
    if (argc >= 2) {
        int n = snprintf(name, sizeof(name), "%s %s", argv[0], argv[1]);
        const struct pk_cmd *cmd = n > 0 && (size_t)n < sizeof(name) ? by_name(name) : NULL;
        if (cmd != NULL) {
            *ret_words = 2;
            return cmd;
        }
    }
    *ret_words = 1;
    if (argc < 1)
        return NULL;
    const struct pk_cmd *cmd = by_name(argv[0]);
    for (size_t i = 0; i < PK_ARRAY_SIZE(aliases) && cmd == NULL; i++)
        if (strcmp(aliases[i].name, argv[0]) == 0)
            cmd = by_name(aliases[i].command);
    return cmd;
}

static bool in_group(const struct pk_cmd *cmd, const char *word)
{
    size_t len = strlen(word);
    return strncmp(cmd->name, word, len) == 0 && cmd->name[len] == ' ';
}

bool pk_cmd_is_group(const char *word)
{
    size_t count;
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    for (size_t i = 0; i < count; i++)
        if (in_group(table[i], word))
            return true;
    return false;
}

/* The second word is missing or wrong. */
static int no_such_subcommand(const char *group, const char *word, struct pk_error *err)
{
    size_t count, found = 0;
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    const char *names[32];
    char list[200] = "";
    for (size_t i = 0; i < count && found < PK_ARRAY_SIZE(names); i++) {
        if (!in_group(table[i], group))
            continue;
        names[found++] = table[i]->name + strlen(group) + 1;
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof(list) - used, "%s%s", used == 0 ? "" : ", ",
                       names[found - 1]);
    }
    const char *closest = word == NULL ? NULL : pk_str_closest(word, names, found);
    if (word == NULL)
        pk_fail(err, PK_E_USAGE, "'picket %s' needs one more word", group);
    else
        pk_fail(err, PK_E_USAGE, "there is no command '%s %s'", group, word);
    if (closest != NULL)
        pk_hint(err, "did you mean 'picket %s %s'?", group, closest);
    else
        pk_hint(err, "write one of: %s", list);
    return PK_E_USAGE;
}

static int no_such_command(const char *word, struct pk_error *err)
{
    size_t count, found = 0;
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    const char *names[128];
    for (size_t i = 0; i < count && found < PK_ARRAY_SIZE(names) - PK_ARRAY_SIZE(aliases); i++)
        if ((table[i]->flags & PK_CMD_HIDDEN) == 0)
            names[found++] = table[i]->name;
    for (size_t i = 0; i < PK_ARRAY_SIZE(aliases); i++)
        names[found++] = aliases[i].name;
    const char *closest = pk_str_closest(word, names, found);
    pk_fail(err, PK_E_USAGE, "there is no command '%s'", word);
    if (closest != NULL)
        pk_hint(err, "did you mean 'picket %s'?", closest);
    else
        pk_hint(err, "'picket help' lists the commands");
    return PK_E_USAGE;
}

/* ---- options ---- */

struct parser {
    struct pk_parsed *parsed;
    int argc, at;
    char **argv;
    struct pk_error *err;
};

/* An option by name or letter: the command's own come first. *ret_into: the struct it belongs to.
 */
static const struct pk_opt *find_opt(const struct parser *p, const char *name, size_t len,
                                     char letter, void **ret_into)
{
    const struct pk_cmd *cmd = p->parsed->cmd;
    for (int global = cmd == NULL ? 1 : 0; global < 2; global++) {
        size_t count = global ? PK_ARRAY_SIZE(global_opts) : cmd->opt_count;
        const struct pk_opt *opts = global ? global_opts : cmd->opts;
        for (size_t i = 0; i < count; i++) {
            bool same = name != NULL
                            ? strlen(opts[i].name) == len && memcmp(opts[i].name, name, len) == 0
                            : opts[i].letter != 0 && opts[i].letter == letter;
            if (!same)
                continue;
            *ret_into = global ? (void *)&p->parsed->globals : p->parsed->args;
            return &opts[i];
        }
    }
    return NULL;
}

static int unknown_option(const struct parser *p, const char *given, struct pk_error *err)
{
    const char *names[128];
    size_t found = 0;
    const struct pk_cmd *cmd = p->parsed->cmd;
    for (size_t i = 0; cmd != NULL && i < cmd->opt_count && found < 64; i++)
        names[found++] = cmd->opts[i].name;
    for (size_t i = 0; i < PK_ARRAY_SIZE(global_opts); i++)
        if (cmd == NULL || pk_global_fits(&global_opts[i], cmd))
            names[found++] = global_opts[i].name;
    char word[64];
    (void)snprintf(word, sizeof(word), "%.*s", (int)strcspn(given, "="), given);
    const char *closest = pk_str_starts(word, "--") ? pk_str_closest(word + 2, names, found) : NULL;
    pk_fail(err, PK_E_USAGE, "there is no option '%s'", word);
    if (closest != NULL)
        pk_hint(err, "did you mean '--%s'?", closest);
    else
        pk_hint(err, "'picket %s%s--help' lists the options", cmd == NULL ? "" : cmd->name,
                cmd == NULL ? "" : " ");
    return PK_E_USAGE;
}

static bool is_choice(const char *choices, const char *value)
{
    size_t len = strlen(value);
    for (const char *p = choices; *p != '\0' && len > 0;) {
        size_t part = strcspn(p, "|");
        if (part == len && memcmp(p, value, len) == 0)
            return true;
        p += part + (p[part] == '|' ? 1 : 0);
    }
    return false;
}

static int store(const struct pk_opt *opt, void *into, const char *value, struct pk_error *err)
{
    void *at = (char *)into + opt->offset;
    int r = 0;
    switch (opt->type) {
    case PK_OPT_FLAG:
        *(bool *)at = true;
        break;
    case PK_OPT_STRING:
        *(const char **)at = value;
        break;
    case PK_OPT_UINT:
        r = pk_parse_u64(value, at, err);
        break;
    case PK_OPT_DOUBLE:
        r = pk_parse_double(value, at, err);
        break;
    case PK_OPT_BYTES:
        r = pk_parse_bytes(value, at, err);
        break;
    case PK_OPT_DURATION:
        r = pk_parse_duration(value, at, err);
        break;
    case PK_OPT_CHOICE:
        if (is_choice(opt->value, value)) {
            *(const char **)at = value;
        } else {
            r = pk_fail(err, PK_E_USAGE, "'%s' is not possible here", value);
            (void)pk_hint(err, "write one of: %s", opt->value);
        }
        break;
    }
    if (r < 0) {
        pk_wrap(err, "option --%s", opt->name);
        if (err != NULL)
            err->code = PK_E_USAGE;
        return PK_E_USAGE;
    }
    return 0;
}

/* attached: the text after '=' or after the letter, NULL if there is none. */
static int take_option(struct parser *p, const struct pk_opt *opt, void *into, const char *attached)
{
    const struct pk_cmd *cmd = p->parsed->cmd;
    if (into == &p->parsed->globals && cmd != NULL && !pk_global_fits(opt, cmd)) {
        pk_fail(p->err, PK_E_USAGE, "'picket %s' does not take --%s", cmd->name, opt->name);
        pk_hint(p->err, "leave it out");
        return PK_E_USAGE;
    }
    if (opt->type == PK_OPT_FLAG) {
        if (attached == NULL)
            return store(opt, into, "", p->err); /* there is nothing to read */
        pk_fail(p->err, PK_E_USAGE, "option --%s takes no value", opt->name);
        pk_hint(p->err, "write --%s alone", opt->name);
        return PK_E_USAGE;
    }
    const char *value = attached;
    if (value == NULL) {
        if (p->at >= p->argc) {
            pk_fail(p->err, PK_E_USAGE, "option --%s needs a value", opt->name);
            pk_hint(p->err, "write --%s %s", opt->name, opt->value);
            return PK_E_USAGE;
        }
        value = p->argv[p->at++];
    }
    return store(opt, into, value, p->err);
}

static int take_long(struct parser *p, const char *word)
{
    size_t len = strcspn(word + 2, "=");
    void *into;
    const struct pk_opt *opt = find_opt(p, word + 2, len, 0, &into);
    if (opt == NULL)
        return unknown_option(p, word, p->err);
    return take_option(p, opt, into, word[2 + len] == '=' ? word + 2 + len + 1 : NULL);
}

/* "-qv", "-ojson", "-o json" */
static int take_short(struct parser *p, const char *word)
{
    for (const char *letter = word + 1; *letter != '\0'; letter++) {
        void *into;
        const struct pk_opt *opt = find_opt(p, NULL, 0, *letter, &into);
        if (opt == NULL) {
            char name[3] = { '-', *letter, '\0' };
            return unknown_option(p, name, p->err);
        }
        bool flag = opt->type == PK_OPT_FLAG;
        const char *attached = letter[1] == '=' ? letter + 2 : letter + 1;
        int r = take_option(p, opt, into, flag || letter[1] == '\0' ? NULL : attached);
        if (r < 0 || !flag)
            return r;
    }
    return 0;
}

static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0';
}

static int take_words(struct parser *p)
{
    bool only_words = false;
    while (p->at < p->argc) {
        char *word = p->argv[p->at++];
        int r = 0;
        if (!only_words && strcmp(word, "--") == 0)
            only_words = true;
        else if (only_words || !is_option(word))
            p->parsed->rest[p->parsed->rest_count++] = word;
        else
            r = word[1] == '-' ? take_long(p, word) : take_short(p, word);
        if (r < 0)
            return r;
    }
    return 0;
}

static int check_arguments(const struct pk_parsed *parsed, struct pk_error *err)
{
    const struct pk_cmd *cmd = parsed->cmd;
    int least = 0;
    bool many = false;
    for (size_t i = 0; i < cmd->arg_count; i++) {
        least += cmd->args[i].optional ? 0 : 1;
        many = many || cmd->args[i].many;
    }
    PK_CLEANUP(pk_buf_done) struct pk_buf usage = PK_BUF_INIT(1000);
    pk_help_usage(cmd, &usage);
    const char *text = usage.data == NULL ? "" : usage.data;
    if (parsed->rest_count < least) {
        pk_fail(err, PK_E_USAGE, "'picket %s' needs %s", cmd->name,
                cmd->args[parsed->rest_count].name);
        pk_hint(err, "usage: %s", text);
        return PK_E_USAGE;
    }
    if (!many && parsed->rest_count > (int)cmd->arg_count) {
        pk_fail(err, PK_E_USAGE, "'%s' is one argument too many", parsed->rest[cmd->arg_count]);
        pk_hint(err, "usage: %s", text);
        return PK_E_USAGE;
    }
    return 0;
}

/* Options may stand before the command, only global ones there. */
static int find_command(struct parser *p)
{
    while (p->at < p->argc && is_option(p->argv[p->at])) {
        const char *word = p->argv[p->at++];
        int r = word[1] == '-' ? take_long(p, word) : take_short(p, word);
        if (r < 0)
            return r;
    }
    if (p->at == p->argc)
        return 0;
    int words;
    const char *first = p->argv[p->at];
    const struct pk_cmd *cmd = pk_cmd_find(p->argc - p->at, p->argv + p->at, &words);
    if (cmd != NULL) {
        p->parsed->cmd = cmd;
        p->at += words;
        return 0;
    }
    if (!pk_cmd_is_group(first))
        return no_such_command(first, p->err);
    const char *second = p->at + 1 < p->argc ? p->argv[p->at + 1] : NULL;
    bool help = p->parsed->globals.help ||
                (second != NULL && (strcmp(second, "-h") == 0 || strcmp(second, "--help") == 0));
    if (!help)
        return no_such_subcommand(first, second, p->err);
    p->parsed->group = first;
    p->parsed->globals.help = true;
    return 0;
}

void pk_parsed_done(struct pk_parsed *parsed)
{
    pk_free(parsed->args);
    pk_free(parsed->rest);
    *parsed = (struct pk_parsed){ 0 };
}

int pk_parse(int argc, char **argv, struct pk_parsed *ret_parsed, struct pk_error *err)
{
    PK_CLEANUP(pk_parsed_done) struct pk_parsed parsed = { 0 };
    struct parser p = { .parsed = &parsed, .argc = argc, .at = 1, .argv = argv, .err = err };
    int r = find_command(&p);
    if (r < 0)
        return r;
    const struct pk_cmd *cmd = parsed.cmd;
    if (cmd != NULL) {
        size_t size = PK_MAX(cmd->args_size, (size_t)1);
        parsed.args = cmd->defaults != NULL ? pk_memdup(cmd->defaults, size) : pk_zalloc(size);
        parsed.rest = pk_zalloc_array((size_t)argc + 1, sizeof(*parsed.rest));
        if (parsed.args == NULL || parsed.rest == NULL)
            return pk_no_memory(err);
        r = take_words(&p);
        if (r == 0 && !parsed.globals.help)
            r = check_arguments(&parsed, err);
        if (r < 0)
            return r;
    }
    *ret_parsed = parsed;
    parsed = (struct pk_parsed){ 0 };
    return 0;
}

const char *pk_scan_output(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *word = argv[i];
        if (pk_str_starts(word, "--output="))
            return word + strlen("--output=");
        if (strcmp(word, "-o") == 0 || strcmp(word, "--output") == 0)
            return i + 1 < argc ? argv[i + 1] : "";
        if (pk_str_starts(word, "-o"))
            return word + 2;
    }
    return "";
}
