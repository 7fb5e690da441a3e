/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Units as Podman containers, through libpod's REST API (4.0.0 and newer) on a unix socket. Calls
 * do not wait for each other: each takes a connection of its own from a small pool. Only containers
 * that carry our instance's label are ever touched.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/http.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/time.h"
#include "engine/engine.h"
#include "engine/podman/internal.h"

#define API      "/v4.0.0/libpod"
#define POOL_MAX 8
/* A create may wait for storage, a start for the runtime; both take well under a second when all is
 * well. */
#define CALL_MS 30000u
#define LOG_MAX (4u << 20)
/* Processes watched by one wait; a machine with more units finds the rest at the next look. */
#define WATCH_MAX 1024

struct podman {
    char *socket;
    char *url;
    char tag[32];
    pthread_mutex_t lock; /* guards what follows */
    struct pk_http_client *idle[POOL_MAX];
    size_t idle_count;
    char last_seen[65]; /* digest of the units' states at the end of the last wait_change */
};

/* ---- calls ---- */

static int take_client(struct podman *podman, struct pk_http_client **ret_client,
                       struct pk_error *err)
{
    struct pk_http_client *client = NULL;
    pthread_mutex_lock(&podman->lock);
    if (podman->idle_count > 0)
        client = podman->idle[--podman->idle_count];
    pthread_mutex_unlock(&podman->lock);
    if (client == NULL) {
        struct pk_http_client_options options = { .base_url = podman->url, .timeout_ms = CALL_MS };
        int r = pk_http_client_new(&options, &client, err);
        if (r < 0)
            return r;
    }
    *ret_client = client;
    return 0;
}

static void give_client(struct podman *podman, struct pk_http_client *client)
{
    pthread_mutex_lock(&podman->lock);
    if (podman->idle_count < POOL_MAX) {
        podman->idle[podman->idle_count++] = client;
        client = NULL;
    }
    pthread_mutex_unlock(&podman->lock);
    pk_http_client_free(client);
}

struct request {
    const char *method;
    const char *path;   /* after API */
    const json_t *json; /* body or NULL */
    unsigned timeout_ms;
    size_t max_body;
};

/* Any HTTP status is success. */
static int call(struct podman *podman, const struct request *request, unsigned *ret_status,
                struct pk_buf *body, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = pk_asprintf(API "%s", request->path);
    if (path == NULL)
        return pk_no_memory(err);
    struct pk_http_client *client;
    int r = take_client(podman, &client, err);
    if (r < 0)
        return r;
    struct pk_http_call http = { .method = request->method,
                                 .path = path,
                                 .json = request->json,
                                 .timeout_ms = request->timeout_ms,
                                 .max_body = request->max_body };
    r = pk_http_call(client, &http, ret_status, body, err);
    if (r < 0) {
        /* What state the connection is in is not known. */
        pk_http_client_free(client);
        pk_wrap(err, "Podman at %s", podman->socket);
        if (r == PK_E_UNREACHABLE)
            pk_hint(err, "start Podman's API: picket up, or systemctl start podman.socket and "
                         "--engine podman:/run/podman/podman.sock");
        else if (r == PK_E_TIMEOUT)
            pk_hint(err, "Podman hangs: see its log, restart its service");
        return r;
    }
    give_client(podman, client);
    return 0;
}

/* As call(), with statuses of 400 and more as errors about what, except one that the caller
 * expects. */
static int ask(struct podman *podman, const struct request *request, const char *what,
               unsigned expected, unsigned *ret_status, json_t **ret_json, struct pk_error *err)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf body = PK_BUF_INIT(64u << 20);
    unsigned status = 0;
    int r = call(podman, request, &status, &body, err);
    if (r < 0)
        return r;
    const char *text = body.data != NULL ? body.data : "";
    if (status >= 400 && status != expected)
        return pk_podman_read_error(what, status, text, body.len, err);
    json_t *json = NULL;
    if (ret_json != NULL && status < 300) {
        r = pk_json_parse("Podman's answer", text, body.len, &json, err);
        if (r < 0) {
            pk_hint(err, "is %s the socket of Podman 4 or newer?", podman->socket);
            return r;
        }
    }
    if (ret_json != NULL)
        *ret_json = json;
    if (ret_status != NULL)
        *ret_status = status;
    return 0;
}

