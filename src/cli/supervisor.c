/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/time.h"

#define TICK        (250 * PK_NSEC_PER_MS)
#define BACKOFF_MIN (500 * PK_NSEC_PER_MS)
#define BACKOFF_MAX (30 * PK_NSEC_PER_SEC)
/* A process that ran this long starts its back-off anew. */
#define STABLE_AFTER (60 * PK_NSEC_PER_SEC)
#define LOG_MAX      (8u << 20)
#define LOG_TICKS    20u /* logs are measured every 5 s */

struct child {
    struct pk_service service;
    bool running, ready;
    bool unreachable; /* somebody removed its socket: it was told to end */
    struct pk_proc_id id;
    unsigned restarts;
    pk_nsec started_at; /* monotonic */
    pk_nsec next_start, backoff;
    pk_nsec since; /* of the state, wall clock */
    char reason[160];
};

struct supervisor {
    const struct pk_paths *paths;
    const char *engine;
    struct pk_loop *loop;
    struct child children[PK_SERVICES_MAX];
    size_t count;
    pk_nsec started_at;
    unsigned ticks;
    bool changed; /* state.json is behind */
};

size_t pk_services(const char *engine, struct pk_service services[PK_SERVICES_MAX])
{
    size_t count = 0;
    if (strcmp(engine, "podman") == 0)
        services[count++] = (struct pk_service){ "podman", "podman.sock" };
    services[count++] = (struct pk_service){ "node", "node.sock" };
    services[count++] = (struct pk_service){ "serve", "serve.sock" };
    services[count++] = (struct pk_service){ "ship", NULL };
    return count;
}

char *pk_up_path(const struct pk_paths *paths, const char *name, const char *suffix)
{
    return pk_asprintf("%s/up/%s%s", paths->run_dir, name, suffix);
}

bool pk_socket_answers(const struct pk_paths *paths, const char *socket_name, pid_t *ret_pid)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int len =
        snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", paths->run_dir, socket_name);
    PK_CLEANUP(pk_close_p) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || len < 0 || (size_t)len >= sizeof(address.sun_path) ||
        connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return false;
    struct ucred peer = { 0 };
    socklen_t size = sizeof(peer);
    if (ret_pid != NULL)
        *ret_pid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
    return true;
}

bool pk_service_ready(const struct pk_paths *paths, const struct pk_service *service)
{
    return service->socket == NULL || pk_socket_answers(paths, service->socket, NULL);
}

/* Is the process one that we could have started? A socket that systemd listens on and hands over
 * has systemd as its peer. */
