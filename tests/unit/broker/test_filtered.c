/* SPDX-License-Identifier: Apache-2.0 */
/* Filters of a tap's groups, with real packets: each group gets those that its filter passes, and
 * no others; also while filters change. */
#include "pk_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "expressions.h"
#include "packet/flow.h"
#include "packet/parse.h"
#include "plane.h"

#define GROUPS 6u

static struct pk_error err;

static void attach(struct plane *plane, struct pk_filter *const filters[GROUPS])
{
    struct pk_broker_target targets[GROUPS];
    char keys[GROUPS][16];
    for (unsigned i = 0; i < GROUPS; i++) {
        snprintf(keys[i], sizeof keys[i], "f/g%u", i);
        targets[i] = (struct pk_broker_target){ .group_key = keys[i], .filter = filters[i] };
    }
    enum pk_xdp_mode mode;
    const struct pk_broker_tap_config config = { .targets = targets, .target_count = GROUPS };
    if (pk_broker_tap_attach(plane->broker, "f/t", plane->tap, &config, &mode, &err) < 0)
        fail_msg("%s (%s)", err.msg, err.hint);
}

static struct pk_filter *random_filter(struct frames_rng *rng, char text[EXPRESSION_ROOM])
{
    for (;;) {
        struct pk_filter *filter = NULL;
        bool fields = frames_below(rng, 2);
        if (fields)
            expression_fields(rng, text);
        else
            expression_random(rng, text);
        json_t *value = fields ? json_loads(text, 0, NULL) : json_string(text);
        assert_non_null(value);
        int r = pk_filter_compile(value, &filter, NULL, &err);
        json_decref(value);
        if (r >= 0)
            return filter;
    }
}

/* A frame with its number at its end, which no filter made here looks at. */
static size_t numbered_frame(struct frames_rng *rng, uint8_t *frame, uint32_t number)
{
    size_t len = expression_frame(rng, frame);
    memset(frame + len, 0, 80);
    len += 72 + PLANE_TRAILER;
    plane_number(frame, len, number);
    return len;
}

static void each_group_gets_what_it_wants(void **state)
{
    (void)state;
    enum { ROUNDS = 12, FRAMES = 250 };
    static struct plane plane;
    struct frames_rng rng = { 77 };
    plane_up(&plane, GROUPS, 1, 3600);
    uint64_t sent = 0, bytes = 0, passed[GROUPS] = { 0 }, all = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        static char texts[GROUPS][EXPRESSION_ROOM];
        struct pk_filter *filters[GROUPS] = { 0 };
        for (unsigned i = 1; i < GROUPS; i++) /* the first one has none */
            filters[i] = random_filter(&rng, texts[i]);
        attach(&plane, filters);
        plane_forget(&plane);
        bool want[GROUPS][FRAMES];
        for (unsigned number = 0; number < FRAMES; number++) {
            uint8_t frame[ENCAP_ROOM + 80];
            struct pk_flow flow;
            size_t len = numbered_frame(&rng, frame, number);
            pk_flow_parse(frame, len, PK_HASH_FLOW, &flow);
            for (unsigned i = 0; i < GROUPS; i++) {
                want[i][number] =
                    filters[i] == NULL || pk_filter_match(filters[i], frame, len, &flow);
                passed[i] += want[i][number];
                all += want[i][number];
            }
            struct pk_broker_decision decision;
            assert_int_equal(pk_broker_decide(plane.broker, "f/t", frame, len, &decision, &err), 0);
            assert_int_equal(decision.count, GROUPS);
            for (unsigned i = 0; i < GROUPS; i++)
                assert_int_equal(decision.targets[i].filtered, !want[i][number]);
            assert_int_equal(net_send(plane.sender, frame, len), 0);
            sent++;
            bytes += len;
            if (number % 50 == 49)
                plane_receive(&plane);
        }
        plane_receive(&plane);
        for (unsigned i = 0; i < GROUPS; i++)
            for (unsigned number = 0; number < FRAMES; number++)
                if (plane_got(&plane, i, number) != want[i][number])
                    fail_msg("round %u, group %u (%s): has packet %u %u times", round, i,
                             filters[i] != NULL ? texts[i] : "no filter", number,
                             plane_got(&plane, i, number));
        for (unsigned i = 0; i < GROUPS; i++)
            pk_filter_free(filters[i]); /* the broker keeps what it needs */
    }
    assert_int_equal(plane.foreign, 0);
    for (unsigned i = 0; i < GROUPS; i++) {
        plane_sums(&plane, i, sent, bytes);
        assert_int_equal(plane_count(&plane, i, "sent"), passed[i]);
        assert_int_equal(plane_count(&plane, i, "filtered"), sent - passed[i]);
    }
    print_message("# %llu packets, %llu copies\n", (unsigned long long)sent,
                  (unsigned long long)all);
    assert_true(all > sent * 2 && all < sent * (GROUPS - 1));
    plane_down(&plane);
}

