/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 'picket up' where systemd does not run: one process of its own session keeps Podman's API
 * service, the agent, the server and the shipper running. It owns nothing that its death would take
 * along: the processes go on, and the next supervisor takes them over by their pid files and
 * sockets.
 *
 *   <run>/up/lock            held by the supervisor
 *   <run>/up/<name>.pid      "PID START" of each process and of the supervisor
 *   <run>/up/<name>.log      their output, the last LOG_MAX bytes and as many before that in .log.1
 *   <run>/up/state.json {"pid","engine","startedAt","processes":[{"name","pid","state","restarts",
 *                             "reason","since","log"}]}; state: starting|ready|waiting
 */
#ifndef PICKET_CLI_SUPERVISOR_H
#define PICKET_CLI_SUPERVISOR_H

#include <jansson.h>

#include "base/paths.h"
#include "base/proc.h"
#include "base/str.h"

struct pk_service {
    const char *name;   /* "node" */
    const char *socket; /* in the run folder: ready when it answers; NULL = when it runs */
};
/* In the order of start: podman (only with that engine), node, serve, ship. */
#define PK_SERVICES_MAX 4u
size_t pk_services(const char *engine, struct pk_service services[PK_SERVICES_MAX]);

/* <run>/up/<name><suffix>; pk_free(), NULL when out of memory. */
char *pk_up_path(const struct pk_paths *paths, const char *name, const char *suffix);
/* What a service (or "supervise") is started as. An empty env is the caller's own. */
struct pk_service_command {
    struct pk_strv argv, env;
};
int pk_service_command(const struct pk_paths *paths, const char *engine, const char *name,
                       struct pk_service_command *ret_command, struct pk_error *err);
void pk_service_command_done(struct pk_service_command *command);
/* Starts it in a session of its own, its output appended to <run>/up/<name>.log. */
int pk_service_start(const struct pk_paths *paths, const char *engine, const char *name,
                     pid_t *ret_pid, struct pk_error *err);
/* The process that runs a service: by its pid file, or as the one that listens on its socket. False
 * when there is none. */
bool pk_service_find(const struct pk_paths *paths, const struct pk_service *service,
                     struct pk_proc_id *ret_id);
bool pk_service_ready(const struct pk_paths *paths, const struct pk_service *service);
/* Does something accept connections on <run>/<socket>? *ret_pid: who listens. */
bool pk_socket_answers(const struct pk_paths *paths, const char *socket, pid_t *ret_pid);

/* The supervisor: until SIGTERM, which leaves everything running ('picket down' ends it). SIGHUP:
 * start at once what waits. PK_E_CONFLICT when one runs already. */
int pk_supervise(const struct pk_paths *paths, const char *engine, struct pk_error *err);

#endif
