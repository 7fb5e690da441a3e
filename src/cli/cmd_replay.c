/* SPDX-License-Identifier: Apache-2.0 */
/* picket replay: capture files into a replay tap. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/commands.h"

#define LOOK_EVERY_MS 200u
#define LINE_EVERY    (5 * PK_NSEC_PER_SEC) /* off a terminal */

struct replay_args {
    const char *tap, *loop;
    double speed;
    pk_nsec max_gap; /* -1 = not given */
    uint64_t pps, mbps;
    bool fast, detach, stop, status;
};
static const struct pk_opt opts[] = {
    { "tap", 't', PK_OPT_STRING, "[FLEET/]TAP", offsetof(struct replay_args, tap),
      "the replay tap (the only one there is)", "tap" },
    { "speed", 0, PK_OPT_DOUBLE, "X", offsetof(struct replay_args, speed),
      "times the recorded speed (1)", NULL },
    { "max-gap", 0, PK_OPT_DURATION, "SPAN", offsetof(struct replay_args, max_gap),
      "cut longer pauses of the capture to this (2s, 0s = keep them)", NULL },
    { "pps", 0, PK_OPT_UINT, "N", offsetof(struct replay_args, pps), "packets per second", NULL },
    { "mbps", 0, PK_OPT_UINT, "N", offsetof(struct replay_args, mbps), "megabits per second",
      NULL },
    { "fast", 0, PK_OPT_FLAG, NULL, offsetof(struct replay_args, fast),
      "as fast as the lanes take it", NULL },
    { "loop", 0, PK_OPT_STRING, "N|forever", offsetof(struct replay_args, loop),
      "how often all files are sent (1)", NULL },
    { "detach", 'd', PK_OPT_FLAG, NULL, offsetof(struct replay_args, detach),
      "do not wait for the end", NULL },
    { "stop", 0, PK_OPT_FLAG, NULL, offsetof(struct replay_args, stop), "stop what runs", NULL },
    { "status", 0, PK_OPT_FLAG, NULL, offsetof(struct replay_args, status), "tell how far it is",
      NULL },
};

static volatile sig_atomic_t interrupted;

static void on_signal(int signo)
{
    interrupted = signo;
}

/* ---- which tap ---- */

static bool is_meant(const json_t *tap, const char *fleet, size_t fleet_len, const char *name)
{
    const char *its_fleet = pk_json_string_or(tap, "fleet", "");
    if (fleet != NULL &&
        (strlen(its_fleet) != fleet_len || memcmp(its_fleet, fleet, fleet_len) != 0))
        return false;
    if (name != NULL)
        return strcmp(pk_json_string_or(tap, "name", ""), name) == 0;
    return strcmp(pk_json_string_or(tap, "kind", ""), "replay") == 0;
}

/* The path of the tap's replay; pk_free(). given: "TAP", "FLEET/TAP" or NULL for the only one. */
static int find_tap(const struct pk_ctx *ctx, struct pk_http_client *client, const char *given,
                    char **ret_path, struct pk_error *err)
{
    PK_JSON plane = NULL;
    const char *slash = given == NULL ? NULL : strchr(given, '/');
    const char *fleet = slash == NULL ? NULL : given;
    const char *name = slash == NULL ? given : slash + 1;
    int r = pk_client_json(ctx, client, "GET", "/v1/plane", NULL, &plane, err);
    if (r < 0)
        return r;
    const json_t *tap, *found = NULL;
    size_t i, matches = 0, replays = 0;
    json_array_foreach(json_object_get(plane, "taps"), i, tap)
    {
        replays += is_meant(tap, NULL, 0, NULL);
        if (!is_meant(tap, fleet, slash == NULL ? 0 : (size_t)(slash - given), name))
            continue;
        found = tap;
        matches++;
    }
    if (matches == 0) {
        (void)pk_fail(err, PK_E_NOTFOUND, "there is no replay tap%s%s", given == NULL ? "" : " ",
                      given == NULL ? "" : given);
        return replays > 0 ? pk_hint(err, "'picket status' lists the taps of the fleets that run")
                           : pk_hint(err, "apply a fleet that has one: 'taps: [{name: files, "
                                          "replay: {}}]'");
    }
    if (matches > 1) {
        (void)pk_fail(err, PK_E_USAGE, "%zu taps could be meant", matches);
        return pk_hint(err, "say which: --tap FLEET/TAP");
    }
    PK_CLEANUP(pk_free_p) char *fleet_part = pk_url_escape(pk_json_string_or(found, "fleet", ""));
    PK_CLEANUP(pk_free_p) char *name_part = pk_url_escape(pk_json_string_or(found, "name", ""));
    if (fleet_part != NULL && name_part != NULL)
        *ret_path = pk_asprintf("/v1/fleets/%s/taps/%s/replay", fleet_part, name_part);
    return *ret_path == NULL ? pk_no_memory(err) : 0;
}

/* ---- the request ---- */

