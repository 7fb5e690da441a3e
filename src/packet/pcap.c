/* SPDX-License-Identifier: Apache-2.0 */
/* Capture files. Every length comes from the file and is held against a bound before it is used. */
#include "packet/pcap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

enum {
    MAGIC_USEC = 0xa1b2c3d4,
    MAGIC_NSEC = 0xa1b23c4d,
    MAGIC_SECTION = 0x0a0d0d0a,
    MAGIC_BYTE_ORDER = 0x1a2b3c4d,
    BLOCK_INTERFACE = 1,
    BLOCK_PACKET_OLD = 2,
    BLOCK_PACKET_SIMPLE = 3,
    BLOCK_PACKET = 6,
    OPTION_END = 0,
    OPTION_TSRESOL = 9,
    OPTION_TSOFFSET = 14,
};
/* tcpdump.org/linktypes.html */
enum {
    LINK_NULL = 0,
    LINK_ETHERNET = 1,
    LINK_RAW_BSD = 12,
    LINK_RAW_OPENBSD = 14,
    LINK_RAW = 101,
    LINK_LOOP = 108,
    LINK_SLL = 113,
    LINK_IPV4 = 228,
    LINK_IPV6 = 229,
    LINK_SLL2 = 276,
};
#define ETHER_HEADER   14u
#define HEADROOM       16u   /* before a packet's bytes, for a made Ethernet header */
#define INTERFACES_MAX 4096u /* of one section */
#define BLOCK_MAX      (1u << 30)
/* A packet block is its frame and options; options beyond this are not a capture any more. */
#define PACKET_BLOCK_MAX (PK_PCAP_FRAME_MAX + (1u << 16))

struct interface {
    uint16_t link;
    uint8_t resolution; /* if_tsresol: 10^-n, with the top bit 2^-n */
    uint32_t snaplen;
    int64_t offset; /* seconds */
};

struct pk_pcap_reader {
    FILE *file;
    char *name;
    uint64_t offset; /* bytes read */
    uint64_t frames;
    bool ng;
    bool swapped;
    bool nanoseconds;
    pk_nsec last_time;
    struct interface classic;
    struct interface *interfaces;
    size_t interface_count;
    size_t interface_room;
    uint8_t *room; /* HEADROOM + PK_PCAP_FRAME_MAX */
};

static uint16_t get16(const struct pk_pcap_reader *reader, const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return reader->swapped ? __builtin_bswap16(v) : v;
}

static uint32_t get32(const struct pk_pcap_reader *reader, const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return reader->swapped ? __builtin_bswap32(v) : v;
}

static int damaged(struct pk_pcap_reader *reader, struct pk_error *err, const char *what)
{
    pk_fail(err, PK_E_INVALID, "%s: damaged after %" PRIu64 " frames, at byte %" PRIu64 ": %s",
            reader->name, reader->frames, reader->offset, what);
    return pk_hint(err, "the frames before it are whole; 'editcap IN OUT' writes a file of those");
}

/* 1 = all of it, 0 = the file ended right before it (only where at_end_ok). */
static int read_bytes(struct pk_pcap_reader *reader, void *out, size_t len, bool at_end_ok,
                      struct pk_error *err)
{
    size_t got = fread(out, 1, len, reader->file);
    if (got == len) {
        reader->offset += got;
        return 1;
    }
    if (ferror(reader->file))
        return pk_fail_errno(err, errno == 0 ? EIO : errno, "cannot read %s", reader->name);
    if (got == 0 && at_end_ok)
        return 0;
    return damaged(reader, err, "the file ends in the middle of a record");
}

static int skip_bytes(struct pk_pcap_reader *reader, size_t len, struct pk_error *err)
{
    uint8_t chunk[4096];
    while (len > 0) {
        size_t part = PK_MIN(len, sizeof chunk);
        int r = read_bytes(reader, chunk, part, false, err);
        if (r < 0)
            return r;
        len -= part;
    }
    return 0;
}

/* ---- link types ---- */

