# SPDX-License-Identifier: Apache-2.0
"""Canaries: what the agent puts into a lane comes back in Suricata's log, is no event and in no sum; a log that does not
come back makes the lane silent, and it recovers."""
import json
import os
import struct
import subprocess
import time

import pytest

from conftest import Refused, wait_until
from lanes import Reader, Wire, checksum, frame
from whole import Whole, wait_for

EVERY = 1
FLEET = """apiVersion: picket.dev/v1alpha1
kind: Fleet
metadata: {{name: can}}
spec:
  taps:
    - name: wire
      interface: {interface}
  groups:
    - name: analysis
      taps: [wire]
      lanes: 1
      canary: {canary}
      tools:
        - package: suricata@7
          memory: 1GiB
          values: {{eve: {{dns: {{enabled: {dns}}}}}}}
  events:
    sinks: [{{store: {{retain: 1d, sealAfter: 1s}}}}]
"""


@pytest.fixture(scope="module")
def site(suricata_image):
    whole = Whole()
    wire = None
    try:
        whole.up()
        wire = Wire(f"can{os.getpid() % 10000}")
        whole.wire = wire
        whole.sent = 0
        apply(whole)
        yield whole
    finally:
        whole.down()
        if wire is not None:
            wire.unplug()


def apply(whole, canary=f"{EVERY}s", dns="true"):
    whole.apply(FLEET.format(interface=whole.wire.far, canary=canary, dns=dns))


def lane(whole):
    return whole.status("can")["groups"][0]["lanes"][0]


def state(whole, wanted, seconds=60):
    def look():
        row = lane(whole)
        return row if row["canary"]["state"] == wanted else None
    return wait_for(f"canary: {wanted}", seconds, look)


def query(name, source, target, sport):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    return frame(source, target, sport, 53, struct.pack("!HHHHHH", 77, 0x100, 1, 0, 0, 0) + labels + struct.pack("!HH", 1, 1), 17)


def send(whole, frames):
    for data in frames:
        whole.wire.send(data)
    whole.sent += len(frames)


def logs(whole):
    return sorted(whole.state.glob("units/*/log/eve-*.json"))


# ---- the agent alone ----

TOKEN = "00112233445566778899aabbccddeeff"
CANARY = "/v1/fleets/f/lanes/g/0/canary"


def name_in(data):
    """The DNS question's name of an Ethernet frame, whose checksums are right."""
    ip, udp = data[14:34], data[34:]
    assert checksum(ip) == 0 and ip[9] == 17
    assert checksum(ip[12:20] + struct.pack("!BBH", 0, 17, len(udp)) + udp) in (0, 0xFFFF)
    at, labels = 8 + 12, []
    while udp[at]:
        labels.append(udp[at + 1:at + 1 + udp[at]].decode())
        at += udp[at] + 1
    return ".".join(labels)


