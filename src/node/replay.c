/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The replay engine. What keeps it from losing packets: the socket's send buffer is so small that
 * fewer frames wait in the tap's ring (256 places) than fit, and a frame that was refused is sent
 * again. In fast mode the next batch waits until the tap has taken the one before.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/time.h"
#include "node/internal.h"
#include "node/replay.h"
#include "packet/pcap.h"

#define BATCH     64u
#define FILES_MAX 1000u
#define PPS_MAX   100000000u
#define MBPS_MAX  400000u
#define SPEED_MIN 0.001
#define SPEED_MAX 100000.0
/* A frame costs at least 768 bytes of send buffer; the kernel doubles the number set. 128 KiB are
 * at most 170 frames. */
#define SEND_BUFFER (64 * 1024)
#define STALL_MAX   (5 * PK_NSEC_PER_SEC)
#define NAP         (50 * 1000LL)
#define STOP_CHECK  (100 * PK_NSEC_PER_MS)

struct pk_replay {
    struct pk_replay_options options;
    char interface[16];
    unsigned ifindex, mtu;
    pthread_t thread;
    bool joinable; /* the owner's */
    atomic_bool stop, running;
    _Atomic uint64_t sent, bytes, oversize, failed, truncated, cut_gaps, loop;
    pk_nsec begin;         /* written before the thread starts */
    _Atomic int64_t end;   /* 0 while it runs */
    bool stopped;          /* written before running goes false; so is: */
    struct pk_error fault; /* code 0 = none */
};

/* Captures that were put together from several, or made at night, pause for hours or years. */
#define GAP_DEFAULT_MS 2000
#define GAP_MAX_MS     (366ULL * 24 * 3600 * 1000)

/* What one run needs; the thread's own. */
struct run {
    struct pk_replay *replay;
    int fd;
    unsigned queued;
    size_t room; /* bytes per frame in frames */
    uint8_t *frames;
    bool paced;
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
};

/* ---- the call's body ---- */

static int parse_mode(const json_t *body, struct pk_pace *pace, struct pk_error *err)
{
    const char *mode = pk_json_string_or(body, "mode", "recorded");
    bool has_speed = json_object_get(body, "speed") != NULL;
    bool has_pps = json_object_get(body, "pps") != NULL;
    bool has_mbps = json_object_get(body, "mbps") != NULL;
    pace->speed = 1.0;
    if (strcmp(mode, "recorded") == 0) {
        const json_t *speed = json_object_get(body, "speed");
        pace->mode = PK_REPLAY_RECORDED;
        if (has_pps || has_mbps)
            return pk_fail(err, PK_E_INVALID, "replay: 'pps' and 'mbps' go with mode 'rate'");
        if (has_speed)
            pace->speed = json_is_number(speed) ? json_number_value(speed) : 0;
        if (!(pace->speed >= SPEED_MIN && pace->speed <= SPEED_MAX))
            return pk_fail(err, PK_E_INVALID, "replay: 'speed' must be from %g to %g", SPEED_MIN,
                           SPEED_MAX);
        uint64_t max_gap_ms = 0;
        int r = pk_check_uint("replay", body, "maxGapMs", 0, GAP_MAX_MS, GAP_DEFAULT_MS,
                              &max_gap_ms, err);
        pace->max_gap = (pk_nsec)max_gap_ms * PK_NSEC_PER_MS;
        return r;
    }
    if (has_speed || json_object_get(body, "maxGapMs") != NULL)
        return pk_fail(err, PK_E_INVALID, "replay: 'speed' and 'maxGapMs' go with mode 'recorded'");
    if (strcmp(mode, "rate") == 0) {
        pace->mode = PK_REPLAY_RATE;
        if (has_pps == has_mbps)
            return pk_fail(err, PK_E_INVALID, "replay: mode 'rate' needs 'pps' or 'mbps'");
        return has_pps ? pk_check_uint("replay", body, "pps", 1, PPS_MAX, -1, &pace->pps, err)
                       : pk_check_uint("replay", body, "mbps", 1, MBPS_MAX, -1, &pace->mbps, err);
    }
    if (strcmp(mode, "fast") != 0)
        return pk_fail(err, PK_E_INVALID, "replay: 'mode' must be 'recorded', 'rate' or 'fast'");
    if (has_pps || has_mbps)
        return pk_fail(err, PK_E_INVALID, "replay: 'pps' and 'mbps' go with mode 'rate'");
    pace->mode = PK_REPLAY_FAST;
    return 0;
}

