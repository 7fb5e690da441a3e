# SPDX-License-Identifier: Apache-2.0
"""Tenants and several groups on a tap: with numbered packets through the agent, and with Suricata in a whole instance."""
import collections
import itertools
import json
import os
import re
import struct
import subprocess
import threading
import time

import pytest

from conftest import Refused, wait_until
from lanes import Reader, Wire, frame
from whole import Whole, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent needs root")

# What the packets of each tenant look like on the wire; None: of nobody.
LAB, OFFICE, NOBODY = "lab", "office", ""
TENANTS = [{"name": LAB, "vlans": [110, "200.10"], "vnis": [7001]},
           {"name": OFFICE, "prefixes": ["10.20.0.0/16", "2001:db8:20::/48"]}]
GROUPS = [{"name": "lab-a", "tenant": LAB}, {"name": "lab-b", "tenant": LAB},
          {"name": "office-a", "tenant": OFFICE}, {"name": "office-b", "tenant": OFFICE, "filter": "udp port 53"},
          {"name": "rest"}]
LANES = {"lab-a": 2, "lab-b": 1, "office-a": 2, "office-b": 1, "rest": 1}
NUMBER = re.compile(rb"n=(\d{8})")


def vxlan(inner, vni, source="172.16.0.1", target="172.16.0.2"):
    """A frame in VXLAN."""
    header = struct.pack("!II", 0x08000000, vni << 8)
    return frame(source, target, 40000 + len(inner) % 1000, 4789, header + inner, protocol=17)


def numbered(n, protocol=17, port=53, source="192.0.2.1", target="198.51.100.1", vlans=()):
    payload = f"n={n:08d};".encode() + b"x" * (n * 7 % 300)
    return frame(source, target, 20000 + n % 40000, port, payload, protocol, vlans)


def packets_of(n):
    """One packet of each kind, with its number and whose it is."""
    kinds = [
        (LAB, lambda i: numbered(i, vlans=[(0x8100, 110)])),
        (LAB, lambda i: numbered(i, 6, 80, vlans=[(0x88A8, 200), (0x8100, 10)])),
        (LAB, lambda i: vxlan(numbered(i, 6, 443), 7001)),
        # in two tenants: the first one has it
        (LAB, lambda i: numbered(i, source="10.20.3.4", vlans=[(0x8100, 110)])),
        (OFFICE, lambda i: numbered(i, source="10.20.1.2")),
        (OFFICE, lambda i: numbered(i, 6, 80, target="10.20.1.2")),
        (OFFICE, lambda i: numbered(i, source="2001:db8:20::1", target="2001:db8:99::1")),
        (OFFICE, lambda i: vxlan(numbered(i, source="10.20.9.9"), 7002)),
        (NOBODY, lambda i: numbered(i)),
        (NOBODY, lambda i: numbered(i, 6, 80, vlans=[(0x88A8, 200), (0x8100, 11)])),
        (NOBODY, lambda i: numbered(i, vlans=[(0x8100, 111)])),
        (NOBODY, lambda i: vxlan(numbered(i), 7002)),
    ]
    owner, make = kinds[n % len(kinds)]
    return owner, make(n)


@pytest.fixture
def wire(idle_instance):
    made = Wire(idle_instance.tag)
    yield made
    made.unplug()


@pytest.fixture
def readers():
    made = []

    def attach(instance, lanes):
        by_group = {}
        for group, count in lanes.items():
            by_group[group] = [Reader(instance.lane(i, group)) for i in range(count)]
            made.extend(by_group[group])
        wait_until(lambda: all(lane["state"] == "ready" for lane in instance.plane()["lanes"]), 20, "open lanes")
        return by_group

    yield attach
    for reader in made:
        reader.close()


def make_groups(instance, lanes):
    for group, count in lanes.items():
        for index in range(count):
            instance.put(f"/v1/fleets/f/lanes/{group}/{index}", {"mtu": 0})
        instance.put(f"/v1/fleets/f/groups/{group}", {"lanes": [{"index": i, "weight": 1} for i in range(count)],
                                                      "hash": "flow"})


def put_tap(instance, wire, groups, tenants):
    instance.put("/v1/fleets/f/taps/t",
                 {"kind": "interface", "interface": wire.far, "groups": groups, "tenants": tenants})


