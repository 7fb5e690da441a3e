/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes without a shell (posix_spawn, argument vectors). */
#ifndef PICKET_BASE_PROC_H
#define PICKET_BASE_PROC_H

#include <sys/types.h>

#include "base/buf.h"
#include "base/common.h"
#include "base/error.h"

struct pk_proc_options {
    const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
    const char *const *env;  /* NULL = inherit; else the whole environment, "K=V" */
    const char *cwd;         /* NULL = inherit */
    const char *input;       /* fed to standard input; NULL = /dev/null */
    size_t input_len;
    unsigned timeout_ms; /* 0 = none; then SIGTERM, 2 s later SIGKILL, and PK_E_TIMEOUT */
    /* Called with each whole line of output (either stream) as it comes; may be NULL. */
    void (*on_line)(void *arg, const char *line);
    void *on_line_arg;
};

/* Runs to the end. Output beyond each buffer's max is dropped, not an error; out and errout may be
 * NULL. *ret_status is as from waitpid(2). Not starting at all is PK_E_NOTFOUND or PK_E_IO. */
int pk_proc_run(const struct pk_proc_options *options, struct pk_buf *out, struct pk_buf *errout,
                int *ret_status, struct pk_error *err);
/* As above, and a status other than exit 0 is PK_E_IO with the last lines of stderr in the message.
 */
int pk_proc_check(const struct pk_proc_options *options, struct pk_buf *out, struct pk_error *err);

struct pk_daemon_options {
    const char *const *argv;
    const char *const *env;
    const char *log_path; /* stdout and stderr are appended here */
    const char *cwd;
};
/* Starts a process of its own session that outlives the caller. */
int pk_proc_spawn_daemon(const struct pk_daemon_options *options, pid_t *ret_pid,
                         struct pk_error *err);

/* A process by its id and start time (field 22 of /proc/PID/stat), so that a reused id is never
 * taken for it. */
struct pk_proc_id {
    pid_t pid;
    uint64_t start_ticks;
};
int pk_proc_id_of(pid_t pid, struct pk_proc_id *ret_id, struct pk_error *err);
bool pk_proc_alive(const struct pk_proc_id *id); /* a zombie is not alive */
/* Is it past doing anything: gone, a zombie, killed, or in its exit? The kernel may still hold its
 * files: they are closed by the last of its threads, which can take a while. */
bool pk_proc_ending(const struct pk_proc_id *id);
/* SIGTERM, then SIGKILL after grace_ms; waits until gone. Gone already is success. */
int pk_proc_stop(const struct pk_proc_id *id, unsigned grace_ms, struct pk_error *err);
/* "PID START" in a file, for the above. */
int pk_pidfile_write(const char *path, const struct pk_proc_id *id, struct pk_error *err);
int pk_pidfile_read(const char *path, struct pk_proc_id *ret_id, struct pk_error *err);
/* Takes the lock at path for as long as this process has *ret_fd open, and writes its pid file into
 * it. A holder that is ending is waited for, wait_ms at most (a line in the log when that takes
 * more than a second), then PK_E_TIMEOUT. PK_E_CONFLICT at once when it lives. */
#define PK_LOCK_WAIT_MS 30000u
int pk_lock_process(const char *path, unsigned wait_ms, int *ret_fd, struct pk_error *err);

#endif
