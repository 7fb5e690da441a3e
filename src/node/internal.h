/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the agent. The plane (taps, groups, lanes) is owned by whoever holds the agent's mutex:
 * the main loop while it sweeps, an HTTP handler while it changes something.
 */
#ifndef PICKET_NODE_INTERNAL_H
#define PICKET_NODE_INTERNAL_H

#include <jansson.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/stat.h>

#include "base/common.h"
#include "base/error.h"
#include "base/paths.h"
#include "broker/broker.h"
#include "broker/inline.h"
#include "node/canary.h"
#include "node/health.h"
#include "node/level.h"
#include "node/nic.h"
#include "node/overload.h"
#include "node/shunt.h"
#include "node/targets.h"
#include "spec/tunnel.h"

struct nl_sock;
struct rtnl_link;
struct pk_replay;

#define PK_NODE_NAME_MAX   63u                 /* fleets, groups, taps: a DNS label */
#define PK_NODE_LANES_MAX  PK_BROKER_LANES_MAX /* in all groups */
#define PK_NODE_GROUPS_MAX PK_BROKER_GROUPS_MAX
#define PK_NODE_TAPS_MAX   PK_BROKER_TAPS_MAX
#define PK_NODE_MTU_MIN    576u
#define PK_NODE_MTU_MAX    65521u
/* veth drops a redirected frame longer than its MTU + Ethernet header + one VLAN tag
 * (veth_xdp_xmit), so links get room for a second tag. */
#define PK_NODE_MTU_ROOM 8u
/* What fits one page with XDP's headroom and the kernel's own part at its end. */
#define PK_NODE_MTU_ONE_PAGE 3498u

/* ---- names.c: pure ---- */
/* The last part of pk_lane_netns_path(). */
char *pk_lane_netns_name(const char *tag, const char *fleet, const char *group, unsigned index);
/* "<tag><kind><8 hex digits of the key's hash>": 15 bytes, the kernel's limit. kind: 'l' a lane's
 * outer end, 'i' the second one of an inline lane, 't' a replay tap, 's' the end that a replay
 * sends into. */
void pk_node_link_name(const char *tag, char kind, const char *key, char out[16]);
/* A name that the kernel takes for an interface. */
bool pk_node_is_interface_name(const char *text);

/* ---- netns.c ---- */
/* Runs fn in the namespace, on a thread of its own, so that no other thread ever leaves its own. */
int pk_netns_run(int netns_fd, int (*fn)(void *arg, struct pk_error *err), void *arg,
                 struct pk_error *err);
/* Opens the namespace mounted at path, making it (with IPv6 off) when it is not there. *ret_made
 * tells which. */
int pk_netns_ensure(const char *path, int *ret_fd, bool *ret_made, struct pk_error *err);
int pk_netns_remove(const char *path, struct pk_error *err); /* absent is success */
bool pk_netns_is_at(const char *path, int netns_fd);         /* is that one still mounted there? */
/* Removes all of /run/netns whose name starts with prefix and which keep() does not claim. */
int pk_netns_remove_all(const char *prefix, bool (*keep)(void *arg, const char *name), void *arg,
                        struct pk_error *err);

/* What is held open of a lane's namespace: all calls on it work from any thread of the agent. */
struct pk_netns {
    int fd;        /* the namespace */
    int ioctl_fd;  /* for ethtool */
    int packet_fd; /* /proc/net/packet */
    int diag_fd;   /* pk_sockets_list(); -1 where the kernel has none */
    struct nl_sock *nl;
};
#define PK_NETNS_INIT \
    ((struct pk_netns){ .fd = -1, .ioctl_fd = -1, .packet_fd = -1, .diag_fd = -1 })
int pk_netns_open_take(int fd, struct pk_netns *ret_netns, struct pk_error *err);
void pk_netns_done(struct pk_netns *netns);
/* Whether a packet socket that takes everything is bound to the interface (or to all) there. */
int pk_netns_has_reader(const struct pk_netns *netns, unsigned ifindex, bool *ret_reader,
                        struct pk_error *err);
