/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pk_test.h"

#include "base/fs.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/time.h"

/* The child's own shell, told by us what to do: picket itself starts none. */
#define SH(script) ((const char *const[]){ "sh", "-c", script, NULL })

static void test_output_status_and_input(void **state)
{
    (void)state;
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(1024);
    PK_CLEANUP(pk_buf_done) struct pk_buf errout = PK_BUF_INIT(3);
    int status = -1;
    const struct pk_proc_options options = { .argv = SH("cat; echo abcdef >&2; exit 7"),
                                             .input = "hello",
                                             .input_len = 5 };
    assert_int_equal(pk_proc_run(&options, &out, &errout, &status, NULL), 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
    assert_string_equal(out.data, "hello");
    assert_string_equal(errout.data, "abc"); /* beyond the buffer's limit: dropped */
    assert_false(errout.failed);
    struct pk_error err = { 0 };
    assert_int_equal(pk_proc_check(&options, NULL, &err), PK_E_IO);
    assert_string_equal(err.msg, "sh failed with status 7: abcdef");
}

static void test_environment_and_folder(void **state)
{
    (void)state;
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(1024);
    const char *const env[] = { "ONLY=this", "PATH=/usr/bin:/bin", NULL };
    const struct pk_proc_options options = { .argv = SH("pwd; echo $ONLY; cat"),
                                             .env = env,
                                             .cwd = "/" };
    assert_int_equal(pk_proc_check(&options, &out, NULL), 0);
    assert_string_equal(out.data, "/\nthis\n");
}

static void collect(void *arg, const char *line)
{
    struct pk_strv *lines = arg;
    assert_int_equal(pk_strv_add(lines, line), 0);
}

static void test_lines(void **state)
{
    (void)state;
    struct pk_strv lines = { 0 };
    const struct pk_proc_options options = {
        .argv = SH("printf 'a\\n\\nlast'; head -c 20000 /dev/zero | tr '\\0' x >&2"),
        .on_line = collect,
        .on_line_arg = &lines
    };
    assert_int_equal(pk_proc_check(&options, NULL, NULL), 0);
    assert_true(pk_strv_contains(&lines, "a"));
    assert_true(pk_strv_contains(&lines, ""));
    assert_true(pk_strv_contains(&lines, "last"));
    size_t longest = 0, total = 0;
    for (size_t i = 0; i < lines.count; i++) {
        longest = PK_MAX(longest, strlen(lines.list[i]));
        total += strlen(lines.list[i]);
    }
    assert_int_equal(longest, 16384);
    assert_int_equal(total, 20000 + strlen("alast"));
    pk_strv_done(&lines);
}

static void test_faults(void **state)
{
    (void)state;
    int status = -1;
    struct pk_error err = { 0 };
    const struct pk_proc_options missing = { .argv = (const char *const[]){ "pk-no-such", NULL } };
    assert_int_equal(pk_proc_run(&missing, NULL, NULL, &status, &err), PK_E_NOTFOUND);
    assert_non_null(strstr(err.hint, "install pk-no-such"));
    assert_int_equal(status, -1);
    const struct pk_proc_options killed = { .argv = SH("kill -9 $$") };
    assert_int_equal(pk_proc_check(&killed, NULL, &err), PK_E_IO);
    assert_string_equal(err.msg, "sh was ended by signal 9");
}

static void test_time_limit(void **state)
{
    (void)state;
    int status;
    struct pk_error err = { 0 };
    pk_nsec start = pk_time_monotonic();
    const struct pk_proc_options sleeper = { .argv = (const char *const[]){ "sleep", "60", NULL },
                                             .timeout_ms = 50 };
    assert_int_equal(pk_proc_run(&sleeper, NULL, NULL, &status, &err), PK_E_TIMEOUT);
    assert_true(pk_time_monotonic() - start < 2 * PK_NSEC_PER_SEC);
    /* One that does not listen to SIGTERM is killed two seconds later. */
    const struct pk_proc_options deaf = { .argv = SH("trap '' TERM; while :; do sleep 0.1; done"),
                                          .timeout_ms = 50 };
    assert_int_equal(pk_proc_run(&deaf, NULL, NULL, &status, &err), PK_E_TIMEOUT);
    assert_true(pk_time_monotonic() - start < 10 * PK_NSEC_PER_SEC);
    /* A grandchild that holds the pipe open is not waited for. */
    start = pk_time_monotonic();
    const struct pk_proc_options parent = { .argv = SH("sleep 3 & echo done") };
    PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(100);
    assert_int_equal(pk_proc_check(&parent, &out, NULL), 0);
    assert_string_equal(out.data, "done\n");
    assert_true(pk_time_monotonic() - start < 2 * PK_NSEC_PER_SEC);
}

static void test_without_memory(void **state)
{
    (void)state;
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        PK_CLEANUP(pk_buf_done) struct pk_buf out = PK_BUF_INIT(100);
        struct pk_strv lines = { 0 };
        const struct pk_proc_options options = { .argv = SH("echo hi"),
                                                 .on_line = NULL,
                                                 .on_line_arg = &lines };
        r = pk_proc_check(&options, &out, NULL);
        pk_strv_done(&lines);
    });
}

