/* SPDX-License-Identifier: Apache-2.0 */
/* picket up, down, supervise: running everything where systemd does not. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/supervisor.h"
#include "engine/engine.h"
#include "node/node.h"

#define READY_TIMEOUT (60 * PK_NSEC_PER_SEC)
/* So often may a process fail before 'up' gives the wait up and says why. */
#define READY_RESTARTS 4
#define UNIT_STOP_MS   5000u
#define LOG_TAIL_LINES 5u

static int need_root(const char *what, struct pk_error *err)
{
    if (geteuid() == 0)
        return 0;
    (void)pk_fail(err, PK_E_DENIED, "'picket %s' makes and removes network links: it needs root",
                  what);
    return pk_hint(err, "run 'sudo picket %s'", what);
}

/* NULL when there is none or it cannot be read. */
static json_t *read_state(const struct pk_paths *paths)
{
    json_t *state = NULL;
    PK_CLEANUP(pk_free_p) char *path = pk_up_path(paths, "state", ".json");
    if (path == NULL || pk_json_load(path, &state, NULL) < 0)
        return NULL;
    return state;
}

static bool find_supervisor(const struct pk_paths *paths, struct pk_proc_id *ret_id)
{
    PK_CLEANUP(pk_free_p) char *path = pk_up_path(paths, "supervisor", ".pid");
    return path != NULL && pk_pidfile_read(path, ret_id, NULL) == 0 && pk_proc_alive(ret_id);
}

static const json_t *process_row(const json_t *state, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(state, "processes"), i, row)
    {
        if (strcmp(pk_json_string_or(row, "name", ""), name) == 0)
            return row;
    }
    return NULL;
}

/* ---- supervise ---- */

struct supervise_args {
    const char *engine;
};
static const struct supervise_args supervise_defaults = { .engine = "podman" };
static const struct pk_opt supervise_opts[] = {
    { "engine", 0, PK_OPT_STRING, "ENGINE", offsetof(struct supervise_args, engine),
      "podman, podman:SOCKET or fake (podman)", NULL },
};

static int run_supervise(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                         struct pk_error *err)
{
    const struct supervise_args *options = args;
    (void)argc;
    (void)argv;
    return pk_supervise(&ctx->paths, options->engine, err);
}

const struct pk_cmd pk_cmd_supervise = {
    .name = "supervise",
    .group = "Run",
    .summary = "what 'picket up' starts: keeps the processes running",
    .opts = supervise_opts,
    .opt_count = PK_ARRAY_SIZE(supervise_opts),
    .args_size = sizeof(struct supervise_args),
    .defaults = &supervise_defaults,
    .flags = PK_CMD_HIDDEN,
    .run = run_supervise,
};

/* ---- up ---- */

struct up_args {
    const char *engine;
    bool force;
};
static const struct pk_opt up_opts[] = {
    { "engine", 0, PK_OPT_STRING, "ENGINE", offsetof(struct up_args, engine),
      "podman, podman:SOCKET or fake (podman)", NULL },
    { "force", 0, PK_OPT_FLAG, NULL, offsetof(struct up_args, force), "also where systemd runs",
      NULL },
};

static int make_folders(const struct pk_paths *paths, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *up = pk_path_join(paths->run_dir, "up");
    if (up == NULL)
        return pk_no_memory(err);
    int r = pk_mkdir_p(paths->state_dir, 0750, err);
    if (r >= 0)
        r = pk_mkdir_p(paths->run_dir, 0755, err);
    return r < 0 ? r : pk_mkdir_p(up, 0755, err);
}

