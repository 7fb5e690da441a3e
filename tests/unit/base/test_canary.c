/* SPDX-License-Identifier: Apache-2.0 */
/* Canaries' names and flows: only those of the lane's token are known again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pk_test.h"

#include "base/canary.h"

static const uint8_t key[PK_CANARY_KEY_SIZE] = { 1, 2, 3 };

static struct pk_canary_token token_of(const char *group, uint64_t lane)
{
    struct pk_canary_token token;
    pk_canary_token_make(key, "f", group, lane, &token);
    return token;
}

static bool is_name(const struct pk_canary_token *token, const char *name, size_t len,
                    uint64_t *ret_number)
{
    /* Without an end, so that a sanitizer sees what is read beyond it. */
    char *copy = malloc(PK_MAX(len, 1u));
    assert_non_null(copy);
    memcpy(copy, name, len);
    bool is = pk_canary_is_name(token, "analysis", 3, copy, len, ret_number);
    free(copy);
    return is;
}

static void tokens(void **state)
{
    (void)state;
    char text[PK_CANARY_TOKEN_TEXT], other[PK_CANARY_TOKEN_TEXT];
    struct pk_canary_token token = token_of("analysis", 3), again;
    pk_canary_token_print(&token, text);
    assert_true(pk_canary_token_parse(text, &again));
    assert_memory_equal(&token, &again, sizeof token);
    const struct pk_canary_token others[] = { token_of("analysis", 4), token_of("analysi", 33) };
    for (size_t i = 0; i < PK_ARRAY_SIZE(others); i++) {
        pk_canary_token_print(&others[i], other);
        assert_string_not_equal(text, other);
    }
    static const char *const bad[] = { "", "00", "zz112233445566778899aabbccddeeff",
                                       "00112233445566778899aabbccddeeff0",
                                       "00112233445566778899aabbccddee f" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++)
        assert_false(pk_canary_token_parse(bad[i], &again));
    assert_memory_equal(&token, &again, sizeof token); /* as it was */
}

static void names(void **state)
{
    (void)state;
    struct pk_canary_token token = token_of("analysis", 3), other = token_of("analysis", 4);
    static const uint64_t numbers[] = { 1, 1700000000123u, INT64_MAX };
    for (size_t i = 0; i < PK_ARRAY_SIZE(numbers); i++) {
        struct pk_canary canary;
        uint64_t number = 0;
        pk_canary_make(&token, "analysis", 3, numbers[i], &canary);
        size_t len = strlen(canary.name);
        assert_true(strcspn(canary.name, ".") <= 63); /* a label of DNS */
        assert_string_equal(canary.name + len - strlen(".analysis.invalid"), ".analysis.invalid");
        assert_true(is_name(&token, canary.name, len, &number));
        assert_int_equal(number, numbers[i]);
        assert_false(is_name(&other, canary.name, len, &number));
        for (size_t cut = 0; cut < len; cut++)
            assert_false(is_name(&token, canary.name, cut, &number));
        for (size_t at = 0; at < len; at++) { /* each byte matters */
            char changed[PK_CANARY_NAME_MAX];
            memcpy(changed, canary.name, len);
            changed[at] ^= 1;
            assert_false(is_name(&token, changed, len, &number));
            changed[at] = '\0';
            assert_false(is_name(&token, changed, len, &number));
        }
    }
    /* The longest group and lane that there may be. */
    char group[64];
    struct pk_canary canary;
    uint64_t number;
    memset(group, 'g', 63);
    group[63] = '\0';
    pk_canary_make(&token, group, 99999, INT64_MAX, &canary);
    assert_true(strcspn(canary.name, ".") <= 63);
    assert_true(pk_canary_is_name(&token, group, 99999, canary.name, strlen(canary.name), &number));
}

static void hostile_names(void **state)
{
    (void)state;
    struct pk_canary_token token = token_of("analysis", 3);
    static const char *const bad[] = {
        "",
        "pk-",
        "pk--",
        "pk-----.....",
        "www.example.org",
        "pk-00112233445566778899aabbccddeeff-3-1.analysis.invalid",
        "pk-00112233445566778899aabbccddeeff-3--1.analysis.invalid",
        "pk-00112233445566778899aabbccddeeff-3-99999999999999999999999999.analysis.invalid",
        "pk-00112233445566778899aabbccddeeff-3-18446744073709551615.analysis.invalid",
        "pk-00112233445566778899aabbccddeeff-3-9223372036854775808.analysis.invalid",
        "pk-%s%s%n-3-1.%s.invalid",
    };
    uint64_t number = 7;
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++)
        assert_false(is_name(&token, bad[i], strlen(bad[i]), &number));
    char longest[4096];
    memset(longest, '1', sizeof longest);
    memcpy(longest, "pk-", 3);
    for (size_t len = 0; len <= sizeof longest; len += 13)
        assert_false(is_name(&token, longest, len, &number));
    /* Leading zeros: the same number, another name. */
    struct pk_canary canary;
    char padded[PK_CANARY_NAME_MAX + 1];
    pk_canary_make(&token, "analysis", 3, 42, &canary);
    const char *digits = strstr(canary.name, "-42.");
    assert_non_null(digits);
    (void)snprintf(padded, sizeof padded, "%.*s-042%s", (int)(digits - canary.name), canary.name,
                   digits + 3);
    assert_false(is_name(&token, padded, strlen(padded), &number));
    assert_int_equal(number, 7);
}

static void flows(void **state)
{
    (void)state;
    struct pk_canary_token token = token_of("analysis", 3), other = token_of("analysis", 4);
    unsigned taken_for = 0;
    for (uint64_t number = 1; number <= 2000; number++) {
        struct pk_canary canary;
        pk_canary_make(&token, "analysis", 3, 1700000000000u + number * 997, &canary);
        struct pk_canary_flow flow = { canary.client, canary.server, canary.port, PK_CANARY_PORT };
        struct pk_canary_flow back = { canary.server, canary.client, PK_CANARY_PORT, canary.port };
        assert_true(pk_canary_may_be(flow.source, flow.target));
        assert_true(pk_canary_is_flow(&token, &flow));
        assert_true(pk_canary_is_flow(&token, &back));
        taken_for += pk_canary_is_flow(&other, &flow);
        flow.target_port = 54;
        assert_false(pk_canary_is_flow(&token, &flow));
        flow = (struct pk_canary_flow){ canary.client, canary.server,
                                        (uint64_t)1 << 40 | canary.port, PK_CANARY_PORT };
        assert_false(pk_canary_is_flow(&token, &flow));
        uint8_t server[4];
        memcpy(server, canary.server, 4);
        server[3] ^= 1;
        flow = (struct pk_canary_flow){ canary.client, server, canary.port, PK_CANARY_PORT };
        assert_false(pk_canary_is_flow(&token, &flow));
        server[3] ^= 1;
        server[2] ^= 1;
        assert_false(pk_canary_is_flow(&token, &flow));
    }
    /* 1 in 64,516 is: of 2,000 hardly one. */
    assert_true(taken_for <= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens),
        cmocka_unit_test(names),
        cmocka_unit_test(hostile_names),
        cmocka_unit_test(flows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
