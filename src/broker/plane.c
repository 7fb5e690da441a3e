/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel is asked: loads programs, shares maps between them, attaches and pins links. */
#include "broker/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "plane.skel.h"

#include "base/alloc.h"
#include "base/fs.h"
#include "broker/bpf/filter.h"
#include "broker/filter.h"
#include "broker/inline.h"
#include "broker/instance.h"

static const char *const map_names[PK_MAP_COUNT] = {
    [PK_MAP_META] = "pk_meta",
    [PK_MAP_TAPS] = "pk_taps",
    [PK_MAP_GROUPS] = "pk_groups",
    [PK_MAP_LANES] = "pk_lanes",
    [PK_MAP_TABLES] = "pk_tables",
    [PK_MAP_PORTS] = "pk_ports",
    [PK_MAP_READERS] = "pk_readers",
    [PK_MAP_FRAGMENTS] = "pk_fragments",
    [PK_MAP_DRAINS] = "pk_drains",
    [PK_MAP_TAP_COUNTS] = "pk_tap_counts",
    [PK_MAP_GROUP_COUNTS] = "pk_group_counts",
    [PK_MAP_TENANT_COUNTS] = "pk_tenant_counts",
    [PK_MAP_TENANTS] = "pk_tenants",
    [PK_MAP_HANDOVERS] = "pk_handovers",
    [PK_MAP_LANE_COUNTS] = "pk_lane_counts",
    [PK_MAP_SHUNTS] = "pk_shunts",
    [PK_MAP_SHUNT_RULES] = "pk_shunt_rules",
    [PK_MAP_SHUNT_CONTROL] = "pk_shunt_control",
    [PK_MAP_SHUNT_FLOWS] = "pk_shunt_flows",
    [PK_MAP_SHUNT_CLOSING] = "pk_shunt_closing",
    [PK_MAP_SHEDS] = "pk_sheds",
    [PK_MAP_INLINE_TAPS] = "pk_inline_taps",
    [PK_MAP_INLINE_LANES] = "pk_inline_lanes",
    [PK_MAP_INLINE_STATES] = "pk_inline_states",
    [PK_MAP_INLINE_WIRES] = "pk_inline_wires",
    [PK_MAP_INLINE_PORTS] = "pk_inline_ports",
    [PK_MAP_INLINE_EXITS] = "pk_inline_exits",
    [PK_MAP_INLINE_COUNTS] = "pk_inline_counts",
    [PK_MAP_INLINE_LANE_COUNTS] = "pk_inline_lane_counts",
};

static const char *const own_names[PK_OWN_COUNT] = {
    [PK_OWN_VLANS] = "pk_own_vlans",         [PK_OWN_NUMBERS] = "pk_own_numbers",
    [PK_OWN_PREFIXES4] = "pk_own_prefixes4", [PK_OWN_PREFIXES6] = "pk_own_prefixes6",
    [PK_OWN_COMBOS] = "pk_own_combos",
};

static const char *const program_names[] = {
    [PK_PROGRAM_TAP] = "pk_tap",
    [PK_PROGRAM_TAP_COPY] = "pk_tap_copy",
    [PK_PROGRAM_TAP_PROBE] = "pk_tap_probe",
    [PK_PROGRAM_LANE_IN] = "pk_lane_in",
    [PK_PROGRAM_LANE_GUARD] = "pk_lane_guard",
    [PK_PROGRAM_ROUND_IN] = "pk_round_in",
    [PK_PROGRAM_ROUND_OUT] = "pk_round_out",
    [PK_PROGRAM_SHUNT_CLOSE] = "pk_shunt_close",
    [PK_PROGRAM_INLINE_WIRE] = "pk_inline_wire",
    [PK_PROGRAM_INLINE_IN] = "pk_inline_in",
    [PK_PROGRAM_INLINE_OUT] = "pk_inline_out",
};

/* libbpf says why it failed only to its printer: the last warnings are kept for the message. */
static char complaint[256];

static int keep_complaint(enum libbpf_print_level level, const char *format, va_list args)
{
    if (level != LIBBPF_WARN)
        return 0;
    (void)vsnprintf(complaint, sizeof complaint, format, args);
    complaint[strcspn(complaint, "\n")] = '\0';
    return 0;
}

