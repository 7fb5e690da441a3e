/* SPDX-License-Identifier: Apache-2.0 */
/* A tunnel tap's rules, as its program has them. Pure. */
#include <arpa/inet.h>
#include <string.h>

#include "broker/internal.h"

_Static_assert(PK_BROKER_TUNNEL_ENDS == PK_TUNNEL_ENDS, "one number in two places");

void pk_tunnel_rules_make(const struct pk_broker_tunnel *tunnel, struct pk_tunnel_rules *ret_rules)
{
    memset(ret_rules, 0, sizeof(*ret_rules)); /* also what lies between members */
    ret_rules->types =
        (tunnel->vxlan ? PK_TUNNEL_IS_VXLAN : 0) | (tunnel->geneve ? PK_TUNNEL_IS_GENEVE : 0) |
        (tunnel->gre ? PK_TUNNEL_IS_GRE : 0) | (tunnel->erspan ? PK_TUNNEL_IS_ERSPAN : 0);
    ret_rules->port = htons(tunnel->port);
    ret_rules->keep = tunnel->keep;
    for (size_t i = 0; i < tunnel->end_count && i < PK_TUNNEL_ENDS; i++) {
        struct pk_tunnel_end *end = &ret_rules->ends[ret_rules->end_count++];
        end->family = tunnel->ends[i].family;
        memcpy(end->address, tunnel->ends[i].address, end->family == 4 ? 4 : 16);
    }
}

uint32_t pk_tunnel_digest(const struct pk_broker_tunnel *tunnel)
{
    struct pk_tunnel_rules rules;
    pk_tunnel_rules_make(tunnel, &rules);
    uint32_t sum = 0x811c9dc5u; /* FNV-1a */
    for (size_t i = 0; i < sizeof(rules); i++)
        sum = (sum ^ ((const uint8_t *)&rules)[i]) * 0x01000193u;
    return sum != 0 ? sum : 1;
}
