/* SPDX-License-Identifier: Apache-2.0 */
/* Podman, programs, storage, memory, clocks. */
#include "cli/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <unistd.h>

#include <linux/magic.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/engine.h"
#include "engine/podman/service.h"
#include "store/duckdb_api.h"

void pk_doctor_podman(struct pk_doctor *doctor)
{
    struct pk_error err;
    char socket[96];
    (void)snprintf(socket, sizeof(socket), "%s/podman.sock", doctor->paths.run_dir);
    PK_CLEANUP(pk_engine_free_p) struct pk_engine *engine = NULL;
    struct pk_engine_info info;
    if (pk_engine_podman_new(socket, doctor->paths.tag, &engine, &err) == 0 &&
        engine->ops->probe(engine->self, &info, &err) == 0)
        return pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "Podman %s answers on %s (%s)",
                                info.version, socket, info.runtime);

    struct pk_buf out = PK_BUF_INIT(256);
    const char *argv[] = { "podman", "--version", NULL };
    int r =
        pk_proc_check(&(struct pk_proc_options){ .argv = argv, .timeout_ms = 10000 }, &out, &err);
    if (r < 0) {
        pk_doctor_report(doctor, PK_VERDICT_FAIL, "apt-get install podman", "%s", err.msg);
    } else {
        char *end = strpbrk(out.data, "\r\n");
        if (end != NULL)
            *end = '\0';
        pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "%s; its API is started by 'picket up'",
                         out.data);
    }
    pk_buf_done(&out);
}

void pk_doctor_runtime(struct pk_doctor *doctor)
{
    struct pk_podman_host host;
    struct pk_error err;
    if (pk_podman_host_probe(&host, &err) < 0)
        return pk_doctor_report(doctor, PK_VERDICT_FAIL, err.hint, "%s", err.msg);
    if (host.runtime[0] == '\0')
        return pk_doctor_report(doctor, PK_VERDICT_FAIL, "apt-get install runc",
                                "no container runtime fits cgroups %s", host.cgroups);
    pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "%s, on cgroups %s", host.runtime, host.cgroups);
}

void pk_doctor_limits(struct pk_doctor *doctor)
{
    struct pk_podman_host host;
    struct pk_error err;
    if (pk_podman_host_probe(&host, &err) < 0)
        return pk_doctor_report(doctor, PK_VERDICT_SKIPPED, err.hint, "%s", err.msg);
    if (!host.sys_resource)
        return pk_doctor_report(
            doctor, PK_VERDICT_NOTE, NULL,
            "no CAP_SYS_RESOURCE: containers keep to the limits of this process "
            "(%llu files, %llu processes)",
            (unsigned long long)host.nofile, (unsigned long long)host.nproc);
    pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "limits may be raised");
}

static bool on_path(const char *program)
{
    const char *path = getenv("PATH");
    PK_CLEANUP(pk_free_p)
    char *copy = pk_strdup(path != NULL ? path : "/usr/sbin:/usr/bin:/sbin:/bin");
    char *rest = copy;
    for (char *dir = strsep(&rest, ":"); dir != NULL; dir = strsep(&rest, ":")) {
        PK_CLEANUP(pk_free_p) char *full = pk_path_join(dir, program);
        if (full != NULL && access(full, X_OK) == 0)
            return true;
    }
    return false;
}

void pk_doctor_programs(struct pk_doctor *doctor)
{
    static const struct {
        const char *name, *use;
    } programs[] = {
        { "mmdebstrap", "builds images from Debian packages" },
        { "conmon", "Podman's container monitor" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(programs); i++) {
        if (on_path(programs[i].name)) {
            pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "%s (%s)", programs[i].name,
                             programs[i].use);
            continue;
        }
        char fix[80];
        (void)snprintf(fix, sizeof(fix), "apt-get install %s", programs[i].name);
        pk_doctor_report(doctor, PK_VERDICT_WARN, fix, "%s is not installed: %s", programs[i].name,
                         programs[i].use);
    }
}

void pk_doctor_duckdb(struct pk_doctor *doctor)
{
    struct pk_error err;
    const struct pk_duckdb *duckdb = NULL;
    if (pk_duckdb_load(&duckdb, &err) < 0)
        return pk_doctor_report(doctor, PK_VERDICT_FAIL, err.hint, "%s", err.msg);
    pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "DuckDB %s", duckdb->library_version());
}

/* The deepest folder of path that exists. */
static void existing(const char *path, char *out, size_t size)
{
    (void)snprintf(out, size, "%s", path);
    while (access(out, F_OK) != 0 && strlen(out) > 1) {
        char *slash = strrchr(out, '/');
        if (slash == NULL || slash == out)
            (void)snprintf(out, size, "/");
        else
            *slash = '\0';
    }
}