/* "/containers/NAME<rest>"; pk_free(). NULL = out of memory. */
static char *container_path(const char *name, const char *rest)
{
    PK_CLEANUP(pk_free_p) char *escaped = pk_url_escape(name);
    return escaped != NULL ? pk_asprintf("/containers/%s%s", escaped, rest) : NULL;
}

/* One container's inspection; *ret_json stays NULL when there is none of that name. */
static int inspect(struct podman *podman, const char *name, json_t **ret_json, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = container_path(name, "/json");
    if (path == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
    struct request request = { .method = "GET", .path = path };
    return ask(podman, &request, name, 404, NULL, ret_json, err);
}

static const char *label_of(const json_t *container, const char *label)
{
    const json_t *labels = json_object_get(json_object_get(container, "Config"), "Labels");
    const char *text = json_string_value(json_object_get(labels, label));
    return text != NULL ? text : "";
}

/* Is the container there, and ours? Not there: *ret_container NULL. Not ours: PK_E_CONFLICT. */
static int find_own(struct podman *podman, const char *name, json_t **ret_container,
                    struct pk_error *err)
{
    json_t *container = NULL;
    int r = inspect(podman, name, &container, err);
    if (r < 0)
        return r;
    if (container != NULL && strcmp(label_of(container, PK_LABEL_INSTANCE), podman->tag) != 0) {
        json_decref(container);
        pk_fail(err, PK_E_CONFLICT, "a container that is not ours has the name %s", name);
        pk_hint(err, "remove or rename it: podman rename %s OTHER", name);
        return PK_E_CONFLICT;
    }
    *ret_container = container;
    return 0;
}

static int not_there(const char *name, struct pk_error *err)
{
    pk_fail(err, PK_E_NOTFOUND, "there is no container %s", name);
    pk_hint(err, "apply the fleet again: the container is made anew");
    return PK_E_NOTFOUND;
}

/* ---- operations ---- */

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%.*s", (int)size - 1, from);
}

static int podman_probe(void *self, struct pk_engine_info *ret_info, struct pk_error *err)
{
    struct podman *podman = self;
    struct request request = { .method = "GET", .path = "/info", .timeout_ms = 10000 };
    PK_JSON info = NULL;
    int r = ask(podman, &request, "Podman", 0, NULL, &info, err);
    if (r < 0)
        return r;
    struct pk_engine_info found = { .name = "podman" };
    copy_text(found.version, sizeof(found.version),
              pk_json_string_or(info, "version.Version", "?"));
    const char *runtime = pk_json_string_or(info, "host.ociRuntime.name", "?");
    /* "runc version 1.1.5+ds1\ncommit: ..." */
    const char *version = pk_json_string_or(info, "host.ociRuntime.version", "");
    const char *number = strstr(version, "version ");
    number = number != NULL ? number + 8 : "";
    char text[64];
    snprintf(text, sizeof(text), "%.20s %.*s", runtime, (int)PK_MIN(strcspn(number, " \n"), 30u),
             number);
    copy_text(found.runtime, sizeof(found.runtime), text);
    const char *cgroups = pk_json_string_or(info, "host.cgroupVersion", "?");
    if (strcmp(cgroups, "v1") == 0 && access("/sys/fs/cgroup/unified/cgroup.procs", F_OK) == 0)
        cgroups = "hybrid";
    copy_text(found.cgroups, sizeof(found.cgroups), cgroups);
    *ret_info = found;
    return 0;
}

static bool is_gone(json_int_t pid)
{
    struct pk_proc_id id;
    return pid <= 0 || pid > INT32_MAX || pk_proc_id_of((pid_t)pid, &id, NULL) < 0 ||
           !pk_proc_alive(&id);
}

/* Podman learns of a container's end from its monitor, conmon. Where that was killed, the container
 * "runs" for ever. Looks twice: what a monitor that has just ended had to say is then known. */
static bool is_forsaken(struct podman *podman, const char *name)
{
    for (unsigned look = 0; look < 2; look++) {
        PK_JSON container = NULL;
        if (inspect(podman, name, &container, NULL) < 0 || container == NULL)
            return false;
        const char *state = pk_json_string_or(container, "State.Status", "");
        if ((strcmp(state, "running") != 0 && strcmp(state, "stopping") != 0) ||
            !is_gone(pk_json_int_or(container, "State.Pid", 0)) ||
            !is_gone(pk_json_int_or(container, "State.ConmonPid", 0)))
            return false;
    }
    return true;
}

