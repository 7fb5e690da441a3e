/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include <stdio.h>
#include <string.h>

#include "packet/community_id.h"
#include "packet/sha1.h"

static void sha1_vectors(void **state)
{
    (void)state;
    /* RFC 3174, section 7.3, and the lengths around one block's padding (from sha1sum). */
    static const struct {
        const char *text;
        unsigned repeat;
        const char *want;
    } cases[] = {
        { "", 0, "da39a3ee5e6b4b0d3255bfef95601890afd80709" },
        { "abc", 1, "a9993e364706816aba3e25717850c26c9cd0d89d" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
          "84983e441c3bd26ebaae4aa1f95129e5e54670f1" },
        { "0123456701234567012345670123456701234567012345670123456701234567", 10,
          "dea356a2cddd90c7a7ecedc5ebb563934f460452" },
        { "a", 55, "c1c8bbdc22796e28c0e15163d20899b65621d65a" },
        { "a", 56, "c2db330f6083854c99d4b5bfb6e8f29f201be699" },
        { "a", 64, "0098ba824b5c16427bd7a1122a5a442a25ec644d" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        char message[1024];
        size_t len = 0;
        for (unsigned k = 0; k < cases[i].repeat; k++) {
            memcpy(message + len, cases[i].text, strlen(cases[i].text));
            len += strlen(cases[i].text);
        }
        uint8_t digest[20];
        char hex[41];
        pk_sha1(message, len, digest);
        for (unsigned k = 0; k < 20; k++)
            snprintf(hex + 2 * k, 3, "%02x", digest[k]);
        assert_string_equal(hex, cases[i].want);
    }
}

static void known_flows(void **state)
{
    (void)state;
    /* The vectors that the specification's README lists. */
    static const struct {
        const char *proto, *src, *dst;
        uint16_t sport, dport, seed;
        const char *want;
    } cases[] = {
        { "TCP", "1.2.3.4", "5.6.7.8", 1122, 3344, 0, "1:wCb3OG7yAFWelaUydu0D+125CLM=" },
        { "tcp", "5.6.7.8", "1.2.3.4", 3344, 1122, 0, "1:wCb3OG7yAFWelaUydu0D+125CLM=" },
        { "UDP", "1.2.3.4", "5.6.7.8", 1122, 3344, 0, "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg=" },
        { "17", "5.6.7.8", "1.2.3.4", 3344, 1122, 0, "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg=" },
        { "SCTP", "1.2.3.4", "5.6.7.8", 1122, 3344, 0, "1:EKt4MsxuyaE6mL+hmrEkQ9csDD8=" },
        { "ICMP", "1.2.3.4", "5.6.7.8", 8, 0, 0, "1:crodRHL2FEsHjbv3UkRrfbs4bZ0=" },
        { "ICMP", "5.6.7.8", "1.2.3.4", 0, 0, 0, "1:crodRHL2FEsHjbv3UkRrfbs4bZ0=" },
        { "ICMP", "1.2.3.4", "5.6.7.8", 11, 0, 0, "1:f/YiSyWqczrTgfUCZlBUnvHRcPk=" },
        { "IPv6-ICMP", "fe80:0001:0203:0405:0607:0809:0A0B:0C0D",
          "fe80:1011:1213:1415:1617:1819:1A1B:1C1D", 128, 0, 0, "1:0bf7hyMJUwt3fMED7z8LIfRpBeo=" },
        { "ICMPv6", "fe80:1011:1213:1415:1617:1819:1A1B:1C1D",
          "fe80:0001:0203:0405:0607:0809:0A0B:0C0D", 129, 0, 0, "1:0bf7hyMJUwt3fMED7z8LIfRpBeo=" },
        { "icmp6", "fe80:0001:0203:0405:0607:0809:0A0B:0C0D",
          "fe80:1011:1213:1415:1617:1819:1A1B:1C1D", 146, 0, 0, "1:fYC8+pz24E+EhANP1EZhpX0Dw10=" },
        { "rsvp", "5.6.7.8", "1.2.3.4", 0, 0, 0, "1:ikv3kmf89luf73WPz1jOs49S768=" },
        { "tcp", "1.2.3.4", "5.6.7.8", 1122, 3344, 1, "1:HhA1B+6CoLbiKPEs5nhNYN4XWfk=" },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct pk_tuple tuple = { .proto = (uint8_t)pk_ip_proto_by_name(cases[i].proto),
                                  .src_port = cases[i].sport,
                                  .dst_port = cases[i].dport };
        char id[PK_COMMUNITY_ID_SIZE];
        assert_true(pk_tuple_set_addresses(&tuple, cases[i].src, cases[i].dst));
        assert_string_equal(pk_community_id(&tuple, cases[i].seed, id), cases[i].want);
    }
}

static void refuses_bad_text(void **state)
{
    (void)state;
    struct pk_tuple tuple = { 0 };
    assert_false(pk_tuple_set_addresses(&tuple, "1.2.3.4", "fe80::1"));
    assert_false(pk_tuple_set_addresses(&tuple, "1.2.3", "1.2.3.4"));
    assert_false(pk_tuple_set_addresses(&tuple, "", ""));
    assert_int_equal(tuple.family, 0);
    assert_int_equal(pk_ip_proto_by_name("256"), -1);
    assert_int_equal(pk_ip_proto_by_name("6x"), -1);
    assert_int_equal(pk_ip_proto_by_name(""), -1);
    assert_int_equal(pk_ip_proto_by_name("tcpp"), -1);
    assert_int_equal(pk_ip_proto_by_name("99999999999999999999"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha1_vectors),
        cmocka_unit_test(known_flows),
        cmocka_unit_test(refuses_bad_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
