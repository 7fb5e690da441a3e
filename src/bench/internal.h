/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the bench. */
#ifndef PICKET_BENCH_INTERNAL_H
#define PICKET_BENCH_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "bench/bench.h"
#include "broker/broker.h"

#define BENCH_DIR        "/sys/fs/bpf" /* a tmpfs in the process's own mount namespace */
#define BENCH_CONTAINERS (PK_BENCH_GROUPS_MAX * PK_BENCH_LANES_MAX)
#define BENCH_MTU        1514u
#define BENCH_RING_BYTES ((size_t)64 << 20) /* of all readers of a way together */
#define BENCH_ROUNDS     5u

struct nl_sock;

/* ---- reader.c: what stands for a tool ---- */

/* Where a reader reads. */
struct bench_place {
    int netns;             /* -1: the host's */
    const char *interface; /* borrowed */
    unsigned fanout;       /* id, 0 = alone */
    int sockets;           /* XSKMAP for an AF_XDP reader, -1 = AF_PACKET */
};

struct bench_reader {
    int fd;
    uint8_t *memory; /* ring of AF_PACKET, or packets of AF_XDP */
    size_t memory_size;
    unsigned blocks;
    struct bench_xsk *xsk;
    pthread_t thread;
    bool runs;
    int cpu;
    _Atomic uint64_t packets;
    _Atomic bool stop;
    uint64_t touched; /* so that reading the packets is not optimised away */
};
/* share: of the rings' memory, 1/share. */
int bench_reader_start(struct bench_reader *reader, const struct bench_place *place, unsigned share,
                       int cpu, struct pk_error *err);
void bench_reader_stop(struct bench_reader *reader); /* one that was not started, too */
/* A packet socket that takes protocol (host order) and drops what it sends itself; interface NULL =
 * all. */
int bench_packet_socket(int netns, const char *interface, unsigned protocol, int *ret_fd,
                        struct pk_error *err);

/* ---- cpu.c ---- */

struct bench_cpus {
    int generator;
    int readers[64];
    unsigned reader_count;
    bool interrupts_apart; /* the kernel accounts softirq time to nobody's process */
    pid_t workers[64];     /* ksoftirqd */
    unsigned worker_count;
};
void bench_cpus_find(struct bench_cpus *cpus);
void bench_pin(int cpu);
/* CPU ns so far of this process, the kernel's work for it, and helper and its threads (0 = none).
 */
uint64_t bench_cpu_time(const struct bench_cpus *cpus, pid_t helper);

/* ---- rig.c: namespaces and links ---- */

struct bench_container {
    int netns;
    char outer[16]; /* in the host; "" where there is none */
    unsigned outer_ifindex;
};

struct bench_rig {
    const struct pk_bench_options *options;
    struct bench_cpus cpus;
    unsigned groups, lanes;
    struct nl_sock *nl; /* of the namespace that stands for the host */
    int host;           /* that namespace */
    int pass, drop;     /* XDP programs */
    struct pk_broker *broker;
    unsigned link_count;
};
/* Namespaces of the process's own, and the programs. Once. */
int bench_rig_begin(struct bench_rig *rig, struct pk_error *err);
/* A new host, without links. */
int bench_rig_renew(struct bench_rig *rig, unsigned groups, struct pk_error *err);
void bench_rig_done(struct bench_rig *rig);

int bench_netns_new(int *ret_fd, struct pk_error *err);
/* Both ends up, without IPv6 and ARP; netns -1: both in the host. */
int bench_veth(struct bench_rig *rig, const char *a, const char *b, int netns, unsigned *ret_a,
               struct pk_error *err);
int bench_link_up(int netns, const char *name, struct pk_error *err);
/* A namespace with "tap0", whose other end is container->outer. */
int bench_container_new(struct bench_rig *rig, struct bench_container *container,
                        struct pk_error *err);
void bench_container_done(struct bench_container *container);
int bench_xdp(struct bench_rig *rig, int netns, const char *interface, int program,
              struct pk_error *err);
/* Links of kinds that node does not know. PK_E_UNSUPPORTED where the kernel has none. */
int bench_macvlan(struct bench_rig *rig, unsigned below, int netns, struct pk_error *err);
int bench_bridge(struct bench_rig *rig, const char *name, unsigned *ret_ifindex,
                 struct pk_error *err);
int bench_enslave(struct bench_rig *rig, unsigned bridge, unsigned port, struct pk_error *err);

/* ---- ways.c ---- */

struct bench_way;
struct bench_kind {
    const char *name, *title;
    bool from_xdp; /* the generator stands for the driver; else a veth stands for the wire */
    int (*make)(struct bench_rig *rig, struct bench_way *way, struct pk_error *err);
};
extern const struct bench_kind bench_kinds[];
extern const size_t bench_kind_count;

struct bench_way {
    const struct bench_kind *kind;
    bool available;
    char why[512];
    char wire[16], host[16]; /* of the veth that stands for the wire: outside, and the host's */
    unsigned wire_ifindex, host_ifindex;
    int tap_program; /* from_xdp */
    struct bench_container containers[BENCH_CONTAINERS];
    unsigned container_count;
    struct bench_place places[BENCH_CONTAINERS]; /* groups * lanes of them */
    struct ways_bpf *programs[BENCH_CONTAINERS];
    unsigned program_count;
    pid_t helper; /* a process that has a part in it, 0 = none */
    pid_t helpers[2];
};
/* Takes nothing on failure but says why in the way. */
void bench_way_make(struct bench_rig *rig, struct bench_way *way);
void bench_way_done(struct bench_way *way);
/* The veth that stands for the wire, and its end that stands for the host's NIC. */
int bench_way_wire(struct bench_rig *rig, struct bench_way *way, struct pk_error *err);
/* A container for each lane of each group, with a place in it. */
int bench_way_containers(struct bench_rig *rig, struct bench_way *way, struct pk_error *err);

/* ---- ovs.c ---- */

int bench_ovs_make(struct bench_rig *rig, struct bench_way *way, struct pk_error *err);

/* ---- isolation.c ---- */

/* Tries it: what is there, what arrives, what gets out. send() makes count packets of many flows
 * come in. New reference. */
json_t *bench_isolation(struct bench_rig *rig, struct bench_way *way,
                        int (*send)(struct bench_rig *rig, struct bench_way *way, unsigned count,
                                    struct pk_error *err),
                        struct pk_error *err);

#endif
