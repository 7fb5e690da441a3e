/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An epoll loop: descriptors, timers (timerfd resolution), signals (signalfd), wake-ups from other
 * threads. Callbacks run on the thread that runs the loop. Everything is "loop thread only" except
 * pk_loop_wake() and pk_loop_quit(). A callback may remove any source, itself included.
 */
#ifndef PICKET_BASE_LOOP_H
#define PICKET_BASE_LOOP_H

#include <sys/epoll.h>

#include "base/common.h"
#include "base/error.h"

struct pk_loop;
struct pk_loop_source;

int pk_loop_new(struct pk_loop **ret_loop, struct pk_error *err);
void pk_loop_free(struct pk_loop *loop); /* removes all sources; closes none of the callers' fds */
PK_DEFINE_CLEANUP(struct pk_loop, pk_loop_free);
int pk_loop_run(struct pk_loop *loop, struct pk_error *err); /* until pk_loop_quit() */
void pk_loop_quit(struct pk_loop *loop);                     /* any thread, signal safe */

/* events and revents: EPOLLIN, EPOLLOUT, EPOLLHUP ... The fd stays the caller's. */
int pk_loop_add_fd(struct pk_loop *loop, int fd, uint32_t events,
                   void (*callback)(void *arg, int fd, uint32_t revents), void *arg,
                   struct pk_loop_source **ret_source, struct pk_error *err);
int pk_loop_change_fd(struct pk_loop_source *source, uint32_t events, struct pk_error *err);
/* First after delay, then every interval (0 = once). */
int pk_loop_add_timer(struct pk_loop *loop, pk_nsec delay, pk_nsec interval,
                      void (*callback)(void *arg), void *arg, struct pk_loop_source **ret_source,
                      struct pk_error *err);
/* Blocks the signal for the process and takes it through signalfd. */
int pk_loop_add_signal(struct pk_loop *loop, int signo, void (*callback)(void *arg, int signo),
                       void *arg, struct pk_loop_source **ret_source, struct pk_error *err);
/* A source that pk_loop_wake() triggers, several wakes may be merged into one. */
int pk_loop_add_wake(struct pk_loop *loop, void (*callback)(void *arg), void *arg,
                     struct pk_loop_source **ret_source, struct pk_error *err);
void pk_loop_wake(struct pk_loop_source *source);   /* any thread, signal safe */
void pk_loop_remove(struct pk_loop_source *source); /* NULL is fine */

#endif
