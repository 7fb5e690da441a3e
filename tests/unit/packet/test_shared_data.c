/* SPDX-License-Identifier: Apache-2.0 */
/* Tests on other projects' data beside the repository; skipped where that is not there. */
#include "pk_test.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/proc.h"
#include "packet/community_id.h"
#include "packet/flow.h"
#include "packet/parse.h"
#include "packet/pcap.h"

/* Every flow of the specification's own baseline, where the data is there. */
static void baseline(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        uint16_t seed;
    } files[] = { { "baseline_deflt.json", 0 }, { "baseline_seed1.json", 1 } };
    for (size_t f = 0; f < PK_ARRAY_SIZE(files); f++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/../shared/data/community-id/baseline/%s",
                 getenv("PICKET_SOURCE") ? getenv("PICKET_SOURCE") : ".", files[f].file);
        json_t *flows = json_load_file(path, 0, NULL);
        assert_non_null(flows);
        size_t i;
        json_t *flow;
        json_array_foreach(flows, i, flow)
        {
            struct pk_tuple tuple = {
                .proto = (uint8_t)json_integer_value(json_object_get(flow, "proto")),
                .src_port = (uint16_t)json_integer_value(json_object_get(flow, "sport")),
                .dst_port = (uint16_t)json_integer_value(json_object_get(flow, "dport")),
            };
            char id[PK_COMMUNITY_ID_SIZE];
            assert_true(pk_tuple_set_addresses(&tuple,
                                               json_string_value(json_object_get(flow, "saddr")),
                                               json_string_value(json_object_get(flow, "daddr"))));
            assert_string_equal(pk_community_id(&tuple, files[f].seed, id),
                                json_string_value(json_object_get(flow, "communityid")));
        }
        assert_true(i > 0);
        print_message("# %zu flows of %s\n", i, files[f].file);
        json_decref(flows);
    }
}

/* ---- captures: tshark's innermost conversations against our flows ---- */

#define FRAMES_MAX  20000
#define STREAMS_MAX 40000
#define PAIRS_MAX   4000
#define FIRST_LANE  (UINT64_C(1) << 32)

enum layer { TCP, UDP, SCTP, ICMP, IP, OTHER };
enum field {
    NUMBER,
    PROTOCOLS,
    STREAM_TCP,
    STREAM_UDP,
    STREAM_SCTP,
    SRC4,
    DST4,
    SRC6,
    DST6,
    REASSEMBLED4,
    REASSEMBLED6,
    FIELDS
};

static uint64_t places[FRAMES_MAX + 1];  /* by frame number: the hash, or the first lane */
static uint64_t streams[3][STREAMS_MAX]; /* where a stream's first packet went, plus 1 */
static struct {
    char ends[128];
    uint64_t place;
} pairs[PAIRS_MAX];
static unsigned pair_count, checked_files, checked_streams, checked_inner;

static unsigned read_places(const char *path)
{
    PK_CLEANUP(pk_pcap_close_p) struct pk_pcap_reader *reader = NULL;
    PK_CLEANUP(pk_fragment_memory_free_p)
    struct pk_fragment_memory *memory = pk_fragment_memory_new();
    struct pk_pcap_frame frame;
    struct pk_error err = { 0 };
    unsigned count = 0;
    if (pk_pcap_open(path, &reader, &err) < 0) {
        print_message("# %s\n", err.msg);
        return 0;
    }
    while (count < FRAMES_MAX && pk_pcap_next(reader, &frame, &err) == 1) {
        uint32_t hash = 0;
        unsigned reason = pk_flow_decide(memory, frame.data, frame.len, PK_HASH_FLOW, 42, &hash);
        places[++count] = pk_reason_is_first_lane(reason) ? FIRST_LANE : hash;
    }
    return count;
}

static uint64_t *pair_place(const char *one, const char *other)
{
    char ends[sizeof pairs[0].ends];
    bool turned = strcmp(one, other) > 0;
    snprintf(ends, sizeof ends, "%s %s", turned ? other : one, turned ? one : other);
    for (unsigned i = 0; i < pair_count; i++)
        if (strcmp(pairs[i].ends, ends) == 0)
            return &pairs[i].place;
    assert_true(pair_count < PAIRS_MAX);
    memcpy(pairs[pair_count].ends, ends, sizeof ends);
    pairs[pair_count].place = 0;
    return &pairs[pair_count++].place;
}

static const char *last_of(char *list)
{
    char *comma = list != NULL ? strrchr(list, ',') : NULL;
    return comma != NULL ? comma + 1 : list;
}

