/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How full a tool's receive queue is: what tells that a lane gets too much before packets are lost.
 *
 * The kernel tells it of sockets without a ring (sock_diag). A ring (PACKET_RX_RING) lies in the
 * memory that the kernel and the tool share; whether the kernel has filled a place of it that the
 * tool has not read is one bit there, and so the state of some places, evenly spread, is read from
 * the tool's memory. The tool does not notice. Needs CAP_SYS_PTRACE, as finding the readers does.
 */
#ifndef PICKET_NODE_FILL_H
#define PICKET_NODE_FILL_H

#include "node/health.h"

#define PK_FILL_UNKNOWN (-1.0)

/* Where a ring is in its reader's memory. Zeroed at first. */
struct pk_ring_place {
    uint32_t inode; /* 0 = not known */
    pid_t pid;
    uint64_t address;
};

/* 0 to 1, or PK_FILL_UNKNOWN. The place is looked for when it is not that of the socket; *places
 * bounds how often in one round: it costs a look at the reader's mappings. */
double pk_socket_fill(const struct pk_packet_socket *socket, const struct pk_reader *readers,
                      size_t reader_count, struct pk_ring_place *place, unsigned *places);

/* How many packets of so many bytes each its ring holds, about; 0 = not known. Pure. */
double pk_socket_room(const struct pk_packet_socket *socket, uint64_t bytes);

/* The address of the socket's ring in the text of /proc/PID/maps, 0 = it is not there. Pure. */
uint64_t pk_ring_address(const char *maps, uint32_t inode);
/* The places of the ring whose state is read: their offsets, at most max. Pure. 0: such a ring
 * cannot be read, or is too small to tell anything. */
size_t pk_ring_samples(const struct pk_packet_socket *socket, uint64_t *ret_offsets, size_t max);

#endif
