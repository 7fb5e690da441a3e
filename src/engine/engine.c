/* SPDX-License-Identifier: Apache-2.0 */
/* What all engines share. */
#include "engine/engine.h"

#include <string.h>

#include "base/alloc.h"
#include "engine/internal.h"

const char *pk_unit_state_name(enum pk_unit_state state)
{
    switch (state) {
    case PK_UNIT_CREATED:
        return "created";
    case PK_UNIT_RUNNING:
        return "running";
    case PK_UNIT_EXITED:
        return "exited";
    }
    return "unknown";
}

void pk_unit_status_done(struct pk_unit_status *status)
{
    pk_free(status->name);
    pk_free(status->id);
    pk_free(status->fleet);
    pk_free(status->group);
    pk_free(status->tool);
    pk_free(status->hash);
    pk_free(status->image_digest);
    json_decref(status->unit);
    memset(status, 0, sizeof(*status));
}

void pk_unit_status_list_free(struct pk_unit_status *list, size_t count)
{
    if (list == NULL)
        return;
    for (size_t i = 0; i < count; i++)
        pk_unit_status_done(&list[i]);
    pk_free(list);
}

void pk_engine_free(struct pk_engine *engine)
{
    if (engine == NULL)
        return;
    if (engine->ops != NULL && engine->self != NULL)
        engine->ops->free(engine->self);
    pk_free(engine);
}

int pk_engine_open(const char *spec, const char *default_socket, const char *tag,
                   struct pk_engine **ret_engine, struct pk_error *err)
{
    static const char podman[] = "podman:";

    if (strcmp(spec, "fake") == 0)
        return pk_engine_fake_new(tag, ret_engine, err);
    if (strcmp(spec, "podman") == 0)
        return pk_engine_podman_new(default_socket, tag, ret_engine, err);
    if (strncmp(spec, podman, sizeof(podman) - 1) == 0 && spec[sizeof(podman) - 1] == '/')
        return pk_engine_podman_new(spec + sizeof(podman) - 1, tag, ret_engine, err);
    pk_fail(err, PK_E_USAGE, "there is no engine '%s'", spec);
    return pk_hint(err, "write podman, podman:/path/to/socket or fake");
}
