/* SPDX-License-Identifier: Apache-2.0 */
#include "frames.h"

#include <string.h>

uint64_t frames_next(struct frames_rng *rng)
{
    uint64_t x = rng->state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

uint32_t frames_below(struct frames_rng *rng, uint32_t limit)
{
    return (uint32_t)(frames_next(rng) % limit);
}

static uint16_t random_port(struct frames_rng *rng)
{
    return (uint16_t)(10000 + frames_below(rng, 55000)); /* beyond all tunnels' ports */
}

void frames_flow_random(struct frames_rng *rng, bool icmp, struct frames_flow *ret_flow)
{
    static const uint8_t protos[] = { 6, 17, 132 };
    struct frames_flow flow = { .family = frames_below(rng, 2) ? 6 : 4,
                                .sport = random_port(rng),
                                .dport = frames_below(rng, 2) ? random_port(rng) : 443 };
    flow.proto = protos[frames_below(rng, 3)];
    if (icmp)
        flow.proto = flow.family == 4 ? 1 : 58;
    for (unsigned i = 0; i < 16; i++) {
        flow.src[i] = (uint8_t)frames_next(rng);
        flow.dst[i] = (uint8_t)frames_next(rng);
    }
    *ret_flow = flow;
}

struct out {
    uint8_t *data;
    size_t len;
};

static void put8(struct out *out, unsigned v)
{
    out->data[out->len++] = (uint8_t)v;
}

static void put16(struct out *out, unsigned v)
{
    put8(out, v >> 8);
    put8(out, v);
}

static void put32(struct out *out, uint32_t v)
{
    put16(out, v >> 16);
    put16(out, v & 0xffff);
}

static void put(struct out *out, const void *data, size_t len)
{
    memcpy(out->data + out->len, data, len);
    out->len += len;
}

static void put_random(struct out *out, struct frames_rng *rng, size_t len)
{
    for (size_t i = 0; i < len; i++)
        put8(out, (unsigned)frames_next(rng));
}

static void put_transport(struct out *out, struct frames_rng *rng, const struct frames_flow *flow,
                          bool reverse, size_t body)
{
    if (flow->proto == 1 || flow->proto == 58) {
        unsigned request = flow->proto == 1 ? 8 : 128, answer = flow->proto == 1 ? 0 : 129;
        put8(out, reverse ? answer : request);
        put8(out, 0);
        put_random(out, rng, 6 + body);
        return;
    }
    put16(out, reverse ? flow->dport : flow->sport);
    put16(out, reverse ? flow->sport : flow->dport);
    put_random(out, rng, 16 + body);
}

struct ip_shape {
    bool decorated;   /* options or extension headers */
    uint8_t fragment; /* 0 = none, 1 = first, 2 = later */
    uint32_t id;
};

static void put_ip4(struct out *out, struct frames_rng *rng, const struct frames_flow *flow,
                    const struct ip_shape *shape, bool reverse, size_t body)
{
    size_t start = out->len;
    unsigned words = 5 + (shape->decorated ? frames_below(rng, 11) : 0);
    put8(out, 0x40 | words);
    put8(out, 0);
    put16(out, 0); /* length, below */
    put16(out, shape->id & 0xffff);
    unsigned offset = 1 + frames_below(rng, 8000);
    put16(out, shape->fragment == 1   ? 0x2000
               : shape->fragment == 2 ? (frames_below(rng, 2) ? 0x2000 : 0) | offset
                                      : (frames_below(rng, 2) ? 0x4000 : 0));
    put8(out, 64);
    put8(out, flow->proto);
    put16(out, 0);
    put(out, reverse ? flow->dst : flow->src, 4);
    put(out, reverse ? flow->src : flow->dst, 4);
    put_random(out, rng, (words - 5) * 4);
    if (shape->fragment == 2)
        put_random(out, rng, 8 + body);
    else
        put_transport(out, rng, flow, reverse, body);
    size_t total = out->len - start;
    out->data[start + 2] = (uint8_t)(total >> 8);
    out->data[start + 3] = (uint8_t)total;
}

static void put_ip6(struct out *out, struct frames_rng *rng, const struct frames_flow *flow,
                    const struct ip_shape *shape, bool reverse, size_t body)
{
    size_t start = out->len;
    put32(out, 0x60000000 | frames_below(rng, 1 << 20));
    put16(out, 0); /* length, below */
    size_t next_at = out->len;
    put8(out, flow->proto);
    put8(out, 64);
    put(out, reverse ? flow->dst : flow->src, 16);
    put(out, reverse ? flow->src : flow->dst, 16);
    unsigned count = shape->decorated ? frames_below(rng, 5) : 0;
    bool atomic = shape->decorated && shape->fragment == 0 && frames_below(rng, 4) == 0;
    for (unsigned i = 0; i <= count; i++) {
        if (i == count) {
            if (shape->fragment == 0 && !atomic)
                break;
            out->data[next_at] = 44;
            next_at = out->len;
            put8(out, flow->proto);
            put8(out, 0);
            unsigned offset = 1 + frames_below(rng, 8000);
            put16(out, shape->fragment == 1   ? 1
                       : shape->fragment == 2 ? offset << 3 | frames_below(rng, 2)
                                              : 0);
            put32(out, shape->id);
            break;
        }
        static const uint8_t kinds[] = { 0, 43, 51, 60 };
        unsigned kind = kinds[frames_below(rng, 4)], size = frames_below(rng, 4);
        out->data[next_at] = (uint8_t)kind;
        next_at = out->len;
        put8(out, flow->proto);
        put8(out, size);
        put_random(out, rng, kind == 51 ? (size + 2) * 4 - 2 : (size + 1) * 8 - 2);
    }
    if (shape->fragment == 2)
        put_random(out, rng, 8 + body);
    else
        put_transport(out, rng, flow, reverse, body);
    size_t payload = out->len - start - 40;
    out->data[start + 4] = (uint8_t)(payload >> 8);
    out->data[start + 5] = (uint8_t)payload;
}

static void put_ip(struct out *out, struct frames_rng *rng, const struct frames_flow *flow,
                   const struct ip_shape *shape, bool reverse, size_t body)
{
    if (flow->family == 4)
        put_ip4(out, rng, flow, shape, reverse, body);
    else
        put_ip6(out, rng, flow, shape, reverse, body);
}

size_t frames_make(struct frames_rng *rng, const struct frames_flow *flow, enum frames_kind kind,
                   bool reverse, uint32_t id, uint8_t data[FRAMES_ROOM])
{
    static const uint16_t tags[] = { 0x8100, 0x88a8, 0x9100 };
    struct out out = { .data = data };
    put_random(&out, rng, 12);
    if (kind != FRAMES_PLAIN) {
        for (unsigned n = frames_below(rng, 3); n > 0; n--) {
            put16(&out, tags[frames_below(rng, 3)]);
            put16(&out, frames_below(rng, 4096));
        }
    }
    put16(&out, flow->family == 4 ? 0x0800 : 0x86dd);
    size_t body = frames_below(rng, 100);
    struct ip_shape shape = { .decorated = kind != FRAMES_PLAIN,
                              .fragment = kind == FRAMES_FIRST   ? 1
                                          : kind == FRAMES_LATER ? 2
                                                                 : 0,
                              .id = id };
    if (kind != FRAMES_ICMP_ERR) {
        put_ip(&out, rng, flow, &shape, reverse, body);
        return out.len;
    }

    /* From a router to the quoted packet's sender. */
    static const uint8_t types4[] = { 3, 4, 5, 11, 12 }, types6[] = { 1, 2, 3, 4 };
    struct frames_flow error = *flow;
    struct ip_shape whole = { .decorated = true };
    uint8_t inner[FRAMES_ROOM];
    struct out quote = { .data = inner };
    put_ip(&quote, rng, flow, &whole, reverse, body);
    for (unsigned i = 0; i < 16; i++)
        error.src[i] = (uint8_t)frames_next(rng);
    memcpy(error.dst, reverse ? flow->dst : flow->src, 16);
    error.proto = flow->family == 4 ? 1 : 58;
    put_ip(&out, rng, &error, &(struct ip_shape){ .decorated = true }, false, quote.len);
    /* Its last 8 + quote.len bytes are the ICMP message, which put_ip() has filled with noise. */
    uint8_t *message = data + out.len - quote.len - 8;
    message[0] = flow->family == 4 ? types4[frames_below(rng, 5)] : types6[frames_below(rng, 4)];
    memcpy(message + 8, inner, quote.len);
    return out.len;
}

size_t frames_mutate(struct frames_rng *rng, uint8_t *frame, size_t len)
{
    for (unsigned n = 1 + frames_below(rng, 4); n > 0; n--) {
        /* Mostly in the headers, where it matters. */
        size_t at = frames_below(rng, (uint32_t)(frames_below(rng, 2) ? len : PK_MIN(len, 80)));
        static const uint8_t values[] = {
            0,  1,    4,    6,    17,   41,   43,   44,   51,   58,
            60, 0x45, 0x46, 0x4f, 0x60, 0x81, 0x86, 0x88, 0xdd, 0xff
        };
        switch (frames_below(rng, 5)) {
        case 0:
            frame[at] ^= (uint8_t)(1u << frames_below(rng, 8));
            break;
        case 1:
            frame[at] = (uint8_t)frames_next(rng);
            break;
        case 2:
            frame[at] = values[frames_below(rng, sizeof values)];
            break;
        case 3:
            len = PK_MAX(14, at);
            break;
        default:
            frame[12] = frames_below(rng, 2) ? 0x08 : 0x86;
            frame[13] = frame[12] == 0x08 ? 0x00 : 0xdd;
        }
    }
    return len;
}
