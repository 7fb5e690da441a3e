/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger's arithmetic over counters made by hand: every packet has one place. */
#include "pk_test.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/json.h"
#include "fleet/ledger.h"
#include "packet/flow.h"

/* A plane with one tap, one group, two lanes and one Suricata in each. */
struct world {
    json_int_t tap_began, lane_began[2];
    json_int_t nic_ring, tap, tap_unknown, tenant, filtered, no_lane, not_sent;
    json_int_t sent[2], arrived[2], unread[2], received[2], dropped[2];
    json_int_t canaries[2], ends, given, life;
    const char *lane_state;
    bool live, no_tools;
};

static struct world new_world(void)
{
    return (struct world){
        .tap_began = 7, .lane_began = { 8, 9 }, .lane_state = "ready", .live = true
    };
}

/* n packets that come through whole, in the lanes' turn */
static void pass(struct world *w, unsigned lane, json_int_t n)
{
    w->tap += n;
    w->tenant += n;
    w->sent[lane] += n;
    w->arrived[lane] += n;
    w->received[lane] += n;
}

static json_t *look(const struct world *w, pk_nsec at)
{
    PK_JSON taps = json_pack(
        "[{s:s,s:s,s:s,s:I,s:I,s:I,s:{s:I},s:[{s:s,s:I,s:I}],s:[{s:s,s:s}],s:{s:I,s:{s:I}}}]",
        "fleet", "f", "name", "up", "state", "up", "began", w->tap_began, "packets", w->tap,
        "bytes", w->tap * 100, "reasons", "tenant-unknown", w->tap_unknown, "tenants", "name",
        "lab", "packets", w->tenant, "bytes", w->tenant * 100, "groups", "name", "g", "tenant",
        "lab", "nic", "began", (json_int_t)1, "lost", "ring", w->nic_ring);
    json_int_t sent = w->sent[0] + w->sent[1];
    PK_JSON groups =
        json_pack("[{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I}]", "fleet", "f", "name", "g",
                  "tenant", "lab", "began", (json_int_t)5, "packets",
                  sent + w->filtered + w->no_lane + w->not_sent, "filtered", w->filtered, "noLane",
                  w->no_lane, "notSent", w->not_sent, "sent", sent, "bytes", sent * 100);
    PK_JSON lanes = json_array();
    PK_JSON tools = json_array();
    for (int i = 0; i < 2; i++) {
        json_array_append_new(
            lanes,
            json_pack("{s:s,s:s,s:i,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "fleet", "f", "group",
                      "g", "index", i, "state", w->lane_state, "began", w->lane_began[i], "sent",
                      w->sent[i], "packets", w->arrived[i], "unread", w->unread[i], "ringDropped",
                      w->sent[i] - w->arrived[i], "canaries", w->canaries[i], "ends",
                      i == 0 ? w->ends : 0, "given", w->given));
        if (!w->no_tools)
            json_array_append_new(tools, json_pack("{s:s,s:i,s:s,s:s,s:b,s:b,s:I,s:I,s:I}", "group",
                                                   "g", "lane", i, "tool", "suricata", "state",
                                                   "running", "counts", 1, "live", (int)w->live,
                                                   "packets", w->received[i], "dropped",
                                                   w->dropped[i], "life", i == 0 ? w->life : 0));
    }
    PK_JSON plane = json_pack("{s:O,s:O,s:O}", "taps", taps, "groups", groups, "lanes", lanes);
    json_t *made = pk_ledger_look(plane, "f", tools, at);
    assert_non_null(made);
    return made;
}

static void add(json_t *account, const struct world *w)
{
    PK_JSON seen = look(w, json_integer_value(json_object_get(account, "at")) + 1000);
    assert_int_equal(pk_ledger_account_add(account, seen, NULL), 0);
}

static json_t *join(const json_t *account, const json_t *sample)
{
    json_t *ledger = NULL;
    assert_int_equal(pk_ledger_join(account, sample, "f", &ledger, NULL), 0);
    return ledger;
}

static json_t *group_balance(const json_t *ledger)
{
    const json_t *group = json_array_get(json_object_get(ledger, "groups"), 0);
    return json_array_get(json_object_get(group, "balances"), 0);
}

static json_t *tap_balance(const json_t *ledger)
{
    return json_object_get(json_array_get(json_object_get(ledger, "taps"), 0), "balance");
}

