/* SPDX-License-Identifier: Apache-2.0 */
#include "pk_test.h"

#include <string.h>

#include <pcap/pcap.h>

#include "encap.h"
#include "expressions.h"
#include "frames.h"
#include "packet/filter.h"
#include "packet/flow.h"
#include "packet/parse.h"

static void free_filter(struct pk_filter **filter)
{
    pk_filter_free(*filter);
    *filter = NULL;
}

static struct pk_filter *compile(const char *json)
{
    struct pk_error err = { 0 };
    struct pk_filter *filter = NULL;
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    int r = pk_filter_compile(value, &filter, NULL, &err);
    if (r < 0)
        fail_msg("%s: %s (%s)", json, err.msg, err.hint);
    json_decref(value);
    return filter;
}

static bool match(const char *json, const uint8_t *frame, size_t len)
{
    PK_CLEANUP(pk_filter_free_p) struct pk_filter *filter = compile(json);
    struct pk_flow flow;
    pk_flow_parse(frame, len, PK_HASH_FLOW, &flow);
    return pk_filter_match(filter, frame, len, &flow);
}

/* ---- what is refused ---- */

static const struct {
    const char *json;
    const char *key; /* of the fault */
    size_t index;
    unsigned column;
    const char *message; /* a part of it */
} bad[] = {
    { "\"\"", "expression", 0, 0, "empty" },
    { "\" \\t\"", "expression", 0, 0, "empty" },
    { "\"tcp prot 80\"", "expression", 0, 5, "'prot'" },
    { "\"tcp port\"", "expression", 0, 9, "too early" },
    { "\"tcp port 80 and (udp\"", "expression", 0, 21, "too early" },
    { "\"port 99999\"", "expression", 0, 6, "illegal port number 99999 > 65535" },
    { "\"port nonesuch\"", "expression", 0, 6, "unknown port 'nonesuch'" },
    { "\"tcp port 80 udp\"", "expression", 0, 13, "syntax error" },
    { "\"tcp ) 1\"", "expression", 0, 5, "syntax error" },
    { "\"net 10.0.0.1/8\"", "expression", 0, 13, "non-network bits" },
    { "\"host 1.2.3.4 @ 5\"", "expression", 0, 14, "" },
    { "\"tcp and udp\"", "expression", 0, 0, "rejects all packets" },
    { "\"host example.com\"", "expression", 0, 6, "'example.com'" },
    { "\"example.com\"", "expression", 0, 1, "an address should be" },
    { "\"port 80 and src example\"", "expression", 0, 17, "'example'" },
    { "\"host http\"", "expression", 0, 6, "'http'" },
    { "\"port http or host a-b\"", "expression", 0, 19, "'a-b'" },
    { "\"net loopback\"", "expression", 0, 5, "'loopback'" },
    { "\"ether host face\"", "expression", 0, 12, "'face'" },
    { "\"host fe80::zz\"", "expression", 0, 6, "" },
    { "\"host 1.2.3.4.5\"", "expression", 0, 6, "" },
    { "\"tcp[foo] = 1\"", "expression", 0, 5, "a number should be" },
    { "\"len-4 > 7\"", "expression", 0, 1, "'len-4'" },
    { "\"host \\\\tcp\"", "expression", 0, 6, "" },
    { "\"gateway foo\"", "expression", 0, 1, "'gateway'" },
    { "\"ip protochain 6\"", "expression", 0, 0, "loop" },
    { "\"inbound\"", "expression", 0, 0, "capturing host" },
    { "\"not geneve and not vlan or host 10.1.0.1\"", "expression", 0, 0, "loses track" },
    { "\"ether[509:4] = 1\"", "expression", 0, 0, "byte 509" },
    { "\"ether[512] = 1\"", "expression", 0, 0, "byte 512" },
    { "\"ip broadcast\"", "expression", 0, 4, "netmask" },
    { "7", NULL, 0, 0, "text or a map" },
    { "[]", NULL, 0, 0, "text or a map" },
    { "{}", NULL, 0, 0, "empty" },
    { "{\"expression\":7}", "expression", 0, 0, "is text" },
    { "{\"expression\":\"tcp prot\"}", "expression", 0, 5, "'prot'" },
    { "{\"port\":[1]}", NULL, 0, 0, "no \"port\"" },
    { "{\"ports\":[]}", "ports", 0, 0, "1 to 512" },
    { "{\"ports\":53}", "ports", 0, 0, "1 to 512" },
    { "{\"ports\":[53,65536]}", "ports", 1, 0, "\"65536\"" },
    { "{\"ports\":[53,\"9-8\"]}", "ports", 1, 0, "\"9-8\"" },
    { "{\"ports\":[-1]}", "ports", 0, 0, "\"-1\"" },
    { "{\"ports\":[1.5]}", "ports", 0, 0, "neither text nor" },
    { "{\"ports\":[\"1-\"]}", "ports", 0, 0, "\"1-\"" },
    { "{\"vlans\":[4095]}", "vlans", 0, 0, "\"4095\"" },
    { "{\"vlans\":[1,2,\"1.2.3\"]}", "vlans", 2, 0, "\"1.2.3\"" },
    { "{\"vlans\":[\".2\"]}", "vlans", 0, 0, "\".2\"" },
    { "{\"vlans\":[\"2.\"]}", "vlans", 0, 0, "\"2.\"" },
    { "{\"prefixes\":[\"10.0.0.0/33\"]}", "prefixes", 0, 0, "10.0.0.0/33" },
    { "{\"prefixes\":[\"10.0.0.1/8\"]}", "prefixes", 0, 0, "behind its length" },
    { "{\"prefixes\":[\"::1/127\"]}", "prefixes", 0, 0, "behind its length" },
    { "{\"prefixes\":[\"host.example\"]}", "prefixes", 0, 0, "host.example" },
    { "{\"prefixes\":[\"\"]}", "prefixes", 0, 0, "no address prefix" },
    { "{\"protocols\":[\"tpc\"]}", "protocols", 0, 0, "\"tpc\"" },
    { "{\"protocols\":[256]}", "protocols", 0, 0, "\"256\"" },
    { "{\"vnis\":[16777216]}", "vnis", 0, 0, "16777216" },
};

