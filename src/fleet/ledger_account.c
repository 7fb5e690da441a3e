/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks and accounts. An account is
 * {"since":ns,"at":ns,"changed":ns,"things":{KEY:{"began","since","seen",
 * "moved","last":{},"sum":{},"info":{}}}}: last is what was counted in the newest look, sum what
 * has come together since the account began, moved what came in since the look before; changed is
 * the look in which a thing was new, or what is unconfirmed became more or less.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "fleet/ledger.h"

/* Things that are gone are kept, so that sums stay; no more of all than this. */
#define THINGS_MAX 4096u
#define KEY_MAX    256u

static bool key_of(char out[KEY_MAX], enum pk_ledger_thing thing, const char *a, const char *b,
                   const char *c)
{
    int len = snprintf(out, KEY_MAX, "%s/%s%s%s%s%s", pk_ledger_thing_name(thing), a,
                       b != NULL ? "/" : "", b != NULL ? b : "", c != NULL ? "/" : "",
                       c != NULL ? c : "");
    return len > 0 && (size_t)len < KEY_MAX;
}

/* ---- a look ---- */

/* Takes all counters of the table that the row has, and the bytes beside them. */
static int copy_counts(enum pk_ledger_thing thing, const json_t *row, json_t *counts)
{
    size_t count = 0;
    const struct pk_ledger_row *rows = pk_ledger_rows(&count);
    int bad = 0;
    for (size_t i = 0; i < count; i++) {
        if (rows[i].thing != thing)
            continue;
        char bytes[96];
        (void)snprintf(bytes, sizeof(bytes), "%sBytes", rows[i].path);
        const char *const paths[] = { rows[i].path, bytes };
        for (size_t j = 0; j < PK_ARRAY_SIZE(paths); j++) {
            int64_t value = pk_json_int_or(row, paths[j], -1);
            if (value >= 0)
                bad |= json_object_set_new(counts, paths[j], json_integer(value));
        }
    }
    int64_t bytes = pk_json_int_or(row, "bytes", -1);
    if (bytes >= 0)
        bad |= json_object_set_new(counts, "bytes", json_integer(bytes));
    return bad;
}

static int add_thing(json_t *things, const char *key, json_int_t began, json_t *counts,
                     json_t *info)
{
    if (counts == NULL || info == NULL || json_object_size(things) >= THINGS_MAX) {
        json_decref(counts);
        json_decref(info);
        return -1;
    }
    return json_object_set_new(
        things, key, json_pack("{s:I,s:o,s:o}", "began", began, "counts", counts, "info", info));
}

static json_t *info_of(const json_t *row, const char *const *keys, size_t count)
{
    json_t *info = json_object();
    for (size_t i = 0; i < count && info != NULL; i++) {
        json_t *value = json_object_get(row, keys[i]);
        if (value != NULL)
            (void)json_object_set(info, keys[i], value);
    }
    return info;
}

static bool of_fleet(const json_t *row, const char *fleet)
{
    return strcmp(pk_json_string_or(row, "fleet", ""), fleet) == 0;
}

static int look_at_tap(json_t *things, const json_t *row)
{
    static const char *const keys[] = { "name", "kind", "interface", "state", "detail", "mode" };
    static const char *const nic_keys[] = { "driver", "names" };
    char key[KEY_MAX];
    const char *name = pk_json_string_or(row, "name", "");
    int64_t began = pk_json_int_or(row, "began", 0);
    json_t *counts = json_object(), *info = info_of(row, keys, PK_ARRAY_SIZE(keys));
    json_t *names = json_array();
    int bad = copy_counts(PK_LEDGER_TAP, row, counts);
    bad |= json_object_set_new(info, "tenantNames", names);
    if (!key_of(key, PK_LEDGER_TAP, name, NULL, NULL)) {
        json_decref(counts);
        json_decref(info);
        return bad;
    }
    bad |= add_thing(things, key, began, counts, info);
    const json_t *nic = json_object_get(row, "nic");
    if (json_is_object(nic) && key_of(key, PK_LEDGER_NIC, name, NULL, NULL)) {
        counts = json_object();
        bad |= copy_counts(PK_LEDGER_NIC, nic, counts);
        bad |= add_thing(things, key, pk_json_int_or(nic, "began", 0), counts,
                         info_of(nic, nic_keys, PK_ARRAY_SIZE(nic_keys)));
    }
    size_t i;
    const json_t *tenant;
    json_array_foreach(json_object_get(row, "tenants"), i, tenant)
    {
        const char *of = pk_json_string_or(tenant, "name", "");
        if (json_object_get(tenant, "packets") == NULL ||
            !key_of(key, PK_LEDGER_TENANT, name, of, NULL))
            continue;
        counts = json_object();
        bad |= json_array_append_new(names, json_string(of));
        bad |= copy_counts(PK_LEDGER_TENANT, tenant, counts);
        bad |= add_thing(things, key, pk_json_int_or(tenant, "began", began), counts,
                         json_pack("{s:s,s:s}", "tap", name, "tenant", of));
    }
    return bad;
}