int pk_replay_options_parse(const json_t *body, struct pk_replay_options *ret_options,
                            struct pk_error *err)
{
    static const char *const keys[] = {
        "files", "mode", "speed", "maxGapMs", "pps", "mbps", "loops"
    };
    struct pk_replay_options options = { 0 };
    int r = pk_check_keys("replay", body, keys, PK_ARRAY_SIZE(keys), err);
    if (r == 0)
        r = parse_mode(body, &options.pace, err);
    if (r == 0)
        r = pk_check_uint("replay", body, "loops", 0, UINT32_MAX, 1, &options.loops, err);
    const json_t *files = json_object_get(body, "files"), *file;
    size_t count = json_array_size(files), i;
    if (r == 0 && (count == 0 || count > FILES_MAX))
        r = pk_fail(err, PK_E_INVALID, "replay: 'files' must list 1 to %u capture files",
                    FILES_MAX);
    json_array_foreach(files, i, file)
    {
        const char *path = json_is_string(file) ? json_string_value(file) : "";
        if (r < 0)
            break;
        if (path[0] != '/' || strlen(path) != json_string_length(file) || strlen(path) >= 4096)
            r = pk_fail(err, PK_E_INVALID, "replay: 'files' must be absolute paths");
        else if (pk_strv_add(&options.files, path) < 0)
            r = pk_no_memory(err);
    }
    if (r < 0) {
        pk_replay_options_done(&options);
        return r;
    }
    *ret_options = options;
    return 0;
}

void pk_replay_options_done(struct pk_replay_options *options)
{
    pk_strv_done(&options->files);
}

/* ---- sending ---- */

static bool must_stop(const struct pk_replay *replay)
{
    return atomic_load_explicit(&replay->stop, memory_order_relaxed);
}

/* Until the time on the monotonic clock, or until told to stop. */
static void sleep_until(const struct pk_replay *replay, pk_nsec when)
{
    for (pk_nsec now = pk_time_monotonic(); now < when && !must_stop(replay);
         now = pk_time_monotonic()) {
        pk_nsec until = PK_MIN(when, now + STOP_CHECK);
        const struct timespec at = { .tv_sec = until / PK_NSEC_PER_SEC,
                                     .tv_nsec = until % PK_NSEC_PER_SEC };
        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
    }
}

/* Waits until the tap has taken all that was sent. */
static void settle(struct run *run)
{
    pk_nsec give_up = pk_time_monotonic() + STALL_MAX;
    int waiting = 0;
    while (!must_stop(run->replay) && ioctl(run->fd, SIOCOUTQ, &waiting) == 0 && waiting > 0) {
        pk_nsec now = pk_time_monotonic();
        if (now > give_up)
            break;
        sleep_until(run->replay, now + NAP);
    }
}

static int flush(struct run *run, struct pk_error *err)
{
    struct pk_replay *replay = run->replay;
    pk_nsec refused_since = 0;
    unsigned next = 0;
    while (next < run->queued && !must_stop(replay)) {
        int n = sendmmsg(run->fd, run->messages + next, run->queued - next, 0);
        if (n > 0) {
            for (int i = 0; i < n; i++, next++) {
                replay->sent++;
                replay->bytes += run->parts[next].iov_len;
            }
            refused_since = 0;
            continue;
        }
        int sys = errno;
        pk_nsec now = pk_time_monotonic();
        if (sys == EINTR)
            continue;
        if (sys == EAGAIN || sys == ENOBUFS) {
            refused_since = refused_since == 0 ? now : refused_since;
            if (now - refused_since < STALL_MAX) {
                sleep_until(replay, now + NAP);
                continue;
            }
        } else if (sys == ENETDOWN || sys == ENXIO || sys == ENODEV) {
            (void)pk_fail_errno(err, sys, "the tap's link %s went away", replay->interface);
            return pk_hint(err, "the agent makes it anew: start the replay again");
        }
        replay->failed++; /* this frame; the next one may do */
        refused_since = 0;
        next++;
    }
    run->queued = 0;
    if (!run->paced)
        settle(run);
    return 0;
}

static int send_frame(struct run *run, struct pk_pace *pace, const struct pk_pcap_frame *frame,
                      struct pk_error *err)
{
    struct pk_replay *replay = run->replay;
    if (frame->len < frame->wire_len)
        replay->truncated++;
    if (!pk_replay_fits(frame->data, frame->len, replay->mtu) || frame->len > run->room) {
        replay->oversize++;
        return 0;
    }
    pk_nsec due = replay->begin + pk_pace_next(pace, frame->time, frame->len);
    replay->cut_gaps = pace->cut_gaps;
    int r = 0;
    if (run->paced && due > pk_time_monotonic()) {
        r = flush(run, err); /* what was due before */
        sleep_until(replay, due);
    }
    struct iovec *part = &run->parts[run->queued];
    part->iov_len = frame->len;
    memcpy(part->iov_base, frame->data, frame->len);
    run->queued++;
    if (r == 0 && run->queued == BATCH)
        r = flush(run, err);
    return r;
}

