/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "pk_test.h"

#include "base/map.h"

static void test_thousands_of_keys(void **state)
{
    (void)state;
    PK_CLEANUP(pk_map_free_p) struct pk_map *map = pk_map_new(pk_free);
    assert_non_null(map);
    assert_null(pk_map_get(map, "none"));
    char key[16];
    for (unsigned i = 0; i < 5000; i++) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        assert_int_equal(pk_map_set_take(map, key, pk_strdup(key)), 0);
    }
    assert_int_equal(pk_map_count(map), 5000);
    for (unsigned i = 0; i < 5000; i += 500) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        assert_true(pk_map_remove(map, key));
        assert_false(pk_map_remove(map, key));
    }
    assert_int_equal(pk_map_count(map), 4990);
    for (unsigned i = 0; i < 5000; i++) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        const char *value = pk_map_get(map, key);
        if (i % 500 == 0)
            assert_null(value);
        else
            assert_string_equal(value, key);
    }
}

static void test_order_and_replacing(void **state)
{
    (void)state;
    PK_CLEANUP(pk_map_free_p) struct pk_map *map = pk_map_new(pk_free);
    assert_int_equal(pk_map_set_take(map, "b", pk_strdup("1")), 0);
    assert_int_equal(pk_map_set_take(map, "a", pk_strdup("2")), 0);
    assert_int_equal(pk_map_set_take(map, "c", pk_strdup("3")), 0);
    assert_int_equal(pk_map_set_take(map, "b", pk_strdup("4")), 0); /* keeps its place */
    assert_true(pk_map_remove(map, "a"));
    const char *key;
    void *value;
    pk_map_at(map, 0, &key, &value);
    assert_string_equal(key, "b");
    assert_string_equal(value, "4");
    pk_map_at(map, 1, &key, &value);
    assert_string_equal(key, "c");
    assert_int_equal(pk_map_count(map), 2);
}

static void test_without_memory(void **state)
{
    (void)state;
    int r = 0;
    PK_TEST_EACH_ALLOC_FAILS(r, {
        r = PK_E_NOMEM;
        PK_CLEANUP(pk_map_free_p) struct pk_map *map = pk_map_new(NULL);
        for (unsigned i = 0; map != NULL && i < 20; i++) {
            char key[16];
            (void)snprintf(key, sizeof(key), "k%u", i);
            r = pk_map_set_take(map, key, &r);
            assert_int_equal(pk_map_count(map), i + (r == 0 ? 1 : 0));
            if (r < 0)
                break;
        }
    });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thousands_of_keys),
        cmocka_unit_test(test_order_and_replacing),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