static int hint_for(struct pk_error *err, int sys)
{
    switch (sys) {
    case EPERM:
    case EACCES:
        return pk_hint(err,
                       "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; a container "
                       "may forbid bpf() by its seccomp profile, and kernels before 5.11 need "
                       "'ulimit -l unlimited'");
    case ENODEV:
        return pk_hint(err, "the interface is gone; 'ip link' lists those of this namespace");
    case E2BIG:
    case EINVAL:
    case ENOSYS:
        return pk_hint(err,
                       "the traffic plane needs Linux 6.1 or newer with CONFIG_BPF_SYSCALL and "
                       "CONFIG_DEBUG_INFO_BTF; see 'picket doctor'");
    case ENOSPC:
    case ENOMEM:
        return pk_hint(err, "the kernel has no memory left for its maps; see 'picket doctor'");
    default:
        return pk_hint(err, "see 'picket doctor'");
    }
}

static int plane_error(struct pk_error *err, int sys, const char *what)
{
    if (complaint[0] != '\0')
        pk_fail_errno(err, sys, "%s (%s)", what, complaint);
    else
        pk_fail_errno(err, sys, "%s", what);
    complaint[0] = '\0';
    return hint_for(err, sys);
}

uint64_t pk_plane_build(void)
{
    /* FNV-1a over the object: tells one build of the programs from another, no more. */
    size_t size;
    const uint8_t *p = plane_bpf__elf_bytes(&size);
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ p[i]) * 0x100000001b3u;
    return sum;
}

static struct plane_bpf *open_plane(struct pk_error *err)
{
    libbpf_set_print(keep_complaint);
    complaint[0] = '\0';
    struct plane_bpf *plane = plane_bpf__open();
    if (plane == NULL) {
        plane_error(err, errno, "cannot read the XDP programs");
        return NULL;
    }
    struct bpf_program *program;
    bpf_object__for_each_program(program, plane->obj) bpf_program__set_autoload(program, false);
    return plane;
}

static bool map_fits(int fd, const struct bpf_map *want)
{
    struct bpf_map_info info = { 0 };
    uint32_t len = sizeof info;
    return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == bpf_map__type(want) &&
           info.key_size == bpf_map__key_size(want) &&
           info.value_size == bpf_map__value_size(want) &&
           info.max_entries == bpf_map__max_entries(want);
}

static int pin_path(struct pk_broker *broker, const char *name, char **ret_path,
                    struct pk_error *err)
{
    *ret_path = pk_path_join(broker->pin_dir, name);
    return *ret_path != NULL ? 0 : pk_no_memory(err);
}

/* Takes over the pinned maps: all of them with this binary's layout, or none. */
static int reuse_maps(struct pk_broker *broker, struct plane_bpf *plane, size_t *ret_found,
                      struct pk_error *err)
{
    size_t found = 0;
    for (size_t i = 0; i < PK_MAP_COUNT; i++) {
        PK_CLEANUP(pk_free_p) char *path = NULL;
        int r = pin_path(broker, map_names[i], &path, err);
        if (r < 0)
            return r;
        int fd = bpf_obj_get(path);
        if (fd < 0 && errno == ENOENT)
            continue;
        if (fd < 0)
            return plane_error(err, errno, "cannot open a pinned map");
        broker->maps[i] = fd;
        found++;
        struct bpf_map *map = bpf_object__find_map_by_name(plane->obj, map_names[i]);
        if (map == NULL || !map_fits(fd, map))
            return pk_fail(err, PK_E_CONFLICT, "the pinned map %s has another layout",
                           map_names[i]);
        if (bpf_map__reuse_fd(map, fd) < 0)
            return plane_error(err, errno, "cannot use a pinned map again");
    }
    *ret_found = found;
    if (found == 0)
        return 0;
    if (found < PK_MAP_COUNT)
        return pk_fail(err, PK_E_CONFLICT, "only %zu of %d maps are pinned", found, PK_MAP_COUNT);
    uint32_t zero = 0;
    struct pk_meta meta;
    if (bpf_map_lookup_elem(broker->maps[PK_MAP_META], &zero, &meta) < 0)
        return plane_error(err, errno, "cannot read the pinned state");
    if (meta.magic != PK_BROKER_MAGIC || meta.abi != PK_BROKER_ABI)
        return pk_fail(err, PK_E_CONFLICT, "the pinned state is of version %u, this binary's is %u",
                       meta.abi, PK_BROKER_ABI);
    return 0;
}