static json_int_t of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void check_sum(const json_t *balance)
{
    assert_int_equal(of(balance, "in"), of(balance, "delivered") + of(balance, "leftOut") +
                                            of(balance, "lost") + of(balance, "unconfirmed") +
                                            of(balance, "underWay") + of(balance, "unexplained"));
}

/* The packets of a cause at a place; fails when it is told twice. */
static json_int_t lost(const json_t *ledger, const char *cause, const char *where)
{
    size_t i, found = 0;
    const json_t *loss;
    json_int_t packets = 0;
    json_array_foreach(json_object_get(ledger, "losses"), i, loss)
    {
        if (strcmp(pk_json_string_or(loss, "cause", ""), cause) != 0 ||
            strcmp(pk_json_string_or(loss, "where", ""), where) != 0)
            continue;
        found++;
        packets = of(loss, "packets");
        assert_true(strlen(pk_json_string_or(loss, "text", "")) > 10);
        assert_true(strlen(pk_json_string_or(loss, "remedy", "")) > 10);
    }
    assert_true(found <= 1);
    return packets;
}

static void test_all_delivered(void **state)
{
    (void)state;
    PK_JSON account = pk_ledger_account_new(1000);
    struct world w = new_world();
    pass(&w, 0, 60);
    pass(&w, 1, 40);
    add(account, &w);
    add(account, &w);
    PK_JSON ledger = join(account, NULL);
    assert_true(json_is_true(json_object_get(ledger, "addsUp")));
    assert_int_equal(json_array_size(json_object_get(ledger, "losses")), 0);
    assert_int_equal(of(group_balance(ledger), "delivered"), 100);
    assert_int_equal(of(tap_balance(ledger), "delivered"), 100);
    check_sum(group_balance(ledger));
}

static void test_each_loss_has_its_place(void **state)
{
    (void)state;
    PK_JSON account = pk_ledger_account_new(1000);
    struct world w = new_world();
    w.nic_ring = 1000000; /* counted before picket came: not ours */
    add(account, &w);
    pass(&w, 0, 1000);
    w.nic_ring += 11;
    w.tap += 3, w.tap_unknown += 3;
    w.tap += 5, w.tenant += 5, w.filtered += 5;
    w.tap += 7, w.tenant += 7, w.no_lane += 7;
    w.tap += 9, w.tenant += 9, w.not_sent += 9;
    w.tap += 13, w.tenant += 13, w.sent[0] += 13; /* ring */
    w.tap += 17, w.tenant += 17, w.sent[1] += 17, w.arrived[1] += 17, w.unread[1] += 17;
    w.dropped[0] += 19; /* among the received */
    add(account, &w);
    add(account, &w);
    PK_JSON ledger = join(account, NULL);
    assert_int_equal(lost(ledger, "nic-ring", "tap up"), 11);
    assert_int_equal(lost(ledger, "tenant-unknown", "tap up"), 3);
    assert_int_equal(lost(ledger, "filtered", "group g"), 5);
    assert_int_equal(lost(ledger, "no-lane", "group g"), 7);
    assert_int_equal(lost(ledger, "not-sent", "group g"), 9);
    assert_int_equal(lost(ledger, "lane-ring", "lane g/0"), 13);
    assert_int_equal(lost(ledger, "unread", "lane g/1"), 17);
    assert_int_equal(lost(ledger, "tool-ring", "tool g/0/suricata"), 19);
    assert_int_equal(json_array_size(json_object_get(ledger, "losses")), 8);
    assert_true(json_is_true(json_object_get(ledger, "addsUp")));
    const json_t *group = group_balance(ledger), *tap = tap_balance(ledger);
    check_sum(group);
    check_sum(tap);
    assert_int_equal(of(tap, "in"), 11 + 3 + 1000 + 5 + 7 + 9 + 13 + 17);
    assert_int_equal(of(group, "in"), 1000 + 5 + 7 + 9 + 13 + 17);
    assert_int_equal(of(group, "lost"), 7 + 9 + 13 + 17 + 19);
    assert_int_equal(of(group, "leftOut"), 5);
    assert_int_equal(of(group, "delivered"), 1000 - 19);
}

