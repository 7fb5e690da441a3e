/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include <string.h>

#include "broker/maglev.h"

static uint16_t before[PK_SLOT_COUNT], after[PK_SLOT_COUNT];

static void shares_of(struct pk_broker_share *shares, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1 };
}

static void even_and_full(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 64; n += n < 8 ? 1 : 7) {
        struct pk_broker_share shares[64];
        unsigned slots[64] = { 0 };
        shares_of(shares, n);
        pk_maglev_fill(shares, n, before);
        for (size_t i = 0; i < PK_SLOT_COUNT; i++) {
            assert_true(before[i] < n);
            slots[before[i]]++;
        }
        for (unsigned i = 0; i < n; i++)
            assert_in_range(slots[i], PK_SLOT_COUNT / n, PK_SLOT_COUNT / n + 1);
    }
}

static void weights(void **state)
{
    (void)state;
    const struct pk_broker_share shares[] = { { 0, 1 }, { 1, 2 }, { 2, 0 }, { 7, 5 }, { 9, 1000 } };
    unsigned slots[5] = { 0 }, total = 1008;
    pk_maglev_fill(shares, 5, before);
    for (size_t i = 0; i < PK_SLOT_COUNT; i++)
        slots[before[i]]++;
    for (unsigned i = 0; i < 5; i++) {
        unsigned want = (unsigned)((uint64_t)PK_SLOT_COUNT * shares[i].weight / total);
        assert_in_range(slots[i] + 2, want, want + 4);
    }
    assert_int_equal(slots[2], 0);
    /* The list's order is not the table's business. */
    const struct pk_broker_share turned[] = { { 9, 1000 }, { 7, 5 }, { 1, 2 }, { 0, 1 } };
    pk_maglev_fill(turned, 4, after);
    for (size_t i = 0; i < PK_SLOT_COUNT; i++)
        assert_int_equal(shares[before[i]].lane, turned[after[i]].lane);
}

static void nothing_to_share(void **state)
{
    (void)state;
    const struct pk_broker_share none[] = { { 0, 0 }, { 1, 0 } };
    pk_maglev_fill(none, 2, before);
    for (size_t i = 0; i < PK_SLOT_COUNT; i++)
        assert_int_equal(before[i], PK_MAGLEV_EMPTY);
    pk_maglev_fill(NULL, 0, before);
    assert_int_equal(before[0], PK_MAGLEV_EMPTY);
}

/* One of N going or coming moves at most 1/N + 2 % of the slots. */
static void little_moves(void **state)
{
    (void)state;
    for (unsigned n = 2; n <= 64; n += n < 10 ? 1 : 9) {
        for (unsigned gone = 0; gone < n; gone += 1 + n / 8) {
            struct pk_broker_share shares[64], fewer[64];
            shares_of(shares, n);
            pk_maglev_fill(shares, n, before);
            unsigned k = 0, moved = 0;
            for (unsigned i = 0; i < n; i++)
                if (i != gone)
                    fewer[k++] = shares[i];
            pk_maglev_fill(fewer, k, after);
            for (size_t i = 0; i < PK_SLOT_COUNT; i++)
                moved += shares[before[i]].lane != fewer[after[i]].lane;
            if (moved > PK_SLOT_COUNT / n + PK_SLOT_COUNT / 50)
                fail_msg("%u of %u gone: %u slots moved", gone, n, moved);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(even_and_full),
        cmocka_unit_test(weights),
        cmocka_unit_test(nothing_to_share),
        cmocka_unit_test(little_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