static int pin_maps(struct pk_broker *broker, struct plane_bpf *plane, struct pk_error *err)
{
    for (size_t i = 0; i < PK_MAP_COUNT; i++) {
        PK_CLEANUP(pk_free_p) char *path = NULL;
        int r = pin_path(broker, map_names[i], &path, err);
        if (r < 0)
            return r;
        int fd = bpf_object__find_map_fd_by_name(plane->obj, map_names[i]);
        if (fd < 0 || bpf_obj_pin(fd, path) < 0)
            return plane_error(err, errno, "cannot pin a map");
        broker->maps[i] = bpf_obj_get(path);
        if (broker->maps[i] < 0)
            return plane_error(err, errno, "cannot open a pinned map");
    }
    return 0;
}

int pk_plane_open_maps(struct pk_broker *broker, struct pk_error *err)
{
    struct plane_bpf *plane = open_plane(err);
    if (plane == NULL)
        return err != NULL ? err->code : PK_E_INTERNAL;
    size_t found = 0;
    int r = reuse_maps(broker, plane, &found, err);
    if (r >= 0 && found == 0) {
        if (plane_bpf__load(plane) < 0)
            r = plane_error(err, errno, "the kernel refuses the broker's maps");
        else
            r = pin_maps(broker, plane, err);
    }
    plane_bpf__destroy(plane);
    return r < 0 ? r : (int)(found > 0);
}

int pk_map_write(struct pk_broker *broker, enum pk_plane_map map, uint32_t index, const void *value,
                 struct pk_error *err)
{
    if (bpf_map_update_elem(broker->maps[map], &index, value, BPF_ANY) == 0)
        return 0;
    pk_fail_errno(err, errno, "cannot write the map %s", map_names[map]);
    return hint_for(err, errno);
}

int pk_map_zero(struct pk_broker *broker, enum pk_plane_map map, uint32_t index, size_t size,
                struct pk_error *err)
{
    int cpus = libbpf_num_possible_cpus();
    if (cpus < 1)
        return pk_fail(err, PK_E_INTERNAL, "cannot tell the number of CPUs");
    PK_CLEANUP(pk_free_p) void *zeros = pk_zalloc_array((size_t)cpus, (size + 7) & ~(size_t)7);
    if (zeros == NULL)
        return pk_no_memory(err);
    return pk_map_write(broker, map, index, zeros, err);
}

/* An own map is made only for an instance that uses it. */
static void leave_out_own_maps(struct plane_bpf *plane)
{
    for (size_t i = 0; i < PK_OWN_COUNT; i++)
        (void)bpf_map__set_autocreate(bpf_object__find_map_by_name(plane->obj, own_names[i]),
                                      false);
}

static int load(struct pk_broker *broker, struct plane_bpf *plane, enum pk_plane_program program,
                int *ret_fd, struct pk_error *err)
{
    struct bpf_program *wanted =
        bpf_object__find_program_by_name(plane->obj, program_names[program]);
    bpf_program__set_autoload(wanted, true);
    int r = 0;
    for (size_t i = 0; i < PK_MAP_COUNT && r == 0; i++)
        r = bpf_map__reuse_fd(bpf_object__find_map_by_name(plane->obj, map_names[i]),
                              broker->maps[i]);
    if (r == 0)
        r = plane_bpf__load(plane);
    if (r < 0)
        return plane_error(err, errno, "the kernel refuses a program of the traffic plane");
    *ret_fd = fcntl(bpf_program__fd(wanted), F_DUPFD_CLOEXEC, 3);
    return *ret_fd >= 0 ? 0 : pk_fail_errno(err, errno, "cannot keep a program");
}

