/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the filters. */
#ifndef PICKET_PACKET_FILTER_INTERNAL_H
#define PICKET_PACKET_FILTER_INTERNAL_H

#include "packet/filter.h"

/* libpcap's instructions for an expression, unchecked; release with pk_free(). Apart, since the
 * headers of libpcap and of the kernel name the same things. *ret_column: as struct
 * pk_filter_fault. */
int pk_filter_expression(const char *text, struct pk_filter_op **ret_ops, size_t *ret_count,
                         unsigned *ret_column, struct pk_error *err);

/* Bytes that a load from the frame takes. */
unsigned pk_filter_load_size(uint16_t code);

#endif
