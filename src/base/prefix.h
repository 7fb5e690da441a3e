/* SPDX-License-Identifier: Apache-2.0 */
/* Prefixes of IP addresses. Pure; any thread. */
#ifndef PICKET_BASE_PREFIX_H
#define PICKET_BASE_PREFIX_H

#include "base/common.h"
#include "base/error.h"

struct pk_prefix {
    uint8_t addr[16]; /* network order; of IPv4 the first four bytes, the rest is 0 */
    uint8_t bits;     /* 0 to 32 or 128; the bits behind are 0 */
    bool v6;
};
/* "2001:0db8:...:ffff/128" and its end. */
#define PK_PREFIX_TEXT 52

/* "10.0.0.0/8", "2001:db8::/32", or an address alone (all of its bits). Whole text must match; bits
 * set behind the length are PK_E_INVALID too, with the prefix that was meant in the hint. */
int pk_prefix_parse(const char *text, struct pk_prefix *ret_prefix, struct pk_error *err);
/* Always with the length, RFC 5952; returns out (PK_PREFIX_TEXT bytes). */
char *pk_prefix_format(const struct pk_prefix *prefix, char *out, size_t size);
/* Whether all of inner's addresses are outer's. */
bool pk_prefix_covers(const struct pk_prefix *outer, const struct pk_prefix *inner);

#endif