static int add_file(json_t *files, const char *path, struct pk_error *err)
{
    /* The agent has another working folder; it says itself what is wrong with a file, except for
     * one that is not there, which is seen best from here. */
    char *absolute = realpath(path, NULL);
    if (absolute == NULL) {
        (void)pk_fail_errno(err, errno, "%s", path);
        return pk_hint(err, "give a pcap or pcapng file on this machine");
    }
    int r = json_array_append_new(files, json_string(absolute));
    free(absolute); /* realpath()'s own */
    if (r < 0) {
        (void)pk_fail(err, PK_E_USAGE, "%s: the path is not UTF-8 text", path);
        return pk_hint(err, "rename the file");
    }
    return 0;
}

static int add_loops(const struct replay_args *args, json_t *body, struct pk_error *err)
{
    uint64_t loops = 1;
    if (args->loop == NULL)
        return 0;
    if (strcmp(args->loop, "forever") == 0)
        loops = 0;
    else if (pk_parse_u64(args->loop, &loops, NULL) < 0 || loops == 0 || loops > UINT32_MAX)
        return pk_fail(err, PK_E_USAGE, "--loop: '%s' is neither a number from 1 nor 'forever'",
                       args->loop);
    (void)json_object_set_new(body, "loops", json_integer((json_int_t)loops));
    return 0;
}

static int make_body(const struct replay_args *args, int argc, char **argv, json_t **ret_body,
                     struct pk_error *err)
{
    int modes = (args->speed != 0) + (args->pps != 0) + (args->mbps != 0) + args->fast;
    if (modes > 1) {
        (void)pk_fail(err, PK_E_USAGE, "--speed, --pps, --mbps and --fast exclude each other");
        return pk_hint(err, "give one of them, or none for the recorded speed");
    }
    PK_JSON files = json_array();
    for (int i = 0; i < argc; i++) {
        int r = add_file(files, argv[i], err);
        if (r < 0)
            return r;
    }
    PK_JSON body = json_pack("{s:O,s:s}", "files", files, "mode",
                             args->fast                          ? "fast"
                             : args->pps != 0 || args->mbps != 0 ? "rate"
                                                                 : "recorded");
    if (body == NULL)
        return pk_no_memory(err);
    if (args->speed != 0)
        (void)json_object_set_new(body, "speed", json_real(args->speed));
    if (args->max_gap >= 0)
        (void)json_object_set_new(body, "maxGapMs",
                                  json_integer((json_int_t)(args->max_gap / PK_NSEC_PER_MS)));
    if (args->pps != 0)
        (void)json_object_set_new(body, "pps", json_integer((json_int_t)args->pps));
    if (args->mbps != 0)
        (void)json_object_set_new(body, "mbps", json_integer((json_int_t)args->mbps));
    int r = add_loops(args, body, err);
    if (r == 0)
        *ret_body = PK_TAKE(body);
    return r;
}

/* ---- what is shown ---- */

static void print_line(FILE *stream, const json_t *status, const char *end)
{
    char bytes[32], rate[32], elapsed[32];
    uint64_t packets = (uint64_t)pk_json_int_or(status, "sent", 0);
    uint64_t ms = (uint64_t)pk_json_int_or(status, "elapsedMs", 0);
    (void)pk_human_bytes((uint64_t)pk_json_int_or(status, "bytes", 0), bytes, sizeof(bytes));
    (void)pk_human_count(ms == 0 ? packets : packets * 1000 / ms, rate, sizeof(rate));
    (void)pk_human_duration((pk_nsec)ms * PK_NSEC_PER_MS, elapsed, sizeof(elapsed));
    fprintf(stream, "%llu packets, %s, %s packets/s, %s%s", (unsigned long long)packets, bytes,
            rate, elapsed, end);
}

static void print_note(const json_t *status, const char *key, const char *text)
{
    int64_t count = pk_json_int_or(status, key, 0);
    if (count > 0)
        fprintf(stderr, "note: %lld frames %s\n", (long long)count, text);
}

static int show_end(const struct pk_ctx *ctx, const json_t *status, struct pk_error *err)
{
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML)
        return pk_out_document(ctx, status, err);
    if (ctx->quiet)
        return 0;
    const char *state = pk_json_string_or(status, "state", "none");
    if (strcmp(state, "none") == 0) {
        printf("No replay ran into this tap since the agent started.\n");
        return 0;
    }
    printf("%s: ", pk_json_bool_or(status, "stopped", false) ? "stopped" : state);
    print_line(stdout, status, "\n");
    print_note(status, "oversize",
               "are larger than the tap's MTU and were left out; raise the "
               "tap's mtu in the fleet to send them");
    print_note(status, "truncated", "were cut by the capture and sent as they are");
    print_note(status, "failed", "could not be sent");
    int64_t gaps = pk_json_int_or(status, "cutGaps", 0);
    if (gaps > 0)
        printf("%lld long pause%s of the capture cut short; --max-gap 0s keeps them\n",
               (long long)gaps, gaps == 1 ? " was" : "s were");
    return 0;
}

