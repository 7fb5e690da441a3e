/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What a tap's tenants are told by; see packet/tenant.h. */
#ifndef PICKET_PACKET_TENANCY_H
#define PICKET_PACKET_TENANCY_H

#include <linux/types.h>

#define PK_TENANT_NONE    255u /* none of them; so there are 255 at most */
#define PK_TENANT_UNKNOWN 256u
#define PK_TENANT_USE     3u /* of an entry of the fragment memory, after the hash modes */

/* Kinds of selectors. */
#define PK_BY_VLAN    1u
#define PK_BY_QINQ    2u /* both of two tags: outer << 16 | inner */
#define PK_BY_VNI     4u
#define PK_BY_GRE_KEY 8u
#define PK_BY_ERSPAN  16u
#define PK_BY_PREFIX4 32u
#define PK_BY_PREFIX6 64u
/* What a fragment may hide. */
#define PK_BY_INSIDE (PK_BY_VNI | PK_BY_GRE_KEY | PK_BY_ERSPAN | PK_BY_PREFIX4 | PK_BY_PREFIX6)

struct pk_tenants_shape {
    __u32 id;         /* of this list of tenants, on this tap */
    __u32 kinds;      /* PK_BY_* that there are */
    __u32 everything; /* the first tenant that claims every packet, or PK_TENANT_NONE */
    __u32 inside;     /* the first one with a selector of PK_BY_INSIDE, or PK_TENANT_NONE */
};

#endif
