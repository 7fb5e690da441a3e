# SPDX-License-Identifier: Apache-2.0
"""Shunts with real traffic: how soon they work, that all sums are exact while agents are killed, and that a record of
each comes into the store."""
import json
import os
import pathlib
import signal
import statistics
import struct
import subprocess
import threading
import time

import pytest

from conftest import wait_until
from lanes import Reader, Wire
from standin import StandIns
from whole import Whole, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent needs root")
FIN, SYN, RST, ACK = 1, 2, 4, 16
CLIENT, SERVER = "10.1.2.3", "192.0.2.7"


def packet(sport, number, flags=ACK, back=False, size=200):
    """A TCP packet of the flow CLIENT:sport - SERVER:443, with its number."""
    a, b = bytes(map(int, CLIENT.split("."))), bytes(map(int, SERVER.split(".")))
    ports = (sport, 443)
    if back:
        a, b, ports = b, a, ports[::-1]
    payload = (b"PKTN" + struct.pack("!II", sport, number)).ljust(size - 54, b"x")
    tcp = struct.pack("!HHIIBBHHH", *ports, 1, 1, 5 << 4, flags, 65535, 0, 0) + payload
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 7, 0, 64, 6, 0) + a + b
    return b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + ip + tcp


def flow(sport):
    return {"src": CLIENT, "srcPort": sport, "dst": SERVER, "dstPort": 443, "proto": "tcp"}


def numbers(reader, sport):
    """The numbers of the flow's packets that the reader got."""
    out = []
    for data in list(reader.frames):
        at = data.find(b"PKTN")
        if at >= 0 and struct.unpack_from("!I", data, at + 4)[0] == sport:
            out.append(struct.unpack_from("!I", data, at + 8)[0])
    return out


