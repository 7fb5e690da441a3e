/* SPDX-License-Identifier: Apache-2.0 */
/* How a lane fares, judged by what is seen of it. */
#include "node/health.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A process that is stopped for so long is stopped, not being looked at by a debugger. */
#define STOPPED_FOR (400 * PK_NSEC_PER_MS)
/* Whoever reads a packet spends some half a microsecond at least: so many packets cannot be read
 * without that a clock tick (10 ms) of CPU time passes. */
#define IDLE_PACKETS 50000u
#define IDLE_FOR     (2 * PK_NSEC_PER_SEC)
/* The tool tells of its packets each second; one that took none of so many, for so long, hangs. */
#define UNTOLD_PACKETS 1000u
#define UNTOLD_FOR     (5 * PK_NSEC_PER_SEC)
/* Losing more than one in a thousand, for so long, is slow; losing nothing for so long is not. */
#define LOSSY_FOR    (3 * PK_NSEC_PER_SEC)
#define LOSSLESS_FOR (10 * PK_NSEC_PER_SEC)
#define LOSS_SHARE   1000u
/* Once stalled, it must have read for so long. */
#define READS_FOR PK_NSEC_PER_SEC
/* No packets come to a lane without slots, so what its tool counts proves nothing any more: it gets
 * another try. */
#define RETRY_AFTER (60 * PK_NSEC_PER_SEC)

const char *pk_health_name(enum pk_health health)
{
    static const char *const names[] = { "dead", "stalled", "silent", "slow", "healthy" };
    return names[health];
}

static bool set(struct pk_health_state *state, enum pk_health health, const char *format, ...)
    PK_PRINTF(3, 4);

static bool set(struct pk_health_state *state, enum pk_health health, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(state->why, sizeof state->why, format, args);
    va_end(args);
    bool changed = state->health != health;
    state->health = health;
    return changed;
}

/* Starts to count from here. */
static void begin(struct pk_health_state *state, const struct pk_health_look *look)
{
    state->begun = true;
    state->stopped_since = state->lossy_since = state->stalled_since = state->untold_at = 0;
    state->ticked_at = state->told_at = state->looked_at = look->now;
    state->lossless_since = look->now;
    state->ticks = look->ticks;
    state->arrived = state->arrived_at_tick = state->arrived_at_told = look->arrived;
    state->ring_lost = look->sent > look->arrived ? look->sent - look->arrived : 0;
    state->lost = look->lost;
    state->told = look->told;
}

/* Why it does not read, or NULL. */
static const char *stall(struct pk_health_state *state, const struct pk_health_look *look)
{
    if (!look->stopped)
        state->stopped_since = 0;
    else if (state->stopped_since == 0)
        state->stopped_since = look->now;
    if (look->ticks != state->ticks || !look->knows_ticks) {
        state->ticks = look->ticks;
        state->ticked_at = look->now;
        state->arrived_at_tick = look->arrived;
    }
    if (look->told != state->told || look->told == 0) {
        state->told = look->told;
        state->told_at = look->now;
        state->arrived_at_told = look->arrived;
    }
    if (state->stopped_since != 0 && look->now - state->stopped_since >= STOPPED_FOR)
        return "its tool is stopped (SIGSTOP, or a debugger)";
    if (look->now - state->ticked_at >= IDLE_FOR &&
        look->arrived - state->arrived_at_tick >= IDLE_PACKETS)
        return "packets arrive, but its tool spends no CPU time";
    if (look->now - state->told_at >= UNTOLD_FOR &&
        look->arrived - state->arrived_at_told >= UNTOLD_PACKETS) {
        if (state->untold_at == 0)
            state->untold_at = look->now;
        if (look->now - state->untold_at < RETRY_AFTER)
            return "packets arrive, but its tool counts none";
        state->told_at = look->now;
        state->arrived_at_told = look->arrived;
    }
    state->untold_at = 0;
    return NULL;
}

/* Is it losing packets? Each second anew. */
static void note_losses(struct pk_health_state *state, const struct pk_health_look *look)
{
    if (look->now - state->looked_at < PK_NSEC_PER_SEC)
        return;
    uint64_t ring = look->sent > look->arrived ? look->sent - look->arrived : 0;
    /* What is under way counts as sent and not arrived: it is gone at the next look. */
    uint64_t lost = (ring > state->ring_lost ? ring - state->ring_lost : 0) +
                    (look->lost > state->lost ? look->lost - state->lost : 0);
    uint64_t came = look->arrived - state->arrived;
    state->ring_lost = ring;
    state->lost = look->lost;
    state->arrived = look->arrived;
    state->looked_at = look->now;
    bool lossy = lost > 16 && lost > came / LOSS_SHARE;
    if (lossy) {
        state->lossless_since = 0;
        if (state->lossy_since == 0)
            state->lossy_since = look->now;
    } else {
        state->lossy_since = 0;
        if (state->lossless_since == 0)
            state->lossless_since = look->now;
    }
}

bool pk_health_judge(struct pk_health_state *state, const struct pk_health_look *look)
{
    if (!look->reader) {
        state->begun = false;
        return set(state, PK_HEALTH_DEAD, "no tool reads it");
    }
    if (!state->begun) {
        begin(state, look);
        if (!state->unproven)
            return set(state, PK_HEALTH_HEALTHY, "%s", "");
        state->unproven = false;
        state->stalled_since = look->now;
        return set(state, PK_HEALTH_STALLED,
                   "its tool did not read, as an agent before this one saw");
    }
    const char *why = stall(state, look);
    note_losses(state, look);
    if (why != NULL) {
        state->stalled_since = look->now;
        return set(state, PK_HEALTH_STALLED, "%s", why);
    }
    /* No packets come to a lane that lost its slots: that it runs again must do. */
    if (state->health == PK_HEALTH_STALLED && look->now - state->stalled_since < READS_FOR)
        return false;
    if (state->lossy_since != 0 && look->now - state->lossy_since >= LOSSY_FOR)
        return set(state, PK_HEALTH_SLOW, "it loses packets");
    bool recovers =
        state->health == PK_HEALTH_SLOW &&
        (state->lossless_since == 0 || look->now - state->lossless_since < LOSSLESS_FOR);
    if (recovers)
        return false;
    /* Said after "slow": what is lost on the way cannot come back. */
    if (look->silent)
        return set(state, PK_HEALTH_SILENT, "%s",
                   look->told_since
                       ? "its tool reads packets, but its log does not come back: no canary does"
                       : "no canary comes back in its tool's log");
    return set(state, PK_HEALTH_HEALTHY, "%s", "");
}