/* Is what of the tap is the tenant's counted? Not so where all of it is the same tenant's. */
static bool counts_tenant(const json_t *tap, const char *tenant)
{
    size_t i;
    const json_t *row;
    json_array_foreach(json_object_get(tap, "tenants"), i, row)
    {
        if (strcmp(pk_json_string_or(row, "name", ""), tenant) == 0)
            return json_object_get(row, "packets") != NULL;
    }
    return false;
}

/* Where a group's packets come from: keys of things, in the order of the plane. */
static json_t *feeds_of(const json_t *plane, const char *fleet, const char *group)
{
    json_t *feeds = json_array();
    char key[KEY_MAX];
    size_t i, j;
    const json_t *tap, *target;
    json_array_foreach(json_object_get(plane, "taps"), i, tap)
    {
        const char *name = pk_json_string_or(tap, "name", "");
        if (!of_fleet(tap, fleet))
            continue;
        json_array_foreach(json_object_get(tap, "groups"), j, target)
        {
            const char *tenant = pk_json_string_or(target, "tenant", "");
            if (strcmp(pk_json_string_or(target, "name", ""), group) != 0)
                continue;
            bool known = counts_tenant(tap, tenant)
                             ? key_of(key, PK_LEDGER_TENANT, name, tenant, NULL)
                             : key_of(key, PK_LEDGER_TAP, name, NULL, NULL);
            if (known)
                (void)json_array_append_new(feeds, json_string(key));
        }
    }
    return feeds;
}

static int look_at_group(json_t *things, const json_t *plane, const char *fleet, const json_t *row)
{
    static const char *const keys[] = { "name", "tenant", "detail", "hash", "overload" };
    char key[KEY_MAX];
    const char *name = pk_json_string_or(row, "name", "");
    if (!key_of(key, PK_LEDGER_GROUP, name, NULL, NULL))
        return 0;
    json_t *counts = json_object();
    json_t *info = info_of(row, keys, PK_ARRAY_SIZE(keys));
    int bad = copy_counts(PK_LEDGER_GROUP, row, counts);
    bad |= json_object_set_new(info, "feeds", feeds_of(plane, fleet, name));
    return bad | add_thing(things, key, pk_json_int_or(row, "began", 0), counts, info);
}

static int look_at_lane(json_t *things, const json_t *row)
{
    static const char *const keys[] = { "group", "index", "state", "detail", "slots",
                                        "mtu",   "ends",  "given", "health" };
    char key[KEY_MAX], index[24];
    (void)snprintf(index, sizeof(index), "%" PRId64, pk_json_int_or(row, "index", 0));
    if (!key_of(key, PK_LEDGER_LANE, pk_json_string_or(row, "group", ""), index, NULL))
        return 0;
    int64_t arrived = pk_json_int_or(row, "packets", 0);
    json_t *counts = json_object();
    int bad = copy_counts(PK_LEDGER_LANE, row, counts);
    /* The ring's loss follows from the two at its ends, which never go back. */
    int64_t sent = pk_json_int_or(row, "sent", arrived + pk_json_int_or(row, "ringDropped", 0));
    (void)json_object_del(counts, "ringDropped");
    bad |= json_object_set_new(counts, "sent", json_integer(sent));
    bad |= json_object_set_new(counts, "arrived", json_integer(arrived));
    bad |= json_object_set_new(counts, "canaries",
                               json_integer(PK_MAX(pk_json_int_or(row, "canaries", 0), 0)));
    return bad | add_thing(things, key, pk_json_int_or(row, "began", 0), counts,
                           info_of(row, keys, PK_ARRAY_SIZE(keys)));
}