def numbers(readers):
    return collections.Counter(int(m[1]) for r in readers for f in r.frames if (m := NUMBER.search(f)))


def group(instance, name):
    return next(g for g in instance.plane()["groups"] if g["name"] == name)


def check_sums(instance, sent):
    """What came in is what was counted of it, exactly: at the tap, in each group, in its lanes. Returns the plane."""
    plane = instance.plane()
    (tap,) = plane["taps"]
    assert tap["packets"] == sent
    assert sum(tenant["packets"] for tenant in tap["tenants"]) == sent
    for row in plane["groups"]:
        ways = [row[key] for key in ("filtered", "shunted", "shed", "yielded", "noLane", "notSent", "sent")]
        assert row["packets"] == sum(ways), row
        lanes = [lane for lane in plane["lanes"] if lane["group"] == row["name"]]
        assert row["sent"] == sum(lane["packets"] + lane["ringDropped"] for lane in lanes)
    return plane


def test_each_group_sees_its_tenant_once(instance, wire, readers):
    make_groups(instance, LANES)
    put_tap(instance, wire, GROUPS, TENANTS)
    by_group = readers(instance, LANES)
    wanted = collections.defaultdict(set)
    total = 3600
    for n in range(total):
        owner, data = packets_of(n)
        wanted[owner].add(n)
        wire.send(data)
        if n % 50 == 49:
            time.sleep(0.005)
    wait_until(lambda: sum(group(instance, g)["packets"] for g in LANES) ==
               2 * len(wanted[LAB]) + 2 * len(wanted[OFFICE]) + len(wanted[NOBODY]), 10, "all to be counted")
    plain_dns = {n for n in wanted[OFFICE] if n % 12 in (4, 6)}  # udp port 53 in the outermost headers
    expected = {"lab-a": wanted[LAB], "lab-b": wanted[LAB], "office-a": wanted[OFFICE], "office-b": plain_dns,
                "rest": wanted[NOBODY]}
    for name, numbers_wanted in expected.items():
        wait_until(lambda name=name, want=numbers_wanted: len(numbers(by_group[name])) >= len(want), 5, name)
        got = numbers(by_group[name])
        assert set(got) == numbers_wanted and set(got.values()) == {1}, name
        assert all(len(r.frames) > 100 for r in by_group[name]), "a lane of the group got nothing"
    plane = check_sums(instance, total)
    (tap,) = plane["taps"]
    counted = {tenant["name"]: tenant["packets"] for tenant in tap["tenants"]}
    assert counted == {owner: len(of) for owner, of in wanted.items()}
    assert tap["unclaimed"] == 0 and tap["dropped"] == 0
    assert group(instance, "office-b")["filtered"] == len(wanted[OFFICE]) - len(plain_dns)


def test_frames_of_any_size_reach_all_groups(instance, wire, readers):
    """Also those that are too large to be cloned in XDP."""
    for end in (wire.near, wire.far):
        subprocess.run(["ip", "link", "set", end, "mtu", "9000"], check=True)
    lanes = {"lab-a": 1, "lab-b": 1, "rest": 1}
    make_groups(instance, lanes)
    put_tap(instance, wire, [{"name": "lab-a", "tenant": LAB}, {"name": "lab-b", "tenant": LAB}, {"name": "rest"}],
            TENANTS[:1])
    by_group = readers(instance, lanes)
    sizes = [60, 500, 1500, 2900, 3100, 3400, 3600, 4100, 5000, 8000, 8900]
    sent = []
    for n, size in enumerate(sizes * 5):
        tags = [(0x8100, 110)] if n % 3 else []
        data = frame("10.1.0.1", "10.2.0.2", 2000 + n, 80, f"n={n:08d};".encode() + b"y" * (size - 64 + 10), 17, tags)
        sent.append((n, bool(tags), data))
        wire.send(data)
        time.sleep(0.002)
    for name, of_lab in (("lab-a", True), ("lab-b", True), ("rest", False)):
        want = [data for _, lab, data in sent if lab == of_lab]
        wait_until(lambda name=name, want=want: len(by_group[name][0].frames) >= len(want), 5, name)
        assert sorted(by_group[name][0].frames) == sorted(want), name
    check_sums(instance, len(sent))


