/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "packet/pcap.h"

/* A capture file put together in memory, in either byte order. */
struct made {
    uint8_t data[4096];
    size_t len;
    bool swap;
};

static void put16(struct made *made, uint16_t v)
{
    v = made->swap ? __builtin_bswap16(v) : v;
    memcpy(made->data + made->len, &v, 2);
    made->len += 2;
}

static void put32(struct made *made, uint32_t v)
{
    v = made->swap ? __builtin_bswap32(v) : v;
    memcpy(made->data + made->len, &v, 4);
    made->len += 4;
}

static void put(struct made *made, const void *data, size_t len)
{
    memcpy(made->data + made->len, data, len);
    made->len += len;
}

static int open_made(struct made *made, struct pk_pcap_reader **ret_reader, struct pk_error *err)
{
    FILE *file = fmemopen(made->data, made->len, "rb");
    assert_non_null(file);
    return pk_pcap_open_file(file, "made", ret_reader, err);
}

static void classic_head(struct made *made, uint32_t magic, uint32_t link)
{
    put32(made, magic);
    put16(made, 2);
    put16(made, 4);
    put32(made, 0);
    put32(made, 0);
    put32(made, 65535);
    put32(made, link);
}

static void classic_frame(struct made *made, uint32_t sec, uint32_t fraction, const void *data,
                          uint32_t len, uint32_t wire)
{
    put32(made, sec);
    put32(made, fraction);
    put32(made, len);
    put32(made, wire);
    put(made, data, len);
}

static const uint8_t frame[60] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x00, 0x45 };

static void classic_all_orders_and_units(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        struct made made = { .swap = k & 1 };
        bool ns = k & 2;
        classic_head(&made, ns ? 0xa1b23c4d : 0xa1b2c3d4, 1);
        classic_frame(&made, 1700000000, ns ? 123456789 : 123456, frame, 60, 1500);
        classic_frame(&made, 1700000001, 1, frame, 42, 42);
        PK_CLEANUP(pk_pcap_close_p) struct pk_pcap_reader *reader = NULL;
        struct pk_error err = { 0 };
        struct pk_pcap_frame got;
        assert_int_equal(open_made(&made, &reader, &err), 0);
        for (unsigned pass = 0; pass < 3; pass++) {
            assert_int_equal(pk_pcap_next(reader, &got, &err), 1);
            assert_int_equal(got.len, 60);
            assert_int_equal(got.wire_len, 1500);
            assert_memory_equal(got.data, frame, 60);
            assert_true(got.time == 1700000000 * PK_NSEC_PER_SEC + (ns ? 123456789 : 123456000));
            assert_int_equal(pk_pcap_next(reader, &got, &err), 1);
            assert_int_equal(got.len, 42);
            assert_int_equal(pk_pcap_next(reader, &got, &err), 0);
            assert_int_equal(pk_pcap_next(reader, &got, &err), 0);
            assert_int_equal(pk_pcap_rewind(reader, &err), 0);
        }
    }
}

static size_t block_start(struct made *made, uint32_t type)
{
    put32(made, type);
    put32(made, 0);
    return made->len - 8;
}

static void block_end(struct made *made, size_t start)
{
    while (made->len % 4 != 0)
        made->data[made->len++] = 0;
    uint32_t total = (uint32_t)(made->len + 4 - start);
    uint32_t stored = made->swap ? __builtin_bswap32(total) : total;
    memcpy(made->data + start + 4, &stored, 4);
    put32(made, total);
}

static void ng_section(struct made *made)
{
    size_t at = block_start(made, 0x0a0d0d0a);
    put32(made, 0x1a2b3c4d);
    put16(made, 1);
    put16(made, 0);
    put32(made, UINT32_MAX);
    put32(made, UINT32_MAX);
    block_end(made, at);
}