/* Only regular files: the agent is root and must not hang on a pipe or a device. */
static int open_capture(const char *path, struct pk_pcap_reader **ret_reader, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        int sys = errno;
        (void)pk_fail_errno(err, sys, "cannot open the capture %s", path);
        return pk_hint(err, "the file must be on the machine that runs the tap, and its agent "
                            "must be allowed to read it");
    }
    if (!S_ISREG(st.st_mode)) {
        (void)pk_fail(err, PK_E_INVALID, "%s is not a regular file", path);
        return pk_hint(err, "give a pcap or pcapng file");
    }
    FILE *file = fdopen(fd, "rbe");
    if (file == NULL)
        return pk_fail_errno(err, errno, "cannot open the capture %s", path);
    fd = -1;
    (void)posix_fadvise(fileno(file), 0, 0, POSIX_FADV_SEQUENTIAL);
    return pk_pcap_open_file(file, path, ret_reader, err);
}

static int replay_file(struct run *run, struct pk_pace *pace, const char *path,
                       struct pk_error *err)
{
    PK_CLEANUP(pk_pcap_close_p) struct pk_pcap_reader *reader = NULL;
    int r = open_capture(path, &reader, err);
    struct pk_pcap_frame frame;
    if (r == 0)
        pk_pace_next_file(pace);
    while (r == 0 && !must_stop(run->replay)) {
        r = pk_pcap_next(reader, &frame, err);
        if (r <= 0)
            break;
        r = send_frame(run, pace, &frame, err);
    }
    int flushed = flush(run, r < 0 ? NULL : err); /* also what came before a damage in the file */
    return r < 0 ? r : flushed;
}

static int replay_all(struct run *run, struct pk_error *err)
{
    struct pk_replay *replay = run->replay;
    struct pk_pace pace = replay->options.pace;
    for (uint64_t loop = 1; !must_stop(replay); loop++) {
        uint64_t before = replay->sent;
        replay->loop = loop;
        for (size_t i = 0; i < replay->options.files.count && !must_stop(replay); i++) {
            int r = replay_file(run, &pace, replay->options.files.list[i], err);
            if (r < 0)
                return r;
        }
        if (replay->sent == before && !must_stop(replay)) {
            (void)pk_fail(err, PK_E_INVALID, "no frame of the capture could be sent");
            return replay->oversize > 0
                       ? pk_hint(err,
                                 "all are larger than the tap's MTU of %u: raise the tap's "
                                 "mtu in the fleet",
                                 replay->mtu)
                       : pk_hint(err, "the capture is empty: 'capinfos FILE' shows what it holds");
        }
        if (loop == replay->options.loops)
            break;
    }
    return 0;
}

static int open_socket(const struct pk_replay *replay, int *ret_fd, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        (void)pk_fail_errno(err, errno, "cannot open a packet socket");
        return pk_hint(err, "the agent needs CAP_NET_RAW: start it as root");
    }
    const struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = (int)replay->ifindex };
    const struct timeval timeout = { .tv_usec = 100000 }; /* so that a stop is seen */
    const int buffer = SEND_BUFFER, on = 1;
    if (bind(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
        return pk_fail_errno(err, errno, "cannot send through %s", replay->interface);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) < 0)
        return pk_fail_errno(err, errno, "cannot set the replay's socket up");
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int run_all(struct pk_replay *replay, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) struct run *run = pk_zalloc(sizeof(*run));
    PK_CLEANUP(pk_free_p) uint8_t *frames = NULL;
    PK_CLEANUP(pk_close_p) int fd = -1;
    size_t room = ETH_HLEN + PK_NODE_MTU_ROOM + replay->mtu;
    frames = pk_zalloc_array(BATCH, room);
    if (run == NULL || frames == NULL)
        return pk_no_memory(err);
    int r = open_socket(replay, &fd, err);
    if (r < 0)
        return r;
    run->replay = replay;
    run->fd = fd;
    run->room = room;
    run->paced = replay->options.pace.mode != PK_REPLAY_FAST;
    for (unsigned i = 0; i < BATCH; i++) {
        run->parts[i].iov_base = frames + i * room;
        run->messages[i].msg_hdr.msg_iov = &run->parts[i];
        run->messages[i].msg_hdr.msg_iovlen = 1;
    }
    (void)prctl(PR_SET_TIMERSLACK, 1000UL); /* 1 us; the default of 50 makes bursts */
    if (!run->paced) {
        /* The tap's and the lanes' receive work then runs on this processor too, in turns with the
         * sending, and the lanes' rings never run over. */
        cpu_set_t here;
        CPU_ZERO(&here);
        int cpu = sched_getcpu();
        if (cpu >= 0 && cpu < CPU_SETSIZE) {
            CPU_SET(cpu, &here);
            (void)sched_setaffinity(0, sizeof(here), &here);
        }
    }
    return replay_all(run, err);
}

