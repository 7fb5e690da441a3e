/* SPDX-License-Identifier: Apache-2.0 */
/* How packets come into containers. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "ways.skel.h"

#include "base/alloc.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "bench/internal.h"

/* Where readers on the host read; also of all others, the name within. */
#define INSIDE "tap0"

static unsigned new_fanout(struct bench_rig *rig)
{
    return 100 + rig->link_count++;
}

int bench_way_wire(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    snprintf(way->wire, sizeof way->wire, "wire%u", rig->link_count);
    snprintf(way->host, sizeof way->host, "nic%u", rig->link_count++);
    int r = bench_veth(rig, way->wire, way->host, -1, &way->wire_ifindex, err);
    if (r < 0)
        return r;
    way->host_ifindex = if_nametoindex(way->host);
    return bench_xdp(rig, -1, way->host, rig->pass, err);
}

static int add_container(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    int r = bench_container_new(rig, &way->containers[way->container_count], err);
    way->container_count++; /* also half made, for bench_way_done() */
    return r;
}

static struct bench_place *place_of(struct bench_rig *rig, struct bench_way *way, unsigned group,
                                    unsigned lane)
{
    return &way->places[group * rig->lanes + lane];
}

/* The lanes of each group share an interface, and AF_PACKET spreads the packets. */
static void share_interfaces(struct bench_rig *rig, struct bench_way *way, const char *interface,
                             bool one_container)
{
    for (unsigned group = 0; group < rig->groups; group++) {
        unsigned fanout = new_fanout(rig);
        unsigned container = one_container ? 0 : group;
        for (unsigned lane = 0; lane < rig->lanes; lane++)
            *place_of(rig, way, group, lane) = (struct bench_place){
                .netns = way->container_count > 0 ? way->containers[container].netns : -1,
                .interface = interface,
                .fanout = fanout,
                .sockets = -1,
            };
    }
}

int bench_way_containers(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    for (unsigned i = 0; i < rig->groups * rig->lanes; i++) {
        int r = add_container(rig, way, err);
        if (r < 0)
            return r;
        way->places[i] = (struct bench_place){ .netns = way->containers[i].netns,
                                               .interface = INSIDE,
                                               .sockets = -1 };
    }
    return 0;
}

static int make_host(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    int r = bench_way_wire(rig, way, err);
    share_interfaces(rig, way, way->host, true);
    return r;
}

static int make_macvlan(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    int r = bench_way_wire(rig, way, err);
    if (r < 0)
        return r;
    struct bench_container *container = &way->containers[0];
    *container = (struct bench_container){ .netns = -1 };
    way->container_count = 1;
    r = bench_netns_new(&container->netns, err);
    if (r >= 0)
        r = bench_macvlan(rig, way->host_ifindex, container->netns, err);
    share_interfaces(rig, way, INSIDE, true);
    return r;
}

static int make_bridge(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    unsigned bridge = 0;
    int r = bench_way_wire(rig, way, err);
    if (r >= 0)
        r = bench_bridge(rig, "bridge0", &bridge, err);
    if (r >= 0)
        r = bench_enslave(rig, bridge, way->host_ifindex, err);
    for (unsigned group = 0; group < rig->groups && r >= 0; group++) {
        r = add_container(rig, way, err);
        if (r >= 0)
            r = bench_enslave(rig, bridge, way->containers[group].outer_ifindex, err);
    }
    share_interfaces(rig, way, INSIDE, false);
    return r;
}

static int fail_bpf(int r, const char *what, struct pk_error *err)
{
    pk_fail_errno(err, -r, "%s", what);
    return pk_hint(err, "see 'picket doctor --only bpf'");
}

static int open_programs(struct bench_way *way, const char *wanted, struct ways_bpf **ret_programs,
                         struct pk_error *err)
{
    struct ways_bpf *programs = ways_bpf__open();
    if (programs == NULL)
        return fail_bpf(-errno, "cannot read a BPF program", err);
    way->programs[way->program_count++] = programs;
    struct bpf_program *each;
    bpf_object__for_each_program(each, programs->obj)
        bpf_program__set_autoload(each, strcmp(bpf_program__name(each), wanted) == 0);
    *ret_programs = programs;
    return 0;
}

