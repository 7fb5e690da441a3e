/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of plan. */
#ifndef PICKET_PLAN_INTERNAL_H
#define PICKET_PLAN_INTERNAL_H

#include "plan/plan.h"

/* SHA-256 over paths and contents; pk_free(). NULL = out of memory. */
char *pk_files_hash(const struct pk_rendered *files);
/* SHA-256 of the canonical unit without hash and values; pk_free(). NULL = out of memory. */
char *pk_unit_hash(const struct pk_unit *unit);
/* Canonical order: by group, lane, tool; by name. */
void pk_desired_sort(struct pk_desired *desired);
/* SHA-256 of the canonical text. PK_E_NOMEM, also when json is NULL. */
int pk_json_hash(const json_t *json, char out[65], struct pk_error *err);
/* What changed between two canonical units, for people: "values changed: home-net"; pk_free(). */
char *pk_unit_changes(const json_t *from, const json_t *to);
/* The same of a tap's groups and tenants (see pk_tap_desired), and what it does to the tap's
 * packets; "" = nothing. pk_free(); NULL = out of memory. */
char *pk_targets_changes(const json_t *groups_from, const json_t *groups_to,
                         const json_t *tenants_from, const json_t *tenants_to);
char *pk_targets_effect(const json_t *groups_from, const json_t *groups_to,
                        const json_t *tenants_from, const json_t *tenants_to);

#endif
