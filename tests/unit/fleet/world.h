/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world for a manager: an agent that keeps its plane in memory and speaks the agent's HTTP API
 * over a real socket, an engine whose containers are files in a folder (so that they outlive a
 * killed manager), state and run folders, and the catalog of tests/data/plans.
 */
#ifndef PICKET_TESTS_FLEET_WORLD_H
#define PICKET_TESTS_FLEET_WORLD_H

#include "pk_test.h"

#include <pthread.h>

#include "base/http.h"
#include "base/paths.h"
#include "engine/engine.h"
#include "fleet/fleet.h"

struct world {
    char dir[64];
    char socket[96];
    struct pk_paths paths;
    struct pk_http_server *server;
    pthread_mutex_t lock;          /* of all below */
    json_t *taps, *lanes, *groups; /* key -> row */
    json_t *interfaces;            /* list of names */
    unsigned delay_ms;             /* of each answer */
    char *fail_path;               /* calls whose "METHOD path" begins so fail */
    unsigned long changes;         /* calls that changed something */
    json_t *canaries;              /* lane -> what was told of its canaries last */
    json_t *log;                   /* "METHOD path" of changing calls, in order */
};

int world_setup(void **state);
int world_teardown(void **state);
void world_agent_start(struct world *world);
void world_agent_stop(struct world *world);
void world_fail(struct world *world, const char *path); /* NULL = no more */
bool world_logged(struct world *world, const char *call);
void world_clear_log(struct world *world);

struct pk_catalog *world_catalog(void);
/* Containers as files below <dir>/containers. */
int world_engine(const struct world *world, struct pk_engine **ret_engine);

/* One life of a manager. */
struct life {
    struct world *world;
    struct pk_catalog *catalog;
    struct pk_state *state;
    struct pk_engine *engine;
    struct pk_manager *manager;
};
/* engine NULL = the one of files. It is taken. */
void life_begin(struct life *life, struct world *world, struct pk_engine *engine);
void life_end(struct life *life);
/* Plans and applies; returns the code and what it was told. */
int life_plan(struct life *life, const char *document, char id[13], struct pk_error *err);
int life_apply(struct life *life, const char *document, uint64_t *ret_revision,
               struct pk_error *err);
/* Applies and waits until the revision ends; its outcome. */
void life_apply_ok(struct life *life, const char *document);
json_t *life_wait_outcome(struct life *life, const char *fleet, uint64_t revision);
/* Waits until the fleet's state is so; fails the test after 20 s. The status. */
json_t *life_wait_state(struct life *life, const char *fleet, const char *state);
json_t *life_status(struct life *life, const char *fleet);

#endif
