/* SPDX-License-Identifier: Apache-2.0 */
/* Inline taps and lanes as calls and plane.json name them. */
#include "pk_test.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/json.h"
#include "node/internal.h"

#define TAP                                                                              \
    "{\"fleet\":\"f\",\"name\":\"wan\",\"spec\":{\"kind\":\"inline\",\"interface\":"     \
    "\"eth2\",\"inline\":{\"interface\":\"eth3\",\"failure\":\"closed\",\"failAfterMs\"" \
    ":150},\"groups\":[{\"name\":\"ips\"}]},\"before\":{\"ifindex\":7,\"promisc\":true," \
    "\"up\":true,\"offloads\":[\"gro\"]},\"otherBefore\":{\"ifindex\":8,\"promisc\":"    \
    "false,\"up\":false,\"offloads\":[]}}"
#define LANES                                                                               \
    "{\"fleet\":\"f\",\"group\":\"ips\",\"index\":0,\"spec\":{\"mtu\":0,\"inline\":true}}," \
    "{\"fleet\":\"f\",\"group\":\"ips\",\"index\":1,\"spec\":{\"mtu\":0,\"inline\":{"       \
    "\"interfaces\":[\"eth2\",\"eth3\"]}}},"                                                \
    "{\"fleet\":\"f\",\"group\":\"ids\",\"index\":0,\"spec\":{\"mtu\":0}}"
#define PLANE "{\"version\":2,\"lanes\":[" LANES "],\"groups\":[],\"taps\":[" TAP "]}"

static void test_read_and_write_back(void **state)
{
    (void)state;
    struct pk_plane plane = { 0 };
    struct pk_error err = { 0 };
    if (pk_node_plane_parse("pk3f2a", "plane.json", PLANE, strlen(PLANE), &plane, &err) < 0)
        fail_msg("%s", err.msg);
    const struct pk_tap *tap = pk_node_plane_tap(&plane, "f", "wan");
    assert_int_equal(tap->kind, PK_TAP_INLINE);
    assert_string_equal(tap->interface, "eth2");
    assert_string_equal(tap->other.interface, "eth3");
    assert_true(tap->other.closed);
    assert_int_equal(tap->other.fail_after_ms, 150);
    assert_int_equal(tap->before.ifindex, 7);
    assert_int_equal(tap->other.before.ifindex, 8);
    assert_false(tap->other.before.up);
    const struct pk_lane *lane = pk_node_plane_lane(&plane, "f/ips/1");
    assert_true(lane->is_inline);
    assert_string_equal(lane->fits[1], "eth3");
    assert_string_not_equal(lane->link_name, lane->second.link_name);
    assert_true(pk_node_plane_lane(&plane, "f/ips/0")->is_inline);
    assert_false(pk_node_plane_lane(&plane, "f/ids/0")->is_inline);
    PK_JSON json = pk_node_plane_to_json(&plane);
    PK_JSON want = json_loads(PLANE, 0, NULL);
    assert_true(json_equal(json, want));

    /* An interface belongs to one tap, whichever of the two it is. */
    static const char *const taken[] = {
        "{\"kind\":\"interface\",\"interface\":\"eth3\",\"group\":\"ids\"}",
        "{\"kind\":\"inline\",\"interface\":\"eth9\",\"inline\":{\"interface\":\"eth2\"},"
        "\"group\":\"b\"}",
        "{\"kind\":\"inline\",\"interface\":\"eth3\",\"inline\":{\"interface\":\"eth9\"},"
        "\"group\":\"b\"}",
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(taken); i++) {
        PK_JSON body = json_loads(taken[i], 0, NULL);
        struct pk_tap *other = NULL;
        if (pk_tap_parse("pk3f2a", "f", "other", body, &other, &err) < 0)
            fail_msg("%s", err.msg);
        assert_int_equal(pk_node_plane_add_tap_take(&plane, other, &err), PK_E_CONFLICT);
        pk_tap_free(other);
    }
    pk_node_plane_done(&plane);
}

