/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Balance and churn: heavy-tailed flows over the lanes of a group, with picket's slots (Maglev,
 * then with single slots moved), beside what is used elsewhere: the hash modulo the number of
 * workers, and the AF_PACKET fanout's scaling of it (reciprocal_scale() in net/packet/af_packet.c).
 * What is unevenly loaded, what moves when a worker comes or goes, and how many of the flows that
 * run are cut by that.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/time.h"
#include "broker/rebalance.h"
#include "broker/slots.h"
#include "packet/hash.h"

enum { FLOWS = 100000, LANES_MAX = 16 };
#define ZIPF 1.1

static uint32_t hash_of[FLOWS];
static uint32_t load_of[FLOWS];

static void make_flows(void)
{
    double norm = 0;
    for (unsigned i = 1; i <= FLOWS; i++)
        norm += pow(i, -ZIPF);
    for (unsigned i = 0; i < FLOWS; i++) {
        uint64_t a =
            pk_hash_end4(0x0a000000 + i * 2654435761u % 65536, (uint16_t)(1024 + i % 60000), 42);
        uint64_t b = pk_hash_end4(0xc0000200 + i % 251, 443, 42);
        hash_of[i] = pk_hash_join(a, b, 6);
        /* The largest flows are capped at 2 %: what is beyond is the shunt's matter. */
        double share = pow(i + 1, -ZIPF) / norm;
        load_of[i] = (uint32_t)(1e9 * fmin(share, 0.02));
    }
}

typedef unsigned (*choose_fn)(uint32_t hash, unsigned lanes);

static unsigned modulo(uint32_t hash, unsigned lanes)
{
    return hash % lanes;
}

static unsigned fanout(uint32_t hash, unsigned lanes)
{
    return (unsigned)((uint64_t)hash * lanes >> 32);
}

static uint16_t tables[LANES_MAX + 2][PK_HASH_SLOTS + 1];

static unsigned maglev(uint32_t hash, unsigned lanes)
{
    return tables[lanes][pk_hash_slot(hash)];
}

static void fill(unsigned lanes)
{
    struct pk_broker_share shares[LANES_MAX + 2];
    uint16_t numbers[LANES_MAX + 2];
    for (unsigned i = 0; i < lanes; i++) {
        shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1 };
        numbers[i] = (uint16_t)i;
    }
    const struct pk_slots_wish wish = { .shares = shares, .numbers = numbers, .count = lanes };
    pk_slots_target(&wish, tables[lanes]);
}

static double unevenness(choose_fn choose, unsigned lanes)
{
    struct pk_broker_share shares[LANES_MAX];
    uint64_t loads[LANES_MAX] = { 0 };
    for (unsigned i = 0; i < lanes; i++)
        shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1 };
    for (unsigned i = 0; i < FLOWS; i++)
        loads[choose(hash_of[i], lanes)] += load_of[i];
    return pk_unevenness(shares, loads, lanes);
}

/* Of the flows, the share that is with another worker when there are so many instead. */
static double moved(choose_fn choose, unsigned from, unsigned to)
{
    unsigned count = 0;
    for (unsigned i = 0; i < FLOWS; i++)
        count += choose(hash_of[i], from) != choose(hash_of[i], to);
    return 100.0 * count / FLOWS;
}

/* Lane 0 dies, and comes back: its slots go to the others, and no other slot moves. */
static double moved_by_death(unsigned lanes)
{
    struct pk_broker_share shares[LANES_MAX];
    uint16_t numbers[LANES_MAX];
    static uint16_t target[PK_HASH_SLOTS + 1];
    unsigned count = 0;
    for (unsigned i = 0; i < lanes; i++) {
        shares[i] = (struct pk_broker_share){ .lane = i,
                                              .weight = 1,
                                              .part = i == 0 ? PK_PART_OUT : PK_PART_IN };
        numbers[i] = (uint16_t)i;
    }
    const struct pk_slots_wish wish = { .shares = shares, .numbers = numbers, .count = lanes };
    pk_slots_target(&wish, target);
    for (unsigned i = 0; i < FLOWS; i++)
        count += target[pk_hash_slot(hash_of[i])] != maglev(hash_of[i], lanes);
    return 100.0 * count / FLOWS;
}