static int look_at_tool(json_t *things, const json_t *row)
{
    static const char *const keys[] = {
        "group", "lane", "tool", "state", "counts", "live", "life"
    };
    char key[KEY_MAX], index[24];
    (void)snprintf(index, sizeof(index), "%" PRId64, pk_json_int_or(row, "lane", 0));
    if (!key_of(key, PK_LEDGER_TOOL, pk_json_string_or(row, "group", ""), index,
                pk_json_string_or(row, "tool", "")))
        return 0;
    json_t *counts = json_object();
    int bad = copy_counts(PK_LEDGER_TOOL, row, counts);
    bad |= json_object_set_new(counts, "received", json_integer(pk_json_int_or(row, "packets", 0)));
    return bad | add_thing(things, key, 0, counts, info_of(row, keys, PK_ARRAY_SIZE(keys)));
}

json_t *pk_ledger_look(const json_t *plane, const char *fleet, const json_t *tools, pk_nsec at)
{
    json_t *things = json_object();
    json_t *look = json_pack("{s:I,s:o}", "at", (json_int_t)at, "things", things);
    int bad = look == NULL;
    size_t i;
    const json_t *row;
    json_array_foreach(json_object_get(plane, "taps"), i, row)
    {
        if (!bad && of_fleet(row, fleet))
            bad |= look_at_tap(things, row);
    }
    json_array_foreach(json_object_get(plane, "groups"), i, row)
    {
        if (!bad && of_fleet(row, fleet))
            bad |= look_at_group(things, plane, fleet, row);
    }
    json_array_foreach(json_object_get(plane, "lanes"), i, row)
    {
        if (!bad && of_fleet(row, fleet))
            bad |= look_at_lane(things, row);
    }
    json_array_foreach(tools, i, row)
    {
        if (!bad)
            bad |= look_at_tool(things, row);
    }
    if (bad) {
        json_decref(look);
        return NULL;
    }
    return look;
}

/* ---- an account ---- */

json_t *pk_ledger_account_new(pk_nsec at)
{
    return json_pack("{s:I,s:I,s:{}}", "since", (json_int_t)at, "at", (json_int_t)at, "things");
}