static int podman_list(void *self, const char *fleet, struct pk_unit_status **ret_list,
                       size_t *ret_count, struct pk_error *err)
{
    struct podman *podman = self;
    PK_JSON filters = json_pack("{s:[s+]}", "label", PK_LABEL_INSTANCE "=", podman->tag);
    if (filters != NULL && fleet != NULL)
        json_array_append_new(json_object_get(filters, "label"),
                              json_sprintf("%s=%s", PK_LABEL_FLEET, fleet));
    PK_CLEANUP(pk_free_p) char *text = filters != NULL ? pk_json_compact(filters) : NULL;
    PK_CLEANUP(pk_free_p) char *escaped = text != NULL ? pk_url_escape(text) : NULL;
    PK_CLEANUP(pk_free_p)
    char *path =
        escaped != NULL ? pk_asprintf("/containers/json?all=true&filters=%s", escaped) : NULL;
    if (path == NULL)
        return pk_no_memory(err);

    struct request request = { .method = "GET", .path = path };
    PK_JSON answer = NULL;
    int r = ask(podman, &request, "list of containers", 0, NULL, &answer, err);
    if (r < 0)
        return r;
    struct pk_unit_status *list;
    size_t count;
    r = pk_podman_read_list(answer, podman->tag, &list, &count, err);
    if (r < 0)
        return r;
    /* Only an inspection tells why a unit ended. */
    for (size_t i = 0; i < count; i++) {
        if (list[i].state == PK_UNIT_RUNNING && is_gone(list[i].pid) &&
            is_forsaken(podman, list[i].id)) {
            list[i].state = PK_UNIT_EXITED;
            list[i].exit_code = 255;
            list[i].end_unseen = true;
            list[i].pid = 0;
            continue;
        }
        if (list[i].state != PK_UNIT_EXITED)
            continue;
        PK_JSON details = NULL;
        r = inspect(podman, list[i].id, &details, err);
        if (r < 0) {
            pk_unit_status_list_free(list, count);
            return r;
        }
        if (details != NULL)
            pk_podman_read_inspect(details, &list[i]);
    }
    *ret_list = list;
    *ret_count = count;
    return 0;
}

static int podman_stop(void *self, const char *name, unsigned timeout_ms, struct pk_error *err);

