/* SPDX-License-Identifier: Apache-2.0 */
/* Shunts as text. Lists are long, so numbers and addresses are written without printf(). */
#include <arpa/inet.h>
#include <inttypes.h>
#include <string.h>

#include "base/str.h"
#include "base/time.h"
#include "node/shunt.h"

#define ENTRY_MAX 1024u

int64_t pk_shunt_clock_offset(void)
{
    return pk_time_now() - pk_time_monotonic();
}

/* ---- pieces; out has room ---- */

static char *put_text(char *out, const char *text)
{
    size_t len = strlen(text);
    memcpy(out, text, len);
    return out + len;
}

static char *put_number(char *out, uint64_t number)
{
    char digits[20];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0)
        *out++ = digits[--count];
    return out;
}

static char *put_key_number(char *out, const char *key, uint64_t number)
{
    return put_number(put_text(out, key), number);
}

/* Seconds since 1970, to the millisecond. */
static char *put_seconds(char *out, const char *key, uint64_t when, int64_t offset)
{
    int64_t ns = (int64_t)when + offset;
    uint64_t ms = ns > 0 ? (uint64_t)ns / (uint64_t)PK_NSEC_PER_MS : 0;
    out = put_key_number(out, key, ms / 1000);
    *out++ = '.';
    *out++ = (char)('0' + ms / 100 % 10);
    *out++ = (char)('0' + ms / 10 % 10);
    *out++ = (char)('0' + ms % 10);
    return out;
}

static char *put_address(char *out, const uint8_t *address, unsigned family)
{
    if (family == 4) {
        for (unsigned i = 0; i < 4; i++) {
            if (i > 0)
                *out++ = '.';
            out = put_number(out, address[i]);
        }
        return out;
    }
    (void)inet_ntop(AF_INET6, address, out, INET6_ADDRSTRLEN);
    return out + strlen(out);
}

static char *put_protocol(char *out, unsigned proto)
{
    switch (proto) {
    case 6:
        return put_text(out, "tcp");
    case 17:
        return put_text(out, "udp");
    case 132:
        return put_text(out, "sctp");
    default:
        return put_number(out, proto);
    }
}

/* By the API it has no character that JSON would need escaped; what else lies in a pinned map is
 * not trusted. */
static char *put_by(char *out, const struct pk_shunt *shunt)
{
    for (size_t i = 0; i < sizeof shunt->by && shunt->by[i] != '\0'; i++) {
        char c = shunt->by[i];
        *out++ = c >= ' ' && c < 127 && c != '"' && c != '\\' ? c : '?';
    }
    return out;
}

/* ---- whole ---- */

void pk_shunt_print(struct pk_buf *buf, const struct pk_shunt_key *key,
                    const struct pk_shunt *shunt, const char *group, int64_t clock_offset)
{
    struct pk_tuple tuple;
    unsigned from = shunt->from_b != 0, to = !from;
    pk_shunt_tuple(key, shunt, &tuple);
    if (pk_buf_reserve(buf, ENTRY_MAX) < 0)
        return;
    char *start = buf->data + buf->len, *out = start;
    out = put_text(put_text(put_text(out, "{\"group\":\""), group), "\",\"src\":\"");
    out = put_address(out, tuple.src, tuple.family);
    out = put_key_number(out, "\",\"srcPort\":", tuple.src_port);
    out = put_address(put_text(out, ",\"dst\":\""), tuple.dst, tuple.family);
    out = put_key_number(out, "\",\"dstPort\":", tuple.dst_port);
    out = put_protocol(put_text(out, ",\"proto\":\""), tuple.proto);
    out = put_text(put_text(out, "\",\"reason\":\""), pk_shunt_reason_name(shunt->reason));
    out = put_by(put_text(out, "\",\"by\":\""), shunt);
    out = put_text(put_text(out, "\",\"state\":\""), pk_shunt_state_name(shunt->state));
    out = put_key_number(out, "\",\"packetsFromSrc\":", shunt->packets[from]);
    out = put_key_number(out, ",\"bytesFromSrc\":", shunt->bytes[from]);
    out = put_key_number(out, ",\"packetsFromDst\":", shunt->packets[to]);
    out = put_key_number(out, ",\"bytesFromDst\":", shunt->bytes[to]);
    out = put_key_number(out, ",\"passedPackets\":", shunt->passed_packets);
    out = put_key_number(out, ",\"passedBytes\":", shunt->passed_bytes);
    out = put_key_number(out, ",\"keepBytes\":", shunt->keep);
    out = put_key_number(out, ",\"idleSeconds\":", shunt->idle_ms / 1000);
    out = put_seconds(out, ",\"begin\":", shunt->begin, clock_offset);
    out = put_seconds(out, ",\"last\":", shunt->last, clock_offset);
    out = put_seconds(out, ",\"until\":", shunt->until, clock_offset);
    *out++ = '}';
    buf->len += (size_t)(out - start);
    *out = '\0';
}

