# SPDX-License-Identifier: Apache-2.0
"""A change of every tool of a fleet while flows run through it: no flow is cut, and none is missed."""
import json
import struct
import threading
import time

import pytest

from lanes import checksum, ip4
from whole import Whole, addresses, difference, fleet_text, multiset, read_offline, wait_for

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
FLOWS, SECONDS, LASTS = 400, 80, 9


@pytest.fixture(scope="module")
def whole(suricata_image):
    instance = Whole()
    try:
        instance.up()
        yield instance
    finally:
        instance.down()


class Connection:
    """A TCP connection packet by packet, with numbers that a tool which follows it believes."""

    def __init__(self, n, start):
        self.ends = [(f"10.1.{n // 200}.{n % 200 + 1}", 20000 + n), (f"192.0.2.{n % 50 + 1}", 8080)]
        self.seq = [1000 + n, 500000 + n]
        self.time = start
        self.frames = []

    def send(self, side, flags, payload=b"", wait=0.002):
        (source, sport), (target, dport) = self.ends[side], self.ends[1 - side]
        ack = self.seq[1 - side] if flags & ACK else 0
        tcp = struct.pack("!HHIIBBHHH", sport, dport, self.seq[side], ack, 5 << 4, flags, 65535, 0, 0) + payload
        pseudo = ip4(source) + ip4(target) + struct.pack("!BBH", 0, 6, len(tcp))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + ip4(source) + ip4(target)
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        self.frames.append((self.time, b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + ip + tcp))
        self.seq[side] += len(payload) + bool(flags & (SYN | FIN))
        self.time += wait

    def whole(self, seconds):
        self.send(0, SYN)
        self.send(1, SYN | ACK)
        self.send(0, ACK)
        for turn in range(seconds * 2):
            self.send(0, PSH | ACK, b"question %d\n" % turn)
            self.send(1, PSH | ACK, b"answer %d\n" % turn * 5)
            self.send(0, ACK, wait=0.494)
        self.send(0, FIN | ACK)
        self.send(1, FIN | ACK)
        self.send(0, ACK)
        return self.frames


def write(path):
    frames = [frame for n in range(FLOWS) for frame in Connection(n, n * (SECONDS - LASTS) / FLOWS).whole(LASTS)]
    frames.sort(key=lambda frame: frame[0])
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for when, data in frames:
            out.write(struct.pack("<IIII", 1_700_000_000 + int(when), int(when % 1 * 1e6), len(data), len(data)) + data)
    return path


def test_every_tool_is_replaced_without_cutting_a_flow(whole, tmp_path):
    capture = write(tmp_path / "long.pcap")
    before, after = fleet_text("up"), fleet_text("up", values="{home-net: [10.0.0.0/8]}")
    whole.apply(before, "up.yaml")
    config = next(iter(whole.state.glob("units/*-up-*/config/*/suricata.yaml"))).parent
    expected = multiset(event for event in read_offline(whole, config, capture) if event.get("event_type") == "flow")
    assert sum(expected.values()) == FLOWS
    plan = whole.json("plan", whole.write_fleet(after, "up.yaml"))
    assert "drain" in plan["traffic"], plan["traffic"]

    replay = {}
    thread = threading.Thread(
        target=lambda: replay.update(whole.json("replay", capture, "--tap", "up/wire", timeout=300)))
    thread.start()
    time.sleep(LASTS)  # as many flows as there will be
    begun = time.monotonic()
    done = whole.run("apply", whole.write_fleet(after, "up.yaml"), "--yes", timeout=300)
    took = time.monotonic() - begun
    thread.join()
    assert took < SECONDS - LASTS, (took, done.stderr)  # all of it while flows ran
    assert replay["sent"] == sum(1 for _ in range(FLOWS)) * (6 + LASTS * 2 * 3)

    def all_read():
        lanes = whole.status("up")["groups"][0]["lanes"]
        look.append([(lane["packets"], lane["unread"], [tool["packets"] for tool in lane["tools"]]) for lane in lanes])
        return all(tool["packets"] == lane["packets"] for lane in lanes for tool in lane["tools"]) and lanes

    look = []
    try:
        lanes = wait_for("the tools to read all", 20, all_read)
    except AssertionError:
        pytest.fail(f"apply took {took:.0f} s; lanes and tools: {look[-1]}\n{done.stderr}")
    assert [(lane["unread"], lane["ringDropped"]) for lane in lanes] == [(0, 0), (0, 0)]
    # Which lane had nothing while its tool was away.
    assert all(tool["restarts"] == 0 for lane in lanes for tool in lane["tools"])
    whole.run("delete", "up", "--yes")
    got = []

    def complete():
        got[:] = [json.loads(event["raw"]) for event in whole.events("type:flow", fleet="up")]
        return multiset(got) == expected

    try:
        wait_for("all flows", 40, complete)
    except AssertionError:
        pytest.fail(f"apply took {took:.0f} s; {difference(expected, multiset(got))}")
    ends = [addresses(event) for event in got]
    assert len(ends) == len(set(ends)) == FLOWS  # each flow once: whole, in one lane
    print(f"two tools replaced in {took:.0f} s, {FLOWS} flows, none cut")


def test_a_lane_is_taken_out_by_hand(whole):
    whole.apply(fleet_text("hand"), "hand.yaml")
    said = whole.run("lane", "drain", "hand/analysis/1", "--wait").stdout
    assert "has drained" in said

    def lane():
        return whole.status("hand")["groups"][0]["lanes"][1]

    wait_for("the lane to be without slots", 5, lambda: lane()["slots"] == 0 and lane()["drain"])
    assert lane()["drain"]["state"] == "drained" and lane()["health"] == "healthy"
    assert "drained" in whole.run("status", "hand").stdout
    assert whole.status("hand")["state"] == "converged"  # as somebody wants it
    refused = whole.run("lane", "drain", "hand/analysis/0", check=False)
    assert refused.returncode != 0 and "no other lane to take its flows" in refused.stderr, refused.stderr
    whole.run("lane", "restore", "analysis/1", "--fleet", "hand")
    wait_for("its slots", 5, lambda: lane()["slots"] > 30000 and lane()["drain"] is None)
    for wrong, words in (("analysis", "is no lane"), ("analysis/7", "there is no lane"), ("other/analysis/0", "other")):
        refused = whole.run("lane", "drain", wrong, "--fleet", "hand", check=False)
        assert refused.returncode != 0 and words in refused.stderr, refused.stderr
    whole.run("delete", "hand", "--yes")
