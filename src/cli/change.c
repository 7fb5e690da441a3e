/* SPDX-License-Identifier: Apache-2.0 */
/* Plans and applies as people see them: what will change, then each step as it goes. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/time.h"
#include "cli/client.h"

#define POLL_LIVE_MS  150u /* with a spinner */
#define POLL_PLAIN_MS 500u
/* A server that is restarted takes the change up again: so long we wait for it. */
#define GONE_LIMIT (20 * PK_NSEC_PER_SEC)

/* ---- the plan ---- */

static char symbol_of(const json_t *step)
{
    const char *op = pk_json_string_or(step, "op", "");
    return strcmp(op, "add") == 0 ? '+' : strcmp(op, "remove") == 0 ? '-' : '~';
}

static const char *color_of(char symbol)
{
    return symbol == '+' ? "green" : symbol == '-' ? "red" : "yellow";
}

size_t pk_plan_step_count(const json_t *plan)
{
    return json_array_size(json_object_get(plan, "steps"));
}

struct sum {
    unsigned add, change, remove;
};

static struct sum count_steps(const json_t *steps)
{
    struct sum sum = { 0 };
    size_t i;
    json_t *step;
    json_array_foreach(steps, i, step)
    {
        char symbol = symbol_of(step);
        sum.add += symbol == '+';
        sum.change += symbol == '~';
        sum.remove += symbol == '-';
    }
    return sum;
}

static void pad(FILE *stream, const char *text, size_t width)
{
    pk_print_clean(stream, text);
    for (size_t len = strlen(text); len < width; len++)
        (void)fputc(' ', stream);
}

void pk_print_settings(const struct pk_ctx *ctx, const json_t *settings, unsigned indent)
{
    size_t i;
    json_t *item;
    json_array_foreach(settings, i, item)
    {
        const char *why = pk_json_string_or(item, "why", "");
        printf("%*s", (int)indent, "");
        pad(stdout, pk_json_string_or(item, "setting", ""), 22);
        pk_print_clean(stdout, pk_json_string_or(item, "from", ""));
        printf(" -> ");
        pk_print_clean(stdout, pk_json_string_or(item, "to", ""));
        if (why[0] != '\0') {
            printf("  %scannot be:%s ", pk_color(ctx, "yellow"), pk_color(ctx, NULL));
            pk_print_clean(stdout, why);
        }
        printf("\n");
    }
}

void pk_print_plan(const struct pk_ctx *ctx, const json_t *plan)
{
    const json_t *steps = json_object_get(plan, "steps");
    printf("%sfleet ", pk_color(ctx, "bold"));
    pk_print_clean(stdout, pk_json_string_or(plan, "fleet", ""));
    printf("%s\n\n", pk_color(ctx, NULL));
    if (json_array_size(steps) == 0) {
        printf("Nothing to do: what runs is what is wanted.\n");
        return;
    }
    const char *traffic = pk_json_string_or(plan, "traffic", "");
    printf("Traffic: ");
    pk_print_clean(stdout, traffic[0] == '\0' ? "no effect" : traffic);
    printf("\n\n");

    size_t width = 0, reason_width = 0, i;
    json_t *step;
    json_array_foreach(steps, i, step)
    {
        width = PK_MAX(width, strlen(pk_json_string_or(step, "name", "")));
        reason_width = PK_MAX(reason_width, strlen(pk_json_string_or(step, "reason", "")));
    }
    reason_width = PK_MIN(reason_width, 40u);
    json_array_foreach(steps, i, step)
    {
        char symbol = symbol_of(step);
        const char *effect = pk_json_string_or(step, "traffic", "");
        const char *reason = pk_json_string_or(step, "reason", "");
        printf("  %s%c%s ", pk_color(ctx, color_of(symbol)), symbol, pk_color(ctx, NULL));
        pad(stdout, pk_json_string_or(step, "kind", ""), 6);
        pad(stdout, pk_json_string_or(step, "name", ""), width + 2);
        pad(stdout, reason, effect[0] == '\0' ? 0 : reason_width + 2);
        if (effect[0] != '\0' && strlen(reason) > reason_width)
            printf("\n%13s", "");
        pk_print_clean(stdout, effect);
        printf("\n");
        pk_print_settings(ctx, json_object_get(step, "settings"), 13);
    }
    struct sum sum = count_steps(steps);
    printf("\nPlan: %u to add, %u to change, %u to remove.\n", sum.add, sum.change, sum.remove);
}

/* ---- progress ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
    (void)signo;
    interrupted = 1;
}

struct progress {
    const struct pk_ctx *ctx;
    bool live;      /* standard error is a terminal */
    unsigned drawn; /* lines that the next drawing replaces */
    unsigned tick;
    struct pk_strv seen; /* "index:state" of what was printed */
};

static void erase(struct progress *progress)
{
    for (; progress->drawn > 0; progress->drawn--)
        (void)fputs("\033[1A\033[2K", stderr);
}

