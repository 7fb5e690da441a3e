/* SPDX-License-Identifier: Apache-2.0 */
/* picket help, picket version. */
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/parse.h"

static int no_such_topic(int argc, char **argv, struct pk_error *err)
{
    size_t count, topic_count, found = 0;
    const struct pk_cmd *const *table = pk_cmd_table(&count);
    const struct pk_help_topic *topics = pk_help_topics(&topic_count);
    const char *names[128];
    for (size_t i = 0; i < topic_count && found < PK_ARRAY_SIZE(names); i++)
        names[found++] = topics[i].name;
    for (size_t i = 0; i < count && found < PK_ARRAY_SIZE(names); i++)
        if ((table[i]->flags & PK_CMD_HIDDEN) == 0)
            names[found++] = table[i]->name;
    char word[128];
    (void)snprintf(word, sizeof(word), "%s%s%s", argv[0], argc > 1 ? " " : "",
                   argc > 1 ? argv[1] : "");
    const char *closest = pk_str_closest(word, names, found);
    pk_fail(err, PK_E_NOTFOUND, "there is no help on '%s'", word);
    if (closest != NULL)
        pk_hint(err, "did you mean 'picket help %s'?", closest);
    else
        pk_hint(err, "'picket help' lists commands and topics");
    return PK_E_NOTFOUND;
}

static int run_help(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                    struct pk_error *err)
{
    (void)ctx;
    (void)args;
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT((size_t)1 << 20);
    unsigned width = pk_terminal_width();
    int words = 1;
    size_t count;
    const struct pk_help_topic *topics = pk_help_topics(&count);
    const struct pk_cmd *cmd = pk_cmd_find(argc, argv, &words);
    if (argc == 0) {
        pk_help_overview(width, &out);
    } else if (cmd != NULL && words == argc) {
        pk_help_command(cmd, width, &out);
    } else if (argc == 1 && pk_cmd_is_group(argv[0])) {
        pk_help_group(argv[0], width, &out);
    } else {
        size_t i = 0;
        while (i < count && (argc != 1 || strcmp(topics[i].name, argv[0]) != 0))
            i++;
        if (i == count)
            return no_such_topic(argc, argv, err);
        pk_help_topic_print(&topics[i], width, &out);
    }
    if (out.failed)
        return pk_no_memory(err);
    (void)fputs(out.data == NULL ? "" : out.data, stdout);
    return 0;
}

static const struct pk_arg help_args[] = {
    { "TOPIC", "a command, or one of: exit-codes, output, environment, query", "command", true,
      true },
};
static const char *const help_examples[] = { "picket help apply", "picket help exit-codes", NULL };
const struct pk_cmd pk_cmd_help = {
    .name = "help",
    .group = "Help",
    .summary = "explain a command or a topic",
    .examples = help_examples,
    .args = help_args,
    .arg_count = PK_ARRAY_SIZE(help_args),
    .run = run_help,
};

static int run_version(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                       struct pk_error *err)
{
    (void)args;
    (void)argc;
    (void)argv;
    if (ctx->output == PK_OUT_TABLE || ctx->output == PK_OUT_WIDE || ctx->output == PK_OUT_NAME) {
        printf("picket %s\n", PICKET_VERSION);
        return 0;
    }
    PK_JSON json =
        json_pack("{s:s,s:s,s:s,s:s,s:{s:s,s:s}}", "apiVersion", "picket/v1", "kind", "Version",
                  "name", "picket", "version", PICKET_VERSION, "libraries", "jansson",
                  jansson_version_str(), "libcurl", curl_version_info(CURLVERSION_NOW)->version);
    if (json == NULL)
        return pk_no_memory(err);
    return pk_out_document(ctx, json, err);
}

static const char *const version_examples[] = { "picket version -o json", NULL };
const struct pk_cmd pk_cmd_version = {
    .name = "version",
    .group = "Help",
    .summary = "print the version",
    .examples = version_examples,
    .flags = PK_CMD_OUTPUT,
    .run = run_version,
};
