/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every source is one descriptor in one epoll set; timers, signals and wake-ups own theirs. A
 * source that is removed is only marked while a batch of events is being handed out: the batch may
 * still name it.
 */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"

enum source_kind { SOURCE_FD, SOURCE_TIMER, SOURCE_SIGNAL, SOURCE_WAKE };

struct pk_loop_source {
    struct pk_loop *loop;
    struct pk_loop_source *next, **link; /* the list it is on */
    enum source_kind kind;
    bool removed;
    int fd; /* owned unless SOURCE_FD */
    int signo;
    union {
        void (*on_fd)(void *arg, int fd, uint32_t revents);
        void (*on_plain)(void *arg);
        void (*on_signal)(void *arg, int signo);
    } call;
    void *arg;
};

struct pk_loop {
    int epoll_fd;
    int quit_fd; /* eventfd: quitting is possible from a signal handler */
    struct pk_loop_source *sources, *removed;
    bool dispatching;
};

int pk_loop_new(struct pk_loop **ret_loop, struct pk_error *err)
{
    struct pk_loop *loop = pk_zalloc(sizeof(*loop));
    if (loop == NULL)
        return pk_fail(err, PK_E_NOMEM, "cannot make an event loop: out of memory");
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
    if (loop->epoll_fd < 0 || loop->quit_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->quit_fd, &event) < 0) {
        int r = pk_fail_errno(err, errno, "cannot make an event loop");
        pk_loop_free(loop);
        return r;
    }
    *ret_loop = loop;
    return 0;
}

static void push(struct pk_loop_source **list, struct pk_loop_source *source)
{
    source->next = *list;
    source->link = list;
    if (source->next != NULL)
        source->next->link = &source->next;
    *list = source;
}

static void unlink_source(struct pk_loop_source *source)
{
    *source->link = source->next;
    if (source->next != NULL)
        source->next->link = source->link;
}

static void free_removed(struct pk_loop *loop)
{
    while (loop->removed != NULL) {
        struct pk_loop_source *source = loop->removed;
        unlink_source(source);
        pk_free(source);
    }
}

void pk_loop_remove(struct pk_loop_source *source)
{
    if (source == NULL || source->removed)
        return;
    struct pk_loop *loop = source->loop;
    source->removed = true;
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    if (source->kind != SOURCE_FD)
        pk_close_p(&source->fd);
    unlink_source(source);
    push(&loop->removed, source);
    if (!loop->dispatching)
        free_removed(loop);
}

void pk_loop_free(struct pk_loop *loop)
{
    if (loop == NULL)
        return;
    while (loop->sources != NULL)
        pk_loop_remove(loop->sources);
    free_removed(loop);
    pk_close_p(&loop->epoll_fd);
    pk_close_p(&loop->quit_fd);
    pk_free(loop);
}

/* Takes fd on success when the kind owns it; the caller closes it on failure. */
static int add(struct pk_loop *loop, const struct pk_loop_source *template, uint32_t events,
               struct pk_loop_source **ret_source, struct pk_error *err)
{
    struct pk_loop_source *source = pk_memdup(template, sizeof(*template));
    if (source == NULL)
        return pk_fail(err, PK_E_NOMEM, "cannot watch a descriptor: out of memory");
    source->loop = loop;
    struct epoll_event event = { .events = events, .data.ptr = source };
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0) {
        int r = pk_fail_errno(err, errno, "cannot watch descriptor %d", source->fd);
        pk_free(source);
        return r;
    }
    push(&loop->sources, source);
    if (ret_source != NULL)
        *ret_source = source;
    return 0;
}

int pk_loop_add_fd(struct pk_loop *loop, int fd, uint32_t events,
                   void (*callback)(void *arg, int fd, uint32_t revents), void *arg,
                   struct pk_loop_source **ret_source, struct pk_error *err)
{
    const struct pk_loop_source source = {
        .kind = SOURCE_FD, .fd = fd, .call.on_fd = callback, .arg = arg
    };
    return add(loop, &source, events, ret_source, err);
}