/* A running supervisor is woken, else one is started, which takes over what runs. */
static int ensure_supervisor(const struct pk_paths *paths, const char *wanted, char *ret_engine,
                             size_t size, struct pk_error *err)
{
    struct pk_proc_id id;
    PK_JSON state = read_state(paths);
    const char *running = pk_json_string_or(state, "engine", "podman");
    if (!find_supervisor(paths, &id)) {
        (void)snprintf(ret_engine, size, "%s", wanted == NULL ? running : wanted);
        pid_t pid = 0;
        return pk_service_start(paths, ret_engine, "supervise", &pid, err);
    }
    if (wanted != NULL && strcmp(wanted, running) != 0) {
        (void)pk_fail(err, PK_E_CONFLICT, "it is up with engine '%s', not '%s'", running, wanted);
        return pk_hint(err, "'picket down' first, then 'picket up --engine %s'", wanted);
    }
    (void)snprintf(ret_engine, size, "%s", running);
    (void)kill(id.pid, SIGHUP);
    return 0;
}

/* The last lines of a log, for the error of a process that does not come up. */
static void print_tail(const char *path)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    size_t len = 0;
    if (pk_file_read(path, 64u << 20, &text, &len, NULL) < 0)
        return;
    size_t start = len;
    for (unsigned lines = 0; start > 0; start--)
        if (text[start - 1] == '\n' && start != len && ++lines == LOG_TAIL_LINES)
            break;
    for (char *line = text + start; *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end = '\0';
        (void)fputs("  | ", stderr);
        pk_print_clean(stderr, line);
        (void)fputc('\n', stderr);
        line = end == NULL ? line + strlen(line) : end + 1;
    }
}

static int not_ready(const struct pk_paths *paths, const char *name, const json_t *row,
                     struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *log = pk_up_path(paths, name, ".log");
    const char *reason = pk_json_string_or(row, "reason", "");
    fprintf(stderr, "The last lines of %s:\n", log == NULL ? name : log);
    if (log != NULL)
        print_tail(log);
    (void)pk_fail(err, PK_E_TIMEOUT, "%s is not ready%s%s", name, reason[0] == '\0' ? "" : ": ",
                  reason);
    return pk_hint(err, "the supervisor goes on trying; 'picket doctor' looks for causes, 'picket "
                        "down' ends it");
}

static int wait_ready(const struct pk_paths *paths, const char *engine, struct pk_error *err)
{
    struct pk_service services[PK_SERVICES_MAX];
    size_t count = pk_services(engine, services);
    pk_nsec deadline = pk_time_monotonic() + READY_TIMEOUT;
    int64_t
        before[PK_SERVICES_MAX]; /* failures that an earlier 'up' saw: their cause may be gone */
    for (size_t i = 0; i < count; i++)
        before[i] = INT64_MAX;
    for (;;) {
        size_t ready = 0, failing = 0;
        const char *missing = NULL;
        PK_JSON state = read_state(paths);
        for (size_t i = 0; i < count; i++) {
            struct pk_proc_id id;
            if (pk_service_find(paths, &services[i], &id) && pk_service_ready(paths, &services[i]))
                ready++;
            else if (missing == NULL)
                missing = services[failing = i].name;
            int64_t restarts = pk_json_int_or(process_row(state, services[i].name), "restarts", 0);
            before[i] = PK_MIN(before[i], restarts);
        }
        if (ready == count)
            return 0;
        const json_t *row = process_row(state, missing);
        if (pk_time_monotonic() > deadline ||
            pk_json_int_or(row, "restarts", 0) - before[failing] >= READY_RESTARTS)
            return not_ready(paths, missing, row, err);
        pk_sleep_ms(100);
    }
}