/* The same on the text of /proc/net/packet. Pure. */
bool pk_packet_table_has_reader(const char *text, unsigned ifindex);

/* ---- links.c ---- */
#define PK_LINK_ALIAS_SIZE 200
struct pk_link {
    unsigned ifindex;
    unsigned peer_ifindex; /* of a veth, in the peer's namespace; else 0 */
    unsigned mtu;
    unsigned flags;  /* IFF_* */
    unsigned queues; /* receive queues */
    bool is_veth;
    char name[16];
    char alias[PK_LINK_ALIAS_SIZE]; /* cut where longer */
};
int pk_nl_open(struct nl_sock **ret_nl, struct pk_error *err);
void pk_nl_close(struct nl_sock *nl);
PK_DEFINE_CLEANUP(struct nl_sock, pk_nl_close);
/* PK_E_NOTFOUND when there is none. */
int pk_link_get(struct nl_sock *nl, const char *name, struct pk_link *ret_link,
                struct pk_error *err);
/* The second end is made in the namespace peer_netns_fd (-1 = the same as the first). */
struct pk_veth {
    const char *name, *alias;
    const char *peer_name;
    int peer_netns_fd;
    unsigned mtu;
};
int pk_link_add_veth(struct nl_sock *nl, const struct pk_veth *veth, struct pk_error *err);
int pk_link_delete(struct nl_sock *nl, const char *name,
                   struct pk_error *err); /* absent: success */
/* Sets what differs. mtu 0 = leave. */
int pk_link_set(struct nl_sock *nl, const struct pk_link *link, unsigned mtu, unsigned flags_on,
                unsigned flags_off, struct pk_error *err);
/* Calls each() for every link of the namespace that nl was opened in. */
int pk_link_each(struct nl_sock *nl, void (*each)(void *arg, const struct pk_link *link), void *arg,
                 struct pk_error *err);
/* Removes all links that carry the instance's tag and that keep() does not claim. */
int pk_link_delete_all(struct nl_sock *nl, const char *tag,
                       bool (*keep)(void *arg, const char *name), void *arg, struct pk_error *err);
int pk_link_ipv6_off(const char *name, struct pk_error *err); /* in the caller's namespace */
/* Does a default route, of IPv4 or IPv6, go by this interface? */
int pk_link_has_default_route(const char *name, bool *ret_has, struct pk_error *err);

/* Offloads, as bits. */
#define PK_OFFLOAD_GRO     1u
#define PK_OFFLOAD_GSO     2u
#define PK_OFFLOAD_TSO     4u
#define PK_OFFLOAD_RX_CSUM 8u
#define PK_OFFLOAD_TX_CSUM 16u
#define PK_OFFLOAD_LRO     32u
#define PK_OFFLOAD_RX_VLAN 64u
#define PK_OFFLOADS_VETH \
    (PK_OFFLOAD_GRO | PK_OFFLOAD_GSO | PK_OFFLOAD_TSO | PK_OFFLOAD_RX_CSUM | PK_OFFLOAD_TX_CSUM)
#define PK_OFFLOADS_TAP (PK_OFFLOAD_GRO | PK_OFFLOAD_LRO | PK_OFFLOAD_RX_VLAN)
int pk_offloads_get(int ioctl_fd, const char *name, unsigned *ret_on, struct pk_error *err);
/* Switches the wanted bits; what a driver cannot change is left (PK_E_UNSUPPORTED when it matters:
 * something stays on that was to go off). */
int pk_offloads_set(int ioctl_fd, const char *name, unsigned bits, bool on, struct pk_error *err);
const char *pk_offload_name(unsigned bit);

/* ---- redirect.c ---- */
/* What XDP can send out of an interface: frames that fill a page at most, or all. */
enum pk_redirect { PK_REDIRECT_UNKNOWN, PK_REDIRECT_NONE, PK_REDIRECT_SMALL, PK_REDIRECT_ALL };
enum pk_redirect pk_link_redirect(unsigned ifindex);

/* ---- bpffs.c ---- */
int pk_bpffs_mount(const char *path, struct pk_error *err);
int pk_bpffs_unmount(const char *path, struct pk_error *err); /* not mounted is success */
bool pk_bpffs_mounted(const char *path);

