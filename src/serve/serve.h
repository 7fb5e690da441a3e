/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server: HTTP API over a unix socket (the kernel vouches for the peer) and, when asked, TLS
 * with bearer tokens. Owns the state, the events, the engine and the manager of one state folder.
 * docs/api/openapi.json describes every route; tests hold the two to each other.
 */
#ifndef PICKET_SERVE_SERVE_H
#define PICKET_SERVE_SERVE_H

#include "base/common.h"
#include "base/error.h"
#include "base/http.h"
#include "base/paths.h"

struct pk_serve_options {
    struct pk_paths paths;
    const char *engine;               /* as of pk_engine_open(); NULL = "podman" */
    const char *listen;               /* "ADDR:PORT" or "[ADDR]:PORT" for TLS, or NULL */
    const char *cert_file, *key_file; /* PEM, with listen */
    const char *group;                /* whose members may use the unix socket; NULL = none */
    /* pk_lane_netns_path(): see pk_manager_options. */
    char *(*lane_netns)(const char *tag, const char *fleet, const char *group, unsigned index);
};
/* The daemon: runs until SIGTERM or SIGINT, then finishes the running step and seals the events.
 * PK_E_CONFLICT when another serve has the state folder: the message names its pid. */
int pk_serve_run(const struct pk_serve_options *options, struct pk_error *err);

/* The route table, for the server and for the test that compares it with the OpenAPI file. */
const struct pk_http_route *pk_serve_routes(size_t *ret_count);

#endif
