/* SPDX-License-Identifier: Apache-2.0 */
/* Finds out what kind of host this is and writes Podman's configuration for it. */
#include "engine/podman/service.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fs.h"
#include "base/str.h"

extern char **environ;

static bool is_cgroup2(const char *path)
{
    struct statfs fs;
    return statfs(path, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
}

/* Runtimes live in folders that are not in every PATH. */
static bool program_there(const char *name)
{
    static const char *const folders[] = { "/usr/bin",        "/usr/sbin", "/usr/local/bin",
                                           "/usr/local/sbin", "/bin",      "/sbin" };
    char path[128];
    for (size_t i = 0; i < PK_ARRAY_SIZE(folders); i++) {
        snprintf(path, sizeof(path), "%s/%s", folders[i], name);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

static bool has_sys_resource(void)
{
    PK_CLEANUP(pk_free_p) char *status = NULL;
    size_t len;
    if (pk_file_read("/proc/self/status", 1u << 16, &status, &len, NULL) < 0)
        return false;
    const char *line = strstr(status, "\nCapEff:");
    if (line == NULL)
        return false;
    line += strlen("\nCapEff:");
    line += strspn(line, " \t");
    uint64_t capabilities;
    return pk_parse_hex(line, strcspn(line, "\n"), &capabilities, NULL) == 0 &&
           (capabilities >> CAP_SYS_RESOURCE & 1) != 0;
}

static uint64_t hard_limit(__rlimit_resource_t what)
{
    struct rlimit limit;
    if (getrlimit(what, &limit) < 0 || limit.rlim_max == RLIM_INFINITY)
        return UINT64_MAX;
    return limit.rlim_max;
}

int pk_podman_host_probe(struct pk_podman_host *ret_host, struct pk_error *err)
{
    (void)err;
    struct pk_podman_host host = { 0 };
    const char *cgroups = is_cgroup2("/sys/fs/cgroup")           ? "v2"
                          : is_cgroup2("/sys/fs/cgroup/unified") ? "hybrid"
                                                                 : "v1";
    snprintf(host.cgroups, sizeof(host.cgroups), "%s", cgroups);
    host.systemd = access("/run/systemd/system", F_OK) == 0;
    host.sys_resource = has_sys_resource();
    host.nofile = hard_limit(RLIMIT_NOFILE);
    host.nproc = hard_limit(RLIMIT_NPROC);
    host.podman = program_there("podman");
    /* crun refuses hybrid hierarchies, so there it is runc or nothing. Elsewhere both will do; crun
     * is smaller and faster. */
    const char *runtime = "";
    if (strcmp(cgroups, "hybrid") != 0 && program_there("crun"))
        runtime = "crun";
    else if (program_there("runc"))
        runtime = "runc";
    snprintf(host.runtime, sizeof(host.runtime), "%s", runtime);
    *ret_host = host;
    return 0;
}

char *pk_podman_containers_conf(const struct pk_podman_host *host)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf text = PK_BUF_INIT(1u << 16);

    pk_buf_puts(&text, "# Made by picket at each start of Podman's service.\n[containers]\n"
                       "log_driver = \"k8s-file\"\nlog_size_max = 8388608\n");
    if (!host->sys_resource) {
        /* Podman's own defaults (1048576) are above what this process may hand on. */
        uint64_t nofile = PK_MIN(host->nofile, (uint64_t)4096);
        uint64_t nproc = PK_MIN(host->nproc, (uint64_t)4096);
        pk_buf_printf(&text, "default_ulimits = [\"nofile=%llu:%llu\", \"nproc=%llu:%llu\"]\n",
                      (unsigned long long)nofile, (unsigned long long)nofile,
                      (unsigned long long)nproc, (unsigned long long)nproc);
    }
    pk_buf_printf(
        &text, "\n[engine]\ncgroup_manager = \"%s\"\nevents_logger = \"file\"\nruntime = \"%s\"\n",
        host->systemd ? "systemd" : "cgroupfs", host->runtime);
    return pk_buf_take(&text);
}

/* A socket file whose service is gone keeps the next one from binding. */
static void remove_dead_socket(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(address.sun_path))
        return;
    memcpy(address.sun_path, path, strlen(path) + 1);
    PK_CLEANUP(pk_close_p) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 &&
        errno == ECONNREFUSED)
        (void)unlink(path);
}

int pk_podman_service_prepare(const struct pk_paths *paths, struct pk_podman_service *ret_service,
                              struct pk_error *err)
{
    struct pk_podman_host host;
    int r = pk_podman_host_probe(&host, err);
    if (r < 0)
        return r;
    if (!host.podman) {
        pk_fail(err, PK_E_NOTFOUND, "Podman is not installed");
        return pk_hint(err, "apt install podman"), PK_E_NOTFOUND;
    }
    if (host.runtime[0] == '\0') {
        pk_fail(err, PK_E_NOTFOUND, "no container runtime works with %s cgroups here",
                host.cgroups);
        return pk_hint(err, "apt install runc"), PK_E_NOTFOUND;
    }
    r = pk_mkdir_p(paths->run_dir, 0755, err);
    if (r < 0)
        return pk_wrap(err, "run folder"), r;

    PK_CLEANUP(pk_free_p) char *conf = pk_podman_containers_conf(&host);
    PK_CLEANUP(pk_free_p) char *conf_path = pk_path_join(paths->run_dir, "containers.conf");
    PK_CLEANUP(pk_free_p) char *socket_path = pk_path_join(paths->run_dir, "podman.sock");
    if (conf == NULL || conf_path == NULL || socket_path == NULL)
        return pk_no_memory(err);
    r = pk_file_write(conf_path, conf, strlen(conf), 0644, err);
    if (r < 0)
        return r;
    remove_dead_socket(socket_path);

    struct pk_podman_service service = { 0 };
    static const char *const argv[] = { "podman", "--log-level=warn", "system", "service",
                                        "--time=0" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(argv) && r == 0; i++)
        r = pk_strv_add(&service.argv, argv[i]);
    if (r == 0)
        r = pk_strv_addf(&service.argv, "unix://%s", socket_path);
    for (char **at = environ; *at != NULL && r == 0; at++)
        if (!pk_str_starts(*at, "CONTAINERS_CONF=") && !pk_str_starts(*at, "CONTAINER_HOST="))
            r = pk_strv_add(&service.env, *at);
    if (r == 0)
        r = pk_strv_addf(&service.env, "CONTAINERS_CONF=%s", conf_path);
    if (r < 0) {
        pk_podman_service_done(&service);
        return pk_no_memory(err);
    }
    service.socket = PK_TAKE(socket_path);
    *ret_service = service;
    return 0;
}

void pk_podman_service_done(struct pk_podman_service *service)
{
    pk_strv_done(&service->argv);
    pk_strv_done(&service->env);
    pk_free(service->socket);
    memset(service, 0, sizeof(*service));
}
