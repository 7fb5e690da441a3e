/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inline taps: two interfaces with a tool between them, which lets packets through or not. A flow
 * goes through one lane in both directions. A lane has two veth pairs; what comes in on side 0 goes
 * to the tool at its first inner end and comes back by the second, what comes in on side 1 the
 * other way round. While no tool is there or it does not answer, packets go past it (or are
 * dropped, where the tap fails closed); the kernel decides that, so that it holds without an agent.
 *
 * Keys, threads and errors are as in broker.h.
 */
#ifndef PICKET_BROKER_INLINE_H
#define PICKET_BROKER_INLINE_H

#include "broker/bpf/inline.h"
#include "broker/broker.h"

struct pk_broker_inline_config {
    unsigned ifindex[PK_SIDES];
    const char *group_key; /* set before; its lanes are inline lanes */
    uint64_t fail_after;   /* ns that a packet may be unanswered: then the tool counts as dead */
    bool closed;           /* then drop, instead of letting packets past it */
};
/* Idempotent; another configuration is put in the place of the one that runs, without a packet in
 * between. An interface whose driver has no XDP: PK_E_UNSUPPORTED. */
int pk_broker_inline_attach(struct pk_broker *broker, const char *key,
                            const struct pk_broker_inline_config *config, struct pk_error *err);
int pk_broker_inline_detach(struct pk_broker *broker, const char *key, struct pk_error *err);
bool pk_broker_inline_intact(struct pk_broker *broker, const char *key,
                             const unsigned ifindex[PK_SIDES]);

struct pk_broker_inline_lane {
    int netns_fd;
    unsigned outer[PK_SIDES];    /* in the caller's namespace */
    const char *inner[PK_SIDES]; /* names, in netns_fd */
};
/* As pk_broker_lane_add(); pk_broker_lane_remove(), _intact(), _set_reader() and _reader() are for
 * both kinds. A lane gets packets only while its reader is set. */
int pk_broker_inline_lane_add(struct pk_broker *broker, const char *key,
                              const struct pk_broker_inline_lane *lane, struct pk_error *err);

/*
 * Probes: frames that the tool copies as it does any packet, and that are taken out where they come
 * back. They keep a tool alive that drops all that it gets, and bring one back that had failed. The
 * caller sends them into the lane's outer end of the side. Any thread.
 */
void pk_broker_probe_frame(uint64_t token, unsigned side, uint8_t ret_frame[PK_PROBE_SIZE]);
uint64_t pk_broker_probe_token(const struct pk_broker *broker);

struct pk_broker_inline_health {
    bool answers;                /* packets go through the tool */
    uint64_t answered[PK_SIDES]; /* probes that came back, by the side they went in */
    int64_t since; /* while it does not answer: ns since the first packet that got no answer */
};
int pk_broker_inline_lane_health(struct pk_broker *broker, const char *key,
                                 struct pk_broker_inline_health *ret_health, struct pk_error *err);

/*
 * pk_broker_counters() has for inline taps, each list by direction (of side 0 first):
 * {"inline":[{"key","began","directions":[{"packets","bytes","sent","sentBytes","bypassed","bypassedBytes",
 *             "blocked","blockedBytes","notSent","noLane","unanswered","oddTag"}*2]}],
 *  "inlineLanes":[{"key","directions":[{"sent","sentBytes","arrived","ringDropped","unread",
 *             "returned","returnedBytes","notSent","probes","answered",
 *             "toolDropped"}*2]}]}             arrived - unread - returned - notSent
 */

#endif