static void test_what_does_not_add_up_is_told(void **state)
{
    (void)state;
    PK_JSON account = pk_ledger_account_new(1000);
    struct world w = new_world();
    add(account, &w);
    pass(&w, 0, 100);
    w.tenant += 4; /* the group never saw them */
    w.tap += 4;
    add(account, &w);
    PK_JSON live = join(account, NULL);
    /* A look while packets flow: they may be on their way. */
    assert_int_equal(of(group_balance(live), "underWay"), 4);
    assert_true(json_is_true(json_object_get(live, "addsUp")));
    check_sum(group_balance(live));
    add(account, &w); /* nothing moved, and they are still missing */
    PK_JSON rest = join(account, NULL);
    assert_int_equal(of(group_balance(rest), "unexplained"), 4);
    assert_true(json_is_false(json_object_get(rest, "addsUp")));
    assert_int_equal(json_array_size(json_object_get(group_balance(rest), "gaps")), 1);
    check_sum(group_balance(rest));
}

/* Gaps of opposite signs do not make each other unseen. */
static void test_gaps_do_not_cancel(void **state)
{
    (void)state;
    PK_JSON account = pk_ledger_account_new(1000);
    struct world w = new_world();
    add(account, &w);
    w.tap += 4, w.tenant += 4;             /* lost before the group */
    w.arrived[0] += 4, w.received[0] += 4; /* and came from nowhere */
    w.sent[0] += 0;
    add(account, &w);
    add(account, &w);
    PK_JSON ledger = join(account, NULL);
    assert_true(json_is_false(json_object_get(ledger, "addsUp")));
    check_sum(group_balance(ledger));
}

static void test_tool_restart(void **state)
{
    (void)state;
    PK_JSON account = pk_ledger_account_new(1000);
    struct world w = new_world();
    pass(&w, 0, 500);
    add(account, &w);
    /* It is killed: 30 were handed to it of which it never told; then 20 came while nobody read. */
    w.tap += 30, w.tenant += 30, w.sent[0] += 30, w.arrived[0] += 30;
    add(account, &w);
    assert_true(of(account, "changed") < of(account, "at"));
    w.live = false;
    add(account, &w);
    assert_true(of(account, "changed") == of(account, "at")); /* is kept at once */
    w.lane_state = "unread";
    w.tap += 20, w.tenant += 20, w.sent[0] += 20, w.arrived[0] += 20, w.unread[0] += 20;
    add(account, &w);
    PK_JSON down = join(account, NULL);
    assert_int_equal(lost(down, "unconfirmed", "tool g/0/suricata"), 30);
    assert_int_equal(lost(down, "unread", "lane g/0"), 20);
    assert_int_equal(of(group_balance(down), "unconfirmed"), 30);
    check_sum(group_balance(down));
    /* The next life reads; the account has what both told. */
    w.lane_state = "ready", w.live = true;
    pass(&w, 0, 100);
    add(account, &w);
    w.tap += 6, w.tenant += 6, w.sent[0] += 6, w.arrived[0] += 6; /* not told yet */
    add(account, &w);
    PK_JSON up = join(account, NULL);
    const json_t *balance = group_balance(up);
    assert_int_equal(of(balance, "delivered"), 600);
    assert_int_equal(of(balance, "unconfirmed"), 30);
    assert_int_equal(of(balance, "underWay"), 6);
    assert_int_equal(of(balance, "lost"), 20);
    check_sum(balance);
    /* What the dead tool was given is told late after all: it is confirmed then. */
    w.received[0] += 6 + 12;
    add(account, &w);
    PK_JSON late = join(account, NULL);
    assert_int_equal(of(group_balance(late), "unconfirmed"), 18);
    assert_int_equal(of(group_balance(late), "underWay"), 0);
    assert_true(json_is_true(json_object_get(late, "addsUp")));
}

static void test_made_anew(void **state)
{
    (void)state;
    PK_JSON account = pk_ledger_account_new(1000);
    struct world w = new_world();
    pass(&w, 0, 500);
    pass(&w, 1, 100);
    add(account, &w);
    /* The lane and the tap are taken away and made again: their counters begin at 0. The new ones
     * may be larger than the old ones were by the next look: only their beginning tells. */
    struct world second = w;
    second.tap_began = 70, second.lane_began[0] = 80;
    second.tap = 0, second.tenant = 0, second.sent[0] = 0, second.arrived[0] = 0;
    second.tap += 900, second.tenant += 900, second.sent[0] += 900, second.arrived[0] += 900;
    second.received[0] += 900;
    PK_JSON plane_part = look(&second, 4000);
    json_t *group = json_object_get(json_object_get(plane_part, "things"), "group/g");
    json_object_set_new(json_object_get(group, "counts"), "packets", json_integer(1500));
    json_object_set_new(json_object_get(group, "counts"), "sent", json_integer(1500));
    assert_int_equal(pk_ledger_account_add(account, plane_part, NULL), 0);
    PK_JSON ledger = join(account, NULL);
    assert_int_equal(of(group_balance(ledger), "in"), 1500);
    assert_int_equal(of(group_balance(ledger), "delivered"), 1500);
    assert_int_equal(of(tap_balance(ledger), "in"), 1500);
    assert_true(json_is_true(json_object_get(ledger, "addsUp")));
    assert_int_equal(json_array_size(json_object_get(ledger, "losses")), 0);
}