static int check_link(struct pk_pcap_reader *reader, uint16_t link, struct pk_error *err)
{
    switch (link) {
    case LINK_NULL:
    case LINK_ETHERNET:
    case LINK_RAW_BSD:
    case LINK_RAW_OPENBSD:
    case LINK_RAW:
    case LINK_LOOP:
    case LINK_SLL:
    case LINK_IPV4:
    case LINK_IPV6:
    case LINK_SLL2:
        return 0;
    default:
        pk_fail(err, PK_E_UNSUPPORTED, "%s: link type %u cannot be replayed as Ethernet",
                reader->name, link);
        return pk_hint(err, "Ethernet (1), raw IP (101, 228, 229), BSD loopback (0, 108) and Linux "
                            "cooked (113, 276) captures can");
    }
}

/* Address families of BSD loopback headers: AF_INET is 2 everywhere, AF_INET6 differs. */
static uint16_t loopback_ethertype(uint32_t family)
{
    switch (family) {
    case 2:
        return 0x0800;
    case 10:
    case 24:
    case 28:
    case 30:
        return 0x86dd;
    default:
        return 0;
    }
}

/* Turns the len bytes at room + HEADROOM into an Ethernet frame, in place. */
static int to_ethernet(struct pk_pcap_reader *reader, uint16_t link, uint32_t len,
                       uint32_t wire_len, struct pk_pcap_frame *ret_frame, struct pk_error *err)
{
    uint8_t *data = reader->room + HEADROOM;
    uint32_t strip = 0;
    uint16_t type = 0x0800;
    uint8_t source[6] = { 0 };
    switch (link) {
    case LINK_ETHERNET:
        strip = ETHER_HEADER;
        break;
    case LINK_RAW_BSD:
    case LINK_RAW_OPENBSD:
    case LINK_RAW:
        if (len > 0 && data[0] >> 4 == 6)
            type = 0x86dd;
        break;
    case LINK_IPV6:
        type = 0x86dd;
        break;
    case LINK_NULL:
    case LINK_LOOP:
        strip = 4;
        if (len >= strip) {
            /* In the byte order of the machine that captured, which need not be the file's. */
            uint32_t family = (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 |
                              (uint32_t)data[2] << 8 | data[3];
            type = loopback_ethertype(family);
            if (type == 0)
                type = loopback_ethertype(__builtin_bswap32(family));
        }
        break;
    case LINK_SLL:
        strip = 16;
        if (len >= strip) {
            type = (uint16_t)(data[14] << 8 | data[15]);
            if (data[4] == 0 && data[5] == 6)
                memcpy(source, data + 6, 6);
        }
        break;
    case LINK_SLL2:
        strip = 20;
        if (len >= strip) {
            type = (uint16_t)(data[0] << 8 | data[1]);
            if (data[11] == 6)
                memcpy(source, data + 12, 6);
        }
        break;
    default: /* IPv4 */
        break;
    }
    if (link != LINK_ETHERNET) {
        if (len < strip)
            return damaged(reader, err, "a frame is shorter than its link header");
        data += strip;
        data -= ETHER_HEADER;
        memset(data, 0, 6);
        memcpy(data + 6, source, 6);
        data[12] = (uint8_t)(type >> 8);
        data[13] = (uint8_t)type;
        len = len - strip + ETHER_HEADER;
        wire_len = wire_len > UINT32_MAX - ETHER_HEADER ? wire_len : wire_len + ETHER_HEADER;
        wire_len = wire_len > strip ? wire_len - strip : 0;
    }
    reader->frames++;
    *ret_frame = (struct pk_pcap_frame){
        .time = reader->last_time, .data = data, .len = len, .wire_len = PK_MAX(len, wire_len)
    };
    return 1;
}

/* Reads a packet's bytes and hands it out. */
static int take_frame(struct pk_pcap_reader *reader, uint16_t link, uint32_t len, uint32_t wire_len,
                      uint32_t skip, struct pk_pcap_frame *ret_frame, struct pk_error *err)
{
    int r = read_bytes(reader, reader->room + HEADROOM, len, false, err);
    if (r >= 0)
        r = skip_bytes(reader, skip, err);
    if (r < 0)
        return r;
    return to_ethernet(reader, link, len, wire_len, ret_frame, err);
}

/* ---- classic ---- */

static int next_classic(struct pk_pcap_reader *reader, struct pk_pcap_frame *ret_frame,
                        struct pk_error *err)
{
    uint8_t head[16];
    int r = read_bytes(reader, head, sizeof head, true, err);
    if (r <= 0)
        return r;
    uint32_t len = get32(reader, head + 8);
    if (len > PK_PCAP_FRAME_MAX)
        return damaged(reader, err, "a frame's length cannot be");
    pk_nsec fraction = get32(reader, head + 4);
    reader->last_time = (pk_nsec)get32(reader, head) * PK_NSEC_PER_SEC +
                        (reader->nanoseconds ? fraction : fraction * 1000);
    return take_frame(reader, reader->classic.link, len, get32(reader, head + 12), 0, ret_frame,
                      err);
}

/* ---- pcapng ---- */

static pk_nsec to_nsec(const struct interface *from, uint64_t ticks)
{
    __extension__ typedef __int128 wide;
    wide time;
    unsigned n = from->resolution & 0x7f;
    if (from->resolution & 0x80) {
        time = (wide)ticks * PK_NSEC_PER_SEC >> n;
    } else {
        time = (wide)ticks;
        for (; n < 9; n++)
            time *= 10;
        for (; n > 9 && time > 0; n--)
            time /= 10;
    }
    time += (wide)from->offset * PK_NSEC_PER_SEC;
    if (time > INT64_MAX)
        return INT64_MAX;
    return time < 0 ? 0 : (pk_nsec)time;
}

/* Reads the rest of a section header, whose type is read. Its length comes after its byte order. */
static int read_section(struct pk_pcap_reader *reader, struct pk_error *err)
{
    uint8_t head[20];
    int r = read_bytes(reader, head, sizeof head, false, err);
    if (r < 0)
        return r;
    uint32_t magic;
    memcpy(&magic, head + 4, sizeof magic);
    if (magic == MAGIC_BYTE_ORDER)
        reader->swapped = false;
    else if (__builtin_bswap32(magic) == MAGIC_BYTE_ORDER)
        reader->swapped = true;
    else
        return damaged(reader, err, "a section without a byte order");
    uint32_t total = get32(reader, head);
    if (total < 28 || total % 4 != 0 || total > BLOCK_MAX)
        return damaged(reader, err, "a section header's length cannot be");
    if (get16(reader, head + 8) != 1) {
        pk_fail(err, PK_E_UNSUPPORTED, "%s: pcapng version %u is not known", reader->name,
                get16(reader, head + 8));
        return pk_hint(err, "convert it with 'editcap -F pcap IN OUT'");
    }
    reader->interface_count = 0;
    return skip_bytes(reader, total - 24, err);
}

static int read_interface(struct pk_pcap_reader *reader, uint32_t len, struct pk_error *err)
{
    if (len < 8 || len > PK_PCAP_FRAME_MAX)
        return damaged(reader, err, "an interface block's length cannot be");
    if (reader->interface_count >= INTERFACES_MAX)
        return damaged(reader, err, "too many interfaces in one section");
    if (reader->interface_count == reader->interface_room) {
        size_t room = reader->interface_room == 0 ? 4 : reader->interface_room * 2;
        struct interface *grown = pk_realloc_array(reader->interfaces, room, sizeof *grown);
        if (grown == NULL)
            return pk_fail(err, PK_E_NOMEM, "%s: out of memory", reader->name);
        reader->interfaces = grown;
        reader->interface_room = room;
    }
    uint8_t *body = reader->room;
    int r = read_bytes(reader, body, len, false, err);
    if (r < 0)
        return r;
    struct interface it = { .link = get16(reader, body),
                            .resolution = 6,
                            .snaplen = get32(reader, body + 4) };
    for (uint32_t at = 8; len - at >= 4;) {
        uint16_t code = get16(reader, body + at), size = get16(reader, body + at + 2);
        at += 4;
        if (code == OPTION_END || size > len - at)
            break;
        if (code == OPTION_TSRESOL && size == 1)
            it.resolution = body[at];
        if (code == OPTION_TSOFFSET && size == 8) {
            memcpy(&it.offset, body + at, 8);
            if (reader->swapped)
                it.offset = (int64_t)__builtin_bswap64((uint64_t)it.offset);
        }
        uint32_t padded = (size + 3u) & ~3u;
        if (padded > len - at)
            break;
        at += padded;
    }
    reader->interfaces[reader->interface_count++] = it;
    return 0;
}

/* A packet block of any of the three kinds, len bytes long. */
static int read_packet(struct pk_pcap_reader *reader, uint32_t type, uint32_t len,
                       struct pk_pcap_frame *ret_frame, struct pk_error *err)
{
    uint8_t head[20] = { 0 };
    uint32_t head_len = type == BLOCK_PACKET_SIMPLE ? 4 : 20;
    if (len < head_len || len > PACKET_BLOCK_MAX)
        return damaged(reader, err, "a packet block's length cannot be");
    int r = read_bytes(reader, head, head_len, false, err);
    if (r < 0)
        return r;
    uint32_t index = 0;
    if (type == BLOCK_PACKET)
        index = get32(reader, head);
    else if (type == BLOCK_PACKET_OLD)
        index = get16(reader, head);
    if (index >= reader->interface_count)
        return damaged(reader, err, "a packet of an interface that was not described");
    const struct interface *it = &reader->interfaces[index];
    r = check_link(reader, it->link, err);
    if (r < 0)
        return r;

    uint32_t room = len - head_len, cap, wire;
    if (type == BLOCK_PACKET_SIMPLE) {
        wire = get32(reader, head);
        cap = it->snaplen != 0 ? PK_MIN(wire, it->snaplen) : wire;
        cap = PK_MIN(cap, room);
    } else {
        cap = get32(reader, head + 12);
        wire = get32(reader, head + 16);
        reader->last_time =
            to_nsec(it, (uint64_t)get32(reader, head + 4) << 32 | get32(reader, head + 8));
    }
    if (cap > room || cap > PK_PCAP_FRAME_MAX)
        return damaged(reader, err, "a frame is longer than its block");
    /* The block's trailing copy of its length is skipped with the options. */
    return take_frame(reader, it->link, cap, wire, room - cap + 4, ret_frame, err);
}

static int next_ng(struct pk_pcap_reader *reader, struct pk_pcap_frame *ret_frame,
                   struct pk_error *err)
{
    for (;;) {
        uint8_t head[8];
        int r = read_bytes(reader, head, 4, true, err);
        if (r <= 0)
            return r;
        uint32_t type = get32(reader, head);
        if (type == MAGIC_SECTION) {
            r = read_section(reader, err);
            if (r < 0)
                return r;
            continue;
        }
        r = read_bytes(reader, head + 4, 4, false, err);
        if (r < 0)
            return r;
        uint32_t total = get32(reader, head + 4);
        if (total < 12 || total % 4 != 0 || total > BLOCK_MAX)
            return damaged(reader, err, "a block's length cannot be");
        uint32_t len = total - 12;
        switch (type) {
        case BLOCK_PACKET:
        case BLOCK_PACKET_OLD:
        case BLOCK_PACKET_SIMPLE:
            return read_packet(reader, type, len, ret_frame, err);
        case BLOCK_INTERFACE:
            r = read_interface(reader, len, err);
            if (r >= 0)
                r = skip_bytes(reader, 4, err);
            break;
        default:
            r = skip_bytes(reader, len + 4, err);
        }
        if (r < 0)
            return r;
    }
}

/* ---- the reader ---- */

static int read_start(struct pk_pcap_reader *reader, struct pk_error *err)
{
    uint8_t head[24];
    uint32_t magic;
    size_t got = fread(head, 1, 4, reader->file);
    if (got < 4 && ferror(reader->file))
        return pk_fail_errno(err, errno == 0 ? EIO : errno, "cannot read %s", reader->name);
    reader->offset = got;
    memcpy(&magic, head, sizeof magic);
    if (got == 4 && magic == MAGIC_SECTION) {
        reader->ng = true;
        return read_section(reader, err);
    }
    uint32_t turned = __builtin_bswap32(magic);
    if (got == 4 && (magic == MAGIC_USEC || magic == MAGIC_NSEC)) {
        reader->swapped = false;
        reader->nanoseconds = magic == MAGIC_NSEC;
    } else if (got == 4 && (turned == MAGIC_USEC || turned == MAGIC_NSEC)) {
        reader->swapped = true;
        reader->nanoseconds = turned == MAGIC_NSEC;
    } else {
        pk_fail(err, PK_E_INVALID, "%s is not a capture file", reader->name);
        return pk_hint(err, "pcap and pcapng files can be read; unpack compressed ones first");
    }
    int r = read_bytes(reader, head + 4, 20, false, err);
    if (r < 0)
        return r;
    /* The upper half of the field tells about the frame checksum's length. */
    reader->classic.link = (uint16_t)get32(reader, head + 20);
    return check_link(reader, reader->classic.link, err);
}

int pk_pcap_open_file(FILE *file, const char *name, struct pk_pcap_reader **ret_reader,
                      struct pk_error *err)
{
    PK_CLEANUP(pk_pcap_close_p) struct pk_pcap_reader *reader = pk_zalloc(sizeof *reader);
    if (reader == NULL) {
        (void)fclose(file);
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
    }
    reader->file = file;
    reader->name = pk_strdup(name);
    reader->room = pk_zalloc(HEADROOM + PK_PCAP_FRAME_MAX);
    if (reader->name == NULL || reader->room == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
    int r = read_start(reader, err);
    if (r < 0)
        return r;
    *ret_reader = PK_TAKE(reader);
    return 0;
}

int pk_pcap_open(const char *path, struct pk_pcap_reader **ret_reader, struct pk_error *err)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        pk_fail_errno(err, errno, "cannot open %s", path);
        return pk_hint(err, "check the path and that this user may read it");
    }
    return pk_pcap_open_file(file, path, ret_reader, err);
}