int pk_plane_load(struct pk_broker *broker, enum pk_plane_program program,
                  struct pk_plane_numbers numbers, int *ret_fd, struct pk_error *err)
{
    struct plane_bpf *plane = open_plane(err);
    if (plane == NULL)
        return err != NULL ? err->code : PK_E_INTERNAL;
    plane->rodata->seed = broker->seed;
    plane->rodata->tap_id = numbers.tap;
    plane->rodata->group_id = numbers.group;
    plane->rodata->lane_id = numbers.lane;
    plane->rodata->canary_mark = pk_broker_canary_mark(broker);
    plane->rodata->inline_side = numbers.side;
    plane->rodata->inline_closed = numbers.closed;
    plane->rodata->inline_fail_after = numbers.fail_after;
    plane->rodata->inline_token = pk_broker_probe_token(broker);
    plane->rodata->inline_frags = pk_plane_redirects_frags();
    leave_out_own_maps(plane);
    int r = load(broker, plane, program, ret_fd, err);
    plane_bpf__destroy(plane);
    return r;
}

static int take_own_maps(struct plane_bpf *plane, int own[PK_OWN_COUNT], struct pk_error *err)
{
    for (size_t i = 0; i < PK_OWN_COUNT; i++) {
        own[i] =
            fcntl(bpf_object__find_map_fd_by_name(plane->obj, own_names[i]), F_DUPFD_CLOEXEC, 3);
        if (own[i] < 0)
            return pk_fail_errno(err, errno, "cannot keep a map");
    }
    return 0;
}

static int emit_filters(struct pk_broker *broker, const struct pk_tap_setup *setup,
                        struct pk_filter_code *ret_code, struct pk_error *err)
{
    struct pk_filter_use uses[PK_GROUPS_MAX];
    for (size_t i = 0; i < setup->target_count; i++)
        uses[i] = (struct pk_filter_use){ .filter = setup->targets[i].filter,
                                          .name = broker->groups[setup->targets[i].group].key,
                                          .channel = setup->targets[i].tenant,
                                          .bit = (uint8_t)i };
    return pk_filter_emit(uses, setup->target_count, PK_FILTER_ROOM, ret_code, err);
}

int pk_plane_load_tap(struct pk_broker *broker, enum pk_plane_program program, uint32_t tap,
                      const struct pk_tap_setup *setup, const struct pk_instance_plan *plan,
                      int own[PK_OWN_COUNT], int *ret_fd, struct pk_error *err)
{
    PK_CLEANUP(pk_filter_code_done) struct pk_filter_code code = { 0 };
    int r = plan->constants.has_filters ? emit_filters(broker, setup, &code, err) : 0;
    if (r < 0)
        return r;
    int installed = pk_filter_install(plan->constants.has_filters ? &code : NULL);
    if (installed < 0)
        return pk_fail_errno(err, -installed, "cannot put filters into the tap's program");
    struct plane_bpf *plane = open_plane(err);
    if (plane == NULL) {
        (void)pk_filter_install(NULL);
        return err != NULL ? err->code : PK_E_INTERNAL;
    }
    plane->rodata->seed = broker->seed;
    plane->rodata->tap_id = tap;
    memcpy((void *)&plane->rodata->instance, &plan->constants, sizeof plan->constants);
    memcpy((void *)&plane->rodata->tunnel, &setup->tunnel, sizeof setup->tunnel);
    for (size_t i = 0; i < PK_OWN_COUNT && r == 0; i++)
        r = bpf_map__set_max_entries(bpf_object__find_map_by_name(plane->obj, own_names[i]),
                                     plan->sizes[i]);
    if (r < 0)
        r = plane_error(err, -r, "cannot size a map");
    if (r == 0)
        r = load(broker, plane, program, ret_fd, err);
    (void)pk_filter_install(NULL);
    if (r == 0)
        r = take_own_maps(plane, own, err);
    plane_bpf__destroy(plane);
    return r;
}

bool pk_plane_redirects_frags(void)
{
    /* Asked of the kernel's own description, not of its version: distributions take such things
     * back. The type came with the redirect of frames in several buffers (Linux 6.3). */
    static int known = -1;
    if (known < 0) {
        struct btf *btf = btf__load_vmlinux_btf();
        known = btf != NULL && btf__find_by_name_kind(btf, "netdev_xdp_act", BTF_KIND_ENUM) > 0;
        btf__free(btf);
    }
    return known > 0;
}

/* ---- links ---- */

/* Of Linux 6.6; headers of the baseline have neither. */
#define LINK_TYPE_TCX 11u
#define TCX_INGRESS   ((enum bpf_attach_type)46)

