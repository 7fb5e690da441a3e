/* SPDX-License-Identifier: Apache-2.0 */
/* Tunnel taps: what is addressed to this machine. */
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "node/agent.h"

/* False when there is no room. */
static bool add_end(struct pk_broker_tunnel *tunnel, uint8_t family, const void *address)
{
    struct pk_broker_prefix end = { .family = family };
    memcpy(end.address, address, family == 4 ? 4 : 16);
    for (size_t i = 0; i < tunnel->end_count; i++)
        if (memcmp(&tunnel->ends[i], &end, sizeof(end)) == 0)
            return true;
    if (tunnel->end_count == PK_BROKER_TUNNEL_ENDS)
        return false;
    tunnel->ends[tunnel->end_count++] = end;
    return true;
}

static bool add_address(struct pk_broker_tunnel *tunnel, const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return add_end(tunnel, 4, &((const struct sockaddr_in *)(const void *)address)->sin_addr);
    if (address->sa_family == AF_INET6)
        return add_end(tunnel, 6, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    return true;
}

int pk_tunnel_tap_rules(const struct pk_tap *tap, struct pk_broker_tunnel *ret_tunnel,
                        size_t *ret_left_out, struct pk_error *err)
{
    size_t left_out = 0;
    struct ifaddrs *list = NULL;
    memset(ret_tunnel, 0, sizeof(*ret_tunnel)); /* two of them are compared as bytes */
    ret_tunnel->vxlan = (tap->tunnel.types & PK_TUNNEL_VXLAN) != 0;
    ret_tunnel->geneve = (tap->tunnel.types & PK_TUNNEL_GENEVE) != 0;
    ret_tunnel->gre = (tap->tunnel.types & PK_TUNNEL_GRE) != 0;
    ret_tunnel->erspan = (tap->tunnel.types & PK_TUNNEL_ERSPAN) != 0;
    ret_tunnel->port = (uint16_t)tap->tunnel.port;
    ret_tunnel->keep = tap->tunnel.keep;
    /* The user's own first: they must not fall off the end. */
    for (size_t i = 0; i < tap->tunnel.address_count; i++)
        (void)add_end(ret_tunnel, tap->tunnel.addresses[i].family, tap->tunnel.addresses[i].bytes);
    if (getifaddrs(&list) < 0)
        return pk_fail_errno(err, errno, "cannot list the addresses of %s", tap->interface);
    for (const struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
        if (at->ifa_addr == NULL || strcmp(at->ifa_name, tap->interface) != 0)
            continue;
        left_out += !add_address(ret_tunnel, at->ifa_addr);
    }
    freeifaddrs(list);
    *ret_left_out = left_out;
    return 0;
}
