/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes captures for the demo and the tests: conversations with correct checksums, sequence numbers
 * and times, interleaved as on a wire. Everything follows from the seed.
 */
#ifndef PICKET_TOOLS_TRAFFIC_H
#define PICKET_TOOLS_TRAFFIC_H

#include "base/common.h"

struct frame {
    pk_nsec when; /* since the capture's start */
    uint64_t order;
    uint32_t len;
    uint8_t *data;
};

struct capture {
    struct frame *frames;
    size_t count, capacity;
    uint64_t random_state;
    pk_nsec span; /* conversations start within it */
};

/* An endpoint pair; addresses are 16 bytes, IPv4 in the first 4. */
struct conversation {
    struct capture *capture;
    bool ipv6;
    uint8_t client[16], server[16];
    uint16_t client_port, server_port;
    unsigned vlans; /* 0..2 tags */
    uint16_t vlan[2];
    pk_nsec now, rtt;
    uint32_t client_seq, server_seq; /* TCP: next to send */
    uint16_t ip_id;
    uint16_t window; /* TCP; 0 = a usual one */
};

uint64_t traffic_random(struct capture *capture);
uint64_t traffic_below(struct capture *capture, uint64_t bound);

/* frames.c */
enum direction { TO_SERVER, TO_CLIENT };
void tcp_open(struct conversation *c);
void tcp_send(struct conversation *c, enum direction direction, const void *data, size_t len);
void tcp_text(struct conversation *c, enum direction direction, const char *text);
void tcp_close(struct conversation *c);
void tcp_syn_refused(struct conversation *c);
void udp_send(struct conversation *c, enum direction direction, const void *data, size_t len);
void icmp_echo(struct conversation *c, unsigned sequence);

/* talk.c: one whole conversation of a kind each */
struct kind {
    const char *name;
    unsigned share; /* of all conversations, in percent */
    void (*make)(struct conversation *c);
};
extern const struct kind traffic_kinds[];
extern const size_t traffic_kind_count;

#endif
