/* SPDX-License-Identifier: Apache-2.0 */
/* The slot table after Maglev (Eisenbud et al., NSDI 2016, section 3.4), with weights. Pure. */
#ifndef PICKET_BROKER_MAGLEV_H
#define PICKET_BROKER_MAGLEV_H

#include "broker/broker.h"

#define PK_MAGLEV_EMPTY UINT16_MAX

/* Gives each of the PK_SLOT_COUNT slots the position of a share, in proportion to the weights;
 * PK_MAGLEV_EMPTY everywhere when no share has a weight. The same shares give the same table in any
 * order of the list, and a share that goes or comes moves few slots but its own. count < 65,535. */
void pk_maglev_fill(const struct pk_broker_share *shares, size_t count, uint16_t *slots);

#endif
