/* SPDX-License-Identifier: Apache-2.0 */
/* picket serve: the server in the foreground. */
#include "cli/cli.h"
#include "cli/commands.h"
#include "node/node.h"
#include "serve/serve.h"

struct serve_args {
    const char *engine, *listen, *cert, *key, *group;
};
static const struct serve_args defaults = { .engine = "podman" };
static const struct pk_opt opts[] = {
    { "engine", 0, PK_OPT_STRING, "ENGINE", offsetof(struct serve_args, engine),
      "podman, podman:SOCKET or fake (podman)", NULL },
    { "listen", 0, PK_OPT_STRING, "ADDR:PORT", offsetof(struct serve_args, listen),
      "answer over TLS too; needs --cert and --key", NULL },
    { "cert", 0, PK_OPT_STRING, "FILE", offsetof(struct serve_args, cert),
      "certificate chain in PEM", "file" },
    { "key", 0, PK_OPT_STRING, "FILE", offsetof(struct serve_args, key), "its key in PEM", "file" },
    { "group", 0, PK_OPT_STRING, "GROUP", offsetof(struct serve_args, group),
      "members of this group may use the unix socket", NULL },
};

static int run(struct pk_ctx *ctx, const void *args, int argc, char **argv, struct pk_error *err)
{
    const struct serve_args *given = args;
    (void)argc;
    (void)argv;
    const struct pk_serve_options options = { .paths = ctx->paths,
                                              .engine = given->engine,
                                              .listen = given->listen,
                                              .cert_file = given->cert,
                                              .key_file = given->key,
                                              .group = given->group,
                                              .lane_netns = pk_lane_netns_path };
    return pk_serve_run(&options, err);
}

static const char *const examples[] = {
    "picket serve", "picket serve --listen 0.0.0.0:7443 --cert server.pem --key server.key", NULL
};
const struct pk_cmd pk_cmd_serve = {
    .name = "serve",
    .group = "Run",
    .summary = "run the server: API, reconciler, state and event store",
    .details = "Runs in the foreground until SIGTERM; 'picket up' or systemd keeps it running.",
    .examples = examples,
    .opts = opts,
    .opt_count = PK_ARRAY_SIZE(opts),
    .args_size = sizeof(struct serve_args),
    .defaults = &defaults,
    .run = run,
};
