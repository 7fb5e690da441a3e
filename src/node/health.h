/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who reads a lane, and whether they do. The packet sockets of the lane's namespace are known from
 * the kernel (sock_diag), their processes from /proc; a pidfd tells of a process's end at once.
 */
#ifndef PICKET_NODE_HEALTH_H
#define PICKET_NODE_HEALTH_H

#include <sys/types.h>

#include "base/common.h"
#include "base/error.h"

/* A packet socket that takes everything from the interface. */
struct pk_packet_socket {
    uint32_t inode;
    bool ring;        /* it has a receive ring: its owner has set up all that it needs to read */
    unsigned version; /* of the ring, 0 = TPACKET_V1 */
    uint32_t block_size, blocks, frame_size, frames; /* of the ring */
    uint32_t queued, room,
        dropped; /* bytes in its queue (none where it has a ring), packets lost */
};
#define PK_SOCKETS_MAX 64u

/* Opens what pk_sockets_list() needs, in the calling thread's namespace. -1: not known to this
 * kernel. */
int pk_sockets_open(void);
/* *ret_count of those there are, PK_SOCKETS_MAX at most. PK_E_UNSUPPORTED: this kernel has no
 * packet_diag. */
int pk_sockets_list(int fd, unsigned ifindex, struct pk_packet_socket sockets[PK_SOCKETS_MAX],
                    size_t *ret_count, struct pk_error *err);
/* One answer of the kernel. Pure. *ret_done: it was the last. */
int pk_sockets_parse(const void *data, size_t len, unsigned ifindex,
                     struct pk_packet_socket sockets[PK_SOCKETS_MAX], size_t *count, bool *ret_done,
                     struct pk_error *err);

/* A process that has such a socket. */
struct pk_reader {
    int pidfd;
    pid_t pid;
};
/* Looks for the processes of the namespace that have one of the sockets open. Needs
 * CAP_SYS_PTRACE where they belong to others; what cannot be looked at is left out. */
size_t pk_readers_find(int netns_fd, const struct pk_packet_socket *sockets, size_t count,
                       struct pk_reader *readers, size_t max);
/* State (as in proc(5), 0 = it is gone) and CPU time in clock ticks. */
char pk_reader_look(pid_t pid, uint64_t *ret_ticks);

/* ---- the state of a lane, from what is seen of it ---- */

enum pk_health {
    PK_HEALTH_DEAD,    /* nobody reads it */
    PK_HEALTH_STALLED, /* its tool is there and does not read */
    PK_HEALTH_SILENT,  /* its tool reads, and what it writes does not come back */
    PK_HEALTH_SLOW,    /* it loses packets */
    PK_HEALTH_HEALTHY
};
const char *pk_health_name(enum pk_health health);

/* What is seen at one look; counters since the lane was made. */
struct pk_health_look {
    pk_nsec now;
    bool reader;            /* the gate is open */
    bool stopped;           /* all its readers are stopped (SIGSTOP, a debugger) */
    bool knows_ticks;       /* ticks means something */
    uint64_t ticks;         /* CPU time of all its readers */
    uint64_t sent, arrived; /* packets */
    uint64_t lost;          /* that its sockets or tools say they lost */
    bool silent;            /* canaries do not come back */
    bool told_since;        /* the tools took packets after the last that did */
    uint64_t told;          /* packets that the tools say they took; 0 = they do not say */
};
struct pk_health_state {
    enum pk_health health;
    char why[120]; /* "" when healthy */
    /* not for others */
    pk_nsec stopped_since, ticked_at, lossy_since, lossless_since, stalled_since, told_at,
        untold_at;
    uint64_t ticks, arrived_at_tick, ring_lost, lost, told, arrived_at_told, arrived;
    pk_nsec looked_at;
    bool begun;
    bool unproven; /* set by the agent that starts: an earlier one had taken its slots away */
};
/* Pure. True when the health changed. */
bool pk_health_judge(struct pk_health_state *state, const struct pk_health_look *look);

#endif
