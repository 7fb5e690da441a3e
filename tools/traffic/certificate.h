/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PICKET_TOOLS_CERTIFICATE_H
#define PICKET_TOOLS_CERTIFICATE_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t traffic_certificate[];
extern const size_t traffic_certificate_len;

#endif
