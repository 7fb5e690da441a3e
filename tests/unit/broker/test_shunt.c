/* SPDX-License-Identifier: Apache-2.0 */
/* Shunts in the kernel: the tap's own code, run on one packet at a time (BPF_PROG_TEST_RUN), on the
 * maps of a broker. */
#include "pk_test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/time.h"
#include "broker/bpf/abi.h"
#include "broker/broker.h"
#include "broker/shunt.h"
#include "net.h"
#include "shunt_probe.h"

#define LIFE (3600ull * 1000000000ull)

static struct pk_error err;
static struct pk_broker *broker;

#define OK(call)                                               \
    do {                                                       \
        int ok_ = (call);                                      \
        if (ok_ < 0)                                           \
            fail_msg("%s: %s (%s)", #call, err.msg, err.hint); \
    } while (0)

static struct pk_shunt_added add(unsigned group, const struct pk_tuple *flow, uint64_t keep,
                                 unsigned idle_ms, uint64_t life)
{
    struct pk_shunt_added added = { 0 };
    const struct pk_shunt_request request = {
        .group = group, .keep = keep, .idle_ms = idle_ms, .life_nsec = life, .by = "a-tool's-name"
    };
    OK(pk_broker_shunts_add(broker, &request, flow, 1, &added, &err));
    return added;
}

static struct pk_shunt get(unsigned group, const struct pk_tuple *flow)
{
    struct pk_shunt_key key;
    struct pk_shunt shunt;
    bool from_b;
    assert_true(pk_shunt_key_of(flow, group, &key, &from_b));
    if (!pk_broker_shunt_get(broker, &key, &shunt))
        fail_msg("there is no shunt");
    return shunt;
}

static void drop(unsigned group, const struct pk_tuple *flow)
{
    struct pk_shunt_key key;
    bool from_b;
    assert_true(pk_shunt_key_of(flow, group, &key, &from_b));
    OK(pk_broker_shunts_delete(broker, &key, 1, &err));
}

/* What says how a connection goes on is given to the group, and counted. */
static void marks_pass(void **state)
{
    (void)state;
    struct pk_tuple flow = probe_tuple(6, A, 40000, B, 443);
    assert_false(probe_tcp(0, A, 40000, B, 443, ACK, 1000));
    assert_int_equal(add(0, &flow, 0, 60000, LIFE).added, 1);
    assert_int_equal(add(0, &flow, 0, 60000, LIFE).known, 1);

    assert_false(probe_tcp(0, A, 40000, B, 443, SYN, 60));
    assert_false(probe_tcp(0, B, 443, A, 40000, SYN | ACK, 60));
    for (unsigned i = 0; i < 10; i++)
        assert_true(probe_tcp(0, A, 40000, B, 443, ACK, 1000));
    for (unsigned i = 0; i < 20; i++)
        assert_true(probe_tcp(0, B, 443, A, 40000, ACK | 8, 1500));
    /* Others are not concerned. */
    assert_false(probe_tcp(0, A, 40001, B, 443, ACK, 1000));
    assert_false(probe_udp(0, A, 40000, B, 443, 1000));
    assert_false(probe_tcp(1, A, 40000, B, 443, ACK, 1000));

    struct pk_shunt shunt = get(0, &flow);
    struct pk_shunt_key key;
    bool from_b = false;
    assert_true(pk_shunt_key_of(&flow, 0, &key, &from_b));
    struct pk_tuple back;
    pk_shunt_tuple(&key, &shunt, &back);
    assert_memory_equal(&back, &flow, sizeof flow);
    assert_int_equal(shunt.packets[from_b], 10);
    assert_int_equal(shunt.bytes[from_b], 10000);
    assert_int_equal(shunt.packets[!from_b], 20);
    assert_int_equal(shunt.bytes[!from_b], 30000);
    assert_int_equal(shunt.passed_packets, 2);
    assert_int_equal(shunt.passed_bytes, 120);
    assert_string_equal(shunt.by, "a-tool's-nam");

    assert_false(probe_tcp(0, A, 40000, B, 443, FIN | ACK, 60));
    shunt = get(0, &flow);
    assert_int_equal(shunt.ended, 1);
    assert_true(shunt.until <= pk_shunt_now() + PK_SHUNT_ENDED_NSEC);
    assert_true(probe_tcp(0, B, 443, A, 40000, ACK, 1500)); /* the rest of it */
    assert_false(probe_tcp(0, B, 443, A, 40000, FIN | ACK, 60));
    assert_false(probe_tcp(0, B, 443, A, 40000, RST, 60));
    assert_int_equal(get(0, &flow).passed_packets, 5);
    /* The next connection on these ports is another one. */
    assert_false(probe_tcp(0, A, 40000, B, 443, SYN, 60));
    assert_int_equal(get(0, &flow).state, PK_SHUNT_RENEWED);
    assert_false(probe_tcp(0, A, 40000, B, 443, ACK, 1000));
    assert_int_equal(add(0, &flow, 0, 60000, LIFE).closing, 1);
    drop(0, &flow);
}

/* An ICMP error about a shunted flow goes to who sees the rest of the flow's signs. */
static void icmp_errors_pass(void **state)
{
    (void)state;
    struct pk_tuple flow = probe_tuple(17, A, 5000, B, 6000);
    (void)add(0, &flow, 0, 60000, LIFE);
    uint8_t frame[200], inner[100];
    net_frame(frame, 14 + 20 + 8 + 60, 1, B, A, 0, 0);
    frame[34] = 3;
    frame[35] = 3;
    net_frame(inner, 14 + 60, 17, A, B, 5000, 6000);
    memcpy(frame + 42, inner + 14, 60);
    assert_false(probe_takes(0, frame, 14 + 20 + 8 + 60));
    assert_int_equal(get(0, &flow).passed_packets, 1);
    assert_true(probe_udp(0, A, 5000, B, 6000, 500));
    /* A later fragment has no ports. */
    uint8_t later[100];
    net_frame(later, 100, 17, A, B, 5000, 6000);
    later[20] = 0x00;
    later[21] = 0x10;
    assert_false(probe_takes(0, later, 100));
    drop(0, &flow);
}

static void ipv6(void **state)
{
    (void)state;
    struct pk_tuple flow = { .src_port = 1, .dst_port = 2, .proto = 6 };
    assert_true(pk_tuple_set_addresses(&flow, "2001:db8::1", "2001:db8::2"));
    (void)add(5, &flow, 0, 60000, LIFE);
    uint8_t frame[100] = { 0 };
    memcpy(frame, "\x02\0\0\0\0\2\x02\0\0\0\0\1\x86\xdd", 14);
    frame[14] = 0x60;
    frame[19] = 46;
    frame[20] = 6;
    memcpy(frame + 22, flow.dst, 16);
    memcpy(frame + 38, flow.src, 16);
    frame[55] = 2;
    frame[57] = 1;
    frame[66] = 0x50;
    frame[67] = ACK;
    assert_true(probe_takes(5, frame, sizeof frame));
    struct pk_shunt shunt = get(5, &flow);
    struct pk_shunt_key key;
    bool from_b = false;
    assert_true(pk_shunt_key_of(&flow, 5, &key, &from_b));
    assert_int_equal(shunt.packets[!from_b], 1); /* the answer */
    assert_int_equal(shunt.bytes[!from_b], sizeof frame);
    drop(5, &flow);
}

/* The group gets the first bytes yet. */
static void budget(void **state)
{
    (void)state;
    struct pk_tuple flow = probe_tuple(6, A, 40000, B, 80);
    (void)add(3, &flow, 2500, 60000, LIFE);
    unsigned given = 0;
    for (unsigned i = 0; i < 10; i++)
        given += !probe_tcp(3, A, 40000, B, 80, ACK, 1000);
    assert_int_equal(given, 3); /* what it has is 3,000 then */
    struct pk_shunt shunt = get(3, &flow);
    assert_int_equal(shunt.passed_bytes, 3000);
    assert_int_equal(shunt.bytes[0] + shunt.bytes[1], 7000);
    drop(3, &flow);
}

/* In the kernel, when the entry is met. */
static void expires(void **state)
{
    (void)state;
    struct pk_tuple flow = probe_tuple(17, A, 1000, B, 2000);
    (void)add(0, &flow, 0, 100, LIFE);
    assert_true(probe_udp(0, A, 1000, B, 2000, 100));
    usleep(60000);
    assert_true(probe_udp(0, A, 1000, B, 2000, 100)); /* still in time, and the time begins anew */
    usleep(60000);
    assert_true(probe_udp(0, A, 1000, B, 2000, 100));
    usleep(200000);
    assert_false(probe_udp(0, A, 1000, B, 2000, 100));
    assert_int_equal(get(0, &flow).state, PK_SHUNT_IDLE);
    assert_false(probe_udp(0, A, 1000, B, 2000, 100));
    assert_int_equal(get(0, &flow).packets[0] + get(0, &flow).packets[1], 3);
    drop(0, &flow);

    (void)add(0, &flow, 0, 60000, 100000000);
    assert_true(probe_udp(0, A, 1000, B, 2000, 100));
    usleep(150000);
    assert_false(probe_udp(0, A, 1000, B, 2000, 100));
    assert_int_equal(get(0, &flow).state, PK_SHUNT_TIME);
    drop(0, &flow);
}

static void rules(void **state)
{
    (void)state;
    struct pk_shunt_rule_options rule = {
        .after = 10000, .idle_ms = 60000, .life_nsec = LIFE, .reason = PK_SHUNT_RULE
    };
    OK(pk_broker_shunt_rule_set(broker, 7, &rule, &err));
    assert_true((pk_broker_shunts_groups(broker) >> 7 & 1) != 0);
    unsigned given = 0;
    struct pk_tuple flow = probe_tuple(6, A, 50000, B, 9000);
    assert_false(probe_tcp(7, A, 50000, B, 9000, SYN, 60));
    for (unsigned i = 0; i < 30; i++)
        given += i % 2 ? !probe_tcp(7, A, 50000, B, 9000, ACK, 1000)
                       : !probe_tcp(7, B, 9000, A, 50000, ACK, 1000);
    assert_int_equal(given, 9); /* 60 + 9 * 1,000 are not beyond 10,000 */
    struct pk_shunt shunt = get(7, &flow);
    assert_int_equal(shunt.reason, PK_SHUNT_RULE);
    assert_int_equal(shunt.packets[0] + shunt.packets[1], 21);
    struct pk_shunt_key key;
    bool from_b;
    assert_true(pk_shunt_key_of(&flow, 7, &key, &from_b));
    struct pk_tuple back;
    pk_shunt_tuple(&key, &shunt, &back);
    assert_int_equal(back.dst_port, 9000); /* the smaller port is the server's */
    /* Another group has its own count and no rule. */
    assert_false(probe_tcp(8, A, 50000, B, 9000, ACK, 1000));
    drop(7, &flow);

    /* Of some ports, at once. */
    const uint16_t ports[] = { 873, 9000 };
    rule.after = 0;
    rule.ports = ports;
    rule.port_count = 2;
    OK(pk_broker_shunt_rule_set(broker, 7, &rule, &err));
    assert_false(probe_tcp(7, A, 50000, B, 9000, SYN, 60));
    assert_true(probe_tcp(7, A, 50000, B, 9000, ACK, 1000));
    assert_true(probe_tcp(7, B, 873, A, 50001, ACK, 1000));
    assert_false(probe_tcp(7, B, 874, A, 50002, ACK, 1000));
    struct pk_tuple other = probe_tuple(6, A, 50001, B, 873);
    drop(7, &flow);
    drop(7, &other);
    OK(pk_broker_shunt_rule_set(broker, 7, NULL, &err));
    assert_false(probe_tcp(7, A, 50000, B, 9000, ACK, 1000));
    OK(pk_broker_shunts_used(broker, 0, &err));
    assert_int_equal(pk_broker_shunts_groups(broker), 0);
}

/* Pages, and the three steps of taking out, on many entries. */
static void many(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    for (unsigned i = 0; i < COUNT; i++) {
        struct pk_tuple flow = probe_tuple(6, A + i, 40000, B + (i << 8), 443);
        assert_int_equal(add(i % 2, &flow, 0, 60000, LIFE).added, 1);
        assert_int_equal(probe_tcp(i % 2, A + i, 40000, B + (i << 8), 443, ACK, 100 + i % 100), 1);
    }
    struct pk_shunt_page page;
    OK(pk_shunt_page_init(&page, 3000, &err));
    uint64_t seen = 0, bytes = 0, of_group[2] = { 0 };
    do {
        OK(pk_broker_shunts_read(broker, &page, &err));
        for (size_t i = 0; i < page.count; i++) {
            seen++;
            of_group[page.keys[i].group]++;
            bytes += page.values[i].bytes[0] + page.values[i].bytes[1];
        }
    } while (!page.end);
    assert_int_equal(seen, COUNT);
    assert_int_equal(of_group[0], COUNT / 2);
    uint64_t want = 0;
    for (unsigned i = 0; i < COUNT; i++)
        want += 100 + i % 100;
    assert_int_equal(bytes, want);

    unsigned closed = 0;
    do {
        OK(pk_broker_shunts_read(broker, &page, &err));
        OK(pk_broker_shunts_close(broker, page.keys, page.count, PK_SHUNT_REMOVED, &err));
        pk_broker_shunts_settle();
        for (size_t i = 0; i < page.count; i++) {
            struct pk_shunt shunt;
            assert_true(pk_broker_shunt_get(broker, &page.keys[i], &shunt));
            assert_int_equal(shunt.state, PK_SHUNT_REMOVED);
            assert_int_equal(shunt.packets[0] + shunt.packets[1], 1);
        }
        OK(pk_broker_shunts_delete(broker, page.keys, page.count, &err));
        closed += (unsigned)page.count;
    } while (!page.end);
    assert_int_equal(closed, COUNT);
    OK(pk_broker_shunts_read(broker, &page, &err));
    assert_int_equal(page.count, 0);
    pk_shunt_page_done(&page);
    OK(pk_broker_shunts_used(broker, 0, &err));
}

/* What was shunted stays so without an agent, and the next one reads on. */
static void outlives_the_agent(void **state)
{
    (void)state;
    struct pk_tuple flow = probe_tuple(17, A, 1, B, 2);
    (void)add(0, &flow, 0, 60000, LIFE);
    assert_true(probe_udp(0, A, 1, B, 2, 100));
    pk_broker_close(broker);
    assert_true(probe_udp(0, A, 1, B, 2, 100));
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err));
    struct pk_shunt shunt = get(0, &flow);
    assert_int_equal(shunt.packets[0] + shunt.packets[1], 2);
    drop(0, &flow);
}