static void *thread_main(void *arg)
{
    struct pk_replay *replay = arg;
    (void)pthread_setname_np(pthread_self(), "replay");
    struct pk_error err = { 0 };
    int r = run_all(replay, &err);
    if (r < 0)
        replay->fault = err;
    replay->stopped = must_stop(replay);
    replay->end = pk_time_monotonic();
    atomic_store_explicit(&replay->running, false, memory_order_release);
    return NULL;
}

/* ---- life ---- */

int pk_replay_start(struct pk_replay_options *options, const char *interface, unsigned ifindex,
                    unsigned mtu, struct pk_replay **ret_replay, struct pk_error *err)
{
    for (size_t i = 0; i < options->files.count; i++) {
        PK_CLEANUP(pk_pcap_close_p) struct pk_pcap_reader *reader = NULL;
        int r = open_capture(options->files.list[i], &reader, err);
        if (r < 0)
            return r;
    }
    struct pk_replay *replay = pk_zalloc(sizeof(*replay));
    if (replay == NULL)
        return pk_no_memory(err);
    replay->options = *options;
    (void)snprintf(replay->interface, sizeof(replay->interface), "%s", interface);
    replay->ifindex = ifindex;
    replay->mtu = mtu;
    replay->begin = pk_time_monotonic();
    replay->running = true;
    int sys = pthread_create(&replay->thread, NULL, thread_main, replay);
    if (sys != 0) {
        pk_free(replay);
        return pk_fail_errno(err, sys, "cannot start the replay's thread");
    }
    replay->joinable = true;
    *options = (struct pk_replay_options){ 0 };
    *ret_replay = replay;
    return 0;
}

struct pk_replay *pk_replay_lost(const char *why)
{
    struct pk_replay *replay = pk_zalloc(sizeof(*replay));
    if (replay != NULL)
        (void)pk_fail(&replay->fault, PK_E_INTERRUPTED, "%s", why);
    return replay;
}

bool pk_replay_running(const struct pk_replay *replay)
{
    return replay != NULL && atomic_load_explicit(&replay->running, memory_order_acquire);
}

void pk_replay_stop(struct pk_replay *replay)
{
    replay->stop = true;
    if (replay->joinable)
        (void)pthread_join(replay->thread, NULL);
    replay->joinable = false;
}

void pk_replay_free(struct pk_replay *replay)
{
    if (replay == NULL)
        return;
    pk_replay_stop(replay);
    pk_replay_options_done(&replay->options);
    pk_free(replay);
}

json_t *pk_replay_status(struct pk_replay *replay)
{
    if (replay == NULL)
        return json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:n}", "state", "none", "sent", 0,
                         "bytes", 0, "oversize", 0, "failed", 0, "truncated", 0, "cutGaps", 0,
                         "loop", 0, "elapsedMs", 0, "error");
    bool running = pk_replay_running(replay);
    bool bad = !running && replay->fault.code < 0;
    pk_nsec end = running ? pk_time_monotonic() : (pk_nsec)replay->end;
    json_t *json = json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s?}", "state",
        running ? "running"
        : bad   ? "failed"
                : "done",
        "sent", (json_int_t)replay->sent, "bytes", (json_int_t)replay->bytes, "oversize",
        (json_int_t)replay->oversize, "failed", (json_int_t)replay->failed, "truncated",
        (json_int_t)replay->truncated, "cutGaps", (json_int_t)replay->cut_gaps, "loop",
        (json_int_t)replay->loop, "elapsedMs", (json_int_t)((end - replay->begin) / PK_NSEC_PER_MS),
        "error", bad ? replay->fault.msg : NULL);
    if (json != NULL && bad && replay->fault.hint[0] != '\0')
        (void)json_object_set_new(json, "hint", json_string(replay->fault.hint));
    if (json != NULL && !running && replay->stopped)
        (void)json_object_set_new(json, "stopped", json_true());
    return json;
}
