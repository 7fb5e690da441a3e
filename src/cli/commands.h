/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PICKET_CLI_COMMANDS_H
#define PICKET_CLI_COMMANDS_H
#include "cli/cli.h"
extern const struct pk_cmd pk_cmd_plan, pk_cmd_apply, pk_cmd_rollback, pk_cmd_delete, pk_cmd_diff,
    pk_cmd_history, pk_cmd_logs, pk_cmd_status, pk_cmd_serve, pk_cmd_token_create,
    pk_cmd_token_list, pk_cmd_token_revoke, pk_cmd_up, pk_cmd_down, pk_cmd_supervise;
int pk_apply_file(struct pk_ctx *ctx, const char *path, struct pk_error *err);
#endif
