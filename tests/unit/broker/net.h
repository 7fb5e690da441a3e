/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network of the test's own: network and mount namespaces that go with the process, however it
 * ends, with a BPF file system, veth pairs and lanes in it.
 */
#ifndef PICKET_TESTS_BROKER_NET_H
#define PICKET_TESTS_BROKER_NET_H

#include "base/common.h"
#include "broker/broker.h"

#define NET_PIN_DIR "/sys/fs/bpf/picket"

/* A tap's configuration with one group, "f/g", and no tenants. */
#define ONE_GROUP                                                                                 \
    (&(struct pk_broker_tap_config){ .targets = &(struct pk_broker_target){ .group_key = "f/g" }, \
                                     .target_count = 1 })

/* Enters the namespaces. Without rights prints the TAP line that skips the program; false then. */
bool net_begin(void);
/* Runs a command; true = exit 0. NULL-terminated list. The output of a failure goes to stderr. */
bool net_run(const char *command, ...) __attribute__((sentinel));
/* A veth pair in this namespace, both up. Returns the index of a. */
unsigned net_veth(const char *a, const char *b, unsigned mtu);

/* Switches IPv6 off: no neighbour discovery of the kernel's own in the counters. */
void net_quiet(const char *interface);

struct net_lane {
    int netns_fd;
    char host[16]; /* the outer end; the inner one is "tap0" */
    unsigned host_ifindex;
};
void net_lane_make(struct net_lane *lane, const char *host, unsigned mtu);
void net_lane_drop(struct net_lane *lane);
/* Runs fn(arg) in the lane's namespace. */
void net_in(int netns_fd, void (*fn)(void *), void *arg);
/* A packet socket on an interface; in the lane's namespace unless netns_fd is -1. */
int net_packet_socket(int netns_fd, const char *interface);
/* Frames received until none comes for quiet_ms; *ret_largest = the longest (may be NULL). */
unsigned net_receive(int fd, unsigned quiet_ms, size_t *ret_largest);
/* Sends a frame; its errno. */
int net_send(int fd, const void *frame, size_t len);

/* The number at path ("packets") of the object with this key in one of pk_broker_counters()' lists.
 */
uint64_t net_count(struct pk_broker *broker, const char *list, const char *key, const char *name);

/* A frame of a flow: Ethernet, IPv4, UDP or TCP, padded to len bytes. Returns len. */
size_t net_frame(uint8_t *out, size_t len, uint8_t proto, uint32_t src, uint32_t dst,
                 uint16_t sport, uint16_t dport);

#endif
