/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of the Podman engine: what is said to libpod's REST API and how its answers are
 * read. Answers are outside input: every field may be absent, of another type or absurdly large.
 */
#ifndef PICKET_ENGINE_PODMAN_INTERNAL_H
#define PICKET_ENGINE_PODMAN_INTERNAL_H

#include <jansson.h>

#include "base/buf.h"
#include "base/error.h"
#include "engine/engine.h"

#define PK_LABEL_INSTANCE "io.picket.instance"
#define PK_LABEL_FLEET    "io.picket.fleet"
#define PK_LABEL_GROUP    "io.picket.group"
#define PK_LABEL_LANE     "io.picket.lane"
#define PK_LABEL_TOOL     "io.picket.tool"
#define PK_LABEL_HASH     "io.picket.hash"
#define PK_LABEL_UNIT     "io.picket.unit"

/* ---- say.c ---- */

/* The SpecGenerator that makes unit's container; NULL = out of memory. */
json_t *pk_podman_spec(const struct pk_unit *unit, const char *tag);

/* ---- hear.c ---- */

/* The answer of GET containers/json. Entries that are not of instance tag are left out. */
int pk_podman_read_list(const json_t *answer, const char *tag, struct pk_unit_status **ret_list,
                        size_t *ret_count, struct pk_error *err);
/* Takes out of GET containers/NAME/json what the list does not tell: why it ended, when exactly it
 * started. */
void pk_podman_read_inspect(const json_t *answer, struct pk_unit_status *status);
/* The full version of the tool in an image (answer of GET images/NAME/json): a label of ours. ""
 * when it is absent or no version; NULL = out of memory. */
char *pk_podman_read_release(const json_t *answer);
/* The error of an answer with a status of 400 and more: {"cause","message","response"}, or anything
 * else. what: "container X", "image Y". Returns the code. */
int pk_podman_read_error(const char *what, unsigned http_status, const char *body, size_t len,
                         struct pk_error *err);
/* Podman sends output of a container in frames: stream (1 byte), 3 zero bytes, length (4 bytes, big
 * endian), data. Appends the data to out; returns false when the bytes are no such frames. A frame
 * that is cut off is taken as far as it goes. */
bool pk_podman_unframe(const char *data, size_t len, struct pk_buf *out);

#endif