static pk_nsec time_of(const json_t *step, const char *key)
{
    const char *text = pk_json_string_or(step, key, "");
    pk_nsec when = 0;
    if (pk_time_parse(text, strlen(text), &when, NULL) < 0)
        return 0;
    return when;
}

static void print_step(const struct progress *progress, const json_t *step, const char *state)
{
    const struct pk_ctx *ctx = progress->ctx;
    char symbol = symbol_of(step);
    pk_nsec start = time_of(step, "startedAt"), end = time_of(step, "finishedAt");
    fprintf(stderr, "%s%c%s ", pk_color(ctx, color_of(symbol)), symbol, pk_color(ctx, NULL));
    pad(stderr, pk_json_string_or(step, "kind", ""), 6);
    pk_print_clean(stderr, pk_json_string_or(step, "name", ""));
    fprintf(stderr, "  %s", state);
    if (start != 0 && end >= start)
        fprintf(stderr, " (%.1f s)", (double)(end - start) / (double)PK_NSEC_PER_SEC);
    const char *detail = pk_json_string_or(step, "detail", "");
    if (detail[0] != '\0') {
        (void)fputs(": ", stderr);
        pk_print_clean(stderr, detail);
    }
    (void)fputc('\n', stderr);
}

/* One line per state change; running steps as lines that are drawn over on a terminal. */
static void draw(struct progress *progress, const json_t *steps)
{
    static const char spinner[] = "|/-\\";
    if (progress->ctx->quiet)
        return;
    erase(progress);
    size_t i;
    json_t *step;
    json_array_foreach(steps, i, step)
    {
        const char *state = pk_json_string_or(step, "state", "pending");
        char mark[64];
        (void)snprintf(mark, sizeof(mark), "%zu:%.40s", i, state);
        if (strcmp(state, "pending") == 0 || pk_strv_contains(&progress->seen, mark) ||
            (progress->live && strcmp(state, "running") == 0))
            continue;
        (void)pk_strv_add(&progress->seen, mark);
        char when[36];
        if (!progress->live)
            fprintf(stderr, "%s ", pk_time_format(pk_time_now(), 3, when, sizeof(when)));
        print_step(progress, step, state);
    }
    json_array_foreach(steps, i, step)
    {
        if (!progress->live || strcmp(pk_json_string_or(step, "state", ""), "running") != 0)
            continue;
        pk_nsec start = time_of(step, "startedAt");
        fprintf(stderr, "%c ", spinner[progress->tick % 4]);
        pad(stderr, pk_json_string_or(step, "kind", ""), 6);
        pk_print_clean(stderr, pk_json_string_or(step, "name", ""));
        if (start != 0)
            fprintf(stderr, "  %.0f s", (double)(pk_time_now() - start) / (double)PK_NSEC_PER_SEC);
        const char *detail = pk_json_string_or(step, "detail", "");
        if (detail[0] != '\0')
            (void)fputs("  ", stderr);
        pk_print_clean(stderr, detail);
        (void)fputc('\n', stderr);
        progress->drawn++;
    }
    progress->tick++;
    (void)fflush(stderr);
}

static int follow_loop(struct progress *progress, struct pk_http_client *client, const char *fleet,
                       json_int_t revision, json_t **ret_journal, struct pk_error *err)
{
    PK_JSON journal = NULL;
    json_int_t version = 0;
    pk_nsec gone_since = 0;
    for (;;) {
        PK_CLEANUP(pk_free_p)
        char *path = pk_asprintf("/v1/fleets/%s/revisions/%lld/progress?after=%lld&wait=%u", fleet,
                                 (long long)revision, (long long)version,
                                 progress->live ? POLL_LIVE_MS : POLL_PLAIN_MS);
        if (path == NULL)
            return pk_no_memory(err);
        json_t *next = NULL;
        int r = pk_http_json(client, "GET", path, NULL, &next, err);
        if (interrupted) {
            json_decref(next);
            (void)pk_fail(err, PK_E_INTERRUPTED, "detached: the server goes on with revision %lld",
                          (long long)revision);
            return pk_hint(err,
                           "follow it with 'picket status --watch'; 'picket history' shows how "
                           "it ended");
        }
        if (r < 0) {
            if (r != PK_E_UNREACHABLE)
                return r;
            pk_nsec now = pk_time_monotonic();
            if (gone_since == 0)
                gone_since = now;
            if (now - gone_since > GONE_LIMIT)
                return pk_hint(err, "the server takes the change up again when it is back: see "
                                    "'picket history'");
            pk_sleep_ms(250);
            version = 0; /* a new server counts anew */
            continue;
        }
        gone_since = 0;
        json_decref(journal);
        journal = next;
        version = pk_json_int_or(journal, "version", 0);
        draw(progress, json_object_get(journal, "steps"));
        /* "interrupted": a later apply took its place. */
        if (strcmp(pk_json_string_or(journal, "outcome", ""), "applying") != 0) {
            *ret_journal = PK_TAKE(journal);
            return 0;
        }
    }
}