/* A 32-bit counter of a driver that goes round, and one that is set to 0. */
static void test_wrap(void **state)
{
    (void)state;
    PK_JSON account = pk_ledger_account_new(1000);
    struct world w = new_world();
    w.nic_ring = 0xfffffff0;
    add(account, &w);
    w.nic_ring = 0x10;
    add(account, &w);
    PK_JSON wrapped = join(account, NULL);
    assert_int_equal(lost(wrapped, "nic-ring", "tap up"), 0x20);
    w.nic_ring = 3;
    add(account, &w);
    PK_JSON reset = join(account, NULL);
    assert_int_equal(lost(reset, "nic-ring", "tap up"), 0x23);
}

static void test_since(void **state)
{
    (void)state;
    PK_JSON account = pk_ledger_account_new(1000);
    struct world w = new_world();
    pass(&w, 0, 500);
    w.sent[0] += 50, w.tap += 50, w.tenant += 50;
    add(account, &w);
    add(account, &w);
    PK_JSON sample = pk_ledger_sample(account);
    pass(&w, 1, 70);
    w.tap += 2, w.tenant += 2, w.sent[1] += 2;
    add(account, &w);
    add(account, &w);
    PK_JSON ledger = join(account, sample);
    assert_int_equal(of(group_balance(ledger), "in"), 72);
    assert_int_equal(of(group_balance(ledger), "delivered"), 70);
    assert_int_equal(lost(ledger, "lane-ring", "lane g/1"), 2);
    assert_int_equal(lost(ledger, "lane-ring", "lane g/0"), 0);
    assert_true(json_is_true(json_object_get(ledger, "addsUp")));
}

/* What the state gives back after a restart of serve is the same account. */
static void test_account_survives_text(void **state)
{
    (void)state;
    PK_JSON account = pk_ledger_account_new(1000);
    struct world w = new_world();
    pass(&w, 0, 500);
    add(account, &w);
    PK_CLEANUP(pk_free_p) char *text = pk_json_compact(account);
    PK_JSON back = NULL;
    assert_int_equal(pk_json_parse("account", text, strlen(text), &back, NULL), 0);
    pass(&w, 0, 25);
    add(account, &w);
    add(back, &w);
    PK_JSON one = join(account, NULL);
    PK_JSON two = join(back, NULL);
    assert_true(json_equal(one, two));
    assert_int_equal(of(group_balance(two), "delivered"), 525);
}

/* Canaries are among the tool's packets and nobody else's: sums are as without them, also when one
 * is dropped, under way, or in the hands of a tool that ends. */
static void test_canaries(void **state)
{
    (void)state;
    struct world w = new_world();
    PK_JSON account = pk_ledger_account_new(1);
    add(account, &w);
    pass(&w, 0, 100);
    w.canaries[0] += 6, w.received[0] += 6;
    add(account, &w);
    PK_JSON all = join(account, NULL);
    check_sum(group_balance(all));
    assert_int_equal(of(group_balance(all), "in"), 100);
    assert_int_equal(of(group_balance(all), "delivered"), 100);
    assert_int_equal(of(group_balance(all), "underWay"), 0);
    assert_true(json_is_true(json_object_get(all, "addsUp")));
    const json_t *lane = json_array_get(
        json_object_get(json_array_get(json_object_get(all, "groups"), 0), "lanes"), 0);
    assert_int_equal(of(lane, "canaries"), 6);
    assert_int_equal(of(lane, "handed"), 100);
    const json_t *tool = json_array_get(json_object_get(lane, "tools"), 0);
    assert_int_equal(of(tool, "handed"), 100);
    assert_int_equal(of(tool, "received"), 100);
    /* The tool drops one of two; then it has not told of two more yet. */
    w.canaries[0] += 2, w.received[0] += 2, w.dropped[0] += 1;
    add(account, &w);
    PK_JSON dropped = join(account, NULL);
    check_sum(group_balance(dropped));
    assert_int_equal(of(group_balance(dropped), "unexplained"), 0);
    assert_int_equal(of(group_balance(dropped), "lost"), 1);
    w.canaries[0] += 2;
    add(account, &w);
    PK_JSON open = join(account, NULL);
    check_sum(group_balance(open));
    assert_int_equal(of(group_balance(open), "underWay"), 2);
    assert_true(json_is_true(json_object_get(open, "addsUp")));
    /* It ends, and another begins: those two it will never tell of. */
    w.ends = 1, w.given = w.arrived[0] + w.canaries[0];
    pass(&w, 0, 50);
    w.life = 50;
    w.canaries[0] += 2, w.received[0] += 2, w.life += 2;
    add(account, &w);
    PK_JSON ended = join(account, NULL);
    check_sum(group_balance(ended));
    assert_int_equal(of(group_balance(ended), "in"), 150);
    assert_int_equal(of(group_balance(ended), "unconfirmed"), 2);
    assert_int_equal(of(group_balance(ended), "underWay"), 0);
    assert_int_equal(of(group_balance(ended), "unexplained"), 0);
    assert_true(json_is_true(json_object_get(ended, "addsUp")));
}

