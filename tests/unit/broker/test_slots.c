/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include <stdlib.h>
#include <string.h>

#include "broker/slots.h"

#define MAX_LANES 16
static struct pk_broker_share shares[MAX_LANES];
static uint16_t numbers[MAX_LANES], target[PK_HASH_SLOTS + 1], other[PK_HASH_SLOTS + 1];
static bool usable[PK_LANES_MAX];
static struct pk_slots slots;
static pk_nsec until[PK_HASH_SLOTS];

/* Lane i of the group has the number 100 + i: the two are not the same. */
static struct pk_slots_wish wish_of(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1 };
        numbers[i] = (uint16_t)(100 + i);
    }
    return (struct pk_slots_wish){ .shares = shares, .numbers = numbers, .count = count };
}

static bool step(pk_nsec now, pk_nsec drain)
{
    const struct pk_slots_way way = {
        .target = target, .usable = usable, .now = now, .drain = drain
    };
    return pk_slots_step(&slots, until, &way);
}

static void begin(void)
{
    memset(&slots, 0, sizeof slots);
    memset(slots.lane, 0xff, sizeof slots.lane);
    memset(slots.old, 0xff, sizeof slots.old);
    for (unsigned i = 0; i < PK_LANES_MAX; i++)
        usable[i] = true;
    assert_true(step(0, 30));
    assert_int_equal(slots.draining, 0);
    assert_false(step(0, 30));
}

/* Only the slots of the lane that is away move, evenly, and they come back. */
static void away_and_back(void **state)
{
    (void)state;
    for (unsigned n = 2; n <= MAX_LANES; n++) {
        struct pk_slots_wish wish = wish_of(n);
        pk_slots_target(&wish, target);
        assert_int_equal(target[PK_HASH_SLOTS], 100);
        for (unsigned gone = 0; gone < n; gone++) {
            unsigned got[MAX_LANES] = { 0 }, moved = 0;
            shares[gone].part = gone % 2 ? PK_PART_OUT : PK_PART_LEAVING;
            pk_slots_target(&wish, other);
            shares[gone].part = PK_PART_IN;
            for (size_t i = 0; i < PK_HASH_SLOTS; i++) {
                assert_int_not_equal(other[i], 100 + gone);
                if (target[i] == other[i])
                    continue;
                assert_int_equal(target[i], 100 + gone);
                moved++;
                got[other[i] - 100]++;
            }
            assert_in_range(moved, PK_HASH_SLOTS / n, PK_HASH_SLOTS / n + 1);
            for (unsigned i = 0; i < n; i++)
                if (i != gone)
                    assert_in_range(got[i], moved / (n - 1) * 8 / 10,
                                    moved / (n - 1) * 12 / 10 + 2);
            assert_int_equal(other[PK_HASH_SLOTS], gone == 0 ? 101 : 100);
            pk_slots_target(&wish, other);
            assert_memory_equal(target, other, sizeof target);
        }
    }
}

/* When no lane is in, packets go where they would: they count as unread there. */
static void all_away(void **state)
{
    (void)state;
    struct pk_slots_wish wish = wish_of(3);
    pk_slots_target(&wish, target);
    for (unsigned i = 0; i < 3; i++)
        shares[i].part = PK_PART_OUT;
    pk_slots_target(&wish, other);
    assert_memory_equal(target, other, sizeof target);
    wish.count = 0;
    pk_slots_target(&wish, other);
    for (size_t i = 0; i <= PK_HASH_SLOTS; i++)
        assert_int_equal(other[i], PK_NO_LANE);
}

static void moves_stay(void **state)
{
    (void)state;
    static uint16_t moves[PK_HASH_SLOTS];
    struct pk_slots_wish wish = wish_of(3);
    pk_slots_target(&wish, target);
    memset(moves, 0xff, sizeof moves);
    for (size_t i = 0; i < PK_HASH_SLOTS; i += 100)
        moves[i] = 102;
    wish.moves = moves;
    pk_slots_target(&wish, other);
    for (size_t i = 0; i < PK_HASH_SLOTS; i++)
        assert_int_equal(other[i], i % 100 == 0 ? 102 : target[i]);
    /* A lane that is away gets none. */
    shares[2].part = PK_PART_OUT;
    pk_slots_target(&wish, other);
    for (size_t i = 0; i < PK_HASH_SLOTS; i++)
        assert_int_not_equal(other[i], 102);
}

