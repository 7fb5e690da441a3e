/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The balance of a group: when its lanes are uneven for a while, the load of single slots is
 * measured, and a few of them move from the hottest lane to the coldest, by draining, so that no
 * flow is cut. They go home when the load would be even without.
 */
#ifndef PICKET_NODE_LEVEL_H
#define PICKET_NODE_LEVEL_H

#include "base/common.h"

enum pk_level_state {
    PK_LEVEL_OFF,
    PK_LEVEL_EVEN,
    PK_LEVEL_MEASURES, /* slots' loads are counted */
    PK_LEVEL_ELEPHANT  /* one slot is the load: moving does not help */
};
struct pk_level {
    enum pk_level_state state;
    double unevenness; /* of the last second */
    size_t moved;      /* slots that are not at home */
    char said[120];    /* "" or what moving cannot help */
    /* not for others */
    uint64_t *loads; /* of the lanes, at the last look */
    size_t load_count;
    pk_nsec uneven_since, measures_since, next_at, home_at;
};

#endif