static int make_tc(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    struct ways_bpf *programs;
    int r = bench_way_wire(rig, way, err);
    if (r >= 0)
        r = bench_way_containers(rig, way, err);
    if (r >= 0)
        r = open_programs(way, "spread", &programs, err);
    if (r < 0)
        return r;
    programs->rodata->groups = rig->groups;
    programs->rodata->lanes = rig->lanes;
    for (unsigned i = 0; i < way->container_count; i++)
        programs->rodata->outer[i] = way->containers[i].outer_ifindex;
    r = ways_bpf__load(programs);
    if (r < 0)
        return fail_bpf(r, "cannot load a BPF program for tc", err);
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)way->host_ifindex,
                .attach_point = BPF_TC_INGRESS);
    LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = bpf_program__fd(programs->progs.spread));
    r = bpf_tc_hook_create(&hook);
    if (r >= 0 || r == -EEXIST)
        r = bpf_tc_attach(&hook, &opts);
    return r < 0 ? fail_bpf(r, "cannot attach a BPF program by tc (clsact, cls_bpf)", err) : 0;
}

/* ---- SR-IOV: looked for only ---- */

static int make_sriov(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    (void)rig;
    (void)way;
    char found[128] = "";
    /* sysfs is still that of the machine's own network namespace: it was mounted there. */
    DIR *dir = opendir("/sys/class/net");
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        char path[PATH_MAX], *text = NULL;
        size_t len = 0;
        snprintf(path, sizeof path, "/sys/class/net/%s/device/sriov_totalvfs", entry->d_name);
        if (entry->d_name[0] == '.' || pk_file_read(path, 32, &text, &len, NULL) < 0)
            continue;
        uint64_t functions = 0;
        text[strcspn(text, "\n")] = '\0';
        if (pk_parse_u64(text, &functions, NULL) >= 0 && functions > 0)
            snprintf(found + strlen(found), sizeof found - strlen(found), "%s%.16s",
                     found[0] != '\0' ? ", " : "", entry->d_name);
        pk_free(text);
    }
    if (dir != NULL)
        (void)closedir(dir);
    if (found[0] == '\0')
        return pk_fail(err, PK_E_UNSUPPORTED,
                       "no network interface of this machine has virtual functions (SR-IOV)");
    return pk_fail(err, PK_E_UNSUPPORTED,
                   "%s can have virtual functions, but a VF's packets come from the wire, where "
                   "this bench sends nothing; a lane takes one with 'lane: {device: ...}'",
                   found);
}

/* ---- picket ---- */

static int add_lane(struct bench_rig *rig, struct bench_way *way, unsigned group, unsigned lane,
                    char key[64], bool by_xdp, struct pk_error *err)
{
    struct bench_container *container = &way->containers[group * rig->lanes + lane];
    snprintf(key, 64, "%s/g%u/%u", way->kind->name, group, lane);
    int r = pk_broker_lane_add(rig->broker, key, container->outer_ifindex, container->netns, INSIDE,
                               err);
    if (r >= 0 && by_xdp)
        r = pk_broker_lane_leave_round(rig->broker, key, err);
    return r < 0 ? r : pk_broker_lane_set_reader(rig->broker, key, true, err);
}

static int make_picket(struct bench_rig *rig, struct bench_way *way, bool by_xdp,
                       struct pk_error *err)
{
    char groups[PK_BENCH_GROUPS_MAX][32], tap[32];
    struct pk_broker_target targets[PK_BENCH_GROUPS_MAX] = { 0 };
    int r = bench_way_containers(rig, way, err);
    for (unsigned group = 0; group < rig->groups && r >= 0; group++) {
        struct pk_broker_share shares[PK_BENCH_LANES_MAX] = { 0 };
        for (unsigned lane = 0; lane < rig->lanes && r >= 0; lane++) {
            char key[64];
            shares[lane] = (struct pk_broker_share){ .lane = lane, .weight = 1 };
            r = add_lane(rig, way, group, lane, key, by_xdp, err);
        }
        snprintf(groups[group], sizeof groups[group], "%s/g%u", way->kind->name, group);
        targets[group].group_key = groups[group];
        if (r >= 0)
            r = pk_broker_group_set(rig->broker, groups[group], PK_HASH_OUTER, shares, rig->lanes,
                                    err);
    }
    if (r < 0)
        return r;
    snprintf(tap, sizeof tap, "%s/t", way->kind->name);
    r = bench_way_wire(rig, way, err);
    if (r < 0)
        return r;
    if (bpf_xdp_detach((int)way->host_ifindex, 0, NULL) < 0)
        return pk_fail(err, PK_E_INTERNAL, "cannot take a program off again");
    enum pk_xdp_mode mode;
    const struct pk_broker_tap_config config = { .kind = PK_BROKER_TAP_MIRROR,
                                                 .targets = targets,
                                                 .target_count = rig->groups };
    r = pk_broker_tap_attach(rig->broker, tap, way->host_ifindex, &config, &mode, err);
    uint32_t id = 0;
    if (r >= 0 && (bpf_xdp_query_id((int)way->host_ifindex, 0, &id) < 0 ||
                   (way->tap_program = bpf_prog_get_fd_by_id(id)) < 0))
        return pk_fail_errno(err, errno, "cannot find the tap's program");
    return r;
}

