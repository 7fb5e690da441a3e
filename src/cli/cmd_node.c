/* SPDX-License-Identifier: Apache-2.0 */
/* picket node: the agent in the foreground. */
#include <errno.h>
#include <grp.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "node/node.h"

struct node_args {
    const char *group, *metrics;
};
static const struct pk_opt opts[] = {
    { "group", 0, PK_OPT_STRING, "GROUP", offsetof(struct node_args, group),
      "members of this group may use the agent's socket (root only)", NULL },
    { "metrics", 0, PK_OPT_STRING, "ADDR:PORT", offsetof(struct node_args, metrics),
      "also answer GET /metrics there, in clear, to everybody who reaches it (PICKET_METRICS)",
      NULL },
};

static int find_group(const char *name, gid_t *ret_gid, struct pk_error *err)
{
    char room[16384];
    struct group entry, *found = NULL;
    int sys = getgrnam_r(name, &entry, room, sizeof(room), &found);
    if (sys != 0)
        return pk_fail_errno(err, sys, "cannot look the group '%s' up", name);
    if (found == NULL) {
        (void)pk_fail(err, PK_E_NOTFOUND, "there is no group '%s'", name);
        return pk_hint(err, "make it ('groupadd --system %s') or leave --group out", name);
    }
    *ret_gid = found->gr_gid;
    return 0;
}

static int run(struct pk_ctx *ctx, const void *args, int argc, char **argv, struct pk_error *err)
{
    const struct node_args *given = args;
    (void)argc;
    (void)argv;
    struct pk_node_options options = { .paths = ctx->paths, .socket_gid = (gid_t)-1 };
    options.metrics = given->metrics != NULL ? given->metrics : getenv("PICKET_METRICS");
    if (pk_str_equal(options.metrics, ""))
        options.metrics = NULL;
    if (given->group != NULL) {
        int r = find_group(given->group, &options.socket_gid, err);
        if (r < 0)
            return r;
    }
    return pk_node_run(&options, err);
}

static const char *const examples[] = { "picket node", "picket node --group picket",
                                        "picket node --metrics 127.0.0.1:9433", NULL };
const struct pk_cmd pk_cmd_node = {
    .name = "node",
    .group = "Run",
    .summary = "run this machine's agent: taps, lanes and the packet broker",
    .details =
        "Runs in the foreground until SIGTERM; 'picket up' or systemd keeps it running. Needs "
        "root, and keeps only the capabilities that it works with. Packets flow on when it "
        "ends; what it made goes with 'picket down'. Metrics for Prometheus are always there on "
        "its socket; --metrics ADDRESS:PORT (or only PORT: on the loopback) gives them over TCP.",
    .examples = examples,
    .opts = opts,
    .opt_count = PK_ARRAY_SIZE(opts),
    .args_size = sizeof(struct node_args),
    .run = run,
};
