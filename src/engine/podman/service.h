/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How Podman's API service is started on this machine: `podman system service` on
 * <run>/podman.sock, with a configuration of our own that fits the host. The containers and images
 * are those of the machine's Podman, so that `podman ps` shows the sensors.
 */
#ifndef PICKET_ENGINE_PODMAN_SERVICE_H
#define PICKET_ENGINE_PODMAN_SERVICE_H

#include "base/common.h"
#include "base/error.h"
#include "base/paths.h"
#include "base/str.h"

/* What was found out about the host; also for 'picket doctor'. */
struct pk_podman_host {
    char cgroups[16];       /* "v1", "v2", "hybrid" */
    bool systemd;           /* systemd runs, so cgroups are its business */
    bool sys_resource;      /* CAP_SYS_RESOURCE: limits may be raised */
    uint64_t nofile, nproc; /* hard limits of this process */
    char runtime[16];       /* "crun", "runc": what will be used; "" = none is installed */
    bool podman;            /* the program is there */
};
int pk_podman_host_probe(struct pk_podman_host *ret_host, struct pk_error *err);

/* The text of containers.conf that fits host; pk_free(). NULL = out of memory. */
char *pk_podman_containers_conf(const struct pk_podman_host *host);

struct pk_podman_service {
    char *socket;        /* <run>/podman.sock */
    struct pk_strv argv; /* what to run */
    struct pk_strv env;  /* its whole environment, "K=V" */
};
/* Makes <run>, writes <run>/containers.conf and says what to start; starts nothing. A socket file
 * left by a service that is gone is removed. PK_E_NOTFOUND with a hint when Podman or a runtime
 * that works with this host's cgroups is not installed. The service is ready when its socket
 * accepts connections. */
int pk_podman_service_prepare(const struct pk_paths *paths, struct pk_podman_service *ret_service,
                              struct pk_error *err);
void pk_podman_service_done(struct pk_podman_service *service);

#endif
