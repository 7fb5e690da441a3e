/* SPDX-License-Identifier: Apache-2.0 */
/* The shunt's code in the kernel, run on one packet at a time (BPF_PROG_TEST_RUN), on the maps of
 * the broker that is pinned at NET_PIN_DIR. */
#ifndef PICKET_TESTS_SHUNT_PROBE_H
#define PICKET_TESTS_SHUNT_PROBE_H

#include "base/common.h"
#include "packet/community_id.h"

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10
#define A   0x0a000001u
#define B   0x0a000002u

void probe_open(void); /* the broker is open */
void probe_close(void);
/* Is the packet left out for the group with this number? */
bool probe_takes(unsigned group, const uint8_t *frame, size_t len);
bool probe_tcp(unsigned group, uint32_t src, uint16_t sport, uint32_t dst, uint16_t dport,
               uint8_t flags, size_t len);
bool probe_udp(unsigned group, uint32_t src, uint16_t sport, uint32_t dst, uint16_t dport,
               size_t len);
struct pk_tuple probe_tuple(uint8_t proto, uint32_t src, uint16_t sport, uint32_t dst,
                            uint16_t dport);

#endif