int pk_loop_change_fd(struct pk_loop_source *source, uint32_t events, struct pk_error *err)
{
    struct epoll_event event = { .events = events, .data.ptr = source };
    if (epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
        return pk_fail_errno(err, errno, "cannot watch descriptor %d", source->fd);
    return 0;
}

static struct timespec to_timespec(pk_nsec span)
{
    return (struct timespec){ .tv_sec = span / PK_NSEC_PER_SEC, .tv_nsec = span % PK_NSEC_PER_SEC };
}

int pk_loop_add_timer(struct pk_loop *loop, pk_nsec delay, pk_nsec interval,
                      void (*callback)(void *arg), void *arg, struct pk_loop_source **ret_source,
                      struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    /* A delay of 0 would disarm the timer. */
    const struct itimerspec when = { .it_value = to_timespec(PK_MAX(delay, 1)),
                                     .it_interval = to_timespec(PK_MAX(interval, 0)) };
    if (fd < 0 || timerfd_settime(fd, 0, &when, NULL) < 0)
        return pk_fail_errno(err, errno, "cannot make a timer");
    const struct pk_loop_source source = {
        .kind = SOURCE_TIMER, .fd = fd, .call.on_plain = callback, .arg = arg
    };
    int r = add(loop, &source, EPOLLIN, ret_source, err);
    if (r == 0)
        fd = -1;
    return r;
}

int pk_loop_add_signal(struct pk_loop *loop, int signo, void (*callback)(void *arg, int signo),
                       void *arg, struct pk_loop_source **ret_source, struct pk_error *err)
{
    sigset_t set;
    (void)sigemptyset(&set);
    if (sigaddset(&set, signo) < 0)
        return pk_fail_errno(err, errno, "cannot take signal %d", signo);
    int sys = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (sys != 0)
        return pk_fail_errno(err, sys, "cannot block signal %d", signo);
    PK_CLEANUP(pk_close_p) int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return pk_fail_errno(err, errno, "cannot take signal %d", signo);
    const struct pk_loop_source source = {
        .kind = SOURCE_SIGNAL, .fd = fd, .signo = signo, .call.on_signal = callback, .arg = arg
    };
    int r = add(loop, &source, EPOLLIN, ret_source, err);
    if (r == 0)
        fd = -1;
    return r;
}

int pk_loop_add_wake(struct pk_loop *loop, void (*callback)(void *arg), void *arg,
                     struct pk_loop_source **ret_source, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return pk_fail_errno(err, errno, "cannot make a wake-up");
    const struct pk_loop_source source = {
        .kind = SOURCE_WAKE, .fd = fd, .call.on_plain = callback, .arg = arg
    };
    int r = add(loop, &source, EPOLLIN, ret_source, err);
    if (r == 0)
        fd = -1;
    return r;
}

static void ring(int fd)
{
    int saved = errno;
    uint64_t one = 1;
    while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ; /* EAGAIN: the counter is full, so it is rung already */
    errno = saved;
}

void pk_loop_wake(struct pk_loop_source *source)
{
    ring(source->fd);
}

void pk_loop_quit(struct pk_loop *loop)
{
    ring(loop->quit_fd);
}

/* Empties timers and wake-ups. False if there was nothing after all. */
static bool take_count(int fd)
{
    uint64_t count;
    return read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count);
}

static void dispatch(struct pk_loop_source *source, uint32_t revents)
{
    struct signalfd_siginfo info;
    switch (source->kind) {
    case SOURCE_FD:
        source->call.on_fd(source->arg, source->fd, revents);
        return;
    case SOURCE_TIMER:
    case SOURCE_WAKE:
        if (take_count(source->fd))
            source->call.on_plain(source->arg);
        return;
    case SOURCE_SIGNAL:
        if (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
            source->call.on_signal(source->arg, source->signo);
        return;
    }
}

int pk_loop_run(struct pk_loop *loop, struct pk_error *err)
{
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(loop->epoll_fd, events, PK_ARRAY_SIZE(events), -1);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return pk_fail_errno(err, errno, "cannot wait for events");
        bool quit = false;
        loop->dispatching = true;
        for (int i = 0; i < count; i++) {
            struct pk_loop_source *source = events[i].data.ptr;
            if (source == NULL)
                quit = take_count(loop->quit_fd);
            else if (!source->removed)
                dispatch(source, events[i].events);
        }
        loop->dispatching = false;
        free_removed(loop);
        if (quit)
            return 0;
    }
}
