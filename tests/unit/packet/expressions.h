/* SPDX-License-Identifier: Apache-2.0 */
/* Random filters and frames that they may be about. */
#ifndef PICKET_TESTS_PACKET_EXPRESSIONS_H
#define PICKET_TESTS_PACKET_EXPRESSIONS_H

#include "encap.h"
#include "packet/filter.h"

#define EXPRESSION_ROOM 1024

/* An expression as libpcap has them; some make no sense to it. */
void expression_random(struct frames_rng *rng, char text[EXPRESSION_ROOM]);
/* A frame of a few hosts, ports, tags and tunnels, those that expression_random() asks for. */
size_t expression_frame(struct frames_rng *rng, uint8_t frame[ENCAP_ROOM]);
/* Fields as JSON text, of the same hosts and ports. */
void expression_fields(struct frames_rng *rng, char text[EXPRESSION_ROOM]);
/* Instructions that pk_filter_compile_ops() takes, every kind of them; returns how many. */
size_t expression_ops(struct frames_rng *rng, struct pk_filter_op *ops, size_t room);

#endif
