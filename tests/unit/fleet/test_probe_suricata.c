/* SPDX-License-Identifier: Apache-2.0 */
/* A scripted peer on a real socket: pieces, refusals, floods, silence. */
#include "pk_test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/time.h"
#include "fleet/probe_suricata.h"

struct peer {
    char dir[64];
    char path[96];
    int listener;
    pthread_t thread;
    const char *hello, *stat, *counters; /* replies; NULL = say nothing */
    bool pieces;                         /* one byte at a time */
    bool flood;                          /* never ends its reply */
    char got[1024];                      /* all that it was sent */
};

static void say(int fd, const struct peer *peer, const char *text)
{
    size_t len = strlen(text);
    size_t step = peer->pieces ? 1 : len;
    for (size_t i = 0; i < len; i += step) {
        if (send(fd, text + i, PK_MIN(step, len - i), MSG_NOSIGNAL) < 0)
            return;
        if (peer->pieces)
            usleep(500);
    }
}

static void *serve(void *arg)
{
    struct peer *peer = arg;
    int fd = accept(peer->listener, NULL, NULL);
    if (fd < 0)
        return NULL;
    const char *const replies[] = { peer->hello, peer->stat, peer->counters };
    for (size_t i = 0; i < PK_ARRAY_SIZE(replies); i++) {
        size_t len = strlen(peer->got);
        ssize_t got = recv(fd, peer->got + len, sizeof(peer->got) - 1 - len, 0);
        if (got <= 0)
            break;
        if (replies[i] != NULL)
            say(fd, peer, replies[i]);
        while (peer->flood && send(fd, "          ", 10, MSG_NOSIGNAL) > 0)
            ;
    }
    char rest[64];
    while (recv(fd, rest, sizeof(rest), 0) > 0)
        ;
    close(fd);
    return NULL;
}

static void peer_start(struct peer *peer)
{
    (void)snprintf(peer->dir, sizeof(peer->dir), "/tmp/pk-test-probe-XXXXXX");
    assert_non_null(mkdtemp(peer->dir));
    (void)snprintf(peer->path, sizeof(peer->path), "%s/command.socket", peer->dir);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", peer->path);
    peer->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(peer->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(peer->listener, 4), 0);
    assert_int_equal(pthread_create(&peer->thread, NULL, serve, peer), 0);
}

static void peer_stop(struct peer *peer)
{
    (void)shutdown(peer->listener, SHUT_RDWR);
    (void)pthread_join(peer->thread, NULL);
    close(peer->listener);
    (void)pk_rm_rf(peer->dir, NULL);
}

static struct pk_suricata_probe ask(struct peer *peer, unsigned timeout_ms)
{
    peer_start(peer);
    struct pk_suricata_probe probe = { .socket = peer->path,
                                       .interface = "tap0",
                                       .want_notes = peer->counters != NULL };
    pk_suricata_probe_all(&probe, 1, timeout_ms);
    peer_stop(peer);
    probe.socket = NULL;
    return probe;
}

#define OK_HELLO "{\"return\": \"OK\"}\n"
#define OK_STAT                                                                                       \
    "{\"message\": {\"bypassed\": 0, \"drop\": 7, \"invalid-checksums\": 1, \"pkts\": 123456789012}," \
    " \"return\": \"OK\"}\n"

static void test_counters(void **state)
{
    (void)state;
    for (int pieces = 0; pieces < 2; pieces++) {
        struct peer peer = { .hello = OK_HELLO, .stat = OK_STAT, .pieces = pieces != 0 };
        struct pk_suricata_probe probe = ask(&peer, 2000);
        assert_int_equal(probe.code, 0);
        assert_true(probe.packets == 123456789012);
        assert_int_equal(probe.drops, 7);
        assert_string_equal(peer.got, "{\"version\": \"0.2\"}\n{\"command\": \"iface-stat\", "
                                      "\"arguments\": {\"iface\": \"tap0\"}}\n");
    }
}

static void test_bad_replies(void **state)
{
    (void)state;
    static const struct {
        const char *hello, *stat;
        int code;
    } cases[] = {
        { "{\"return\": \"NOK\", \"message\": \"Unknown iface\"}\n", NULL, PK_E_UNSUPPORTED },
        { OK_HELLO, "{\"return\": \"NOK\", \"message\": \"Unknown iface\"}", PK_E_UNSUPPORTED },
        { OK_HELLO, "{\"return\": \"NOK\", \"message\": [1, 2]}", PK_E_UNSUPPORTED },
        { OK_HELLO, "{\"return\": \"OK\", \"message\": \"none\"}", PK_E_INVALID },
        { OK_HELLO, "{\"return\": \"OK\"}", PK_E_INVALID },
        { "HTTP/1.1 400 Bad Request\r\n", NULL, PK_E_INVALID },
        { "[1, 2, 3]", NULL, PK_E_UNSUPPORTED },
    };
    for (size_t i = 0; i < PK_ARRAY_SIZE(cases); i++) {
        struct peer peer = { .hello = cases[i].hello, .stat = cases[i].stat };
        struct pk_suricata_probe probe = ask(&peer, 2000);
        assert_int_equal(probe.code, cases[i].code);
        assert_true(probe.error.msg[0] != '\0');
    }
    /* Counters that make no sense are no counters. */
    struct peer peer = { .hello = OK_HELLO,
                         .stat = "{\"return\":\"OK\",\"message\":{\"pkts\":-5,\"drop\":\"x\"}}" };
    struct pk_suricata_probe probe = ask(&peer, 2000);
    assert_int_equal(probe.code, 0);
    assert_int_equal(probe.packets, 0);
    assert_int_equal(probe.drops, 0);
}