static int print_processes(const struct pk_ctx *ctx, const char *engine, struct pk_error *err)
{
    static const struct pk_table_column columns[] = {
        { "PROCESS", "name", 1, false, NULL },    { "PID", "pid", 1, true, NULL },
        { "STATE", "state", 1, false, "state" },  { "RESTARTS", "restarts", 2, true, NULL },
        { "LAST END", "reason", 3, false, NULL }, { "LOG", "log", 2, false, NULL },
    };
    struct pk_service services[PK_SERVICES_MAX];
    size_t count = pk_services(engine, services);
    PK_JSON state = read_state(&ctx->paths);
    PK_JSON rows = json_array();
    for (size_t i = 0; i < count; i++) {
        struct pk_proc_id id = { 0 };
        bool found = pk_service_find(&ctx->paths, &services[i], &id);
        bool ready = found && pk_service_ready(&ctx->paths, &services[i]);
        const json_t *row = process_row(state, services[i].name);
        PK_CLEANUP(pk_free_p) char *log = pk_up_path(&ctx->paths, services[i].name, ".log");
        (void)json_array_append_new(
            rows, json_pack("{s:s,s:i,s:s,s:I,s:s,s:s?}", "name", services[i].name, "pid",
                            (int)id.pid, "state",
                            ready   ? "ready"
                            : found ? "starting"
                                    : "waiting",
                            "restarts", (json_int_t)pk_json_int_or(row, "restarts", 0), "reason",
                            pk_json_string_or(row, "reason", ""), "log", log));
    }
    PK_JSON document =
        json_pack("{s:s,s:s,s:s,s:s,s:O}", "kind", "Processes", "engine", engine, "stateDir",
                  ctx->paths.state_dir, "runDir", ctx->paths.run_dir, "processes", rows);
    return pk_out_table(ctx, document, rows, columns, PK_ARRAY_SIZE(columns), "name", err);
}

static int run_up(struct pk_ctx *ctx, const void *args, int argc, char **argv, struct pk_error *err)
{
    const struct up_args *options = args;
    char engine[256];
    if (!options->force && pk_file_exists("/run/systemd/system")) {
        (void)pk_fail(err, PK_E_UNSUPPORTED, "systemd runs here: its units do this job");
        return pk_hint(err, "'systemctl enable --now picket-podman picket-node picket-serve "
                            "picket-ship', or 'picket up --force'");
    }
    int r = need_root("up", err);
    if (r >= 0)
        r = make_folders(&ctx->paths, err);
    if (r >= 0)
        r = ensure_supervisor(&ctx->paths, options->engine, engine, sizeof(engine), err);
    if (r >= 0)
        r = wait_ready(&ctx->paths, engine, err);
    if (r < 0)
        return r;
    if (argc == 0 || !(ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML))
        r = print_processes(ctx, engine, err);
    if (r < 0)
        return r;
    if (argc == 0) {
        if (!ctx->quiet && ctx->output == PK_OUT_TABLE)
            printf(
                "\nRunning. 'picket apply FLEET.yaml' starts sensors, 'picket down' ends all.\n");
        return 0;
    }
    printf("\n");
    ctx->yes = true; /* 'up FLEET' is the order to apply it */
    return pk_apply_file(ctx, argv[0], err);
}

static const struct pk_arg up_pos[] = {
    { "FLEET", "apply this fleet file too", "file", true, false },
};
static const char *const up_examples[] = { "picket up", "picket up examples/demo.yaml", NULL };
const struct pk_cmd pk_cmd_up = {
    .name = "up",
    .group = "Run",
    .summary = "start everything in the background where systemd does not run",
    .details =
        "Starts a supervisor that keeps Podman's API service, the agent, the server and the shipper "
        "running, and restarts each with back-off. Running it again starts what is missing and "
        "doubles nothing. Logs and pid files are in <run>/up.",
    .examples = up_examples,
    .opts = up_opts,
    .opt_count = PK_ARRAY_SIZE(up_opts),
    .args = up_pos,
    .arg_count = PK_ARRAY_SIZE(up_pos),
    .args_size = sizeof(struct up_args),
    .flags = PK_CMD_OUTPUT,
    .run = run_up,
};

/* ---- down ---- */

struct down_args {
    bool keep_state, purge;
};
static const struct pk_opt down_opts[] = {
    { "keep-state", 0, PK_OPT_FLAG, NULL, offsetof(struct down_args, keep_state),
      "keep fleets, history and events (what it does anyway)", NULL },
    { "purge", 0, PK_OPT_FLAG, NULL, offsetof(struct down_args, purge),
      "remove the state too: fleets, history, events", NULL },
};

