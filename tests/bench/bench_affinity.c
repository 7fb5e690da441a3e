/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a flow stay whole, and are flows spread? Random flows, both directions, in every
 * encapsulation, whole and in fragments, over four lanes: by the broker's decision (hash: flow; the
 * same source as the BPF program, see tests/unit/broker/test_equal.c) and, for fewer flows, over
 * four AF_PACKET sockets of a PACKET_FANOUT_HASH group on a veth. Tunnels are those of one mirror
 * session: two addresses, a source port for each direction of a flow. Runs in namespaces of its
 * own. PICKET_BENCH_FLOWS=N    of the broker, for each row; default 100,000
 */
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/maglev.h"
#include "encap.h"
#include "net.h"
#include "packet/flow.h"
#include "packet/parse.h"

#define LANES        4
#define FANOUT_FLOWS 2000u
#define SEED         0x70696368u
#define PACKETS_MAX  4

struct way {
    const char *name;
    unsigned (*deliver)(const uint8_t *frame, size_t len); /* the lane, or LANES: nowhere */
};

static uint16_t slots[PK_SLOT_COUNT];
static struct pk_fragment_memory *fragments;
static int sender = -1, readers[LANES];
static unsigned lost;

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static unsigned by_broker(const uint8_t *frame, size_t len)
{
    uint32_t hash = 0;
    unsigned reason = pk_flow_decide(fragments, frame, len, PK_HASH_FLOW, SEED, &hash);
    return pk_reason_is_first_lane(reason) ? 0 : slots[pk_hash_slot(hash)];
}

/* Sending and receiving are one call chain in a veth without NAPI's delay, but for softirq: some
 * patience. */
static unsigned by_fanout(const uint8_t *frame, size_t len)
{
    uint8_t got[ENCAP_ROOM];
    if (send(sender, frame, len, 0) < 0)
        die("send");
    for (unsigned turn = 0; turn < 10000; turn++)
        for (unsigned i = 0; i < LANES; i++)
            if (recv(readers[i], got, sizeof got, MSG_DONTWAIT) >= 0)
                return i;
    lost++;
    return LANES;
}

static void fanout_begin(void)
{
    net_veth("out", "in", 9000);
    sender = net_packet_socket(-1, "out");
    int yes = 1;
    for (unsigned i = 0; i < LANES; i++) {
        readers[i] = net_packet_socket(-1, "in");
        int how = 77 | PACKET_FANOUT_HASH << 16;
        if (setsockopt(readers[i], SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) < 0 ||
            setsockopt(readers[i], SOL_PACKET, PACKET_FANOUT, &how, sizeof how) < 0)
            die("PACKET_FANOUT");
    }
}

/* The packets of a flow: whole there and back; or each as a first and a later fragment. kind =
 * ENCAP_COUNT: none. Returns how many; 0 = the encapsulation does not take such a packet. */
static unsigned make(struct frames_rng *rng, unsigned kind, bool in_fragments,
                     const struct frames_flow *flow, uint32_t *id,
                     uint8_t out[PACKETS_MAX][ENCAP_ROOM], size_t lens[PACKETS_MAX])
{
    unsigned count = 0;
    uint8_t bare[FRAMES_ROOM];
    for (unsigned reverse = 0; reverse < 2; reverse++) {
        bool outer_cut = in_fragments && kind < ENCAP_COUNT && encap_is_tunnel((enum encap)kind);
        bool inner_cut = in_fragments && !outer_cut;
        struct encap_outer outer = { .id = ++*id, .fragment = outer_cut };
        outer.ends = (struct frames_flow){ .src = { 192, 0, 2, 1 },
                                           .dst = { 192, 0, 2, 2 },
                                           .sport = (uint16_t)(49152 + frames_below(rng, 16384)),
                                           .family = 4,
                                           .proto = 17 };
        for (unsigned part = 0; part < 1u + in_fragments; part++) {
            if (outer_cut && part == 1) {
                lens[count] = encap_later(rng, &outer, out[count - 1], out[count]);
                count++;
                continue;
            }
            enum frames_kind shape = FRAMES_PLAIN;
            if (inner_cut)
                shape = part == 0 ? FRAMES_FIRST : FRAMES_LATER;
            size_t len = frames_make(rng, flow, shape, reverse, *id, bare);
            if (kind < ENCAP_COUNT) {
                len = encap_wrap(rng, (enum encap)kind, &outer, bare, len, out[count]);
                if (len == 0)
                    return 0;
            } else {
                memcpy(out[count], bare, len);
            }
            lens[count++] = len;
        }
    }
    return count;
}

