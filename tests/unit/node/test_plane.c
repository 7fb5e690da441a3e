/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pk_test.h"

#include "base/buf.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "node/internal.h"

#define GOOD                                                                                        \
    "{\"version\":2,"                                                                               \
    "\"lanes\":[{\"fleet\":\"demo\",\"group\":\"ids\",\"index\":0,\"spec\":{\"mtu\":1500}},"        \
    "{\"fleet\":\"demo\",\"group\":\"ids\",\"index\":1,\"spec\":{\"mtu\":9000},\"drained\":true}]," \
    "\"groups\":[{\"fleet\":\"demo\",\"name\":\"ids\",\"spec\":{\"lanes\":["                        \
    "{\"index\":0,\"weight\":1},{\"index\":1,\"weight\":3}],\"hash\":\"flow\","                     \
    "\"tenant\":\"lab\",\"priority\":50,\"drain\":{\"deadlineMs\":5000},\"rebalance\":\"off\"}}],"  \
    "\"taps\":[{\"fleet\":\"demo\",\"name\":\"up\",\"spec\":{\"kind\":\"interface\","               \
    "\"interface\":\"ens2f0\",\"groups\":[{\"name\":\"ids\",\"tenant\":\"lab\","                    \
    "\"filter\":\"not port 9200\"},{\"name\":\"rest\"}],\"tenants\":[{\"name\":\"lab\","            \
    "\"vlans\":[110,\"100.200\"],\"vnis\":[0,16777215],\"greKeys\":[4294967295],"                   \
    "\"erspanSessions\":[1023],\"prefixes\":[\"10.20.0.0/16\",\"2001:db8::/32\"]},"                 \
    "{\"name\":\"all\"}]},\"before\":{\"ifindex\":7,\"promisc\":true,"                              \
    "\"up\":false,\"offloads\":[\"gro\",\"rx-vlan-offload\"]}},"                                    \
    "{\"fleet\":\"demo\",\"name\":\"files\",\"spec\":{\"kind\":\"replay\",\"mtu\":1500,"            \
    "\"groups\":[{\"name\":\"ids\"}]}}]}"

static int parse(const char *text, struct pk_plane *plane, struct pk_error *err)
{
    return pk_node_plane_parse("pk3f2a", "plane.json", text, strlen(text), plane, err);
}

static void test_read_and_write_back(void **state)
{
    (void)state;
    struct pk_plane plane = { 0 };
    struct pk_error err = { 0 };
    assert_int_equal(parse(GOOD, &plane, &err), 0);
    assert_int_equal(plane.lane_count, 2);
    const struct pk_lane *lane = pk_node_plane_lane(&plane, "demo/ids/1");
    assert_non_null(lane);
    assert_int_equal(lane->mtu, 9000);
    assert_string_equal(lane->netns_path, "/run/netns/pk3f2a-demo-ids-1");
    assert_int_equal(lane->netns.fd, -1);
    assert_int_equal(pk_node_plane_group(&plane, "demo", "ids")->shares[1].weight, 3);
    assert_int_equal(pk_node_plane_group(&plane, "demo", "ids")->hash, PK_HASH_FLOW);
    const struct pk_tap *tap = pk_node_plane_tap(&plane, "demo", "up");
    assert_int_equal(tap->before.ifindex, 7);
    assert_true(tap->before.promisc);
    assert_false(tap->before.up);
    assert_int_equal(tap->before.offloads, PK_OFFLOAD_GRO | PK_OFFLOAD_RX_VLAN);
    const struct pk_targets *targets = &tap->targets;
    assert_int_equal(targets->target_count, 2);
    assert_string_equal(targets->target_list[0].group_key, "demo/ids");
    assert_string_equal(targets->target_list[0].tenant, "lab");
    assert_string_equal(targets->target_list[1].group_key, "demo/rest");
    assert_null(targets->target_list[1].tenant);
    assert_int_equal(targets->tenant_count, 2);
    const struct pk_broker_tenant *lab = &targets->tenant_list[0];
    assert_string_equal(lab->name, "lab");
    assert_int_equal(lab->vlan_count, 2);
    assert_int_equal(lab->vlans[0].outer, 110);
    assert_int_equal(lab->vlans[0].inner, -1);
    assert_int_equal(lab->vlans[1].outer, 100);
    assert_int_equal(lab->vlans[1].inner, 200);
    assert_int_equal(lab->vni_count, 2);
    assert_int_equal(lab->vnis[1], 16777215);
    assert_true(lab->gre_keys[0] == 4294967295u);
    assert_int_equal(lab->erspan_sessions[0], 1023);
    assert_int_equal(lab->prefix_count, 2);
    assert_int_equal(lab->prefixes[0].family, 4);
    assert_int_equal(lab->prefixes[0].length, 16);
    assert_memory_equal(lab->prefixes[0].address, "\x0a\x14\0\0", 4);
    assert_int_equal(lab->prefixes[1].family, 6);
    assert_true(pk_targets_have(targets, "rest"));
    assert_false(pk_targets_have(targets, "lab"));
    assert_string_equal(pk_node_plane_group(&plane, "demo", "ids")->tenant, "lab");
    assert_int_equal(pk_node_plane_group(&plane, "demo", "ids")->priority, 50);
    assert_int_equal(pk_node_plane_tap(&plane, "demo", "files")->kind, PK_TAP_REPLAY);
    json_t *json = pk_node_plane_to_json(&plane);
    json_t *want = json_loads(GOOD, 0, NULL);
    assert_true(json_equal(json, want));
    json_decref(json);
    json_decref(want);
    pk_node_plane_done(&plane);
    assert_int_equal(plane.lane_count, 0);
}