/* What went wrong first; the rest is done all the same, so that as little as possible is left. */
struct trouble {
    struct pk_error first;
    unsigned count;
};

static void keep(struct trouble *trouble, int r, const struct pk_error *err, const char *what)
{
    if (r >= 0)
        return;
    if (trouble->count++ == 0) {
        trouble->first = *err;
        (void)pk_wrap(&trouble->first, "%s", what);
    }
}

static void say(const struct pk_ctx *ctx, const char *what)
{
    if (!ctx->quiet)
        fprintf(stderr, "%s\n", what);
}

static void stop_service(const struct pk_ctx *ctx, const char *name, const char *socket,
                         unsigned grace_ms, struct trouble *trouble)
{
    const struct pk_service service = { name, socket };
    struct pk_proc_id id;
    struct pk_error err;
    if (!pk_service_find(&ctx->paths, &service, &id))
        return;
    keep(trouble, pk_proc_stop(&id, grace_ms, &err), &err, name);
}

/* Stops and removes the containers of this instance. */
static int remove_units(const struct pk_engine *engine, struct pk_error *err)
{
    struct pk_unit_status *list = NULL;
    size_t count = 0;
    int r = engine->ops->list(engine->self, NULL, &list, &count, err);
    if (r < 0)
        return r;
    /* All are told to end before the first one is waited for: they flush their logs at once. */
    for (size_t i = 0; i < count; i++)
        if (list[i].state == PK_UNIT_RUNNING)
            (void)engine->ops->kill(engine->self, list[i].name, SIGTERM, NULL);
    for (size_t i = 0; i < count; i++) {
        (void)engine->ops->stop(engine->self, list[i].name, UNIT_STOP_MS, NULL);
        int removed = engine->ops->remove(engine->self, list[i].name, r < 0 ? NULL : err);
        r = r < 0 ? r : removed;
    }
    pk_unit_status_list_free(list, count);
    return r < 0 ? r : 0;
}

/* With Podman's service dead, one of our own is started for the time of the clean-up. */
static int ensure_podman(const struct pk_paths *paths, struct pk_error *err)
{
    if (pk_socket_answers(paths, "podman.sock", NULL))
        return 0;
    PK_CLEANUP(pk_free_p) char *pid_path = pk_up_path(paths, "podman", ".pid");
    struct pk_proc_id id;
    pid_t pid = 0;
    if (pid_path == NULL)
        return pk_no_memory(err);
    int r = make_folders(paths, err);
    if (r >= 0)
        r = pk_service_start(paths, "podman", "podman", &pid, err);
    if (r >= 0)
        r = pk_proc_id_of(pid, &id, err);
    if (r >= 0)
        r = pk_pidfile_write(pid_path, &id, err);
    for (unsigned tries = 0; r >= 0 && tries < 100; tries++) {
        if (pk_socket_answers(paths, "podman.sock", NULL))
            return 0;
        pk_sleep_ms(100);
    }
    return r < 0 ? r : pk_fail(err, PK_E_TIMEOUT, "Podman's API service does not come up");
}

static int clean_units(const struct pk_ctx *ctx, const char *spec, struct pk_error *err)
{
    PK_CLEANUP(pk_engine_free_p) struct pk_engine *engine = NULL;
    PK_CLEANUP(pk_free_p) char *socket = pk_path_join(ctx->paths.run_dir, "podman.sock");
    if (socket == NULL)
        return pk_no_memory(err);
    int r = 0;
    if (strcmp(spec, "podman") == 0)
        r = ensure_podman(&ctx->paths, err);
    if (r >= 0)
        r = pk_engine_open(spec, socket, ctx->paths.tag, &engine, err);
    return r < 0 ? r : remove_units(engine, err);
}

/* Was there ever anything of this instance? Saves starting Podman to find out. */
static bool any_trace(const struct pk_paths *paths)
{
    PK_CLEANUP(pk_free_p) char *db = pk_path_join(paths->state_dir, "fleet.db");
    return pk_file_exists(paths->run_dir) || (db != NULL && pk_file_exists(db));
}

