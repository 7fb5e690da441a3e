/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a tap's packets a group wants: a libpcap expression, which looks at the frame as tcpdump
 * does, from its outermost header on; or fields, which look at the innermost flow. Compiled here,
 * matched here in user space, and translated for the BPF path by broker/filter.h. Both give the
 * same answer:
 *
 * Only the first PK_PARSE_WINDOW bytes of a frame are looked at. An expression that reads beyond
 * the frame's end does not match (as libpcap has it); one that reads beyond the window but within
 * the frame cannot be decided, and the packet passes: rather one too many than one lost.
 *
 * A filter is never changed once made; any number of threads may match.
 */
#ifndef PICKET_PACKET_FILTER_H
#define PICKET_PACKET_FILTER_H

#include <jansson.h>

#include "base/common.h"
#include "base/error.h"

/* libpcap's optimiser takes a time that grows with the cube of the text: a second for this much. */
#define PK_FILTER_TEXT_MAX 4096u
#define PK_FILTER_LIST_MAX 512u /* entries under one key */

struct pk_flow;

/* One instruction of classic BPF (McCanne and Jacobson, USENIX 1993), as the kernel's sock_filter.
 */
struct pk_filter_op {
    uint16_t code;
    uint8_t jt;
    uint8_t jf;
    uint32_t k;
};

struct pk_filter_vlan {
    uint16_t outer;
    uint16_t inner; /* PK_FILTER_NO_VLAN: any, or none */
};
#define PK_FILTER_NO_VLAN 0xffffu

/* As struct pk_flow has addresses, so that (address & mask) == net tells. */
struct pk_filter_prefix {
    uint64_t net[2];
    uint64_t mask[2];
    uint8_t family; /* 4 or 6 */
    uint8_t bits;
};

struct pk_filter_ports {
    uint16_t from; /* host order, both included */
    uint16_t to;
};

/* Entries of a list are alternatives; each list that is not empty must have one that matches, and
 * so must the expression. */
struct pk_filter {
    unsigned others; /* that hold it too; pk_filter_ref() */
    char *text;      /* see pk_filter_text() */
    struct pk_filter_op *ops;
    size_t op_count; /* 0 = no expression */
    struct pk_filter_vlan *vlans;
    size_t vlan_count;
    struct pk_filter_prefix *prefixes;
    size_t prefix_count;
    struct pk_filter_ports *ports;
    size_t port_count;
    uint8_t *protocols;
    size_t protocol_count;
    uint32_t *vnis;
    size_t vni_count;
};

/* Where a filter is wrong, for the caller to point at the place in its file. */
struct pk_filter_fault {
    const char *key; /* "expression", "vlans", ...; NULL = all of it */
    size_t index;    /* of the list's entry */
    unsigned column; /* in the expression, from 1; 0 = cannot be told */
};

/*
 * value is the text of an expression, or an object of
 *   expression   text
 *   vlans        [110, "100.200"]      outermost tag's id; or those of the two outermost
 *   prefixes     ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]     of either end of the flow
 *   ports        [53, "8000-8100"]     of either end
 *   protocols    ["tcp", "icmp", 89]   the IP protocol, or IPv6's last next header
 *   vnis         [5001]                of VXLAN or GENEVE, the outermost one's
 * with at least one of them. What has no ports because it is a later fragment passes "ports". An
 * expression names no hosts, since names are never looked up, and has no loops ("protochain").
 *
 * PK_E_INVALID: *ret_fault says where, when not NULL. May take a second; any thread.
 */
int pk_filter_compile(const json_t *value, struct pk_filter **ret_filter,
                      struct pk_filter_fault *ret_fault, struct pk_error *err);
/* Of an expression alone. */
int pk_filter_compile_text(const char *expression, struct pk_filter **ret_filter,
                           struct pk_error *err);
/* Of instructions, as if an expression had become them: tests. text is for pk_filter_text(). */
int pk_filter_compile_ops(const struct pk_filter_op *ops, size_t count, const char *text,
                          struct pk_filter **ret_filter, struct pk_error *err);
/* One more that holds it, and frees it for itself. */
struct pk_filter *pk_filter_ref(struct pk_filter *filter);
void pk_filter_free(struct pk_filter *filter);
PK_DEFINE_CLEANUP(struct pk_filter, pk_filter_free);

/* Equal texts, equal filters: the expression if that is all, else the object as canonical JSON. */
const char *pk_filter_text(const struct pk_filter *filter);
/* Has it fields, so that pk_filter_match() needs the flow? */
bool pk_filter_needs_flow(const struct pk_filter *filter);

/* frame: at least the first PK_PARSE_WINDOW bytes of a frame of len bytes, or all of it. flow:
 * of pk_flow_parse() in PK_HASH_FLOW; may be NULL unless pk_filter_needs_flow(). */
bool pk_filter_match(const struct pk_filter *filter, const void *frame, size_t len,
                     const struct pk_flow *flow);

/* "110", "100.200"; ids are 0 (priority tag) to 4094. */
int pk_filter_vlan_parse(const char *text, struct pk_filter_vlan *ret_vlan, struct pk_error *err);

#endif
