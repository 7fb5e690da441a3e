/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger's arithmetic: what the agent and the tools count, joined into one account per fleet,
 * and the account into "what came in = what was delivered + what was left out + what was lost".
 * Pure: no I/O, no clock; JSON in and out. Packets are whole numbers of packets.
 *
 * A look is everything as it was counted at one moment. Counters of a look begin anew when their
 * thing is made anew (a tap taken again, a machine started again); the account adds up what they
 * grew by, so its sums never go back. The difference of two accounts is exact for the time between.
 */
#ifndef PICKET_FLEET_LEDGER_H
#define PICKET_FLEET_LEDGER_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"

/* What has counters, in the order of the way of a packet. */
enum pk_ledger_thing {
    PK_LEDGER_NIC,    /* "nic/TAP": interface and driver, before the tap's program */
    PK_LEDGER_TAP,    /* "tap/TAP" */
    PK_LEDGER_TENANT, /* "tenant/TAP/TENANT" */
    PK_LEDGER_GROUP,  /* "group/GROUP" */
    PK_LEDGER_LANE,   /* "lane/GROUP/INDEX" */
    PK_LEDGER_TOOL,   /* "tool/GROUP/INDEX/TOOL" */
    PK_LEDGER_THINGS
};
const char *pk_ledger_thing_name(enum pk_ledger_thing thing); /* "nic", "tap", ... */

enum pk_ledger_role {
    PK_LEDGER_IN,     /* what came to the thing */
    PK_LEDGER_OUT,    /* what went on from it */
    PK_LEDGER_LOSS,   /* what ended here and should not have */
    PK_LEDGER_CHOICE, /* what ended here because somebody wanted so */
    PK_LEDGER_NOTE,   /* worth knowing, in no sum */
};

/* One counter. The one table of them (ledger_causes.c): a new counter is a row there. */
struct pk_ledger_row {
    enum pk_ledger_thing thing;
    enum pk_ledger_role role;
    const char *path;   /* where it is in the thing's JSON: "reasons.no-lane" */
    const char *cause;  /* its name, also the anchor in docs/ledger.md; "" for in and out */
    const char *place;  /* "interface", "lane's ring" */
    const char *text;   /* what happened, in plain words */
    const char *remedy; /* what to do, in plain words */
};
const struct pk_ledger_row *pk_ledger_rows(size_t *ret_count);
/* A cause that has no row of its own is told all the same. NULL = there is no such cause. */
const struct pk_ledger_row *pk_ledger_cause(const char *cause);

/* What one fleet's things counted, from the agent's plane and what is known of its tools:
 * tools = [{"group","lane","tool","state","counts":bool,"live":bool,"packets","dropped",
 *           "life":N,"notes":{..}}]; live: this life of the tool has told its counts; life: what of
 *           packets is this life's.
 * {"at":ns,"things":{KEY:{"began":N,"counts":{..},"info":{..}}}}; NULL = out of memory. */
json_t *pk_ledger_look(const json_t *plane, const char *fleet, const json_t *tools, pk_nsec at);

/* An empty account. NULL = out of memory. */
json_t *pk_ledger_account_new(pk_nsec at);
/* Adds what grew since the look before. Equal looks change nothing. */
int pk_ledger_account_add(json_t *account, const json_t *look, struct pk_error *err);
/* The account's sums alone: small, to be kept as a sample. */
json_t *pk_ledger_sample(const json_t *account);

/* The document "Ledger": sums of the account since a sample (NULL = since it began). *ret_json as
 * in docs/api/openapi.json. */
int pk_ledger_join(const json_t *account, const json_t *sample, const char *fleet,
                   json_t **ret_json, struct pk_error *err);

#endif