static int podman_remove(void *self, const char *name, struct pk_error *err)
{
    struct podman *podman = self;
    PK_JSON container = NULL;
    int r = find_own(podman, name, &container, err);
    if (r < 0 || container == NULL)
        return r;
    PK_CLEANUP(pk_free_p)
    char *path = pk_asprintf("/containers/%s?force=true&v=true&timeout=0",
                             pk_json_string_or(container, "Id", ""));
    if (path == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
    struct request request = { .method = "DELETE", .path = path };
    r = ask(podman, &request, name, 404, NULL, NULL, err);
    /* What it believes to run, but which does not, Podman removes only once it was told to stop. */
    if (r < 0 && r != PK_E_UNREACHABLE && r != PK_E_TIMEOUT && is_forsaken(podman, name) &&
        podman_stop(podman, name, 0, NULL) == 0)
        r = ask(podman, &request, name, 404, NULL, NULL, err);
    if (r < 0)
        return pk_wrap(err, "removing %s", name), r;
    return 0;
}

static int podman_create(void *self, const struct pk_unit *unit, struct pk_error *err)
{
    struct podman *podman = self;
    PK_JSON old = NULL;
    int r = find_own(podman, unit->name, &old, err);
    if (r < 0)
        return r;
    if (old != NULL) {
        if (strcmp(label_of(old, PK_LABEL_HASH), unit->hash) == 0 &&
            !is_forsaken(podman, unit->name))
            return 0;
        r = podman_remove(podman, unit->name, err);
        if (r < 0)
            return r;
    }
    PK_JSON spec = pk_podman_spec(unit, podman->tag);
    if (spec == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", unit->name);
    struct request request = { .method = "POST", .path = "/containers/create", .json = spec };
    r = ask(podman, &request, unit->name, 0, NULL, NULL, err);
    if (r == PK_E_NOTFOUND && err != NULL && strstr(err->msg, "image") != NULL)
        pk_hint(err, "build it: picket image build %s@%s", unit->package, unit->version);
    return r;
}

static int podman_start(void *self, const char *name, struct pk_error *err)
{
    struct podman *podman = self;
    PK_CLEANUP(pk_free_p) char *path = container_path(name, "/start");
    if (path == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
    struct request request = { .method = "POST", .path = path };
    int r = ask(podman, &request, name, 0, NULL, NULL, err);
    if (r < 0)
        pk_wrap(err, "starting");
    return r;
}

static int podman_stop(void *self, const char *name, unsigned timeout_ms, struct pk_error *err)
{
    struct podman *podman = self;
    unsigned seconds = (timeout_ms + 999) / 1000;
    char rest[40];
    snprintf(rest, sizeof(rest), "/stop?timeout=%u", seconds);
    PK_CLEANUP(pk_free_p) char *path = container_path(name, rest);
    if (path == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
    struct request request = { .method = "POST",
                               .path = path,
                               .timeout_ms = seconds * 1000 + CALL_MS };
    struct pk_error stopping = { 0 };
    int r = ask(podman, &request, name, 0, NULL, NULL, &stopping);
    if (r == 0)
        return 0;
    /* Podman refuses to stop what has ended or was never started, which is fine with us. */
    PK_JSON container = NULL;
    if (r != PK_E_UNREACHABLE && r != PK_E_TIMEOUT &&
        inspect(podman, name, &container, NULL) == 0) {
        if (container == NULL)
            return not_there(name, err);
        if (!pk_json_bool_or(container, "State.Running", true))
            return 0;
    }
    if (err != NULL)
        *err = stopping;
    return pk_wrap(err, "stopping"), r;
}

static int podman_kill(void *self, const char *name, int signo, struct pk_error *err)
{
    struct podman *podman = self;
    char rest[40];
    snprintf(rest, sizeof(rest), "/kill?signal=%d", signo);
    PK_CLEANUP(pk_free_p) char *path = container_path(name, rest);
    if (path == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
    struct request request = { .method = "POST", .path = path };
    return ask(podman, &request, name, 0, NULL, NULL, err);
}

static int podman_logs(void *self, const char *name, unsigned lines, struct pk_buf *out,
                       struct pk_error *err)
{
    struct podman *podman = self;
    if (lines == 0)
        return 0;
    char rest[80];
    snprintf(rest, sizeof(rest), "/logs?stdout=true&stderr=true&follow=false&tail=%u", lines);
    PK_CLEANUP(pk_free_p) char *path = container_path(name, rest);
    if (path == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
    struct request request = { .method = "GET", .path = path, .max_body = LOG_MAX };
    PK_CLEANUP(pk_buf_done) struct pk_buf body = PK_BUF_INIT(LOG_MAX);
    unsigned status = 0;
    int r = call(podman, &request, &status, &body, err);
    if (r < 0)
        return r;
    if (status >= 400)
        return pk_podman_read_error(name, status, body.data != NULL ? body.data : "", body.len,
                                    err);
    if (!pk_podman_unframe(body.data, body.len, out)) {
        pk_fail(err, PK_E_IO, "%s: Podman's log answer is not what it should be", name);
        return pk_hint(err, "look at it with podman logs %s", name), PK_E_IO;
    }
    return 0;
}

static int podman_exec(void *self, const char *name, const char *const *argv, unsigned timeout_ms,
                       struct pk_buf *out, int *ret_exit_code, struct pk_error *err)
{
    struct podman *podman = self;
    json_t *command = json_array();
    for (; command != NULL && *argv != NULL; argv++)
        json_array_append_new(command, json_string(*argv));
    PK_JSON body =
        json_pack("{s:b, s:b, s:o}", "AttachStdout", 1, "AttachStderr", 1, "Cmd", command);
    PK_CLEANUP(pk_free_p) char *path = container_path(name, "/exec");
    if (body == NULL || path == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);
    struct request create = { .method = "POST", .path = path, .json = body };
    PK_JSON made = NULL;
    int r = ask(podman, &create, name, 0, NULL, &made, err);
    if (r < 0)
        return r;
    PK_CLEANUP(pk_free_p) char *id = pk_url_escape(pk_json_string_or(made, "Id", ""));
    PK_CLEANUP(pk_free_p) char *start_path = id != NULL ? pk_asprintf("/exec/%s/start", id) : NULL;
    PK_CLEANUP(pk_free_p) char *json_path = id != NULL ? pk_asprintf("/exec/%s/json", id) : NULL;
    PK_JSON attached = json_pack("{s:b, s:b}", "Detach", 0, "Tty", 0);
    if (start_path == NULL || json_path == NULL || attached == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", name);

    /* The connection is closed by Podman when the program ends. */
    struct request start = { .method = "POST",
                             .path = start_path,
                             .json = attached,
                             .timeout_ms = timeout_ms,
                             .max_body = LOG_MAX };
    PK_CLEANUP(pk_buf_done) struct pk_buf output = PK_BUF_INIT(LOG_MAX);
    unsigned status = 0;
    r = call(podman, &start, &status, &output, err);
    if (r < 0)
        return r;
    if (status >= 400)
        return pk_podman_read_error(name, status, output.data != NULL ? output.data : "",
                                    output.len, err);
    struct request ended = { .method = "GET", .path = json_path };
    PK_JSON details = NULL;
    r = ask(podman, &ended, name, 0, NULL, &details, err);
    if (r < 0)
        return r;
    if (out != NULL && !pk_podman_unframe(output.data, output.len, out))
        return pk_fail(err, PK_E_IO, "%s: Podman's answer is not what it should be", name);
    *ret_exit_code = (int)pk_json_int_or(details, "ExitCode", 255);
    return 0;
}

static int podman_image_find(void *self, const char *image, char **ret_digest, char **ret_release,
                             struct pk_error *err)
{
    struct podman *podman = self;
    PK_CLEANUP(pk_free_p) char *escaped = pk_url_escape(image);
    PK_CLEANUP(pk_free_p)
    char *path = escaped != NULL ? pk_asprintf("/images/%s/json", escaped) : NULL;
    if (path == NULL)
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", image);
    struct request request = { .method = "GET", .path = path };
    PK_JSON answer = NULL;
    int r = ask(podman, &request, image, 404, NULL, &answer, err);
    if (r < 0)
        return r;
    const char *id = pk_json_string_or(answer, "Id", "");
    if (id[0] == '\0') {
        /* "localhost/picket/suricata:7" is built by "picket image build suricata@7". */
        const char *base = strrchr(image, '/');
        base = base != NULL ? base + 1 : image;
        size_t len = strcspn(base, ":");
        pk_fail(err, PK_E_NOTFOUND, "the image %s is not there", image);
        pk_hint(err, "build it: picket image build %.*s%s%s", (int)PK_MIN(len, 64u), base,
                base[len] != '\0' ? "@" : "", base[len] != '\0' ? base + len + 1 : "");
        return PK_E_NOTFOUND;
    }
    char *digest = pk_str_starts(id, "sha256:") ? pk_strdup(id) : pk_asprintf("sha256:%s", id);
    char *release = pk_podman_read_release(answer);
    if (digest == NULL || release == NULL) {
        pk_free(digest);
        pk_free(release);
        return pk_fail(err, PK_E_NOMEM, "%s: out of memory", image);
    }
    *ret_digest = digest;
    if (ret_release != NULL)
        *ret_release = release;
    else
        pk_free(release);
    return 0;
}

/* ---- waiting ---- */

/* One text that differs whenever a unit came, went, started or ended. */
static int digest_states(const struct pk_unit_status *list, size_t count, char out[65])
{
    PK_CLEANUP(pk_buf_done) struct pk_buf text = PK_BUF_INIT(64u << 20);
    for (size_t i = 0; i < count; i++)
        pk_buf_printf(&text, "%s %s %d %d\n", list[i].name, list[i].id, (int)list[i].state,
                      (int)list[i].pid);
    if (text.failed)
        return PK_E_NOMEM;
    pk_sha256_hex(text.data != NULL ? text.data : "", text.len, out);
    return 0;
}

/* Sleeps until one of the units' processes ends or the time is up. The kernel tells of it at once
 * and for nothing, where Podman's event stream lags, breaks with its service, and cannot say what
 * was missed. */
static void watch_processes(const struct pk_unit_status *list, size_t count, unsigned timeout_ms)
{
    struct pollfd *fds = pk_zalloc_array(PK_MIN(count, (size_t)WATCH_MAX) + 1, sizeof(*fds));
    nfds_t watched = 0;
    bool gone = fds == NULL;
    for (size_t i = 0; i < count && !gone && watched < WATCH_MAX; i++) {
        if (list[i].pid <= 0)
            continue;
        int fd = (int)syscall(SYS_pidfd_open, list[i].pid, 0);
        if (fd >= 0)
            fds[watched++] = (struct pollfd){ .fd = fd, .events = POLLIN };
        else if (errno == ESRCH)
            gone = true;
    }
    if (!gone)
        (void)poll(fds, watched, (int)PK_MIN(timeout_ms, 3600000u));
    for (nfds_t i = 0; i < watched; i++)
        close(fds[i].fd);
    pk_free(fds);
}

static int podman_wait_change(void *self, unsigned timeout_ms, bool *ret_changed,
                              struct pk_error *err)
{
    struct podman *podman = self;
    pk_nsec until = pk_time_monotonic() + timeout_ms * PK_NSEC_PER_MS;
    /* After a process ended, Podman takes a moment until it says so. */
    unsigned recheck_ms = 20;

    for (;;) {
        struct pk_unit_status *list;
        size_t count;
        int r = podman_list(podman, NULL, &list, &count, err);
        if (r < 0)
            return r;
        char now[65];
        r = digest_states(list, count, now);
        if (r < 0) {
            pk_unit_status_list_free(list, count);
            return pk_fail(err, r, "out of memory");
        }
        pthread_mutex_lock(&podman->lock);
        bool first = podman->last_seen[0] == '\0';
        bool changed = !first && strcmp(podman->last_seen, now) != 0;
        memcpy(podman->last_seen, now, sizeof(now));
        pthread_mutex_unlock(&podman->lock);

        pk_nsec left = until - pk_time_monotonic();
        if (changed || left <= 0) {
            pk_unit_status_list_free(list, count);
            *ret_changed = changed;
            return 0;
        }
        pk_nsec before = pk_time_monotonic();
        watch_processes(list, count, (unsigned)(left / PK_NSEC_PER_MS) + 1);
        pk_unit_status_list_free(list, count);
        if (pk_time_monotonic() - before < recheck_ms * PK_NSEC_PER_MS) {
            pk_sleep_ms(recheck_ms);
            recheck_ms = PK_MIN(recheck_ms * 2, 250u);
        }
    }
}

static void podman_free(void *self)
{
    struct podman *podman = self;
    for (size_t i = 0; i < podman->idle_count; i++)
        pk_http_client_free(podman->idle[i]);
    pthread_mutex_destroy(&podman->lock);
    pk_free(podman->socket);
    pk_free(podman->url);
    pk_free(podman);
}

static const struct pk_engine_ops podman_ops = {
    .probe = podman_probe,
    .list = podman_list,
    .create = podman_create,
    .start = podman_start,
    .stop = podman_stop,
    .kill = podman_kill,
    .remove = podman_remove,
    .logs = podman_logs,
    .exec = podman_exec,
    .image_find = podman_image_find,
    .wait_change = podman_wait_change,
    .free = podman_free,
};

int pk_engine_podman_new(const char *socket, const char *tag, struct pk_engine **ret_engine,
                         struct pk_error *err)
{
    struct pk_engine *engine = pk_zalloc(sizeof(*engine));
    struct podman *podman = pk_zalloc(sizeof(*podman));
    if (engine == NULL || podman == NULL) {
        pk_free(engine);
        pk_free(podman);
        return pk_no_memory(err);
    }
    pthread_mutex_init(&podman->lock, NULL);
    snprintf(podman->tag, sizeof(podman->tag), "%s", tag);
    engine->ops = &podman_ops;
    engine->self = podman;
    podman->socket = pk_strdup(socket);
    podman->url = pk_asprintf("unix:%s", socket);
    if (podman->socket == NULL || podman->url == NULL) {
        pk_engine_free(engine);
        return pk_no_memory(err);
    }
    *ret_engine = engine;
    return 0;
}
