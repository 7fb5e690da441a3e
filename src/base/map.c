/* SPDX-License-Identifier: Apache-2.0 */
/* Entries stand in insertion order in one array; a table of 2^n slots holds their positions + 1,
 * with linear probing, at most half full. Removing rebuilds the table: it is rare. */
#include "base/map.h"

#include <sodium.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

struct entry {
    char *key;
    void *value;
    uint64_t hash;
};

struct pk_map {
    struct entry *entries;
    size_t count, capacity;
    uint32_t *slots;
    size_t slot_count; /* a power of two, 0 at first */
    void (*free_value)(void *);
    unsigned char seed[crypto_shorthash_KEYBYTES];
};

struct pk_map *pk_map_new(void (*free_value)(void *))
{
    struct pk_map *map = pk_zalloc(sizeof(*map));
    if (map == NULL)
        return NULL;
    map->free_value = free_value;
    randombytes_buf(map->seed, sizeof(map->seed));
    return map;
}

static void free_entry(struct pk_map *map, struct entry *entry)
{
    if (map->free_value != NULL)
        map->free_value(entry->value);
    pk_free(entry->key);
}

void pk_map_free(struct pk_map *map)
{
    if (map == NULL)
        return;
    for (size_t i = 0; i < map->count; i++)
        free_entry(map, &map->entries[i]);
    pk_free(map->entries);
    pk_free(map->slots);
    pk_free(map);
}

static uint64_t hash_of(const struct pk_map *map, const char *key)
{
    uint64_t hash;
    (void)crypto_shorthash((unsigned char *)&hash, (const unsigned char *)key, strlen(key),
                           map->seed);
    return hash;
}

static struct entry *find(const struct pk_map *map, const char *key, uint64_t hash)
{
    if (map->slot_count == 0)
        return NULL;
    for (size_t i = hash & (map->slot_count - 1); map->slots[i] != 0;
         i = (i + 1) & (map->slot_count - 1)) {
        struct entry *entry = &map->entries[map->slots[i] - 1];
        if (entry->hash == hash && strcmp(entry->key, key) == 0)
            return entry;
    }
    return NULL;
}

static void place(struct pk_map *map, size_t index)
{
    size_t i = map->entries[index].hash & (map->slot_count - 1);
    while (map->slots[i] != 0)
        i = (i + 1) & (map->slot_count - 1);
    map->slots[i] = (uint32_t)(index + 1);
}

static void refill(struct pk_map *map)
{
    memset(map->slots, 0, map->slot_count * sizeof(*map->slots));
    for (size_t i = 0; i < map->count; i++)
        place(map, i);
}

/* Room for one more entry, in both arrays. */
static int grow(struct pk_map *map)
{
    if (map->count == map->capacity) {
        size_t capacity = PK_MAX(map->capacity * 2, (size_t)8);
        struct entry *grown = pk_realloc_array(map->entries, capacity, sizeof(*grown));
        if (grown == NULL || capacity > UINT32_MAX / 2) {
            map->entries = grown != NULL ? grown : map->entries;
            return PK_E_NOMEM;
        }
        map->entries = grown;
        map->capacity = capacity;
    }
    if ((map->count + 1) * 2 > map->slot_count) {
        size_t slot_count = PK_MAX(map->slot_count * 2, (size_t)16);
        uint32_t *slots = pk_zalloc_array(slot_count, sizeof(*slots));
        if (slots == NULL)
            return PK_E_NOMEM;
        pk_free(map->slots);
        map->slots = slots;
        map->slot_count = slot_count;
        refill(map);
    }
    return 0;
}

int pk_map_set_take(struct pk_map *map, const char *key, void *value)
{
    uint64_t hash = hash_of(map, key);
    struct entry *entry = find(map, key, hash);
    if (entry != NULL) {
        if (map->free_value != NULL && entry->value != value)
            map->free_value(entry->value);
        entry->value = value;
        return 0;
    }
    if (grow(map) < 0)
        return PK_E_NOMEM;
    char *copy = pk_strdup(key);
    if (copy == NULL)
        return PK_E_NOMEM;
    map->entries[map->count] = (struct entry){ .key = copy, .value = value, .hash = hash };
    place(map, map->count++);
    return 0;
}

void *pk_map_get(const struct pk_map *map, const char *key)
{
    const struct entry *entry = find(map, key, hash_of(map, key));
    return entry == NULL ? NULL : entry->value;
}

bool pk_map_remove(struct pk_map *map, const char *key)
{
    struct entry *entry = find(map, key, hash_of(map, key));
    if (entry == NULL)
        return false;
    free_entry(map, entry);
    size_t behind = map->count - (size_t)(entry - map->entries) - 1;
    memmove(entry, entry + 1, behind * sizeof(*entry));
    map->count--;
    refill(map);
    return true;
}

size_t pk_map_count(const struct pk_map *map)
{
    return map->count;
}

void pk_map_at(const struct pk_map *map, size_t index, const char **ret_key, void **ret_value)
{
    *ret_key = map->entries[index].key;
    *ret_value = map->entries[index].value;
}
