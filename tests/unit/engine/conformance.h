/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every engine must do, whatever runs the units. test_fake.c and test_podman.c run it; each
 * brings a bench: an engine and the means to do to its units what the world may do to them.
 */
#ifndef PICKET_TESTS_ENGINE_CONFORMANCE_H
#define PICKET_TESTS_ENGINE_CONFORMANCE_H

#include "engine/engine.h"

struct bench {
    struct pk_engine *engine;
    struct pk_engine *other; /* of another instance on the same peer */
    char tag[16];
    const char *image; /* "localhost/picket/..." */
    char *digest;
    /* Makes a running unit end by itself with code 7. */
    void (*let_exit)(struct bench *bench, const char *name);
    /* The unit has written "line 1" to "line 5" when it returns. */
    void (*let_write)(struct bench *bench, const char *name);
};

/* A unit of the bench's image; argument: what the helper program does. Release with unit_free(). */
struct pk_unit *unit_new(const struct bench *bench, const char *fleet, unsigned lane,
                         const char *argument, const char *hash);
void unit_free(struct pk_unit *unit);
/* The status of a unit in the engine's list; false when it is not listed. status:
 * unit_status_done(). */
bool unit_find(struct pk_engine *engine, const char *name, struct pk_unit_status *ret_status);
void unit_status_done(struct pk_unit_status *status);
/* Waits until the unit has the state; fails the test after 10 s. */
void unit_wait(struct pk_engine *engine, const char *name, enum pk_unit_state state);

/* Runs all; *state of each is the bench. Returns the number of failures. */
int conformance_run(const char *group, int (*setup)(void **state), int (*teardown)(void **state));

#endif