static void remove_entries(const char *dir, const char *const *names, struct trouble *trouble)
{
    for (size_t i = 0; names[i] != NULL; i++) {
        struct pk_error err;
        PK_CLEANUP(pk_free_p) char *path = pk_path_join(dir, names[i]);
        if (path != NULL)
            keep(trouble, pk_rm_rf(path, &err), &err, path);
    }
    (void)rmdir(dir); /* only when nothing else is in it */
}

static int run_down(struct pk_ctx *ctx, const void *args, int argc, char **argv,
                    struct pk_error *err)
{
    /* Only what is ours by name: a state folder may have been pointed at a folder with other
     * things. */
    static const char *const run_entries[] = {
        "serve.sock", "node.sock", "podman.sock", "containers.conf", "up", "bpf", NULL
    };
    static const char *const state_entries[] = { "fleet.db", "fleet.db-wal", "fleet.db-shm",
                                                 "events",   "units",        "ship",
                                                 "node",     "images",       "serve.lock",
                                                 NULL };
    const struct down_args *options = args;
    struct trouble trouble = { 0 };
    (void)argc;
    (void)argv;
    if (options->keep_state && options->purge) {
        (void)pk_fail(err, PK_E_USAGE, "--keep-state and --purge exclude each other");
        return pk_hint(err, "give one of them");
    }
    int r = need_root("down", err);
    if (r >= 0 && options->purge)
        r = pk_confirm(ctx, "Remove all fleets, history and events for good?", err);
    if (r < 0)
        return r;
    if (!any_trace(&ctx->paths)) {
        say(ctx, "Nothing of this instance is there.");
        return 0;
    }
    PK_JSON state = read_state(&ctx->paths);
    char engine[256];
    (void)snprintf(engine, sizeof(engine), "%s", pk_json_string_or(state, "engine", "podman"));

    /* First who would start things again: the supervisor, then the reconciler in serve. */
    stop_service(ctx, "supervisor", NULL, 5000, &trouble);
    stop_service(ctx, "serve", "serve.sock", 20000, &trouble);
    struct pk_error step;
    say(ctx, "Removing units ...");
    keep(&trouble, clean_units(ctx, engine, &step), &step, "units");
    stop_service(ctx, "ship", NULL, 10000, &trouble);
    stop_service(ctx, "node", "node.sock", 10000, &trouble);
    say(ctx, "Removing taps and lanes ...");
    keep(&trouble, pk_node_clean(&ctx->paths, &step), &step, "taps and lanes");
    stop_service(ctx, "podman", "podman.sock", 10000, &trouble);
    if (trouble.count > 0) {
        /* The pid files stay, so that the next 'down' finds what is left. */
        *err = trouble.first;
        if (err->hint[0] == '\0')
            (void)pk_hint(err, "run 'picket down' again when the cause is gone");
        return err->code;
    }
    remove_entries(ctx->paths.run_dir, run_entries, &trouble);
    if (options->purge)
        remove_entries(ctx->paths.state_dir, state_entries, &trouble);
    if (trouble.count > 0) {
        *err = trouble.first;
        return err->code;
    }
    if (!ctx->quiet)
        printf(options->purge ? "Down; nothing is left.\n"
                              : "Down. State and events are kept in %s.\n",
               ctx->paths.state_dir);
    return 0;
}

static const char *const down_examples[] = { "picket down", "picket down --purge --yes", NULL };
const struct pk_cmd pk_cmd_down = {
    .name = "down",
    .group = "Run",
    .summary = "end what 'up' started and remove its units, lanes and taps",
    .details = "The fleets, their history and the events stay unless --purge is given; the next "
               "'picket up' runs the same fleets again.",
    .examples = down_examples,
    .opts = down_opts,
    .opt_count = PK_ARRAY_SIZE(down_opts),
    .args_size = sizeof(struct down_args),
    .flags = PK_CMD_CONFIRM,
    .run = run_down,
};