static int follow(const struct pk_ctx *ctx, struct pk_http_client *client, const char *fleet,
                  json_int_t revision, json_t **ret_journal, struct pk_error *err)
{
    struct progress progress = { .ctx = ctx, .live = isatty(STDERR_FILENO) != 0 };
    struct sigaction action = { .sa_handler = on_interrupt }, before;
    /* Once: a second Ctrl-C ends the command as usual. */
    action.sa_flags = (int)SA_RESETHAND;
    (void)sigaction(SIGINT, &action, &before);
    int r = follow_loop(&progress, client, fleet, revision, ret_journal, err);
    (void)sigaction(SIGINT, &before, NULL);
    erase(&progress);
    pk_strv_done(&progress.seen);
    return r;
}

/* ---- carrying out ---- */

static int judge(const json_t *journal, struct pk_error *err)
{
    if (strcmp(pk_json_string_or(journal, "outcome", ""), "applied") == 0)
        return 0;
    size_t done = 0, i;
    json_t *step;
    const json_t *steps = json_object_get(journal, "steps");
    json_array_foreach(steps, i, step)
    {
        done += strcmp(pk_json_string_or(step, "state", ""), "done") == 0;
    }
    const char *detail = pk_json_string_or(journal, "detail", "");
    (void)pk_fail(err, PK_E_PARTIAL, "revision %lld %s after %zu of %zu steps%s%s",
                  (long long)pk_json_int_or(journal, "revision", 0),
                  pk_json_string_or(journal, "outcome", "failed"), done, json_array_size(steps),
                  detail[0] == '\0' ? "" : ": ", detail);
    return pk_hint(err,
                   "remove the cause and apply again: what is done stays; or go back with 'picket "
                   "rollback REV --reason TEXT' ('picket history' lists them)");
}

static void print_end(const json_t *journal, json_int_t before, pk_nsec took)
{
    struct sum sum = count_steps(json_object_get(journal, "steps"));
    json_int_t revision = pk_json_int_or(journal, "revision", 0);
    printf("Applied revision %lld of ", (long long)revision);
    pk_print_clean(stdout, pk_json_string_or(journal, "fleet", ""));
    printf(": %u added, %u changed, %u removed in %.1f s.\n", sum.add, sum.change, sum.remove,
           (double)took / (double)PK_NSEC_PER_SEC);
    if (before > 0)
        printf("To go back: picket rollback %lld --reason TEXT\n", (long long)before);
}

static int nothing_to_do(const struct pk_ctx *ctx, const json_t *plan, struct pk_error *err)
{
    if (ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML)
        return pk_out_document(ctx, plan, err);
    printf("Nothing to do: what runs is what is wanted.\n");
    return 0;
}

/* The revision that runs now; 0 = none. */
static json_int_t running_revision(struct pk_http_client *client, const char *fleet)
{
    PK_JSON status = NULL;
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf("/v1/fleets/%s/status", fleet);
    if (path == NULL || pk_http_json(client, "GET", path, NULL, &status, NULL) < 0)
        return 0;
    return pk_json_int_or(status, "revision", 0);
}

int pk_carry_out(const struct pk_ctx *ctx, struct pk_http_client *client, const json_t *plan,
                 const struct pk_change *change, struct pk_error *err)
{
    bool machine = ctx->output == PK_OUT_JSON || ctx->output == PK_OUT_YAML;
    const char *fleet = pk_json_string_or(plan, "fleet", "");
    if (change->show && !machine && pk_plan_step_count(plan) > 0)
        pk_print_plan(ctx, plan);
    if (change->question != NULL && pk_plan_step_count(plan) > 0) {
        (void)fflush(stdout);
        int r = pk_confirm(ctx, change->question, err);
        if (r < 0)
            return r;
    }
    json_int_t before = running_revision(client, fleet);
    pk_nsec start = pk_time_monotonic();
    PK_CLEANUP(pk_free_p)
    char *path = pk_asprintf("/v1/plans/%s/apply", pk_json_string_or(plan, "id", ""));
    PK_JSON body = json_pack("{s:s}", "reason", change->reason == NULL ? "" : change->reason);
    if (path == NULL || body == NULL)
        return pk_no_memory(err);
    PK_JSON started = NULL;
    int r = pk_client_json(ctx, client, "POST", path, body, &started, err);
    if (r < 0)
        return r;
    json_int_t revision = pk_json_int_or(started, "revision", 0);
    if (revision == 0)
        return nothing_to_do(ctx, plan, err);
    PK_JSON journal = NULL;
    r = follow(ctx, client, fleet, revision, &journal, err);
    if (r < 0)
        return r;
    if (machine)
        r = pk_out_document(ctx, journal, err);
    int verdict = judge(journal, err);
    if (verdict == 0 && !machine)
        print_end(journal, before, pk_time_monotonic() - start);
    return verdict < 0 ? verdict : r;
}
