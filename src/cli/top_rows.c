/* SPDX-License-Identifier: Apache-2.0 */
/* Two ledgers as rows with rates. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/json.h"
#include "base/time.h"
#include "cli/top.h"

const char *pk_top_sort_name(enum pk_top_sort sort)
{
    static const char *const names[] = { "way", "packets", "bits", "loss" };
    return names[sort];
}

static int64_t number(const json_t *row, const char *path)
{
    return pk_json_int_or(row, path, 0);
}

/* ---- a ledger as rows of sums: blocks of a parent and what is below it ---- */

static json_t *new_row(const json_t *ledger, const char *kind, const char *name, unsigned depth,
                       const json_t *thing)
{
    PK_CLEANUP(pk_free_p)
    char *key = pk_asprintf("%s %s %s", pk_json_string_or(ledger, "fleet", ""), kind, name);
    if (key == NULL)
        return NULL;
    return json_pack("{s:s,s:s,s:s,s:s,s:i,s:s}", "key", key, "fleet",
                     pk_json_string_or(ledger, "fleet", ""), "kind", kind, "name", name, "depth",
                     (int)depth, "state", pk_json_string_or(thing, "state", ""));
}

static int add_row(json_t *rows, json_t *row, int64_t packets, int64_t bytes, int64_t lost)
{
    int bad = row == NULL;
    bad |= json_object_set_new(row, "packets", json_integer(packets));
    if (bytes >= 0)
        bad |= json_object_set_new(row, "bytes", json_integer(bytes));
    bad |= json_object_set_new(row, "lost", json_integer(lost));
    return json_array_append_new(rows, row) | bad;
}

static int add_tap(json_t *rows, const json_t *ledger, const json_t *tap)
{
    const char *name = pk_json_string_or(tap, "name", "");
    int bad = add_row(rows, new_row(ledger, "tap", name, 0, tap), number(tap, "in"),
                      number(tap, "bytes"), number(tap, "balance.lost"));
    size_t i;
    const json_t *tenant;
    json_array_foreach(json_object_get(tap, "tenants"), i, tenant)
    {
        const char *of = pk_json_string_or(tenant, "name", "");
        PK_CLEANUP(pk_free_p) char *full = pk_asprintf("%s/%s", name, of[0] != '\0' ? of : "*");
        bad |= full == NULL || add_row(rows, new_row(ledger, "tenant", full, 1, NULL),
                                       number(tenant, "packets"), number(tenant, "bytes"), 0) != 0;
    }
    return bad;
}

static int add_lane(json_t *rows, const json_t *ledger, const json_t *lane)
{
    const char *name = pk_json_string_or(lane, "name", "");
    json_t *row = new_row(ledger, "lane", name, 1, lane);
    int bad = json_object_set_new(row, "slots", json_integer(number(lane, "slots")));
    bad |= add_row(rows, row, number(lane, "sent"), number(lane, "bytes"), number(lane, "lost"));
    size_t i;
    const json_t *tool;
    json_array_foreach(json_object_get(lane, "tools"), i, tool)
    {
        PK_CLEANUP(pk_free_p)
        char *full = pk_asprintf("%s/%s", name, pk_json_string_or(tool, "name", ""));
        bad |= full == NULL ||
               add_row(rows, new_row(ledger, "tool", full, 2, tool), number(tool, "received"), -1,
                       number(tool, "dropped") + number(tool, "unconfirmed")) != 0;
    }
    return bad;
}

static int add_group(json_t *rows, const json_t *ledger, const json_t *group)
{
    const json_t *balance = json_array_get(json_object_get(group, "balances"), 0);
    const char *over = pk_json_string_or(json_object_get(group, "overload"), "state", "none");
    json_t *row = new_row(ledger, "group", pk_json_string_or(group, "name", ""), 0, group);
    if (row != NULL && strcmp(over, "none") != 0)
        (void)json_object_set_new(row, "state", json_string(over));
    int bad = add_row(rows, row, number(group, "in"), number(group, "bytes"),
                      number(balance, "lost") + number(balance, "unconfirmed"));
    size_t i;
    const json_t *lane;
    json_array_foreach(json_object_get(group, "lanes"), i, lane)
    {
        bad |= add_lane(rows, ledger, lane);
    }
    return bad;
}

static json_t *sums_of(const json_t *ledger)
{
    json_t *rows = json_array();
    int bad = rows == NULL;
    size_t i;
    const json_t *thing;
    json_array_foreach(json_object_get(ledger, "taps"), i, thing)
    {
        bad |= add_tap(rows, ledger, thing);
    }
    json_array_foreach(json_object_get(ledger, "groups"), i, thing)
    {
        bad |= add_group(rows, ledger, thing);
    }
    if (bad) {
        json_decref(rows);
        return NULL;
    }
    return rows;
}

/* ---- rates ---- */

static pk_nsec time_of(const json_t *ledger)
{
    const char *text = pk_json_string_or(ledger, "at", "");
    pk_nsec when = 0;
    return pk_time_parse(text, strlen(text), &when, NULL) == 0 ? when : 0;
}

static double rate_of(const json_t *old, const json_t *row, const char *name, double seconds)
{
    int64_t grown = number(row, name) - number(old, name);
    return grown > 0 ? (double)grown / seconds : 0; /* a fleet made anew begins at 0 */
}