static void bad_requests(void **state)
{
    (void)state;
    struct pk_shunt_added added = { 0 };
    struct pk_tuple icmp = probe_tuple(1, A, 8, B, 0);
    struct pk_shunt_request request = { .group = 0, .idle_ms = 1, .life_nsec = 1, .by = "" };
    OK(pk_broker_shunts_add(broker, &request, &icmp, 1, &added, &err));
    assert_int_equal(added.added, 0);
    request.group = PK_GROUPS_MAX;
    assert_int_equal(pk_broker_shunts_add(broker, &request, &icmp, 1, &added, &err), PK_E_NOTFOUND);
    struct pk_shunt_rule_options rule = { .port_count = PK_SHUNT_PORTS + 1 };
    assert_int_equal(pk_broker_shunt_rule_set(broker, 0, &rule, &err), PK_E_USAGE);
}

static int setup(void **state)
{
    (void)state;
    OK(pk_broker_open(&(struct pk_broker_options){ .pin_dir = NET_PIN_DIR }, &broker, &err));
    probe_open();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    probe_close();
    OK(pk_broker_remove_all(broker, &err));
    pk_broker_close(broker);
    return 0;
}

int main(void)
{
    if (!net_begin())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_pass),   cmocka_unit_test(icmp_errors_pass),
        cmocka_unit_test(ipv6),         cmocka_unit_test(budget),
        cmocka_unit_test(expires),      cmocka_unit_test(rules),
        cmocka_unit_test(many),         cmocka_unit_test(outlives_the_agent),
        cmocka_unit_test(bad_requests),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
