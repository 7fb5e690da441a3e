/* SPDX-License-Identifier: Apache-2.0 */
/* The commands that commands.c puts into its table, one a line, in the files cmd_<name>.c. */
#ifndef PICKET_CLI_COMMANDS_H
#define PICKET_CLI_COMMANDS_H

#include "cli/cli.h"

extern const struct pk_cmd pk_cmd_plan;
extern const struct pk_cmd pk_cmd_apply;
extern const struct pk_cmd pk_cmd_rollback;
extern const struct pk_cmd pk_cmd_delete;
extern const struct pk_cmd pk_cmd_diff;
extern const struct pk_cmd pk_cmd_history;
extern const struct pk_cmd pk_cmd_logs;
extern const struct pk_cmd pk_cmd_status;
extern const struct pk_cmd pk_cmd_ledger;
extern const struct pk_cmd pk_cmd_top;
extern const struct pk_cmd pk_cmd_ship;
extern const struct pk_cmd pk_cmd_serve;
extern const struct pk_cmd pk_cmd_node;
extern const struct pk_cmd pk_cmd_replay;
extern const struct pk_cmd pk_cmd_image_build;
extern const struct pk_cmd pk_cmd_image_list;
extern const struct pk_cmd pk_cmd_spec_check;
extern const struct pk_cmd pk_cmd_spec_fmt;
extern const struct pk_cmd pk_cmd_spec_schema;
extern const struct pk_cmd pk_cmd_spec_example;
extern const struct pk_cmd pk_cmd_catalog_list;
extern const struct pk_cmd pk_cmd_catalog_show;
extern const struct pk_cmd pk_cmd_catalog_values;
extern const struct pk_cmd pk_cmd_lane_drain;
extern const struct pk_cmd pk_cmd_lane_restore;
extern const struct pk_cmd pk_cmd_shunt_add;
extern const struct pk_cmd pk_cmd_shunt_list;
extern const struct pk_cmd pk_cmd_shunt_remove;
extern const struct pk_cmd pk_cmd_shunt_stats;
extern const struct pk_cmd pk_cmd_token_create;
extern const struct pk_cmd pk_cmd_token_list;
extern const struct pk_cmd pk_cmd_token_revoke;
extern const struct pk_cmd pk_cmd_up;
extern const struct pk_cmd pk_cmd_down;
extern const struct pk_cmd pk_cmd_supervise;
extern const struct pk_cmd pk_cmd_doctor;
extern const struct pk_cmd pk_cmd_bench_net;
extern const struct pk_cmd pk_cmd_events;
extern const struct pk_cmd pk_cmd_help;
extern const struct pk_cmd pk_cmd_version;
extern const struct pk_cmd pk_cmd_completion;
extern const struct pk_cmd pk_cmd_complete;
extern const struct pk_cmd pk_cmd_man;

/* 'picket apply FILE' for 'picket up FILE'. */
int pk_apply_file(struct pk_ctx *ctx, const char *path, struct pk_error *err);

#endif
