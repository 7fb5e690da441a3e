/* SPDX-License-Identifier: Apache-2.0 */
/* The one-pass scanner gives jansson's answers. */
#include "pk_test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../fuzz/scan_check.h"

static void check(const char *text)
{
    if (!scan_agrees(text, strlen(text)))
        fail_msg("differs from jansson: %s", text);
}

static void test_cases(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "{}",
        " { } ",
        "{\"a\":1}",
        "{\"a\":1,}",
        "{\"a\":}",
        "{\"a\" 1}",
        "{,}",
        "{\"a\":[1,2,]}",
        "{\"a\":[1 2]}",
        "{\"a\":{}}x",
        "{\"a\":01}",
        "{\"a\":-}",
        "{\"a\":1.}",
        "{\"a\":1.5e+}",
        "{\"a\":1.5e3}",
        "{\"a\":tru}",
        "{\"a\":true}",
        "{\"a\":nullx}",
        "{\"a\":\"\\u00e9\"}",
        "{\"a\":\"\\ud83d\\ude00\"}",
        "{\"a\":\"\\ud83d\"}",
        "{\"a\":\"\\ude00\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u0000\"}",
        "{\"\\u0000\":1}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\x7f\"}",
        "{\"a\":\"\xc3\xa9\"}",
        "{\"a\":\"\xc3\"}",
        "{\"a\":\"\xed\xa0\x80\"}",
        "{\"a\":\"\xf4\x90\x80\x80\"}",
        "{\"a\":\"\xc0\x80\"}",
        "[1]",
        "1",
        "",
        "{",
        "{\"a",
        "{\"a\":\"",
        "{\"event\\u005ftype\":\"dns\"}",
        "{\"event_type\":\"dns\",\"alert\":{\"signature_id\":1}}",
        "{\"dns\":{\"queries\":[{\"rrname\":\"a\"},{\"rrname\":\"b\"}]}}",
        "{\"vlan\":[5,6]}",
        "{\"vlan\":7}",
        "{\"dns\":{\"rrname\":null,\"queries\":[{\"rrname\":\"q\"}]}}",
        "{\"http\":{\"hostname\":\"h\"},\"tls\":{\"sni\":\"s\"}}",
        "{\"tls\":{\"sni\":\"s\"},\"http\":{\"hostname\":\"h\"}}",
        "{\"alert\":[{\"signature_id\":1}]}",
        "{\"src_port\":18446744073709551615}",
        "{\"src_port\":-1}",
        "{\"src_port\":1.5}",
        "{\"raw\":\"x\",\"timestamp\":\"2026-01-01T00:00:00.000001+0000\"}",
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++)
        check(cases[i]);
}

/* Every truncation and every changed byte of a real record. */
static void test_damaged(void **state)
{
    (void)state;
    static const char record[] =
        "{\"timestamp\":\"2024-06-10T06:13:20.000511+0000\",\"flow_id\":1234567890123456,"
        "\"in_iface\":\"tap0\",\"event_type\":\"alert\",\"vlan\":[110,111],\"src_ip\":\"10.0.0.1\","
        "\"src_port\":1024,\"dest_ip\":\"2001:db8::1\",\"dest_port\":80,\"proto\":\"TCP\",\"alert\":{"
        "\"action\":\"allowed\",\"signature_id\":2100498,\"signature\":\"GPL \\\"x\\\" \\u00e9\","
        "\"severity\":2},\"http\":{\"hostname\":\"a.b\",\"url\":\"/x\\/y\",\"status\":200}}";
    char *copy = strdup(record);
    size_t len = strlen(record);
    srandom(1);

    for (size_t i = 0; i < len; i++) {
        char *cut = malloc(i); /* exactly so long: the sanitizer sees a read beyond it */
        memcpy(cut, record, i);
        assert_true(scan_agrees(cut, i));
        free(cut);
        for (int n = 0; n < 40; n++) {
            static const char bytes[] = "\"\\{}[],:0.-eun \t\x80\xc3\xff\x01";
            copy[i] = bytes[(size_t)random() % (sizeof(bytes) - 1)];
            assert_true(scan_agrees(copy, len));
        }
        copy[i] = record[i];
    }
    free(copy);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
