/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shipper: follows the tools' logs and delivers them, each record exactly once.
 *
 * A log file is known by its inode, birth time and first line, whatever its name. It is pinned by a
 * hard link in <dir>/hold until all of it is sealed in the store, so a tool that rotates, renames
 * or deletes it loses nothing. Where delivery stands is kept by the store alone, together with the
 * events; the shipper asks for it at the start. While the store is away, the files are the buffer.
 */
#ifndef PICKET_SHIP_SHIP_H
#define PICKET_SHIP_SHIP_H

#include <jansson.h>
#include <stdatomic.h>

#include "base/common.h"
#include "base/error.h"
#include "base/http.h"

/* Where batches go. Both are as of pk_events_sources() and pk_events_ingest(). */
struct pk_ship_sink {
    int (*sources)(void *arg, json_t **ret_reply, struct pk_error *err);
    int (*deliver)(void *arg, const void *data, size_t len, json_t **ret_reply,
                   struct pk_error *err);
    void *arg;
    /* {"canaries":[{"fleet","group","lane","tool","number","delayMs"}]}: what was read of them
     * (they are no events), and that the shipper works. NULL = nobody wants to know. */
    int (*canaries)(void *arg, const json_t *seen, struct pk_error *err);
};
/* The server's /v1/ingest; the client is borrowed. */
struct pk_ship_sink pk_ship_http_sink(struct pk_http_client *client);

struct pk_ship_options {
    const char *dir; /* <state>/ship: sources.json is read there, hold/ is kept there */
    struct pk_ship_sink sink;
    pk_nsec keep; /* sealed logs that are complete are deleted after this time */
};
struct pk_ship;
int pk_ship_new(const struct pk_ship_options *options, struct pk_ship **ret_ship,
                struct pk_error *err);
void pk_ship_free(struct pk_ship *ship);
PK_DEFINE_CLEANUP(struct pk_ship, pk_ship_free);
/* One round over all files: finds, reads, delivers at most one batch of each. *ret_more: there is
 * more to read right away. Trouble that passes by itself is logged, counted and tried again in a
 * later round. */
int pk_ship_step(struct pk_ship *ship, bool *ret_more, struct pk_error *err);
/* Rounds until *stop is set. */
int pk_ship_run(struct pk_ship *ship, atomic_bool *stop, struct pk_error *err);

struct pk_ship_numbers {
    uint64_t events, invalid, bytes, lost_bytes, batches, retries;
    uint64_t canaries; /* records of canaries, which are not delivered */
    size_t files, pinned;
};
struct pk_ship_numbers pk_ship_numbers(const struct pk_ship *ship);

#endif
