/* SPDX-License-Identifier: Apache-2.0 */
/* Readers: TPACKET_V3 as Suricata and Zeek have it, and AF_XDP in copy mode. Each looks at every
 * packet. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "bench/internal.h"
#include "node/internal.h"

#define BLOCK_BYTES (1u << 20)
#define CHUNK_BYTES 2048u /* of AF_XDP: a packet of up to 1,518 bytes with room before it */
#define CHUNKS_MAX  16384u
#define POLL_MS     20
#define IDLE_US     500

/* ---- AF_PACKET ---- */

struct opening {
    const char *interface;
    unsigned protocol;
    int fd;
};

static int open_there(void *arg, struct pk_error *err)
{
    struct opening *opening = arg;
    struct sockaddr_ll address = { .sll_family = AF_PACKET,
                                   .sll_protocol = htons((uint16_t)opening->protocol) };
    if (opening->interface != NULL) {
        address.sll_ifindex = (int)if_nametoindex(opening->interface);
        if (address.sll_ifindex == 0)
            return pk_fail_errno(err, errno, "there is no %s", opening->interface);
    }
    PK_CLEANUP(pk_close_p) int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    int on = 1, room = 8 << 20;
    if (fd < 0)
        return pk_fail_errno(err, errno, "cannot open a packet socket");
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return pk_fail_errno(err, errno, "cannot bind a packet socket");
    opening->fd = fd;
    fd = -1;
    return 0;
}

int bench_packet_socket(int netns, const char *interface, unsigned protocol, int *ret_fd,
                        struct pk_error *err)
{
    struct opening opening = { .interface = interface, .protocol = protocol, .fd = -1 };
    int r = netns < 0 ? open_there(&opening, err) : pk_netns_run(netns, open_there, &opening, err);
    if (r >= 0)
        *ret_fd = opening.fd;
    return r;
}