/* ---- plane.c: what is wanted, and its file ---- */

/* An inline lane has a second veth pair: its tool copies packets from one to the other. */
struct pk_lane_second {
    char link_name[16];
    unsigned outer_ifindex, inner_ifindex;
    uint64_t answered[PK_SIDES]; /* probes, when its readers were seen first */
    bool through;                /* packets go through the tool */
    pk_nsec since;               /* wall clock; 0 = not looked at yet */
};

#define PK_LANE_READERS 8u
/* How the interface was before picket took it, to be put back. */
struct pk_tap_before {
    unsigned ifindex; /* 0 = nothing remembered */
    bool promisc, up;
    unsigned offloads; /* those of PK_OFFLOADS_TAP that were on */
    struct pk_nic_before nic;
    /* what there is: the interface was set up by this process, and what of that did not work */
    bool applied;
    struct pk_nic_change tried[PK_NIC_SETTINGS];
    size_t tried_count;
};

/* A lane's own interface, in its namespace as tap0. */
struct pk_lane_device {
    char name[16]; /* "" = the broker feeds the lane */
    struct pk_tap_before before;
};

struct pk_lane {
    char *fleet, *group, *key; /* key: "fleet/group/index" */
    unsigned index;
    unsigned mtu; /* 0 = as large as its group's taps need */
    bool is_inline;
    char fits[PK_SIDES][16]; /* of an inline lane: interfaces that its tap is to have, "" = any */
    /* what there is */
    unsigned live_mtu;
    char *netns_path;
    char link_name[16];
    struct pk_netns netns;
    unsigned outer_ifindex, inner_ifindex;
    struct pk_lane_second second; /* of an inline lane */
    struct pk_lane_device device; /* the interface that feeds it instead of the broker */
    bool attached; /* by this process, so that programs are renewed after an upgrade */
    bool leaving;  /* its removal did not work: the sweep tries again */
    unsigned left_tries;
    bool working, reader;
    struct {
        pk_nsec since;      /* the same sockets are there without a break; 0 = there is none */
        uint64_t signature; /* of the sockets */
        bool ring;          /* all have one */
    } gate;
    struct pk_reader readers[PK_LANE_READERS]; /* processes, as far as they are known */
    size_t reader_count;
    struct pk_health_state health;
    bool drained;   /* wanted: its slots are with the others, until it is restored */
    pk_nsec lease;  /* the same until then, without being kept; 0 = not so */
    bool draining;  /* flows stay in it still */
    uint64_t ends;  /* of its readers, since the agent started */
    uint64_t given; /* packets handed to its tools when the last of them ended */
    struct pk_overload_lane overload;
    struct pk_ring_place rings[PK_LANE_READERS];
    uint64_t told, lost; /* what the tools said last (PUT .../report) */
    pk_nsec told_at;     /* monotonic */
    struct pk_lane_canary canary;
    char detail[200];
};

struct pk_group {
    char *fleet, *name, *key;
    struct pk_broker_share *shares;
    size_t share_count;
    enum pk_hash_mode hash;
    char *tenant;      /* "" = none */
    unsigned priority; /* its tenant's: groups of lower ones are shed first */
    struct pk_shunt_spec shunt;
    struct pk_overload_spec overload;
    pk_nsec drain; /* how long flows may stay where their slot was; 0 = not at all */
    bool rebalance;
    pk_nsec canary; /* from one to the next in each lane; 0 = none */
    /* what there is */
    bool working;
    bool ruled;         /* its rule of shunts is in force */
    uint64_t sent;      /* packets to its lanes, at the last look */
    pk_nsec traffic_at; /* when that changed last; 0 = never */
    struct pk_level level;
    struct pk_overload over;
    double over_sent; /* packets, in about a second */
    bool over_known;  /* what an agent before this one shed */
    cpu_set_t cpus;   /* of its tools */
    uint64_t waited;  /* nanoseconds that its tools waited for a processor */
    bool starves;     /* they get too little of it */
    char detail[200];
};

