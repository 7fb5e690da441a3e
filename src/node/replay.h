/* SPDX-License-Identifier: Apache-2.0 */
/* Replays capture files into a replay tap, on a thread of its own. */
#ifndef PICKET_NODE_REPLAY_H
#define PICKET_NODE_REPLAY_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"
#include "base/str.h"

/* ---- pace.c: when a frame is due. Pure ---- */
enum pk_replay_mode { PK_REPLAY_RECORDED, PK_REPLAY_RATE, PK_REPLAY_FAST };

struct pk_pace {
    enum pk_replay_mode mode;
    double speed;       /* recorded: 2.0 = twice as fast */
    pk_nsec max_gap;    /* recorded: longer gaps are cut to it; 0 = none are */
    uint64_t pps, mbps; /* rate: one of them is not 0 */
    /* how far it is */
    uint64_t frames, bits;
    bool started;      /* recorded: last is set */
    pk_nsec last;      /* the latest of the file's times so far */
    pk_nsec recorded;  /* of the file, its long gaps cut */
    pk_nsec base, due; /* since the start: of the file, and of the frame before */
    uint64_t cut_gaps;
};
/* Nanoseconds since the replay's start at which the next frame is to be sent; never goes back, even
 * where the capture's times do. Call once per frame sent. */
pk_nsec pk_pace_next(struct pk_pace *pace, pk_nsec frame_time, uint32_t frame_len);
/* The next file, or the next turn: its first frame follows the last one at once. */
void pk_pace_next_file(struct pk_pace *pace);
/* Does a frame fit the MTU? VLAN tags (two at most) do not count, as on a wire. */
bool pk_replay_fits(const uint8_t *frame, size_t len, unsigned mtu);

/* ---- replay.c ---- */
struct pk_replay_options {
    struct pk_strv files; /* absolute */
    struct pk_pace pace;
    uint64_t loops; /* 0 = endless */
};
/* The body of the POST call, checked. Release with pk_replay_options_done(). */
int pk_replay_options_parse(const json_t *body, struct pk_replay_options *ret_options,
                            struct pk_error *err);
void pk_replay_options_done(struct pk_replay_options *options);

struct pk_replay;
/* Opens every file first, so that a wrong one is told now. Takes what options holds on success. */
int pk_replay_start(struct pk_replay_options *options, const char *interface, unsigned ifindex,
                    unsigned mtu, struct pk_replay **ret_replay, struct pk_error *err);
/* One that was running when the agent ended: only its state. */
struct pk_replay *pk_replay_lost(const char *why);
bool pk_replay_running(const struct pk_replay *replay);
void pk_replay_stop(struct pk_replay *replay); /* waits, at most a tenth of a second */
void pk_replay_free(struct pk_replay *replay); /* stops it; NULL is fine */
/* The answer of GET .../replay; replay may be NULL: state "none". New reference. */
json_t *pk_replay_status(struct pk_replay *replay);

#endif
