/* SPDX-License-Identifier: Apache-2.0 */
/* When something is shunted and shed, how much, whose, and when it comes back. */
#include "pk_test.h"

#include <stdio.h>

#include "node/overload.h"

#define SLOTS 65537u
#define S     PK_NSEC_PER_SEC

/* Lanes that can take so many packets a second, of so many that come; a look a second. What is shed
 * is left out before. */
struct world {
    struct pk_overload state;
    struct pk_overload_spec may;
    pk_nsec now;
    double comes, takes, elephants; /* elephants: of what comes, gone when shunting */
    unsigned shunts, sheds, unsheds, unshunts;
    size_t largest; /* step */
};

static void look(struct world *world)
{
    double sent = world->comes * (world->state.shunting ? 1 - world->elephants : 1) *
                  (1 - (double)world->state.shed / SLOTS);
    double lost = sent > world->takes ? sent - world->takes : 0;
    world->now += S;
    const struct pk_overload_look now = { .now = world->now,
                                          .sent = (uint64_t)sent,
                                          .lost = (uint64_t)lost,
                                          .slots = SLOTS,
                                          .may = world->may };
    size_t slots = 0;
    switch (pk_overload_judge(&world->state, &now, &slots)) {
    case PK_OVERLOAD_NONE:
        break;
    case PK_OVERLOAD_SHUNT:
        world->state.shunting = true;
        world->shunts++;
        break;
    case PK_OVERLOAD_SHED:
        world->largest = PK_MAX(world->largest, slots);
        world->state.shed = PK_MIN(world->state.shed + slots, SLOTS);
        world->sheds++;
        break;
    case PK_OVERLOAD_UNSHED:
        assert_true(slots > 0 && slots <= world->state.shed);
        world->state.shed -= slots;
        world->unsheds++;
        break;
    case PK_OVERLOAD_UNSHUNT:
        world->state.shunting = false;
        world->unshunts++;
        break;
    }
}

static void run(struct world *world, unsigned seconds)
{
    for (unsigned i = 0; i < seconds; i++)
        look(world);
}

#define BOTH                        \
    {                               \
        .shunt = true, .shed = true \
    }

static void enough_room(void **state)
{
    (void)state;
    struct world world = { .may = BOTH, .comes = 10000, .takes = 10000 };
    run(&world, 1000);
    assert_int_equal(world.shunts + world.sheds, 0);
}

/* A second of losses is none that something is done about. */
static void a_burst(void **state)
{
    (void)state;
    struct world world = { .may = BOTH, .comes = 20000, .takes = 10000 };
    run(&world, 2);
    world.comes = 9000;
    run(&world, 100);
    assert_int_equal(world.shunts + world.sheds, 0);
}

static void elephants_are_enough(void **state)
{
    (void)state;
    struct world world = { .may = BOTH, .comes = 20000, .takes = 11000, .elephants = 0.5 };
    run(&world, 8);
    assert_int_equal(world.shunts, 1);
    assert_true(world.state.shunting);
    assert_int_equal(world.sheds, 0);
}

static void sheds_what_is_needed(void **state)
{
    (void)state;
    struct world world = { .may = BOTH, .comes = 20000, .takes = 10000, .elephants = 0.2 };
    run(&world, 40);
    assert_true(world.state.shunting);
    /* 16,000 come, 10,000 are taken: 3/8. */
    print_message("# shed: %.1f %%, in %u steps of at most %.1f %%\n",
                  100.0 * (double)world.state.shed / SLOTS, world.sheds,
                  100.0 * (double)world.largest / SLOTS);
    assert_in_range(world.state.shed, SLOTS * 34 / 100, SLOTS * 48 / 100);
    assert_true(world.largest <= SLOTS / 10 + 1);
    /* In a minute it tries to give some back only now and then: longer each time. */
    unsigned before = world.unsheds;
    run(&world, 600);
    print_message("# tries to give back in 10 minutes: %u\n", world.unsheds - before);
    assert_true(world.unsheds - before < 60);
    assert_true(world.state.shed > SLOTS * 30 / 100);
    /* It is over: all comes back, at last the large flows. */
    world.comes = 5000;
    run(&world, 400);
    assert_int_equal(world.state.shed, 0);
    assert_false(world.state.shunting);
    before = world.sheds;
    run(&world, 100);
    assert_int_equal(world.sheds, before);
}

static void only_what_is_allowed(void **state)
{
    (void)state;
    struct world world = { .comes = 20000, .takes = 10000, .elephants = 0.5 };
    run(&world, 50);
    assert_int_equal(world.shunts + world.sheds, 0);
    world.may.shed = true;
    run(&world, 50);
    assert_int_equal(world.shunts, 0);
    assert_true(world.state.shed > 0);
    world.may = (struct pk_overload_spec){ .shunt = true };
    run(&world, 2);
    assert_int_equal(world.state.shed, 0);
    run(&world, 10);
    assert_true(world.state.shunting);
    world.may.shunt = false;
    run(&world, 1);
    assert_false(world.state.shunting);
}

static void victims(void **state)
{
    (void)state;
    struct pk_overload_candidate groups[] = {
        { .priority = 100, .may = true },
        { .priority = 10, .may = true },
        { .priority = 50, .may = true },
        { .priority = 200, .may = true },
    };
    /* Where there is processor time left, another group's packets are not the trouble. */
    assert_int_equal(pk_overload_victim(groups, 4, 0, false), 0);
    assert_int_equal(pk_overload_victim(groups, 4, 0, true), 1);
    groups[1].may = false;
    assert_int_equal(pk_overload_victim(groups, 4, 0, true), 2);
    assert_int_equal(pk_overload_victim(groups, 4, 3, true), 2);
    groups[2].may = false;
    assert_int_equal(pk_overload_victim(groups, 4, 0, true), 0);
    groups[0].may = false; /* never one of higher priority */
    assert_int_equal(pk_overload_victim(groups, 4, 0, true), -1);
}

static void processors(void **state)
{
    (void)state;
    uint64_t seen[2] = { 0 };
    assert_true(pk_overload_cpu("cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 1 2\n", seen) == 0);
    double used = pk_overload_cpu("cpu  60 0 20 120 0 0 0 0 0 0\n", seen);
    assert_true(used > 0.59 && used < 0.61);
    assert_true(pk_overload_cpu("cpu  60 0 20 120 0 0 0 0 0 0\n", seen) == 0);
    assert_true(pk_overload_cpu("", seen) == 0);
    assert_true(pk_overload_cpu("intr 5", seen) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enough_room),          cmocka_unit_test(a_burst),
        cmocka_unit_test(elephants_are_enough), cmocka_unit_test(sheds_what_is_needed),
        cmocka_unit_test(only_what_is_allowed), cmocka_unit_test(victims),
        cmocka_unit_test(processors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