/* ---- while packets flow ---- */

#define SENT_MAX 30000u /* the readers' sockets have room for them */

static _Atomic bool stop;
static _Atomic uint32_t numbers;

static void *send_all(void *arg)
{
    struct plane *plane = arg;
    while (!stop && numbers < SENT_MAX) {
        uint8_t frame[200];
        net_frame(frame, sizeof frame, 17, 0x0a000001, 0x0a000002, 7000, 53);
        plane_number(frame, sizeof frame, numbers);
        if (net_send(plane->sender, frame, sizeof frame) == 0)
            numbers++;
        usleep(20);
    }
    return NULL;
}

/* The first group's filter always passes and is another each time: not a packet is missing there.
 * The last one's never does. */
static void changes_lose_nothing(void **state)
{
    (void)state;
    static struct plane plane;
    plane_up(&plane, GROUPS, 1, 1500);
    struct pk_filter *filters[GROUPS] = { 0 };
    assert_int_equal(pk_filter_compile_text("tcp", &filters[GROUPS - 1], &err), 0);
    attach(&plane, filters);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_all, &plane), 0);
    unsigned changes = 0;
    for (unsigned i = 0; i < 25; i++) {
        char text[64];
        snprintf(text, sizeof text, "udp and not port %u", 100 + i);
        pk_filter_free(filters[0]);
        filters[0] = NULL;
        if (i % 3 != 0)
            assert_int_equal(pk_filter_compile_text(text, &filters[0], &err), 0);
        attach(&plane, filters);
        changes += numbers < SENT_MAX;
        usleep(5000);
    }
    stop = true;
    pthread_join(thread, NULL);
    plane_receive(&plane);
    uint32_t sent = numbers;
    for (uint32_t i = 0; i < sent; i++) {
        if (plane_got(&plane, 0, i) != 1)
            fail_msg("packet %u of %u came %u times", i, sent, plane_got(&plane, 0, i));
        assert_int_equal(plane_got(&plane, GROUPS - 1, i), 0);
    }
    plane_sums(&plane, 0, sent, UINT64_MAX);
    plane_sums(&plane, GROUPS - 1, sent, UINT64_MAX);
    assert_int_equal(plane_count(&plane, GROUPS - 1, "filtered"), sent);
    assert_true(changes >= 5);
    print_message("# %u packets, %u changes while they flowed\n", sent, changes);
    pk_filter_free(filters[0]);
    pk_filter_free(filters[GROUPS - 1]);
    plane_down(&plane);
}

/* One that has no room: an error that names the group; what runs goes on. */
static void too_large_is_refused(void **state)
{
    (void)state;
    static struct plane plane;
    plane_up(&plane, GROUPS, 1, 1500);
    struct pk_filter *filters[GROUPS] = { 0 };
    attach(&plane, filters);
    json_t *list = json_array(), *value = json_pack("{s:o}", "prefixes", list);
    for (unsigned i = 0; i < PK_FILTER_LIST_MAX; i++) {
        char text[64];
        snprintf(text, sizeof text, "2001:db8:%x::/48", i);
        json_array_append_new(list, json_string(text));
    }
    struct pk_filter *large = NULL;
    assert_int_equal(pk_filter_compile(value, &large, NULL, &err), 0);
    json_decref(value);
    struct pk_broker_target targets[GROUPS];
    char keys[GROUPS][16];
    for (unsigned i = 0; i < GROUPS; i++) {
        snprintf(keys[i], sizeof keys[i], "f/g%u", i);
        targets[i] = (struct pk_broker_target){ .group_key = keys[i], .filter = large };
    }
    enum pk_xdp_mode mode;
    const struct pk_broker_tap_config config = { .targets = targets, .target_count = GROUPS };
    assert_int_equal(pk_broker_tap_attach(plane.broker, "f/t", plane.tap, &config, &mode, &err),
                     PK_E_NOSPACE);
    assert_non_null(strstr(err.msg, "f/g"));
    assert_true(err.hint[0] != '\0');
    pk_filter_free(large);
    uint8_t frame[200];
    net_frame(frame, sizeof frame, 17, 0x0a000001, 0x0a000002, 7000, 53);
    plane_number(frame, sizeof frame, 3);
    assert_int_equal(net_send(plane.sender, frame, sizeof frame), 0);
    plane_receive(&plane);
    assert_int_equal(plane_got(&plane, GROUPS - 1, 3), 1);
    plane_down(&plane);
}

int main(void)
{
    if (!net_begin())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_group_gets_what_it_wants),
        cmocka_unit_test(changes_lose_nothing),
        cmocka_unit_test(too_large_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
