/* SPDX-License-Identifier: Apache-2.0 */
/* The command lines of what the supervisor runs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "cli/supervisor.h"
#include "engine/podman/service.h"

static int self_path(char *out, size_t size, struct pk_error *err)
{
    ssize_t len = readlink("/proc/self/exe", out, size - 1);
    if (len < 0)
        return pk_fail_errno(err, errno, "/proc/self/exe");
    out[len] = '\0';
    /* The binary was replaced while we run: the new one is at the old place. */
    static const char deleted[] = " (deleted)";
    size_t mark = sizeof(deleted) - 1;
    if ((size_t)len > mark && strcmp(out + len - mark, deleted) == 0)
        out[(size_t)len - mark] = '\0';
    return 0;
}

void pk_service_command_done(struct pk_service_command *command)
{
    pk_strv_done(&command->argv);
    pk_strv_done(&command->env);
}

static int podman_command(const struct pk_paths *paths, struct pk_service_command *ret_command,
                          struct pk_error *err)
{
    struct pk_podman_service service = { 0 };
    int r = pk_podman_service_prepare(paths, &service, err);
    if (r < 0)
        return r;
    ret_command->argv = service.argv;
    ret_command->env = service.env;
    service.argv = service.env = (struct pk_strv){ 0 };
    pk_podman_service_done(&service);
    return 0;
}

int pk_service_command(const struct pk_paths *paths, const char *engine, const char *name,
                       struct pk_service_command *ret_command, struct pk_error *err)
{
    if (strcmp(name, "podman") == 0)
        return podman_command(paths, ret_command, err);
    PK_CLEANUP(pk_strv_done) struct pk_strv argv = { 0 };
    char self[4096];
    int r = self_path(self, sizeof(self), err);
    if (r < 0)
        return r;
    r |= pk_strv_add(&argv, self);
    r |= pk_strv_add(&argv, name);
    r |= pk_strv_addf(&argv, "--state-dir=%s", paths->state_dir);
    r |= pk_strv_addf(&argv, "--run-dir=%s", paths->run_dir);
    if (strcmp(name, "serve") == 0 || strcmp(name, "supervise") == 0)
        r |= pk_strv_addf(&argv, "--engine=%s", engine);
    if (r < 0)
        return pk_no_memory(err);
    *ret_command = (struct pk_service_command){ .argv = argv };
    argv = (struct pk_strv){ 0 };
    return 0;
}

int pk_service_start(const struct pk_paths *paths, const char *engine, const char *name,
                     pid_t *ret_pid, struct pk_error *err)
{
    PK_CLEANUP(pk_service_command_done) struct pk_service_command command = { 0 };
    PK_CLEANUP(pk_free_p) char *log = pk_up_path(paths, name, ".log");
    PK_CLEANUP(pk_free_p) char *folder = pk_path_join(paths->run_dir, "up");
    if (log == NULL || folder == NULL)
        return pk_no_memory(err);
    int r = pk_service_command(paths, engine, name, &command, err);
    if (r < 0)
        return r;
    const struct pk_daemon_options options = {
        .argv = (const char *const *)command.argv.list,
        .env = command.env.count == 0 ? NULL : (const char *const *)command.env.list,
        .log_path = log,
        /* conmon leaves a file "oom" where Podman's service was started. */
        .cwd = strcmp(name, "podman") == 0 ? folder : NULL,
    };
    return pk_proc_spawn_daemon(&options, ret_pid, err);
}