enum pk_tap_kind { PK_TAP_INTERFACE, PK_TAP_REPLAY, PK_TAP_INLINE, PK_TAP_TUNNEL };
extern const char *const pk_node_tap_kinds[PK_TAP_TUNNEL + 1]; /* as the API names them */
enum pk_tap_state { PK_TAP_UP, PK_TAP_MISSING, PK_TAP_DETACHED };

/* Of an inline tap: what it has besides an interface tap. */
struct pk_tap_inline {
    char interface[16]; /* of the other side */
    bool closed;
    unsigned fail_after_ms;
    struct pk_tap_before before;
    unsigned ifindex;
};

struct pk_tap {
    char *fleet, *name, *key; /* key: "fleet/name" */
    struct pk_targets targets;
    enum pk_tap_kind kind;
    char interface[16]; /* of an interface tap: the wanted one; of a replay: our link */
    unsigned mtu;       /* of a replay tap */
    struct pk_tap_inline other;
    struct pk_tunnel_config tunnel; /* of a tunnel tap */
    struct pk_nic_spec nic;         /* not of a replay tap */
    struct pk_tap_before before;
    bool leaving;        /* its removal began: an agent that starts now ends it */
    bool detached;       /* by its removal: the interface may have to be put back still */
    unsigned left_tries; /* removals that did not work */
    /* what there is */
    char send_name[16];
    unsigned ifindex, live_mtu;
    enum pk_xdp_mode mode;
    enum pk_tap_state state;
    bool attached;
    struct pk_broker_tunnel live_tunnel; /* with the interface's addresses, as attached */
    size_t left_out;                     /* addresses that have no room there */
    char detail[200];
    struct pk_replay *replay;
    json_t *loss; /* of the interface (loss.h), as read last; NULL = not yet */
    pk_nsec loss_at;
};

struct pk_plane {
    struct pk_lane **lanes;
    struct pk_group **groups;
    struct pk_tap **taps;
    size_t lane_count, group_count, tap_count;
};
int pk_lane_new(const char *tag, const char *fleet, const char *group, unsigned index, unsigned mtu,
                struct pk_lane **ret_lane, struct pk_error *err);
void pk_lane_free(struct pk_lane *lane);
PK_DEFINE_CLEANUP(struct pk_lane, pk_lane_free);
int pk_group_new(const char *fleet, const char *name, const struct pk_broker_share *shares,
                 size_t count, struct pk_group **ret_group, struct pk_error *err);
void pk_group_free(struct pk_group *group);
PK_DEFINE_CLEANUP(struct pk_group, pk_group_free);
/* interface: of an interface tap, else NULL; mtu: of a replay tap, else 0. It has no targets yet.
 */
int pk_tap_new(const char *tag, const char *fleet, const char *name, enum pk_tap_kind kind,
               const char *interface, unsigned mtu, struct pk_tap **ret_tap, struct pk_error *err);
void pk_tap_free(struct pk_tap *tap); /* its replay was stopped before */
PK_DEFINE_CLEANUP(struct pk_tap, pk_tap_free);

void pk_node_plane_done(struct pk_plane *plane);
/* Take the thing; PK_E_NOSPACE beyond the limits above, PK_E_NOMEM. On failure it stays the
 * caller's. */
int pk_node_plane_add_lane_take(struct pk_plane *plane, struct pk_lane *lane, struct pk_error *err);
int pk_node_plane_add_group_take(struct pk_plane *plane, struct pk_group *group,
                                 struct pk_error *err);
int pk_node_plane_add_tap_take(struct pk_plane *plane, struct pk_tap *tap, struct pk_error *err);
/* NULL when there is none. */
struct pk_lane *pk_node_plane_lane(const struct pk_plane *plane, const char *key);
struct pk_group *pk_node_plane_group(const struct pk_plane *plane, const char *fleet,
                                     const char *name);
struct pk_tap *pk_node_plane_tap(const struct pk_plane *plane, const char *fleet, const char *name);
/* Out of the list; the caller owns it then. */
void pk_node_plane_drop_lane(struct pk_plane *plane, const struct pk_lane *lane);
void pk_node_plane_drop_group(struct pk_plane *plane, const struct pk_group *group);
void pk_node_plane_drop_tap(struct pk_plane *plane, const struct pk_tap *tap);