def test_unclaimed(instance, wire, readers):
    """What belongs to a tenant without a group on the tap goes to nobody, and is counted."""
    lanes = {"office-a": 1}
    make_groups(instance, lanes)
    put_tap(instance, wire, [{"name": "office-a", "tenant": OFFICE}], TENANTS)
    by_group = readers(instance, lanes)
    for n in range(240):
        wire.send(packets_of(n)[1])
    wait_until(lambda: instance.tap()["packets"] == 240, 5, "all packets")
    wait_until(lambda: len(by_group["office-a"][0].frames) == 80, 5, "the office's packets")
    plane = check_sums(instance, 240)
    assert plane["taps"][0]["unclaimed"] == 160 == plane["taps"][0]["dropped"]


class Stream:
    """Numbered packets of all kinds into a wire, steadily, until it is stopped."""

    def __init__(self, wire):
        self.wire, self.sent, self.ending = wire, 0, False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ending:
            for _ in range(12):
                self.wire.send(packets_of(self.sent)[1])
                self.sent += 1
            time.sleep(0.003)

    def stop(self):
        self.ending = True
        self.thread.join()


def test_changes_lose_nothing(instance, wire, readers):
    """Tenants, filters, groups and their order change while packets flow: each packet goes to exactly one tenant's
    groups, to all of them, by the old or by the new, and the sums are exact."""
    lanes = {"lab-a": 1, "lab-b": 1, "office-a": 1, "office-b": 1, "rest": 1}
    make_groups(instance, lanes)
    everything = [dict(g, filter=None) for g in GROUPS]
    everything = [{k: v for k, v in g.items() if v} for g in everything]
    put_tap(instance, wire, everything, TENANTS)
    by_group = readers(instance, lanes)
    stream = Stream(wire)
    configurations = [
        (everything, TENANTS),
        (everything, [dict(TENANTS[0], vlans=[111]), TENANTS[1]]),
        (everything, list(reversed(TENANTS))),
        ([dict(g, filter="udp") if g["name"] == "lab-b" else g for g in everything], TENANTS),
        ([dict(g, filter={"ports": [53]}) if g["name"] == "office-b" else g for g in everything], TENANTS),
        ([g for g in everything if g["name"] != "office-b"], TENANTS),
        ([dict(g, tenant=OFFICE) if g["name"] == "lab-b" else g for g in everything], TENANTS),
        (everything, TENANTS[:1] + [dict(TENANTS[1], prefixes=["10.20.1.0/24"])]),
    ]
    deadline, changes = time.monotonic() + 8, 0
    for groups, tenants in itertools.cycle(configurations):
        put_tap(instance, wire, groups, tenants)
        changes += 1
        if time.monotonic() > deadline and changes >= 2 * len(configurations):
            break
        time.sleep(0.05)
    put_tap(instance, wire, everything, TENANTS)
    stream.stop()
    total = stream.sent
    wait_until(lambda: instance.tap()["packets"] == total, 5, "all packets")
    time.sleep(0.5)
    seen = {name: numbers(of) for name, of in by_group.items()}
    assert all(reader.dropped() == 0 for of in by_group.values() for reader in of), "the test was too slow"
    for name, of in seen.items():
        assert set(of.values()) <= {1}, f"{name} got a packet twice"
    # These three always have a group without a filter: each packet is in exactly one of them.
    firsts = seen["lab-a"] + seen["office-a"] + seen["rest"]
    assert set(firsts) == set(range(total)) and set(firsts.values()) == {1}
    # No group ever sees what its tenant's first group does not; lab-b was the office's for a time.
    assert set(seen["office-b"]) <= set(seen["office-a"])
    assert set(seen["lab-b"]) <= set(seen["lab-a"]) | set(seen["office-a"])
    # By no configuration is this anybody else's.
    assert {n for n in range(total) if n % 12 == 2} <= set(seen["lab-a"])
    assert {n for n in range(total) if n % 12 == 11} <= set(seen["rest"])
    check_sums(instance, total)
    print(f"{changes} changes, {total} packets")


