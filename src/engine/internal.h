/* SPDX-License-Identifier: Apache-2.0 */
/* What the engines share among themselves. */
#ifndef PICKET_ENGINE_INTERNAL_H
#define PICKET_ENGINE_INTERNAL_H

#include "engine/engine.h"

/* Releases what a status holds, not itself, and zeroes it. */
void pk_unit_status_done(struct pk_unit_status *status);

#endif