/* {"tunnel":{..},"nic":{..}} as a PUT call may have them, each where it says something. */
json_t *pk_tap_options_to_json(const struct pk_tap *tap);

/* The bodies of PUT calls and the parts of plane.json are read by the same functions. All of the
 * input is checked: unknown keys, types, ranges. */
int pk_lane_parse(const char *tag, const char *fleet, const char *group, unsigned index,
                  const json_t *body, struct pk_lane **ret_lane, struct pk_error *err);
int pk_group_parse(const char *fleet, const char *name, const json_t *body,
                   struct pk_group **ret_group, struct pk_error *err);
int pk_tap_parse(const char *tag, const char *fleet, const char *name, const json_t *body,
                 struct pk_tap **ret_tap, struct pk_error *err);
int pk_check_name(const char *what, const char *name, struct pk_error *err);
/* Unknown members of an object are PK_E_INVALID with a did-you-mean hint. */
int pk_check_keys(const char *what, const json_t *object, const char *const *keys, size_t count,
                  struct pk_error *err);
/* A whole number within the limits; the member may be missing when there is a default (>= 0). */
int pk_check_uint(const char *what, const json_t *object, const char *key, uint64_t min,
                  uint64_t max, int64_t fallback, uint64_t *ret_value, struct pk_error *err);

int pk_node_plane_parse(const char *tag, const char *name, const char *text, size_t len,
                        struct pk_plane *ret_plane, struct pk_error *err);
json_t *pk_node_plane_to_json(const struct pk_plane *plane); /* NULL = out of memory */
/* An absent file is an empty plane. */
int pk_node_plane_load(const char *tag, const char *path, struct pk_plane *ret_plane,
                       struct pk_error *err);
int pk_node_plane_save(const struct pk_plane *plane, const char *path, struct pk_error *err);

/* ---- lane.c, tap.c: make one thing as it should be ---- */
struct pk_agent;
/* Makes what is missing and repairs what is changed; cheap when all is well. */
int pk_lane_ensure(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err);
int pk_lane_remove(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err);
/* Makes room for the tap's packets in the lanes that follow it. */
void pk_lanes_follow(struct pk_agent *agent, const struct pk_tap *tap);
int pk_tap_ensure(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err);
/* Detaches and puts the interface back as it was. */
int pk_tap_remove(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err);

/* The interface as a tap needs it; what it was is remembered in before, and in plane.json. */
int pk_tap_take_interface(struct pk_agent *agent, struct pk_tap *tap, const char *name,
                          struct pk_tap_before *before, struct pk_link *ret_link,
                          struct pk_error *err);
/* As it was. */
int pk_tap_restore_interface(struct pk_agent *agent, const char *name,
                             const struct pk_tap_before *before, struct pk_error *err);

/* Undoes the set-up of the tap's interfaces; the next look sets them up anew. */
void pk_tap_give_back_nic(struct pk_agent *agent, struct pk_tap *tap);
/* What is set, and what cannot be (pk_nic_status()). */
json_t *pk_tap_nic_status(const struct pk_agent *agent, const struct pk_tap *tap);

/* ---- inline.c ---- */
int pk_inline_tap_parse(const json_t *body, struct pk_tap_inline *ret_inline, struct pk_error *err);
json_t *pk_inline_tap_options(const struct pk_tap *tap); /* what the above reads */
int pk_inline_tap_check(const struct pk_tap *tap, struct pk_error *err);
int pk_inline_tap_ensure(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err);
int pk_inline_tap_remove(struct pk_agent *agent, struct pk_tap *tap, struct pk_error *err);
/* What GET /v1/plane tells in "inline" of a tap and of a lane, from pk_broker_counters(). NULL =
 * out of memory. */
json_t *pk_inline_tap_status(const struct pk_agent *agent, const struct pk_tap *tap,
                             const json_t *counters);
