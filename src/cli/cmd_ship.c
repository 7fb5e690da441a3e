/* SPDX-License-Identifier: Apache-2.0 */
/* picket ship: follows the tools' logs, in the foreground. */
#include <signal.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/proc.h"
#include "cli/cli.h"
#include "cli/commands.h"
#include "ship/ship.h"

static atomic_bool stop;

static void on_signal(int signo)
{
    (void)signo;
    atomic_store(&stop, true);
}

struct ship_args {
    pk_nsec keep;
};
static const struct ship_args defaults = { .keep = 600 * PK_NSEC_PER_SEC };
static const struct pk_opt opts[] = {
    { "keep", 0, PK_OPT_DURATION, "TIME", offsetof(struct ship_args, keep),
      "how long a log stays after all of it is in the store (10m)", NULL },
};

static int run(struct pk_ctx *ctx, const void *args, int argc, char **argv, struct pk_error *err)
{
    const struct ship_args *given = args;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    PK_CLEANUP(pk_ship_free_p) struct pk_ship *ship = NULL;
    PK_CLEANUP(pk_free_p) char *dir = pk_asprintf("%s/ship", ctx->paths.state_dir);
    PK_CLEANUP(pk_free_p) char *lock = pk_asprintf("%s/ship/lock", ctx->paths.state_dir);
    PK_CLEANUP(pk_close_p) int lock_fd = -1;

    (void)argc;
    (void)argv;
    if (dir == NULL || lock == NULL)
        return pk_no_memory(err);
    const struct sigaction action = { .sa_handler = on_signal };
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    int r = pk_mkdir_p(dir, 0750, err);
    if (r == 0)
        r = pk_lock_process(lock, PK_LOCK_WAIT_MS, &lock_fd, err);
    if (r == PK_E_CONFLICT)
        return pk_hint(err, "another 'picket ship' works for %s", ctx->paths.state_dir);
    if (r == 0)
        r = pk_ctx_client(ctx, &client, err);
    if (r < 0)
        return r;
    const struct pk_ship_options options = { .dir = dir,
                                             .sink = pk_ship_http_sink(client),
                                             .keep = given->keep };
    r = pk_ship_new(&options, &ship, err);
    return r < 0 ? r : pk_ship_run(ship, &stop, err);
}

static const char *const examples[] = { "picket ship", "picket ship --keep 1h", NULL };
const struct pk_cmd pk_cmd_ship = {
    .name = "ship",
    .group = "Run",
    .summary = "run the shipper: follows the tools' logs, delivers their events to the server",
    .details =
        "Runs in the foreground until SIGTERM; 'picket up' or systemd keeps it running. Each "
        "record is delivered exactly once; while the server is away the logs wait.",
    .examples = examples,
    .opts = opts,
    .opt_count = PK_ARRAY_SIZE(opts),
    .args_size = sizeof(struct ship_args),
    .defaults = &defaults,
    .run = run,
};
