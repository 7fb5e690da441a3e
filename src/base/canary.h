/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Canaries: small DNS exchanges that the agent puts into a lane and that must come back in the log
 * of each tool that reads it. They are between addresses for documentation (RFC 5737), for names
 * below ".invalid" (RFC 2606), so that no real traffic looks like one; and all of them that could
 * be chosen follows from the lane's token, so that no traffic that was made to look like one does
 * either: who does not know the token can neither fake a lane's health nor, but by luck (1 in
 * 65,536), hide a flow between these addresses.
 *
 * Pure; any thread. Text that comes from outside is taken with its length, and may be anything.
 */
#ifndef PICKET_BASE_CANARY_H
#define PICKET_BASE_CANARY_H

#include "base/common.h"

/* One lane's secret. */
struct pk_canary_token {
    uint8_t bytes[16];
};
#define PK_CANARY_KEY_SIZE   32u /* of an instance: what tokens are made from */
#define PK_CANARY_TOKEN_TEXT 33u /* in hex, with its end */
#define PK_CANARY_NAME_MAX   160u
#define PK_CANARY_PORT       53u /* of the server */

void pk_canary_token_make(const uint8_t key[PK_CANARY_KEY_SIZE], const char *fleet,
                          const char *group, uint64_t lane, struct pk_canary_token *ret_token);
void pk_canary_token_print(const struct pk_canary_token *token, char out[PK_CANARY_TOKEN_TEXT]);
/* False when the text is no token. */
bool pk_canary_token_parse(const char *text, struct pk_canary_token *ret_token);

/* One canary. Its number is when it was sent, in milliseconds since 1970: it tells how long its way
 * took, and never comes twice. */
struct pk_canary {
    uint64_t number;
    uint8_t client[4], server[4];  /* of 192.0.2.0/24 and 198.51.100.0/24 */
    uint16_t port;                 /* the client's */
    uint16_t id;                   /* of the DNS messages */
    char name[PK_CANARY_NAME_MAX]; /* "pk-<32 hex digits>-<lane>-<number>.<group>.invalid" */
};
void pk_canary_make(const struct pk_canary_token *token, const char *group, uint64_t lane,
                    uint64_t number, struct pk_canary *ret_canary);

/* A flow's ends, as a log has them. */
struct pk_canary_flow {
    const uint8_t *source, *target; /* 4 bytes each */
    uint64_t source_port, target_port;
};
/* Cheap: can it be the flow of any lane's canary, in either direction? */
static inline bool pk_canary_may_be(const uint8_t a[4], const uint8_t b[4])
{
    bool a_client = a[0] == 192 && a[1] == 0 && a[2] == 2;
    bool b_client = b[0] == 192 && b[1] == 0 && b[2] == 2;
    bool a_server = a[0] == 198 && a[1] == 51 && a[2] == 100;
    bool b_server = b[0] == 198 && b[1] == 51 && b[2] == 100;
    return (a_client && b_server) || (a_server && b_client);
}
/* Is it the flow of a canary of this token? */
bool pk_canary_is_flow(const struct pk_canary_token *token, const struct pk_canary_flow *flow);
/* Is it the name of a canary of this token and lane? *ret_number: which. */
bool pk_canary_is_name(const struct pk_canary_token *token, const char *group, uint64_t lane,
                       const char *name, size_t len, uint64_t *ret_number);

#endif
