/* SPDX-License-Identifier: Apache-2.0 */
/* The frames of a canary, and when a lane is silent. */
#include "pk_test.h"

#include <string.h>

#include "node/canary.h"

#define EVERY (30 * PK_NSEC_PER_SEC)

static uint32_t words(uint32_t sum, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum += i % 2 == 0 ? (uint32_t)data[i] << 8 : data[i];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static void frames(void **state)
{
    (void)state;
    const struct pk_canary_token token = { { 9 } };
    char group[64];
    uint8_t mark_bytes[8] = { 2, 1, 2, 3, 4, 5, 2, 6 };
    uint64_t mark;
    memcpy(&mark, mark_bytes, sizeof mark);
    for (size_t len = 1; len < sizeof group; len++) {
        struct pk_canary canary;
        memset(group, 'g', len);
        group[len] = '\0';
        pk_canary_make(&token, group, 12345, INT64_MAX - len, &canary);
        for (unsigned answer = 0; answer < 2; answer++) {
            uint8_t frame[PK_CANARY_FRAME_MAX];
            size_t size = pk_canary_frame(&canary, mark, answer, frame);
            const uint8_t *ip = frame + 14, *udp = ip + 20, *dns = udp + 8;
            size_t ip_len = (size_t)ip[2] << 8 | ip[3], udp_len = (size_t)udp[4] << 8 | udp[5];
            assert_true(size <= sizeof frame && size == 14 + ip_len && ip_len == 20 + udp_len);
            assert_memory_equal(frame, mark_bytes, 8);
            assert_int_equal(frame[12] << 8 | frame[13], 0x0800);
            assert_int_equal(words(0, ip, 20), 0xffff);
            assert_int_equal(words(17 + (uint32_t)udp_len, ip + 12, 8 + udp_len), 0xffff);
            assert_memory_equal(ip + (answer ? 16 : 12), canary.client, 4);
            assert_int_equal(dns[2] >> 7, answer);
            /* The name, label by label. */
            char name[PK_CANARY_NAME_MAX] = "";
            size_t at = 12;
            while (dns[at] != 0) {
                assert_true(dns[at] <= 63);
                if (name[0] != '\0')
                    strcat(name, ".");
                strncat(name, (const char *)dns + at + 1, dns[at]);
                at += dns[at] + 1u;
            }
            assert_string_equal(name, canary.name);
        }
    }
}

static struct pk_canary_watch watch;
static pk_nsec now;

static void send_one(void)
{
    now += EVERY;
    pk_canary_note_sent(&watch, pk_canary_next(&watch, now), now);
    pk_canary_judge(&watch, now, EVERY);
}

static void begin(void)
{
    memset(&watch, 0, sizeof watch);
    now = PK_NSEC_PER_SEC;
}

static void silent_and_back(void **state)
{
    (void)state;
    begin();
    for (unsigned i = 0; i < 200; i++) { /* far beyond what is remembered */
        send_one();
        pk_canary_note_back(&watch, watch.number, now + 1);
        assert_false(watch.silent);
    }
    assert_int_equal(watch.back, 200);
    for (unsigned i = 0; i < 3; i++) {
        send_one();
        assert_false(watch.silent);
    }
    pk_canary_judge(&watch, now + EVERY - 1, EVERY);
    assert_false(watch.silent);
    send_one();
    assert_true(watch.silent);
    for (unsigned i = 0; i < 100; i++)
        send_one();
    assert_true(watch.silent);
    /* One is not enough, the same twice is one. */
    pk_canary_note_back(&watch, watch.number, now);
    pk_canary_note_back(&watch, watch.number, now);
    pk_canary_judge(&watch, now, EVERY);
    assert_true(watch.silent);
    send_one();
    pk_canary_note_back(&watch, watch.number, now);
    pk_canary_judge(&watch, now, EVERY);
    assert_false(watch.silent);
    assert_int_equal(watch.back, 202);
}

/* Now and then one is lost: that is nothing. */
static void single_losses(void **state)
{
    (void)state;
    begin();
    for (unsigned i = 0; i < 90; i++) {
        send_one();
        if (i % 3 == 0)
            pk_canary_note_back(&watch, watch.number, now);
        assert_false(watch.silent);
    }
}

/* An old backlog that comes is not enough while the newest are missing. */
static void backlog(void **state)
{
    (void)state;
    begin();
    uint64_t numbers[12];
    for (unsigned i = 0; i < 12; i++) {
        send_one();
        numbers[i] = watch.number;
    }
    assert_true(watch.silent);
    for (unsigned i = 0; i < 4; i++)
        pk_canary_note_back(&watch, numbers[i], now);
    pk_canary_judge(&watch, now, EVERY);
    assert_true(watch.silent);
    for (unsigned i = 4; i < 12; i++)
        pk_canary_note_back(&watch, numbers[i], now);
    /* What had come before counts no more: two that came since do. */
    pk_canary_judge(&watch, now, EVERY);
    assert_false(watch.silent);
}

/* A short interval has the same patience: a shipper that is away is noticed before. */
static void short_interval(void **state)
{
    (void)state;
    begin();
    pk_nsec first = now;
    for (; now < first + PK_CANARY_PATIENCE; now += PK_NSEC_PER_SEC) {
        pk_canary_note_sent(&watch, pk_canary_next(&watch, now), now);
        pk_canary_judge(&watch, now, PK_NSEC_PER_SEC);
        assert_false(watch.silent);
    }
    pk_canary_judge(&watch, now, PK_NSEC_PER_SEC);
    assert_true(watch.silent);
}

static void excused(void **state)
{
    (void)state;
    begin();
    for (unsigned i = 0; i < 50; i++) {
        send_one();
        pk_canary_excuse(&watch); /* nobody looks */
        assert_false(watch.silent);
    }
    for (unsigned i = 0; i < 3; i++)
        send_one();
    assert_false(watch.silent);
    send_one();
    assert_true(watch.silent);
}

static void numbers(void **state)
{
    (void)state;
    begin();
    uint64_t before = 0;
    static const pk_nsec clocks[] = { 5000, 5000, 9000, 2000, -1, 0, 10000 }; /* ms, set back too */
    for (size_t i = 0; i < PK_ARRAY_SIZE(clocks); i++) {
        uint64_t number = pk_canary_next(&watch, clocks[i] * PK_NSEC_PER_MS);
        assert_true(number > before);
        pk_canary_note_sent(&watch, number, now + (pk_nsec)i);
        before = number;
    }
    assert_int_equal(before, 10000);
    pk_canary_note_back(&watch, 4711, now); /* never sent */
    pk_canary_note_back(&watch, 0, now);
    assert_int_equal(watch.back, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames),         cmocka_unit_test(silent_and_back),
        cmocka_unit_test(single_losses),  cmocka_unit_test(backlog),
        cmocka_unit_test(short_interval), cmocka_unit_test(excused),
        cmocka_unit_test(numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