static void ng_interface(struct made *made, uint16_t link, int resolution, int64_t offset)
{
    size_t at = block_start(made, 1);
    put16(made, link);
    put16(made, 0);
    put32(made, 40); /* snaplen, for simple packet blocks */
    put16(made, 2);  /* if_name */
    put16(made, 5);
    put(made, "eth0x\0\0\0", 8);
    if (resolution >= 0) {
        put16(made, 9);
        put16(made, 1);
        uint8_t value[4] = { (uint8_t)resolution };
        put(made, value, 4);
    }
    if (offset != 0) {
        put16(made, 14);
        put16(made, 8);
        uint64_t v = made->swap ? __builtin_bswap64((uint64_t)offset) : (uint64_t)offset;
        put(made, &v, 8);
    }
    put32(made, 0);
    block_end(made, at);
}

static void ng_packet(struct made *made, uint32_t interface, uint64_t ticks, uint32_t len)
{
    size_t at = block_start(made, 6);
    put32(made, interface);
    put32(made, (uint32_t)(ticks >> 32));
    put32(made, (uint32_t)ticks);
    put32(made, len);
    put32(made, len);
    put(made, frame, len);
    while (made->len % 4 != 0)
        made->data[made->len++] = 0;
    put32(made, 0x00040002); /* epb_flags, whichever order */
    put32(made, 1);
    block_end(made, at);
}

static void pcapng_blocks(void **state)
{
    (void)state;
    for (unsigned swap = 0; swap < 2; swap++) {
        struct made made = { .swap = swap };
        struct pk_error err = { 0 };
        ng_section(&made);
        ng_interface(&made, 1, -1, 0);          /* microseconds */
        ng_interface(&made, 1, 9, 0);           /* nanoseconds */
        ng_interface(&made, 1, 0x80 | 10, 100); /* 1/1024 s, 100 s later */
        ng_interface(&made, 1, 12, 0);          /* picoseconds */
        size_t at = block_start(&made, 0x0bad); /* unknown: skipped */
        put(&made, frame, 13);
        block_end(&made, at);
        ng_packet(&made, 0, 5000001, 60);
        ng_packet(&made, 1, 5000000001, 59);
        ng_packet(&made, 2, 5 * 1024 + 512, 58);
        ng_packet(&made, 3, 5000000001999, 57);
        at = block_start(&made, 3); /* simple: cut at the snaplen of interface 0 */
        put32(&made, 60);
        put(&made, frame, 40);
        block_end(&made, at);
        at = block_start(&made, 2); /* the old packet block */
        put16(&made, 1);
        put16(&made, 0);
        put32(&made, 0);
        put32(&made, 77);
        put32(&made, 20);
        put32(&made, 60);
        put(&made, frame, 20);
        block_end(&made, at);
        made.swap = !made.swap; /* a second section, in the other order, forgets the interfaces */
        ng_section(&made);
        ng_interface(&made, 101, 9, 0);
        ng_packet(&made, 0, 9, 20);
        ng_packet(&made, 1, 9, 20);

        static const struct {
            pk_nsec time;
            uint32_t len;
        } want[] = { { 5000001000, 60 }, { 5000000001, 59 }, { 105500000000, 58 },
                     { 5000000001, 57 }, { 5000000001, 40 }, { 77, 20 },
                     { 9, 34 } };
        PK_CLEANUP(pk_pcap_close_p) struct pk_pcap_reader *reader = NULL;
        assert_int_equal(open_made(&made, &reader, &err), 0);
        struct pk_pcap_frame got;
        for (size_t i = 0; i < PK_ARRAY_SIZE(want); i++) {
            assert_int_equal(pk_pcap_next(reader, &got, &err), 1);
            assert_int_equal(got.len, want[i].len);
            assert_true(got.time == want[i].time);
        }
        assert_int_equal(pk_pcap_next(reader, &got, &err), PK_E_INVALID); /* interface 1 is gone */
        assert_non_null(strstr(err.msg, "not described"));
    }
}