void pk_pcap_close(struct pk_pcap_reader *reader)
{
    if (reader == NULL)
        return;
    (void)fclose(reader->file);
    pk_free(reader->interfaces);
    pk_free(reader->room);
    pk_free(reader->name);
    pk_free(reader);
}

int pk_pcap_next(struct pk_pcap_reader *reader, struct pk_pcap_frame *ret_frame,
                 struct pk_error *err)
{
    return reader->ng ? next_ng(reader, ret_frame, err) : next_classic(reader, ret_frame, err);
}

int pk_pcap_rewind(struct pk_pcap_reader *reader, struct pk_error *err)
{
    clearerr(reader->file);
    if (fseeko(reader->file, 0, SEEK_SET) < 0)
        return pk_fail_errno(err, errno, "cannot go back to the start of %s", reader->name);
    reader->frames = 0;
    reader->last_time = 0;
    reader->ng = false;
    return read_start(reader, err);
}

/* ---- the writer ---- */

struct pk_pcap_writer {
    FILE *file;
    char *name;
};

int pk_pcap_create(const char *path, struct pk_pcap_writer **ret_writer, struct pk_error *err)
{
    PK_CLEANUP(pk_pcap_writer_free_p) struct pk_pcap_writer *writer = pk_zalloc(sizeof *writer);
    if (writer == NULL || (writer->name = pk_strdup(path)) == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", path);
    writer->file = fopen(path, "wbe");
    if (writer->file == NULL)
        return pk_fail_errno(err, errno, "cannot write %s", path);
    const struct {
        uint32_t magic;
        uint16_t major, minor;
        uint32_t zone, figures, snaplen, link;
    } head = { MAGIC_NSEC, 2, 4, 0, 0, PK_PCAP_FRAME_MAX, LINK_ETHERNET };
    if (fwrite(&head, sizeof head, 1, writer->file) != 1)
        return pk_fail_errno(err, errno, "cannot write %s", path);
    *ret_writer = PK_TAKE(writer);
    return 0;
}

int pk_pcap_write(struct pk_pcap_writer *writer, pk_nsec time, const void *frame, size_t len,
                  struct pk_error *err)
{
    if (len > PK_PCAP_FRAME_MAX || time < 0)
        return pk_fail(err, PK_E_USAGE, "%s: a frame of %zu bytes cannot be written", writer->name,
                       len);
    const uint32_t head[4] = { (uint32_t)(time / PK_NSEC_PER_SEC),
                               (uint32_t)(time % PK_NSEC_PER_SEC), (uint32_t)len, (uint32_t)len };
    if (fwrite(head, sizeof head, 1, writer->file) != 1 ||
        (len > 0 && fwrite(frame, len, 1, writer->file) != 1))
        return pk_fail_errno(err, errno, "cannot write %s", writer->name);
    return 0;
}

int pk_pcap_flush(struct pk_pcap_writer *writer, struct pk_error *err)
{
    if (fflush(writer->file) != 0 || ferror(writer->file))
        return pk_fail_errno(err, errno == 0 ? EIO : errno, "cannot write %s", writer->name);
    return 0;
}

void pk_pcap_writer_free(struct pk_pcap_writer *writer)
{
    if (writer == NULL)
        return;
    if (writer->file != NULL)
        (void)fclose(writer->file);
    pk_free(writer->name);
    pk_free(writer);
}
