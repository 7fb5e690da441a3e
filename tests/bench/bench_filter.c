/* SPDX-License-Identifier: Apache-2.0 */
/* What filters cost: a program that parses and asks pk_filter_mask(), less the same without any. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "filter_probe.skel.h"

#include "broker/bpf/filter.h"
#include "broker/filter.h"
#include "frames.h"

#define ROUNDS 9
#define REPEAT 300000

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t best_of(int program, const uint8_t *frame, size_t len)
{
    uint32_t took[ROUNDS];
    for (unsigned i = 0; i < ROUNDS; i++) {
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
                    .repeat = REPEAT);
        if (bpf_prog_test_run_opts(program, &opts) < 0) {
            perror("BPF_PROG_TEST_RUN");
            exit(1);
        }
        took[i] = opts.duration;
    }
    qsort(took, ROUNDS, sizeof took[0], by_value);
    return took[0];
}

static struct filter_probe *load(const struct pk_filter_code *code)
{
    (void)pk_filter_install(code);
    struct filter_probe *probe = filter_probe__open_and_load();
    (void)pk_filter_install(NULL);
    return probe;
}

static void list(char *text, size_t room, const char *key, unsigned count)
{
    size_t len = (size_t)snprintf(text, room, "{\"%s\":[", key);
    for (unsigned i = 0; i < count; i++)
        len += (size_t)snprintf(text + len, room - len,
                                strcmp(key, "ports") == 0 ? "%s%u" : "%s\"10.9.%u.0/24\"",
                                i > 0 ? "," : "", i + 1);
    snprintf(text + len, room - len, "]}");
}

int main(void)
{
    struct frames_rng rng = { 6 };
    struct frames_flow tcp = { .family = 4,
                               .proto = 6,
                               .src = { 10, 0, 0, 1 },
                               .dst = { 10, 0, 0, 2 },
                               .sport = 40000,
                               .dport = 443 };
    uint8_t frame[FRAMES_ROOM];
    size_t len = frames_make(&rng, &tcp, FRAMES_PLAIN, false, 1, frame);
    struct filter_probe *plain = load(NULL);
    if (plain == NULL) {
        printf("skipped: cannot load BPF programs\n");
        return 77;
    }
    uint32_t none = best_of(bpf_program__fd(plain->progs.filter_probe), frame, len);
    static char ports[8192], prefixes[8192];
    list(ports, sizeof ports, "ports", 20);
    list(prefixes, sizeof prefixes, "prefixes", 50);
    const struct {
        const char *name;
        const char *text; /* { = fields */
    } filters[] = {
        { "ip", "ip" },
        { "not port 9200", "not port 9200" },
        { "tcp and host 10.0.0.2", "tcp and host 10.0.0.2" },
        { "tcp[tcpflags] & tcp-syn != 0", "tcp[tcpflags] & tcp-syn != 0" },
        { "vlan 100 and port 80 or port 443", "(vlan 100 and port 80) or port 443" },
        { "ports: one", "{\"ports\":[443]}" },
        { "ports: 20, none fits", ports },
        { "prefixes: 50, none fits", prefixes },
        { "protocols, ports, prefixes",
          "{\"protocols\":[\"tcp\"],\"ports\":[443],\"prefixes\":[\"10.0.0.0/8\"]}" },
    };
    printf("ns per packet (TCP, IPv4), best of %u runs of %u, above no filter\n\n", ROUNDS, REPEAT);
    printf("%-34s %6s %13s %9s\n", "filter", "ns", "instructions", "verified");
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        struct pk_error err = { 0 };
        struct pk_filter *filter = NULL;
        struct pk_filter_code code;
        json_t *value = filters[i].text[0] == '{' ? json_loads(filters[i].text, 0, NULL)
                                                  : json_string(filters[i].text);
        if (pk_filter_compile(value, &filter, NULL, &err) < 0 ||
            pk_filter_emit(&(struct pk_filter_use){ .filter = filter, .name = "bench" }, 1,
                           PK_FILTER_ROOM, &code, &err) < 0) {
            fprintf(stderr, "%s\n", err.msg);
            return 1;
        }
        struct filter_probe *probe = load(&code);
        if (probe == NULL) {
            perror(filters[i].name);
            return 1;
        }
        int fd = bpf_program__fd(probe->progs.filter_probe);
        struct bpf_prog_info info = { 0 };
        uint32_t size = sizeof info;
        (void)bpf_obj_get_info_by_fd(fd, &info, &size);
        printf("%-34s %6d %13zu %9u\n", filters[i].name, (int)(best_of(fd, frame, len) - none),
               code.count, info.verified_insns);
        filter_probe__destroy(probe);
        pk_filter_code_done(&code);
        pk_filter_free(filter);
        json_decref(value);
    }
    filter_probe__destroy(plain);
    return 0;
}