static void link_types(void **state)
{
    (void)state;
    static const uint8_t ip4[20] = { 0x45, 0, 0, 20 };
    static const uint8_t ip6[40] = { 0x60 };
    uint8_t sll[36] = { 0, 0, 0, 1, 0, 6, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 0, 0, 0x86, 0xdd };
    uint8_t sll2[40] = { 0x08, 0x06, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf };
    uint8_t null4[24] = { 2, 0, 0, 0, 0x45 }, null6[44] = { 0, 0, 0, 30, 0x60 };
    const struct {
        uint32_t link;
        const uint8_t *data;
        uint32_t len, strip;
        uint16_t type;
    } cases[] = {
        { 101, ip4, 20, 0, 0x0800 },   { 101, ip6, 40, 0, 0x86dd },   { 12, ip4, 20, 0, 0x0800 },
        { 14, ip6, 40, 0, 0x86dd },    { 228, ip4, 20, 0, 0x0800 },   { 229, ip6, 40, 0, 0x86dd },
        { 0, null4, 24, 4, 0x0800 },   { 108, null6, 44, 4, 0x86dd }, { 113, sll, 36, 16, 0x86dd },
        { 276, sll2, 40, 20, 0x0806 }, { 101, ip4, 0, 0, 0x0800 },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct made made = { 0 };
        struct pk_error err = { 0 };
        classic_head(&made, 0xa1b2c3d4, cases[i].link | 0xf0000000u); /* with FCS bits */
        classic_frame(&made, 1, 1, cases[i].data, cases[i].len, cases[i].len + 10);
        PK_CLEANUP(pk_pcap_close_p) struct pk_pcap_reader *reader = NULL;
        struct pk_pcap_frame got;
        assert_int_equal(open_made(&made, &reader, &err), 0);
        assert_int_equal(pk_pcap_next(reader, &got, &err), 1);
        assert_int_equal(got.len, cases[i].len - cases[i].strip + 14);
        assert_int_equal(got.wire_len, got.len + 10);
        assert_int_equal(got.data[12] << 8 | got.data[13], cases[i].type);
        assert_memory_equal(got.data + 14, cases[i].data + cases[i].strip,
                            cases[i].len - cases[i].strip);
        if (cases[i].link == 113 || cases[i].link == 276)
            assert_memory_equal(got.data + 6, "\x0a\x0b\x0c\x0d\x0e\x0f", 6);
    }
    struct made made = { 0 };
    struct pk_error err = { 0 };
    struct pk_pcap_reader *reader = NULL;
    classic_head(&made, 0xa1b2c3d4, 105); /* 802.11 */
    assert_int_equal(open_made(&made, &reader, &err), PK_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "105"));
    assert_true(err.hint[0] != '\0');
}

/* However a file is cut or bent, the reader ends with an error or at the end. */
static void cut_anywhere(void **state)
{
    (void)state;
    for (unsigned ng = 0; ng < 2; ng++) {
        struct made made = { 0 };
        if (ng) {
            ng_section(&made);
            ng_interface(&made, 1, 9, 0);
            ng_packet(&made, 0, 1, 60);
            ng_packet(&made, 0, 2, 60);
        } else {
            classic_head(&made, 0xa1b2c3d4, 1);
            classic_frame(&made, 1, 1, frame, 60, 60);
            classic_frame(&made, 1, 1, frame, 60, 60);
        }
        size_t whole = made.len, ends = 0;
        for (made.len = 1; made.len <= whole; made.len++) {
            PK_CLEANUP(pk_pcap_close_p) struct pk_pcap_reader *reader = NULL;
            struct pk_error err = { 0 };
            struct pk_pcap_frame got;
            int r = open_made(&made, &reader, &err);
            while (r >= 0 && (r = pk_pcap_next(reader, &got, &err)) == 1)
                ;
            if (r == 0)
                ends++; /* cut between two records: cannot be seen */
            else
                assert_int_equal(r, PK_E_INVALID);
        }
        assert_int_equal(ends, ng ? 4 : 3);
        made.len = whole;
        for (size_t i = 0; i < whole; i++) {
            struct made bent = made;
            bent.data[i] ^= 0xff;
            PK_CLEANUP(pk_pcap_close_p) struct pk_pcap_reader *reader = NULL;
            struct pk_error err = { 0 };
            struct pk_pcap_frame got;
            int r = open_made(&bent, &reader, &err);
            for (unsigned n = 0; r >= 0 && (r = pk_pcap_next(reader, &got, &err)) == 1; n++)
                assert_true(n < 10);
            assert_true(r == 0 || err.msg[0] != '\0');
        }
    }
}