static void test_daemon_pidfile_and_stop(void **state)
{
    (void)state;
    char dir[] = "/tmp/pk-test-proc-XXXXXX";
    assert_non_null(mkdtemp(dir));
    PK_CLEANUP(pk_free_p) char *log = pk_path_join(dir, "log");
    PK_CLEANUP(pk_free_p) char *pidfile = pk_path_join(dir, "pid");
    const struct pk_daemon_options options = { .argv = SH("echo up; exec sleep 60"),
                                               .log_path = log };
    pid_t pid = 0;
    assert_int_equal(pk_proc_spawn_daemon(&options, &pid, NULL), 0);
    struct pk_proc_id id, again;
    assert_int_equal(pk_proc_id_of(pid, &id, NULL), 0);
    assert_int_equal(getsid(pid), pid);
    assert_int_equal(pk_pidfile_write(pidfile, &id, NULL), 0);
    assert_int_equal(pk_pidfile_read(pidfile, &again, NULL), 0);
    assert_true(pk_proc_alive(&again));
    struct pk_proc_id other = id; /* the number was taken over by another process */
    other.start_ticks++;
    assert_false(pk_proc_alive(&other));
    assert_int_equal(pk_proc_stop(&other, 100, NULL), 0);
    assert_true(pk_proc_alive(&id));
    char *text = NULL;
    for (int i = 0; i < 200 && (text == NULL || text[0] == '\0'); i++) {
        pk_free(text);
        assert_int_equal(pk_file_read(log, 100, &text, NULL, NULL), 0);
        pk_sleep_ms(10);
    }
    assert_string_equal(text, "up\n");
    pk_free(text);
    assert_int_equal(pk_proc_stop(&id, 2000, NULL), 0);
    assert_false(pk_proc_alive(&id));
    assert_int_equal(pk_proc_stop(&id, 2000, NULL), 0);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), -1); /* reaped */

    const char *const bad[] = { "", "12", "x y", "0 1", "-1 1", "99999999999 1", "12 34 56" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++) {
        assert_int_equal(pk_file_write(pidfile, bad[i], strlen(bad[i]), 0600, NULL), 0);
        assert_int_equal(pk_pidfile_read(pidfile, &again, NULL), PK_E_INVALID);
    }
    assert_int_equal(pk_rm_rf(dir, NULL), 0);
}

/* ---- locks ---- */

/* A process that has the lock, in one of the ways to die that are not over yet. */
enum end { LIVES, MAIN_THREAD_GONE };
struct holder {
    pid_t pid;
    int let_go; /* closed: it ends */
};

static void *wait_for_the_end(void *arg)
{
    char byte;
    while (read(*(int *)arg, &byte, 1) > 0)
        ;
    _exit(0);
}

