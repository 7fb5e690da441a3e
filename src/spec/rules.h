/* SPDX-License-Identifier: Apache-2.0 */
/* What the fleet file and the agent call the same of a group's shunts. */
#ifndef PICKET_SPEC_RULES_H
#define PICKET_SPEC_RULES_H

#include "base/common.h"

#define PK_SHUNT_IDLE_DEFAULT_S 60u

/* What is done when the group's lanes cannot take it. */
#define PK_DRAIN_DEFAULT_MS 30000
#define PK_DRAIN_MAX_MS     3600000

/* Canaries of a lane, from one to the next. */
#define PK_CANARY_DEFAULT_MS 30000
#define PK_CANARY_MIN_MS     1000
#define PK_CANARY_MAX_MS     3600000

struct pk_overload_spec {
    bool shunt, shed;
};

#endif
