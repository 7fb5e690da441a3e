/* SPDX-License-Identifier: Apache-2.0 */
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "base/time.h"

extern char **environ;

/* A line of output longer than this is handed over in pieces. */
#define LINE_MAX_BYTES ((size_t)16384)
#define TERM_GRACE     (2 * PK_NSEC_PER_SEC)
/* PF_EXITING of the kernel's include/linux/sched.h, in the field flags of /proc/PID/stat. */
#define PROC_EXITING 0x4u
/* So often is the holder of a lock seen alive before it is believed. */
#define LOCK_LOOKS   10u
#define LOCK_LOOK_MS 20u

/* ---- starting ---- */

struct spawn_request {
    const char *const *argv, *const *env;
    const char *cwd;
    int in, out, errout; /* become 0, 1 and 2 */
    bool new_session;
};

static int prepare(const struct spawn_request *request, posix_spawn_file_actions_t *actions,
                   posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    /* Daemons block signals and ignore SIGPIPE: their children start with a clean slate. */
    int flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    if (request->new_session)
        flags |= POSIX_SPAWN_SETSID;
    int sys = posix_spawnattr_setflags(attributes, (short)flags);
    if (sys == 0)
        sys = posix_spawnattr_setsigmask(attributes, &none);
    if (sys == 0)
        sys = posix_spawnattr_setsigdefault(attributes, &all);
    if (sys == 0)
        sys = posix_spawn_file_actions_adddup2(actions, request->in, STDIN_FILENO);
    if (sys == 0)
        sys = posix_spawn_file_actions_adddup2(actions, request->out, STDOUT_FILENO);
    if (sys == 0)
        sys = posix_spawn_file_actions_adddup2(actions, request->errout, STDERR_FILENO);
    if (sys == 0 && request->cwd != NULL)
        sys = posix_spawn_file_actions_addchdir_np(actions, request->cwd);
    return sys;
}

static int spawn(const struct spawn_request *request, pid_t *ret_pid, struct pk_error *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return pk_fail(err, PK_E_NOMEM, "cannot start %s: out of memory", request->argv[0]);
    int sys = posix_spawnattr_init(&attributes);
    if (sys == 0) {
        sys = prepare(request, &actions, &attributes);
        /* posix_spawn() promises not to write to either vector. */
        char *const *argv = (char *const *)(uintptr_t)request->argv;
        char *const *env = request->env == NULL ? environ : (char *const *)(uintptr_t)request->env;
        pid_t pid;
        if (sys == 0)
            sys = posix_spawnp(&pid, argv[0], &actions, &attributes, argv, env);
        if (sys == 0)
            *ret_pid = pid;
        (void)posix_spawnattr_destroy(&attributes);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    if (sys == 0)
        return 0;
    int r = pk_fail_errno(err, sys, "cannot start %s", request->argv[0]);
    if (sys == ENOENT)
        pk_hint(err, "install %s, or check PATH%s", request->argv[0],
                request->cwd == NULL ? "" : " and the working folder");
    else if (sys == EACCES)
        pk_hint(err, "make %s executable for this user", request->argv[0]);
    return r;
}

/* ---- running to the end ---- */

struct stream {
    int fd;
    struct pk_buf *keep; /* may be NULL */
    struct pk_buf line;
};

struct run {
    const struct pk_proc_options *options;
    struct stream out, errout;
    int pidfd;
    pid_t pid;
};

static void hand_over_line(struct run *run, struct stream *stream)
{
    run->options->on_line(run->options->on_line_arg, stream->line.data);
    pk_buf_clear(&stream->line);
}

static int take_lines(struct run *run, struct stream *stream, const char *data, size_t len)
{
    while (len > 0) {
        const char *end = memchr(data, '\n', len);
        size_t part = end == NULL ? len : (size_t)(end - data);
        part = PK_MIN(part, LINE_MAX_BYTES - stream->line.len);
        int r = pk_buf_add(&stream->line, data, part);
        if (r < 0)
            return r;
        data += part;
        len -= part;
        if (len > 0 && *data == '\n') {
            data++;
            len--;
            hand_over_line(run, stream);
        } else if (stream->line.len == LINE_MAX_BYTES) {
            hand_over_line(run, stream);
        }
    }
    return 0;
}

/* Reads what is there. Closes the stream at its end. */
static int take_output(struct run *run, struct stream *stream)
{
    char data[8192];
    ssize_t n = read(stream->fd, data, sizeof(data));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n <= 0) {
        pk_close_p(&stream->fd);
        return 0;
    }
    size_t len = (size_t)n;
    int r = 0;
    if (stream->keep != NULL)
        r = pk_buf_add(stream->keep, data, PK_MIN(len, stream->keep->max - stream->keep->len));
    if (r == 0 && run->options->on_line != NULL)
        r = take_lines(run, stream, data, len);
    return r;
}

