/* SPDX-License-Identifier: Apache-2.0 */
/* What a tunnel tap terminates (taps[].tunnel), as the fleet file, the plan and the agent's API
 * have it. Pure. */
#ifndef PICKET_SPEC_TUNNEL_H
#define PICKET_SPEC_TUNNEL_H

#include <jansson.h>
#include <stdint.h>

#include "base/common.h"
#include "base/error.h"

/* Bits. */
#define PK_TUNNEL_VXLAN  1u
#define PK_TUNNEL_GENEVE 2u
#define PK_TUNNEL_GRE    4u
#define PK_TUNNEL_ERSPAN 8u
#define PK_TUNNEL_TYPES  15u
/* Registered by IANA. */
#define PK_TUNNEL_PORT_VXLAN  4789u
#define PK_TUNNEL_PORT_GENEVE 6081u

#define PK_TUNNEL_ADDRESSES_MAX 8u /* besides the interface's own */

struct pk_tunnel_address {
    uint8_t family; /* 4 or 6 */
    uint8_t bytes[16];
};

struct pk_tunnel_config {
    unsigned types;
    unsigned port; /* of VXLAN or GENEVE; 0 = each its own */
    bool keep;     /* the outer headers stay */
    size_t address_count;
    struct pk_tunnel_address addresses[PK_TUNNEL_ADDRESSES_MAX];
};

const char *pk_tunnel_type_name(unsigned bit);
unsigned pk_tunnel_type_parse(const char *text); /* 0 = there is none of this name */
int pk_tunnel_address_parse(const char *text, struct pk_tunnel_address *ret_address,
                            struct pk_error *err);
/* {"types":["vxlan"],"port":4789,"decapsulate":true,"addresses":["10.0.0.5"]}, without port where
 * each type has its own and without addresses where there are none. New reference. */
json_t *pk_tunnel_to_json(const struct pk_tunnel_config *config);
/* All of the input is checked. */
int pk_tunnel_parse(const json_t *json, struct pk_tunnel_config *ret_config, struct pk_error *err);

#endif
