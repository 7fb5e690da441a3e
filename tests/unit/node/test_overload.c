/* SPDX-License-Identifier: Apache-2.0 */
/* When something is shunted and shed, how much, whose, and when it comes back: lanes and tools that
 * take so many packets a second, of so many that come. */
#include "pk_test.h"

#include <linux/if_packet.h>
#include <stdio.h>
#include <string.h>

#include "node/overload.h"

#define SLOTS 65537u
#define LOOK  (200 * PK_NSEC_PER_MS)
#define DT    0.2

/* One lane; what is shed is left out before. */
struct world {
    struct pk_overload state;
    struct pk_overload_lane lane;
    struct pk_overload_spec may;
    pk_nsec now;
    double comes, takes, elephants; /* elephants: of what comes, gone when shunting */
    double room;                    /* of the tool's queue, packets; 0 = nobody sees it */
    bool tells;                     /* the tool says what it lost, each second */
    bool silent;                    /* and nobody else does: a ring's losses */
    /* what is */
    double queue, sent, lost, told, told_lost;
    pk_nsec told_at;
    unsigned shunts, sheds, unsheds, unshunts;
    double first_loss; /* before anything was shed */
    double largest;
};

static void tick(struct world *world)
{
    double sent = DT * world->comes * (world->state.shunting ? 1 - world->elephants : 1) *
                  (1 - (double)world->state.shed / SLOTS);
    world->now += LOOK;
    world->sent += sent;
    world->queue += sent - DT * world->takes;
    world->queue = PK_MAX(world->queue, 0);
    double room = world->room > 0 ? world->room : 1;
    double lost = PK_MAX(world->queue - room, 0);
    world->queue -= lost;
    world->lost += lost;
    if (world->state.shed == 0 && world->sheds == 0)
        world->first_loss += lost;
    if (world->tells && world->now - world->told_at >= PK_NSEC_PER_SEC) {
        world->told = world->sent;
        world->told_lost = world->lost;
        world->told_at = world->now - 1;
    }
    const struct pk_overload_lane_look seen = {
        .now = world->now,
        .acted = world->state.acted,
        .sent = (uint64_t)world->sent,
        .lost = world->silent ? 0 : (uint64_t)world->lost,
        .told = (uint64_t)world->told,
        .told_lost = (uint64_t)world->told_lost,
        .told_at = world->told_at,
        .room = world->room,
        .fill = world->room > 0 ? world->queue / world->room : PK_FILL_UNKNOWN,
    };
    pk_overload_judge_lane(&world->lane, &seen);
    const struct pk_overload_look look = { .now = world->now,
                                           .sign = world->lane.sign,
                                           .excess = world->lane.excess,
                                           .slots = SLOTS,
                                           .may = world->may };
    struct pk_overload_step step = pk_overload_judge(&world->state, &look);
    switch (step.action) {
    case PK_OVERLOAD_NONE:
        return;
    case PK_OVERLOAD_SHUNT:
        world->state.shunting = true;
        world->shunts++;
        break;
    case PK_OVERLOAD_SHED:
        assert_true(step.share > 0 && step.share <= 1);
        world->largest = PK_MAX(world->largest, step.share);
        world->state.shed += (size_t)((double)(SLOTS - world->state.shed) * step.share);
        world->sheds++;
        break;
    case PK_OVERLOAD_UNSHED:
        assert_true(step.slots > 0 && step.slots <= world->state.shed);
        world->state.shed -= step.slots;
        world->unsheds++;
        break;
    case PK_OVERLOAD_UNSHUNT:
        world->state.shunting = false;
        world->unshunts++;
        break;
    }
    world->state.acted = world->now;
}

static void run(struct world *world, double seconds)
{
    for (double t = 0; t < seconds; t += DT)
        tick(world);
}

static double shed_share(const struct world *world)
{
    return (double)world->state.shed / SLOTS;
}

#define BOTH                        \
    {                               \
        .shunt = true, .shed = true \
    }
#define SHED          \
    {                 \
        .shed = true, \
    }

