/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs units. Every function may block and may be called from any thread; one engine serialises
 * internally what its peer needs serialised. All operations are idempotent.
 */
#ifndef PICKET_ENGINE_ENGINE_H
#define PICKET_ENGINE_ENGINE_H

#include <jansson.h>

#include "base/buf.h"
#include "base/common.h"
#include "base/error.h"
#include "plan/plan.h"

enum pk_unit_state { PK_UNIT_CREATED, PK_UNIT_RUNNING, PK_UNIT_EXITED };
const char *pk_unit_state_name(enum pk_unit_state state);

struct pk_unit_status {
    char *name, *id;
    char *fleet, *group, *tool, *hash; /* from labels io.picket.* */
    unsigned lane;
    enum pk_unit_state state;
    int exit_code;
    bool oom_killed;    /* as far as the engine knows: Podman on cgroups v1 often does not */
    bool end_unseen;    /* whatever watched it was gone before it: exit_code says nothing */
    pid_t pid;          /* 0 when not running */
    pk_nsec started_at; /* 0 = never */
    char *image_digest;
    json_t *unit; /* label io.picket.unit parsed, or NULL */
};
void pk_unit_status_list_free(struct pk_unit_status *list, size_t count);

struct pk_engine;

struct pk_engine_info {
    char name[16]; /* "podman", "fake" */
    char version[32];
    char runtime[32]; /* "runc 1.1.5" */
    char cgroups[16]; /* "v1", "v2", "hybrid" */
};

struct pk_engine_ops {
    /* Is the engine there? Changes nothing. PK_E_UNREACHABLE with a hint otherwise. */
    int (*probe)(void *self, struct pk_engine_info *ret_info, struct pk_error *err);
    /* All units of this instance (label io.picket.instance = tag), of one fleet unless NULL. */
    int (*list)(void *self, const char *fleet, struct pk_unit_status **ret_list, size_t *ret_count,
                struct pk_error *err);
    /* Creates the container; one of the same name with another hash is replaced, with the same hash
     * left alone. The mounts' sources exist already. Does not start it. */
    int (*create)(void *self, const struct pk_unit *unit, struct pk_error *err);
    int (*start)(void *self, const char *name, struct pk_error *err); /* running = success */
    int (*stop)(void *self, const char *name, unsigned timeout_ms, struct pk_error *err);
    int (*kill)(void *self, const char *name, int signo, struct pk_error *err);
    int (*remove)(void *self, const char *name, struct pk_error *err); /* also running; absent ok */
    /* The last lines of stdout and stderr. */
    int (*logs)(void *self, const char *name, unsigned lines, struct pk_buf *out,
                struct pk_error *err);
    int (*exec)(void *self, const char *name, const char *const *argv, unsigned timeout_ms,
                struct pk_buf *out, int *ret_exit_code, struct pk_error *err);
    /* "localhost/picket/suricata:7" -> "sha256:..." (image id) and the full version of the tool in
     * it (PK_IMAGE_LABEL_RELEASE, "" when it does not say; NULL = not asked). PK_E_NOTFOUND with a
     * hint.
     */
    int (*image_find)(void *self, const char *image, char **ret_digest, char **ret_release,
                      struct pk_error *err);
    /* Blocks until a unit of this instance changed state or timeout_ms passed; *ret_changed. */
    int (*wait_change)(void *self, unsigned timeout_ms, bool *ret_changed, struct pk_error *err);
    void (*free)(void *self);
};

struct pk_engine {
    const struct pk_engine_ops *ops;
    void *self;
};
void pk_engine_free(struct pk_engine *engine); /* NULL is fine */
PK_DEFINE_CLEANUP(struct pk_engine, pk_engine_free);

/* tag: of pk_paths, becomes label io.picket.instance. socket: path of libpod's REST socket. Does
 * not connect yet. */
int pk_engine_podman_new(const char *socket, const char *tag, struct pk_engine **ret_engine,
                         struct pk_error *err);
/* In memory. Units "run" until told otherwise; see engine/fake/fake.h for its levers. */
int pk_engine_fake_new(const char *tag, struct pk_engine **ret_engine, struct pk_error *err);
/* "podman", "podman:/path/to/socket", "fake". default_socket is for plain "podman". */
int pk_engine_open(const char *spec, const char *default_socket, const char *tag,
                   struct pk_engine **ret_engine, struct pk_error *err);

#endif