static void check_tap(const char *interface, const char *pair, const char *rest, const char *fault)
{
    char text[512];
    (void)snprintf(text, sizeof(text), "{\"kind\":\"inline\",\"interface\":%s,\"inline\":%s,%s}",
                   interface, pair, rest);
    PK_JSON body = json_loads(text, 0, NULL);
    struct pk_tap *tap = NULL;
    struct pk_error err = { 0 };
    assert_non_null(body);
    int r = pk_tap_parse("pk3f2a", "f", "wan", body, &tap, &err);
    if (fault == NULL) {
        if (r < 0)
            fail_msg("%s: %s", text, err.msg);
        pk_tap_free(tap);
    } else if (r >= 0 || strstr(err.msg, fault) == NULL) {
        fail_msg("%s: %s", text, r >= 0 ? "accepted" : err.msg);
    }
}

static void test_taps(void **state)
{
    (void)state;
    const char *a = "\"eth2\"", *b = "{\"interface\":\"eth3\"}",
               *g = "\"groups\":[{\"name\":\"g\"}]";
    check_tap(a, b, g, NULL);
    check_tap(a, b, "\"groups\":[{\"name\":\"g\"}],\"tenants\":[]", NULL);
    check_tap(a, "{\"interface\":\"eth3\",\"failure\":\"open\",\"failAfterMs\":60000}", g, NULL);
    check_tap(a, "{\"interface\":\"eth2\"}", g, "both sides");
    check_tap(a, "{\"interface\":\"\"}", g, "no name of an interface");
    check_tap(a, "{\"interface\":\"eth3/../x\"}", g, "no name of an interface");
    check_tap(a, "{\"interface\":\"a-name-that-is-too-long\"}", g, "no name of an interface");
    check_tap(a, "{\"interface\":7}", g, "no name of an interface");
    check_tap("7", b, g, "interface");
    check_tap(a, "null", g, "not an object");
    check_tap(a, "{}", g, "no name of an interface");
    check_tap(a, "{\"interface\":\"eth3\",\"mode\":1}", g, "unknown key 'mode'");
    check_tap(a, "{\"interface\":\"eth3\",\"failure\":\"OPEN\"}", g, "neither open nor closed");
    check_tap(a, "{\"interface\":\"eth3\",\"failure\":null}", g, "neither open nor closed");
    check_tap(a, "{\"interface\":\"eth3\",\"failAfterMs\":49}", g, "failAfterMs");
    check_tap(a, "{\"interface\":\"eth3\",\"failAfterMs\":60001}", g, "failAfterMs");
    check_tap(a, "{\"interface\":\"eth3\",\"failAfterMs\":\"200\"}", g, "failAfterMs");
    check_tap(a, b, "\"groups\":[{\"name\":\"g\"},{\"name\":\"h\"}]", "one group");
    check_tap(a, b, "\"groups\":[{\"name\":\"g\",\"filter\":\"tcp\"}]", "filter");
    check_tap(a, b, "\"groups\":[{\"name\":\"g\"}],\"tenants\":[{\"name\":\"lab\"}]", "tenants");
}

static void check_lane(const char *value, const char *fault)
{
    char text[256];
    (void)snprintf(text, sizeof(text), "{\"mtu\":0,\"inline\":%s}", value);
    PK_JSON body = json_loads(text, 0, NULL);
    struct pk_lane *lane = NULL;
    struct pk_error err = { 0 };
    int r = pk_lane_parse("pk3f2a", "f", "g", 0, body, &lane, &err);
    if (fault == NULL && r < 0)
        fail_msg("%s: %s", text, err.msg);
    if (fault != NULL && (r >= 0 || lane != NULL || strstr(err.msg, fault) == NULL))
        fail_msg("%s: %s", text, r >= 0 ? "accepted" : err.msg);
    pk_lane_free(lane);
}

static void test_lanes(void **state)
{
    (void)state;
    check_lane("true", NULL);
    check_lane("false", NULL);
    check_lane("{\"interfaces\":[\"eth2\",\"eth3\"]}", NULL);
    check_lane("null", "not an object");
    check_lane("1", "not an object");
    check_lane("{}", "list of two");
    check_lane("{\"interfaces\":[\"eth2\"]}", "list of two");
    check_lane("{\"interfaces\":[\"eth2\",\"eth3\",\"eth4\"]}", "list of two");
    check_lane("{\"interfaces\":[\"eth2\",5]}", "no name of an interface");
    check_lane("{\"interfaces\":[\"eth2\",\"a b\"]}", "no name of an interface");
    check_lane("{\"interface\":[\"eth2\",\"eth3\"]}", "unknown key");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_and_write_back),
        cmocka_unit_test(test_taps),
        cmocka_unit_test(test_lanes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