def test_tap_survives_the_agent_with_its_tenants(instance, wire, readers):
    lanes = {"lab-a": 1, "rest": 1}
    make_groups(instance, lanes)
    put_tap(instance, wire, [{"name": "lab-a", "tenant": LAB, "filter": "udp or (vlan and udp)"}, {"name": "rest"}],
            TENANTS)
    by_group = readers(instance, lanes)
    before = instance.tap()
    stream = Stream(wire)
    time.sleep(0.3)
    instance.stop(9)
    time.sleep(0.3)
    instance.start()
    time.sleep(1)
    stream.stop()
    total = stream.sent
    wait_until(lambda: instance.tap()["packets"] == total, 5, "all packets")
    after = instance.tap()
    for key in ("groups", "interface", "mode", "state"):
        assert after[key] == before[key]
    assert [{key: row[key] for key in tenant} for row, tenant in zip(after["tenants"], TENANTS)] == TENANTS
    want = {n for n in range(total) if n % 12 in (0, 2, 3)}  # VXLAN is udp too
    wait_until(lambda: len(numbers(by_group["lab-a"])) >= len(want), 5, "the lab's packets")
    assert set(numbers(by_group["lab-a"])) == want
    check_sums(instance, total)


def test_what_is_refused(instance, wire):
    make_groups(instance, {"a": 1, "b": 1})
    good = {"kind": "interface", "interface": wire.far, "groups": [{"name": "a"}]}
    cases = [
        (404, {"groups": [{"name": "a"}, {"name": "nowhere"}]}, "no group 'nowhere'"),
        (422, {"groups": []}, "groups"),
        (422, {"groups": [{"name": "a", "tenant": "lab"}]}, "no tenant 'lab'"),
        (422, {"groups": [{"name": "a", "filter": "prot 80"}]}, "prot"),
        (422, {"tenants": [{"name": "lab", "vlans": [4095]}]}, "4094"),
        (422, {"tenants": [{"name": "lab", "prefixes": ["10.0.0.1/8"]}]}, "bits set"),
        (422, {"tenants": [{"name": "lab"}, {"name": "lab"}]}, "twice"),
    ]
    for status, change, text in cases:
        with pytest.raises(Refused) as refused:
            instance.put("/v1/fleets/f/taps/t", {**good, **change})
        assert refused.value.status == status and text in refused.value.error["message"], refused.value
    assert instance.plane()["taps"] == []
    put_tap(instance, wire, [{"name": "a"}, {"name": "b"}], [])
    with pytest.raises(Refused) as refused:
        instance.delete("/v1/fleets/f/groups/b")
    assert refused.value.status == 409
    put_tap(instance, wire, [{"name": "a"}], [])
    instance.delete("/v1/fleets/f/groups/b")
    assert [g["name"] for g in instance.plane()["groups"]] == ["a"]


# ---- with Suricata ----

FLEET = """apiVersion: picket.dev/v1alpha1
kind: Fleet
metadata: {{name: campus}}
spec:
  taps:
    - {{name: uplink, interface: {interface}}}
  tenants:
    - {{name: lab, match: {{vlans: {vlans}, vnis: [7001]}}}}
    - {{name: office, match: {{prefixes: [10.20.0.0/16]}}}}
  groups:
    - {{name: lab-ids, taps: [uplink], tenant: lab, lanes: 1, hash: flow, tools: [{{package: suricata@7, memory: 1GiB}}]}}
    - {{name: lab-dns, taps: [uplink], tenant: lab, lanes: 1, hash: flow, {filter}
       tools: [{{package: suricata@7, memory: 1GiB}}]}}
    - {{name: office-ids, taps: [uplink], tenant: office, lanes: 1, tools: [{{package: suricata@7, memory: 1GiB}}]}}
  events:
    sinks: [{{store: {{retain: 1d, sealAfter: 1s}}}}]
"""


def dns_query(name, number):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def ask(wire, name, number, tags=(), vni=None, source="192.0.2.7"):
    """A DNS query, one flow each."""
    data = frame(source, "198.51.100.53", 20000 + number, 53, dns_query(name, number), 17, tags)
    wire.send(vxlan(data, vni) if vni is not None else data)


def names_of(whole, group_name):
    """What the group's sensors saw being asked for."""
    records = [json.loads(event["raw"])["dns"] for event in whole.events(type="dns", group=group_name)]
    return {record["rrname"] for record in records if record["type"] == "query"}


