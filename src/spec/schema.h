/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the fleet document, for spec.c and the tests. */
#ifndef PICKET_SPEC_SCHEMA_H
#define PICKET_SPEC_SCHEMA_H

#include "spec/fields.h"
#include "spec/spec.h"

/* Reads into a struct pk_fleet_spec. */
extern const struct pk_table pk_fleet_table;

/* taps.c: what the table cannot tell of taps. Sets their kinds. False = faults were added. */
bool pk_spec_check_taps(struct pk_fleet_spec *fleet, struct pk_errors *errors);
/* taps.c: a group has taps or devices. After the above. */
bool pk_spec_check_devices(struct pk_fleet_spec *fleet, struct pk_errors *errors);
/* tenants.c: what the table cannot tell of tenants and of the groups that refer to them. whole: the
 * table found no fault; else only each value by itself is looked at. PK_E_INVALID: faults were
 * added; PK_E_NOMEM. */
int pk_spec_check_tenants(const struct pk_fleet_spec *fleet, bool whole, struct pk_errors *errors);

/* filters.c: a filter that cannot be compiled is a fault of the file. As above. */
int pk_spec_check_filters(const struct pk_fleet_spec *fleet, struct pk_errors *errors);

/* groups.c: what the table cannot tell of a group's shunt, where it found no fault. PK_E_INVALID:
 * faults were added. */
int pk_spec_check_groups(const struct pk_fleet_spec *fleet, struct pk_errors *errors);

/* Patterns and their words, shared with other tables. */
#define PK_NAME_PATTERN "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
#define PK_NAME_WORDS   "a name (small letters, digits and dashes, at most 40)"

#endif