static void faults_say_where(void **state)
{
    (void)state;
    for (size_t i = 0; i < PK_ARRAY_SIZE(bad); i++) {
        struct pk_error err = { 0 };
        struct pk_filter *filter = NULL;
        struct pk_filter_fault fault = { "untouched", 99, 99 };
        json_t *value = json_loads(bad[i].json, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        int r = pk_filter_compile(value, &filter, &fault, &err);
        json_decref(value);
        if (r != PK_E_INVALID || fault.column != bad[i].column || fault.index != bad[i].index ||
            (bad[i].key == NULL) != (fault.key == NULL) ||
            (fault.key != NULL && strcmp(fault.key, bad[i].key) != 0) ||
            strstr(err.msg, bad[i].message) == NULL || err.hint[0] == '\0')
            fail_msg("%s: %d, %s[%zu] column %u: %s (%s)", bad[i].json, r,
                     fault.key ? fault.key : "-", fault.index, fault.column, err.msg, err.hint);
    }
}

static void too_much_is_refused(void **state)
{
    (void)state;
    struct pk_error err = { 0 };
    struct pk_filter *filter = NULL;
    char text[PK_FILTER_TEXT_MAX + 2];
    memset(text, ' ', sizeof text);
    memcpy(text, "ip", 2);
    text[PK_FILTER_TEXT_MAX] = '\0';
    assert_int_equal(pk_filter_compile_text(text, &filter, &err), 0);
    free_filter(&filter);
    text[PK_FILTER_TEXT_MAX] = ' ';
    text[PK_FILTER_TEXT_MAX + 1] = '\0';
    assert_int_equal(pk_filter_compile_text(text, &filter, &err), PK_E_INVALID);
    assert_int_equal(pk_filter_compile_text("ip\xff", &filter, &err), PK_E_INVALID);
    /* What libpcap's parser has to put on its stack. */
    memset(text, '(', 2000);
    strcpy(text + 2000, "ip");
    assert_int_equal(pk_filter_compile_text(text, &filter, &err), PK_E_INVALID);

    json_t *list = json_array(), *value = json_pack("{s:o}", "ports", list);
    for (unsigned i = 0; i <= PK_FILTER_LIST_MAX; i++)
        json_array_append_new(list, json_integer(i));
    assert_int_equal(pk_filter_compile(value, &filter, NULL, &err), PK_E_INVALID);
    json_array_remove(list, 0);
    assert_int_equal(pk_filter_compile(value, &filter, NULL, &err), 0);
    free_filter(&filter);
    json_decref(value);
}

static void good_expressions(void **state)
{
    (void)state;
    static const char *const good[] = {
        "not port 9200",
        "tcp port http or https",
        "port (53 or 853)",
        "portrange 8000-8100",
        "ip proto \\\\icmp",
        "ether proto \\\\ip6",
        "ether proto 0x88cc",
        "host 2001:db8::1 or ::1",
        "ether host 02:00:00:00:00:01",
        "net 10.0.0.0/8 or net 192.168 or net 172.16.0.0 mask 255.240.0.0",
        "net 2001:db8::/32",
        "vlan 100 and vlan 200 and tcp",
        "mpls 1000 and ip",
        "pppoes and host 10.1.2.3",
        "geneve 7 and port 80",
        "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src and dst net 10.0.0.0/8",
        "icmp[icmptype] != icmp-echo or icmp6[icmp6type] != icmp6-echo",
        "ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) != 0",
        "greater 100 and less 1500 and len % 3 = 1",
        "1 + len / 2 > 40 ^ 1",
        "! ( src host 1.2.3.4 || dst port 7 ) && udp",
        "ether[0] & 1 = 0 and ip[16] >= 224",
        "sctp or esp or ah or stp or arp or rarp or iso or llc",
    };
    for (size_t i = 0; i + 1 < PK_ARRAY_SIZE(good); i++) {
        char json[512];
        snprintf(json, sizeof json, "\"%s\"", good[i]);
        struct pk_filter *filter = compile(json);
        assert_true(filter->op_count > 0);
        assert_false(pk_filter_needs_flow(filter));
        free_filter(&filter);
    }
}

static void texts(void **state)
{
    (void)state;
    struct pk_filter *filter = compile("\"not port 9200\"");
    assert_string_equal(pk_filter_text(filter), "not port 9200");
    free_filter(&filter);
    filter = compile("{\"vlans\":[\"100.200\",7],\"ports\":[53]}");
    assert_string_equal(pk_filter_text(filter), "{\"ports\":[53],\"vlans\":[\"100.200\",7]}");
    assert_true(pk_filter_needs_flow(filter));
    free_filter(&filter);
}

static void without_memory(void **state)
{
    (void)state;
    json_t *value =
        json_pack("{s:s,s:[i,s],s:[s,s],s:[i],s:[s],s:[i]}", "expression", "tcp", "vlans", 7, "7.8",
                  "prefixes", "10.0.0.0/8", "::/0", "ports", 53, "protocols", "udp", "vnis", 5);
    int r;
    struct pk_filter *filter = NULL;
    PK_TEST_EACH_ALLOC_FAILS(r, r = pk_filter_compile(value, &filter, NULL, NULL);
                             free_filter(&filter));
    json_decref(value);
}

/* ---- fields ---- */

static size_t udp(uint8_t frame[FRAMES_ROOM])
{
    struct frames_rng rng = { 1 };
    struct frames_flow flow = { .family = 4,
                                .proto = 17,
                                .src = { 10, 1, 2, 3 },
                                .dst = { 192, 0, 2, 9 },
                                .sport = 40000,
                                .dport = 53 };
    return frames_make(&rng, &flow, FRAMES_PLAIN, false, 1, frame);
}

static size_t tag(uint8_t *frame, size_t len, uint16_t id)
{
    memmove(frame + 16, frame + 12, len - 12);
    frame[12] = 0x81;
    frame[13] = 0;
    frame[14] = (uint8_t)(id >> 8);
    frame[15] = (uint8_t)id;
    return len + 4;
}

static void fields(void **state)
{
    (void)state;
    uint8_t frame[ENCAP_ROOM], outer[ENCAP_ROOM];
    size_t len = udp(frame);
    assert_true(match("{\"ports\":[53]}", frame, len));
    assert_true(match("{\"ports\":[40000]}", frame, len));
    assert_true(match("{\"ports\":[7,\"50-60\"]}", frame, len));
    assert_false(match("{\"ports\":[7,\"54-60\"]}", frame, len));
    assert_true(match("{\"prefixes\":[\"10.0.0.0/8\"]}", frame, len));
    assert_true(match("{\"prefixes\":[\"2001:db8::/32\",\"192.0.2.9\"]}", frame, len));
    assert_false(match("{\"prefixes\":[\"10.1.2.2\",\"::/0\"]}", frame, len));
    assert_true(match("{\"prefixes\":[\"0.0.0.0/0\"]}", frame, len));
    assert_true(match("{\"protocols\":[\"tcp\",\"udp\"]}", frame, len));
    assert_false(match("{\"protocols\":[\"tcp\"]}", frame, len));
    assert_true(
        match("{\"protocols\":[17],\"ports\":[53],\"expression\":\"host 10.1.2.3\"}", frame, len));
    assert_false(match("{\"protocols\":[17],\"ports\":[54]}", frame, len));
    assert_false(match("{\"ports\":[53],\"expression\":\"host 10.1.2.4\"}", frame, len));
    assert_false(match("{\"vlans\":[100]}", frame, len));
    assert_false(match("{\"vnis\":[0]}", frame, len));

    len = tag(frame, len, 200);
    len = tag(frame, len, 0x2000 | 100); /* with a priority */
    assert_true(match("{\"vlans\":[100]}", frame, len));
    assert_true(match("{\"vlans\":[7,\"100.200\"],\"ports\":[53]}", frame, len));
    assert_false(match("{\"vlans\":[200,\"100.201\"]}", frame, len));

    /* In a tunnel: the innermost flow counts. */
    struct frames_rng rng = { 2 };
    struct encap_outer ends = { .ends = {
                                    .family = 4, .src = { 7, 7, 7, 7 }, .dst = { 8, 8, 8, 8 } } };
    len = encap_wrap(&rng, ENCAP_VXLAN, &ends, frame, len, outer);
    struct pk_flow flow;
    pk_flow_parse(outer, len, PK_HASH_FLOW, &flow);
    char text[64];
    snprintf(text, sizeof text, "{\"vnis\":[%u],\"ports\":[53]}", flow.vni);
    assert_true(match(text, outer, len));
    snprintf(text, sizeof text, "{\"vnis\":[%u]}", flow.vni ^ 1);
    assert_false(match(text, outer, len));
    assert_true(match("{\"prefixes\":[\"10.1.2.3\"]}", outer, len));
    assert_false(match("{\"prefixes\":[\"7.7.7.7\"]}", outer, len));

    /* A later fragment has no ports; addresses and protocol it has. */
    struct frames_flow of = {
        .family = 4, .proto = 17, .src = { 10, 1, 2, 3 }, .dst = { 1, 1, 1, 1 }
    };
    len = frames_make(&rng, &of, FRAMES_LATER, false, 1, frame);
    assert_true(
        match("{\"ports\":[9],\"protocols\":[\"udp\"],\"prefixes\":[\"10.0.0.0/8\"]}", frame, len));
    assert_false(match("{\"ports\":[9],\"protocols\":[\"tcp\"]}", frame, len));
    /* ICMP has a protocol and no ports; ARP has nothing. */
    of.proto = 1;
    len = frames_make(&rng, &of, FRAMES_PLAIN, false, 1, frame);
    assert_true(match("{\"protocols\":[\"icmp\"]}", frame, len));
    assert_false(match("{\"ports\":[\"0-65535\"]}", frame, len));
    frame[12] = 0x08;
    frame[13] = 0x06;
    assert_false(match("{\"protocols\":[\"icmp\"]}", frame, len));
    assert_false(match("{\"prefixes\":[\"0.0.0.0/0\"]}", frame, len));
}

/* ---- expressions ---- */

/* What libpcap says, and whether it cannot have read beyond the window. */
static void as_libpcap_has_it(void **state)
{
    (void)state;
    enum { EXPRESSIONS = 4000, FRAMES = 60 };
    struct frames_rng rng = { 11 };
    unsigned passed = 0, dropped = 0, compiled = 0, lost = 0;
    pcap_t *pcap = pcap_open_dead(DLT_EN10MB, 262144);
    for (unsigned i = 0; i < EXPRESSIONS; i++) {
        char text[EXPRESSION_ROOM];
        expression_random(&rng, text);
        struct pk_error err = { 0 };
        struct pk_filter *filter = NULL;
        struct bpf_program program;
        int theirs = pcap_compile(pcap, &program, text, 1, PCAP_NETMASK_UNKNOWN);
        int ours = pk_filter_compile_text(text, &filter, &err);
        if (theirs == 0 && ours < 0 &&
            (strstr(err.msg, "loses track") != NULL || strstr(err.msg, "reads byte") != NULL)) {
            lost++; /* theirs depends on what was on the stack, or reads beyond the window */
            pcap_freecode(&program);
            continue;
        }
        if ((theirs < 0) != (ours < 0))
            fail_msg("%s: libpcap %d (%s), picket %d (%s)", text, theirs, pcap_geterr(pcap), ours,
                     err.msg);
        if (ours < 0)
            continue;
        compiled++;
        for (unsigned k = 0; k < FRAMES; k++) {
            uint8_t frame[ENCAP_ROOM];
            size_t len = expression_frame(&rng, frame);
            len = PK_MIN(len, PK_PARSE_WINDOW); /* beyond it they differ on purpose */
            struct pcap_pkthdr header = { .caplen = (bpf_u_int32)len, .len = (bpf_u_int32)len };
            bool want = pcap_offline_filter(&program, &header, frame) != 0;
            if (pk_filter_match(filter, frame, len, NULL) != want)
                fail_msg("%s: libpcap says %d to a frame of %zu bytes", text, want, len);
            if (want)
                passed++;
            else
                dropped++;
        }
        pcap_freecode(&program);
        free_filter(&filter);
    }
    pcap_close(pcap);
    print_message("# %u expressions, %u frames passed, %u not\n", compiled, passed, dropped);
    assert_true(compiled > EXPRESSIONS / 2 && lost < EXPRESSIONS / 20 && passed > 10000 &&
                dropped > 10000);
}

/* Beyond the window but in the frame: passes; beyond the frame: does not. */
static void the_window(void **state)
{
    (void)state;
    PK_CLEANUP(pk_filter_free_p)
    struct pk_filter *filter = compile("\"ip[ip[2:2]] = 7\"");
    uint8_t frame[1000] = { [12] = 8, [14] = 0x45 };
    assert_false(pk_filter_match(filter, frame, 100, NULL));
    frame[16] = 2; /* byte 512 of the packet */
    assert_true(pk_filter_match(filter, frame, 1000, NULL));
    assert_false(pk_filter_match(filter, frame, 500, NULL));
    frame[16] = 1;
    assert_false(pk_filter_match(filter, frame, 1000, NULL));
    frame[14 + 256] = 7;
    assert_true(pk_filter_match(filter, frame, 1000, NULL));
    assert_false(pk_filter_match(filter, frame, 14 + 256, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_say_where),  cmocka_unit_test(too_much_is_refused),
        cmocka_unit_test(good_expressions),  cmocka_unit_test(texts),
        cmocka_unit_test(without_memory),    cmocka_unit_test(fields),
        cmocka_unit_test(as_libpcap_has_it), cmocka_unit_test(the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