static void not_a_capture(void **state)
{
    (void)state;
    struct pk_pcap_reader *reader = NULL;
    struct pk_error err = { 0 };
    struct made made = { 0 };
    put(&made, "\x1f\x8b", 2);
    assert_int_equal(open_made(&made, &reader, &err), PK_E_INVALID);
    assert_true(err.hint[0] != '\0');
    assert_int_equal(pk_pcap_open("/nonexistent/x.pcap", &reader, &err), PK_E_NOTFOUND);
    assert_true(err.hint[0] != '\0');
    assert_int_equal(pk_pcap_open("/", &reader, &err), PK_E_IO);
    assert_null(reader);
}

static void writes_what_it_reads(void **state)
{
    (void)state;
    char path[] = "/tmp/picket-test-pcap-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct pk_error err = { 0 };
    struct pk_pcap_writer *writer = NULL;
    assert_int_equal(pk_pcap_create(path, &writer, &err), 0);
    for (uint32_t i = 0; i < 60; i++)
        assert_int_equal(pk_pcap_write(writer, 1700000000000000000 + i, frame, i, &err), 0);
    assert_int_equal(pk_pcap_write(writer, 0, frame, PK_PCAP_FRAME_MAX + 1, &err), PK_E_USAGE);
    assert_int_equal(pk_pcap_flush(writer, &err), 0);
    pk_pcap_writer_free(writer);
    PK_CLEANUP(pk_pcap_close_p) struct pk_pcap_reader *reader = NULL;
    struct pk_pcap_frame got;
    assert_int_equal(pk_pcap_open(path, &reader, &err), 0);
    for (uint32_t i = 0; i < 60; i++) {
        assert_int_equal(pk_pcap_next(reader, &got, &err), 1);
        assert_int_equal(got.len, i);
        assert_true(got.time == 1700000000000000000 + i);
        assert_memory_equal(got.data, frame, i);
    }
    assert_int_equal(pk_pcap_next(reader, &got, &err), 0);
    unlink(path);
    assert_int_equal(pk_pcap_create("/nonexistent/x.pcap", &writer, &err), PK_E_NOTFOUND);
}

static void full_disk(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    PK_CLEANUP(pk_pcap_writer_free_p) struct pk_pcap_writer *writer = NULL;
    int r = pk_pcap_create("/dev/full", &writer, &err);
    if (r == 0)
        r = pk_pcap_flush(writer, &err);
    assert_int_equal(r, PK_E_NOSPACE);
}

static void out_of_memory(void **state)
{
    (void)state;
    struct made made = { 0 };
    ng_section(&made);
    for (unsigned i = 0; i < 9; i++)
        ng_interface(&made, 1, 9, 0);
    ng_packet(&made, 0, 1, 60);
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        struct pk_pcap_reader *reader = NULL;
        struct pk_pcap_frame got;
        r = open_made(&made, &reader, NULL);
        if (r >= 0)
            r = pk_pcap_next(reader, &got, NULL);
        pk_pcap_close(reader);
    });
    assert_int_equal(r, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classic_all_orders_and_units),
        cmocka_unit_test(pcapng_blocks),
        cmocka_unit_test(link_types),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(not_a_capture),
        cmocka_unit_test(writes_what_it_reads),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
