/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Canaries of a lane (base/canary.h): sent into it while serve says that the lane's tools write
 * them into their logs, and watched for. What did not come back says that the way from the tool to
 * the store is cut, whatever the tool itself counts.
 */
#ifndef PICKET_NODE_CANARY_H
#define PICKET_NODE_CANARY_H

#include <jansson.h>

#include "base/canary.h"
#include "base/common.h"
#include "base/error.h"

/* ---- frames: pure ---- */

#define PK_CANARY_FRAME_MAX 320u
/* The question, or its answer: Ethernet, IPv4, UDP, DNS. mark: pk_broker_canary_mark(). Returns the
 * length. */
size_t pk_canary_frame(const struct pk_canary *canary, uint64_t mark, bool answer,
                       uint8_t out[PK_CANARY_FRAME_MAX]);

/* ---- what is expected back: pure ---- */

#define PK_CANARY_REMEMBERED 64u
#define PK_CANARY_TOLD_MAX   16u /* numbers in one call */
#define PK_CANARY_MISSED     3u  /* so many in a row, for so many intervals: the log is silent */
/* ... and for so long at least: by then a shipper or a serve that is away is known to be. */
#define PK_CANARY_PATIENCE (30 * PK_NSEC_PER_SEC)
#define PK_CANARY_AGAIN    2u /* so many must come back until it is not */

struct pk_canary_watch {
    uint64_t sent, back; /* since the lane was made or the agent started */
    pk_nsec back_at;     /* wall clock: the newest that came back was noted; 0 = none */
    pk_nsec delay;       /* of that, from the agent into the shipper */
    bool silent;
    /* not for others */
    struct {
        uint64_t number;
        pk_nsec at; /* monotonic; 0 = none */
        bool back;
    } last[PK_CANARY_REMEMBERED]; /* a ring, by sent */
    uint64_t number;              /* of the newest */
    uint64_t first; /* the first that counts: since the tool reads, or the lane is told of */
    unsigned again; /* came back since it is silent */
};
/* Its number, from the wall clock. */
uint64_t pk_canary_next(const struct pk_canary_watch *watch, pk_nsec wall);
void pk_canary_note_sent(struct pk_canary_watch *watch, uint64_t number, pk_nsec now);
/* Numbers that were not sent, or came before, are nothing. */
void pk_canary_note_back(struct pk_canary_watch *watch, uint64_t number, pk_nsec wall);
/* What was sent until now is not waited for any more. */
void pk_canary_excuse(struct pk_canary_watch *watch);
/* Sets silent; every: the interval. */
void pk_canary_judge(struct pk_canary_watch *watch, pk_nsec now, pk_nsec every);

/* ---- of a lane ---- */

struct pk_agent;
struct pk_lane;

struct pk_lane_canary {
    struct pk_canary_token token;
    pk_nsec told_at; /* monotonic: serve asked for canaries; 0 = never */
    pk_nsec next_at; /* monotonic; 0 = an interval from when the lane can have one */
    uint64_t told;   /* packets that the tools had taken when the newest came back */
    struct pk_canary_watch watch;
};

/* {"token":"32 hex digits","seen":[NUMBER..],"delayMs":N}: serve wants canaries in the lane, for
 * some seconds from now, and says which came back last. */
int pk_agent_canary_lane(struct pk_agent *agent, const char *key, const json_t *body,
                         struct pk_error *err);
/* Sends what is due, and judges. Lock held. */
void pk_lane_canary_look(struct pk_agent *agent, struct pk_lane *lane, pk_nsec now);
/* For the lane's row in the plane; null where it gets none. */
json_t *pk_lane_canary_json(const struct pk_agent *agent, const struct pk_lane *lane);
/* A packet socket that receives nothing; -1 in err's case. */
int pk_canary_socket(int *ret_fd, struct pk_error *err);

#endif