static int open_link(struct pk_broker *broker, const char *name, int *ret_fd, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = NULL;
    int r = pin_path(broker, name, &path, err);
    if (r < 0)
        return r;
    int fd = bpf_obj_get(path);
    if (fd < 0) {
        pk_fail_errno(err, errno, "cannot open the pinned link %s", name);
        return hint_for(err, errno);
    }
    *ret_fd = fd;
    return 0;
}

bool pk_link_is_on(struct pk_broker *broker, const char *name, unsigned ifindex)
{
    PK_CLEANUP(pk_close_p) int fd = -1;
    struct bpf_link_info info = { 0 };
    uint32_t len = sizeof info;
    if (ifindex == 0 || open_link(broker, name, &fd, NULL) < 0)
        return false;
    /* A link whose interface went has index 0. It stands at the same place for both types. */
    return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 &&
           (info.type == BPF_LINK_TYPE_XDP || info.type == LINK_TYPE_TCX) &&
           info.xdp.ifindex == ifindex;
}

int pk_link_program(struct pk_broker *broker, const char *name)
{
    PK_CLEANUP(pk_close_p) int fd = -1;
    struct bpf_link_info info = { 0 };
    uint32_t len = sizeof info;
    if (open_link(broker, name, &fd, NULL) < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
        return -1;
    return bpf_prog_get_fd_by_id(info.prog_id);
}

int pk_link_drop(const char *path, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int fd = bpf_obj_get(path);
    if (fd < 0 && errno == ENOENT)
        return 0;
    /* Without its pin the link would go too, but some time later: the interface would be taken for
     * whoever attaches next. */
    if (fd >= 0)
        (void)bpf_link_detach(fd); /* fails where the interface is gone */
    if (unlink(path) < 0 && errno != ENOENT)
        return pk_fail_errno(err, errno, "cannot remove %s", path);
    return 0;
}

int pk_link_remove(struct pk_broker *broker, const char *name, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = NULL;
    int r = pin_path(broker, name, &path, err);
    return r < 0 ? r : pk_link_drop(path, err);
}

int pk_link_renew(struct pk_broker *broker, const char *name, int program, struct pk_error *err)
{
    PK_CLEANUP(pk_close_p) int fd = -1;
    int r = open_link(broker, name, &fd, err);
    if (r < 0)
        return r;
    if (bpf_link_update(fd, program, NULL) == 0)
        return 0;
    pk_fail_errno(err, errno, "cannot renew the XDP program of %s", name);
    return hint_for(err, errno);
}

static const char *interface_name(unsigned ifindex, char name[IF_NAMESIZE])
{
    if (if_indextoname(ifindex, name) == NULL)
        snprintf(name, IF_NAMESIZE, "#%u", ifindex);
    return name;
}

static int is_taken(unsigned ifindex, struct pk_error *err)
{
    char name[IF_NAMESIZE];
    LIBBPF_OPTS(bpf_xdp_query_opts, query);
    if (bpf_xdp_query((int)ifindex, 0, &query) < 0 ||
        (query.prog_id == 0 && query.drv_prog_id == 0 && query.skb_prog_id == 0 &&
         query.hw_prog_id == 0))
        return 0;
    uint32_t id = query.prog_id       ? query.prog_id
                  : query.drv_prog_id ? query.drv_prog_id
                                      : query.skb_prog_id;
    struct bpf_prog_info info = { 0 };
    uint32_t len = sizeof info;
    PK_CLEANUP(pk_close_p) int fd = bpf_prog_get_fd_by_id(id);
    if (fd >= 0)
        (void)bpf_obj_get_info_by_fd(fd, &info, &len);
    pk_fail(err, PK_E_CONFLICT, "%s runs another XDP program already: %s (id %u)",
            interface_name(ifindex, name), info.name[0] != '\0' ? info.name : "unnamed", id);
    return pk_hint(err, "stop its owner, or detach it with 'ip link set dev %s xdp off'", name);
}

static int attach_error(unsigned ifindex, int sys, struct pk_error *err)
{
    char name[IF_NAMESIZE];
    interface_name(ifindex, name);
    switch (sys) {
    case EBUSY:
    case EEXIST:
        pk_fail(err, PK_E_CONFLICT, "%s runs another XDP program already", name);
        return pk_hint(err, "stop its owner, or detach it with 'ip link set dev %s xdp off'", name);
    case ENODEV:
        pk_fail(err, PK_E_NOTFOUND, "the interface %s is gone", name);
        return hint_for(err, sys);
    case EOPNOTSUPP:
        pk_fail(err, PK_E_UNSUPPORTED, "the driver of %s has no XDP", name);
        return pk_hint(err, "use an interface whose driver has it; 'picket doctor' lists them");
    case ERANGE:
    case EMSGSIZE:
    case EINVAL:
        pk_fail_errno(err, sys, "the driver of %s refuses XDP", name);
        return pk_hint(err,
                       "mostly its MTU is too large for XDP, or it has too many queues or LRO "
                       "on: try 'ip link set dev %s mtu 1500' and 'ethtool -K %s lro off'",
                       name, name);
    default:
        pk_fail_errno(err, sys, "cannot attach XDP to %s", name);
        return hint_for(err, sys);
    }
}

/* Is it this driver, or what its interface is set to, that has no XDP? Drivers have many ways to
 * say so: no such operation, too large an MTU (ENA), too few queues (veth). */
static bool is_drivers_refusal(int sys)
{
    switch (sys) {
    case EOPNOTSUPP:
    case EINVAL:
    case ERANGE:
    case ENOSPC:
    case EOVERFLOW:
    case EMSGSIZE:
    case E2BIG:
        return true;
    default:
        return false;
    }
}

int pk_link_attach(struct pk_broker *broker, const char *name, unsigned ifindex, int program,
                   bool native_only, enum pk_xdp_mode *ret_mode, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = NULL;
    int r = pin_path(broker, name, &path, err);
    if (r >= 0)
        r = pk_link_remove(broker, name, err); /* of an interface that went, or another one */
    char interface[IF_NAMESIZE];
    if (r >= 0 && if_indextoname(ifindex, interface) == NULL)
        return attach_error(ifindex, ENODEV, err); /* the kernel would say EINVAL */
    if (r >= 0)
        r = is_taken(ifindex, err);
    if (r < 0)
        return r;

    enum pk_xdp_mode mode = PK_XDP_NATIVE;
    LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
    PK_CLEANUP(pk_close_p) int fd = bpf_link_create(program, (int)ifindex, BPF_XDP, &opts);
    if (fd < 0 && is_drivers_refusal(errno) && !native_only) {
        mode = PK_XDP_GENERIC;
        opts.flags = XDP_FLAGS_SKB_MODE;
        fd = bpf_link_create(program, (int)ifindex, BPF_XDP, &opts);
    }
    if (fd < 0)
        return attach_error(ifindex, errno, err);
    if (bpf_obj_pin(fd, path) < 0) {
        pk_fail_errno(err, errno, "cannot pin %s", path);
        return hint_for(err, errno);
    }
    if (ret_mode != NULL)
        *ret_mode = mode;
    return 0;
}

int pk_link_attach_ingress(struct pk_broker *broker, const char *name, unsigned ifindex,
                           int program, struct pk_error *err)
{
    PK_CLEANUP(pk_free_p) char *path = NULL;
    char interface[IF_NAMESIZE];
    int r = pin_path(broker, name, &path, err);
    if (r >= 0)
        r = pk_link_remove(broker, name, err);
    if (r < 0)
        return r;
    if (if_indextoname(ifindex, interface) == NULL)
        return attach_error(ifindex, ENODEV, err);
    PK_CLEANUP(pk_close_p)
    int fd = bpf_link_create(program, (int)ifindex, TCX_INGRESS, NULL);
    if (fd < 0 && (errno == EINVAL || errno == EOPNOTSUPP))
        return pk_fail(err, PK_E_UNSUPPORTED, "the kernel has no BPF links at an ingress (tcx)");
    if (fd < 0) {
        pk_fail_errno(err, errno, "cannot put a program at the ingress of %s", interface);
        return hint_for(err, errno);
    }
    if (bpf_obj_pin(fd, path) < 0) {
        pk_fail_errno(err, errno, "cannot pin %s", path);
        return hint_for(err, errno);
    }
    return 0;
}