static int make_lanes(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    return make_picket(rig, way, false, err);
}

/* The reader's program in the place of the lane's gate, by the link that the broker pins. */
static int put_socket(struct bench_rig *rig, struct bench_way *way, unsigned i, unsigned lane_id,
                      struct pk_error *err)
{
    struct ways_bpf *programs;
    int r = open_programs(way, "to_socket", &programs, err);
    if (r < 0)
        return r;
    r = ways_bpf__load(programs);
    if (r < 0)
        return fail_bpf(r, "cannot load a BPF program for AF_XDP", err);
    char path[96];
    snprintf(path, sizeof path, BENCH_DIR "/bpf/%u/lane-%u-in", rig->groups, lane_id);
    PK_CLEANUP(pk_close_p) int link = bpf_obj_get(path);
    if (link < 0 || bpf_link_update(link, bpf_program__fd(programs->progs.to_socket), NULL) < 0)
        return fail_bpf(-errno, "cannot put a program for AF_XDP into a lane", err);
    way->places[i].sockets = bpf_map__fd(programs->maps.sockets);
    return 0;
}

static int lane_id(struct bench_rig *rig, const char *key, unsigned *ret_id, struct pk_error *err)
{
    PK_CLEANUP(pk_json_decref_p) json_t *all = pk_broker_counters(rig->broker, err);
    size_t i;
    json_t *lane;
    if (all == NULL)
        return err->code;
    json_array_foreach(json_object_get(all, "lanes"), i, lane)
    {
        if (strcmp(pk_json_string_or(lane, "key", ""), key) != 0)
            continue;
        *ret_id = (unsigned)i; /* lanes are listed by number, and none was ever removed */
        return 0;
    }
    return pk_fail(err, PK_E_INTERNAL, "a lane is not there");
}

static int make_sockets(struct bench_rig *rig, struct bench_way *way, struct pk_error *err)
{
    int r = make_picket(rig, way, true, err);
    for (unsigned i = 0; i < way->container_count && r >= 0; i++) {
        char key[64];
        unsigned id = 0;
        snprintf(key, sizeof key, "%s/g%u/%u", way->kind->name, i / rig->lanes, i % rig->lanes);
        r = lane_id(rig, key, &id, err);
        if (r >= 0)
            r = put_socket(rig, way, i, id, err);
    }
    return r;
}

/* clang-format off */
const struct bench_kind bench_kinds[] = {
    { "host",       "host network, AF_PACKET fanout",   false, make_host },
    { "macvlan",    "macvlan, passthru",                false, make_macvlan },
    { "bridge",     "bridge and veth",                  false, make_bridge },
    { "tc",         "veth, BPF at tc",                  false, make_tc },
    { "ovs",        "Open vSwitch",                     false, bench_ovs_make },
    { "sriov",      "SR-IOV virtual function",          false, make_sriov },
    { "lane",       "picket's lane, AF_PACKET",         true,  make_lanes },
    { "lane-afxdp", "picket's lane, AF_XDP",            true,  make_sockets },
};
/* clang-format on */
const size_t bench_kind_count = PK_ARRAY_SIZE(bench_kinds);

const char *const *pk_bench_way_names(void)
{
    static const char *names[PK_ARRAY_SIZE(bench_kinds) + 1];
    for (size_t i = 0; i < PK_ARRAY_SIZE(bench_kinds); i++)
        names[i] = bench_kinds[i].name;
    return names;
}

void bench_way_make(struct bench_rig *rig, struct bench_way *way)
{
    struct pk_error err = { 0 };
    const struct bench_kind *kind = way->kind;
    *way = (struct bench_way){ .kind = kind, .tap_program = -1 };
    if (kind->make(rig, way, &err) >= 0) {
        way->available = true;
        return;
    }
    bench_way_done(way);
    snprintf(way->why, sizeof way->why, "%s", err.msg);
}

void bench_way_done(struct bench_way *way)
{
    for (unsigned i = 0; i < way->program_count; i++)
        ways_bpf__destroy(way->programs[i]);
    way->program_count = 0;
    for (unsigned i = 0; i < way->container_count; i++)
        bench_container_done(&way->containers[i]);
    way->container_count = 0;
    pk_close_p(&way->tap_program);
    for (size_t i = PK_ARRAY_SIZE(way->helpers); i-- > 0;) {
        if (way->helpers[i] <= 0)
            continue;
        (void)kill(way->helpers[i], SIGKILL);
        (void)waitpid(way->helpers[i], NULL, 0);
        way->helpers[i] = 0;
    }
}
