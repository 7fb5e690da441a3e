/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "pk_test.h"

#include "base/loop.h"
#include "base/time.h"

struct fixture {
    struct pk_loop *loop;
    struct pk_loop_source *a, *b;
    unsigned calls;
    int fds[2];
};

static void count_to_three(void *arg)
{
    struct fixture *f = arg;
    if (++f->calls == 3)
        pk_loop_quit(f->loop);
}

static void test_timers(void **state)
{
    (void)state;
    struct fixture f = { 0 };
    assert_int_equal(pk_loop_new(&f.loop, NULL), 0);
    pk_nsec start = pk_time_monotonic();
    assert_int_equal(pk_loop_add_timer(f.loop, 5 * PK_NSEC_PER_MS, 5 * PK_NSEC_PER_MS,
                                       count_to_three, &f, &f.a, NULL),
                     0);
    assert_int_equal(pk_loop_run(f.loop, NULL), 0);
    assert_true(pk_time_monotonic() - start >= 15 * PK_NSEC_PER_MS);
    pk_loop_remove(f.a);
    /* Once, at once. */
    f.calls = 2;
    assert_int_equal(pk_loop_add_timer(f.loop, 0, 0, count_to_three, &f, NULL, NULL), 0);
    assert_int_equal(pk_loop_run(f.loop, NULL), 0);
    assert_int_equal(f.calls, 3);
    pk_loop_free(f.loop);
}

static void *wake_from_thread(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < 3; i++) {
        pk_loop_wake(f->a);
        pk_sleep_ms(5);
    }
    return NULL;
}

static void test_wakes_from_a_thread(void **state)
{
    (void)state;
    struct fixture f = { 0 };
    pthread_t thread;
    assert_int_equal(pk_loop_new(&f.loop, NULL), 0);
    assert_int_equal(pk_loop_add_wake(f.loop, count_to_three, &f, &f.a, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, wake_from_thread, &f), 0);
    assert_int_equal(pk_loop_run(f.loop, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(f.calls, 3);
    pk_loop_free(f.loop);
}

static void on_signal(void *arg, int signo)
{
    struct fixture *f = arg;
    f->calls = (unsigned)signo;
    pk_loop_quit(f->loop);
}

static void test_signals(void **state)
{
    (void)state;
    struct fixture f = { 0 };
    assert_int_equal(pk_loop_new(&f.loop, NULL), 0);
    assert_int_equal(pk_loop_add_signal(f.loop, SIGUSR1, on_signal, &f, &f.a, NULL), 0);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(pk_loop_run(f.loop, NULL), 0);
    assert_int_equal(f.calls, SIGUSR1);
    pk_loop_free(f.loop);
}

/* Both descriptors are ready in one batch; the first callback removes both sources. */
static void remove_both(void *arg, int fd, uint32_t revents)
{
    struct fixture *f = arg;
    (void)fd;
    assert_true((revents & (EPOLLIN | EPOLLOUT)) != 0);
    f->calls++;
    pk_loop_remove(f->a);
    pk_loop_remove(f->b);
    pk_loop_quit(f->loop);
}

static void test_removing_while_dispatching(void **state)
{
    (void)state;
    struct fixture f = { 0 };
    assert_int_equal(pk_loop_new(&f.loop, NULL), 0);
    assert_int_equal(pipe(f.fds), 0);
    assert_int_equal(write(f.fds[1], "x", 1), 1);
    assert_int_equal(pk_loop_add_fd(f.loop, f.fds[0], EPOLLIN, remove_both, &f, &f.a, NULL), 0);
    assert_int_equal(pk_loop_add_fd(f.loop, f.fds[1], 0, remove_both, &f, &f.b, NULL), 0);
    assert_int_equal(pk_loop_change_fd(f.b, EPOLLOUT, NULL), 0);
    assert_int_equal(pk_loop_run(f.loop, NULL), 0);
    assert_int_equal(f.calls, 1);
    pk_loop_free(f.loop);
    assert_int_equal(close(f.fds[0]), 0); /* the loop left them open */
    assert_int_equal(close(f.fds[1]), 0);
}

static void test_faults(void **state)
{
    (void)state;
    struct pk_loop *loop = NULL;
    struct pk_loop_source *source = NULL;
    assert_int_equal(pk_loop_new(&loop, NULL), 0);
    assert_true(pk_loop_add_fd(loop, -1, EPOLLIN, remove_both, NULL, &source, NULL) < 0);
    assert_null(source);
    pk_loop_remove(NULL);
    pk_loop_free(loop);
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        struct pk_loop *partial = NULL;
        r = pk_loop_new(&partial, NULL);
        if (r == 0)
            r = pk_loop_add_timer(partial, 1, 0, count_to_three, NULL, NULL, NULL);
        if (r == 0)
            r = pk_loop_add_wake(partial, count_to_three, NULL, NULL, NULL);
        pk_loop_free(partial);
    });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers),  cmocka_unit_test(test_wakes_from_a_thread),
        cmocka_unit_test(test_signals), cmocka_unit_test(test_removing_while_dispatching),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
