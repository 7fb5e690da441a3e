/* SPDX-License-Identifier: Apache-2.0 */
/* What is seen of lanes, and what follows from it: pure. */
#include "node/overload.h"

#include "base/time.h"
#include "broker/broker.h"

/* Sums fade by this with each look, five times a second: what is left is about a second's. */
#define FADES 0.8
/* Tools are asked each second: what they said is old after this. */
#define TOLD_MAX_AGE (2500 * PK_NSEC_PER_MS)
/* A queue gets fuller by so much a second at least, seen for so long; it is full soon, in seconds.
 */
#define FILL_SOME      0.05
#define SLOPE_MIN      0.02
#define SLOPE_SPAN_MIN 0.35
#define FULL_SOON      4.0
/* A queue that stays full although enough was left out. */
#define FULL_FOR (4 * PK_NSEC_PER_SEC)
/* So long a time tells a rate. */
#define SPAN_MIN 0.5

/* ---- a lane ---- */

static void begin(struct pk_overload_lane *lane, const struct pk_overload_lane_look *look)
{
    lane->known = true;
    lane->sent = lane->lost = lane->span = 0;
    lane->looked_at = look->now;
    lane->lost_before = false;
    lane->told_share = -1;
    lane->all_sent = look->sent;
    lane->all_lost = look->lost;
    lane->acted = look->acted;
    lane->fill_count = 0;
}

/* What its tools say of the time since they were asked before. A time in which what the lane gets
 * was changed tells no share, but still how much they can take. */
static void note_told(struct pk_overload_lane *lane, const struct pk_overload_lane_look *look)
{
    if (look->told_at == 0 || look->now - look->told_at > TOLD_MAX_AGE) {
        lane->told_share = -1;
        lane->told_at = 0;
        return;
    }
    if (look->told_at == lane->told_at)
        return;
    uint64_t told = look->told - lane->told, lost = look->told_lost - lane->told_lost;
    bool follows = lane->told_at != 0 && look->told >= lane->told &&
                   look->told_lost >= lane->told_lost && lost <= told;
    lane->told_share = -1;
    if (follows) {
        double seconds = (double)(look->told_at - lane->told_at) / (double)PK_NSEC_PER_SEC;
        double took = (double)(told - lost) / PK_MAX(seconds, 0.1);
        bool lossy = lost > PK_OVERLOAD_PACKETS;
        if (lossy)
            lane->takes = took;
        else if (took > lane->takes)
            lane->takes = 0;
        if (lane->told_at >= look->acted)
            lane->told_share = lossy ? (double)lost / (double)told : 0;
    }
    lane->told = look->told;
    lane->told_lost = look->told_lost;
    lane->told_at = look->told_at;
}

/* By how much a second the queue has filled lately, 0 = it has not; its history goes on. */
static double slope_of(struct pk_overload_lane *lane, const struct pk_overload_lane_look *look)
{
    if (look->fill < 0) {
        lane->fill_count = 0;
        return 0;
    }
    for (size_t i = PK_OVERLOAD_FILLS - 1; i > 0; i--) {
        lane->fills[i] = lane->fills[i - 1];
        lane->fills_at[i] = lane->fills_at[i - 1];
        lane->sents[i] = lane->sents[i - 1];
    }
    lane->fills[0] = look->fill;
    lane->fills_at[0] = look->now;
    lane->sents[0] = look->sent;
    lane->fill_count = PK_MIN(lane->fill_count + 1, PK_OVERLOAD_FILLS);
    double span =
        (double)(look->now - lane->fills_at[lane->fill_count - 1]) / (double)PK_NSEC_PER_SEC;
    double slope =
        span >= SLOPE_SPAN_MIN ? (look->fill - lane->fills[lane->fill_count - 1]) / span : 0;
    return PK_MAX(slope, 0);
}

/* A tool that says nothing takes what came and did not stay, as long as there is something to take.
 */
static void note_taken(struct pk_overload_lane *lane, const struct pk_overload_lane_look *look)
{
    unsigned oldest = 0;
    while (oldest + 1 < lane->fill_count && lane->fills[oldest + 1] >= FILL_SOME)
        oldest++;
    if (look->fill >= PK_OVERLOAD_FILL_FULL || oldest == 0 || look->room <= 0 || lane->told_at != 0)
        return;
    double seconds = (double)(look->now - lane->fills_at[oldest]) / (double)PK_NSEC_PER_SEC;
    double stays = (look->fill - lane->fills[oldest]) * look->room;
    double took = (double)(look->sent - lane->sents[oldest]) - stays;
    if (seconds > 0)
        lane->takes = PK_MAX(took / seconds, 1);
}