/* Canaries on their way to a tool that has told of nothing yet: nobody's packets are under way, and
 * none is missed when it ends. */
static void test_canaries_alone(void **state)
{
    (void)state;
    struct world w = new_world();
    PK_JSON account = pk_ledger_account_new(1);
    add(account, &w);
    w.canaries[0] += 2;
    add(account, &w);
    PK_JSON open = join(account, NULL);
    check_sum(group_balance(open));
    assert_int_equal(of(group_balance(open), "delivered"), 0);
    assert_int_equal(of(group_balance(open), "underWay"), 0);
    w.ends = 1, w.given = w.arrived[0] + w.canaries[0];
    add(account, &w);
    PK_JSON ended = join(account, NULL);
    check_sum(group_balance(ended));
    assert_int_equal(of(group_balance(ended), "delivered"), 0);
    assert_int_equal(of(group_balance(ended), "unconfirmed"), 0);
    assert_int_equal(of(group_balance(ended), "underWay"), 0);
    assert_true(json_is_true(json_object_get(ended, "addsUp")));
    assert_int_equal(json_array_size(json_object_get(ended, "losses")), 0);
}

/* No tool, then one: what came before is lost as unread, not to the tool. */
static void test_lane_without_tool(void **state)
{
    (void)state;
    PK_JSON account = pk_ledger_account_new(1000);
    struct world w = new_world();
    w.no_tools = true, w.lane_state = "unread";
    w.tap = w.tenant = w.sent[0] = w.arrived[0] = w.unread[0] = 40;
    add(account, &w);
    PK_JSON before = join(account, NULL);
    assert_int_equal(of(group_balance(before), "delivered"), 0);
    assert_int_equal(lost(before, "unread", "lane g/0"), 40);
    w.no_tools = false, w.lane_state = "ready";
    pass(&w, 0, 10);
    w.received[0] -= 10;
    add(account, &w);
    w.received[0] += 10;
    add(account, &w);
    PK_JSON after = join(account, NULL);
    check_sum(group_balance(after));
    assert_true(json_is_true(json_object_get(after, "addsUp")));
    assert_int_equal(lost(after, "unread", "lane g/0"), 40);
}

/* Many random lives: whatever happens, the parts add up to the whole, and nothing is negative. */
static void test_random(void **state)
{
    (void)state;
    uint64_t seed = 42;
#define RANDOM(n) \
    ((seed = seed * 6364136223846793005u + 1442695040888963407u), (json_int_t)((seed >> 33) % (n)))
    for (int round = 0; round < 200; round++) {
        PK_JSON account = pk_ledger_account_new(1000);
        PK_JSON sample = NULL;
        struct world w = new_world();
        for (int step = 0; step < 40; step++) {
            unsigned lane = (unsigned)RANDOM(2);
            json_int_t n = RANDOM(1000);
            switch (RANDOM(7)) {
            case 0:
                w.sent[lane] += n;
                break;
            case 1:
                w.sent[lane] += n, w.arrived[lane] += n, w.unread[lane] += n;
                break;
            case 2:
                w.filtered += n;
                break;
            case 3:
                w.sent[lane] += n, w.arrived[lane] += n;
                break;
            case 4:
                w.live = !w.live;
                n = 0;
                break;
            case 5:
                w.nic_ring += n;
                n = 0;
                break;
            default:
                pass(&w, lane, n);
                w.dropped[lane] += n / 3;
                n = 0;
                break;
            }
            w.tap += n, w.tenant += n;
            add(account, &w);
            if (step == 20)
                sample = pk_ledger_sample(account);
        }
        add(account, &w);
        for (int since = 0; since < 2; since++) {
            PK_JSON ledger = join(account, since ? sample : NULL);
            check_sum(group_balance(ledger));
            check_sum(tap_balance(ledger));
            assert_true(json_is_true(json_object_get(ledger, "addsUp")));
            assert_int_equal(of(group_balance(ledger), "unexplained"), 0);
        }
    }
}

