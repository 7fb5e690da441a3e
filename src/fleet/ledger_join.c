/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The account as a document. Every thing's counters have to add up, and what one thing gave has to
 * be what the next one got; a difference that the traffic of the last look explains is under way,
 * any other is told as unexplained.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "fleet/ledger.h"

#define WHERE_MAX 256u

struct join {
    const json_t *things, *sums; /* of the account, of the sample (NULL = from the beginning) */
    int64_t at;
    json_t *losses;
    const char *tenant; /* of the group that is told of, "" = none */
    int bad;
};

/* Where packets ended, so far along the way. */
struct balance {
    int64_t in, delivered, left_out, lost, unconfirmed, under_way, unexplained;
    json_t *gaps;
};

static int64_t get(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static int64_t value(const struct join *join, const char *key, const char *name)
{
    const json_t *sum = json_object_get(json_object_get(join->things, key), "sum");
    return get(sum, name) - get(json_object_get(join->sums, key), name);
}

/* How much may be between two things right now: what came in during the looks at both ends. */
static int64_t moved(const struct join *join, const char *key)
{
    return get(json_object_get(join->things, key), "moved") +
           get(json_object_get(join->sums, key), "moved");
}

static void put(struct join *join, json_t *object, const char *key, int64_t number)
{
    join->bad |= json_object_set_new(object, key, json_integer(number));
}

static void put_time(struct join *join, json_t *object, const char *key, int64_t when)
{
    char text[36];
    join->bad |=
        json_object_set_new(object, key, json_string(pk_time_format(when, 3, text, sizeof(text))));
}

static const char *role_name(enum pk_ledger_role role)
{
    switch (role) {
    case PK_LEDGER_CHOICE:
        return "left-out";
    case PK_LEDGER_NOTE:
        return "note";
    case PK_LEDGER_IN:
    case PK_LEDGER_OUT:
    case PK_LEDGER_LOSS:
        break;
    }
    return "lost";
}

static void tell(struct join *join, const struct pk_ledger_row *row, const char *where,
                 int64_t packets, int64_t bytes, int64_t of)
{
    if (packets == 0)
        return;
    bool unconfirmed = strcmp(row->cause, "unconfirmed") == 0;
    json_t *loss = json_pack("{s:s,s:s,s:s,s:s,s:I,s:s,s:s,s:s}", "cause", row->cause, "kind",
                             unconfirmed ? "unconfirmed" : role_name(row->role), "place",
                             row->place, "where", where, "packets", (json_int_t)packets, "text",
                             row->text, "remedy", row->remedy, "doc", row->cause);
    if (loss != NULL && join->tenant != NULL && join->tenant[0] != '\0')
        join->bad |= json_object_set_new(loss, "tenant", json_string(join->tenant));
    if (loss != NULL && bytes > 0)
        put(join, loss, "bytes", bytes);
    if (loss != NULL && of > 0 && row->role != PK_LEDGER_NOTE)
        join->bad |= json_object_set_new(loss, "share", json_real((double)packets / (double)of));
    join->bad |= json_array_append_new(join->losses, loss);
}

/* All counters of a thing that are in no other thing's: told, and added to the balance. derived
 * holds those that follow from others. */
static void tell_rows(struct join *join, enum pk_ledger_thing thing, const char *key,
                      const char *where, const json_t *derived, int64_t of, struct balance *balance)
{
    size_t count = 0;
    const struct pk_ledger_row *rows = pk_ledger_rows(&count);
    for (size_t i = 0; i < count; i++) {
        const struct pk_ledger_row *row = &rows[i];
        if (row->thing != thing || row->role == PK_LEDGER_IN || row->role == PK_LEDGER_OUT)
            continue;
        const json_t *given = json_object_get(derived, row->path);
        int64_t packets = given != NULL ? json_integer_value(given) : value(join, key, row->path);
        char bytes[96];
        (void)snprintf(bytes, sizeof(bytes), "%sBytes", row->path);
        tell(join, row, where, packets, value(join, key, bytes), of);
        if (row->role == PK_LEDGER_CHOICE)
            balance->left_out += packets;
        else if (row->role == PK_LEDGER_LOSS && strcmp(row->cause, "unconfirmed") == 0)
            balance->unconfirmed += packets;
        else if (row->role == PK_LEDGER_LOSS)
            balance->lost += packets;
    }
}

/* What one side counted and the other did not. */
static void close_gap(struct join *join, struct balance *balance, const char *between,
                      int64_t packets, int64_t tolerance)
{
    if (packets == 0)
        return;
    if (packets >= -tolerance && packets <= tolerance) {
        balance->under_way += packets;
        return;
    }
    balance->unexplained += packets;
    join->bad |= json_array_append_new(
        balance->gaps, json_pack("{s:s,s:I}", "between", between, "packets", (json_int_t)packets));
}

static json_t *balance_json(struct join *join, struct balance *balance, const char *tool)
{
    json_t *json = json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:o}", "tool", tool, "in", (json_int_t)balance->in,
        "delivered", (json_int_t)balance->delivered, "leftOut", (json_int_t)balance->left_out,
        "lost", (json_int_t)balance->lost, "unconfirmed", (json_int_t)balance->unconfirmed,
        "underWay", (json_int_t)balance->under_way, "unexplained", (json_int_t)balance->unexplained,
        "addsUp", json_array_size(balance->gaps) == 0, "gaps", balance->gaps);
    balance->gaps = NULL;
    join->bad |= json == NULL;
    return json;
}