def test_agent_sends_counts_and_is_told(instance):
    instance.put("/v1/fleets/f/lanes/g/0", {"mtu": 0})
    instance.put("/v1/fleets/f/groups/g", {"lanes": [{"index": 0}], "canary": {"everyMs": 1000}})
    assert instance.plane()["groups"][0]["options"]["canary"] == {"everyMs": 1000}
    reader = Reader(instance.lane())
    try:
        wait_until(lambda: instance.lane()["state"] == "ready", 10, "the lane to open")
        time.sleep(2.5)
        assert instance.lane()["canary"]["state"] == "off" and reader.frames == []  # nobody asked for any

        def told(count):
            instance.put(CANARY, {"token": TOKEN, "seen": [1, 2, 3], "delayMs": 5})
            return len(reader.frames) >= count
        wait_until(lambda: told(6), 20, "canaries")
        lane = instance.lane()
        assert lane["canary"]["state"] == "waiting" and lane["canary"]["sent"] >= 3 and lane["canary"]["seen"] == 0
        assert (lane["packets"], lane["sent"], lane["unread"], lane["ringDropped"]) == (0, 0, 0, 0), lane
        wait_until(lambda: instance.lane()["canaries"] == len(reader.frames), 5, "the broker's count")
        names = [name_in(data) for data in reader.frames]
        assert names[0::2] == names[1::2] and len(set(names)) == len(names) // 2
        numbers = [int(name.split(".")[0].rsplit("-", 1)[1]) for name in names[0::2]]
        assert numbers == sorted(numbers) and names[0].endswith(f"-0-{numbers[0]}.g.invalid")
        instance.put(CANARY, {"token": TOKEN, "seen": numbers[:2], "delayMs": 5})
        lane = instance.lane()
        assert lane["canary"]["state"] == "back" and lane["canary"]["seen"] == 2 and lane["canary"]["delayMs"] == 5
        instance.put(CANARY, {"token": TOKEN, "seen": numbers[:2]})
        assert instance.lane()["canary"]["seen"] == 2
        # The kernel's objects are taken up by the next agent, with what was counted.
        assert instance.stop(9) != 0
        before = len(reader.frames)
        instance.start()
        assert instance.lane()["canaries"] == before and instance.lane()["canary"]["state"] == "off"
        instance.put("/v1/fleets/f/groups/g", {"lanes": [{"index": 0}], "canary": {"everyMs": 0}})
        instance.put(CANARY, {"token": TOKEN})
        time.sleep(2.5)
        assert len(reader.frames) == before and instance.lane()["canary"]["state"] == "off"
    finally:
        reader.close()


@pytest.mark.parametrize("body", [
    "", "[]", "{", {}, {"token": "00"}, {"token": TOKEN + "0"}, {"token": TOKEN[:-1] + "g"}, {"token": 7},
    {"token": TOKEN, "seen": 1}, {"token": TOKEN, "seen": list(range(17))}, {"token": TOKEN, "delayMs": -1},
    {"token": TOKEN, "delayMs": "x"}, {"token": TOKEN, "other": 1}])
def test_agent_refuses(instance, body):
    instance.put("/v1/fleets/f/lanes/g/0", {"mtu": 0})
    with pytest.raises(Refused) as fault:
        instance.put(CANARY, body)
    assert fault.value.status in (400, 422), fault.value
    instance.put(CANARY, {"token": TOKEN, "seen": [-1, 0, "x", None, 1 << 62, {}]})
    with pytest.raises(Refused) as fault:
        instance.put("/v1/fleets/f/lanes/g/1/canary", {"token": TOKEN})
    assert fault.value.status == 404


def test_inline_lane_gets_none(instance):
    """What enters it would leave by the wire."""
    instance.put("/v1/fleets/f/lanes/g/0", {"mtu": 0, "inline": True})
    instance.put("/v1/fleets/f/groups/g", {"lanes": [{"index": 0}], "canary": {"everyMs": 1000}})
    for _ in range(5):
        instance.put(CANARY, {"token": TOKEN})
        time.sleep(0.5)
    assert instance.lane()["canary"]["state"] == "off" and instance.lane()["canary"]["sent"] == 0


# ---- through Suricata ----

def test_comes_back_and_is_no_event(site):
    row = state(site, "back")
    row = wait_for("several", 30, lambda: (lambda r: r if r["canary"]["seen"] >= 4 else None)(lane(site)))
    assert row["health"] == "healthy" and row["why"] == ""
    assert row["canary"]["sent"] >= row["canary"]["seen"] and row["canary"]["delayMs"] < 60_000
    assert row["canary"]["lastSeen"] is not None
    # The tool did write them, under names of their kind.
    written = [json.loads(line) for path in logs(site) for line in path.read_text().splitlines()]
    names = {event["dns"]["rrname"] for event in written if event["event_type"] == "dns"}
    assert len(names) >= 4 and all(name.startswith("pk-") and name.endswith(".analysis.invalid") for name in names), names
    addresses = {event["src_ip"] for event in written if event["event_type"] == "dns"}
    # What only looks like them is an event like any other.
    mine = sorted(addresses)[0]
    made = ["pk-00112233445566778899aabbccddeeff-0-1.analysis.invalid", sorted(names)[0]]
    send(site, [query(made[0], "192.0.2.9", "198.51.100.7", 50001), query(made[1], mine, "198.51.100.7", 50002),
                query("www.example.org", "10.0.0.1", "10.0.0.2", 50003)])
    events = wait_for("the lookalikes", 30, lambda: (lambda e: e if len(e) == 3 else None)(site.events("type:dns", fleet="can")))
    assert sorted(event["host"] for event in events) == sorted(made + ["www.example.org"])
    assert {event["src_port"] for event in events} == {50001, 50002, 50003}


