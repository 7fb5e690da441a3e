/* SPDX-License-Identifier: Apache-2.0 */
#include "node/replay.h"

/* The whole of a capture's recorded time: beyond a year nobody waits. */
#define RECORDED_MAX ((pk_nsec)366 * 24 * 3600 * PK_NSEC_PER_SEC)

static pk_nsec recorded(struct pk_pace *pace, pk_nsec frame_time)
{
    if (!pace->started) {
        pace->started = true;
        pace->last = frame_time;
    }
    pk_nsec gap = 0;
    /* A capture from outside may hold any time; one whose clock goes back waits for it to catch up.
     */
    if (frame_time > pace->last) {
        if (__builtin_sub_overflow(frame_time, pace->last, &gap))
            gap = RECORDED_MAX;
        pace->last = frame_time;
    }
    if (pace->max_gap > 0 && gap > pace->max_gap) {
        pace->cut_gaps++;
        gap = pace->max_gap;
    }
    pace->recorded = PK_MIN(pace->recorded + PK_MIN(gap, RECORDED_MAX), RECORDED_MAX);
    double scaled = (double)pace->recorded / pace->speed;
    return pace->base + (scaled < (double)RECORDED_MAX ? (pk_nsec)scaled : RECORDED_MAX);
}

pk_nsec pk_pace_next(struct pk_pace *pace, pk_nsec frame_time, uint32_t frame_len)
{
    pk_nsec due = 0;
    switch (pace->mode) {
    case PK_REPLAY_RECORDED:
        due = recorded(pace, frame_time);
        break;
    case PK_REPLAY_RATE:
        /* Split into whole and rest, so that neither product overflows or drifts. */
        if (pace->pps != 0)
            due = (pk_nsec)(pace->frames / pace->pps * PK_NSEC_PER_SEC +
                            pace->frames % pace->pps * PK_NSEC_PER_SEC / pace->pps);
        else
            due = (pk_nsec)(pace->bits / pace->mbps * 1000 +
                            pace->bits % pace->mbps * 1000 / pace->mbps);
        break;
    case PK_REPLAY_FAST:
        break;
    }
    pace->frames++;
    pace->bits += (uint64_t)frame_len * 8;
    pace->due = PK_MAX(pace->due, due);
    return pace->due;
}

void pk_pace_next_file(struct pk_pace *pace)
{
    pace->base = pace->due;
    pace->recorded = 0;
    pace->started = false;
}

bool pk_replay_fits(const uint8_t *frame, size_t len, unsigned mtu)
{
    size_t header = 14;
    for (int tags = 0; tags < 2 && len >= header; tags++) {
        unsigned type = (unsigned)frame[header - 2] << 8 | frame[header - 1];
        if (type != 0x8100 && type != 0x88a8 && type != 0x9100)
            break;
        header += 4;
    }
    return len <= header + mtu;
}