/* The parts of info that people look at, on a thing's row; "gone" when it is not there any more. */
static json_t *row_of(struct join *join, const char *key, const char *name)
{
    const json_t *thing = json_object_get(join->things, key);
    json_t *row = json_pack("{s:s}", "name", name);
    const char *member;
    json_t *info;
    json_object_foreach(json_object_get(thing, "info"), member, info)
    {
        if (strcmp(member, "name") != 0 && strcmp(member, "feeds") != 0 &&
            strcmp(member, "tenantNames") != 0)
            join->bad |= json_object_set(row, member, info);
    }
    if (get(thing, "seen") != join->at)
        join->bad |= json_object_set_new(row, "state", json_string("gone"));
    int64_t since = get(thing, "since");
    if (since != 0)
        put_time(join, row, "since", since);
    return row;
}

/* A thing that is gone and did nothing in the time that is shown is not shown. */
static bool is_idle_and_gone(const struct join *join, const char *key, const char *in)
{
    return get(json_object_get(join->things, key), "seen") != join->at && value(join, key, in) == 0;
}

/* ---- taps ---- */

static json_t *join_tap(struct join *join, const char *key)
{
    const char *name = key + strlen("tap/");
    char where[WHERE_MAX], nic[WHERE_MAX];
    (void)snprintf(where, sizeof(where), "tap %s", name);
    (void)snprintf(nic, sizeof(nic), "nic/%s", name);
    struct balance balance = { .gaps = json_array() };
    int64_t received = value(join, key, "packets");
    /* What the interface lost is a share of what came to it: the sum is known after the first pass.
     */
    json_t *losses = join->losses;
    join->losses = json_array();
    tell_rows(join, PK_LEDGER_NIC, nic, where, NULL, 0, &balance);
    json_decref(join->losses);
    join->losses = losses;
    int64_t before = balance.lost;
    balance = (struct balance){ .gaps = balance.gaps };
    tell_rows(join, PK_LEDGER_NIC, nic, where, NULL, received + before, &balance);
    balance.in = received + before;
    tell_rows(join, PK_LEDGER_TAP, key, where, NULL, balance.in, &balance);
    int64_t left = received - balance.left_out - (balance.lost - before);

    json_t *row = row_of(join, key, name);
    json_t *tenants = json_array();
    size_t prefix = (size_t)snprintf(nic, sizeof(nic), "tenant/%s/", name);
    const char *other;
    json_t *thing;
    json_object_foreach((json_t *)(uintptr_t)join->things, other, thing)
    {
        if (strncmp(other, nic, prefix) != 0)
            continue;
        json_t *tenant = json_pack("{s:s}", "name", other + prefix);
        put(join, tenant, "packets", value(join, other, "packets"));
        put(join, tenant, "bytes", value(join, other, "bytes"));
        join->bad |= json_array_append_new(tenants, tenant);
    }
    /* What no group takes was some tenant's. */
    int64_t claimed = value(join, key, "claimed") - value(join, key, "unclaimed");
    close_gap(join, &balance, "tap and tenants", left - claimed, moved(join, key));
    balance.delivered = claimed;
    put(join, row, "in", balance.in);
    put(join, row, "packets", received);
    put(join, row, "bytes", value(join, key, "bytes"));
    put(join, row, "moved", moved(join, key));
    join->bad |= json_object_set_new(row, "tenants", tenants);
    const json_t *names = pk_json_at(json_object_get(join->things, nic), "info.names");
    if (names != NULL)
        join->bad |= json_object_set(row, "driverCounters", (json_t *)(uintptr_t)names);
    join->bad |= json_object_set_new(row, "balance", balance_json(join, &balance, ""));
    return row;
}