static int wait_ms(pk_nsec deadline)
{
    if (deadline == 0)
        return -1;
    pk_nsec left = deadline - pk_time_monotonic();
    return left <= 0 ? 0 : (int)PK_MIN(left / PK_NSEC_PER_MS + 1, (pk_nsec)INT32_MAX);
}

/* Until the process is gone; grandchildren that keep its output open are not waited for. */
static int supervise(struct run *run, bool *ret_timed_out)
{
    unsigned ms = run->options->timeout_ms;
    pk_nsec deadline = ms == 0 ? 0 : pk_time_monotonic() + (pk_nsec)ms * PK_NSEC_PER_MS;
    int signo = SIGTERM;
    *ret_timed_out = false;
    for (;;) {
        struct pollfd fds[] = { { .fd = run->out.fd, .events = POLLIN },
                                { .fd = run->errout.fd, .events = POLLIN },
                                { .fd = run->pidfd, .events = POLLIN } };
        int n = poll(fds, PK_ARRAY_SIZE(fds), wait_ms(deadline));
        if (n < 0 && errno != EINTR)
            return PK_E_IO;
        int r = 0;
        if (n > 0 && fds[0].revents != 0)
            r = take_output(run, &run->out);
        if (r == 0 && n > 0 && fds[1].revents != 0)
            r = take_output(run, &run->errout);
        if (r < 0)
            return r;
        if (n > 0 && fds[2].revents != 0 && fds[0].revents == 0 && fds[1].revents == 0)
            return 0; /* gone, and its pipes are empty */
        if (n == 0 && deadline != 0 && pk_time_monotonic() >= deadline) {
            *ret_timed_out = true;
            (void)pidfd_send_signal(run->pidfd, signo, NULL, 0);
            deadline = signo == SIGTERM ? pk_time_monotonic() + TERM_GRACE : 0;
            signo = SIGKILL;
        }
    }
}

