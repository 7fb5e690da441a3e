/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the agent. A connection per call: it is a unix socket, and calls are few. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/json.h"
#include "fleet/internal.h"

int pk_fleet_agent_call(struct pk_manager *manager, unsigned timeout_ms, const char *method,
                        json_t *body_take, json_t **ret_json, struct pk_error *err,
                        const char *path_fmt, ...)
{
    PK_JSON body = body_take;
    va_list args;
    va_start(args, path_fmt);
    PK_CLEANUP(pk_free_p) char *path = pk_vasprintf(path_fmt, args);
    va_end(args);
    if (path == NULL)
        return pk_no_memory(err);

    struct pk_error trouble = { 0 };
    PK_CLEANUP(pk_http_client_free_p) struct pk_http_client *client = NULL;
    const struct pk_http_client_options options = { .base_url = manager->node_url,
                                                    .timeout_ms = timeout_ms,
                                                    .connect_timeout_ms = 1000 };
    int r = pk_http_client_new(&options, &client, &trouble);
    if (r >= 0)
        r = pk_http_json(client, method, path, body, ret_json, &trouble);
    if (r >= 0)
        return 0;
    if (r == PK_E_UNREACHABLE || r == PK_E_TIMEOUT) {
        (void)pk_wrap(&trouble, "the agent");
        (void)pk_hint(&trouble, "is 'picket node' running with the same run folder? 'picket up' or "
                                "'systemctl start picket-node' starts it");
    }
    if (err != NULL)
        *err = trouble;
    return r;
}
