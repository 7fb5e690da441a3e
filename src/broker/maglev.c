/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/maglev.h"

#include <string.h>

#include "packet/hash.h"

/* A lane's way through the slots follows from its number alone, so that it walks the same way
 * whatever other lanes there are. */
static uint32_t walk(unsigned lane, uint64_t salt, uint32_t modulus)
{
    return (uint32_t)(pk_hash_mix(pk_hash_mix(lane, salt), ~salt) % modulus);
}

/* The lane's next free slot. There is one. */
static uint32_t next_free(unsigned lane, uint32_t *at, const uint16_t *slots)
{
    uint32_t step = walk(lane, 0x51ed270b7f4a7c15u, PK_SLOT_COUNT - 1) + 1;
    while (slots[*at] != PK_MAGLEV_EMPTY)
        *at = (*at + step) % PK_SLOT_COUNT; /* prime: comes by every slot */
    return *at;
}

void pk_maglev_fill(const struct pk_broker_share *shares, size_t count, uint16_t *slots)
{
    memset(slots, 0xff, PK_SLOT_COUNT * sizeof *slots);
    uint32_t at[PK_BROKER_LANES_MAX];
    uint64_t credit[PK_BROKER_LANES_MAX];
    size_t order[PK_BROKER_LANES_MAX];
    count = PK_MIN(count, PK_BROKER_LANES_MAX);
    unsigned heaviest = 0;
    for (size_t i = 0; i < count; i++) {
        heaviest = PK_MAX(heaviest, shares[i].weight);
        at[i] = walk(shares[i].lane, 0x2545f4914f6cdd1du, PK_SLOT_COUNT);
        credit[i] = 0;
        size_t k = i; /* by lane, whatever the list's order */
        for (; k > 0 && shares[order[k - 1]].lane > shares[i].lane; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
    if (heaviest == 0)
        return;
    /* Each round the heaviest lanes take one slot, the others one as often as their weight says. */
    for (uint32_t left = PK_SLOT_COUNT; left > 0;) {
        for (size_t k = 0; k < count && left > 0; k++) {
            size_t i = order[k];
            credit[i] += shares[i].weight;
            if (credit[i] < heaviest)
                continue;
            credit[i] -= heaviest;
            slots[next_free(shares[i].lane, &at[i], slots)] = (uint16_t)i;
            left--;
        }
    }
}