static int reap(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

/* The input is small and known: as a file in memory it needs no feeding and raises no SIGPIPE. */
static int open_input(const struct pk_proc_options *options, int *ret_fd, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int fd = -1;
    if (options->input == NULL) {
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return pk_fail_errno(err, errno, "cannot open /dev/null");
    } else {
        fd = memfd_create("input", MFD_CLOEXEC);
        size_t done = 0;
        while (fd >= 0 && done < options->input_len) {
            ssize_t n = write(fd, options->input + done, options->input_len - done);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                break;
            done += (size_t)n;
        }
        if (fd < 0 || done < options->input_len || lseek(fd, 0, SEEK_SET) < 0)
            return pk_fail_errno(err, errno, "cannot hand input to %s", options->argv[0]);
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int start(struct run *run, struct pk_error *err)
{
    const struct pk_proc_options *options = run->options;
    PK_CLEANUP(pk_close_p) int in = -1;
    int r = open_input(options, &in, err);
    if (r < 0)
        return r;
    int out[2], errout[2];
    if (pipe2(out, O_CLOEXEC) < 0)
        return pk_fail_errno(err, errno, "cannot make a pipe");
    run->out.fd = out[0];
    PK_CLEANUP(pk_close_p) int out_end = out[1];
    if (pipe2(errout, O_CLOEXEC) < 0)
        return pk_fail_errno(err, errno, "cannot make a pipe");
    run->errout.fd = errout[0];
    PK_CLEANUP(pk_close_p) int errout_end = errout[1];
    /* Only our ends: O_NONBLOCK on the shared file of the child's end would change its writes. */
    (void)fcntl(run->out.fd, F_SETFL, O_NONBLOCK);
    (void)fcntl(run->errout.fd, F_SETFL, O_NONBLOCK);
    const struct spawn_request request = { .argv = options->argv,
                                           .env = options->env,
                                           .cwd = options->cwd,
                                           .in = in,
                                           .out = out_end,
                                           .errout = errout_end };
    return spawn(&request, &run->pid, err);
}

static int finish(struct run *run, int *ret_status, struct pk_error *err)
{
    const char *name = run->options->argv[0];
    run->pidfd = pidfd_open(run->pid, 0);
    bool timed_out = false;
    int r = run->pidfd < 0 ? PK_E_IO : supervise(run, &timed_out);
    int sys = errno;
    if (r < 0)
        (void)kill(run->pid, SIGKILL); /* not reaped yet, so the id is still its own */
    int status = reap(run->pid);
    if (r == PK_E_NOMEM)
        return pk_fail(err, r, "cannot keep the output of %s: out of memory", name);
    if (r < 0)
        return pk_fail_errno(err, sys, "cannot wait for %s", name);
    for (size_t i = 0; i < 2 && run->options->on_line != NULL; i++) {
        struct stream *stream = i == 0 ? &run->out : &run->errout;
        if (stream->line.len > 0)
            hand_over_line(run, stream);
    }
    if (timed_out) {
        pk_fail(err, PK_E_TIMEOUT, "%s did not end within %u ms and was stopped", name,
                run->options->timeout_ms);
        pk_hint(err, "see why it hangs: run it by hand");
        return PK_E_TIMEOUT;
    }
    *ret_status = status;
    return 0;
}

int pk_proc_run(const struct pk_proc_options *options, struct pk_buf *out, struct pk_buf *errout,
                int *ret_status, struct pk_error *err)
{
    struct run run = {
        .options = options,
        .out = { .fd = -1, .keep = out, .line = PK_BUF_INIT(LINE_MAX_BYTES) },
        .errout = { .fd = -1, .keep = errout, .line = PK_BUF_INIT(LINE_MAX_BYTES) },
        .pidfd = -1,
    };
    int r = start(&run, err);
    if (r == 0)
        r = finish(&run, ret_status, err);
    pk_close_p(&run.out.fd);
    pk_close_p(&run.errout.fd);
    pk_close_p(&run.pidfd);
    pk_buf_done(&run.out.line);
    pk_buf_done(&run.errout.line);
    return r;
}

/* The end of what a program said, on one line. */
static void last_lines(const struct pk_buf *said, char *out, size_t size)
{
    const char *text = said->data == NULL ? "" : said->data;
    size_t len = said->len;
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' '))
        len--;
    size_t from = len > size - 1 ? len - (size - 1) : 0;
    if (from > 0) { /* begin with a whole line if there is one */
        const char *line = memchr(text + from, '\n', len - from);
        from = line == NULL ? from : (size_t)(line + 1 - text);
    }
    size_t used = 0;
    for (size_t i = from; i < len; i++)
        out[used++] = (unsigned char)text[i] < 0x20 ? ' ' : text[i];
    out[used] = '\0';
}

int pk_proc_check(const struct pk_proc_options *options, struct pk_buf *out, struct pk_error *err)
{
    PK_CLEANUP(pk_buf_done) struct pk_buf errout = PK_BUF_INIT((size_t)1 << 20);
    int status;
    int r = pk_proc_run(options, out, &errout, &status, err);
    if (r < 0)
        return r;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    char said[360];
    last_lines(&errout, said, sizeof(said));
    const char *mark = said[0] == '\0' ? "" : ": ";
    if (WIFSIGNALED(status))
        pk_fail(err, PK_E_IO, "%s was ended by signal %d%s%s", options->argv[0], WTERMSIG(status),
                mark, said);
    else
        pk_fail(err, PK_E_IO, "%s failed with status %d%s%s", options->argv[0], WEXITSTATUS(status),
                mark, said);
    pk_hint(err, "run it by hand to see all that it says");
    return PK_E_IO;
}

int pk_proc_spawn_daemon(const struct pk_daemon_options *options, pid_t *ret_pid,
                         struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return pk_fail_errno(err, errno, "cannot open /dev/null");
    PK_CLEANUP(pk_close_p)
    int log = open(options->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (log < 0)
        return pk_fail_errno(err, errno, "cannot open log %s", options->log_path);
    const struct spawn_request request = { .argv = options->argv,
                                           .env = options->env,
                                           .cwd = options->cwd,
                                           .in = in,
                                           .out = log,
                                           .errout = log,
                                           .new_session = true };
    return spawn(&request, ret_pid, err);
}

/* ---- processes by id and start time ---- */

/* The fields of /proc/PID/stat that are used, by their numbers in proc(5). */
enum { STAT_STATE = 3, STAT_FLAGS = 9, STAT_START = 22, STAT_PENDING = 31, STAT_END };

struct stat_line {
    char state;
    uint64_t flags, start, pending;
};

/* The name in it may hold anything, so fields are counted from its last ')'. */
static int read_stat(pid_t pid, struct stat_line *ret_line, struct pk_error *err)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    PK_CLEANUP(pk_free_p) char *text = NULL;
    int r = pk_file_read(path, 4096, &text, NULL, err);
    if (r < 0)
        return r;
    char *field = strrchr(text, ')');
    if (field == NULL || field[1] != ' ' || field[2] == '\0')
        return pk_fail(err, PK_E_INTERNAL, "%s is not understood", path);
    field += 2;
    struct stat_line line = { .state = *field };
    for (int number = STAT_STATE; number < STAT_END; number++) {
        char *next = strchr(field, ' ');
        if (next == NULL)
            return pk_fail(err, PK_E_INTERNAL, "%s is not understood", path);
        *next = '\0';
        uint64_t *value = number == STAT_FLAGS     ? &line.flags
                          : number == STAT_START   ? &line.start
                          : number == STAT_PENDING ? &line.pending
                                                   : NULL;
        r = value == NULL ? 0 : pk_parse_u64(field, value, err);
        if (r < 0)
            return r;
        field = next + 1;
    }
    *ret_line = line;
    return 0;
}

int pk_proc_id_of(pid_t pid, struct pk_proc_id *ret_id, struct pk_error *err)
{
    struct stat_line line;
    int r = read_stat(pid, &line, err);
    if (r < 0)
        return r;
    *ret_id = (struct pk_proc_id){ .pid = pid, .start_ticks = line.start };
    return 0;
}

bool pk_proc_alive(const struct pk_proc_id *id)
{
    struct stat_line line;
    return id->pid > 0 && read_stat(id->pid, &line, NULL) == 0 && line.start == id->start_ticks &&
           line.state != 'Z' && line.state != 'X';
}

bool pk_proc_ending(const struct pk_proc_id *id)
{
    struct stat_line line;
    if (!pk_proc_alive(id) || read_stat(id->pid, &line, NULL) < 0)
        return true;
    return (line.flags & PROC_EXITING) != 0 || (line.pending & (UINT64_C(1) << (SIGKILL - 1))) != 0;
}

static bool wait_gone(int pidfd, unsigned ms)
{
    pk_nsec deadline = pk_time_monotonic() + (pk_nsec)ms * PK_NSEC_PER_MS;
    for (;;) {
        struct pollfd fd = { .fd = pidfd, .events = POLLIN };
        if (poll(&fd, 1, wait_ms(deadline)) > 0)
            return true;
        if (pk_time_monotonic() >= deadline)
            return false;
    }
}

int pk_proc_stop(const struct pk_proc_id *id, unsigned grace_ms, struct pk_error *err)
{
    if (!pk_proc_alive(id))
        return 0;
    PK_CLEANUP(pk_close_p) int pidfd = pidfd_open(id->pid, 0);
    if (pidfd < 0)
        return errno == ESRCH ? 0 : pk_fail_errno(err, errno, "cannot watch process %d", id->pid);
    if (!pk_proc_alive(id)) /* the descriptor may be of a process that took over the number */
        return 0;
    if (pidfd_send_signal(pidfd, SIGTERM, NULL, 0) < 0 && errno != ESRCH)
        return pk_fail_errno(err, errno, "cannot stop process %d", (int)id->pid);
    bool gone = wait_gone(pidfd, grace_ms);
    if (!gone) {
        (void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
        gone = wait_gone(pidfd, 5000);
    }
    (void)waitpid(id->pid, NULL, WNOHANG); /* if it was a child of ours */
    if (gone)
        return 0;
    pk_fail(err, PK_E_TIMEOUT, "process %d does not end even when killed", (int)id->pid);
    pk_hint(err, "it may wait for a disk or a device: see /proc/%d/stack", (int)id->pid);
    return PK_E_TIMEOUT;
}

static int pidfile_text(const struct pk_proc_id *id, char *out, size_t size)
{
    return snprintf(out, size, "%d %llu\n", (int)id->pid, (unsigned long long)id->start_ticks);
}

int pk_pidfile_write(const char *path, const struct pk_proc_id *id, struct pk_error *err)
{
    char text[64];
    int len = pidfile_text(id, text, sizeof(text));
    return pk_file_write(path, text, (size_t)len, 0644, err);
}

int pk_pidfile_read(const char *path, struct pk_proc_id *ret_id, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *text = NULL;
    int r = pk_file_read(path, 64, &text, NULL, err);
    if (r < 0)
        return r;
    text[strcspn(text, "\n")] = '\0';
    char *second = strchr(text, ' ');
    uint64_t pid, start;
    if (second != NULL)
        *second++ = '\0';
    if (second == NULL || pk_parse_u64(text, &pid, NULL) < 0 || pid == 0 || pid > INT32_MAX ||
        pk_parse_u64(second, &start, NULL) < 0) {
        pk_fail(err, PK_E_INVALID, "%s is not a pid file", path);
        pk_hint(err, "remove it if no picket runs");
        return PK_E_INVALID;
    }
    *ret_id = (struct pk_proc_id){ .pid = (pid_t)pid, .start_ticks = start };
    return 0;
}

/* ---- locks ---- */

static int lock_write(const char *path, int fd, struct pk_error *err)
{
    struct pk_proc_id self;
    char text[64];
    int r = pk_proc_id_of(getpid(), &self, err);
    if (r < 0)
        return r;
    int len = pidfile_text(&self, text, sizeof(text));
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)len, 0) != len)
        return pk_fail_errno(err, errno, "cannot write %s", path);
    return 0;
}