/* What an agent before this one wrote: a tap had one group. */
static void test_version_1(void **state)
{
    (void)state;
    struct pk_plane plane = { 0 };
    struct pk_error err = { 0 };
    assert_int_equal(
        parse("{\"version\":1,\"lanes\":[],\"groups\":[{\"fleet\":\"f\",\"name\":\"g\","
              "\"spec\":{\"lanes\":[{\"index\":0}]}}],\"taps\":[{\"fleet\":\"f\","
              "\"name\":\"t\",\"spec\":{\"kind\":\"interface\",\"interface\":\"e0\","
              "\"group\":\"g\"}}]}",
              &plane, &err),
        0);
    const struct pk_targets *targets = &pk_node_plane_tap(&plane, "f", "t")->targets;
    assert_int_equal(targets->target_count, 1);
    assert_int_equal(targets->tenant_count, 0);
    assert_string_equal(targets->target_list[0].group_key, "f/g");
    assert_null(targets->target_list[0].tenant);
    assert_string_equal(pk_node_plane_group(&plane, "f", "g")->tenant, "");
    assert_int_equal(pk_node_plane_group(&plane, "f", "g")->priority, 100);
    PK_JSON json = pk_node_plane_to_json(&plane);
    assert_int_equal(json_integer_value(json_object_get(json, "version")), 2);
    PK_CLEANUP(pk_free_p) char *text = pk_json_compact(json);
    assert_non_null(strstr(text, "\"groups\":[{\"name\":\"g\"}]"));
    assert_null(strstr(text, "\"group\":"));
    pk_node_plane_done(&plane);
}

static void test_every_cut_of_the_file_is_refused(void **state)
{
    (void)state;
    for (size_t len = 0; len < strlen(GOOD); len++) {
        struct pk_plane plane = { .lane_count = 4711 };
        struct pk_error err = { 0 };
        int r = pk_node_plane_parse("pk3f2a", "plane.json", GOOD, len, &plane, &err);
        assert_true(r < 0);
        assert_int_equal(plane.lane_count, 4711);
        assert_true(err.msg[0] != '\0');
    }
}

/* A file with one list changed; the other two are empty. */
static void check_refused(const char *list, const char *item)
{
    char text[2048];
    struct pk_error err = { 0 };
    struct pk_plane plane;
    (void)snprintf(text, sizeof(text),
                   "{\"version\":1,\"lanes\":[%s],\"groups\":[%s],\"taps\":[%s]}",
                   strcmp(list, "lanes") == 0 ? item : "", strcmp(list, "groups") == 0 ? item : "",
                   strcmp(list, "taps") == 0 ? item : "");
    int r = parse(text, &plane, &err);
    if (r >= 0)
        fail_msg("accepted: %s", item);
    assert_non_null(strstr(err.msg, list)); /* says where */
}

