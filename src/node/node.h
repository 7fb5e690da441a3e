/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
/*
 * The agent: owns this machine's taps, lanes and broker. Its desired plane is kept in
 * <state>/node/plane.json, so it converges by itself after a restart or a reboot; serve changes it
 * over <run>/node.sock (HTTP+JSON, root or the owner only):
 *
 * GET /v1/node
 *     {"hostname","kernel","cpus","numaNodes","memoryBytes","pid","version",
 *      "interfaces":[{"name","mtu","driver","queues","speedMbps","state","defaultRoute","setup":{..}}]}
 *     setup: struct pk_nic_facts (spec/nic.h)
 * GET /v1/plane
 *     {"taps":[{"fleet","name","kind","interface","groups":[..] (as PUT),"mtu",
 *               "mode":"native|generic|none","state":"up|missing|detached","detail","packets","bytes",
 *               "tenants":[..] (as PUT, with "packets","bytes", and "" for what none claims),
 *               "dropped","reasons":{},"replay":{..}|null, and what else the broker counts of a tap}],
 *      "groups":[{"fleet","name","detail","hash","tenant","priority","generation","ranges":[..],
 *                 and what else the broker counts of a group (broker/broker.h)}],
 *      "lanes":[{"fleet","group","index","netns","interface","mtu","state":"ready|unread|broken",
 *                "detail","slots","packets","bytes","dropped","unread","ringDropped","blocked"}]}
 *     an inline tap and its lanes have "inline":{"state":"inline|bypassing|blocking" (of a lane:
 *     "inline|bypassed"),"since","directions":[{..},{..}]} and a tap also "lanes","lanesThrough",
 *     "failure","failAfterMs"; the counters are those of broker/inline.h
 *     a tap of an interface has "options":{"tunnel","inline","nic"} (as PUT) and "setup":{"set":[{"setting",
 *     "from","to"}],"cannot":[{..,"why"}]}: how its interface is set up, and what it cannot be; "passed":
 *     packets that a tunnel tap left to the machine
 *     a lane that an interface feeds has "device", and that interface's counters
 *     a tap also has "nic": what its interface lost, as of loss.h
 *     dropped of a lane = unread + ringDropped; detail is "" where all is well
 *     more of a lane: "health":"healthy|slow|silent|stalled|dead","why","drain":null|{"leaving" (it is to be
 *     without slots), "state":"draining|drained",
 *     "slots","flows","leftMs"} (slots that drain from it, flows alive in them), "canary":{"state":
 *     "off|waiting|back|silent","sent","seen","lastSeen","delayMs"}, "canaries": packets of those that its
 *     tools were given, which no other counter has; "ends" and "given": how
 *     often its last reader ended since the agent started, and what its tools had been given by then
 *     more of a group: "options" has "drain", "rebalance" and "canary" where they differ from 30 s, "auto" and 30 s, "balance":{"state":"off|even|measuring|elephant",
 *     "unevenness" (the hottest lane's load over the mean),"moved" (slots),"detail"}
 * PUT /v1/fleets/{fleet}/lanes/{group}/{index}   {"mtu":N}   0 = as large as its group's taps need
 *     {"netns":"/run/netns/..","interface":"tap0"}
 *     with "inline":{"interfaces":["a","b"]} a lane of an inline tap: two veth pairs, tap0 and tap1, as
 *     large as those need ("inline":true: not known yet)
 *     with "device":"eth5" that interface is moved into the namespace as tap0, until the lane goes
 * DELETE /v1/fleets/{fleet}/lanes/{group}/{index}   conflict while its group sends to it
 * PUT /v1/fleets/{fleet}/lanes/{group}/{index}/drain   its slots go to the other lanes: new TCP flows at
 *     once, known ones when they end or after the group's deadline; body {}, or {"leaseMs":N}: only for so
 *     long from now, 0 ends it; DELETE: they come back the same way
 * PUT /v1/fleets/{fleet}/lanes/{group}/{index}/report   {"packets","dropped"}: what its tools say of
 *     themselves since they started, for the lane's health
 * PUT /v1/fleets/{fleet}/lanes/{group}/{index}/canary   {"token":"32 hex digits","seen":[NUMBER..],
 *     "delayMs":N}: canaries (base/canary.h) are wanted in the lane for 15 s from now; those came back last
 * PUT /v1/fleets/{fleet}/groups/{group}   {"lanes":[{"index":0,"weight":1}],"hash":"outer|flow|addresses",
 *     "tenant":"lab","priority":100,"drain":{"deadlineMs":30000},"rebalance":"auto|off","canary":{"everyMs":30000}}   not-found while a lane is not there
 *     tenant: whose packets the taps give it, and its priority (1 to 1000; lower ones are shed first);
 *     "shunt":{"after":BYTES,"ports":[..],"idleSeconds":60}: flows of which it sees no more;
 *     "overload":{"shunt":false,"shed":false}: what is done while its lanes cannot take all
 * DELETE /v1/fleets/{fleet}/groups/{group}   conflict while a tap sends to it
 * PUT /v1/fleets/{fleet}/taps/{tap}   {"kind":"interface","interface":"ens2f0",..} or
 *     {"kind":"inline","interface":"eth2","inline":{"interface":"eth3","failure":"open|closed",
 *         "failAfterMs":200},..} with one group of inline lanes, no tenant, no filter, or
 *     {"kind":"tunnel","interface":"eth1","tunnel":{"types":["vxlan","geneve","gre","erspan"],
 *         "port":4789 (where there is one UDP type),"decapsulate":true,"addresses":["10.0.0.5"]},..} or
 *                                     {"kind":"replay","mtu":9000,..}, each with
 *     "nic":{"rings","queues","symmetricHash","vlanOffload","mergeOffloads","flowControl","coalescing"}, as
 *         in the fleet file (not of a replay), and
 *     "groups":[{"name":"g","tenant":"lab","filter":"not port 9200"}], up to 8 of a tenant and 8 without
 *         one, which get what no tenant claims; or "group":"g", one group that gets all
 *     "tenants":[{"name":"lab","vlans":[110,"100.200"],"vnis":[7001],"greKeys":[17],
 *                 "erspanSessions":[5],"prefixes":["10.20.0.0/16"]}]
 *         in the order in which they claim packets; one without selectors claims all
 *     not-found while a group or the interface is not there
 * DELETE /v1/fleets/{fleet}/taps/{tap}
 * POST /v1/fleets/{fleet}/taps/{tap}/replay
 *     {"files":["/abs.pcap"],"mode":"recorded|rate|fast","speed":1.0,"maxGapMs":2000,"pps":N,"mbps":N,
 *      "loops":1 (0 = endless)}; answers as GET; conflict while one runs
 * GET /v1/fleets/{fleet}/taps/{tap}/replay
 *     {"state":"running|done|failed|none","sent","bytes","oversize","failed","truncated","cutGaps","loop",
 *      "elapsedMs","error":text|null, and where it applies "hint","stopped":true}
 * DELETE /v1/fleets/{fleet}/taps/{tap}/replay   stops it; answers as GET
 * POST /v1/fleets/{fleet}/shunts
 *     {"flows":[{"src","srcPort","dst","dstPort","proto":"tcp|udp|sctp"}],"groups":["g"],"keepBytes":0,
 *      "idleSeconds":60,"ttlSeconds":86400,"by":"zeek"}: all but flows may be left out
 *     {"added","known","full"}: flows times groups
 * GET /v1/fleets/{fleet}/shunts?group=&limit=&page=   {"shunts":[..],"page":text|null}
 * DELETE /v1/fleets/{fleet}/shunts   {"flows":[..],"groups":[..]} or {"all":true,"groups":[..]}; {"removed"}
 * GET /v1/fleets/{fleet}/shunts/stats?top=10
 *     {"entries","most","refused","unrecorded","groups":[{"name","entries","packets","bytes","passedPackets",
 *      "passedBytes"}],"top":[..]}
 * DELETE /v1/plane   everything of this instance goes
 * GET /metrics   all counters as OpenMetrics text (docs/reference/metrics.md)
 *
 * All calls are idempotent. PUT answers when the thing works; a call that fails leaves what was. DELETE
 * answers when the thing is gone; what cannot be removed stays known, and the agent goes on trying.
 */
