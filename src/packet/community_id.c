/* SPDX-License-Identifier: Apache-2.0 */
#include "packet/community_id.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

#include "packet/sha1.h"

static const struct {
    const char *name;
    uint8_t proto;
} proto_names[] = {
    /* clang-format off */
    { "icmp", IPPROTO_ICMP }, { "icmp4", IPPROTO_ICMP }, { "icmpv4", IPPROTO_ICMP },
    { "igmp", IPPROTO_IGMP }, { "ipip", IPPROTO_IPIP }, { "tcp", IPPROTO_TCP },
    { "udp", IPPROTO_UDP }, { "ipv6", IPPROTO_IPV6 }, { "rsvp", IPPROTO_RSVP },
    { "gre", IPPROTO_GRE }, { "esp", IPPROTO_ESP }, { "ah", IPPROTO_AH },
    { "icmp6", IPPROTO_ICMPV6 }, { "icmpv6", IPPROTO_ICMPV6 }, { "ipv6-icmp", IPPROTO_ICMPV6 },
    { "ospf", 89 }, { "pim", IPPROTO_PIM }, { "sctp", IPPROTO_SCTP },
    /* clang-format on */
};

int pk_ip_proto_by_name(const char *name)
{
    if (name[0] >= '0' && name[0] <= '9') {
        unsigned value = 0;
        for (const char *p = name; *p != '\0'; p++) {
            if (*p < '0' || *p > '9' || (value = value * 10 + (unsigned)(*p - '0')) > 255)
                return -1;
        }
        return (int)value;
    }
    for (size_t i = 0; i < PK_ARRAY_SIZE(proto_names); i++)
        if (strcasecmp(proto_names[i].name, name) == 0)
            return proto_names[i].proto;
    return -1;
}

bool pk_tuple_set_addresses(struct pk_tuple *tuple, const char *src, const char *dst)
{
    static const struct {
        int af;
        uint8_t family;
    } families[] = { { AF_INET, 4 }, { AF_INET6, 6 } };
    for (size_t i = 0; i < PK_ARRAY_SIZE(families); i++) {
        uint8_t a[16] = { 0 }, b[16] = { 0 };
        if (inet_pton(families[i].af, src, a) != 1 || inet_pton(families[i].af, dst, b) != 1)
            continue;
        memcpy(tuple->src, a, 16);
        memcpy(tuple->dst, b, 16);
        tuple->family = families[i].family;
        return true;
    }
    return false;
}

/* The type that answers an ICMP type, -1 where none does: such a message is a flow in one
 * direction. */
static int icmp_answer(uint8_t proto, unsigned type)
{
    static const uint8_t v4[][2] = { { 0, 8 }, { 9, 10 }, { 13, 14 }, { 15, 16 }, { 17, 18 } };
    static const uint8_t v6[][2] = { { 128, 129 }, { 130, 131 }, { 133, 134 },
                                     { 135, 136 }, { 139, 140 }, { 144, 145 } };
    const uint8_t(*pairs)[2] = proto == IPPROTO_ICMP ? v4 : v6;
    size_t count = proto == IPPROTO_ICMP ? PK_ARRAY_SIZE(v4) : PK_ARRAY_SIZE(v6);
    for (size_t i = 0; i < count; i++) {
        if (pairs[i][0] == type)
            return pairs[i][1];
        if (pairs[i][1] == type)
            return pairs[i][0];
    }
    return -1;
}

static void base64(const uint8_t digest[20], char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t in[21] = { 0 };
    memcpy(in, digest, 20);
    for (unsigned i = 0; i < 21; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | in[i + 2];
        for (unsigned k = 0; k < 4; k++)
            *out++ = digits[v >> (18 - 6 * k) & 63];
    }
    out[-1] = '='; /* 20 bytes fill 27 digits */
    *out = '\0';
}

char *pk_community_id(const struct pk_tuple *tuple, uint16_t seed, char out[PK_COMMUNITY_ID_SIZE])
{
    size_t size = tuple->family == 4 ? 4 : 16;
    uint16_t sport = tuple->src_port, dport = tuple->dst_port;
    bool ports = true, one_way = false;
    switch (tuple->proto) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
        break;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6: {
        int answer = icmp_answer(tuple->proto, sport);
        if (answer >= 0)
            dport = (uint16_t)answer;
        else
            one_way = true;
        break;
    }
    default:
        ports = false;
    }

    const uint8_t *a = tuple->src, *b = tuple->dst;
    int order = memcmp(a, b, size);
    if (!one_way && (order > 0 || (order == 0 && ports && sport > dport))) {
        a = tuple->dst;
        b = tuple->src;
        uint16_t port = sport;
        sport = dport;
        dport = port;
    }

    uint8_t message[2 + 32 + 2 + 4], digest[20];
    size_t len = 0;
    message[len++] = (uint8_t)(seed >> 8);
    message[len++] = (uint8_t)seed;
    memcpy(message + len, a, size);
    memcpy(message + len + size, b, size);
    len += 2 * size;
    message[len++] = tuple->proto;
    message[len++] = 0;
    if (ports) {
        message[len++] = (uint8_t)(sport >> 8);
        message[len++] = (uint8_t)sport;
        message[len++] = (uint8_t)(dport >> 8);
        message[len++] = (uint8_t)dport;
    }
    pk_sha1(message, len, digest);
    out[0] = '1';
    out[1] = ':';
    base64(digest, out + 2);
    return out;
}