void pk_doctor_space(struct pk_doctor *doctor)
{
    char dir[200], free_text[32], total_text[32];
    existing(doctor->paths.state_dir, dir, sizeof(dir));
    struct statvfs fs;
    if (statvfs(dir, &fs) < 0)
        return pk_doctor_report(doctor, PK_VERDICT_FAIL, NULL, "%s: %s", dir,
                                strerrorname_np(errno));
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize,
             total = (uint64_t)fs.f_blocks * fs.f_frsize;
    (void)pk_human_bytes(free_bytes, free_text, sizeof(free_text));
    (void)pk_human_bytes(total, total_text, sizeof(total_text));
    unsigned percent = total == 0 ? 0 : (unsigned)(100.0 * (double)free_bytes / (double)total);
    bool few_inodes = fs.f_files > 0 && fs.f_favail < 20000;
    enum pk_verdict verdict = PK_VERDICT_OK;
    if (free_bytes < (1ULL << 30) || (fs.f_files > 0 && fs.f_favail < 1000))
        verdict = PK_VERDICT_FAIL;
    else if (free_bytes < (10ULL << 30) || percent < 5 || few_inodes)
        verdict = PK_VERDICT_WARN;
    pk_doctor_report(doctor, verdict,
                     verdict == PK_VERDICT_OK ? NULL
                                              : "free some, or move picket with --state-dir; lower "
                                                "events.sinks.store.maxSize in the fleet",
                     "%s free of %s (%u %%) for %s%s", free_text, total_text, percent,
                     doctor->paths.state_dir, few_inodes ? ", few inodes" : "");
}

void pk_doctor_filesystem(struct pk_doctor *doctor)
{
    static const struct {
        unsigned long magic;
        const char *name;
        bool fit;
    } kinds[] = {
        { EXT4_SUPER_MAGIC, "ext4", true },   { 0x58465342, "xfs", true },
        { BTRFS_SUPER_MAGIC, "btrfs", true }, { TMPFS_MAGIC, "tmpfs", false },
        { NFS_SUPER_MAGIC, "nfs", false },    { OVERLAYFS_SUPER_MAGIC, "overlay", false },
    };
    char dir[200];
    existing(doctor->paths.state_dir, dir, sizeof(dir));
    struct statfs fs;
    if (statfs(dir, &fs) < 0)
        return pk_doctor_report(doctor, PK_VERDICT_SKIPPED, NULL, "%s: %s", dir,
                                strerrorname_np(errno));
    for (size_t i = 0; i < PK_ARRAY_SIZE(kinds); i++) {
        if ((unsigned long)fs.f_type != kinds[i].magic)
            continue;
        if (kinds[i].fit)
            return pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "%s for %s", kinds[i].name,
                                    doctor->paths.state_dir);
        return pk_doctor_report(
            doctor, PK_VERDICT_WARN, "move picket to a local disk with --state-dir",
            "%s for %s: events do not survive a reboot there, or locks and hard "
            "links may fail",
            kinds[i].name, doctor->paths.state_dir);
    }
    pk_doctor_report(doctor, PK_VERDICT_NOTE, NULL, "file system 0x%lx for %s: not tried by us",
                     (unsigned long)fs.f_type, doctor->paths.state_dir);
}

void pk_doctor_memory(struct pk_doctor *doctor)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE),
         cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (pages <= 0 || page <= 0)
        return pk_doctor_report(doctor, PK_VERDICT_SKIPPED, NULL, "unknown");
    uint64_t bytes = (uint64_t)pages * (uint64_t)page;
    char text[32];
    (void)pk_human_bytes(bytes, text, sizeof(text));
    if (bytes < (2ULL << 30))
        return pk_doctor_report(doctor, PK_VERDICT_WARN,
                                "lower the tools' memory in the fleet file",
                                "%s, %ld cores: a Suricata alone takes up to 1 GiB", text, cpus);
    pk_doctor_report(doctor, PK_VERDICT_OK, NULL, "%s, %ld cores", text, cpus);
}

void pk_doctor_clock(struct pk_doctor *doctor)
{
    PK_CLEANUP(pk_free_p) char *source = NULL;
    size_t len;
    if (pk_file_read("/sys/devices/system/clocksource/clocksource0/current_clocksource", 64,
                     &source, &len, NULL) == 0)
        source[strcspn(source, "\n")] = '\0';
    struct timex state = { 0 };
    int kind = adjtimex(&state);
    const char *name = source != NULL ? source : "unknown";
    if (kind == TIME_ERROR || (state.status & STA_UNSYNC) != 0)
        return pk_doctor_report(
            doctor, PK_VERDICT_WARN, "apt-get install chrony",
            "the clock is not synchronised: events of several machines will not "
            "line up (clock source %s)",
            name);
    pk_doctor_report(doctor, PK_VERDICT_OK, NULL,
                     "synchronised, error below %ld us, clock source %s", state.maxerror, name);
}