static void test_every_reason_is_explained(void **state)
{
    (void)state;
    for (unsigned i = 1; i < PK_REASON_COUNT; i++)
        if (pk_ledger_cause(pk_reason_name(i)) == NULL)
            fail_msg("reason %s has no row in ledger_causes.c", pk_reason_name(i));
    size_t count = 0;
    const struct pk_ledger_row *rows = pk_ledger_rows(&count);
    for (size_t i = 0; i < count; i++) {
        bool told = rows[i].role != PK_LEDGER_IN && rows[i].role != PK_LEDGER_OUT;
        assert_int_equal(told, rows[i].cause[0] != '\0');
        if (told)
            assert_true(rows[i].text[0] != '\0' && rows[i].remedy[0] != '\0');
        for (size_t j = 0; j < i; j++)
            if (told)
                assert_string_not_equal(rows[i].cause, rows[j].cause);
    }
}

#define TABLE_BEGIN "<!-- causes: written by the test 'ledger' with PK_UPDATE=1 -->\n"
#define TABLE_END   "<!-- end of causes -->"

static void put_causes(struct pk_buf *buf)
{
    static const struct {
        enum pk_ledger_role role;
        const char *title;
    } parts[] = { { PK_LEDGER_LOSS, "Lost" },
                  { PK_LEDGER_CHOICE, "Left out on purpose" },
                  { PK_LEDGER_NOTE, "Worth knowing, in no sum" } };
    size_t count = 0;
    const struct pk_ledger_row *rows = pk_ledger_rows(&count);
    for (size_t part = 0; part < PK_ARRAY_SIZE(parts); part++) {
        (void)pk_buf_printf(buf, "\n### %s\n\n| cause | place | what happened | what to do |\n",
                            parts[part].title);
        (void)pk_buf_puts(buf, "|---|---|---|---|\n");
        for (size_t i = 0; i < count; i++)
            if (rows[i].role == parts[part].role)
                (void)pk_buf_printf(buf, "| <a id=\"%s\"></a>`%s` | %s | %s | %s |\n",
                                    rows[i].cause, rows[i].cause, rows[i].place, rows[i].text,
                                    rows[i].remedy);
    }
    (void)pk_buf_putc(buf, '\n');
}

/* The manual's table of causes is this one. */
static void test_every_cause_is_in_the_manual(void **state)
{
    (void)state;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/docs/ledger.md", getenv("PICKET_SOURCE"));
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(pk_file_read(path, 1 << 20, &text, &len, NULL), 0);
    char *begin = strstr(text, TABLE_BEGIN), *end = strstr(text, TABLE_END);
    assert_true(begin != NULL && end > begin);
    struct pk_buf made = PK_BUF_INIT(1 << 20);
    (void)pk_buf_add(&made, text, (size_t)(begin - text) + strlen(TABLE_BEGIN));
    put_causes(&made);
    (void)pk_buf_puts(&made, end);
    assert_false(made.failed);
    if (getenv("PK_UPDATE") != NULL)
        assert_int_equal(pk_file_write(path, made.data, made.len, 0644, NULL), 0);
    else
        assert_string_equal(text, made.data);
    pk_buf_done(&made);
    pk_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canaries),
        cmocka_unit_test(test_canaries_alone),
        cmocka_unit_test(test_all_delivered),
        cmocka_unit_test(test_each_loss_has_its_place),
        cmocka_unit_test(test_what_does_not_add_up_is_told),
        cmocka_unit_test(test_gaps_do_not_cancel),
        cmocka_unit_test(test_tool_restart),
        cmocka_unit_test(test_made_anew),
        cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_since),
        cmocka_unit_test(test_account_survives_text),
        cmocka_unit_test(test_lane_without_tool),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_every_reason_is_explained),
        cmocka_unit_test(test_every_cause_is_in_the_manual),
    };
    return cmocka_run_group_tests_name("fleet/ledger", tests, NULL, NULL);
}