static int follow(const struct pk_ctx *ctx, struct pk_http_client *client, const char *path,
                  json_t **ret_status, struct pk_error *err)
{
    bool live = isatty(STDERR_FILENO) != 0 && !ctx->quiet;
    pk_nsec next_line = pk_time_monotonic() + LINE_EVERY;
    for (;;) {
        PK_JSON status = NULL;
        int r = pk_client_json(ctx, client, interrupted != 0 ? "DELETE" : "GET", path, NULL,
                               &status, err);
        if (r < 0)
            return r;
        bool running = strcmp(pk_json_string_or(status, "state", ""), "running") == 0;
        if (live) {
            (void)fputs("\r", stderr);
            print_line(stderr, status, running ? "\033[K" : "\r\033[K");
            (void)fflush(stderr);
        } else if (running && !ctx->quiet && pk_time_monotonic() >= next_line) {
            print_line(stderr, status, "\n");
            next_line += LINE_EVERY;
        }
        if (!running) {
            *ret_status = PK_TAKE(status);
            return 0;
        }
        if (interrupted == 0)
            pk_sleep_ms(LOOK_EVERY_MS);
    }
}

static int wait_for_end(const struct pk_ctx *ctx, struct pk_http_client *client, const char *path,
                        struct pk_error *err)
{
    PK_JSON status = NULL;
    int r = follow(ctx, client, path, &status, err);
    if (r == 0)
        r = show_end(ctx, status, err);
    if (r < 0)
        return r;
    if (interrupted != 0) {
        (void)pk_fail(err, PK_E_INTERRUPTED, "interrupted: the replay was stopped");
        return pk_hint(err, "--detach leaves a replay running");
    }
    if (strcmp(pk_json_string_or(status, "state", ""), "failed") == 0) {
        (void)pk_fail(err, PK_E_IO, "%s", pk_json_string_or(status, "error", "the replay failed"));
        return pk_hint(err, "%s", pk_json_string_or(status, "hint", "start it again"));
    }
    return 0;
}

static int run(struct pk_ctx *ctx, const void *arguments, int argc, char **argv,
               struct pk_error *err)
{
    const struct replay_args *args = arguments;
    bool look = args->stop || args->status;
    if (look ? argc > 0 || args->detach : argc == 0) {
        (void)pk_fail(err, PK_E_USAGE,
                      look ? "--stop and --status take no files" : "no capture file given");
        return pk_hint(err, "picket replay FILE... --tap TAP");
    }
    PK_JSON body = NULL;
    PK_JSON status = NULL;
    PK_CLEANUP(pk_free_p) char *path = NULL;
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    int r = look ? 0 : make_body(args, argc, argv, &body, err);
    if (r == 0)
        r = pk_ctx_client(ctx, &client, err);
    if (r == 0)
        r = find_tap(ctx, client, args->tap, &path, err);
    if (r < 0)
        return r;
    if (look) {
        r = pk_client_json(ctx, client, args->stop ? "DELETE" : "GET", path, NULL, &status, err);
        return r < 0 ? r : show_end(ctx, status, err);
    }
    /* Before the start, so that an early Ctrl-C stops it too. */
    const struct sigaction action = { .sa_handler = on_signal };
    if (!args->detach) {
        (void)sigaction(SIGINT, &action, NULL);
        (void)sigaction(SIGTERM, &action, NULL);
    }
    r = pk_client_json(ctx, client, "POST", path, body, &status, err);
    if (r < 0)
        return r;
    if (!args->detach)
        return wait_for_end(ctx, client, path, err);
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML)
        return pk_out_document(ctx, status, err);
    if (!ctx->quiet)
        printf("The replay runs; 'picket replay --status' tells how far it is.\n");
    return 0;
}

static const struct pk_arg files_pos[] = {
    { "FILE", "capture file (pcap or pcapng)", "file", true, true },
};
static const char *const examples[] = {
    "picket replay attack.pcap",
    "picket replay day1.pcap day2.pcap --tap demo/files --fast",
    "picket replay mix.pcapng --mbps 200 --loop forever --detach",
    "picket replay --status",
    "picket replay --stop",
    NULL,
};
static const struct replay_args defaults = { .max_gap = -1 };

const struct pk_cmd pk_cmd_replay = {
    .name = "replay",
    .group = "Run",
    .summary = "send capture files into a replay tap",
    .details =
        "The agent of the machine that has the tap reads the files. Without an option they are sent "
        "at the speed at which they were recorded, long pauses cut short; --fast sends as fast as the "
        "lanes take packets. "
        "The command waits for the end and Ctrl-C stops the replay; with --detach it goes on by "
        "itself. Frames larger than the tap's MTU are counted and left out.",
    .examples = examples,
    .opts = opts,
    .opt_count = PK_ARRAY_SIZE(opts),
    .args = files_pos,
    .arg_count = PK_ARRAY_SIZE(files_pos),
    .args_size = sizeof(struct replay_args),
    .defaults = &defaults,
    .flags = PK_CMD_OUTPUT,
    .run = run,
};
