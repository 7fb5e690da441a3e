/* SPDX-License-Identifier: Apache-2.0 */
/* A hash map from text to pointer, in insertion order when iterated. Seeded (SipHash of libsodium),
 * so keys from outside cannot make it slow. Not thread safe. */
#ifndef PICKET_BASE_MAP_H
#define PICKET_BASE_MAP_H

#include "base/common.h"

struct pk_map;

/* free_value may be NULL. */
struct pk_map *pk_map_new(void (*free_value)(void *));
void pk_map_free(struct pk_map *map);
PK_DEFINE_CLEANUP(struct pk_map, pk_map_free);
/* Copies key, takes value (an old value is released). 0 or PK_E_NOMEM (value is then not taken). */
int pk_map_set_take(struct pk_map *map, const char *key, void *value);
void *pk_map_get(const struct pk_map *map, const char *key); /* NULL if absent */
bool pk_map_remove(struct pk_map *map, const char *key);
size_t pk_map_count(const struct pk_map *map);
/* Entry by position 0..count-1; valid until the next change. */
void pk_map_at(const struct pk_map *map, size_t index, const char **ret_key, void **ret_value);

#endif