json_t *pk_inline_lane_status(const struct pk_lane *lane, const json_t *counters);
/* Notes, and tells, when packets begin to go past the lane's tool, or through it again. */
void pk_inline_lane_watch(struct pk_agent *agent, struct pk_lane *lane);
/* "inline" of a lane: true, or {"interfaces":[NAME,NAME]}, whose packets must fit from the start: a
 * tool learns the MTU when it begins. */
int pk_inline_lane_parse(const json_t *json, struct pk_lane *lane, struct pk_error *err);
json_t *pk_inline_lane_options(const struct pk_lane *lane);
unsigned pk_inline_lane_mtu(const struct pk_agent *agent, const struct pk_lane *lane);
int pk_inline_lane_attach(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err);
/* Do packets get through the lane's tool, in both directions, since its readers were seen? */
int pk_inline_lane_answers(struct pk_agent *agent, struct pk_lane *lane, bool *ret_answers,
                           struct pk_error *err);
/* Remembers what came back so far: what counts for the above comes later. */
void pk_inline_lane_mark(struct pk_agent *agent, struct pk_lane *lane);
/* Tells the prober which lanes there are. */
void pk_inline_refresh_probes(struct pk_agent *agent);
/* ---- gate.c ---- */
/* Looks for readers, opens or shuts the lane's gate, and has its slots follow. */
void pk_lane_poll_reader(struct pk_agent *agent, struct pk_lane *lane);
/* When the agent starts: as an agent before it left the lane, until it has been looked at. */
void pk_lane_adopt(struct pk_agent *agent, struct pk_lane *lane);
/* Lets go of the processes that were watched. */
void pk_lane_forget_readers(struct pk_lane *lane);

/* ---- slots.c: which lanes of a group get packets ---- */
/* The group's slots as its lanes' health and the wishes for it say. */
int pk_group_ensure(struct pk_agent *agent, struct pk_group *group, struct pk_error *err);
/* A lane came, went, or is well or ill: its group's slots follow at once. */
void pk_lane_changed(struct pk_agent *agent, struct pk_lane *lane);
/* Adds to rows of the plane. */
void pk_group_describe(const struct pk_group *group, json_t *row);
void pk_lane_describe(const struct pk_agent *agent, const struct pk_lane *lane, json_t *row);
/* Judges the lane's health. */
void pk_agent_look_at_lane(struct pk_agent *agent, struct pk_lane *lane);

/* ---- level.c ---- */
#define PK_NODE_PACKET_LOAD 256u /* a packet's load is this and its bytes */
/* Each second; loads: of the shares' lanes since they were made. */
void pk_level_look(struct pk_agent *agent, struct pk_group *group,
                   const struct pk_broker_share *shares, const uint64_t *loads, pk_nsec now);

/* ---- device.c: lanes that a whole interface feeds ---- */
static inline bool pk_lane_has_device(const struct pk_lane *lane)
{
    return lane->device.name[0] != '\0';
}
/* Takes the interface into the lane's namespace, which is there. */
int pk_device_lane_ensure(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err);
/* Gives it back, from wherever it is. */
int pk_device_lane_release(struct pk_agent *agent, struct pk_lane *lane, struct pk_error *err);
/* Brings lanes' devices home from a namespace that is to go, without knowing of the lanes. */
void pk_device_rescue(const char *netns_path);
/* {"packets","bytes","ringDropped"} as the interface counts since it exists; NULL = not there. */
json_t *pk_device_lane_counters(const struct pk_lane *lane);

/* ---- tunnel.c ---- */
/* What the tap's program is to take, with the addresses that the interface has now: as many as it
 * can know, how many are left out. */
int pk_tunnel_tap_rules(const struct pk_tap *tap, struct pk_broker_tunnel *ret_tunnel,
                        size_t *ret_left_out, struct pk_error *err);

/* ---- inventory.c ---- */
int pk_node_inventory(struct nl_sock *nl, int ioctl_fd, const char *tag, json_t **ret_json,
                      struct pk_error *err);

/* ---- privileges.c ---- */
int pk_node_check_rights(struct pk_error *err);
int pk_node_drop_rights(struct pk_error *err);

#endif