static void check_line(const char *path, char *line, unsigned frames)
{
    static const char *const tunnels[] = { "gre",    "vxlan", "geneve", "gtp",
                                           "teredo", "mpls",  "ayiya" };
    char *fields[FIELDS] = { NULL }, *rest = line;
    for (unsigned i = 0; i < FIELDS; i++)
        fields[i] = strsep(&rest, ";");
    unsigned long number = strtoul(fields[NUMBER], NULL, 10);
    if (number == 0 || number > frames)
        return;

    /* What tshark found innermost. */
    enum layer last = OTHER;
    unsigned ips = 0;
    bool is_6 = false;
    char *name, *names = fields[PROTOCOLS];
    while ((name = strsep(&names, ":")) != NULL) {
        if (strcmp(name, "ip") == 0 || strcmp(name, "ipv6") == 0) {
            last = IP;
            is_6 = name[2] == 'v';
            ips++;
        } else if (strcmp(name, "tcp") == 0) {
            last = TCP;
        } else if (strcmp(name, "udp") == 0) {
            last = UDP;
        } else if (strcmp(name, "sctp") == 0) {
            last = SCTP;
        } else if (strcmp(name, "icmp") == 0 || strcmp(name, "icmpv6") == 0) {
            last = ICMP;
        }
        for (size_t i = 0; i < PK_ARRAY_SIZE(tunnels); i++)
            if (strcmp(name, tunnels[i]) == 0)
                last = OTHER;
    }
    uint64_t *place = NULL;
    const char *what = "";
    if (last <= SCTP) {
        static const char *const kinds[] = { "TCP stream", "UDP stream", "SCTP association" };
        unsigned long stream = strtoul(last_of(fields[STREAM_TCP + last]), NULL, 10);
        what = kinds[last];
        if (last != SCTP || stream != 65535) { /* which it could not tell */
            assert_true(stream < STREAMS_MAX);
            place = &streams[last][stream];
        }
    } else if (last == ICMP) {
        what = "ICMP conversation";
        place =
            pair_place(last_of(fields[is_6 ? SRC6 : SRC4]), last_of(fields[is_6 ? DST6 : DST4]));
    }
    if (place != NULL) {
        checked_streams += *place == 0;
        checked_inner += ips > 1;
        if (*place != 0 && *place != places[number] + 1)
            fail_msg("%s: frame %lu is split off from its innermost %s", path, number, what);
        *place = places[number] + 1;
    }
    for (unsigned i = REASSEMBLED4; i <= REASSEMBLED6; i++) {
        unsigned long whole = fields[i] != NULL ? strtoul(fields[i], NULL, 10) : 0;
        if (whole > 0 && whole <= frames && places[whole] != places[number])
            fail_msg("%s: fragment %lu is split off from %lu", path, number, whole);
    }
}

static int check_capture(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)ftw;
    size_t len = strlen(path);
    if (type != FTW_F || len < 5 || strcmp(path + len - 5, ".pcap") != 0)
        return 0;
    unsigned frames = read_places(path);
    /* clang-format off */
    const char *argv[] = {
        "tshark", "-n", "-r", path, "-T", "fields", "-E", "separator=;", "-E", "occurrence=a",
        "-e", "frame.number", "-e", "frame.protocols", "-e", "tcp.stream", "-e", "udp.stream",
        "-e", "sctp.assoc_index", "-e", "ip.src", "-e", "ip.dst", "-e", "ipv6.src",
        "-e", "ipv6.dst", "-e", "ip.reassembled_in", "-e", "ipv6.reassembled.in", NULL,
    };
    /* clang-format on */
    struct pk_buf out = PK_BUF_INIT(16 << 20);
    int status = 0;
    struct pk_error err = { 0 };
    if (pk_proc_run(&(struct pk_proc_options){ .argv = argv, .timeout_ms = 60000 }, &out, NULL,
                    &status, &err) < 0)
        fail_msg("%s", err.msg);
    memset(streams, 0, sizeof streams);
    pair_count = 0;
    char *text = pk_buf_take(&out), *rest = text, *line;
    while (rest != NULL && (line = strsep(&rest, "\n")) != NULL)
        if (*line != '\0')
            check_line(path, line, frames);
    pk_free(text);
    checked_files++;
    return 0;
}

static void captures_stay_whole(void **state)
{
    (void)state;
    char path[4096];
    static const char *const folders[] = { "captures", "community-id/pcaps" };
    for (size_t i = 0; i < PK_ARRAY_SIZE(folders); i++) {
        snprintf(path, sizeof path, "%s/../shared/data/%s",
                 getenv("PICKET_SOURCE") ? getenv("PICKET_SOURCE") : ".", folders[i]);
        assert_int_equal(nftw(path, check_capture, 16, FTW_PHYS), 0);
    }
    print_message("# %u captures, %u conversations, %u packets in tunnels or quoted\n",
                  checked_files, checked_streams, checked_inner);
    assert_true(checked_files > 0 && checked_streams > 0 && checked_inner > 0);
}

int main(void)
{
    const char *source = getenv("PICKET_SOURCE");
    char path[4096];
    snprintf(path, sizeof path, "%s/../shared/data/README.md", source != NULL ? source : ".");
    if (access(path, R_OK) != 0) {
        printf("1..0 # SKIP no %s\n", path);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(baseline),
        cmocka_unit_test(captures_stay_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