static void enough_room(void **state)
{
    (void)state;
    struct world world = { .may = BOTH, .comes = 10000, .takes = 10000, .room = 5000 };
    run(&world, 1000);
    assert_int_equal(world.shunts + world.sheds, 0);
    /* Just so: a queue that is always rather full, but does not get fuller. */
    world.queue = 3500;
    run(&world, 100);
    assert_int_equal(world.shunts + world.sheds, 0);
}

/* Half a second of losses is none that something is done about. */
static void a_burst(void **state)
{
    (void)state;
    struct world world = { .may = BOTH, .comes = 40000, .takes = 10000, .room = 5000 };
    run(&world, 0.6);
    world.comes = 9000;
    run(&world, 100);
    assert_true(world.lost > 0);
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

/* Whatever is seen of a lane: soon no more is shed than is needed, nothing is lost any more, it
 * stays so, and all comes back when there is room again. */
static void settles(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double room;
        bool tells, silent;
        double within; /* seconds */
        double most;   /* of the flows, beyond what is needed */
    } ways[] = {
        { "losses", 0, false, false, 5, 0.1 },
        { "queue and losses", 5000, false, false, 6, 0.1 },
        { "queue alone", 5000, false, true, 8, 0.35 },
        { "queue, and a tool that tells", 5000, true, true, 9, 0.2 },
        { "long queue, and a tool that tells", 60000, true, true, 90, 0.2 },
        { "a tool that tells", 0, true, true, 12, 0.2 },
    };
    static const double over[] = { 1.1, 1.5, 2, 4, 8 };
    for (size_t i = 0; i < PK_ARRAY_SIZE(ways); i++)
        for (size_t k = 0; k < PK_ARRAY_SIZE(over); k++) {
            struct world world = { .may = SHED,
                                   .comes = 10000 * over[k],
                                   .takes = 10000,
                                   .room = ways[i].room,
                                   .tells = ways[i].tells,
                                   .silent = ways[i].silent };
            run(&world, ways[i].within);
            double needed = 1 - 1 / over[k], settled = shed_share(&world), lost = world.lost;
            unsigned unsheds = world.unsheds;
            run(&world, 300);
            double more = (world.lost - lost) / (300 * world.comes);
            print_message("# %s, %.1fx: needed %.2f, shed %.2f in %.0f s and %u steps, lost %.2f s "
                          "of its traffic before; then %.5f lost, %u tries to give back\n",
                          ways[i].name, over[k], needed, settled, ways[i].within, world.sheds,
                          world.first_loss / world.comes, more, world.unsheds - unsheds);
            assert_true(settled >= needed - 0.02);
            assert_true(settled <= needed + ways[i].most);
            /* What it tries in five minutes costs little. */
            assert_true(more < 0.02);
            assert_true(shed_share(&world) >= needed - 0.2);
            assert_true(world.unsheds - unsheds < 60);
            world.comes = 5000;
            run(&world, 200);
            assert_int_equal(world.state.shed, 0);
            unsheds = world.sheds;
            run(&world, 100);
            assert_int_equal(world.sheds, unsheds);
        }
}

/* Where the queue is seen, it begins before anything is lost. */
static void before_it_is_lost(void **state)
{
    (void)state;
    static const double over[] = { 1.05, 1.2, 1.5 };
    for (size_t k = 0; k < PK_ARRAY_SIZE(over); k++) {
        struct world world = {
            .may = SHED, .comes = 10000 * over[k], .takes = 10000, .room = 20000, .tells = true
        };
        run(&world, 120);
        print_message("# %.2fx: %.0f lost, %.2f shed\n", over[k], world.lost, shed_share(&world));
        assert_true(world.lost < 1);
        assert_true(world.state.shed > 0);
    }
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
    run(&world, 1);
    assert_int_equal(world.state.shed, 0);
    run(&world, 10);
    assert_true(world.state.shunting);
    world.may.shunt = false;
    run(&world, 0.2);
    assert_false(world.state.shunting);
}