/* Does it get too full? */
static bool fills(const struct pk_overload_lane *lane, const struct pk_overload_lane_look *look,
                  double slope)
{
    if (look->fill >= PK_OVERLOAD_FILL_FULL)
        return lane->fill_count > 1 && lane->fills[1] <= look->fill;
    if (look->fill < PK_OVERLOAD_FILL_LOW || slope < SLOPE_MIN)
        return false;
    if (lane->fills[PK_MIN(lane->fill_count - 1, 2)] >= look->fill) /* a burst: it is over */
        return false;
    return look->fill >= PK_OVERLOAD_FILL_HIGH || 1 - look->fill < slope * FULL_SOON;
}

/* How much is too much by what the tools say or took, 0 = nothing, or nobody knows. What a tool
 * lost, it lost while its queue was full; so it loses nothing more when the queue is not. */
static double told_excess(const struct pk_overload_lane *lane,
                          const struct pk_overload_lane_look *look)
{
    if (look->fill >= 0 && look->fill < PK_OVERLOAD_FILL_FULL)
        return 0;
    if (look->fill < 0 || lane->takes <= 0)
        return PK_MAX(lane->told_share, 0);
    double comes = lane->span >= SPAN_MIN ? lane->sent / lane->span : 0;
    return comes > lane->takes ? 1 - lane->takes / comes : 0;
}

void pk_overload_judge_lane(struct pk_overload_lane *lane, const struct pk_overload_lane_look *look)
{
    if (!lane->known || look->acted != lane->acted || look->sent < lane->all_sent ||
        look->lost < lane->all_lost)
        begin(lane, look);
    uint64_t sent = look->sent - lane->all_sent, lost = look->lost - lane->all_lost;
    lane->all_sent = look->sent;
    lane->all_lost = look->lost;
    lane->sent = lane->sent * FADES + (double)sent;
    lane->lost = lane->lost * FADES + (double)lost;
    lane->span =
        lane->span * FADES + (double)(look->now - lane->looked_at) / (double)PK_NSEC_PER_SEC;
    lane->looked_at = look->now;
    lane->fill = look->fill;
    lane->excess = -1;
    note_told(lane, look);
    bool loses = (lost > 0 || lane->lost_before) && lane->lost > PK_OVERLOAD_PACKETS &&
                 lane->lost > PK_OVERLOAD_SHARE * lane->sent;
    lane->lost_before = lost > 0;
    double slope = slope_of(lane, look);
    bool rising = fills(lane, look, slope);
    /* What stays in the queue is too much; the rest its tools take. */
    double stays = lane->span >= SPAN_MIN && lane->sent > 0 ? slope * look->room : 0;
    if (look->fill < PK_OVERLOAD_FILL_FULL)
        lane->full_since = look->now;
    note_taken(lane, look);
    double excess = told_excess(lane, look);
    if (loses || excess > PK_OVERLOAD_SHARE) {
        double share = loses && lane->sent > 0 ? PK_MIN(lane->lost / lane->sent, 1.0) : 0;
        lane->excess = PK_MAX(excess, share);
        lane->sign = PK_OVERLOAD_LOSES;
    } else if (rising && sent > 0) {
        /* Of a full one its tool will say how much is too much, or it is known already. */
        bool wait =
            look->fill >= PK_OVERLOAD_FILL_FULL &&
            (lane->told_at != 0 || (lane->takes > 0 && look->now - lane->full_since < FULL_FOR));
        lane->sign = wait ? PK_OVERLOAD_BUSY : PK_OVERLOAD_RISING;
        if (look->fill < PK_OVERLOAD_FILL_FULL && stays > 0)
            lane->excess = PK_MIN(stays * lane->span / lane->sent, 1.0);
    } else {
        lane->sign =
            look->fill >= PK_OVERLOAD_FILL_LOW || lost > 0 ? PK_OVERLOAD_BUSY : PK_OVERLOAD_CALM;
        if (lane->sign == PK_OVERLOAD_CALM)
            lane->takes = 0; /* the next time it may be another number */
    }
}

/* ---- a group ---- */

void pk_overload_too_early(struct pk_overload *state, pk_nsec now)
{
    state->hold = PK_MAX(state->hold, PK_OVERLOAD_HOLD);
    if (state->back_at != 0 && now - state->back_at < state->hold)
        state->hold = PK_MIN(2 * state->hold, PK_OVERLOAD_HOLD_MAX);
    state->back_at = 0;
    state->back = 0;
    state->calm_since = 0;
}