/* ---- groups ---- */

/* One lane of a group; the packets that it gave to its tools are added to *handed. */
static json_t *join_lane(struct join *join, const char *key, struct balance *balance, int64_t *sent,
                         int64_t *handed)
{
    const char *name = key + strlen("lane/");
    char where[WHERE_MAX];
    (void)snprintf(where, sizeof(where), "lane %s", name);
    int64_t went = value(join, key, "sent"), arrived = value(join, key, "arrived");
    int64_t unread = value(join, key, "unread");
    PK_JSON derived = json_object();
    /* More arrived than was sent: only what was under way when the time shown began. */
    put(join, derived, "ringDropped", PK_MAX(went - arrived, 0));
    tell_rows(join, PK_LEDGER_LANE, key, where, derived, went, balance);
    balance->under_way += PK_MIN(went - arrived, 0);
    *sent += went;
    *handed += arrived - unread;
    json_t *row = row_of(join, key, name);
    put(join, row, "sent", went);
    put(join, row, "arrived", arrived);
    put(join, row, "bytes", value(join, key, "bytes"));
    put(join, row, "ringDropped", PK_MAX(went - arrived, 0));
    put(join, row, "unread", unread);
    put(join, row, "blocked", value(join, key, "blocked"));
    put(join, row, "canaries", value(join, key, "canaries"));
    put(join, row, "handed", arrived - unread);
    put(join, row, "lost", PK_MAX(went - arrived, 0) + unread);
    join->bad |= json_object_set_new(row, "tools", json_array());
    return row;
}

static json_t *lane_row(const json_t *lanes, const char *name, size_t len)
{
    size_t i;
    json_t *lane;
    json_array_foreach(lanes, i, lane)
    {
        const char *other = pk_json_string_or(lane, "name", "");
        if (strncmp(other, name, len) == 0 && other[len] == '\0')
            return lane;
    }
    return NULL;
}

/* One tool in one lane: what the lane handed on, to its end. */
static void join_tool(struct join *join, const char *key, json_t *lane, struct balance *balance)
{
    const char *full = key + strlen("tool/");
    const char *name = strrchr(full, '/') + 1;
    const json_t *info = json_object_get(json_object_get(join->things, key), "info");
    char where[WHERE_MAX];
    (void)snprintf(where, sizeof(where), "tool %s", full);
    /* Canaries are among what it was handed and what it received; those of which it has not told
     * yet are not missed as packets. */
    int64_t canaries = value(join, key, "canaries"), told = value(join, key, "received");
    int64_t of_lane = get(lane, "handed"), handed = value(join, key, "handed") - canaries;
    int64_t received = PK_MAX(told - canaries, 0), dropped = value(join, key, "dropped");
    int64_t unconfirmed = value(join, key, "unconfirmed"), under_way = 0;
    unconfirmed -= PK_MIN(unconfirmed, PK_MAX(canaries - told, 0));
    bool counts = json_is_true(json_object_get(info, "counts"));
    if (counts)
        under_way = handed - received - unconfirmed;
    else
        received = handed; /* nobody knows better */
    PK_JSON derived = json_object();
    put(join, derived, "absent", of_lane - handed);
    put(join, derived, "unconfirmed", unconfirmed);
    tell_rows(join, PK_LEDGER_TOOL, key, where, derived, handed, balance);
    balance->delivered += received - dropped;
    /* What was under way when the time shown began came in before it. */
    const json_t *then = json_object_get(join->sums, key);
    int64_t carried = get(then, "handed") - get(then, "received") - get(then, "unconfirmed");
    if (under_way >= 0)
        balance->under_way += under_way;
    else
        close_gap(join, balance, "lane and tool", under_way, PK_MAX(carried, 0) + moved(join, key));

    json_t *row = row_of(join, key, name);
    put(join, row, "handed", handed);
    put(join, row, "received", received);
    put(join, row, "dropped", dropped);
    put(join, row, "delivered", received - dropped);
    put(join, row, "unconfirmed", unconfirmed);
    put(join, row, "underWay", under_way);
    join->bad |= json_array_append_new(json_object_get(lane, "tools"), row);
}

