/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include <stdlib.h>
#include <string.h>

#include "broker/maglev.h"
#include "broker/rebalance.h"

enum { LANES = 4 };
static struct pk_broker_slot slots[PK_SLOT_COUNT];
static struct pk_broker_share shares[LANES];
static struct pk_rebalance plan;
static struct pk_error err;

static void begin(void)
{
    static uint16_t table[PK_SLOT_COUNT];
    for (unsigned i = 0; i < LANES; i++)
        shares[i] = (struct pk_broker_share){ .lane = 10 + i, .weight = 1 };
    pk_maglev_fill(shares, LANES, table);
    for (uint32_t i = 0; i < PK_SLOT_COUNT; i++)
        slots[i] = (struct pk_broker_slot){ .lane = 10 + table[i], .home = 10 + table[i] };
    srand(3);
}

static uint64_t load_of(unsigned lane)
{
    uint64_t load = 0;
    for (uint32_t i = 0; i < PK_SLOT_COUNT; i++)
        if (slots[i].lane == lane)
            load += slots[i].load;
    return load;
}

static void carry_out(void)
{
    for (size_t i = 0; i < plan.count; i++)
        slots[plan.moves[i].slot].lane = plan.moves[i].lane;
}

/* A few heavy slots, many light ones; one lane has twice what is its due. */
static void zipf(void)
{
    for (unsigned i = 1; i <= 5000; i++) {
        uint32_t slot = (uint32_t)rand() % PK_SLOT_COUNT;
        double load = 4e6 / (i + 30);
        slots[slot].load += (uint32_t)(slots[slot].lane == 12 ? load * 2 : load);
    }
}

static void few_slots_make_it_even(void **state)
{
    (void)state;
    begin();
    zipf();
    assert_int_equal(pk_rebalance(slots, shares, LANES, &plan, &err), 0);
    assert_true(plan.before > PK_UNEVEN);
    assert_true(plan.after < PK_EVEN);
    assert_in_range(plan.count, 1, 60); /* of 5,000 with load */
    assert_false(plan.elephant);
    uint64_t total = 0, loads[LANES];
    for (unsigned i = 0; i < LANES; i++)
        total += load_of(10 + i);
    for (size_t i = 0; i < plan.count; i++) {
        assert_int_equal(slots[plan.moves[i].slot].lane, 12);
        assert_int_not_equal(plan.moves[i].lane, 12);
    }
    carry_out();
    for (unsigned i = 0; i < LANES; i++)
        loads[i] = load_of(10 + i);
    double after = pk_unevenness(shares, loads, LANES);
    assert_true(after > plan.after - 0.001 && after < plan.after + 0.001);
    assert_int_equal(loads[0] + loads[1] + loads[2] + loads[3], total);
    /* Even is left alone; and home tells what it would be without. */
    double home = plan.before;
    assert_int_equal(pk_rebalance(slots, shares, LANES, &plan, &err), 0);
    assert_true(plan.before < PK_EVEN && plan.home > home - 0.001);
}

static void an_elephant_stays(void **state)
{
    (void)state;
    begin();
    for (uint32_t i = 0; i < PK_SLOT_COUNT; i++)
        slots[i].load = 10;
    uint32_t big = 0;
    while (slots[big].lane != 11)
        big++;
    slots[big].load = 3000000;
    assert_int_equal(pk_rebalance(slots, shares, LANES, &plan, &err), 0);
    /* What else is in its lane may go, as far as it helps; the elephant does not move. */
    for (size_t i = 0; i < plan.count; i++)
        assert_int_not_equal(plan.moves[i].slot, big);
    for (unsigned round = 0; round < 200 && !plan.elephant; round++) {
        carry_out();
        assert_int_equal(pk_rebalance(slots, shares, LANES, &plan, &err), 0);
    }
    assert_true(plan.elephant);
    assert_int_equal(plan.slot, big);
    assert_int_equal(plan.lane, 11);
    assert_int_equal(slots[big].lane, 11);
}

static void weights_and_lanes_that_are_out(void **state)
{
    (void)state;
    begin();
    shares[0].weight = 3; /* gets half of the load */
    shares[3].part = PK_PART_OUT;
    for (uint32_t i = 0; i < PK_SLOT_COUNT; i++)
        slots[i] = (struct pk_broker_slot){ .lane = 10 + i % 3,
                                            .home = 10 + i % 3,
                                            .load = i % 500 == 7 ? 1000 : 0 };
    for (unsigned round = 0; round < 5; round++) {
        assert_int_equal(pk_rebalance(slots, shares, LANES, &plan, &err), 0);
        for (size_t i = 0; i < plan.count; i++)
            assert_int_not_equal(plan.moves[i].lane, 13);
        carry_out();
    }
    uint64_t loads[LANES] = { load_of(10), load_of(11), load_of(12), 0 };
    assert_true(pk_unevenness(shares, loads, LANES) < PK_EVEN);
    assert_in_range(loads[0], (loads[0] + loads[1] + loads[2]) * 55 / 100,
                    (loads[0] + loads[1] + loads[2]) * 65 / 100);
}

static void nothing_to_do(void **state)
{
    (void)state;
    begin();
    assert_int_equal(pk_rebalance(slots, shares, LANES, &plan, &err), 0);
    assert_int_equal(plan.count, 0);
    assert_int_equal(pk_rebalance(slots, shares, 0, &plan, &err), 0);
    zipf();
    assert_int_equal(pk_rebalance(slots, shares, 1, &plan, &err), 0);
    assert_int_equal(plan.count, 0);
    const uint64_t none[LANES] = { 0 };
    assert_true(pk_unevenness(shares, none, LANES) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_slots_make_it_even),
        cmocka_unit_test(an_elephant_stays),
        cmocka_unit_test(weights_and_lanes_that_are_out),
        cmocka_unit_test(nothing_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
