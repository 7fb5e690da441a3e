/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine in memory: for tests of whatever drives an engine, and for trying picket without
 * Podman. A started unit runs until it is stopped, killed or told to exit. Every image below
 * "localhost/picket/" is there unless taken away. The levers may be pulled from any thread.
 */
#ifndef PICKET_ENGINE_FAKE_FAKE_H
#define PICKET_ENGINE_FAKE_FAKE_H

#include "engine/engine.h"

enum pk_fake_op {
    PK_FAKE_PROBE,
    PK_FAKE_LIST,
    PK_FAKE_CREATE,
    PK_FAKE_START,
    PK_FAKE_STOP,
    PK_FAKE_KILL,
    PK_FAKE_REMOVE,
    PK_FAKE_LOGS,
    PK_FAKE_EXEC,
    PK_FAKE_IMAGE,
    PK_FAKE_WAIT,
    PK_FAKE_OPS
};

bool pk_engine_is_fake(const struct pk_engine *engine);
/* A running unit ends by itself. PK_E_NOTFOUND or PK_E_CONFLICT (not running). */
int pk_fake_exit(struct pk_engine *engine, const char *name, int exit_code, bool oom_killed,
                 struct pk_error *err);
/* As if someone had removed the container behind our back. Absent is PK_E_NOTFOUND. */
int pk_fake_vanish(struct pk_engine *engine, const char *name, struct pk_error *err);
/* Appends a line to what the unit wrote. */
int pk_fake_write_log(struct pk_engine *engine, const char *name, const char *line,
                      struct pk_error *err);
/* The next times calls of op fail with code; times 0 ends it. UINT_MAX = always. */
void pk_fake_fail(struct pk_engine *engine, enum pk_fake_op op, int code, unsigned times);
/* Every call of op takes ms longer. */
void pk_fake_delay(struct pk_engine *engine, enum pk_fake_op op, unsigned ms);
/* Takes an image away or brings it back. At most 16 are away at a time. */
int pk_fake_image_missing(struct pk_engine *engine, const char *image, bool missing,
                          struct pk_error *err);
/* Calls of op so far. */
unsigned long pk_fake_calls(struct pk_engine *engine, enum pk_fake_op op);

#endif
