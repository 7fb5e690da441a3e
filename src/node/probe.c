/* SPDX-License-Identifier: Apache-2.0 */
#include "node/probe.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/time.h"

struct pk_prober {
    int socket;
    bool has_locks, runs;
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    struct pk_probe_target *targets;
    size_t count;
    pk_nsec period;
    bool ending;
    uint8_t frames[PK_SIDES][PK_PROBE_SIZE];
};

/* Interfaces come and go, and a queue may be full: the next one is sent soon. */
static void send_all(struct pk_prober *prober)
{
    for (size_t i = 0; i < prober->count; i++)
        for (unsigned side = 0; side < PK_SIDES; side++) {
            const struct sockaddr_ll to = { .sll_family = AF_PACKET,
                                            .sll_ifindex = (int)prober->targets[i].outer[side],
                                            .sll_halen = 6 };
            (void)sendto(prober->socket, prober->frames[side], PK_PROBE_SIZE,
                         MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&to, sizeof(to));
        }
}

static void *run(void *arg)
{
    struct pk_prober *prober = arg;
    pk_nsec next = pk_time_monotonic();
    (void)pthread_mutex_lock(&prober->lock);
    while (!prober->ending) {
        if (prober->count == 0) {
            (void)pthread_cond_wait(&prober->changed, &prober->lock);
            next = pk_time_monotonic();
            continue;
        }
        pk_nsec now = pk_time_monotonic();
        if (now >= next) {
            send_all(prober);
            next = PK_MAX(next + prober->period, now); /* no burst after a pause */
        }
        const struct timespec until = { .tv_sec = next / PK_NSEC_PER_SEC,
                                        .tv_nsec = next % PK_NSEC_PER_SEC };
        (void)pthread_cond_timedwait(&prober->changed, &prober->lock, &until);
    }
    (void)pthread_mutex_unlock(&prober->lock);
    return NULL;
}

int pk_prober_start(uint64_t token, struct pk_prober **ret_prober, struct pk_error *err)
{
    PK_CLEANUP(pk_prober_free_p) struct pk_prober *prober = pk_zalloc(sizeof(*prober));
    if (prober == NULL)
        return pk_no_memory(err);
    for (unsigned side = 0; side < PK_SIDES; side++)
        pk_broker_probe_frame(token, side, prober->frames[side]);
    prober->socket = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); /* receives nothing */
    if (prober->socket < 0)
        return pk_fail_errno(err, errno, "cannot open a packet socket");
    pthread_condattr_t attributes;
    int sys = pthread_condattr_init(&attributes);
    if (sys == 0)
        sys = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (sys == 0)
        sys = pthread_cond_init(&prober->changed, &attributes);
    if (sys == 0)
        sys = pthread_mutex_init(&prober->lock, NULL);
    prober->has_locks = sys == 0;
    (void)pthread_condattr_destroy(&attributes);
    /* The agent's signals are for its loop, which may come later. */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    if (sys == 0)
        sys = pthread_create(&prober->thread, NULL, run, prober);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (sys != 0)
        return pk_fail_errno(err, sys, "cannot start a thread");
    prober->runs = true;
    *ret_prober = PK_TAKE(prober);
    return 0;
}

void pk_prober_free(struct pk_prober *prober)
{
    if (prober == NULL)
        return;
    if (prober->runs) {
        (void)pthread_mutex_lock(&prober->lock);
        prober->ending = true;
        (void)pthread_cond_signal(&prober->changed);
        (void)pthread_mutex_unlock(&prober->lock);
        (void)pthread_join(prober->thread, NULL);
    }
    if (prober->has_locks) {
        (void)pthread_cond_destroy(&prober->changed);
        (void)pthread_mutex_destroy(&prober->lock);
    }
    pk_close_p(&prober->socket);
    pk_free(prober->targets);
    pk_free(prober);
}

int pk_prober_set(struct pk_prober *prober, const struct pk_probe_target *targets, size_t count,
                  pk_nsec period, struct pk_error *err)
{
    /* Only the caller's thread changes them, so that reading needs no lock. */
    size_t bytes = count * sizeof(*targets);
    if (prober->count == count && prober->period == period &&
        (count == 0 || memcmp(prober->targets, targets, bytes) == 0))
        return 0;
    struct pk_probe_target *copy = NULL;
    if (count > 0) {
        copy = pk_memdup(targets, bytes);
        if (copy == NULL)
            return pk_no_memory(err);
    }
    (void)pthread_mutex_lock(&prober->lock);
    struct pk_probe_target *old = prober->targets;
    prober->targets = copy;
    prober->count = count;
    prober->period = period;
    (void)pthread_cond_signal(&prober->changed);
    (void)pthread_mutex_unlock(&prober->lock);
    pk_free(old);
    return 0;
}