def test_in_no_sum(site):
    state(site, "back")
    send(site, [query(f"n{n}.example.org", "10.0.0.1", "10.0.0.2", 20000 + n) for n in range(50)])

    def rests():
        ledger = site.json("ledger", "can")
        if not ledger["groups"] or not ledger["groups"][0]["balances"]:
            return None
        balance = ledger["groups"][0]["balances"][0]
        return ledger if ledger["addsUp"] and balance["delivered"] == site.sent and balance["underWay"] == 0 else None
    ledger = wait_for("the ledger to add up", 60, rests)
    balance = ledger["groups"][0]["balances"][0]
    row = ledger["groups"][0]["lanes"][0]
    assert (balance["in"], balance["delivered"], balance["lost"], balance["unexplained"]) == (site.sent, site.sent, 0, 0), balance
    assert (row["sent"], row["arrived"], row["handed"]) == (site.sent,) * 3, row
    # Two frames each, and the tool has counted them among its own.
    assert row["canaries"] >= 8 and row["canaries"] % 2 == 0, row
    status = lane(site)
    assert status["packets"] == site.sent and status["tools"][0]["packets"] > site.sent


def test_log_cannot_be_written(site):
    """The tool reads on and can write nothing, as on a disk that fails."""
    state(site, "back")
    files = logs(site)
    for path in files:
        done = subprocess.run(["chattr", "+i", path], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"this file system has no immutable files: {done.stderr}")
    try:
        row = state(site, "silent")
        before = row["tools"][0]["packets"]
        row = wait_for("health", 10, lambda: (lambda r: r if r["health"] == "silent" else None)(lane(site)))
        assert "its tool reads packets, but its log does not come back" in row["why"], row
        assert row["slots"] == 65537 and row["state"] == "ready" and row["tools"][0]["state"] == "running", row
        wait_for("the tool reads on", 20, lambda: lane(site)["tools"][0]["packets"] > before)
        status = site.status("can")
        assert any("lane analysis/0 is silent" in reason for reason in status["reasons"]), status
        assert "does not come back" in site.run("status", "can", check=False).stdout
    finally:
        for path in files:
            subprocess.run(["chattr", "-i", path], check=True)
    row = state(site, "back")
    wait_for("health", 20, lambda: lane(site)["health"] == "healthy")
    assert [event for event in site.events("type:dns", fleet="can") if event["host"].startswith("pk-")
            and event["src_port"] not in (50001, 50002)] == []


def test_shipper_away_is_another_fault(site):
    state(site, "back")
    (ship,) = site.pid_of("ship")
    os.kill(ship, 19)
    try:
        row = state(site, "off", 40)
        assert row["health"] == "healthy", row
    finally:
        os.kill(ship, 18)
    row = state(site, "back")
    assert row["health"] == "healthy"


def test_off(site):
    """A tool that does not log DNS gets none; the fleet file may switch them off, which restarts nothing."""
    pid = lane(site)["tools"][0]["pid"]
    apply(site, canary="off")
    row = state(site, "off", 30)
    sent = row["canary"]["sent"]
    time.sleep(3 * EVERY)
    assert lane(site)["canary"]["sent"] == sent and lane(site)["tools"][0]["pid"] == pid
    apply(site)
    state(site, "back")
    apply(site, dns="false")
    state(site, "off", 60)
    site.run("delete", "can", "--yes")
    # The flows of the canaries, which Suricata writes at its end, are no events either.
    flows = wait_for("flows", 60, lambda: site.events("type:flow", fleet="can"))
    assert {event["src_port"] for event in flows if event["src_ip"].startswith("192.0.2.")} <= {50001, 50002}, flows
