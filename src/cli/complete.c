/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion is answered by the program itself from the command table, so there is nothing to keep
 * in step: the shells' stubs hand over the words and print what comes back, "word<TAB>meaning" a
 * line. A line ":file" or ":dir" asks the shell for its own completion of paths.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "catalog/catalog.h"
#include "cli/commands.h"
#include "cli/parse.h"

#define LIVE_TIMEOUT_MS 200

static void offer(const char *word, const char *current, const char *meaning)
{
    if (pk_str_starts(word, current))
        printf("%s\t%s\n", word, meaning);
}

static void offer_choices(const char *choices, const char *current)
{
    for (const char *p = choices; *p != '\0';) {
        size_t len = strcspn(p, "|");
        char word[64];
        if (len < sizeof(word)) {
            (void)snprintf(word, sizeof(word), "%.*s", (int)len, p);
            offer(word, current, "");
        }
        p += len + (p[len] == '|' ? 1 : 0);
    }
}

/* ---- live names: from the server, if it answers at once ---- */

static int get(const struct pk_ctx *ctx, const char *path, json_t **ret_json)
{
    char url[128];
    (void)snprintf(url, sizeof(url), "unix:%s/serve.sock", ctx->paths.run_dir);
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    const struct pk_http_client_options options = { .base_url = url,
                                                    .timeout_ms = LIVE_TIMEOUT_MS,
                                                    .connect_timeout_ms = LIVE_TIMEOUT_MS };
    int r = pk_http_client_new(&options, &client, NULL);
    return r < 0 ? r : pk_http_json(client, "GET", path, NULL, ret_json, NULL);
}

static void each_fleet(const struct pk_ctx *ctx,
                       void (*call)(const struct pk_ctx *ctx, const char *fleet,
                                    const char *current),
                       const char *current)
{
    PK_JSON answer = NULL;
    if (get(ctx, "/v1/fleets", &answer) < 0)
        return;
    size_t i;
    json_t *fleet;
    json_array_foreach(json_is_array(answer) ? answer : json_object_get(answer, "fleets"), i, fleet)
    {
        const char *name = json_is_string(fleet) ? json_string_value(fleet)
                                                 : pk_json_string_or(fleet, "name", NULL);
        if (name != NULL)
            call(ctx, name, current);
    }
}

static void offer_fleet(const struct pk_ctx *ctx, const char *fleet, const char *current)
{
    (void)ctx;
    offer(fleet, current, "fleet");
}

static void offer_taps(const struct pk_ctx *ctx, const char *fleet, const char *current)
{
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("/v1/fleets/%s/status", fleet);
    PK_JSON status = NULL;
    if (path == NULL || get(ctx, path, &status) < 0)
        return;
    size_t i;
    json_t *tap;
    json_array_foreach(json_object_get(status, "taps"), i, tap)
        offer(pk_json_string_or(tap, "name", ""), current, pk_json_string_or(tap, "interface", ""));
}

static void offer_packages(const char *current)
{
    PK_CLEANUP(pk_catalog_free_p) struct pk_catalog *catalog = NULL;
    struct pk_errors errors = { 0 };
    int r = pk_catalog_open(NULL, &catalog, &errors);
    pk_errors_done(&errors);
    for (size_t i = 0; r >= 0 && i < pk_catalog_count(catalog); i++) {
        const struct pk_package *package = pk_catalog_at(catalog, i);
        offer(pk_package_name(package), current, pk_package_summary(package));
    }
}

static void offer_commands(const char *group, const char *current)
{
    size_t count, len = strlen(group);
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    char last[64] = "";
    for (size_t i = 0; i < count; i++) {
        const char *name = table[i]->name;
        if ((table[i]->flags & PK_CMD_HIDDEN) != 0)
            continue;
        if (len > 0 && (strncmp(name, group, len) != 0 || name[len] != ' '))
            continue;
        name += len > 0 ? len + 1 : 0;
        size_t first = strcspn(name, " ");
        char word[64];
        (void)snprintf(word, sizeof(word), "%.*s", (int)PK_MIN(first, sizeof(word) - 1), name);
        if (strcmp(word, last) != 0) /* "spec" once for all of its commands */
            offer(word, current, name[first] == ' ' ? table[i]->group : table[i]->summary);
        (void)snprintf(last, sizeof(last), "%s", word);
    }
    const struct pk_cmd_alias *aliases = pk_cmd_aliases(&count);
    for (size_t i = 0; i < count && len == 0; i++)
        offer(aliases[i].name, current, aliases[i].command);
}