class Bed:
    def __init__(self, instance, lanes=2, group=None):
        self.instance = instance
        self.wire = Wire("sh" + instance.tag[2:])
        self.sent = self.bytes = 0
        for index in range(lanes):
            instance.put(f"/v1/fleets/f/lanes/g/{index}", {"mtu": 1500})
        body = {"lanes": [{"index": i, "weight": 1} for i in range(lanes)], "hash": "flow", **(group or {})}
        instance.put("/v1/fleets/f/groups/g", body)
        self.readers = [Reader(instance.lane(index)) for index in range(lanes)]
        for index in range(lanes):
            wait_until(lambda: instance.lane(index)["state"] == "ready", 10, "the lane to be ready")
        instance.put("/v1/fleets/f/taps/t", {"kind": "interface", "interface": self.wire.far,
                                             "groups": [{"name": "g"}]})

    def send(self, *args, **options):
        data = packet(*args, **options)
        self.wire.send(data)
        self.sent += 1
        self.bytes += len(data)

    def group(self):
        """The group's counters, once all that was sent is in them; their sum is exact."""
        def settled():
            plane = self.instance.plane()
            return plane["taps"][0]["packets"] == self.sent and plane
        plane = wait_until(settled, 5, "all packets to be counted")
        group = plane["groups"][0]
        count = group
        assert count["packets"] == self.sent and count["bytes"] == self.bytes
        outcomes = ["filtered", "shunted", "shed", "yielded", "noLane", "notSent", "sent"]
        assert count["packets"] == sum(count[name] for name in outcomes)
        assert count["bytes"] == sum(count[name + "Bytes"] for name in outcomes)
        arrived = sum(lane["packets"] + lane["ringDropped"] for lane in plane["lanes"])
        assert arrived == count["sent"]
        return count

    def got(self, sport):
        time.sleep(0.2)
        return sorted(n for reader in self.readers for n in numbers(reader, sport))

    def shunts(self):
        out, page = [], ""
        while page is not None:
            answer = self.instance.get("/v1/fleets/f/shunts" + (f"?page={page}" if page else ""))
            out += answer["shunts"]
            page = answer["page"]
        return out

    def records(self):
        out = []
        for path in sorted(self.instance.state.glob("units/*.shunts/log/shunt-*.json")):
            out += [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return out

    def close(self):
        for reader in self.readers:
            reader.close()
        self.wire.unplug()


@pytest.fixture
def bed(instance):
    made = []

    def make(**options):
        made.append(Bed(instance, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_effect_is_at_once(bed):
    """How long after the request does the last packet of the flow come through?"""
    bed = bed()
    took = []
    for sport in range(2000, 2020):
        ending, when = threading.Event(), []

        def run():
            while not ending.is_set():
                when.append(time.monotonic())
                bed.send(sport, len(when) - 1)
                time.sleep(0.0002)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.03)
        asked = time.monotonic()
        assert bed.instance.call("POST", "/v1/fleets/f/shunts", {"flows": [flow(sport)], "by": "test"})["added"] == 1
        answered = time.monotonic()
        time.sleep(0.03)
        ending.set()
        thread.join()
        got = bed.got(sport)
        assert got == list(range(len(got))) and len(got) < len(when)
        assert all(when[n] < answered + 0.001 for n in got[:-1])
        took.append(max(0, when[got[-1]] - asked) * 1000)
    print(f"\nrequest to the last packet: median {statistics.median(took):.2f} ms, most {max(took):.2f} ms "
          "(with the request's own way)")
    assert statistics.median(took) < 50  # 5 is the target; the machine may be busy
    bed.group()


def test_sums_and_kills(bed):
    """Both directions, marks that pass, an agent killed in between, the record at the end."""
    bed = bed()
    for n in range(10):
        bed.send(3000, n, back=n % 2 == 1)
        bed.send(3001, n)
    bed.instance.call("POST", "/v1/fleets/f/shunts",
                      {"flows": [flow(3000)], "groups": ["g"], "idleSeconds": 2, "by": "zeek"})
    for n in range(10, 50):
        bed.send(3000, n, back=n % 2 == 1, size=100 + n)
        bed.send(3001, n)
    assert bed.instance.stop(signal.SIGKILL) == -signal.SIGKILL
    for n in range(50, 100):  # nobody is there but the kernel
        bed.send(3000, n, back=n % 2 == 1, size=100 + n)
        bed.send(3001, n)
    bed.instance.start()
    shunts = bed.shunts()
    assert len(shunts) == 1 and shunts[0]["by"] == "zeek" and shunts[0]["state"] == "live"
    assert shunts[0]["packetsFromSrc"] == shunts[0]["packetsFromDst"] == 45
    bed.send(3000, 100, FIN | ACK)
    bed.send(3000, 101, RST, back=True)
    for n in range(102, 110):
        bed.send(3000, n)
    assert bed.got(3000) == list(range(10)) + [100, 101]
    assert bed.got(3001) == list(range(100))
    count = bed.group()
    assert count["shunted"] == 90 + 8
    bytes_from_src = sum(100 + n for n in range(10, 100) if n % 2 == 0) + 8 * 200
    bytes_from_dst = sum(100 + n for n in range(10, 100) if n % 2 == 1)
    assert count["shuntedBytes"] == bytes_from_src + bytes_from_dst

    record, = wait_until(bed.records, 15, "the record")
    assert bed.shunts() == []
    assert record["event_type"] == "shunt" and record["shunt"]["ended"] == "ended"
    assert record["shunt"]["reason"] == "request" and record["shunt"]["by"] == "zeek"
    assert (record["src_ip"], record["src_port"], record["dest_ip"], record["dest_port"]) == (CLIENT, 3000, SERVER, 443)
    assert record["flow"]["pkts_toserver"] == 45 + 8 and record["flow"]["pkts_toclient"] == 45
    assert record["flow"]["bytes_toserver"] == bytes_from_src
    assert record["flow"]["bytes_toclient"] == bytes_from_dst
    assert record["shunt"]["passed_packets"] == 2
    # The flow is seen again; and no second record comes.
    bed.send(3000, 110)
    assert bed.got(3000)[-1] == 110
    time.sleep(1)
    assert len(bed.records()) == 1


def test_rule_and_many_flows(bed):
    """By rule: each flow's first bytes come, the rest is counted; records add up to the group's counter."""
    bed = bed(group={"shunt": {"after": 3000, "idleSeconds": 1}})
    for n in range(30):
        for sport in range(4000, 4200):
            bed.send(sport, n, back=n % 2 == 1, size=1000 if sport % 2 else 90)
    count = bed.group()
    assert len(bed.shunts()) == 100
    for sport in range(4001, 4200, 2):
        assert bed.got(sport) == [0, 1, 2] if sport == 4001 else numbers(bed.readers[0], sport) + numbers(
            bed.readers[1], sport) == [0, 1, 2]
    assert count["shunted"] == 100 * 27 and count["shuntedBytes"] == 100 * 27 * 1000
    # The rule goes, its shunts stay until they are idle, and end one by one while agents die.
    for _ in range(4):
        time.sleep(0.35)
        bed.instance.stop(signal.SIGKILL)
        bed.instance.start()
    wait_until(lambda: len(bed.records()) >= 100, 20, "the records")
    wait_until(lambda: not bed.shunts(), 10, "the shunts to go")
    records = bed.records()
    assert len(records) == len({record["shunt"]["id"] for record in records}) == 100
    assert sum(r["flow"]["pkts_toserver"] + r["flow"]["pkts_toclient"] for r in records) == count["shunted"]
    assert sum(r["flow"]["bytes_toserver"] + r["flow"]["bytes_toclient"] for r in records) == count["shuntedBytes"]
    assert {record["shunt"]["reason"] for record in records} == {"rule"}
    assert {record["dest_port"] for record in records} == {443}


FLEET = """
apiVersion: picket.dev/v1alpha1
kind: Fleet
metadata: {name: big}
spec:
  taps:
    - {name: uplink, interface: %s}
  groups:
    - name: analysis
      taps: [uplink]
      lanes: 1
      hash: flow
      shunt: {after: 64KiB, idle: 2s}
      tools:
        - package: suricata@7
"""


def test_a_group_with_many_shunts_goes_while_others_change(bed):
    bed = bed()
    instance = bed.instance
    many, batch = 131072, 8192  # a request has at most a megabyte
    for first in range(0, many, batch):
        flows = [{"src": f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", "srcPort": 1024, "dst": SERVER,
                  "dstPort": 443, "proto": "tcp"} for n in range(first, first + batch)]
        instance.call("POST", "/v1/fleets/f/shunts", {"flows": flows, "ttlSeconds": 3600, "idleSeconds": 3600})
    assert instance.get("/v1/fleets/f/shunts/stats")["entries"] == many
    instance.put("/v1/fleets/f/lanes/other/0", {"mtu": 1500})
    instance.delete("/v1/fleets/f/taps/t")
    took, deleted = [], []

    def delete():
        instance.delete("/v1/fleets/f/groups/g")
        deleted.append(time.monotonic())

    thread = threading.Thread(target=delete)
    thread.start()
    changes = 0
    while not deleted:
        begun = time.monotonic()
        instance.put("/v1/fleets/f/groups/other", {"lanes": [{"index": 0, "weight": 1 + changes % 9}],
                                                   "shunt": {"after": 1000 + changes}})
        took.append(time.monotonic() - begun)
        changes += 1
    thread.join()
    print(f"{changes} changes of a group while {many} shunts of another went; "
          f"the longest took {max(took) * 1000:.0f} ms, the median {statistics.median(took) * 1000:.0f} ms")
    assert changes > 5
    records = bed.records()
    assert len(records) == many == len({record["src_ip"] for record in records})
    assert [group["name"] for group in instance.plane()["groups"]] == ["other"]


def test_whole(picket):
    """From the fleet file to the event; the commands tell the same."""
    whole = Whole()
    standins = StandIns(whole.state, whole.rundir)
    wire = Wire("sw" + whole.tag()[2:])
    try:
        whole.run("up", "--force", "--engine", "fake")
        whole.apply(FLEET % wire.far)
        sent = 0
        for n in range(400):
            wire.send(packet(5000, n, back=n % 2 == 1, size=1000))
            sent += 1000
        wait_for("the flow to be shunted", 10, lambda: whole.json("shunt", "list")["shunts"])
        listed, = whole.json("shunt", "list", "--group", "analysis")["shunts"]
        assert listed["reason"] == "rule"
        assert listed["bytesFromSrc"] + listed["bytesFromDst"] == sent - 65000
        stats = whole.json("shunt", "stats")
        assert stats["entries"] == 1 and stats["groups"][0]["bytes"] == sent - 65000
        assert "10.1.2.3:5000" in whole.run("shunt", "list").stdout
        assert "192.0.2.7:443" in whole.run("shunt", "stats").stdout

        # Two others by hand; one of them is taken back.
        for sport in (6000, 6001):
            whole.run("shunt", "add", f"{CLIENT}:{sport}", f"{SERVER}:443", "--keep", "1KiB", "--ttl", "1h")
        assert whole.json("shunt", "add", f"{CLIENT}:6000", f"{SERVER}:443")["known"] == 1
        whole.run("shunt", "remove", f"{SERVER}:443", f"{CLIENT}:6001")
        assert whole.run("shunt", "remove", f"{SERVER}:443", f"{CLIENT}:6001", check=False).returncode != 0
        for arguments in (["add", "nonsense", "192.0.2.1:1"], ["add", "10.0.0.1:1", "[::1]:1"], ["remove"],
                          ["list", "--group", "none"], ["add", "10.0.0.1:99999", "10.0.0.2:1"]):
            refused = whole.run("shunt", *arguments, check=False)
            assert refused.returncode != 0 and "hint:" in refused.stderr

        def ended():
            events = whole.events("type:shunt", fleet="big")
            return {event["src_port"]: event for event in events} if len(events) >= 2 else None
        events = wait_for("the shunts' events", 30, ended)
        assert sorted(events) == [5000, 6001]
        event = events[5000]
        assert (event["src_ip"], event["dst_ip"], event["dst_port"]) == (CLIENT, SERVER, 443)
        assert event["group"] == "analysis" and event["tool"] == "picket"
        assert event["bytes_toserver"] + event["bytes_toclient"] == sent - 65000
        assert event["community_id"].startswith("1:")
        raw = json.loads(event["raw"])
        assert raw["shunt"]["ended"] == "idle"
        assert json.loads(events[6001]["raw"])["shunt"]["ended"] == "removed"

        # With the fleet its shunts end, and are told.
        whole.run("delete", "big", "--yes")
        wait_for("the last one's event", 30, lambda: len(whole.events("type:shunt")) == 3)
    finally:
        standins.close()
        whole.down()
        wire.unplug()


SLOW_READER = """
import socket, struct, sys, time
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.bind(("tap0", 3))
out = sys.stdout.buffer
rate, got, start = float(sys.argv[1]), 0, time.monotonic()
while True:
    data = sock.recv(4096)
    at = data.find(b"PKTN")
    if at >= 0:
        out.write(data[at + 4:at + 12])
        out.flush()
    got += 1
    ahead = got / rate - (time.monotonic() - start)
    if ahead > 0.002:
        time.sleep(ahead)
    elif ahead < -0.5:
        got, start = 0, time.monotonic()
"""


class SlowTool:
    """Reads a lane at no more than so many packets a second, and writes down what it got."""

    def __init__(self, lane, rate, path):
        self.path = path
        with open(path, "wb") as out:
            self.process = subprocess.Popen(["nsenter", f"--net={lane['netns']}", "/usr/bin/python3", "-S", "-c",
                                             SLOW_READER, str(rate)], stdout=out, stdin=subprocess.DEVNULL)

    def got(self):
        data = self.path.read_bytes()
        return [struct.unpack_from("!II", data, at) for at in range(0, len(data) // 8 * 8, 8)]

    def close(self):
        self.process.kill()
        self.process.wait()


def test_overload(instance, tmp_path):
    """A tenant's lane cannot take all: whole flows are shed, no others; what has priority loses nothing."""
    wire = Wire("so" + instance.tag[2:])
    tools = []
    flows = 400
    try:
        for group, tenant, priority, rate in (("low", "guests", 10, 1200), ("high", "office", 200, 20000)):
            instance.put(f"/v1/fleets/f/lanes/{group}/0", {"mtu": 1500})
            instance.put(f"/v1/fleets/f/groups/{group}", {
                "lanes": [{"index": 0, "weight": 1}], "hash": "flow", "tenant": tenant, "priority": priority,
                "overload": {"shunt": False, "shed": True}})
            tools.append(SlowTool(instance.lane(0, group), rate, tmp_path / group))
        for group in ("low", "high"):
            wait_until(lambda: instance.lane(0, group)["state"] == "ready", 10, "the lane to be ready")
        instance.put("/v1/fleets/f/taps/t", {
            "kind": "interface", "interface": wire.far,
            "tenants": [{"name": "office", "vlans": [10]}, {"name": "guests", "vlans": [20]}],
            "groups": [{"name": "low", "tenant": "guests"}, {"name": "high", "tenant": "office"}]})

        sent, number, ending, rate = [0], [0], threading.Event(), [2000]

        def traffic():
            at = 0
            while not ending.is_set():
                for _ in range(20):
                    for vlan in (10, 20):
                        data = packet(10000 + at % flows, number[0], back=at // flows % 2 == 1)
                        wire.send(data[:12] + struct.pack("!HH", 0x8100, vlan) + data[12:])
                        sent[0] += 1
                    at += 1
                    if at % flows == 0:
                        number[0] += 1
                time.sleep(20 / rate[0])

        def group(name):
            return next(x for x in instance.plane()["groups"] if x["name"] == name)

        def calm():
            """Some slots are shed, and no losses for a while."""
            row = group("low")
            quiet[0] = quiet[0] + 1 if row["overload"]["shedSlots"] and row["overload"]["loss"] == 0 else 0
            time.sleep(0.25)
            return quiet[0] >= 8 and row

        quiet = [0]
        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            row = wait_until(calm, 60, "shedding to end the losses")
            assert row["overload"]["state"] == "shedding"
            first = number[0] + 1
            time.sleep(1.5)
            steady = group("low")["overload"]["shedSlots"]
            last = number[0] - 1
            assert steady == row["overload"]["shedSlots"], "it changed meanwhile"
            assert group("high")["overload"]["shedSlots"] == 0
            # An agent that starts finds what was shed.
            instance.stop(signal.SIGKILL)
            instance.start()
            assert group("low")["overload"]["shedSlots"] > 0 or wait_until(
                lambda: group("low")["overload"]["shedSlots"] > 0, 5, "the agent to know")
            rate[0] = 500  # there is room for all again
            wait_until(lambda: group("low")["overload"]["shedSlots"] == 0, 90, "all to come back")
        finally:
            ending.set()
            thread.join()
        time.sleep(1)

        # Nothing in the dark: all that came is in one of the counters.
        plane = instance.plane()
        assert plane["taps"][0]["packets"] == sent[0]
        low, high = group("low"), group("high")
        for one in (low, high):
            assert one["packets"] == sent[0] // 2
            assert one["packets"] == sum(one[name] for name in
                                         ["filtered", "shunted", "shed", "yielded", "noLane", "notSent", "sent"])
        assert low["shed"] > 0 and high["shed"] == 0 and high["sent"] == high["packets"]
        assert sum(t["packets"] for t in plane["taps"][0]["tenants"]) == sent[0]
        # Who has priority got all.
        got = tools[1].got()
        assert len(got) == len(set(got)) == high["packets"]
        # Whole flows: in the steady time each came whole or not at all.
        seen = {}
        for sport, n in tools[0].got():
            if first <= n <= last:
                seen.setdefault(sport, set()).add(n)
        halves = [sport for sport, numbers_ in seen.items() if len(numbers_) != last - first + 1]
        print(f"\nshed: {steady} of 65537 slots; {flows - len(seen)} of {flows} flows, {len(halves)} in part, over "
              f"{last - first + 1} packets of each; {low['shed']} of {low['packets']} packets")
        assert last - first >= 3 and not halves
        assert flows * 0.2 < flows - len(seen) < flows * 0.8
    finally:
        for tool in tools:
            tool.close()
        wire.unplug()