/* The names of the tools that a group has, each once. */
static void tool_names(struct join *join, const char *prefix, struct pk_strv *names)
{
    const char *key;
    json_t *thing;
    json_object_foreach((json_t *)(uintptr_t)join->things, key, thing)
    {
        if (!pk_str_starts(key, prefix) || is_idle_and_gone(join, key, "handed"))
            continue;
        const char *tool = strrchr(key, '/') + 1;
        if (!pk_strv_contains(names, tool))
            join->bad |= pk_strv_add(names, tool);
    }
}

/* The balance of what one tool of the group sees: the plane's part is the same for all tools. */
static void join_tools(struct join *join, const char *prefix, const char *tool, json_t *lanes,
                       struct balance *balance)
{
    const char *key;
    json_t *thing, *lane;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)join->things, key, thing)
    {
        const char *slash = strrchr(key, '/');
        if (!pk_str_starts(key, prefix) || strcmp(slash + 1, tool) != 0)
            continue;
        const char *name = key + strlen("tool/");
        lane = lane_row(lanes, name, (size_t)(slash - name));
        if (lane != NULL)
            join_tool(join, key, lane, balance);
    }
    /* Lanes that never had this tool: others read them, or nobody did any more. */
    json_array_foreach(lanes, i, lane)
    {
        bool has = false;
        size_t j;
        const json_t *row;
        json_array_foreach(json_object_get(lane, "tools"), j, row)
        {
            has |= strcmp(pk_json_string_or(row, "name", ""), tool) == 0;
        }
        if (!has) {
            char where[WHERE_MAX];
            (void)snprintf(where, sizeof(where), "lane %s", pk_json_string_or(lane, "name", ""));
            tell(join, pk_ledger_cause("tool-absent"), where, get(lane, "handed"), 0, 0);
            balance->left_out += get(lane, "handed");
        }
    }
}

static json_t *join_group(struct join *join, const char *key)
{
    const char *name = key + strlen("group/");
    char where[WHERE_MAX], prefix[WHERE_MAX];
    (void)snprintf(where, sizeof(where), "group %s", name);
    (void)snprintf(prefix, sizeof(prefix), "lane/%s/", name);
    json_t *row = row_of(join, key, name);
    json_t *lanes = json_array(), *balances = json_array();
    struct balance plane = { .gaps = json_array() };
    int64_t offered = value(join, key, "offered"), packets = value(join, key, "packets");
    int64_t tolerance = moved(join, key), sent = 0, handed = 0;
    plane.in = offered;
    join->tenant = pk_json_string_or(row, "tenant", "");
    close_gap(join, &plane, "tap and group", offered - packets, tolerance);
    tell_rows(join, PK_LEDGER_GROUP, key, where, NULL, packets, &plane);
    int64_t sent_by_group = value(join, key, "sent");
    close_gap(join, &plane, "group's ways", packets - plane.left_out - plane.lost - sent_by_group,
              tolerance);
    const char *other;
    json_t *thing;
    json_object_foreach((json_t *)(uintptr_t)join->things, other, thing)
    {
        if (pk_str_starts(other, prefix) && !is_idle_and_gone(join, other, "sent"))
            join->bad |=
                json_array_append_new(lanes, join_lane(join, other, &plane, &sent, &handed));
    }
    close_gap(join, &plane, "group and lanes", sent_by_group - sent, tolerance);

    PK_CLEANUP(pk_strv_done) struct pk_strv names = { 0 };
    (void)snprintf(prefix, sizeof(prefix), "tool/%s/", name);
    tool_names(join, prefix, &names);
    for (size_t i = 0; i < names.count; i++) {
        struct balance balance = plane;
        balance.gaps = json_deep_copy(plane.gaps);
        join_tools(join, prefix, names.list[i], lanes, &balance);
        join->bad |= json_array_append_new(balances, balance_json(join, &balance, names.list[i]));
    }
    if (names.count == 0) {
        struct balance balance = plane;
        balance.delivered = handed;
        balance.gaps = json_incref(plane.gaps);
        join->bad |= json_array_append_new(balances, balance_json(join, &balance, ""));
    }
    json_decref(plane.gaps);
    put(join, row, "in", offered);
    put(join, row, "packets", packets);
    put(join, row, "bytes", value(join, key, "bytes"));
    put(join, row, "sent", sent_by_group);
    join->bad |= json_object_set_new(row, "lanes", lanes);
    join->bad |= json_object_set_new(row, "balances", balances);
    join->tenant = "";
    return row;
}

