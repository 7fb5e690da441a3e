/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pk_test.h"

#include "base/prefix.h"

static void test_good(void **state)
{
    (void)state;
    static const struct {
        const char *text, *canonical;
    } cases[] = {
        { "10.20.0.0/16", "10.20.0.0/16" },
        { "0.0.0.0/0", "0.0.0.0/0" },
        { "192.0.2.1", "192.0.2.1/32" },
        { "192.0.2.128/25", "192.0.2.128/25" },
        { "2001:DB8:0:0::/32", "2001:db8::/32" },
        { "::/0", "::/0" },
        { "2001:db8::1", "2001:db8::1/128" },
        { "fe80::/10", "fe80::/10" },
        { "::ffff:192.0.2.0/120", "::ffff:192.0.2.0/120" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct pk_prefix prefix, again;
        char text[PK_PREFIX_TEXT];
        assert_int_equal(pk_prefix_parse(cases[i].text, &prefix, NULL), 0);
        assert_string_equal(pk_prefix_format(&prefix, text, sizeof(text)), cases[i].canonical);
        assert_int_equal(pk_prefix_parse(text, &again, NULL), 0);
        assert_memory_equal(&prefix, &again, sizeof(prefix));
    }
}

static void test_bad(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hint;
    } cases[] = {
        { "", "for example" },
        { "/8", "for example" },
        { "10.0.0/8", "for example" },
        { "10.0.0.0/", "for example" },
        { "10.0.0.0/-1", "for example" },
        { "10.0.0.0/+8", "for example" },
        { "10.0.0.0/08x", "for example" },
        { "10.0.0.0/0000008", "for example" },
        { "10.0.0.0/8/8", "for example" },
        { "10.0.0.0 /8", "for example" },
        { "10.0.0.0/33", "at most /32" },
        { "2001:db8::/129", "at most /128" },
        { "2001:db8::g/32", "for example" },
        { "10.20.0.1/16", "write 10.20.0.0/16 for the network, or 10.20.0.1/32" },
        { "2001:db8:1::/32", "write 2001:db8::/32" },
        { "1.0.0.0/0", "write 0.0.0.0/0" },
        { "1111:1111:1111:1111:1111:1111:1111:1111:1111:1111/12", "for example" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct pk_prefix prefix;
        memset(&prefix, 0x5a, sizeof(prefix));
        struct pk_prefix before = prefix;
        struct pk_error err = { 0 };
        if (pk_prefix_parse(cases[i].text, &prefix, &err) != PK_E_INVALID)
            fail_msg("%s was accepted", cases[i].text);
        assert_non_null(strstr(err.hint, cases[i].hint));
        assert_memory_equal(&prefix, &before, sizeof(prefix));
    }
}

/* Against bit by bit. */
static bool covers_slowly(const struct pk_prefix *outer, const struct pk_prefix *inner)
{
    for (unsigned i = 0; i < outer->bits; i++)
        if (((outer->addr[i / 8] ^ inner->addr[i / 8]) >> (7 - i % 8) & 1) != 0)
            return false;
    return outer->v6 == inner->v6 && outer->bits <= inner->bits;
}

static struct pk_prefix random_prefix(unsigned *seed)
{
    struct pk_prefix prefix = { .v6 = rand_r(seed) % 2 };
    prefix.bits = (uint8_t)((unsigned)rand_r(seed) % (prefix.v6 ? 129 : 33));
    for (unsigned i = 0; i < prefix.bits; i++) /* few bits set: covers are not too rare */
        if (rand_r(seed) % 8 == 0)
            prefix.addr[i / 8] |= (uint8_t)(0x80 >> i % 8);
    return prefix;
}

static void test_covers(void **state)
{
    (void)state;
    unsigned seed = 4, yes = 0;
    for (int i = 0; i < 20000; i++) {
        struct pk_prefix a = random_prefix(&seed), b = random_prefix(&seed);
        assert_true(pk_prefix_covers(&a, &a));
        assert_int_equal(pk_prefix_covers(&a, &b), covers_slowly(&a, &b));
        yes += pk_prefix_covers(&a, &b);
        char text[PK_PREFIX_TEXT];
        struct pk_prefix back;
        assert_int_equal(pk_prefix_parse(pk_prefix_format(&a, text, sizeof(text)), &back, NULL), 0);
        assert_memory_equal(&a, &back, sizeof(a));
    }
    assert_true(yes > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_covers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