static bool may_be_ours(pid_t pid, const char *service)
{
    char path[64], name[32] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    PK_CLEANUP(pk_close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd >= 0 ? read(fd, name, sizeof(name) - 1) : -1;
    if (pid <= 1 || pid == getpid() || len <= 0)
        return false;
    name[strcspn(name, "\n")] = '\0';
    return strcmp(name, strcmp(service, "podman") == 0 ? "podman" : "picket") == 0;
}

bool pk_service_find(const struct pk_paths *paths, const struct pk_service *service,
                     struct pk_proc_id *ret_id)
{
    struct pk_proc_id id;
    PK_CLEANUP(pk_free_p) char *file = pk_up_path(paths, service->name, ".pid");
    if (file != NULL && pk_pidfile_read(file, &id, NULL) == 0 && pk_proc_alive(&id)) {
        *ret_id = id;
        return true;
    }
    /* Started by a supervisor that was killed before it wrote the file. */
    pid_t pid = 0;
    if (service->socket != NULL && pk_socket_answers(paths, service->socket, &pid) &&
        may_be_ours(pid, service->name) && pk_proc_id_of(pid, &id, NULL) == 0 &&
        pk_proc_alive(&id)) {
        *ret_id = id;
        return true;
    }
    return false;
}

/* ---- the children ---- */

static void note(struct supervisor *supervisor, struct child *child, const char *reason)
{
    if (reason != NULL)
        (void)snprintf(child->reason, sizeof(child->reason), "%s", reason);
    child->since = pk_time_now();
    supervisor->changed = true;
}

static void adopt(struct supervisor *supervisor, struct child *child, const struct pk_proc_id *id)
{
    child->running = true;
    child->ready = false;
    child->id = *id;
    child->started_at = pk_time_monotonic();
    PK_CLEANUP(pk_free_p) char *file = pk_up_path(supervisor->paths, child->service.name, ".pid");
    if (file != NULL)
        (void)pk_pidfile_write(file, id, NULL);
    note(supervisor, child, NULL);
}

static int start(struct supervisor *supervisor, struct child *child, struct pk_error *err)
{
    const char *name = child->service.name;
    struct pk_proc_id id;
    /* What was left by an earlier supervisor, or was started by hand: never a second one. */
    if (pk_service_find(supervisor->paths, &child->service, &id)) {
        pk_log(PK_LOG_INFO, "up", "%s: runs already (pid %d), taken over", name, (int)id.pid);
        adopt(supervisor, child, &id);
        return 0;
    }
    pid_t pid = 0;
    int r = pk_service_start(supervisor->paths, supervisor->engine, name, &pid, err);
    if (r >= 0)
        r = pk_proc_id_of(pid, &id, err);
    if (r < 0)
        return r;
    pk_log(PK_LOG_INFO, "up", "%s: started (pid %d)", name, (int)pid);
    adopt(supervisor, child, &id);
    return 0;
}

static void schedule(struct supervisor *supervisor, struct child *child, const char *reason)
{
    pk_nsec now = pk_time_monotonic();
    if (now - child->started_at > STABLE_AFTER)
        child->backoff = 0;
    child->running = child->ready = false;
    child->next_start = now + child->backoff;
    child->backoff = child->backoff == 0 ? BACKOFF_MIN : PK_MIN(child->backoff * 2, BACKOFF_MAX);
    pk_log(PK_LOG_WARN, "up", "%s: %s", child->service.name, reason);
    note(supervisor, child, reason);
}

/* Why it ended, where the kernel tells us: only for our own children. */
static void describe_end(pid_t pid, char *out, size_t size)
{
    int status = 0;
    if (waitpid(pid, &status, WNOHANG) != pid)
        (void)snprintf(out, size, "ended");
    else if (WIFSIGNALED(status))
        (void)snprintf(out, size, "killed by signal %d (%s)", WTERMSIG(status),
                       sigdescr_np(WTERMSIG(status)));
    else
        (void)snprintf(out, size, "exited with status %d: see its log", WEXITSTATUS(status));
}

/* A server whose socket was removed never answers again. */
static void end_unreachable(const struct supervisor *supervisor, struct child *child)
{
    if (!child->running || !child->ready || child->unreachable || child->service.socket == NULL)
        return;
    PK_CLEANUP(pk_free_p)
    char *path = pk_path_join(supervisor->paths->run_dir, child->service.socket);
    if (path == NULL || pk_file_exists(path) || !pk_proc_alive(&child->id))
        return;
    child->unreachable = true;
    (void)kill(child->id.pid, SIGTERM);
}

static void look_after(struct supervisor *supervisor, struct child *child)
{
    if (child->running && !pk_proc_alive(&child->id)) {
        char reason[160];
        describe_end(child->id.pid, reason, sizeof(reason));
        if (child->unreachable)
            (void)snprintf(reason, sizeof(reason), "its socket was removed: started anew");
        child->unreachable = false;
        child->restarts++;
        schedule(supervisor, child, reason);
    }
    if (!child->running && pk_time_monotonic() >= child->next_start) {
        struct pk_error err;
        if (start(supervisor, child, &err) < 0) {
            pk_log_error(PK_LOG_WARN, "up", &err, "%s: cannot be started", child->service.name);
            child->started_at = pk_time_monotonic();
            schedule(supervisor, child, err.msg);
        }
    }
    if (child->running && !child->ready && pk_service_ready(supervisor->paths, &child->service)) {
        child->ready = true;
        note(supervisor, child, NULL);
    }
    end_unreachable(supervisor, child);
}

/* ---- logs: the process keeps its descriptor (opened for appending), so the file is copied and
 * cut. Lines written between the two are lost from the log, which is why it happens seldom. ---- */

static void rotate(const char *path)
{
    struct stat info;
    if (stat(path, &info) < 0 || info.st_size <= (off_t)LOG_MAX)
        return;
    PK_CLEANUP(pk_free_p) char *old = pk_asprintf("%s.1", path);
    PK_CLEANUP(pk_close_p) int in = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    PK_CLEANUP(pk_close_p)
    int out =
        old == NULL ? -1 : open(old, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (in < 0 || out < 0)
        return;
    off_t at = info.st_size - (off_t)LOG_MAX;
    char block[65536];
    for (;;) {
        ssize_t got = pread(in, block, sizeof(block), at);
        if (got <= 0 || write(out, block, (size_t)got) != got)
            break;
        at += got;
    }
    if (ftruncate(in, 0) < 0)
        return; /* the next round tries again */
}

static void rotate_all(const struct supervisor *supervisor)
{
    for (size_t i = 0; i <= supervisor->count; i++) {
        const char *name =
            i < supervisor->count ? supervisor->children[i].service.name : "supervise";
        PK_CLEANUP(pk_free_p) char *path = pk_up_path(supervisor->paths, name, ".log");
        if (path != NULL)
            rotate(path);
    }
}

/* ---- state.json ---- */

static void write_state(struct supervisor *supervisor)
{
    char when[36];
    PK_JSON processes = json_array();
    for (size_t i = 0; i < supervisor->count; i++) {
        const struct child *child = &supervisor->children[i];
        PK_CLEANUP(pk_free_p)
        char *log = pk_up_path(supervisor->paths, child->service.name, ".log");
        const char *state = child->ready ? "ready" : child->running ? "starting" : "waiting";
        (void)json_array_append_new(
            processes, json_pack("{s:s,s:i,s:s,s:i,s:s,s:s,s:s?}", "name", child->service.name,
                                 "pid", child->running ? (int)child->id.pid : 0, "state", state,
                                 "restarts", (int)child->restarts, "reason", child->reason, "since",
                                 pk_time_format(child->since, 0, when, sizeof(when)), "log", log));
    }
    PK_JSON state = json_pack(
        "{s:i,s:s,s:s,s:O}", "pid", (int)getpid(), "engine", supervisor->engine, "startedAt",
        pk_time_format(supervisor->started_at, 0, when, sizeof(when)), "processes", processes);
    PK_CLEANUP(pk_free_p) char *text = state == NULL ? NULL : pk_json_pretty(state);
    PK_CLEANUP(pk_free_p) char *path = pk_up_path(supervisor->paths, "state", ".json");
    struct pk_error err;
    if (text == NULL || path == NULL)
        return;
    if (pk_file_write(path, text, strlen(text), 0644, &err) < 0)
        pk_log_error(PK_LOG_WARN, "up", &err, "state.json");
    else
        supervisor->changed = false;
}

/* ---- the loop ---- */

static void on_tick(void *arg)
{
    struct supervisor *supervisor = arg;
    for (size_t i = 0; i < supervisor->count; i++)
        look_after(supervisor, &supervisor->children[i]);
    if (supervisor->ticks++ % LOG_TICKS == 0)
        rotate_all(supervisor);
    if (supervisor->changed)
        write_state(supervisor);
}

static void on_stop(void *arg, int signo)
{
    struct supervisor *supervisor = arg;
    pk_log(PK_LOG_INFO, "up", "signal %d: the supervisor ends, the processes go on", signo);
    pk_loop_quit(supervisor->loop);
}

static void on_hangup(void *arg, int signo)
{
    struct supervisor *supervisor = arg;
    (void)signo;
    for (size_t i = 0; i < supervisor->count; i++) {
        supervisor->children[i].backoff = 0;
        supervisor->children[i].next_start = 0;
    }
    on_tick(supervisor);
}

static int set_up(struct supervisor *supervisor, struct pk_error *err)
{
    struct pk_loop_source *source = NULL;
    int r = pk_loop_add_signal(supervisor->loop, SIGTERM, on_stop, supervisor, &source, err);
    if (r >= 0)
        r = pk_loop_add_signal(supervisor->loop, SIGINT, on_stop, supervisor, &source, err);
    if (r >= 0)
        r = pk_loop_add_signal(supervisor->loop, SIGHUP, on_hangup, supervisor, &source, err);
    if (r >= 0)
        r = pk_loop_add_timer(supervisor->loop, 0, TICK, on_tick, supervisor, &source, err);
    return r;
}

int pk_supervise(const struct pk_paths *paths, const char *engine, struct pk_error *err)
{
    struct supervisor supervisor = { .paths = paths,
                                     .engine = engine,
                                     .started_at = pk_time_now() };
    struct pk_service services[PK_SERVICES_MAX];
    supervisor.count = pk_services(engine, services);
    for (size_t i = 0; i < supervisor.count; i++)
        supervisor.children[i] =
            (struct child){ .service = services[i], .since = supervisor.started_at };

    PK_CLEANUP(pk_close_p) int lock = -1;
    PK_CLEANUP(pk_free_p) char *lock_path = pk_up_path(paths, "lock", "");
    PK_CLEANUP(pk_free_p) char *pid_path = pk_up_path(paths, "supervisor", ".pid");
    if (lock_path == NULL || pid_path == NULL)
        return pk_no_memory(err);
    int r = pk_lock_process(lock_path, PK_LOCK_WAIT_MS, &lock, err);
    if (r == PK_E_CONFLICT)
        return pk_hint(err, "a supervisor of this run folder is at work: 'picket up' shows it");
    struct pk_proc_id self;
    if (r >= 0)
        r = pk_proc_id_of(getpid(), &self, err);
    if (r >= 0)
        r = pk_pidfile_write(pid_path, &self, err);
    PK_CLEANUP(pk_loop_free_p) struct pk_loop *loop = NULL;
    if (r >= 0)
        r = pk_loop_new(&loop, err);
    supervisor.loop = loop;
    if (r >= 0)
        r = set_up(&supervisor, err);
    if (r >= 0)
        r = pk_loop_run(loop, err);
    (void)unlink(pid_path);
    return r;
}
