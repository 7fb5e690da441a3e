/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of fragments in user space, for what includes packet/decide.h. Where the kernel has an
 * LRU map, this has a few places per hash of the key: the oldest gives way. */
#ifndef PICKET_PACKET_FRAGMENT_MEMORY_H
#define PICKET_PACKET_FRAGMENT_MEMORY_H

#include <string.h>
#include <time.h>

#include "packet/fragment.h"
#include "packet/hash.h"

#define PK_FRAGMENT_WAYS 4u

struct pk_fragment_place {
    struct pk_fragment_key key;
    struct pk_fragment_entry entry; /* time 0 = empty */
};
struct pk_fragment_memory {
    struct pk_fragment_place sets[PK_FRAGMENT_ENTRIES / PK_FRAGMENT_WAYS][PK_FRAGMENT_WAYS];
    __u64 time; /* nanoseconds; 0 = ask the clock */
};

static inline struct pk_fragment_place *pk_fragment_set(struct pk_fragment_memory *memory,
                                                        const struct pk_fragment_key *key)
{
    __u64 a = pk_hash_mix(key->src[0] ^ key->dst[1], key->src[1]);
    __u64 b = pk_hash_mix(key->dst[0] ^ a, (__u64)key->id << 32 | (key->proto ^ (__u32)key->scope));
    return memory->sets[pk_hash_join(a, b, 0) % (PK_FRAGMENT_ENTRIES / PK_FRAGMENT_WAYS)];
}

static inline struct pk_fragment_entry *pk_fragment_find(struct pk_fragment_memory *memory,
                                                         const struct pk_fragment_key *key)
{
    struct pk_fragment_place *set = pk_fragment_set(memory, key);
    for (size_t i = 0; i < PK_FRAGMENT_WAYS; i++)
        if (set[i].entry.time != 0 && memcmp(&set[i].key, key, sizeof *key) == 0)
            return &set[i].entry;
    return NULL;
}

static inline void pk_fragment_store(struct pk_fragment_memory *memory,
                                     const struct pk_fragment_key *key,
                                     const struct pk_fragment_entry *entry)
{
    struct pk_fragment_place *set = pk_fragment_set(memory, key), *to = &set[0];
    for (size_t i = 0; i < PK_FRAGMENT_WAYS; i++) {
        if (memcmp(&set[i].key, key, sizeof *key) == 0) {
            to = &set[i];
            break;
        }
        if (set[i].entry.time < to->entry.time)
            to = &set[i];
    }
    *to = (struct pk_fragment_place){ .key = *key, .entry = *entry };
}

static inline __u64 pk_fragment_now(struct pk_fragment_memory *memory)
{
    struct timespec now;
    if (memory->time != 0)
        return memory->time;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (__u64)now.tv_sec * 1000000000u + (__u64)now.tv_nsec;
}

#endif