static struct pk_overload_step worse(struct pk_overload *state, const struct pk_overload_look *look)
{
    struct pk_overload_step step = { PK_OVERLOAD_NONE, 0, 0 };
    state->calm_since = 0;
    state->bad_at = look->now;
    if (state->bad_since == 0) {
        state->bad_since = look->now;
        state->next_at = PK_MAX(look->now + PK_OVERLOAD_AFTER, state->acted + PK_OVERLOAD_EVERY);
        pk_overload_too_early(state, look->now);
    }
    if (look->now < state->next_at)
        return step;
    state->next_at = look->now + PK_OVERLOAD_EVERY;
    if (look->may.shunt && !state->shunting) {
        step.action = PK_OVERLOAD_SHUNT;
    } else if (look->may.shed) {
        step.action = PK_OVERLOAD_SHED;
        step.share = look->excess + PK_OVERLOAD_MARGIN;
        if (look->excess < 0) {
            step.share = state->guess;
            state->guess = 2 * state->guess;
        }
        step.share = PK_MIN(step.share, PK_OVERLOAD_STEP_MAX);
    }
    return step;
}

static struct pk_overload_step better(struct pk_overload *state,
                                      const struct pk_overload_look *look)
{
    struct pk_overload_step step = { PK_OVERLOAD_NONE, 0, 0 };
    state->guess = PK_OVERLOAD_GUESS;
    if (state->calm_since == 0) {
        state->calm_since = look->now;
        state->next_at = look->now + state->hold;
    }
    if (state->shed == 0 && !state->shunting) {
        state->back = 0;
        if (look->now - state->calm_since > PK_OVERLOAD_HOLD_MAX)
            state->hold = PK_OVERLOAD_HOLD; /* that was another trouble */
        return step;
    }
    if (look->now < state->next_at)
        return step;
    state->back_at = look->now;
    if (state->shed > 0) {
        /* A little first; while that does no harm, twice as much. */
        size_t least = (size_t)((double)look->slots * PK_OVERLOAD_BACK_MIN) + 1;
        state->back = PK_MAX(PK_MAX(state->shed / 8, least), 2 * state->back);
        state->back = PK_MIN(state->back, look->slots / 4);
        state->next_at = look->now + PK_OVERLOAD_BACK;
        step.action = PK_OVERLOAD_UNSHED;
        step.slots = PK_MIN(state->shed, state->back);
    } else {
        state->next_at = look->now + state->hold;
        step.action = PK_OVERLOAD_UNSHUNT;
    }
    return step;
}

struct pk_overload_step pk_overload_judge(struct pk_overload *state,
                                          const struct pk_overload_look *look)
{
    struct pk_overload_step none = { PK_OVERLOAD_NONE, 0, 0 };
    state->hold = PK_MAX(state->hold, PK_OVERLOAD_HOLD);
    state->guess = PK_MAX(state->guess, PK_OVERLOAD_GUESS);
    /* What is not allowed any more comes back at once. */
    if (state->shed > 0 && !look->may.shed)
        return (struct pk_overload_step){ PK_OVERLOAD_UNSHED, 0, state->shed };
    if (state->shunting && !look->may.shunt)
        return (struct pk_overload_step){ PK_OVERLOAD_UNSHUNT, 0, 0 };
    if (look->sign >= PK_OVERLOAD_RISING)
        return worse(state, look);
    if (look->now - state->bad_at >= PK_OVERLOAD_EVERY)
        state->bad_since = 0;
    if (look->sign == PK_OVERLOAD_CALM && state->bad_since == 0)
        return better(state, look);
    if (look->sign == PK_OVERLOAD_BUSY) {
        state->calm_since = 0;
        state->back = 0;
    }
    return none;
}

int pk_overload_victim(const struct pk_overload_candidate *candidates, size_t count, size_t own,
                       bool starves)
{
    int best = candidates[own].may ? (int)own : -1;
    for (size_t i = 0; i < count && starves; i++)
        if (candidates[i].may && candidates[i].shares &&
            candidates[i].priority < candidates[own].priority &&
            (best < 0 || candidates[i].priority < candidates[best].priority))
            best = (int)i;
    return best;
}

json_t *pk_overload_describe(const struct pk_overload *state)
{
    char text[36] = "";
    if (state->since != 0)
        (void)pk_time_format(state->since, 3, text, sizeof text);
    return json_pack("{s:s,s:I,s:I,s:f,s:f,s:o,s:s*}", "state",
                     state->shed > 0   ? "shedding"
                     : state->shunting ? "shunting"
                                       : "none",
                     "shedSlots", (json_int_t)state->shed, "yieldedSlots",
                     (json_int_t)state->yielded, "shedShare", (double)state->shed / PK_SLOT_COUNT,
                     "loss", state->loss, "fill",
                     state->fill >= 0 ? json_real(state->fill) : json_null(), "since",
                     text[0] != '\0' ? text : NULL);
}