static int64_t get(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static int put(json_t *object, const char *key, int64_t value)
{
    return json_object_set_new(object, key, json_integer(value));
}

/* What a counter grew by. same: it is the same counter as in the look before; steady: that is known
 * for certain, since things of its kind say when they began. */
static int64_t growth(enum pk_ledger_thing thing, bool same, bool steady, const json_t *last,
                      int64_t now)
{
    if (last == NULL || !same)
        return now; /* it has begun since */
    int64_t before = json_integer_value(last);
    if (now >= before)
        return now - before;
    /* The same counters, so it is one that follows from two others that were not read at once. */
    if (steady)
        return now - before;
    /* Some drivers count with 32 bits. */
    if (thing == PK_LEDGER_NIC && before <= UINT32_MAX && before - now > UINT32_MAX / 2)
        return (int64_t)UINT32_MAX - before + now + 1;
    return now; /* begun anew: a driver loaded again, pins that were lost */
}

static enum pk_ledger_thing thing_of(const char *key)
{
    for (unsigned thing = 0; thing < PK_LEDGER_THINGS; thing++) {
        const char *name = pk_ledger_thing_name(thing);
        size_t len = strlen(name);
        if (strncmp(key, name, len) == 0 && key[len] == '/')
            return thing;
    }
    return PK_LEDGER_THINGS;
}

static const char *in_of(enum pk_ledger_thing thing)
{
    static const char *const names[PK_LEDGER_THINGS] = { "",        "packets", "packets",
                                                         "packets", "sent",    "received" };
    return names[thing];
}

/* What the thing grew by in the newest look is in "grown" until the look is done with. */
static int add_counts(json_t *account, const char *key, const json_t *seen)
{
    enum pk_ledger_thing thing = thing_of(key);
    json_t *things = json_object_get(account, "things");
    json_t *entry = json_object_get(things, key);
    int64_t at = get(account, "at"), began = get(seen, "began");
    bool is_new = entry == NULL;
    if (thing == PK_LEDGER_THINGS || (is_new && json_object_size(things) >= THINGS_MAX))
        return 0;
    if (is_new) {
        entry = json_pack("{s:I,s:I,s:{},s:{}}", "began", (json_int_t)began, "since",
                          (json_int_t)at, "last", "sum");
        if (json_object_set_new(things, key, entry) < 0)
            return -1;
    }
    bool same = get(entry, "began") == began;
    bool steady = same && began != 0 && thing != PK_LEDGER_NIC;
    json_t *last = json_object_get(entry, "last"), *sum = json_object_get(entry, "sum");
    json_t *grown = json_object();
    const char *name;
    json_t *value;
    int bad = json_object_set_new(entry, "grown", grown);
    json_object_foreach(json_object_get(seen, "counts"), name, value)
    {
        int64_t now = json_integer_value(value);
        int64_t more = growth(thing, same, steady, json_object_get(last, name), now);
        /* An interface has counted since the machine started, which is none of ours. */
        if (thing == PK_LEDGER_NIC && is_new)
            more = 0;
        bad |=
            put(last, name, now) | put(sum, name, get(sum, name) + more) | put(grown, name, more);
    }
    bad |= put(entry, "began", began) | put(entry, "seen", at) |
           put(entry, "moved", get(grown, in_of(thing)));
    if (is_new || !same)
        bad |= put(entry, "anew", at) | put(account, "changed", at);
    return bad | json_object_set(entry, "info", json_object_get(seen, "info"));
}

/* What of a tap went to its tenants. While it changes which they are, the tap's own word is taken.
 */
static int add_claimed(json_t *account, const char *key, json_t *entry)
{
    const json_t *things = json_object_get(account, "things");
    const json_t *names = json_object_get(json_object_get(entry, "info"), "tenantNames");
    const json_t *grown = json_object_get(entry, "grown"), *name;
    json_t *sum = json_object_get(entry, "sum");
    int64_t at = get(account, "at"), claimed = 0;
    bool steady = json_array_size(names) > 0 && get(entry, "anew") != at &&
                  json_equal(names, json_object_get(entry, "tenantNames"));
    size_t i;
    json_array_foreach(names, i, name)
    {
        char tenant[KEY_MAX];
        if (!key_of(tenant, PK_LEDGER_TENANT, key + strlen("tap/"), json_string_value(name), NULL))
            continue;
        const json_t *from = json_object_get(things, tenant);
        steady &= from != NULL && get(from, "seen") == at && get(from, "anew") != at;
        claimed += get(json_object_get(from, "grown"), "packets");
    }
    if (!steady)
        claimed = get(grown, "packets") - get(grown, "reasons.tenant-unknown");
    return put(sum, "claimed", get(sum, "claimed") + claimed) |
           json_object_set(entry, "tenantNames", (json_t *)(uintptr_t)names);
}

/* What its taps had for a group. While it changes what feeds a group, the two sides begin at
 * different moments, so for that look the group's own word is taken. */
static int add_offered(json_t *account, json_t *entry)
{
    const json_t *things = json_object_get(account, "things");
    const json_t *feeds = json_object_get(json_object_get(entry, "info"), "feeds");
    const json_t *feed;
    json_t *sum = json_object_get(entry, "sum");
    int64_t at = get(account, "at"), offered = 0;
    bool steady = json_equal(feeds, json_object_get(entry, "feeds")) && get(entry, "anew") != at;
    size_t i;
    json_array_foreach(feeds, i, feed)
    {
        const json_t *from = json_object_get(things, json_string_value(feed));
        steady &= from != NULL && get(from, "seen") == at && get(from, "anew") != at;
        offered += get(json_object_get(from, "grown"), "packets");
    }
    if (!steady)
        offered = get(json_object_get(entry, "grown"), "packets");
    return put(sum, "offered", get(sum, "offered") + offered) |
           json_object_set(entry, "feeds", (json_t *)(uintptr_t)feeds);
}

/* What a lane gave to its tools, and what of it a tool will never tell of. While the tool does not
 * run, or nothing reads the lane, what it has not told yet is not known; what it tells later after
 * all is known again. */
static int add_handed(json_t *account, const char *key, json_t *entry)
{
    char lane_key[KEY_MAX];
    const json_t *info = json_object_get(entry, "info");
    json_t *sum = json_object_get(entry, "sum");
    int64_t at = get(account, "at");
    (void)snprintf(lane_key, sizeof(lane_key), "lane/%s", key + strlen("tool/"));
    char *slash = strrchr(lane_key, '/');
    if (slash != NULL)
        *slash = '\0';
    const json_t *lane = json_object_get(json_object_get(account, "things"), lane_key);
    const json_t *grown = json_object_get(lane, "grown");
    const json_t *info_of_lane = json_object_get(lane, "info");
    int64_t handed = get(sum, "handed");
    bool both = get(entry, "anew") != at || get(lane, "anew") == at;
    /* The agent's canaries are nobody's packets, but the tool counts them among its own: so here
     * they are on both sides, and are taken out of both where people look (join_tool()). */
    int64_t canaries = 0;
    if (lane != NULL && get(lane, "seen") == at && both) {
        canaries = get(grown, "canaries");
        handed += get(grown, "arrived") - get(grown, "unread") + canaries;
    }
    int bad = put(sum, "handed", handed) | put(sum, "canaries", get(sum, "canaries") + canaries);
    if (!json_is_true(json_object_get(info, "counts")))
        return bad;
    int64_t received = get(sum, "received"), open = PK_MAX(handed - received, 0);
    bool shut = strcmp(pk_json_string_or(info_of_lane, "state", ""), "ready") != 0;
    bool live = json_is_true(json_object_get(info, "live"));
    int64_t unconfirmed = shut || !live ? open : get(sum, "unconfirmed");
    /* The agent knows what had been handed on when the readers before ended. */
    if (!shut && live && get(info_of_lane, "ends") > 0) {
        const json_t *last = json_object_get(lane, "last");
        int64_t since = get(last, "arrived") - get(last, "unread") + get(last, "canaries") -
                        get(info_of_lane, "given");
        unconfirmed = PK_MAX(handed - since - (received - get(info, "life")), 0);
    }
    unconfirmed = PK_MIN(unconfirmed, open);
    /* To be kept at once: an agent that is started again does not know of it any more. */
    if (unconfirmed != get(sum, "unconfirmed"))
        bad |= put(account, "changed", at);
    return bad | put(sum, "unconfirmed", unconfirmed);
}

int pk_ledger_account_add(json_t *account, const json_t *look, struct pk_error *err)
{
    json_t *things = json_object_get(account, "things");
    int64_t at = get(look, "at");
    const char *key;
    json_t *value;
    if (at <= get(account, "at") && json_object_size(things) > 0)
        at = get(account, "at") + 1; /* the clock was set back */
    int bad = put(account, "at", at);
    json_object_foreach(json_object_get(look, "things"), key, value)
    {
        bad |= add_counts(account, key, value);
    }
    json_object_foreach(things, key, value)
    {
        if (get(value, "seen") != at)
            bad |= put(value, "moved", 0);
        else if (thing_of(key) == PK_LEDGER_TAP)
            bad |= add_claimed(account, key, value);
        else if (thing_of(key) == PK_LEDGER_GROUP)
            bad |= add_offered(account, value);
        else if (thing_of(key) == PK_LEDGER_TOOL)
            bad |= add_handed(account, key, value);
    }
    json_object_foreach(things, key, value)
    {
        (void)json_object_del(value, "grown");
    }
    return bad == 0 ? 0 : pk_no_memory(err);
}

json_t *pk_ledger_sample(const json_t *account)
{
    json_t *sums = json_object();
    const char *key, *name;
    json_t *thing, *value;
    int bad = sums == NULL;
    json_object_foreach(json_object_get(account, "things"), key, thing)
    {
        json_t *kept = json_object();
        bad |= json_object_set_new(sums, key, kept);
        json_object_foreach(json_object_get(thing, "sum"), name, value)
        {
            if (json_integer_value(value) != 0)
                bad |= json_object_set(kept, name, value);
        }
        if (get(thing, "moved") != 0)
            bad |= json_object_set(kept, "moved", json_object_get(thing, "moved"));
    }
    json_t *sample = json_pack("{s:I,s:o}", "at", (json_int_t)get(account, "at"), "sums", sums);
    if (bad != 0) {
        json_decref(sample);
        return NULL;
    }
    return sample;
}