struct levelled {
    double unevenness;
    size_t slots, rounds;
    double ms; /* of CPU time, each round */
};

static struct levelled level(unsigned lanes)
{
    struct pk_broker_share shares[LANES_MAX];
    struct pk_broker_slot *slots = pk_zalloc_array(PK_SLOT_COUNT, sizeof *slots);
    struct pk_rebalance *plan = pk_zalloc(sizeof *plan);
    struct levelled result = { .unevenness = 1 };
    if (slots == NULL || plan == NULL)
        exit(1);
    for (unsigned i = 0; i < lanes; i++)
        shares[i] = (struct pk_broker_share){ .lane = i, .weight = 1 };
    for (unsigned i = 0; i < PK_SLOT_COUNT; i++)
        slots[i].lane = slots[i].home = tables[lanes][i];
    for (unsigned i = 0; i < FLOWS; i++)
        slots[pk_hash_slot(hash_of[i])].load += load_of[i] / 16;
    pk_nsec begun = pk_time_monotonic();
    do {
        if (pk_rebalance(slots, shares, lanes, plan, NULL) < 0)
            exit(1);
        for (size_t i = 0; i < plan->count; i++)
            slots[plan->moves[i].slot].lane = plan->moves[i].lane;
        result.unevenness = plan->after;
        result.slots += plan->count;
        result.rounds++;
    } while (plan->count == PK_MOVES_MAX && result.rounds < 100);
    result.ms =
        (double)(pk_time_monotonic() - begun) / (double)PK_NSEC_PER_MS / (double)result.rounds;
    pk_free(slots);
    pk_free(plan);
    return result;
}

int main(void)
{
    make_flows();
    for (unsigned lanes = 1; lanes <= LANES_MAX + 1; lanes++)
        fill(lanes);
    printf("%u flows, load by Zipf (%.1f). Uneven: the most loaded worker over the mean.\n\n",
           FLOWS, ZIPF);
    printf("%5s | %7s %7s %7s | %22s | %17s %17s %17s %8s\n", "lanes", "modulo", "fanout", "picket",
           "picket, slots moved", "-1: modulo", "fanout", "picket", "dead");
    for (unsigned lanes = 2; lanes <= LANES_MAX; lanes *= 2) {
        struct levelled levelled = level(lanes);
        printf(
            "%5u | %7.2f %7.2f %7.2f | %5.2f %4zu slots %3.0f ms | %15.1f %% %15.1f %% %15.1f %% %6.1f %%\n",
            lanes, unevenness(modulo, lanes), unevenness(fanout, lanes), unevenness(maglev, lanes),
            levelled.unevenness, levelled.slots, levelled.ms, moved(modulo, lanes, lanes - 1),
            moved(fanout, lanes, lanes - 1), moved(maglev, lanes, lanes - 1),
            moved_by_death(lanes));
    }
    printf("\n+1 worker: flows that move\n");
    for (unsigned lanes = 2; lanes <= LANES_MAX; lanes *= 2)
        printf(
            "%5u -> %-3u modulo %5.1f %%, fanout %5.1f %%, picket %5.1f %% (the least there can be: %.1f %%)\n",
            lanes, lanes + 1, moved(modulo, lanes, lanes + 1), moved(fanout, lanes, lanes + 1),
            moved(maglev, lanes, lanes + 1), 100.0 / (lanes + 1));
    printf(
        "\nEstablished flows cut by a planned change: modulo and fanout all that move; picket none that ends "
        "within the group's drain time.\n");
    return 0;
}
