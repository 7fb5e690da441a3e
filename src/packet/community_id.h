/* SPDX-License-Identifier: Apache-2.0 */
/* Community ID version 1 (https://github.com/corelight/community-id-spec): one name for a flow, the
 * same in every tool. Any thread. */
#ifndef PICKET_PACKET_COMMUNITY_ID_H
#define PICKET_PACKET_COMMUNITY_ID_H

#include "base/common.h"

/* The two ends of a flow. Ports in host order; for ICMP and ICMPv6 src_port is the type and
 * dst_port the code; other protocols without ports leave both 0. */
struct pk_tuple {
    uint8_t src[16]; /* network order; the first 4 bytes for IPv4 */
    uint8_t dst[16];
    uint16_t src_port;
    uint16_t dst_port;
    uint8_t family; /* 4 or 6 */
    uint8_t proto;  /* IP protocol number */
};

/* Sets family, src and dst from text. False when they are not two addresses of one family. */
bool pk_tuple_set_addresses(struct pk_tuple *tuple, const char *src, const char *dst);
/* "tcp", "UDP", "IPv6-ICMP", "ICMPv6", "sctp", "17": as EVE and Zeek write them -> number; -1 if
 * unknown. */
int pk_ip_proto_by_name(const char *name);

#define PK_COMMUNITY_ID_SIZE 31 /* "1:", 28 digits of base64, NUL */
/* seed is 0 unless a site chose another. Always succeeds. Returns out. */
char *pk_community_id(const struct pk_tuple *tuple, uint16_t seed, char out[PK_COMMUNITY_ID_SIZE]);

#endif