static void victims(void **state)
{
    (void)state;
    struct pk_overload_candidate groups[] = {
        { .priority = 100, .may = true, .shares = true },
        { .priority = 10, .may = true, .shares = true },
        { .priority = 50, .may = true, .shares = true },
        { .priority = 200, .may = true, .shares = true },
    };
    /* Where there is processor time left, another group's packets are not the trouble. */
    assert_int_equal(pk_overload_victim(groups, 4, 0, false), 0);
    assert_int_equal(pk_overload_victim(groups, 4, 0, true), 1);
    groups[1].shares = false; /* it has processors of its own */
    assert_int_equal(pk_overload_victim(groups, 4, 0, true), 2);
    groups[1].may = false;
    assert_int_equal(pk_overload_victim(groups, 4, 3, true), 2);
    groups[2].may = false;
    assert_int_equal(pk_overload_victim(groups, 4, 0, true), 0);
    groups[0].may = false; /* never one of higher priority */
    assert_int_equal(pk_overload_victim(groups, 4, 0, true), -1);
}

static void processors(void **state)
{
    (void)state;
    static struct pk_cpus cpus;
    pk_cpus_update(&cpus, "cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 10 0 10 80 0 0 0 0 0 0\nintr 5\n");
    assert_true(cpus.there[0] && cpus.busy[0] == 0 && !cpus.there[1]);
    pk_cpus_update(&cpus, "cpu  1 2\ncpu0 60 0 20 120 0 0 20 0 0 0\ncpu3 1 1 1 1 1 1 1 1\n");
    assert_true(cpus.busy[0] > 0.66 && cpus.busy[0] < 0.67);
    assert_true(cpus.soft[0] > 0.16 && cpus.soft[0] < 0.17);
    assert_true(cpus.there[3] && cpus.busy[3] == 0);
    static const char *const hostile[] = { "",
                                           "cpu",
                                           "cpu0",
                                           "cpu99999999999999999999 1 2\n",
                                           "cpu1024 1 1 1 1\n",
                                           "cpu0 x\ncpu1 99999999999999999999",
                                           "intr 5" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(hostile); i++)
        pk_cpus_update(&cpus, hostile[i]);
    assert_true(cpus.busy[0] >= 0 && cpus.busy[0] <= 1);
}

static void rings(void **state)
{
    (void)state;
    static const char maps[] =
        "55d0-55d1 r--p 00000000 fe:01 123  /bin/x\n"
        "7fda0a4bd000-7fda0acbd000 rw-s 00000000 00:09 58752681  socket:[58752681]\n"
        "7fdb0a4bd000-7fdb0acbd000 rw-s 00000000 00:09 5875268   socket:[5875268]\n"
        "zz-7fdb rw-s 00000000 00:09 77   socket:[77]";
    assert_true(pk_ring_address(maps, 5875268) == 0x7fdb0a4bd000u);
    assert_true(pk_ring_address(maps, 58752681) == 0x7fda0a4bd000u);
    assert_true(pk_ring_address(maps, 5268) == 0 && pk_ring_address("", 1) == 0);
    assert_true(pk_ring_address(maps, 77) == 0);

    uint64_t at[64];
    struct pk_packet_socket ring = {
        .version = TPACKET_V2, .block_size = 4096, .blocks = 100, .frame_size = 2048, .frames = 200
    };
    assert_int_equal(pk_ring_samples(&ring, at, 64), 64);
    assert_int_equal(at[0], 0);
    assert_true(at[63] < 100u * 4096 && at[63] % 2048 == 0 && at[63] > 98u * 2048 * 2 - 8192);
    ring.version = TPACKET_V3;
    assert_int_equal(pk_ring_samples(&ring, at, 64), 64);
    assert_int_equal(at[1] % 4096, 8);
    /* Whatever the kernel should say. */
    ring = (struct pk_packet_socket){ .version = TPACKET_V1, .block_size = ~0u, .blocks = ~0u };
    assert_true(pk_ring_samples(&ring, at, 64) <= 64);
    ring.blocks = 2;
    ring.block_size = 16;
    assert_int_equal(pk_ring_samples(&ring, at, 64), 0);
    ring = (struct pk_packet_socket){ .version = 9, .block_size = 4096, .blocks = 64 };
    assert_int_equal(pk_ring_samples(&ring, at, 64), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enough_room),
        cmocka_unit_test(a_burst),
        cmocka_unit_test(elephants_are_enough),
        cmocka_unit_test(settles),
        cmocka_unit_test(before_it_is_lost),
        cmocka_unit_test(only_what_is_allowed),
        cmocka_unit_test(victims),
        cmocka_unit_test(processors),
        cmocka_unit_test(rings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