/* ---- the document ---- */

/* Most first; equal ones stay in the order of the way. */
static int sort_losses(struct join *join)
{
    size_t count = json_array_size(join->losses);
    json_t *sorted = json_array();
    static const char *const kinds[] = { "lost", "unconfirmed", "left-out", "note" };
    for (size_t kind = 0; kind < PK_ARRAY_SIZE(kinds); kind++) {
        size_t first = json_array_size(sorted);
        for (size_t i = 0; i < count; i++) {
            json_t *loss = json_array_get(join->losses, i);
            if (strcmp(pk_json_string_or(loss, "kind", ""), kinds[kind]) != 0)
                continue;
            size_t at = json_array_size(sorted);
            while (at > first &&
                   get(json_array_get(sorted, at - 1), "packets") < get(loss, "packets"))
                at--;
            join->bad |= json_array_insert(sorted, at, loss);
        }
    }
    json_decref(join->losses);
    join->losses = sorted;
    return join->bad;
}

int pk_ledger_join(const json_t *account, const json_t *sample, const char *fleet,
                   json_t **ret_json, struct pk_error *err)
{
    struct join join = { .things = json_object_get(account, "things"),
                         .sums = json_object_get(sample, "sums"),
                         .at = get(account, "at"),
                         .losses = json_array() };
    json_t *taps = json_array(), *groups = json_array();
    const char *key;
    json_t *thing;
    json_object_foreach((json_t *)(uintptr_t)join.things, key, thing)
    {
        if (pk_str_starts(key, "tap/") && !is_idle_and_gone(&join, key, "packets"))
            join.bad |= json_array_append_new(taps, join_tap(&join, key));
        else if (pk_str_starts(key, "group/") && !is_idle_and_gone(&join, key, "packets"))
            join.bad |= json_array_append_new(groups, join_group(&join, key));
    }
    (void)sort_losses(&join);
    bool adds_up = true;
    size_t i, j;
    const json_t *row, *balance;
    json_array_foreach(taps, i, row)
    {
        adds_up &= json_is_true(pk_json_at(row, "balance.addsUp"));
    }
    json_array_foreach(groups, i, row)
    {
        json_array_foreach(json_object_get(row, "balances"), j, balance)
        {
            adds_up &= json_is_true(json_object_get(balance, "addsUp"));
        }
    }
    json_t *json = json_pack("{s:s,s:s,s:s,s:b,s:o,s:o,s:o}", "apiVersion", "picket.dev/v1alpha1",
                             "kind", "Ledger", "fleet", fleet, "addsUp", (int)adds_up, "taps", taps,
                             "groups", groups, "losses", join.losses);
    if (json != NULL) {
        put_time(&join, json, "since", sample != NULL ? get(sample, "at") : get(account, "since"));
        put_time(&join, json, "at", join.at);
    }
    if (join.bad != 0 || json == NULL) {
        json_decref(json);
        return pk_no_memory(err);
    }
    *ret_json = json;
    return 0;
}
