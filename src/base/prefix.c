/* SPDX-License-Identifier: Apache-2.0 */
#include "base/prefix.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

static unsigned width(const struct pk_prefix *prefix)
{
    return prefix->v6 ? 128 : 32;
}

/* Clears what is behind the length; whether there was anything. */
static bool cut(struct pk_prefix *prefix)
{
    bool had = false;
    for (unsigned i = prefix->bits / 8; i < sizeof(prefix->addr); i++) {
        unsigned keep = i == prefix->bits / 8 ? 0xff00u >> (prefix->bits % 8) : 0;
        uint8_t kept = (uint8_t)(prefix->addr[i] & keep);
        had = had || kept != prefix->addr[i];
        prefix->addr[i] = kept;
    }
    return had;
}

static int no_prefix(const char *text, struct pk_error *err)
{
    (void)pk_fail(err, PK_E_INVALID, "\"%.60s\" is no address prefix", text);
    return pk_hint(err, "write for example 10.20.0.0/16 or 2001:db8::/32");
}

int pk_prefix_parse(const char *text, struct pk_prefix *ret_prefix, struct pk_error *err)
{
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
    if (len == 0 || len >= sizeof(address))
        return no_prefix(text, err);
    memcpy(address, text, len);
    address[len] = '\0';
    struct pk_prefix prefix = { .v6 = strchr(address, ':') != NULL };
    if (inet_pton(prefix.v6 ? AF_INET6 : AF_INET, address, prefix.addr) != 1)
        return no_prefix(text, err);
    uint64_t bits = width(&prefix);
    if (slash != NULL && (pk_parse_u64(slash + 1, &bits, NULL) < 0 || strlen(slash + 1) > 3))
        return no_prefix(text, err);
    if (bits > width(&prefix)) {
        (void)pk_fail(err, PK_E_INVALID, "\"%.60s\" is longer than an address", text);
        return pk_hint(err, "write at most /%u", width(&prefix));
    }
    prefix.bits = (uint8_t)bits;
    if (cut(&prefix)) {
        char meant[PK_PREFIX_TEXT];
        (void)pk_fail(err, PK_E_INVALID, "\"%.60s\" has bits set behind its length", text);
        return pk_hint(err, "write %s for the network, or %s/%u for the one address",
                       pk_prefix_format(&prefix, meant, sizeof(meant)), address, width(&prefix));
    }
    *ret_prefix = prefix;
    return 0;
}

char *pk_prefix_format(const struct pk_prefix *prefix, char *out, size_t size)
{
    char address[INET6_ADDRSTRLEN] = "";
    (void)inet_ntop(prefix->v6 ? AF_INET6 : AF_INET, prefix->addr, address, sizeof(address));
    (void)snprintf(out, size, "%s/%u", address, prefix->bits);
    return out;
}

bool pk_prefix_covers(const struct pk_prefix *outer, const struct pk_prefix *inner)
{
    if (outer->v6 != inner->v6 || outer->bits > inner->bits)
        return false;
    struct pk_prefix part = *inner;
    part.bits = outer->bits;
    (void)cut(&part);
    return memcmp(part.addr, outer->addr, sizeof(part.addr)) == 0;
}