static void test_hostile_content_is_refused(void **state)
{
    (void)state;
    struct pk_plane plane;
    struct pk_error err = { 0 };
    assert_true(parse("null", &plane, &err) < 0);
    assert_true(parse("{}", &plane, &err) < 0);
    assert_true(parse("{\"version\":3,\"lanes\":[],\"groups\":[],\"taps\":[]}", &plane, &err) < 0);
    assert_true(parse("{\"version\":1,\"lanes\":{},\"groups\":[],\"taps\":[]}", &plane, &err) < 0);
    assert_true(
        parse("{\"version\":1,\"lanes\":[],\"groups\":[],\"taps\":[],\"x\":1}", &plane, &err) < 0);

    check_refused("lanes", "null");
    check_refused("lanes", "{}");
    check_refused("lanes", "{\"fleet\":5,\"group\":\"g\",\"index\":0,\"spec\":{}}");
    check_refused("lanes", "{\"fleet\":\"../x\",\"group\":\"g\",\"index\":0,\"spec\":{}}");
    check_refused("lanes", "{\"fleet\":\"f\",\"group\":\"a/b\",\"index\":0,\"spec\":{}}");
    check_refused("lanes", "{\"fleet\":\"f\",\"group\":\"\",\"index\":0,\"spec\":{}}");
    check_refused("lanes", "{\"fleet\":\"f\",\"group\":\"g\",\"index\":-1,\"spec\":{}}");
    check_refused("lanes", "{\"fleet\":\"f\",\"group\":\"g\",\"index\":1e3,\"spec\":{}}");
    check_refused("lanes", "{\"fleet\":\"f\",\"group\":\"g\",\"index\":5000,\"spec\":{}}");
    check_refused("lanes", "{\"fleet\":\"f\",\"group\":\"g\",\"index\":0,\"spec\":null}");
    check_refused("lanes", "{\"fleet\":\"f\",\"group\":\"g\",\"index\":0}");
    check_refused("lanes", "{\"fleet\":\"f\",\"group\":\"g\",\"index\":0,\"spec\":{\"mtu\":68}}");
    check_refused("lanes",
                  "{\"fleet\":\"f\",\"group\":\"g\",\"index\":0,\"spec\":{\"mtu\":4294967297}}");
    check_refused("lanes", "{\"fleet\":\"f\",\"group\":\"g\",\"index\":0,\"spec\":{\"mtv\":1500}}");
    check_refused("lanes", "{\"fleet\":\"f\",\"group\":\"g\",\"index\":0,\"spec\":{}},"
                           "{\"fleet\":\"f\",\"group\":\"g\",\"index\":0,\"spec\":{}}");
    /* two lanes, one name */
    check_refused("lanes", "{\"fleet\":\"a-b\",\"group\":\"c\",\"index\":0,\"spec\":{}},"
                           "{\"fleet\":\"a\",\"group\":\"b-c\",\"index\":0,\"spec\":{}}");

    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[]}}");
    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[0]}}");
    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[{\"index\":0,"
                            "\"weight\":0}]}}");
    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[{\"index\":0,"
                            "\"weight\":99999}]}}");
    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[{\"index\":0},"
                            "{\"index\":0}]}}");

    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[{\"index\":0}],"
                            "\"hash\":\"inner\"}}");
    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[{\"index\":0}],"
                            "\"hash\":1}}");
    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[{\"index\":0}],"
                            "\"drain\":{\"deadlineMs\":3600001}}}");
    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[{\"index\":0}],"
                            "\"drain\":{\"deadline\":1}}}");
    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[{\"index\":0}],"
                            "\"rebalance\":true}}");
    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[{\"index\":0}],"
                            "\"canary\":{\"everyMs\":999}}}");
    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[{\"index\":0}],"
                            "\"canary\":{\"everyMs\":3600001}}}");
    check_refused("groups", "{\"fleet\":\"f\",\"name\":\"g\",\"spec\":{\"lanes\":[{\"index\":0}],"
                            "\"canary\":\"off\"}}");

    check_refused("taps", "{\"fleet\":\"f\",\"name\":\"t\",\"spec\":{\"kind\":\"replay\"}}");
    check_refused("taps", "{\"fleet\":\"f\",\"name\":\"t\",\"spec\":{\"kind\":\"magic\","
                          "\"group\":\"g\"}}");
    check_refused("taps", "{\"fleet\":\"f\",\"name\":\"t\",\"spec\":{\"kind\":\"interface\","
                          "\"group\":\"g\"}}");
    check_refused("taps", "{\"fleet\":\"f\",\"name\":\"t\",\"spec\":{\"kind\":\"interface\","
                          "\"interface\":\"../../etc\",\"group\":\"g\"}}");
    check_refused("taps", "{\"fleet\":\"f\",\"name\":\"t\",\"spec\":{\"kind\":\"interface\","
                          "\"interface\":\"e\\u0000x\",\"group\":\"g\"}}");
    check_refused("taps", "{\"fleet\":\"f\",\"name\":\"t\",\"spec\":{\"kind\":\"interface\","
                          "\"interface\":\"eth0\",\"mtu\":1500,\"group\":\"g\"}}");
    check_refused("taps", "{\"fleet\":\"f\",\"name\":\"t\",\"spec\":{\"kind\":\"interface\","
                          "\"interface\":\"eth0\",\"group\":\"g\"},\"before\":{\"ifindex\":0}}");
    check_refused("taps", "{\"fleet\":\"f\",\"name\":\"t\",\"spec\":{\"kind\":\"interface\","
                          "\"interface\":\"eth0\",\"group\":\"g\"},\"before\":{\"ifindex\":1,"
                          "\"offloads\":[\"warp\"]}}");
    /* one interface, two taps */
    check_refused("taps", "{\"fleet\":\"f\",\"name\":\"t\",\"spec\":{\"kind\":\"interface\","
                          "\"interface\":\"eth0\",\"group\":\"g\"}},"
                          "{\"fleet\":\"f\",\"name\":\"u\",\"spec\":{\"kind\":\"interface\","
                          "\"interface\":\"eth0\",\"group\":\"g\"}}");
}

/* A replay tap with this as groups and tenants. */
static void check_targets(const char *groups, const char *tenants, const char *fault)
{
    PK_CLEANUP(pk_free_p)
    char *text = pk_asprintf("{\"kind\":\"replay\",\"groups\":%s,\"tenants\":%s}", groups, tenants);
    PK_JSON body = json_loads(text, JSON_ALLOW_NUL, NULL);
    struct pk_tap *tap = NULL;
    struct pk_error err = { 0 };
    assert_non_null(body);
    int r = pk_tap_parse("pk3f2a", "f", "t", body, &tap, &err);
    if (fault == NULL) {
        if (r < 0)
            fail_msg("%s: %s", text, err.msg);
        pk_tap_free(tap);
        return;
    }
    if (r >= 0 || tap != NULL)
        fail_msg("accepted: %s", text);
    if (strstr(err.msg, fault) == NULL)
        fail_msg("%s: %s", text, err.msg);
}

static void test_targets(void **state)
{
    (void)state;
    const char *one = "[{\"name\":\"g\"}]", *lab = "[{\"name\":\"lab\",\"vlans\":[1]}]";
    check_targets(one, "[]", NULL);
    check_targets("[]", "[]", "1 to");
    check_targets("{}", "[]", "1 to");
    check_targets("[5]", "[]", "not an object");
    check_targets("[{}]", "[]", "no name for a group");
    check_targets("[{\"name\":\"../g\"}]", "[]", "no name for a group");
    check_targets("[{\"name\":\"g\"},{\"name\":\"g\"}]", "[]", "twice");
    check_targets("[{\"name\":\"g\",\"tenants\":\"lab\"}]", lab, "unknown key 'tenants'");
    check_targets("[{\"name\":\"g\",\"tenant\":\"lap\"}]", lab, "no tenant 'lap'");
    check_targets("[{\"name\":\"g\",\"tenant\":\"lab\"}]", lab, NULL);
    check_targets("[{\"name\":\"g\",\"tenant\":5}]", lab, "'tenant' must be a text");
    check_targets("[{\"name\":\"g\",\"filter\":\"\"}]", "[]", "group g: the filter is empty");
    check_targets("[{\"name\":\"g\",\"filter\":\"prot 80\"}]", "[]",
                  "group g: the filter has 'prot'");
    check_targets("[{\"name\":\"g\",\"filter\":{\"ports\":[53],\"vlans\":[1]}}]", "[]", NULL);
    check_targets("[{\"name\":\"g\",\"filter\":{\"port\":[53]}}]", "[]", "a filter has no");
    check_targets("[{\"name\":\"g\",\"filter\":7}]", "[]", "a filter is text or a map");
    check_targets("[{\"name\":\"g\",\"filter\":\"tcp\\u0000b\"}]", "[]", "byte of value 0");
    check_targets(one, "{}", "'tenants' must be a list");
    check_targets(one, "[{\"name\":\"a\"},{\"name\":\"a\"}]", "twice");
    check_targets(one, "[{\"name\":\"a\",\"vlan\":[1]}]", "unknown key 'vlan'");
    check_targets(one, "[{\"name\":\"a\",\"vlans\":5}]", "'vlans' must be a list");
    static const char *const vlans[] = { "0",          "4095",        "\"110\"", "\"100.0\"",
                                         "\"0.100\"",  "\"1.2.3\"",   "\"1.\"",  "\".1\"",
                                         "\"1.4095\"", "\"1.00002\"", "100.200", "null" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(vlans); i++) {
        char tenants[80];
        (void)snprintf(tenants, sizeof(tenants), "[{\"name\":\"a\",\"vlans\":[%s]}]", vlans[i]);
        check_targets(one, tenants, "write numbers from 1 to 4094");
    }
    check_targets(one, "[{\"name\":\"a\",\"vnis\":[16777216]}]", "0 to 16777215");
    check_targets(one, "[{\"name\":\"a\",\"greKeys\":[-1]}]", "0 to 4294967295");
    check_targets(one, "[{\"name\":\"a\",\"greKeys\":[1.5]}]", "0 to 4294967295");
    check_targets(one, "[{\"name\":\"a\",\"erspanSessions\":[1024]}]", "0 to 1023");
    check_targets(one, "[{\"name\":\"a\",\"prefixes\":[\"10.0.0.1/8\"]}]", "bits set");
    check_targets(one, "[{\"name\":\"a\",\"prefixes\":[8]}]", "no address prefix");
    /* Eight groups of each tenant, and eight without one. */
    PK_CLEANUP(pk_buf_done) struct pk_buf groups = PK_BUF_INIT(65536);
    (void)pk_buf_putc(&groups, '[');
    for (unsigned i = 0; i < 16; i++)
        (void)pk_buf_printf(&groups, "%s{\"name\":\"g%u\"%s}", i > 0 ? "," : "", i,
                            i % 2 != 0 ? ",\"tenant\":\"lab\"" : "");
    (void)pk_buf_putc(&groups, ']');
    check_targets(groups.data, lab, NULL);
    groups.data[groups.len - 1] = ',';
    (void)pk_buf_puts(&groups, "{\"name\":\"more\"}]");
    check_targets(groups.data, lab, "more than 8 groups");
    /* Selectors are bounded in all. */
    PK_CLEANUP(pk_buf_done) struct pk_buf many = PK_BUF_INIT(1 << 20);
    for (unsigned t = 0; t < 3; t++) {
        (void)pk_buf_printf(&many, "%s{\"name\":\"t%u\",\"vnis\":[0", t > 0 ? "," : "[", t);
        for (unsigned i = 1; i < 2048; i++)
            (void)pk_buf_printf(&many, ",%u", i);
        (void)pk_buf_puts(&many, "]}");
    }
    (void)pk_buf_putc(&many, ']');
    check_targets(one, many.data, "more than 4096 selectors");
}

static void test_unknown_keys_get_a_suggestion(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    struct pk_tap *tap = NULL;
    json_t *body =
        json_pack("{s:s,s:s,s:s}", "kind", "interface", "interfase", "eth0", "group", "g");
    assert_int_equal(pk_tap_parse("pk3f2a", "f", "t", body, &tap, &err), PK_E_INVALID);
    assert_non_null(strstr(err.hint, "'interface'"));
    json_decref(body);
}

static void test_lists_have_limits(void **state)
{
    (void)state;
    struct pk_plane plane = { 0 };
    struct pk_error err = { 0 };
    int r = 0;
    for (unsigned i = 0; r == 0; i++) {
        struct pk_group *group = NULL;
        char name[16];
        const struct pk_broker_share share = { 0, 1 };
        assert_true(i <= PK_NODE_GROUPS_MAX);
        (void)snprintf(name, sizeof(name), "g%u", i);
        assert_int_equal(pk_group_new("f", name, &share, 1, &group, NULL), 0);
        r = pk_node_plane_add_group_take(&plane, group, &err);
        if (r < 0)
            pk_group_free(group);
    }
    assert_int_equal(r, PK_E_NOSPACE);
    assert_int_equal(plane.group_count, PK_NODE_GROUPS_MAX);
    assert_true(err.hint[0] != '\0');
    pk_node_plane_done(&plane);
}

static void test_when_memory_runs_out(void **state)
{
    (void)state;
    json_t *want = json_loads(GOOD, 0, NULL);
    bool reached = true;
    for (unsigned long nth = 1; reached; nth++) {
        struct pk_plane plane = { 0 };
        pk_alloc_fail_nth(nth);
        int r = parse(GOOD, &plane, NULL);
        reached = pk_alloc_count() >= nth;
        pk_alloc_fail_nth(0);
        /* jansson calls some of its own failed allocations a syntax error, or goes on with an
         * empty text; what matters is that nothing is half read */
        assert_true(reached || r == 0);
        if (r == 0) {
            json_t *json = pk_node_plane_to_json(&plane);
            assert_true(json_equal(json, want));
            json_decref(json);
        }
        pk_node_plane_done(&plane);
    }
    json_decref(want);
}

static void test_file(void **state)
{
    (void)state;
    char dir[] = "/tmp/picket-plane-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/plane.json", dir);
    struct pk_plane plane = { .lane_count = 1 };
    struct pk_error err = { 0 };
    assert_int_equal(pk_node_plane_load("pk3f2a", path, &plane, &err), 0); /* none yet */
    assert_int_equal(plane.lane_count, 0);
    assert_int_equal(parse(GOOD, &plane, &err), 0);
    assert_int_equal(pk_node_plane_save(&plane, path, &err), 0);
    pk_node_plane_done(&plane);
    assert_int_equal(pk_node_plane_load("pk3f2a", path, &plane, &err), 0);
    assert_int_equal(plane.tap_count, 2);

    /* A full disk: the call fails with a hint, the old file stays. */
    int r = pk_node_plane_save(&plane, "/dev/full/plane.json", &err);
    assert_true(r < 0);
    pk_node_plane_done(&plane);
    assert_int_equal(pk_node_plane_load("pk3f2a", path, &plane, &err), 0);
    pk_node_plane_done(&plane);

    assert_int_equal(pk_file_write(path, "{\"version\":1,", 13, 0600, &err), 0);
    assert_int_equal(pk_node_plane_load("pk3f2a", path, &plane, &err), PK_E_INVALID);
    assert_non_null(strstr(err.hint, "packets still flow"));
    assert_int_equal(pk_rm_rf(dir, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_and_write_back),
        cmocka_unit_test(test_version_1),
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_every_cut_of_the_file_is_refused),
        cmocka_unit_test(test_hostile_content_is_refused),
        cmocka_unit_test(test_unknown_keys_get_a_suggestion),
        cmocka_unit_test(test_lists_have_limits),
        cmocka_unit_test(test_when_memory_runs_out),
        cmocka_unit_test(test_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
