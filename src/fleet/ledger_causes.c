/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of counters: what each says, where, why, and what to do about it. Rows of one thing
 * stand together. A packet is in one row of LOSS or CHOICE at most, so that sums are exact; a NOTE
 * may count it again.
 */
#include <string.h>

#include "fleet/ledger.h"

/* clang-format off */
#define NIC    PK_LEDGER_NIC
#define TAP    PK_LEDGER_TAP
#define TENANT PK_LEDGER_TENANT
#define GROUP  PK_LEDGER_GROUP
#define LANE   PK_LEDGER_LANE
#define TOOL   PK_LEDGER_TOOL
static const struct pk_ledger_row rows[] = {
    /* ---- the interface and its driver: before any of our programs sees the packet ---- */
    { NIC, PK_LEDGER_LOSS, "lost.ring", "nic-ring", "interface",
      "the interface's receive ring was full: the CPU did not empty it in time",
      "enlarge the ring and use more queues (taps[].nic), keep other work off the CPUs that its "
      "interrupts go to, or let fewer packets through (filter, shunt)" },
    { NIC, PK_LEDGER_LOSS, "lost.port", "nic-port", "interface",
      "the interface's own buffer was full: the machine did not take packets over the bus in time",
      "put the card into a slot with more lanes, on the NUMA node of the CPUs that read it" },
    { NIC, PK_LEDGER_LOSS, "lost.damaged", "nic-damaged", "interface",
      "the frame came damaged (checksum, alignment, symbol errors)",
      "check the cable, the transceiver and the mirror port's speed and duplex" },
    { NIC, PK_LEDGER_LOSS, "lost.length", "nic-length", "interface",
      "the frame was longer than the interface takes, or shorter than a frame is",
      "raise the interface's MTU to the longest frame of the mirrored network, tags included" },
    { NIC, PK_LEDGER_LOSS, "lost.driver", "nic-driver", "interface",
      "the driver dropped it without saying why",
      "'ethtool -S INTERFACE' has the driver's own counters; see its documentation" },
    { NIC, PK_LEDGER_LOSS, "lost.sender", "nic-sender", "interface",
      "the virtual link did not take it from its other end: ring full, or frame too long",
      "send more slowly, give the receiving CPU less other work, or raise the MTU" },

    /* ---- the tap's program ---- */
    { TAP, PK_LEDGER_IN, "packets", "", "tap", "", "" },
    { TAP, PK_LEDGER_CHOICE, "unclaimed", "unclaimed", "tap",
      "no group takes the traffic of its tenant",
      "give the tenant a group in the fleet file, or take the tenant out" },
    { TAP, PK_LEDGER_LOSS, "reasons.tenant-unknown", "tenant-unknown", "tap",
      "a later fragment of a tunnelled packet, whose first fragment was not seen: nobody knows "
      "whose it is",
      "see that the mirror delivers all fragments, in order; a larger MTU on the tunnel's way "
      "avoids fragments" },

    { TAP, PK_LEDGER_CHOICE, "bypassed", "bypassed", "inline tap",
      "it went past the tool: none was there, or it did not answer",
      "'picket status' says since when, and why; taps[].inline.failure: closed drops it instead" },
    { TAP, PK_LEDGER_LOSS, "withheld", "inline-blocked", "inline tap",
      "no tool was there or it did not answer, and the tap fails closed",
      "'picket status' says why the tool does not run; taps[].inline.failure: open lets it past" },
    { TAP, PK_LEDGER_LOSS, "notSent", "wire-gone", "inline tap",
      "the interface that it was to leave by was gone, or it was too large for this kernel (above "
      "3,498 bytes before Linux 6.3)",
      "plug the interface in again; 'picket status' says what is wrong" },

#define READ(reason, text, remedy) \
    { TAP, PK_LEDGER_NOTE, "reasons." reason, reason, "tap", text, remedy },
    READ("non-ip", "neither IPv4 nor IPv6: went to the group's first lane",
         "nothing to do: no packet is lost by it")
    READ("vlan-depth", "more VLAN tags than are read: went to the group's first lane",
         "nothing to do: no packet is lost by it")
    READ("encapsulated", "PPP control, MACsec and the like: went to the group's first lane",
         "nothing to do: no packet is lost by it")
    READ("bad-header", "a header contradicts itself: went to the group's first lane",
         "a few are normal on the Internet; many: check the mirror for damaged packets")
    READ("truncated", "ends within its headers: went to the group's first lane",
         "let the mirror port cut nothing (snap length)")
    READ("too-deep", "too many or too long headers: went to the group's first lane",
         "nothing to do: no packet is lost by it")
    READ("tunnel", "a tunnel, not looked into: went by the tunnel's addresses",
         "groups[].hash 'flow' spreads what is inside")
    READ("other-protocol", "a protocol without ports: went by address pair",
         "nothing to do: no packet is lost by it")
    READ("fragment-unknown",
         "a fragment before its first one: went by address pair, perhaps to another lane than its "
         "flow",
         "see that the mirror delivers fragments in order; hash 'addresses' keeps them with their "
         "flow")
    READ("tunnel-malformed", "cut or contradictory inside a tunnel: went by the tunnel's addresses",
         "nothing to do: no packet is lost by it")
    READ("tunnel-too-deep",
         "too many or too long headers in a tunnel: went by the tunnel's addresses",
         "nothing to do: no packet is lost by it")
    READ("mirror-malformed",
         "a tunnel to this machine that contradicts itself: left to the machine",
         "check the sender of the mirror")
    READ("mirror-fragment",
         "a fragment of a mirror's packet: delivered with its outer headers",
         "raise the MTU on the mirror's way, so that nothing is fragmented")
    READ("mirror-closed",
         "the tunnel's headers were not in one piece: delivered with them",
         "nothing to do: no packet is lost by it")
    READ("unwanted",
         "no group wanted it: filters and shunts left it out",
         "nothing to do: each group counts it as filtered or shunted")
#undef READ
    { TAP, PK_LEDGER_NOTE, "copiesLost", "copies-lost", "tap",
      "packets for several groups that came to the program at the interface's ingress without their "
      "lanes",
      "nothing to do: they are in the groups' not-sent; report it, it should not happen" },

    /* ---- a group: filter, shunt, slot ---- */
    { TENANT, PK_LEDGER_IN, "packets", "", "tap", "", "" },
    { GROUP, PK_LEDGER_IN, "packets", "", "group", "", "" },
    { GROUP, PK_LEDGER_CHOICE, "filtered", "filtered", "filter",
      "the group's filter does not take it", "change groups[].filter if it was to be seen; an expression looks behind a VLAN tag only "
      "after 'vlan'" },
    { GROUP, PK_LEDGER_CHOICE, "shunted", "shunted", "shunt",
      "its flow is shunted: counted, no longer delivered",
      "'picket shunt list' shows the flows; change groups[].shunt if they were to be seen" },
    { GROUP, PK_LEDGER_LOSS, "shed", "shed", "overload",
      "the group's lanes could not take all: whole flows were left out, in place of some packets of "
      "all",
      "more lanes, a filter, a shunt rule; groups[].overload says what is left out" },
    { GROUP, PK_LEDGER_LOSS, "yielded", "yielded", "overload",
      "the lanes of a tenant of higher priority could not take all: whole flows of this one were "
      "left out",
      "more CPUs, lanes with CPUs of their own (cpu: dedicated), a filter; or another priority of "
      "the tenants" },
    { GROUP, PK_LEDGER_LOSS, "noLane", "no-lane", "slot table",
      "the group had no lane that takes packets",
      "'picket status' says what is wrong with its lanes; apply the fleet again" },
    { GROUP, PK_LEDGER_LOSS, "notSent", "not-sent", "redirect",
      "the kernel could not send it to the lane: the lane's interface is gone or down, or there "
      "was no memory for the copy",
      "the agent repairs lanes by itself; if it goes on, see the agent's log" },
    { GROUP, PK_LEDGER_OUT, "sent", "", "group", "", "" },

    /* ---- a lane ---- */
    { LANE, PK_LEDGER_IN, "sent", "", "lane", "", "" },
    { LANE, PK_LEDGER_LOSS, "ringDropped", "lane-ring", "lane's ring",
      "the lane's interface did not take it: its receive ring was full, or the frame is longer "
      "than the lane's MTU",
      "more lanes or CPUs; where the lane's MTU is set by hand, leave it out, so that it follows "
      "the taps" },
    { LANE, PK_LEDGER_LOSS, "unread", "unread", "lane",
      "it arrived while no tool read the lane",
      "'picket status' says why the tool does not run; after a restart a lane opens when the "
      "tool reads" },
    { LANE, PK_LEDGER_NOTE, "blocked", "blocked", "lane",
      "a tool tried to send, which lanes do not let out",
      "look at the tool's configuration: it should only read" },

    /* ---- a tool ---- */
    { TOOL, PK_LEDGER_IN, "handed", "", "tool", "", "" },
    { TOOL, PK_LEDGER_CHOICE, "absent", "tool-absent", "tool",
      "the tool was not in the lane yet, others read it",
      "nothing to do: it counts from when the tool was added" },
    { TOOL, PK_LEDGER_LOSS, "dropped", "tool-ring", "tool's ring",
      "the tool did not read its ring in time",
      "more lanes, a larger ring, fewer or cheaper rules, a shunt rule for elephant flows" },
    { TOOL, PK_LEDGER_LOSS, "unconfirmed", "unconfirmed", "tool",
      "it was in the tool's ring when the tool ended or did not answer: nobody knows whether it "
      "was read",
      "see why the tool ended: 'picket status', 'picket logs'" },
    { TOOL, PK_LEDGER_OUT, "delivered", "", "tool", "", "" },

    /* ---- what the tool says about what it was given ---- */
#define SURICATA(path, cause, text, remedy)                      \
    { TOOL, PK_LEDGER_NOTE, "notes." path, cause, "in the tool", text, remedy },
    SURICATA("decoderInvalid", "undecodable", "packets that the tool could not decode",
             "damaged or cut packets: check snap lengths and the MTU on the mirror's way")
    SURICATA("reassemblyGap", "stream-gap", "gaps in TCP streams: packets that the tool never saw",
             "lost before picket: check the mirror port's own drops; or asymmetric mirroring")
    SURICATA("segmentMemcap", "segment-memcap", "TCP segments left out: the tool's memory limit",
             "raise the tool's memory and its stream.reassembly.memcap")
    SURICATA("sessionMemcap", "session-memcap", "TCP sessions left out: the tool's memory limit",
             "raise the tool's memory and its stream.memcap")
    SURICATA("flowMemcap", "flow-memcap", "flows left out: the tool's memory limit",
             "raise the tool's memory and its flow.memcap, or use more lanes")
    SURICATA("wrongThread", "wrong-thread", "packets of a flow that came to different threads",
             "a fault of the balancing inside the tool: one thread per lane avoids it")
    SURICATA("alertOverflow", "alert-overflow", "alerts of one packet beyond what the tool keeps",
             "raise packet-alert-max")
#undef SURICATA
};
/* clang-format on */

const struct pk_ledger_row *pk_ledger_rows(size_t *ret_count)
{
    *ret_count = PK_ARRAY_SIZE(rows);
    return rows;
}

const struct pk_ledger_row *pk_ledger_cause(const char *cause)
{
    for (size_t i = 0; i < PK_ARRAY_SIZE(rows); i++)
        if (rows[i].cause[0] != '\0' && strcmp(rows[i].cause, cause) == 0)
            return &rows[i];
    return NULL;
}

const char *pk_ledger_thing_name(enum pk_ledger_thing thing)
{
    static const char *const names[PK_LEDGER_THINGS] = { "nic",   "tap",  "tenant",
                                                         "group", "lane", "tool" };
    return names[thing];
}