uint64_t pk_shunt_record_id(const struct pk_shunt_key *key, const struct pk_shunt *shunt)
{
    /* FNV-1a: tells one from another, no secret. */
    uint64_t id = 0xcbf29ce484222325u;
    const uint8_t *bytes = (const uint8_t *)key;
    for (size_t i = 0; i < sizeof *key; i++)
        id = (id ^ bytes[i]) * 0x100000001b3u;
    for (unsigned i = 0; i < 64; i += 8)
        id = (id ^ (shunt->begin >> i & 0xff)) * 0x100000001b3u;
    return id;
}

void pk_shunt_record(struct pk_buf *buf, const struct pk_shunt_key *key,
                     const struct pk_shunt *shunt, int64_t clock_offset)
{
    struct pk_tuple tuple;
    unsigned from = shunt->from_b != 0, to = !from;
    char community[PK_COMMUNITY_ID_SIZE], begin[40], last[40];
    pk_shunt_tuple(key, shunt, &tuple);
    pk_time_format((int64_t)shunt->begin + clock_offset, 6, begin, sizeof begin);
    pk_time_format((int64_t)shunt->last + clock_offset, 6, last, sizeof last);
    uint64_t id = pk_shunt_record_id(key, shunt);
    uint8_t id_bytes[8];
    char id_text[17];
    for (unsigned i = 0; i < 8; i++)
        id_bytes[i] = (uint8_t)(id >> (56 - 8 * i));
    pk_hex(id_bytes, sizeof id_bytes, id_text);

    if (pk_buf_reserve(buf, ENTRY_MAX) < 0)
        return;
    char *start = buf->data + buf->len, *out = start;
    out = put_text(put_text(out, "{\"timestamp\":\""), last);
    out = put_text(out, "\",\"event_type\":\"shunt\",\"src_ip\":\"");
    out = put_address(out, tuple.src, tuple.family);
    out = put_key_number(out, "\",\"src_port\":", tuple.src_port);
    out = put_address(put_text(out, ",\"dest_ip\":\""), tuple.dst, tuple.family);
    out = put_key_number(out, "\",\"dest_port\":", tuple.dst_port);
    out = put_protocol(put_text(out, ",\"proto\":\""), tuple.proto);
    out = put_text(put_text(out, "\",\"community_id\":\""), pk_community_id(&tuple, 0, community));
    out = put_key_number(out, "\",\"flow\":{\"pkts_toserver\":", shunt->packets[from]);
    out = put_key_number(out, ",\"pkts_toclient\":", shunt->packets[to]);
    out = put_key_number(out, ",\"bytes_toserver\":", shunt->bytes[from]);
    out = put_key_number(out, ",\"bytes_toclient\":", shunt->bytes[to]);
    out = put_text(put_text(out, ",\"start\":\""), begin);
    out = put_text(put_text(out, "\",\"end\":\""), last);
    out = put_text(put_text(out, "\"},\"shunt\":{\"id\":\""), id_text);
    out = put_text(put_text(out, "\",\"reason\":\""), pk_shunt_reason_name(shunt->reason));
    out = put_by(put_text(out, "\",\"by\":\""), shunt);
    out = put_text(put_text(out, "\",\"ended\":\""), pk_shunt_state_name(shunt->state));
    out = put_key_number(out, "\",\"passed_packets\":", shunt->passed_packets);
    out = put_key_number(out, ",\"passed_bytes\":", shunt->passed_bytes);
    out = put_text(out, "}}\n");
    buf->len += (size_t)(out - start);
    *out = '\0';
}

bool pk_shunt_record_find_id(const char *line, size_t len, uint64_t *ret_id)
{
    static const char before[] = "\"shunt\":{\"id\":\"";
    const char *at = memmem(line, len, before, sizeof before - 1);
    if (at == NULL)
        return false;
    at += sizeof before - 1;
    return (size_t)(line + len - at) >= 16 && pk_parse_hex(at, 16, ret_id, NULL) == 0;
}
