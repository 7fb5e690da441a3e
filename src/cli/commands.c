/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of commands: parsing, help, man pages and completion all come from it. To add one: a
 * file cmd_<name>.c with its struct pk_cmd, its name in commands.h, its file in meson.build, a row
 * here.
 */
#include "cli/commands.h"

/* As help lists them within each group: what people do first comes first. */
static const struct pk_cmd *const table[] = {
    /* Change */
    &pk_cmd_plan,
    &pk_cmd_apply,
    &pk_cmd_diff,
    &pk_cmd_rollback,
    &pk_cmd_delete,
    /* Look */
    &pk_cmd_status,
    &pk_cmd_ledger,
    &pk_cmd_top,
    &pk_cmd_history,
    &pk_cmd_logs,
    &pk_cmd_events,
    &pk_cmd_shunt_list,
    &pk_cmd_shunt_stats,
    &pk_cmd_doctor,
    &pk_cmd_bench_net,
    /* Fleet files */
    &pk_cmd_spec_example,
    &pk_cmd_spec_check,
    &pk_cmd_spec_fmt,
    &pk_cmd_spec_schema,
    /* Run */
    &pk_cmd_replay,
    &pk_cmd_lane_drain,
    &pk_cmd_lane_restore,
    &pk_cmd_shunt_add,
    &pk_cmd_shunt_remove,
    &pk_cmd_node,
    &pk_cmd_ship,
    &pk_cmd_up,
    &pk_cmd_down,
    &pk_cmd_serve,
    &pk_cmd_supervise,
    /* Packages */
    &pk_cmd_catalog_list,
    &pk_cmd_catalog_show,
    &pk_cmd_catalog_values,
    &pk_cmd_image_build,
    &pk_cmd_image_list,
    /* Server */
    &pk_cmd_token_create,
    &pk_cmd_token_list,
    &pk_cmd_token_revoke,
    /* Help */
    &pk_cmd_help,
    &pk_cmd_version,
    &pk_cmd_completion,
    &pk_cmd_complete,
    &pk_cmd_man,
};

const struct pk_cmd *const *pk_cmd_table(size_t *ret_count)
{
    *ret_count = PK_ARRAY_SIZE(table);
    return table;
}