static void *read_blocks(void *arg)
{
    struct bench_reader *reader = arg;
    bench_pin(reader->cpu);
    for (unsigned at = 0; !reader->stop;) {
        struct tpacket_block_desc *block = (void *)(reader->memory + (size_t)at * BLOCK_BYTES);
        if (!(__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) {
            (void)poll(&(struct pollfd){ .fd = reader->fd, .events = POLLIN }, 1, POLL_MS);
            continue;
        }
        const uint8_t *p = (const uint8_t *)block + block->hdr.bh1.offset_to_first_pkt;
        for (uint32_t i = 0; i < block->hdr.bh1.num_pkts; i++) {
            const struct tpacket3_hdr *packet = (const void *)p;
            reader->touched += p[packet->tp_mac + 34];
            p += packet->tp_next_offset;
        }
        reader->packets += block->hdr.bh1.num_pkts;
        __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        at = (at + 1) % reader->blocks;
    }
    return NULL;
}

static int start_packet(struct bench_reader *reader, const struct bench_place *place,
                        unsigned share, struct pk_error *err)
{
    int version = TPACKET_V3;
    int r = bench_packet_socket(place->netns, place->interface, ETH_P_ALL, &reader->fd, err);
    if (r < 0)
        return r;
    struct tpacket_req3 req = { .tp_block_size = BLOCK_BYTES,
                                .tp_block_nr = (unsigned)(BENCH_RING_BYTES / BLOCK_BYTES / share),
                                .tp_frame_size = 2048,
                                .tp_retire_blk_tov = 10 };
    req.tp_block_nr = PK_MAX(req.tp_block_nr, 2u);
    req.tp_frame_nr = req.tp_block_nr * (BLOCK_BYTES / 2048);
    reader->blocks = req.tp_block_nr;
    if (setsockopt(reader->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) < 0 ||
        setsockopt(reader->fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof req) < 0)
        return pk_fail_errno(err, errno, "cannot make a packet ring");
    reader->memory_size = (size_t)reader->blocks * BLOCK_BYTES;
    void *ring = mmap(NULL, reader->memory_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                      reader->fd, 0);
    if (ring == MAP_FAILED)
        return pk_fail_errno(err, errno, "cannot map a packet ring");
    reader->memory = ring;
    int how = (int)(place->fanout | PACKET_FANOUT_HASH << 16);
    if (place->fanout != 0 &&
        setsockopt(reader->fd, SOL_PACKET, PACKET_FANOUT, &how, sizeof how) < 0)
        return pk_fail_errno(err, errno, "cannot join a fanout group");
    return 0;
}

/* ---- AF_XDP ---- */

struct ring {
    void *map;
    size_t size;
    uint32_t *producer, *consumer;
    uint8_t *entries;
};

struct bench_xsk {
    struct ring fill, rx;
    uint32_t chunks; /* power of 2, as many as each ring has places */
};

static void ring_done(struct ring *ring)
{
    if (ring->map != NULL)
        (void)munmap(ring->map, ring->size);
}

static int ring_map(struct ring *ring, int fd, const struct xdp_ring_offset *offset, size_t entry,
                    uint32_t count, off_t page, struct pk_error *err)
{
    ring->size = offset->desc + count * entry;
    void *map = mmap(NULL, ring->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, page);
    if (map == MAP_FAILED)
        return pk_fail_errno(err, errno, "cannot map a ring of AF_XDP");
    ring->map = map;
    uint8_t *start = map;
    ring->producer = (uint32_t *)(void *)(start + offset->producer);
    ring->consumer = (uint32_t *)(void *)(start + offset->consumer);
    ring->entries = start + offset->desc;
    return 0;
}

static void *read_descriptors(void *arg)
{
    struct bench_reader *reader = arg;
    struct ring *rx = &reader->xsk->rx, *fill = &reader->xsk->fill;
    uint32_t mask = reader->xsk->chunks - 1, at = *rx->consumer, free_at = *fill->producer;
    bench_pin(reader->cpu);
    while (!reader->stop) {
        uint32_t end = __atomic_load_n(rx->producer, __ATOMIC_ACQUIRE);
        if (at == end) {
            /* It looks again by itself, as a wakeup for every few packets costs more than they do;
             * TPACKET_V3 wakes for whole blocks. */
            (void)usleep(IDLE_US);
            continue;
        }
        uint32_t count = end - at;
        for (; at != end; at++) {
            const struct xdp_desc *packet =
                (const struct xdp_desc *)(const void *)rx->entries + (at & mask);
            reader->touched += reader->memory[packet->addr + 34];
            ((uint64_t *)(void *)fill->entries)[free_at++ & mask] =
                packet->addr & ~(uint64_t)(CHUNK_BYTES - 1);
        }
        __atomic_store_n(fill->producer, free_at, __ATOMIC_RELEASE);
        __atomic_store_n(rx->consumer, at, __ATOMIC_RELEASE);
        reader->packets += count;
    }
    return NULL;
}

static int open_xsk(void *arg, struct pk_error *err)
{
    struct opening *opening = arg;
    opening->fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    opening->protocol = if_nametoindex(opening->interface);
    if (opening->fd < 0)
        return pk_fail_errno(err, errno, "cannot open an AF_XDP socket");
    return opening->protocol != 0 ? 0 : pk_fail_errno(err, errno, "no %s", opening->interface);
}

static int start_xdp(struct bench_reader *reader, const struct bench_place *place, unsigned share,
                     struct pk_error *err)
{
    struct opening opening = { .interface = place->interface, .fd = -1 };
    struct bench_xsk *xsk = pk_zalloc(sizeof *xsk);
    if (xsk == NULL)
        return pk_no_memory(err);
    reader->xsk = xsk;
    int r = pk_netns_run(place->netns, open_xsk, &opening, err);
    reader->fd = opening.fd;
    if (r < 0)
        return r;
    xsk->chunks = CHUNKS_MAX;
    while (xsk->chunks > 256 && (size_t)xsk->chunks * CHUNK_BYTES > BENCH_RING_BYTES / share)
        xsk->chunks /= 2;
    reader->memory_size = (size_t)xsk->chunks * CHUNK_BYTES;
    void *memory = mmap(NULL, reader->memory_size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        return pk_fail_errno(err, errno, "cannot allocate packets for AF_XDP");
    reader->memory = memory;
    struct xdp_umem_reg umem = { .addr = (uintptr_t)memory,
                                 .len = reader->memory_size,
                                 .chunk_size = CHUNK_BYTES };
    struct xdp_mmap_offsets offsets;
    socklen_t len = sizeof offsets;
    int fd = reader->fd;
    if (setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof umem) < 0 ||
        setsockopt(fd, SOL_XDP, XDP_UMEM_FILL_RING, &xsk->chunks, sizeof xsk->chunks) < 0 ||
        setsockopt(fd, SOL_XDP, XDP_UMEM_COMPLETION_RING, &xsk->chunks, sizeof xsk->chunks) < 0 ||
        setsockopt(fd, SOL_XDP, XDP_RX_RING, &xsk->chunks, sizeof xsk->chunks) < 0 ||
        getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &len) < 0)
        return pk_fail_errno(err, errno, "cannot set an AF_XDP socket up");
    r = ring_map(&xsk->fill, fd, &offsets.fr, sizeof(uint64_t), xsk->chunks,
                 XDP_UMEM_PGOFF_FILL_RING, err);
    if (r >= 0)
        r = ring_map(&xsk->rx, fd, &offsets.rx, sizeof(struct xdp_desc), xsk->chunks,
                     XDP_PGOFF_RX_RING, err);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < xsk->chunks; i++)
        ((uint64_t *)(void *)xsk->fill.entries)[i] = (uint64_t)i * CHUNK_BYTES;
    __atomic_store_n(xsk->fill.producer, xsk->chunks, __ATOMIC_RELEASE);
    struct sockaddr_xdp address = { .sxdp_family = AF_XDP,
                                    .sxdp_flags = XDP_COPY,
                                    .sxdp_ifindex = opening.protocol };
    uint32_t zero = 0;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        bpf_map_update_elem(place->sockets, &zero, &fd, BPF_ANY) < 0)
        return pk_fail_errno(err, errno, "cannot bind an AF_XDP socket");
    return 0;
}

int bench_reader_start(struct bench_reader *reader, const struct bench_place *place, unsigned share,
                       int cpu, struct pk_error *err)
{
    *reader = (struct bench_reader){ .fd = -1, .cpu = cpu };
    int r = place->sockets >= 0 ? start_xdp(reader, place, share, err)
                                : start_packet(reader, place, share, err);
    if (r >= 0) {
        int sys = pthread_create(&reader->thread, NULL,
                                 place->sockets >= 0 ? read_descriptors : read_blocks, reader);
        if (sys != 0)
            r = pk_fail_errno(err, sys, "cannot start a reader");
        else
            reader->runs = true;
    }
    if (r < 0)
        bench_reader_stop(reader);
    return r;
}

void bench_reader_stop(struct bench_reader *reader)
{
    if (reader->runs) {
        reader->stop = true;
        (void)pthread_join(reader->thread, NULL);
        reader->runs = false;
    }
    if (reader->xsk != NULL) {
        ring_done(&reader->xsk->fill);
        ring_done(&reader->xsk->rx);
        pk_free(reader->xsk);
        reader->xsk = NULL;
    }
    if (reader->memory != NULL)
        (void)munmap(reader->memory, reader->memory_size);
    reader->memory = NULL;
    pk_close_p(&reader->fd);
    reader->fd = -1;
}