static void drains_and_ends(void **state)
{
    (void)state;
    struct pk_slots_wish wish = wish_of(2);
    pk_slots_target(&wish, target);
    begin();
    memcpy(other, target, sizeof other);
    shares[0].part = PK_PART_LEAVING;
    pk_slots_target(&wish, target);
    assert_true(step(1000, 30));
    for (size_t i = 0; i < PK_HASH_SLOTS; i++) {
        assert_int_equal(slots.lane[i], 101);
        assert_int_equal(slots.old[i], other[i] == 100 ? 100 : PK_NO_LANE);
    }
    assert_in_range(slots.draining, PK_HASH_SLOTS / 2, PK_HASH_SLOTS / 2 + 1);
    assert_int_equal(slots.drain_until, 1030);
    assert_false(step(1029, 30));

    /* Back before the end: that waits until the first drain is over, or flows would be cut. */
    shares[0].part = PK_PART_IN;
    pk_slots_target(&wish, target);
    (void)step(1029, 30); /* what has no flow goes back at once */
    for (size_t i = 0; i < PK_HASH_SLOTS; i++)
        assert_int_equal(slots.lane[i], 101);
    assert_true(step(1030, 30));
    for (size_t i = 0; i < PK_HASH_SLOTS; i++) {
        assert_int_equal(slots.lane[i], other[i]);
        assert_int_equal(slots.old[i], other[i] == 100 ? 101 : PK_NO_LANE);
    }
    assert_true(step(1060, 30));
    assert_int_equal(slots.draining, 0);
    assert_memory_equal(slots.lane, other, sizeof other);
}

/* A lane dies while slots drain from it and to it. */
static void dies_meanwhile(void **state)
{
    (void)state;
    struct pk_slots_wish wish = wish_of(3);
    pk_slots_target(&wish, target);
    begin();
    shares[0].part = PK_PART_LEAVING;
    pk_slots_target(&wish, target);
    assert_true(step(1000, 30));
    shares[1].part = PK_PART_OUT;
    usable[101] = false;
    pk_slots_target(&wish, target);
    assert_true(step(1001, 30));
    unsigned draining = 0;
    for (size_t i = 0; i < PK_HASH_SLOTS; i++) {
        assert_int_equal(slots.lane[i], 102);
        assert_true(slots.old[i] == 100 || slots.old[i] == PK_NO_LANE);
        draining += slots.old[i] == 100;
    }
    assert_int_equal(slots.draining, draining);
    assert_true(draining > 0);
    shares[0].part = PK_PART_OUT;
    usable[100] = false;
    assert_true(step(1002, 30));
    assert_int_equal(slots.draining, 0);
}

/* Whatever happens in whatever order: nothing goes to a lane that is out where another is in, a
 * slot changes its lane by draining unless its lane is out, and in the end all is as wished. */
static void any_order(void **state)
{
    (void)state;
    srand(7);
    struct pk_slots_wish wish = wish_of(6);
    pk_slots_target(&wish, target);
    begin();
    pk_nsec now = 1000;
    static struct pk_slots before;
    for (unsigned round = 0; round < 300; round++) {
        unsigned lane = (unsigned)rand() % 6;
        shares[lane].part = (enum pk_broker_part)(rand() % 3);
        shares[0].part = shares[0].part == PK_PART_OUT ? PK_PART_IN : shares[0].part;
        bool any = false;
        for (unsigned i = 0; i < 6; i++) {
            usable[100 + i] = shares[i].part != PK_PART_OUT;
            any |= shares[i].part == PK_PART_IN;
        }
        pk_slots_target(&wish, target);
        before = slots;
        now += rand() % 20;
        (void)step(now, 30);
        for (size_t i = 0; i < PK_HASH_SLOTS; i++) {
            assert_true(!any || usable[slots.lane[i]]);
            assert_true(slots.old[i] == PK_NO_LANE || usable[slots.old[i]]);
            assert_true(slots.old[i] != slots.lane[i]);
            if (slots.lane[i] == before.lane[i] || !usable[before.lane[i]])
                continue;
            assert_int_equal(slots.old[i], before.lane[i]);
        }
    }
    now += 30;
    (void)step(now, 30);
    now += 30;
    (void)step(now, 30);
    assert_int_equal(slots.draining, 0);
    assert_memory_equal(slots.lane, target, sizeof target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(away_and_back),  cmocka_unit_test(all_away),
        cmocka_unit_test(moves_stay),     cmocka_unit_test(drains_and_ends),
        cmocka_unit_test(dies_meanwhile), cmocka_unit_test(any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