static int add_rates(json_t *rows, const json_t *before, double seconds)
{
    PK_JSON old = json_object();
    size_t i;
    json_t *row;
    int bad = old == NULL;
    json_array_foreach(before, i, row)
    {
        bad |= json_object_set(old, pk_json_string_or(row, "key", ""), row);
    }
    json_array_foreach(rows, i, row)
    {
        const json_t *was = json_object_get(old, pk_json_string_or(row, "key", ""));
        if (was == NULL)
            continue;
        double packets = rate_of(was, row, "packets", seconds);
        double lost = rate_of(was, row, "lost", seconds);
        bad |= json_object_set_new(row, "packetsPerSecond", json_real(packets));
        if (json_object_get(row, "bytes") != NULL)
            bad |= json_object_set_new(row, "bitsPerSecond",
                                       json_real(8 * rate_of(was, row, "bytes", seconds)));
        bad |= json_object_set_new(row, "lostPerSecond", json_real(lost));
        if (packets > 0)
            bad |= json_object_set_new(row, "lostShare", json_real(PK_MIN(lost / packets, 1.0)));
    }
    return bad;
}

/* ---- order ---- */

/* A row with what is below it. */
struct block {
    size_t first, count;
    double weight;
};

static double weight_of(const json_t *row, enum pk_top_sort sort)
{
    static const char *const members[] = { "", "packetsPerSecond", "bitsPerSecond",
                                           "lostPerSecond" };
    double rate = json_real_value(json_object_get(row, members[sort]));
    /* The bits of a tool are not known: its packets order it. */
    if (sort == PK_TOP_BY_BITS && json_object_get(row, "bitsPerSecond") == NULL)
        rate = json_real_value(json_object_get(row, "packetsPerSecond"));
    return rate;
}

static int compare_blocks(const void *left, const void *right)
{
    const struct block *a = left, *b = right;
    if (a->weight > b->weight || a->weight < b->weight)
        return a->weight > b->weight ? -1 : 1;
    return a->first < b->first ? -1 : a->first > b->first;
}

static unsigned depth_of(const json_t *rows, size_t i)
{
    return (unsigned)number(json_array_get(rows, i), "depth");
}

/* Appends rows [first, end) of one depth to out, sorted, each followed by what is below it. Taps
 * stay before groups: at the top, kinds are not mixed. */
static int sort_into(json_t *out, const json_t *rows, size_t first, size_t end,
                     enum pk_top_sort sort)
{
    PK_CLEANUP(pk_free_p)
    struct block *blocks = pk_zalloc_array(end - first + 1, sizeof(*blocks));
    size_t count = 0;
    if (blocks == NULL)
        return -1;
    for (size_t i = first; i < end;) {
        size_t next = i + 1;
        while (next < end && depth_of(rows, next) > depth_of(rows, i))
            next++;
        blocks[count++] = (struct block){ i, next - i, weight_of(json_array_get(rows, i), sort) };
        i = next;
    }
    qsort(blocks, count, sizeof(*blocks), compare_blocks);
    int bad = 0;
    static const char *const passes[] = { "tap", NULL };
    for (size_t pass = 0; pass < PK_ARRAY_SIZE(passes); pass++) {
        for (size_t i = 0; i < count; i++) {
            json_t *row = json_array_get(rows, blocks[i].first);
            bool is_tap = strcmp(pk_json_string_or(row, "kind", ""), "tap") == 0;
            if (is_tap != (passes[pass] != NULL))
                continue;
            bad |= json_array_append(out, row);
            if (blocks[i].count > 1)
                bad |= sort_into(out, rows, blocks[i].first + 1, blocks[i].first + blocks[i].count,
                                 sort);
        }
    }
    return bad;
}

json_t *pk_top_rows(const json_t *before, const json_t *now, enum pk_top_sort sort)
{
    PK_JSON rows = sums_of(now);
    PK_JSON old = before != NULL ? sums_of(before) : NULL;
    if (rows == NULL || (before != NULL && old == NULL))
        return NULL;
    double seconds = (double)(time_of(now) - time_of(before)) / (double)PK_NSEC_PER_SEC;
    if (old != NULL && seconds > 0 && add_rates(rows, old, seconds) != 0)
        return NULL;
    if (sort == PK_TOP_BY_WAY)
        return PK_TAKE(rows);
    PK_JSON sorted = json_array();
    if (sorted == NULL || sort_into(sorted, rows, 0, json_array_size(rows), sort) != 0)
        return NULL;
    return PK_TAKE(sorted);
}

int pk_top_remember(json_t *histories, const json_t *rows)
{
    PK_JSON kept = json_object();
    size_t i;
    const json_t *row;
    int bad = kept == NULL;
    json_array_foreach(rows, i, row)
    {
        const char *key = pk_json_string_or(row, "key", "");
        const json_t *rate = json_object_get(row, "packetsPerSecond");
        json_t *history = json_object_get(histories, key);
        history = history != NULL ? json_incref(history) : json_array();
        if (rate != NULL)
            bad |= json_array_append_new(history, json_real(json_real_value(rate)));
        if (json_array_size(history) > PK_TOP_HISTORY)
            (void)json_array_remove(history, 0);
        bad |= json_object_set_new(kept, key, history);
    }
    bad |= json_object_clear(histories);
    bad |= json_object_update(histories, kept);
    return bad == 0 ? 0 : PK_E_NOMEM;
}
