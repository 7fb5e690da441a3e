/* SPDX-License-Identifier: Apache-2.0 */
/* Builds frames: Ethernet, VLAN tags, IPv4/IPv6, TCP/UDP/ICMP, with correct checksums. */
#include "traffic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define MSS     1360u
#define TCP_FIN 0x01u
#define TCP_SYN 0x02u
#define TCP_RST 0x04u
#define TCP_PSH 0x08u
#define TCP_ACK 0x10u

static void out_of_memory(void)
{
    (void)fputs("traffic: out of memory\n", stderr);
    exit(1); /* NOLINT(concurrency-mt-unsafe): of one thread */
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

static uint32_t sum16(const uint8_t *data, size_t len, uint32_t sum)
{
    for (size_t i = 0; i + 1 < len; i += 2)
        sum += (uint32_t)data[i] << 8 | data[i + 1];
    if (len % 2 == 1)
        sum += (uint32_t)data[len - 1] << 8;
    return sum;
}

static unsigned fold(uint32_t sum)
{
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

/* Wraps a transport segment into IP and Ethernet; segment's checksum field is at checksum_at. */
static void emit(struct conversation *c, enum direction direction, unsigned protocol,
                 uint8_t *segment, size_t len, size_t checksum_at)
{
    const uint8_t *from = direction == TO_SERVER ? c->client : c->server;
    const uint8_t *to = direction == TO_SERVER ? c->server : c->client;
    size_t address_len = c->ipv6 ? 16 : 4;

    bool pseudo = protocol != 1; /* ICMPv4 has no pseudo header (RFC 792) */
    uint32_t sum = sum16(segment, len, 0);
    if (pseudo)
        sum = sum16(from, address_len, sum16(to, address_len, sum + protocol + (uint32_t)len));
    put16(segment + checksum_at, fold(sum));

    size_t ip_len = c->ipv6 ? 40 : 20;
    size_t total = 14 + 4 * (size_t)c->vlans + ip_len + len;
    uint8_t *frame = pk_zalloc(PK_MAX(total, (size_t)60));
    if (frame == NULL)
        out_of_memory();
    static const uint8_t macs[2][6] = { { 2, 0, 0, 0, 0, 1 }, { 2, 0, 0, 0, 0, 2 } };
    memcpy(frame, macs[direction == TO_SERVER], 6);
    memcpy(frame + 6, macs[direction == TO_CLIENT], 6);
    uint8_t *at = frame + 12;
    for (unsigned i = 0; i < c->vlans; i++, at += 4) {
        put16(at, i == 0 && c->vlans == 2 ? 0x88a8 : 0x8100);
        put16(at + 2, c->vlan[i]);
    }
    put16(at, c->ipv6 ? 0x86dd : 0x0800);
    at += 2;
    if (c->ipv6) {
        at[0] = 0x60;
        put16(at + 4, (unsigned)len);
        at[6] = (uint8_t)protocol;
        at[7] = 64;
        memcpy(at + 8, from, 16);
        memcpy(at + 24, to, 16);
    } else {
        at[0] = 0x45;
        put16(at + 2, (unsigned)(ip_len + len));
        put16(at + 4, c->ip_id++);
        put16(at + 6, 0x4000);
        at[8] = 64;
        at[9] = (uint8_t)protocol;
        memcpy(at + 12, from, 4);
        memcpy(at + 16, to, 4);
        put16(at + 10, fold(sum16(at, 20, 0)));
    }
    memcpy(at + ip_len, segment, len);

    struct capture *capture = c->capture;
    if (capture->count == capture->capacity) {
        size_t capacity = PK_MAX(capture->capacity * 2, (size_t)4096);
        struct frame *grown = pk_realloc_array(capture->frames, capacity, sizeof(*grown));
        if (grown == NULL)
            out_of_memory();
        capture->frames = grown;
        capture->capacity = capacity;
    }
    capture->frames[capture->count] = (struct frame){ .when = c->now,
                                                      .order = capture->count,
                                                      .len = (uint32_t)PK_MAX(total, (size_t)60),
                                                      .data = frame };
    capture->count++;
}

static void tcp_segment(struct conversation *c, enum direction direction, unsigned flags,
                        const void *data, size_t len)
{
    uint8_t segment[20 + MSS] = { 0 };
    bool to_server = direction == TO_SERVER;
    put16(segment, to_server ? c->client_port : c->server_port);
    put16(segment + 2, to_server ? c->server_port : c->client_port);
    put32(segment + 4, to_server ? c->client_seq : c->server_seq);
    if ((flags & TCP_ACK) != 0)
        put32(segment + 8, to_server ? c->server_seq : c->client_seq);
    segment[12] = 5 << 4;
    segment[13] = (uint8_t)flags;
    put16(segment + 14, c->window != 0 ? c->window : 64240);
    if (len > 0)
        memcpy(segment + 20, data, len);
    emit(c, direction, 6, segment, 20 + len, 16);
    uint32_t used = (uint32_t)len + ((flags & (TCP_SYN | TCP_FIN)) != 0);
    if (to_server)
        c->client_seq += used;
    else
        c->server_seq += used;
}

static enum direction other(enum direction direction)
{
    return direction == TO_SERVER ? TO_CLIENT : TO_SERVER;
}

void tcp_open(struct conversation *c)
{
    c->client_seq = (uint32_t)traffic_random(c->capture);
    c->server_seq = (uint32_t)traffic_random(c->capture);
    tcp_segment(c, TO_SERVER, TCP_SYN, NULL, 0);
    c->now += c->rtt / 2;
    tcp_segment(c, TO_CLIENT, TCP_SYN | TCP_ACK, NULL, 0);
    c->now += c->rtt / 2;
    tcp_segment(c, TO_SERVER, TCP_ACK, NULL, 0);
}

void tcp_send(struct conversation *c, enum direction direction, const void *data, size_t len)
{
    const uint8_t *at = data;
    c->now += c->rtt / 4;
    while (len > 0) {
        size_t part = PK_MIN(len, (size_t)MSS);
        tcp_segment(c, direction, TCP_ACK | TCP_PSH, at, part);
        at += part;
        len -= part;
        c->now += 50000;
    }
    c->now += c->rtt / 4;
    tcp_segment(c, other(direction), TCP_ACK, NULL, 0);
}

void tcp_text(struct conversation *c, enum direction direction, const char *text)
{
    tcp_send(c, direction, text, strlen(text));
}

void tcp_close(struct conversation *c)
{
    c->now += c->rtt;
    tcp_segment(c, TO_SERVER, TCP_FIN | TCP_ACK, NULL, 0);
    c->now += c->rtt / 2;
    tcp_segment(c, TO_CLIENT, TCP_FIN | TCP_ACK, NULL, 0);
    c->now += c->rtt / 2;
    tcp_segment(c, TO_SERVER, TCP_ACK, NULL, 0);
}

void tcp_syn_refused(struct conversation *c)
{
    c->client_seq = (uint32_t)traffic_random(c->capture);
    c->server_seq = 0;
    tcp_segment(c, TO_SERVER, TCP_SYN, NULL, 0);
    c->now += c->rtt / 2;
    tcp_segment(c, TO_CLIENT, TCP_RST | TCP_ACK, NULL, 0);
}

void udp_send(struct conversation *c, enum direction direction, const void *data, size_t len)
{
    uint8_t segment[8 + 1472] = { 0 };
    bool to_server = direction == TO_SERVER;
    len = PK_MIN(len, sizeof(segment) - 8);
    put16(segment, to_server ? c->client_port : c->server_port);
    put16(segment + 2, to_server ? c->server_port : c->client_port);
    put16(segment + 4, (unsigned)(8 + len));
    memcpy(segment + 8, data, len);
    emit(c, direction, 17, segment, 8 + len, 6);
    c->now += c->rtt / 2;
}

void icmp_echo(struct conversation *c, unsigned sequence)
{
    uint8_t segment[40] = { 0 };
    for (unsigned reply = 0; reply < 2; reply++) {
        memset(segment, 0, 4);
        if (c->ipv6)
            segment[0] = reply != 0 ? 129 : 128;
        else
            segment[0] = reply != 0 ? 0 : 8;
        put16(segment + 4, c->client_port);
        put16(segment + 6, sequence);
        for (size_t i = 8; i < sizeof(segment); i++)
            segment[i] = (uint8_t)i;
        emit(c, reply != 0 ? TO_CLIENT : TO_SERVER, c->ipv6 ? 58 : 1, segment, sizeof(segment), 2);
        c->now += c->rtt / 2;
    }
}
