/* SPDX-License-Identifier: Apache-2.0 */
/* traffic OUT.pcap [--flows N] [--seconds N] [--seed N] [--ipv6 PERCENT] [--vlan PERCENT] [--list]
 */
#include "traffic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/str.h"
#include "packet/pcap.h"

/* splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014) */
uint64_t traffic_random(struct capture *capture)
{
    uint64_t z = capture->random_state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

uint64_t traffic_below(struct capture *capture, uint64_t bound)
{
    return traffic_random(capture) % bound;
}

struct settings {
    uint64_t flows, seconds, seed, ipv6, vlan;
};

static void start_conversation(struct capture *capture, const struct settings *settings,
                               uint64_t number, struct conversation *c)
{
    memset(c, 0, sizeof(*c));
    c->capture = capture;
    c->ipv6 = traffic_below(capture, 100) < settings->ipv6;
    /* The number makes each pair of client address and port its own: no flow meets another. */
    uint8_t host[3] = { (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number };
    if (c->ipv6) {
        static const uint8_t prefix[6] = { 0x20, 0x01, 0x0d, 0xb8, 0, 0 };
        memcpy(c->client, prefix, 6);
        memcpy(c->server, prefix, 6);
        c->client[5] = 1;
        c->server[5] = 2;
        memcpy(c->client + 13, host, 3);
        c->server[15] = (uint8_t)(1 + traffic_below(capture, 60));
    } else {
        c->client[0] = 10;
        c->client[1] = (uint8_t)(20 + host[0]);
        c->client[2] = host[1];
        c->client[3] = host[2];
        const uint8_t server[4] = { 198, 51, 100, (uint8_t)(1 + traffic_below(capture, 60)) };
        memcpy(c->server, server, 4);
    }
    c->client_port = (uint16_t)(20000 + traffic_below(capture, 40000));
    if (traffic_below(capture, 100) < settings->vlan) {
        c->vlans = 1 + (unsigned)traffic_below(capture, 2);
        c->vlan[0] = (uint16_t)(100 + traffic_below(capture, 4));
        c->vlan[1] = (uint16_t)(200 + traffic_below(capture, 4));
    }
    c->now = (pk_nsec)traffic_below(capture, (uint64_t)capture->span);
    c->rtt = (pk_nsec)(1 + traffic_below(capture, 20)) * PK_NSEC_PER_MS;
    c->ip_id = (uint16_t)traffic_random(capture);
}

static void make_all(struct capture *capture, const struct settings *settings)
{
    /* Kinds in fixed shares, so that also a small capture has some of each. */
    uint64_t made = 0;
    for (size_t i = 0; i < traffic_kind_count; i++) {
        uint64_t count = settings->flows * traffic_kinds[i].share / 100;
        for (uint64_t k = 0; k < PK_MAX(count, (uint64_t)1); k++) {
            struct conversation c;
            start_conversation(capture, settings, made++, &c);
            traffic_kinds[i].make(&c);
        }
    }
}

static int by_time(const void *a, const void *b)
{
    const struct frame *x = a, *y = b;
    if (x->when != y->when)
        return x->when < y->when ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static int usage(void)
{
    (void)fputs("usage: traffic OUT.pcap [--flows N] [--seconds N] [--seed N] [--ipv6 PERCENT] "
                "[--vlan PERCENT]\n",
                stderr);
    return 2;
}

static int parse(int argc, char **argv, struct settings *settings, const char **ret_out)
{
    const struct {
        const char *name;
        uint64_t *value;
    } options[] = {
        { "--flows", &settings->flows }, { "--seconds", &settings->seconds },
        { "--seed", &settings->seed },   { "--ipv6", &settings->ipv6 },
        { "--vlan", &settings->vlan },
    };
    *ret_out = NULL;
    for (int i = 1; i < argc; i++) {
        bool known = false;
        for (size_t k = 0; k < PK_ARRAY_SIZE(options) && !known; k++) {
            if (strcmp(argv[i], options[k].name) != 0)
                continue;
            known = true;
            if (++i >= argc || pk_parse_u64(argv[i], options[k].value, NULL) < 0)
                return -1;
        }
        if (known)
            continue;
        if (*ret_out != NULL || argv[i][0] == '-')
            return -1;
        *ret_out = argv[i];
    }
    return *ret_out == NULL || settings->seconds == 0 || settings->flows == 0 ||
                   settings->flows > 2000000
               ? -1
               : 0;
}

int main(int argc, char **argv)
{
    struct settings settings = { .flows = 4000, .seconds = 20, .seed = 1, .ipv6 = 20, .vlan = 10 };
    const char *out;
    if (parse(argc, argv, &settings, &out) < 0)
        return usage();

    struct capture capture = { .random_state = settings.seed,
                               .span = (pk_nsec)settings.seconds * PK_NSEC_PER_SEC };
    make_all(&capture, &settings);
    if (capture.count > 0)
        qsort(capture.frames, capture.count, sizeof(*capture.frames), by_time);

    struct pk_error err;
    PK_CLEANUP(pk_pcap_writer_free_p) struct pk_pcap_writer *writer = NULL;
    int r = pk_pcap_create(out, &writer, &err);
    uint64_t bytes = 0;
    /* 2026-01-01T00:00:00Z: a fixed start makes equal seeds give equal files. */
    pk_nsec start = 1767225600LL * PK_NSEC_PER_SEC;
    for (size_t i = 0; r >= 0 && i < capture.count; i++) {
        const struct frame *frame = &capture.frames[i];
        r = pk_pcap_write(writer, start + frame->when, frame->data, frame->len, &err);
        bytes += frame->len;
    }
    if (r >= 0)
        r = pk_pcap_flush(writer, &err);
    if (r < 0) {
        (void)fprintf(stderr, "traffic: %s\n", err.msg);
        return 1;
    }
    (void)printf("%s: %zu packets, %llu bytes\n", out, capture.count, (unsigned long long)bytes);
    for (size_t i = 0; i < capture.count; i++)
        pk_free(capture.frames[i].data);
    pk_free(capture.frames);
    return 0;
}
