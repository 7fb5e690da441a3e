/* SPDX-License-Identifier: Apache-2.0 */
#include "shunt_probe.h"

#include "pk_test.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "broker/bpf/abi.h"
#include "packet/tunnel.h" /* constants of the programs */
#include "plane.skel.h"

#include "net.h"
#include "packet/hash.h"

static struct plane_bpf *plane;

void probe_open(void)
{
    static const char *const maps[] = { "pk_shunts", "pk_shunt_rules", "pk_shunt_control",
                                        "pk_shunt_flows" };
    plane = plane_bpf__open();
    assert_non_null(plane);
    struct bpf_program *program;
    bpf_object__for_each_program(program, plane->obj)
        bpf_program__set_autoload(program, program == plane->progs.pk_probe_shunt);
    for (size_t i = 0; i < PK_ARRAY_SIZE(maps); i++) {
        char path[128];
        snprintf(path, sizeof path, NET_PIN_DIR "/%s", maps[i]);
        int fd = bpf_obj_get(path);
        assert_true(fd >= 0);
        assert_int_equal(bpf_map__reuse_fd(bpf_object__find_map_by_name(plane->obj, maps[i]), fd),
                         0);
        close(fd);
    }
    assert_int_equal(plane_bpf__load(plane), 0);
}

void probe_close(void)
{
    plane_bpf__destroy(plane);
    plane = NULL;
}

bool probe_takes(unsigned group, const uint8_t *frame, size_t len)
{
    plane->bss->probe_group = group;
    plane->bss->probe_mode = PK_HASH_FLOW;
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len,
                .repeat = 1);
    assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(plane->progs.pk_probe_shunt), &opts),
                     0);
    return plane->bss->probe_shunted != 0;
}

bool probe_tcp(unsigned group, uint32_t src, uint16_t sport, uint32_t dst, uint16_t dport,
               uint8_t flags, size_t len)
{
    uint8_t frame[1514];
    net_frame(frame, len, 6, src, dst, sport, dport);
    frame[14 + 20 + 12] = 0x50;
    frame[14 + 20 + 13] = flags;
    return probe_takes(group, frame, len);
}

bool probe_udp(unsigned group, uint32_t src, uint16_t sport, uint32_t dst, uint16_t dport,
               size_t len)
{
    uint8_t frame[1514];
    net_frame(frame, len, 17, src, dst, sport, dport);
    return probe_takes(group, frame, len);
}

struct pk_tuple probe_tuple(uint8_t proto, uint32_t src, uint16_t sport, uint32_t dst,
                            uint16_t dport)
{
    struct pk_tuple tuple = { .src_port = sport, .dst_port = dport, .family = 4, .proto = proto };
    src = htonl(src);
    dst = htonl(dst);
    memcpy(tuple.src, &src, 4);
    memcpy(tuple.dst, &dst, 4);
    return tuple;
}