/* clang-format on */
#ifndef PICKET_NODE_NODE_H
#define PICKET_NODE_NODE_H

#include <sys/types.h>

#include "base/common.h"
#include "base/error.h"
#include "base/paths.h"

struct pk_node_options {
    struct pk_paths paths;
    gid_t socket_gid;    /* (gid_t)-1 = root only */
    const char *metrics; /* "127.0.0.1:9433": GET /metrics there too, in clear; NULL = not */
};
/* The daemon: runs until SIGTERM or SIGINT, leaves the plane running. */
int pk_node_run(const struct pk_node_options *options, struct pk_error *err);
/* Without a daemon ('picket down'): removes every trace of the instance from the kernel (taps,
 * lanes, namespaces, links, pins, the bpffs), puts interfaces back as they were, and forgets the
 * desired plane. PK_E_CONFLICT while an agent runs. Nothing to do is success, without root too. */
int pk_node_clean(const struct pk_paths *paths, struct pk_error *err);

/* "/run/netns/<tag>-<fleet>-<group>-<index>", shortened with a hash where a name gets over 64
 * bytes. Pure; fleet passes it to plan through pk_placement. Release with pk_free(). */
char *pk_lane_netns_path(const char *tag, const char *fleet, const char *group, unsigned index);

#endif