static int lock_conflict(const char *path, const struct pk_proc_id *holder, struct pk_error *err)
{
    if (holder->pid == 0)
        (void)pk_fail(err, PK_E_CONFLICT, "a process has its lock %s", path);
    else
        (void)pk_fail(err, PK_E_CONFLICT, "process %d has its lock %s", (int)holder->pid, path);
    return pk_hint(err, "stop it, or give this one other --state-dir and --run-dir");
}

static int lock_timeout(const char *path, const struct pk_proc_id *holder, unsigned wait_ms,
                        struct pk_error *err)
{
    (void)pk_fail(err, PK_E_TIMEOUT, "process %d has ended, but its lock %s is not free after %u s",
                  (int)holder->pid, path, wait_ms / 1000);
    return pk_hint(err,
                   "try again in a minute; /proc/locks names who has it, /proc/%d/stack what "
                   "its end waits for",
                   (int)holder->pid);
}

int pk_lock_process(const char *path, unsigned wait_ms, int *ret_fd, struct pk_error *err)
{
    pk_nsec begun = pk_time_monotonic();
    bool told = false;
    for (unsigned alive = 0;;) {
        struct pk_error taken; /* err stays as it is when the lock comes free */
        PK_CLEANUP(pk_close_p) int fd = -1;
        int r = pk_lock_file(path, &fd, &taken);
        if (r == 0) {
            r = lock_write(path, fd, err);
            if (r == 0) {
                *ret_fd = fd;
                fd = -1;
            }
            return r;
        }
        if (r != PK_E_CONFLICT) {
            if (err != NULL)
                *err = taken;
            return r;
        }
        /* Looked at more than once: it may not have written its id yet, and between the signal and
         * the exit there is a moment in which nothing shows that it ends. */
        struct pk_proc_id holder = { 0 };
        bool ending = pk_pidfile_read(path, &holder, NULL) == 0 && pk_proc_ending(&holder);
        alive = ending ? 0 : alive + 1;
        if (alive > LOCK_LOOKS)
            return lock_conflict(path, &holder, err);
        pk_nsec waited = pk_time_monotonic() - begun;
        if (ending && waited >= (pk_nsec)wait_ms * PK_NSEC_PER_MS)
            return lock_timeout(path, &holder, wait_ms, err);
        if (ending && !told && waited > PK_NSEC_PER_SEC) {
            pk_log(PK_LOG_INFO, "lock", "process %d has ended: waiting until %s is free",
                   (int)holder.pid, path);
            told = true;
        }
        pk_sleep_ms(LOCK_LOOK_MS);
    }
}
