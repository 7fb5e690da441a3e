/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-1 (RFC 3174) of short messages. Community ID names flows with it; it protects nothing. */
#ifndef PICKET_PACKET_SHA1_H
#define PICKET_PACKET_SHA1_H

#include "base/common.h"

void pk_sha1(const void *data, size_t len, uint8_t ret_digest[20]);

#endif