@pytest.fixture
def campus(suricata_image):
    whole = Whole()
    wire = Wire("pw" + whole.tag()[2:])  # what carries the instance's own tag is no interface of the machine
    try:
        whole.up()
        yield whole, wire
    finally:
        whole.down()
        wire.unplug()


def test_sensors_see_only_their_tenant(campus):
    whole, wire = campus
    def text(vlans, extra=""):
        return FLEET.format(interface=wire.far, vlans=vlans, filter=extra)
    whole.apply(text("[110]", "filter: not port 54,"))
    wait_for("the fleet to be converged", 60, lambda: whole.status("campus")["state"] == "converged")

    def burst(first, count, lab_tag):
        wanted = collections.defaultdict(set)
        for n in range(first, first + count):
            kind = n % 4
            name = f"q{n}.{('lab', 'lab', 'office', 'nobody')[kind]}.example"
            if kind == 0:
                ask(wire, name, n, [(0x8100, lab_tag)])
            elif kind == 1:
                ask(wire, name, n, vni=7001)
            elif kind == 2:
                ask(wire, name, n, source=f"10.20.{n % 250}.9")
            else:
                ask(wire, name, n, [(0x8100, 999)])
            wanted[name.split(".")[1]].add(name)
            time.sleep(0.01)
        return wanted

    wanted = burst(0, 400, 110)
    for name, tenant in (("lab-ids", "lab"), ("lab-dns", "lab"), ("office-ids", "office")):
        wait_for(f"{name}'s events", 60, lambda name=name, tenant=tenant: wanted[tenant] <= names_of(whole, name))
        assert names_of(whole, name) == wanted[tenant]
    def tap_after(packets):  # what the status says is up to a second old
        return wait_for("all packets in the status", 10, lambda: next(
            (tap for tap in whole.status("campus")["taps"] if tap["packets"] == packets), None))
    tap = tap_after(400)
    assert tap["counters"]["unclaimed"] == len(wanted["nobody"])
    assert {t["name"]: t["packets"] for t in tap["tenants"]} == {
        "lab": len(wanted["lab"]), "office": len(wanted["office"]), "": len(wanted["nobody"])}
    table = whole.run("status", "campus").stdout
    assert re.search(r"lab +uplink +lab-dns, lab-ids +200", table), table
    assert re.search(r"\(none\) +uplink +nobody +100", table), table
    assert re.search(r"office-ids +office +100", table), table

    # The lab moves to another VLAN, and a filter changes, while packets flow.
    path = whole.write_fleet(text("[120]"), "changed.yaml")
    plan = whole.json("plan", path)
    assert "no packet is lost" in plan["traffic"] and "tenant" in plan["traffic"]
    assert [(s["op"], s["kind"], s["name"]) for s in plan["steps"]] == [("change", "tap", "uplink")]
    applied = threading.Thread(target=lambda: whole.run("apply", path, "--yes"))
    applied.start()
    more = burst(400, 400, 120)
    applied.join()
    late = burst(800, 80, 120)
    for name, tenant in (("lab-ids", "lab"), ("lab-dns", "lab"), ("office-ids", "office")):
        wait_for(f"{name}'s events", 60, lambda name=name, tenant=tenant: late[tenant] <= names_of(whole, name))
    by_vni = {n for n in more["lab"] if int(n[1:].split(".")[0]) % 4 == 1}
    for name in ("lab-ids", "lab-dns"):
        got = names_of(whole, name)
        assert by_vni <= got, "a packet of the lab was lost"
        assert got <= wanted["lab"] | more["lab"] | late["lab"]
    assert names_of(whole, "lab-ids") == names_of(whole, "lab-dns")
    assert names_of(whole, "office-ids") == wanted["office"] | more["office"] | late["office"]
    tap = tap_after(880)
    assert tap["packets"] == sum(t["packets"] for t in tap["tenants"])
    # Until the change, the lab's new VLAN was nobody's.
    missing = len(more["lab"] | late["lab"]) - len(names_of(whole, "lab-ids") - wanted["lab"])
    assert tap["counters"]["unclaimed"] == len(wanted["nobody"] | more["nobody"] | late["nobody"]) + missing