static struct holder holder_start(const char *path, enum end end)
{
    int ready[2], go[2];
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(go), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(go[1]);
        int lock = -1;
        pthread_t other;
        if (pk_lock_process(path, 0, &lock, NULL) < 0 ||
            pthread_create(&other, NULL, wait_for_the_end, &go[0]) != 0 ||
            write(ready[1], "x", 1) != 1)
            _exit(1);
        if (end == MAIN_THREAD_GONE) /* as with a killed process: a zombie whose files are open */
            pthread_exit(NULL);
        (void)pthread_join(other, NULL);
        _exit(0);
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    (void)close(ready[1]);
    (void)close(go[0]);
    return (struct holder){ .pid = pid, .let_go = go[1] };
}

static void holder_stop(struct holder *holder)
{
    (void)close(holder->let_go);
    int status;
    assert_int_equal(waitpid(holder->pid, &status, 0), holder->pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void await_ending(pid_t pid)
{
    struct pk_proc_id id;
    assert_int_equal(pk_proc_id_of(pid, &id, NULL), 0);
    for (int i = 0; i < 1000 && !pk_proc_ending(&id); i++)
        pk_sleep_ms(10);
    assert_true(pk_proc_ending(&id));
}

static void *let_go_later(void *arg)
{
    pk_sleep_ms(1300); /* long enough for the line in the log */
    holder_stop(arg);
    return NULL;
}

static void test_locks(void **state)
{
    (void)state;
    char dir[] = "/tmp/pk-test-proc.XXXXXX", path[64], said[32];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/lock", dir);
    int lock = -1;
    struct pk_error err = { 0 };

    /* One that lives: told at once, by its number. */
    struct holder holder = holder_start(path, LIVES);
    assert_int_equal(pk_lock_process(path, 60000, &lock, &err), PK_E_CONFLICT);
    assert_int_equal(lock, -1);
    (void)snprintf(said, sizeof(said), "process %d ", (int)holder.pid);
    assert_non_null(strstr(err.msg, said));
    assert_true(err.hint[0] != '\0');
    holder_stop(&holder);

    /* One that is ending is waited for. */
    holder = holder_start(path, MAIN_THREAD_GONE);
    await_ending(holder.pid);
    assert_int_equal(pk_lock_process(path, 50, &lock, &err), PK_E_TIMEOUT);
    assert_non_null(strstr(err.msg, "has ended"));
    assert_true(err.hint[0] != '\0');
    assert_int_equal(lock, -1);
    pthread_t thread;
    err = (struct pk_error){ 0 };
    assert_int_equal(pthread_create(&thread, NULL, let_go_later, &holder), 0);
    assert_int_equal(pk_lock_process(path, 60000, &lock, &err), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(err.code, 0);

    /* What it wrote is its own pid file, and a second lock meets a process that lives. */
    struct pk_proc_id self, written;
    assert_int_equal(pk_proc_id_of(getpid(), &self, NULL), 0);
    assert_int_equal(pk_pidfile_read(path, &written, NULL), 0);
    assert_true(written.pid == self.pid && written.start_ticks == self.start_ticks);
    assert_false(pk_proc_ending(&self));
    int second = -1;
    assert_int_equal(pk_lock_process(path, 60000, &second, &err), PK_E_CONFLICT);

    /* A number that another process has got by now is not taken for the holder. */
    written.start_ticks++;
    assert_true(pk_proc_ending(&written));
    assert_int_equal(pk_pidfile_write(path, &written, NULL), 0); /* another file in its place */
    assert_int_equal(pk_lock_process(path, 0, &second, &err), 0);
    pk_close_p(&lock);
    pk_close_p(&second);
    assert_int_equal(pk_lock_process("/proc/no/such/lock", 0, &lock, &err), PK_E_NOTFOUND);
    assert_int_equal(pk_rm_rf(dir, NULL), 0);
}

static void test_killed_is_ending(void **state)
{
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        for (;;)
            (void)pause();
    struct pk_proc_id id;
    assert_int_equal(pk_proc_id_of(pid, &id, NULL), 0);
    assert_false(pk_proc_ending(&id));
    assert_int_equal(kill(pid, SIGKILL), 0);
    await_ending(pid);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(pk_proc_ending(&id));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_status_and_input),
        cmocka_unit_test(test_environment_and_folder),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_time_limit),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_daemon_pidfile_and_stop),
        cmocka_unit_test(test_locks),
        cmocka_unit_test(test_killed_is_ending),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