static void test_bounds(void **state)
{
    (void)state;
    struct peer flood = { .hello = "{\"return\": ", .flood = true };
    struct pk_suricata_probe probe = ask(&flood, 5000);
    assert_int_equal(probe.code, PK_E_NOSPACE);

    struct peer silent = { .hello = OK_HELLO, .stat = "{\"return\": \"OK\"" };
    pk_nsec begun = pk_time_monotonic();
    probe = ask(&silent, 300);
    assert_int_equal(probe.code, PK_E_TIMEOUT);
    assert_true(pk_time_monotonic() - begun < 1500 * PK_NSEC_PER_MS);
}

static void test_not_there(void **state)
{
    (void)state;
    struct pk_suricata_probe probe = { .socket = "/tmp/pk-no-such-folder/x.socket",
                                       .interface = "tap0" };
    pk_suricata_probe_all(&probe, 1, 300);
    assert_int_equal(probe.code, PK_E_NOTFOUND);
    probe.socket = "relative";
    pk_suricata_probe_all(&probe, 1, 300);
    assert_int_equal(probe.code, PK_E_INVALID);
    char long_path[300] = "/tmp/";
    memset(long_path + 5, 'x', 200);
    (void)snprintf(long_path + 205, sizeof(long_path) - 205, "/s");
    probe.socket = long_path;
    pk_suricata_probe_all(&probe, 1, 300);
    assert_int_equal(probe.code, PK_E_NOTFOUND); /* its folder, not its length */
    pk_suricata_probe_all(NULL, 0, 300);
}

/* One that hangs does not keep the answer of another. */
static void test_side_by_side(void **state)
{
    (void)state;
    struct peer good = { .hello = OK_HELLO, .stat = OK_STAT };
    struct peer hung = { 0 };
    peer_start(&good);
    peer_start(&hung);
    struct pk_suricata_probe probes[] = { { .socket = hung.path, .interface = "tap0" },
                                          { .socket = good.path, .interface = "tap0" } };
    pk_suricata_probe_all(probes, 2, 300);
    assert_int_equal(probes[0].code, PK_E_TIMEOUT);
    assert_int_equal(probes[1].code, 0);
    assert_int_equal(probes[1].drops, 7);
    peer_stop(&good);
    peer_stop(&hung);
}

#define OK_COUNTERS                                                                                \
    "{\"message\": {\"decoder\": {\"pkts\": 90, \"invalid\": 2}, \"tcp\": {\"reassembly_gap\": 4," \
    " \"segment_memcap_drop\": \"many\", \"ssn_memcap_drop\": -5}}, \"return\": \"OK\"}\n"

/* The third question: what it tells is taken as far as it makes sense. */
static void test_notes(void **state)
{
    (void)state;
    struct peer peer = { .hello = OK_HELLO, .stat = OK_STAT, .counters = OK_COUNTERS };
    struct pk_suricata_probe probe = ask(&peer, 2000);
    assert_int_equal(probe.code, 0);
    assert_int_equal(probe.drops, 7);
    assert_non_null(strstr(peer.got, "{\"command\": \"dump-counters\"}\n"));
    assert_int_equal(json_object_size(probe.notes), 3);
    assert_int_equal(json_integer_value(json_object_get(probe.notes, "decoded")), 90);
    assert_int_equal(json_integer_value(json_object_get(probe.notes, "decoderInvalid")), 2);
    assert_int_equal(json_integer_value(json_object_get(probe.notes, "reassemblyGap")), 4);
    json_decref(probe.notes);
}

/* A Suricata that has not added its counters up yet has answered all the same. */
static void test_no_notes_yet(void **state)
{
    (void)state;
    struct peer peer = { .hello = OK_HELLO,
                         .stat = OK_STAT,
                         .counters = "{\"message\": \"not yet\", \"return\": \"NOK\"}\n" };
    struct pk_suricata_probe probe = ask(&peer, 2000);
    assert_int_equal(probe.code, 0);
    assert_true(probe.packets == 123456789012);
    assert_null(probe.notes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_notes),        cmocka_unit_test(test_no_notes_yet),
        cmocka_unit_test(test_counters),     cmocka_unit_test(test_bad_replies),
        cmocka_unit_test(test_bounds),       cmocka_unit_test(test_not_there),
        cmocka_unit_test(test_side_by_side),
    };
    return cmocka_run_group_tests_name("fleet/probe_suricata", tests, NULL, NULL);
}