struct score {
    unsigned flows, split, busiest;
};

static struct score run(unsigned (*deliver)(const uint8_t *, size_t), unsigned kind,
                        bool in_fragments, unsigned flows)
{
    static uint8_t packets[PACKETS_MAX][ENCAP_ROOM];
    size_t lens[PACKETS_MAX];
    struct frames_rng rng = { kind * 2u + in_fragments + 1 };
    unsigned load[LANES + 1] = { 0 };
    struct score score = { 0 };
    uint32_t id = 0;
    for (unsigned tries = 0; score.flows < flows && tries < 128 * flows; tries++) {
        struct frames_flow flow;
        frames_flow_random(&rng, false, &flow);
        unsigned count = make(&rng, kind, in_fragments, &flow, &id, packets, lens);
        if (count == 0)
            continue;
        unsigned first = 0;
        bool split = false;
        for (unsigned i = 0; i < count; i++) {
            unsigned lane = deliver(packets[i], lens[i]);
            if (i == 0)
                first = lane;
            split |= lane != first;
            load[lane]++;
        }
        score.split += split;
        score.flows++;
    }
    unsigned all = 0;
    for (unsigned i = 0; i < LANES; i++) {
        all += load[i];
        score.busiest = PK_MAX(score.busiest, load[i]);
    }
    score.busiest = all > 0 ? (unsigned)(100.0 * score.busiest / all + 0.5) : 0;
    return score;
}

static unsigned row(const char *name, unsigned kind, bool in_fragments, unsigned flows)
{
    struct score broker = run(by_broker, kind, in_fragments, flows);
    struct score fanout = run(by_fanout, kind, in_fragments, PK_MIN(flows, FANOUT_FLOWS));
    if (broker.flows == 0)
        return 0;
    printf("%-14s %-10s %9u %9u %8u%%   %9u %8.1f%% %8u%%\n", name,
           in_fragments ? "fragments" : "whole", broker.flows, broker.split, broker.busiest,
           fanout.flows, 100.0 * fanout.split / fanout.flows, fanout.busiest);
    return broker.split;
}

int main(void)
{
    if (!net_begin())
        return 0;
    const char *count = getenv("PICKET_BENCH_FLOWS");
    unsigned flows = count != NULL ? (unsigned)strtoul(count, NULL, 10) : 100000;
    struct pk_broker_share shares[LANES];
    for (unsigned i = 0; i < LANES; i++)
        shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1 };
    pk_maglev_fill(shares, LANES, slots);
    fragments = pk_fragment_memory_new();
    if (fragments == NULL)
        return 1;
    fanout_begin();
    printf("%-14s %-10s %29s   %28s\n", "", "", "broker", "AF_PACKET fanout");
    printf("%-14s %-10s %9s %9s %9s   %9s %9s %9s\n", "", "", "flows", "split", "busiest", "flows",
           "split", "busiest");
    unsigned split = 0;
    for (unsigned kind = 0; kind <= ENCAP_COUNT; kind++) {
        unsigned which = (kind + ENCAP_COUNT) % (ENCAP_COUNT + 1); /* plain comes first */
        const char *name = which == ENCAP_COUNT ? "plain" : encap_name((enum encap)which);
        split += row(name, which, false, flows);
        split += row(name, which, true, flows);
    }
    printf("split: flows of which not all packets went to one of %d lanes; busiest: the share of\n"
           "packets of the lane that got most (%d%% is even)\n",
           LANES, 100 / LANES);
    if (lost > 0)
        printf("%u packets came back from no socket of the fanout group\n", lost);
    pk_fragment_memory_free(fragments);
    return split > 0;
}