static void offer_command_names(const char *current)
{
    offer_commands("", current);
    size_t count;
    const struct pk_help_topic *topics = pk_help_topics(&count);
    for (size_t i = 0; i < count; i++)
        offer(topics[i].name, current, topics[i].summary);
}

static void offer_kind(const struct pk_ctx *ctx, const char *kind, const char *current)
{
    if (kind == NULL)
        return;
    if (strchr(kind, '|') != NULL)
        offer_choices(kind, current);
    else if (strcmp(kind, "file") == 0 || strcmp(kind, "dir") == 0)
        printf(":%s\n", kind);
    else if (strcmp(kind, "fleet") == 0)
        each_fleet(ctx, offer_fleet, current);
    else if (strcmp(kind, "tap") == 0)
        each_fleet(ctx, offer_taps, current);
    else if (strcmp(kind, "package") == 0)
        offer_packages(current);
    else if (strcmp(kind, "command") == 0)
        offer_command_names(current);
}

static void offer_options(const struct pk_opt *opts, size_t count, const struct pk_cmd *cmd,
                          bool global, const char *current)
{
    for (size_t i = 0; i < count; i++) {
        if (global && cmd != NULL && !pk_global_fits(&opts[i], cmd))
            continue;
        char word[64];
        (void)snprintf(word, sizeof(word), "--%s", opts[i].name);
        offer(word, current, opts[i].help);
    }
}

/* The option that word names, if it takes its value from the next word. */
static const struct pk_opt *needs_value(const struct pk_cmd *cmd, const char *word)
{
    size_t global_count;
    const struct pk_opt *globals = pk_global_opts(&global_count);
    size_t own = cmd == NULL ? 0 : cmd->opt_count;
    if (word[0] != '-' || strchr(word, '=') != NULL)
        return NULL;
    for (size_t i = 0; i < own + global_count; i++) {
        const struct pk_opt *opt = i < own ? &cmd->opts[i] : &globals[i - own];
        bool same = word[1] == '-' ? strcmp(word + 2, opt->name) == 0
                                   : opt->letter != 0 && word[1] == opt->letter && word[2] == '\0';
        if (same)
            return opt->type == PK_OPT_FLAG ? NULL : opt;
    }
    return NULL;
}

static void offer_value(const struct pk_ctx *ctx, const struct pk_opt *opt, const char *current)
{
    offer_kind(ctx, opt->type == PK_OPT_CHOICE ? opt->value : opt->complete, current);
}

/* words: those before the current one. */
static void complete(const struct pk_ctx *ctx, int argc, char **words, const char *current)
{
    const struct pk_cmd *cmd = NULL;
    const char *group = "";
    int positional = 0;
    const struct pk_opt *waiting = NULL;
    for (int i = 0; i < argc; i++) {
        if (waiting != NULL) {
            waiting = NULL;
            continue;
        }
        if (words[i][0] == '-') {
            waiting = needs_value(cmd, words[i]);
            continue;
        }
        if (cmd != NULL) {
            positional++;
            continue;
        }
        int taken;
        cmd = pk_cmd_find(argc - i, words + i, &taken);
        if (cmd != NULL)
            i += taken - 1;
        else if (pk_cmd_is_group(words[i]))
            group = words[i];
        else
            return;
    }
    size_t count;
    const struct pk_opt *globals = pk_global_opts(&count);
    if (waiting != NULL) {
        offer_value(ctx, waiting, current);
    } else if (current[0] == '-') {
        if (cmd != NULL)
            offer_options(cmd->opts, cmd->opt_count, cmd, false, current);
        offer_options(globals, count, cmd, true, current);
    } else if (cmd == NULL) {
        offer_commands(group, current);
    } else if (cmd->arg_count > 0) {
        size_t at = PK_MIN((size_t)positional, cmd->arg_count - 1);
        if ((size_t)positional < cmd->arg_count || cmd->args[at].many)
            offer_kind(ctx, cmd->args[at].complete, current);
    }
}

