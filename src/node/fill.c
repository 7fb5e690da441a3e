/* SPDX-License-Identifier: Apache-2.0 */
#include "node/fill.h"

#include <inttypes.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/str.h"

#define SAMPLES 64u
/* Of fewer places the state of one says nothing about the rest. */
#define SAMPLES_MIN 4u
#define MAPS_MAX    (4u << 20)

uint64_t pk_ring_address(const char *maps, uint32_t inode)
{
    char name[32];
    (void)snprintf(name, sizeof name, "socket:[%" PRIu32 "]", inode);
    size_t len = strlen(name);
    /* "7fda0a4bd000-7fda0acbd000 rw-s 00000000 00:09 5875268    socket:[5875268]": proc(5) */
    for (const char *line = maps; *line != '\0'; line += *line == '\n') {
        const char *end = line + strcspn(line, "\n");
        uint64_t address = 0;
        if ((size_t)(end - line) > len && memcmp(end - len, name, len) == 0) {
            for (; line < end && *line != '-'; line++) {
                const char *digit = strchr("0123456789abcdef", *line);
                if (digit == NULL || address >> 60 != 0)
                    return 0;
                address = address << 4 | (uint64_t)(digit - "0123456789abcdef");
            }
            return address;
        }
        line = end;
    }
    return 0;
}

size_t pk_ring_samples(const struct pk_packet_socket *socket, uint64_t *ret_offsets, size_t max)
{
    bool by_block = socket->version == TPACKET_V3; /* whose blocks have a state, not its frames */
    uint64_t in_block =
        by_block ? 1 : socket->block_size / PK_MAX(socket->frame_size, (uint32_t)TPACKET_ALIGNMENT);
    uint64_t places = in_block * socket->blocks;
    size_t count = (size_t)PK_MIN(places, max);
    if (socket->version > TPACKET_V3 || count < SAMPLES_MIN)
        return 0;
    uint64_t state = by_block ? offsetof(struct tpacket_block_desc, hdr.bh1.block_status) : 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t place = places * i / count;
        ret_offsets[i] =
            place / in_block * socket->block_size + place % in_block * socket->frame_size + state;
    }
    return count;
}

double pk_socket_room(const struct pk_packet_socket *socket, uint64_t bytes)
{
    if (!socket->ring)
        return 0; /* the kernel charges it for more than the packets' bytes */
    if (socket->version != TPACKET_V3)
        return socket->frames;
    return (double)socket->blocks * socket->block_size /
           (double)(PK_MIN(bytes, (uint64_t)socket->block_size) + TPACKET3_HDRLEN);
}

static bool find_place(const struct pk_packet_socket *socket, const struct pk_reader *readers,
                       size_t reader_count, struct pk_ring_place *place)
{
    *place = (struct pk_ring_place){ 0 };
    for (size_t i = 0; i < reader_count; i++) {
        PK_CLEANUP(pk_free_p) char *maps = NULL;
        size_t len = 0;
        char path[48];
        (void)snprintf(path, sizeof path, "/proc/%d/maps", (int)readers[i].pid);
        if (pk_file_read(path, MAPS_MAX, &maps, &len, NULL) < 0)
            continue;
        uint64_t address = pk_ring_address(maps, socket->inode);
        if (address == 0)
            continue;
        *place = (struct pk_ring_place){ socket->inode, readers[i].pid, address };
        return true;
    }
    return false;
}

static double ring_fill(const struct pk_packet_socket *socket, const struct pk_ring_place *place)
{
    uint64_t offsets[SAMPLES];
    struct iovec remote[SAMPLES];
    uint32_t states[SAMPLES];
    size_t count = pk_ring_samples(socket, offsets, SAMPLES), full = 0;
    for (size_t i = 0; i < count; i++)
        remote[i] =
            (struct iovec){ (void *)(uintptr_t)(place->address + offsets[i]), sizeof states[0] };
    const struct iovec local = { states, count * sizeof states[0] };
    ssize_t n = count > 0 ? process_vm_readv(place->pid, &local, 1, remote, count, 0) : -1;
    if (n != (ssize_t)local.iov_len)
        return PK_FILL_UNKNOWN;
    for (size_t i = 0; i < count; i++)
        full += (states[i] & TP_STATUS_USER) != 0;
    return (double)full / (double)count;
}

double pk_socket_fill(const struct pk_packet_socket *socket, const struct pk_reader *readers,
                      size_t reader_count, struct pk_ring_place *place, unsigned *places)
{
    if (!socket->ring)
        return socket->room > 0 ? PK_MIN((double)socket->queued / socket->room, 1.0)
                                : PK_FILL_UNKNOWN;
    bool known = place->inode == socket->inode;
    for (size_t i = 0; known && i < reader_count; i++) { /* a number may be another process's */
        if (readers[i].pid == place->pid)
            break;
        known = i + 1 < reader_count;
    }
    if (!known || reader_count == 0) {
        if (*places == 0 || reader_count == 0)
            return PK_FILL_UNKNOWN;
        (*places)--;
        if (!find_place(socket, readers, reader_count, place))
            return PK_FILL_UNKNOWN;
    }
    double fill = ring_fill(socket, place);
    if (fill < 0)
        place->inode = 0;
    return fill;
}
