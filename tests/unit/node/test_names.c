/* SPDX-License-Identifier: Apache-2.0 */
#include <net/if.h>
#include <string.h>

#include "pk_test.h"

#include "node/internal.h"
#include "node/node.h"

static void test_short_names_are_kept(void **state)
{
    (void)state;
    char *path = pk_lane_netns_path("pk3f2a", "border", "analysis", 12);
    assert_string_equal(path, "/run/netns/pk3f2a-border-analysis-12");
    pk_free(path);
}

static void test_long_names_are_cut_with_a_hash(void **state)
{
    (void)state;
    char fleet[64], group[64];
    memset(fleet, 'f', sizeof(fleet) - 1);
    memset(group, 'g', sizeof(group) - 1);
    fleet[63] = group[63] = '\0';
    char *a = pk_lane_netns_path("pk3f2a", fleet, group, 1);
    char *b = pk_lane_netns_path("pk3f2a", fleet, group, 2);
    char *again = pk_lane_netns_path("pk3f2a", fleet, group, 1);
    assert_int_equal(strlen(a), strlen("/run/netns/") + 64);
    assert_int_equal(strlen(b), strlen(a));
    assert_string_equal(a, again);
    assert_string_not_equal(a, b);
    assert_memory_equal(a, "/run/netns/pk3f2a-fff", 21);
    /* the same name once the parts are joined, but not the same lane */
    fleet[62] = '\0';
    char *c = pk_lane_netns_path("pk3f2a", fleet, group, 1);
    assert_string_not_equal(a, c);
    pk_free(a);
    pk_free(b);
    pk_free(c);
    pk_free(again);
}

static void test_the_longest_uncut_name(void **state)
{
    (void)state;
    char group[64];
    memset(group, 'g', sizeof(group) - 1);
    /* "pk3f2a-f-" + group + "-7" */
    group[64 - 9 - 2] = '\0';
    char *path = pk_lane_netns_path("pk3f2a", "f", group, 7);
    assert_int_equal(strlen(path), strlen("/run/netns/") + 64);
    assert_string_equal(path + strlen(path) - 3, "g-7");
    pk_free(path);
}

static void test_names_when_memory_runs_out(void **state)
{
    (void)state;
    char group[64];
    memset(group, 'g', sizeof(group) - 1);
    group[63] = '\0';
    for (unsigned long nth = 1; nth <= 3; nth++) {
        pk_alloc_fail_nth(nth);
        char *path = pk_lane_netns_path("pk3f2a", "fleet", group, 1);
        pk_alloc_fail_nth(0);
        assert_null(path);
    }
}

static void test_link_names_fit_the_kernel(void **state)
{
    (void)state;
    char a[IFNAMSIZ], b[IFNAMSIZ], other_kind[IFNAMSIZ];
    pk_node_link_name("pk3f2a", 'l', "border/analysis/0", a);
    pk_node_link_name("pk3f2a", 'l', "border/analysis/1", b);
    pk_node_link_name("pk3f2a", 't', "border/analysis/0", other_kind);
    assert_int_equal(strlen(a), 15);
    assert_memory_equal(a, "pk3f2al", 7);
    assert_string_not_equal(a, b);
    assert_string_not_equal(a, other_kind);
    assert_true(pk_node_is_interface_name(a));
}

static void test_interface_names(void **state)
{
    (void)state;
    static const char *const good[] = { "eth0", "ens2f0np0", "eth0.100", "a", "wlx00c0caaabbcc" };
    static const char *const bad[] = { "",     ".",   "..",      "sixteen-letters-",
                                       "a/b",  "a b", "eth0:1",  "a\n",
                                       "\x7f", "%d",  "\xc3\xa9" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(good); i++)
        assert_true(pk_node_is_interface_name(good[i]));
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++)
        assert_false(pk_node_is_interface_name(bad[i]));
}

#define TITLES "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"

static void test_packet_table(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool reader;
    } cases[] = {
        { "", false },
        { TITLES, false },
        { TITLES "ffff88 3    3    0003   2     1 0      0      4711\n", true },
        { TITLES "ffff88 3    3    0003   0     1 0      0      4711\n", true },  /* all links */
        { TITLES "ffff88 3    3    0003   1     1 0      0      4711\n", false }, /* another one */
        { TITLES "ffff88 3    3    0003   2     0 0      0      4711\n", false }, /* not running */
        { TITLES "ffff88 3    3    0800   2     1 0      0      4711\n", false }, /* only IPv4 */
        { TITLES "ffff88 3    3    0000   2     1 0      0      4711\n", false }, /* only sends */
        { TITLES "ffff88 3    3    0800   2     1 0      0      1\n"
                 "ffff88 3    3    0003   2     1 0      0      2\n",
          true },
        { TITLES "ffff88 3    3\n", false },
        { TITLES "ffff88 3 3 0003 2 1", true }, /* the last line without an end */
        { "no newline at all", false },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++)
        assert_int_equal(pk_packet_table_has_reader(cases[i].text, 2), cases[i].reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_names_are_kept),
        cmocka_unit_test(test_long_names_are_cut_with_a_hash),
        cmocka_unit_test(test_the_longest_uncut_name),
        cmocka_unit_test(test_names_when_memory_runs_out),
        cmocka_unit_test(test_link_names_fit_the_kernel),
        cmocka_unit_test(test_interface_names),
        cmocka_unit_test(test_packet_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
