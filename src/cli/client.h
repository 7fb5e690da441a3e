/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands that talk to the server share. */
#ifndef PICKET_CLI_CLIENT_H
#define PICKET_CLI_CLIENT_H

#include <jansson.h>
#include <stdio.h>

#include "cli/cli.h"

/* As pk_http_json(), and a server that does not answer is an error that says how to start one. */
int pk_client_json(const struct pk_ctx *ctx, struct pk_http_client *client, const char *method,
                   const char *path, const json_t *json, json_t **ret_json, struct pk_error *err);

/* The fleet's name: given, or else the only one that runs. *ret_fleet: pk_free(). */
int pk_client_fleet(const struct pk_ctx *ctx, struct pk_http_client *client, const char *given,
                    char **ret_fleet, struct pk_error *err);
int pk_client_status(const struct pk_ctx *ctx, struct pk_http_client *client, const char *fleet,
                     json_t **ret_status, struct pk_error *err);
/* Asks for a plan; body as of POST /v1/plans. All faults of a document go to errors. */
int pk_client_plan(const struct pk_ctx *ctx, struct pk_http_client *client, const json_t *body,
                   json_t **ret_plan, struct pk_errors *errors, struct pk_error *err);
/* The same for a fleet file ("-" = standard input). *ret_text: pk_free(), NULL = not wanted. */
int pk_client_plan_file(const struct pk_ctx *ctx, struct pk_http_client *client, const char *path,
                        json_t **ret_plan, char **ret_text, struct pk_errors *errors,
                        struct pk_error *err);

/* What the supervisor of 'picket up' wrote, see cli/supervisor.h; NULL when there is none or the
 * server is another machine's. New reference. */
json_t *pk_up_state(const struct pk_ctx *ctx);

/* Text from elsewhere on a terminal: control characters become '?'. */
void pk_print_clean(FILE *stream, const char *text);
/* The escape sequence, or "" where colours are off: "green", "yellow", "red", "bold", "dim", NULL =
 * back to normal. */
const char *pk_color(const struct pk_ctx *ctx, const char *name);

/* ---- change.c: plans and applies as people see them ---- */
/* The plan on standard output: effect on traffic, steps, sum. */
/* Settings of an interface: [{setting,from,to,why}], a line each. */
void pk_print_settings(const struct pk_ctx *ctx, const json_t *settings, unsigned indent);
void pk_print_plan(const struct pk_ctx *ctx, const json_t *plan);
size_t pk_plan_step_count(const json_t *plan);

struct pk_change {
    const char *reason;
    const char *question; /* asked before; NULL = not asked */
    bool show;            /* print the plan first */
};
/* Shows, asks, applies and follows a plan to its end, in the form that -o asks for. */
int pk_carry_out(const struct pk_ctx *ctx, struct pk_http_client *client, const json_t *plan,
                 const struct pk_change *change, struct pk_error *err);

/* ---- textdiff.c ---- */
/* A unified diff (three lines of context), "" when equal; pk_free(). NULL = out of memory. */
char *pk_text_diff(const char *old_name, const char *old_text, const char *new_name,
                   const char *new_text);

#endif