static int run_complete(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                        struct pk_error *err)
{
    (void)args;
    (void)err;
    if (argc > 0)
        complete(ctx, argc - 1, argv, argv[argc - 1]);
    return 0;
}

static const struct pk_arg complete_args[] = {
    { "WORD", "the words typed so far, the one at the cursor last", NULL, true, true },
};
const struct pk_cmd pk_cmd_complete = {
    .name = "__complete",
    .group = "Help",
    .summary = "answer a shell's completion",
    .args = complete_args,
    .arg_count = PK_ARRAY_SIZE(complete_args),
    .flags = PK_CMD_HIDDEN,
    .run = run_complete,
};

/* ---- the shells' stubs ---- */

static const char bash_stub[] =
    "_picket() {\n"
    "    local line word meaning current=${COMP_WORDS[COMP_CWORD]}\n"
    "    COMPREPLY=()\n"
    "    while IFS=$'\\t' read -r word meaning; do\n"
    "        case $word in\n"
    "            :file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$current\");;\n"
    "            :dir) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- \"$current\");;\n"
    "            ?*) COMPREPLY+=(\"$word\");;\n"
    "        esac\n"
    "    done < <(\"${COMP_WORDS[0]}\" __complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
    "}\n"
    "complete -F _picket picket\n";

static const char zsh_stub[] =
    "#compdef picket\n"
    "_picket() {\n"
    "    local -a found\n"
    "    local word meaning\n"
    "    while IFS=$'\\t' read -r word meaning; do\n"
    "        case $word in\n"
    "            :file) _files;;\n"
    "            :dir) _files -/;;\n"
    "            ?*) found+=(\"${word//:/\\\\:}:$meaning\");;\n"
    "        esac\n"
    "    done < <(\"${words[1]}\" __complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\n"
    "    (( ${#found} )) && _describe picket found\n"
    "}\n"
    "compdef _picket picket\n";

static const char fish_stub[] = "function __picket_complete\n"
                                "    set -l words (commandline -opc) (commandline -ct)\n"
                                "    for line in (picket __complete -- $words[2..] 2>/dev/null)\n"
                                "        switch $line\n"
                                "            case ':file'\n"
                                "                __fish_complete_path (commandline -ct)\n"
                                "            case ':dir'\n"
                                "                __fish_complete_directories (commandline -ct)\n"
                                "            case '*'\n"
                                "                echo $line\n"
                                "        end\n"
                                "    end\n"
                                "end\n"
                                "complete -c picket -f -a '(__picket_complete)'\n";

static int run_completion(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                          struct pk_error *err)
{
    static const struct {
        const char *shell, *stub;
    } stubs[] = { { "bash", bash_stub }, { "zsh", zsh_stub }, { "fish", fish_stub } };
    (void)ctx;
    (void)args;
    (void)argc;
    for (size_t i = 0; i < PK_ARRAY_SIZE(stubs); i++) {
        if (strcmp(stubs[i].shell, argv[0]) == 0) {
            (void)fputs(stubs[i].stub, stdout);
            return 0;
        }
    }
    pk_fail(err, PK_E_USAGE, "there is no completion for shell '%s'", argv[0]);
    pk_hint(err, "write one of: bash, zsh, fish");
    return PK_E_USAGE;
}

static const struct pk_arg completion_args[] = {
    { "SHELL", "bash, zsh or fish", "bash|zsh|fish", false, false },
};
static const char *const completion_examples[] = {
    "picket completion bash > /etc/bash_completion.d/picket",
    "picket completion fish > ~/.config/fish/completions/picket.fish", NULL
};
const struct pk_cmd pk_cmd_completion = {
    .name = "completion",
    .group = "Help",
    .summary = "print a shell's completion script",
    .details = "The script asks the program itself, so it never gets old. Names of fleets and taps "
               "come from the server, if it answers within 200 ms.",
    .examples = completion_examples,
    .args = completion_args,
    .arg_count = PK_ARRAY_SIZE(completion_args),
    .run = run_completion,
};
