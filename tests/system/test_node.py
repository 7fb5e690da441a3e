# SPDX-License-Identifier: Apache-2.0
"""The agent and the plane with real packets: taps, lanes, replay, repair, restarts, errors."""
import collections
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import Instance, Refused, in_netns, wait_until
from lanes import ETH_P_ALL, Reader, Wire, flows, frame, write_pcap

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent needs root")
REPLAY = "/v1/fleets/f/taps/t/replay"


def make_lanes(instance, count=1, mtu=1500):
    for index in range(count):
        instance.put(f"/v1/fleets/f/lanes/g/{index}", {"mtu": mtu})
    instance.put("/v1/fleets/f/groups/g", {"lanes": [{"index": i, "weight": 1} for i in range(count)]})


def make_replay_tap(instance, mtu=1500):
    instance.put("/v1/fleets/f/taps/t", {"kind": "replay", "mtu": mtu, "group": "g"})


@pytest.fixture
def readers(instance):
    """Opens readers in lanes and waits until the agent knows of them."""
    opened = []

    def open_all(count=1):
        made = [Reader(instance.lane(i)) for i in range(count)]
        opened.extend(made)
        wait_until(lambda: all(instance.lane(i)["state"] == "ready" for i in range(count)), 5, "lanes to be ready")
        return made

    yield open_all
    for reader in opened:
        reader.close()


@pytest.fixture
def wire(idle_instance):
    made = Wire("wt" + idle_instance.tag[2:])
    yield made
    made.unplug()


def replay(instance, path, **options):
    body = {"files": [str(path)], "mode": "fast"}
    body.update(options)
    instance.call("POST", REPLAY, body)
    return wait_until(lambda: (s := instance.get(REPLAY))["state"] != "running" and s, 60, "the replay to end")


def sum_of(plane, what):
    return sum(lane[what] for lane in plane["lanes"])


# ---- packets ----


def test_frames_arrive_as_they_were_sent(instance, readers, tmp_path):
    make_lanes(instance)
    make_replay_tap(instance)
    (reader,) = readers()
    sent = [data for _, data in flows(300, 4)]
    sent += [b"\xff" * 12 + b"\x08\x06" + b"arp?" * 7, b"\x01" * 60, b"\xff" * 12 + b"\x88\xcc" + b"lldp" * 12]
    sent += [frame("10.0.0.1", "10.0.0.2", 1, 2, b"q" * 1460, vlans=[(0x88A8, 5), (0x8100, 6)])]  # QinQ, full size
    end = replay(instance, write_pcap(tmp_path / "a.pcap", sent))
    assert end["state"] == "done" and end["sent"] == len(sent) and end["failed"] == 0 and end["error"] is None
    assert end["bytes"] == sum(map(len, sent))
    wait_until(lambda: len(reader.frames) >= len(sent), 5, "all frames")
    assert reader.frames == sent
    plane = instance.plane()
    tap, lane = plane["taps"][0], plane["lanes"][0]
    assert (tap["packets"], tap["bytes"], tap["dropped"]) == (len(sent), end["bytes"], 0)
    assert (lane["packets"], lane["dropped"], lane["unread"], lane["ringDropped"]) == (len(sent), 0, 0, 0)
    assert lane["slots"] == 65537 and tap["mode"] == "native" and tap["state"] == "up"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_flow_is_in_one_lane_in_both_directions(instance, readers, tmp_path, count):
    make_lanes(instance, count)
    make_replay_tap(instance)
    opened = readers(count)
    made = flows(400, 4)
    replay(instance, write_pcap(tmp_path / "a.pcap", [data for _, data in made]))
    wait_until(lambda: sum(len(r.frames) for r in opened) >= len(made), 5, "all frames")
    lanes_of = collections.defaultdict(set)
    for index, reader in enumerate(opened):
        for data in reader.frames:
            lanes_of[int(re.search(rb"flow=(\d+)", data)[1])].add(index)
    assert len(lanes_of) == 400 and all(len(lanes) == 1 for lanes in lanes_of.values())
    assert sorted(d for r in opened for d in r.frames) == sorted(d for _, d in made)
    used = collections.Counter(lane for lanes in lanes_of.values() for lane in lanes)
    assert len(used) == count and min(used.values()) > 400 / count / 3


def test_unread_packets_are_counted_exactly(instance, readers, tmp_path):
    make_lanes(instance, 2)
    make_replay_tap(instance)
    capture = write_pcap(tmp_path / "a.pcap", [data for _, data in flows(125, 4)])
    assert {lane["state"] for lane in instance.plane()["lanes"]} == {"unread"}
    replay(instance, capture)
    plane = instance.plane()
    assert (sum_of(plane, "packets"), sum_of(plane, "unread"), sum_of(plane, "dropped")) == (500, 500, 500)
    opened = readers(2)
    replay(instance, capture)
    plane = instance.plane()
    assert (sum_of(plane, "packets"), sum_of(plane, "unread")) == (1000, 500)
    wait_until(lambda: sum(len(r.frames) for r in opened) == 500, 5, "the second half")
    for reader in opened:
        reader.close()
    wait_until(lambda: {x["state"] for x in instance.plane()["lanes"]} == {"unread"}, 5, "the readers to be gone")
    replay(instance, capture)
    plane = instance.plane()
    assert (sum_of(plane, "packets"), sum_of(plane, "unread"), sum_of(plane, "ringDropped")) == (1500, 1000, 0)


def test_a_socket_that_does_not_read_is_no_reader(instance):
    make_lanes(instance)

    def open_sender():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind(("tap0", 0))
        return sock

    with in_netns(instance.lane()["netns"], open_sender):
        time.sleep(0.5)
        assert instance.lane()["state"] == "unread"


def test_nothing_gets_out_of_a_lane(instance, wire):
    make_lanes(instance)
    instance.put("/v1/fleets/f/taps/t", {"kind": "interface", "interface": wire.far, "group": "g"})
    (outer,) = instance.links()
    heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    heard.bind((outer, ETH_P_ALL))
    on_wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    on_wire.bind((wire.near, ETH_P_ALL))

    def send():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind(("tap0", 0))
        for n in range(50):
            sock.send(frame("10.0.0.1", "10.0.0.2", n, 80, b"from the lane"))
        sock.close()

    in_netns(instance.lane()["netns"], send)
    wait_until(lambda: instance.lane()["blocked"] == 50, 5, "the guard's counter")
    for sock in (heard, on_wire):
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.recv(2000)
        sock.close()


def test_large_frames_reach_a_lane_of_that_mtu(instance, readers, tmp_path):
    make_lanes(instance, mtu=9000)
    make_replay_tap(instance, mtu=9000)
    (reader,) = readers()
    sent = [frame("10.0.0.1", "10.0.0.2", n, 80, bytes([n]) * size) for n, size in enumerate((8960, 8950, 4000, 10))]
    end = replay(instance, write_pcap(tmp_path / "a.pcap", sent))
    assert end["sent"] == 4 and end["oversize"] == 0
    wait_until(lambda: len(reader.frames) >= 4, 5, "all frames")
    assert reader.frames == sent


def test_the_largest_mtu_works(instance, readers, tmp_path):
    make_lanes(instance, mtu=65521)
    make_replay_tap(instance, mtu=65521)
    (reader,) = readers()
    sent = [b"\x01" * 12 + b"\x08\x00" + bytes([n]) * size for n, size in enumerate((65521, 30000, 46))]
    end = replay(instance, write_pcap(tmp_path / "a.pcap", sent))
    assert end["sent"] == 3 and end["oversize"] == 0
    wait_until(lambda: len(reader.frames) >= 3, 5, "all frames")
    assert reader.frames == sent


# ---- restarts ----


class Traffic:
    """Numbered frames into a wire, steadily, until it is stopped."""

    def __init__(self, wire):
        self.wire, self.sent, self.ending = wire, 0, False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.ending:
            for _ in range(10):
                n = self.sent
                self.wire.send(frame(f"10.0.{n % 200}.1", "10.9.9.9", n % 60000, 80, f"n={n:08d}".encode()))
                self.sent += 1
            time.sleep(0.002)

    def stop(self):
        self.ending = True
        self.thread.join()


def numbers(readers):
    return sorted(int(m[1]) for r in readers for d in r.frames if (m := re.search(rb"n=(\d{8})", d)))


def test_killing_the_agent_loses_no_packet(instance, readers, wire):
    make_lanes(instance, 2)
    instance.put("/v1/fleets/f/taps/t", {"kind": "interface", "interface": wire.far, "group": "g"})
    opened = readers(2)
    traffic = Traffic(wire)
    try:
        for _ in range(10):
            before = traffic.sent
            time.sleep(0.1)
            instance.stop(signal.SIGKILL)
            time.sleep(0.1)
            instance.start()
            assert traffic.sent > before + 100
    finally:
        traffic.stop()
    wait_until(lambda: sum(len(r.frames) for r in opened) >= traffic.sent, 5, "the last frames")
    assert sum(r.dropped() for r in opened) == 0
    assert numbers(opened) == list(range(traffic.sent))
    plane = instance.plane()
    assert sum_of(plane, "dropped") == 0 and sum_of(plane, "packets") == traffic.sent
    assert plane["taps"][0]["packets"] == traffic.sent


def program_ids(interface):
    """The ids of the XDP programs on an interface."""
    shown = json.loads(subprocess.run(["ip", "-j", "-d", "link", "show", interface], check=True, capture_output=True).stdout)
    xdp = shown[0].get("xdp", {})
    return {x["prog"]["id"] for x in xdp.get("attached", [xdp]) if "prog" in x}


def test_another_build_takes_over_under_traffic(instance, readers, wire, tmp_path):
    """Upgrade and downgrade of the binary: programs are replaced in place, and no packet is lost."""
    ours = pathlib.Path(instance.picket)
    other = tmp_path / "picket"
    # A line of source text in the programs' debugging information: another build, the same behaviour.
    image = ours.read_bytes()
    assert image.count(b"return XDP_DROP;") >= 1
    other.write_bytes(image.replace(b"return XDP_DROP;", b"return XDP_DROP "))
    other.chmod(0o755)
    make_lanes(instance, 2)
    instance.put("/v1/fleets/f/taps/t", {"kind": "interface", "interface": wire.far, "group": "g"})
    opened = readers(2)
    traffic = Traffic(wire)
    try:
        for binary in [other, ours, other, ours]:
            programs, before = program_ids(wire.far), traffic.sent
            instance.stop(signal.SIGKILL)
            instance.picket = str(binary)
            instance.start()
            assert len(programs) == 1 and program_ids(wire.far).isdisjoint(programs)
            wait_until(lambda before=before: traffic.sent > before + 100, 10, "traffic")
    finally:
        traffic.stop()
        instance.picket = str(ours)
    wait_until(lambda: sum(len(r.frames) for r in opened) >= traffic.sent, 5, "the last frames")
    assert sum(r.dropped() for r in opened) == 0
    assert numbers(opened) == list(range(traffic.sent))
    plane = instance.plane()
    assert sum_of(plane, "dropped") == 0 and plane["taps"][0]["packets"] == traffic.sent


def test_a_tool_that_ends_while_the_agent_is_away_is_noticed(instance, readers):
    make_lanes(instance)
    (reader,) = readers()
    instance.stop(signal.SIGKILL)
    reader.close()
    instance.start()
    wait_until(lambda: instance.lane()["state"] == "unread", 5, "the lane to be unread")


def test_everything_comes_back_after_a_reboot(instance, readers, wire):
    make_lanes(instance, 2)
    instance.put("/v1/fleets/f/taps/t", {"kind": "interface", "interface": wire.far, "group": "g"})
    make_file_tap = {"kind": "replay", "mtu": 3000, "group": "g"}
    instance.put("/v1/fleets/f/taps/files", make_file_tap)
    instance.stop()
    # what a reboot takes away
    for name in instance.links():
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
    for name in instance.namespaces():
        subprocess.run(["ip", "netns", "del", name], check=True)
    subprocess.run(["umount", str(instance.run / "bpf")], check=True)
    wire.unplug()
    wire.plug()
    instance.start()
    plane = instance.plane()
    assert len(plane["lanes"]) == 2 and len(plane["taps"]) == 2 and instance.tap("files")["mtu"] == 3000
    assert instance.tap()["state"] == "up"
    opened = readers(2)
    for n in range(100):
        wire.send(frame("10.0.0.1", "10.0.0.2", 1000 + n, 80, f"n={n:08d}".encode()))
    wait_until(lambda: numbers(opened) == list(range(100)), 5, "the frames")


def test_what_a_crash_left_is_cleared_away(instance):
    make_lanes(instance, 2)
    make_replay_tap(instance)
    instance.stop(signal.SIGKILL)
    (instance.state / "node/plane.json").write_text('{"version":1,"lanes":[],"groups":[],"taps":[]}')
    assert instance.links() and instance.namespaces()
    instance.start()
    assert instance.links() == [] and instance.namespaces() == []


# ---- repair ----


def lane_works(instance, wire, reader, key):
    """Sends until a frame of this key comes through."""
    wire.send(frame("10.0.0.1", "10.0.0.2", 5, 80, key))
    time.sleep(0.05)
    return any(key in data for data in reader.frames)


def damage_netns(instance, _lane):
    for name in instance.namespaces():
        subprocess.run(["ip", "netns", "del", name], check=True)


def damage_link(instance, _lane):
    subprocess.run(["ip", "link", "del", instance.links()[0]], check=True)


def damage_down(instance, lane):
    subprocess.run(["nsenter", f"--net={lane['netns']}", "ip", "link", "set", "tap0", "down"], check=True)


def damage_mtu(instance, lane):
    subprocess.run(["nsenter", f"--net={lane['netns']}", "ip", "link", "set", "tap0", "mtu", "600"], check=True)
    subprocess.run(["ip", "link", "set", instance.links()[0], "mtu", "600"], check=True)


def damage_rename(instance, lane):
    subprocess.run(["nsenter", f"--net={lane['netns']}", "ip", "link", "set", "tap0", "name", "eth5"], check=True)


@pytest.mark.parametrize("damage", [damage_netns, damage_link, damage_down, damage_mtu, damage_rename])
def test_a_damaged_lane_is_repaired(instance, wire, damage):
    make_lanes(instance)
    instance.put("/v1/fleets/f/taps/t", {"kind": "interface", "interface": wire.far, "group": "g"})
    lane = instance.lane()
    damage(instance, lane)

    def whole():
        now = instance.lane()
        if now["state"] == "broken":
            return False
        try:
            text = in_netns(now["netns"], lambda: pathlib.Path("/proc/thread-self/net/dev").read_text())
            flags = subprocess.run(["nsenter", f"--net={now['netns']}", "ip", "-o", "link", "show", "tap0"],
                                   capture_output=True, text=True, check=False).stdout
        except OSError:
            return False
        return "tap0" in text and "mtu 1508" in flags and "LOWER_UP" in flags

    wait_until(whole, 5, "the lane to be whole")
    reader = Reader(instance.lane())
    try:
        wait_until(lambda: instance.lane()["state"] == "ready", 5, "the reader to be seen")
        wait_until(lambda: lane_works(instance, wire, reader, b"after-the-repair"), 5, "a frame")
    finally:
        reader.close()


def features(command, name):
    text = subprocess.run([*command, "ethtool", "-k", name], capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"^([a-z-]+): (on|off)", text, re.M))


def test_offloads_in_a_lane_stay_off(instance):
    make_lanes(instance)
    lane = instance.lane()
    inside = ["nsenter", f"--net={lane['netns']}"]
    off = {"generic-receive-offload", "generic-segmentation-offload", "tcp-segmentation-offload",
           "tx-checksumming", "rx-checksumming"}
    assert {name: features(inside, "tap0")[name] for name in off} == dict.fromkeys(off, "off")
    subprocess.run([*inside, "ethtool", "-K", "tap0", "gro", "on"], check=True, capture_output=True)
    # (It may be off again before anyone can look.)
    wait_until(lambda: features(inside, "tap0")["generic-receive-offload"] == "off", 5, "GRO to be off again")
    settings = subprocess.run([*inside, "sysctl", "-n", "net.ipv6.conf.tap0.disable_ipv6"], capture_output=True,
                              text=True, check=True).stdout
    assert settings.strip() == "1"
    assert "state UNKNOWN" in subprocess.run([*inside, "ip", "link", "show", "lo"], capture_output=True, text=True,
                                             check=True).stdout


def test_a_tap_that_is_unplugged_comes_back_by_itself(instance, readers, wire):
    make_lanes(instance)
    instance.put("/v1/fleets/f/taps/t", {"kind": "interface", "interface": wire.far, "group": "g"})
    (reader,) = readers()
    wait_until(lambda: lane_works(instance, wire, reader, b"before"), 5, "a frame")
    wire.unplug()
    wait_until(lambda: instance.tap()["state"] == "missing", 5, "the tap to be missed")
    assert wire.far in instance.tap()["detail"]
    with pytest.raises(Refused) as refused:
        instance.put("/v1/fleets/f/taps/t", {"kind": "interface", "interface": wire.far, "group": "g"})
    assert refused.value.status == 404
    wire.plug()
    wait_until(lambda: instance.tap()["state"] == "up", 5, "the tap to be up")
    assert instance.tap()["detail"] == ""
    wait_until(lambda: lane_works(instance, wire, reader, b"afterwards"), 5, "a frame")


def test_an_interface_is_put_back_as_it_was(instance, wire):
    subprocess.run(["ethtool", "-K", wire.far, "gro", "on"], check=True, capture_output=True)
    subprocess.run(["ip", "link", "set", wire.far, "down"], check=True)

    def looks():
        flags = int(pathlib.Path(f"/sys/class/net/{wire.far}/flags").read_text(), 16)
        return {"promisc": bool(flags & 0x100), "up": bool(flags & 1),
                "gro": features([], wire.far)["generic-receive-offload"]}

    before = looks()
    assert before == {"promisc": False, "up": False, "gro": "on"}
    make_lanes(instance)
    instance.put("/v1/fleets/f/taps/t", {"kind": "interface", "interface": wire.far, "group": "g"})
    assert looks() == {"promisc": True, "up": True, "gro": "off"}
    subprocess.run(["ip", "link", "set", wire.far, "promisc", "off"], check=True)
    wait_until(lambda: looks()["promisc"], 5, "the promiscuous mode to be on again")
    instance.stop(signal.SIGKILL)  # what was before is remembered on disk
    instance.start()
    instance.delete("/v1/fleets/f/taps/t")
    assert looks() == before
    assert "xdp" not in subprocess.run(["ip", "link", "show", wire.far], capture_output=True, text=True,
                                       check=True).stdout


def test_a_removal_that_a_crash_cut_short_is_ended(instance, wire):
    subprocess.run(["ethtool", "-K", wire.far, "gro", "on"], check=True, capture_output=True)
    make_lanes(instance)
    instance.put("/v1/fleets/f/taps/t", {"kind": "interface", "interface": wire.far, "group": "g"})
    instance.stop(signal.SIGKILL)
    path = instance.state / "node/plane.json"
    plane = json.loads(path.read_text())
    plane["taps"][0]["leaving"] = True  # what is saved before the work begins
    path.write_text(json.dumps(plane))
    instance.start()
    assert instance.plane()["taps"] == [] and json.loads(path.read_text())["taps"] == []
    flags = int(pathlib.Path(f"/sys/class/net/{wire.far}/flags").read_text(), 16)
    assert not flags & 0x100 and features([], wire.far)["generic-receive-offload"] == "on"


# ---- changes ----


def test_a_tap_can_change_its_group_and_interface(instance, wire):
    other = Wire("wu" + instance.tag[2:])
    try:
        make_lanes(instance)
        instance.put("/v1/fleets/f/lanes/h/0", {"mtu": 1500})
        instance.put("/v1/fleets/f/groups/h", {"lanes": [{"index": 0, "weight": 1}]})
        for group, line in (("g", wire), ("h", wire), ("h", other)):
            instance.put("/v1/fleets/f/taps/t", {"kind": "interface", "interface": line.far, "group": group})
            before = instance.lane(0, group)["packets"]
            line.send(frame("10.0.0.1", "10.0.0.2", 5, 80, b"x"))
            wait_until(lambda: instance.lane(0, group)["packets"] == before + 1, 5, "the frame")
        assert "xdp" not in subprocess.run(["ip", "link", "show", wire.far], capture_output=True, text=True,
                                           check=True).stdout
    finally:
        other.unplug()


def test_calls_are_idempotent(instance, readers):
    make_lanes(instance, 2)
    make_replay_tap(instance)
    readers(2)
    links, before = instance.links(), instance.plane()
    make_lanes(instance, 2)
    make_replay_tap(instance)
    after = instance.plane()
    assert instance.links() == links and after["groups"] == before["groups"]
    assert [lane["slots"] for lane in after["lanes"]] == [lane["slots"] for lane in before["lanes"]]
    instance.delete("/v1/fleets/f/taps/t")
    instance.delete("/v1/fleets/f/taps/t")
    instance.delete("/v1/fleets/f/groups/g")
    instance.delete("/v1/fleets/f/groups/g")
    for _ in range(2):
        for index in range(2):
            instance.delete(f"/v1/fleets/f/lanes/g/{index}")
    assert instance.plane() == {"taps": [], "groups": [], "lanes": []}
    assert instance.links() == [] and instance.namespaces() == []


def test_delete_everything_and_clean(instance, wire):
    make_lanes(instance, 3)
    make_replay_tap(instance)
    instance.put("/v1/fleets/f/taps/u", {"kind": "interface", "interface": wire.far, "group": "g"})
    assert len(instance.links()) == 5 and len(instance.namespaces()) == 3
    instance.delete("/v1/plane")
    assert instance.links() == [] and instance.namespaces() == []
    assert instance.plane() == {"taps": [], "groups": [], "lanes": []}
    make_lanes(instance, 2)  # works on
    make_replay_tap(instance)
    instance.put("/v1/fleets/f/taps/u", {"kind": "interface", "interface": wire.far, "group": "g"})
    instance.stop(signal.SIGKILL)
    assert instance.mounts()
    subprocess.run(instance.command("down"), check=True, timeout=60)
    assert instance.links() == [] and instance.namespaces() == [] and instance.mounts() == []
    assert not (instance.state / "node/plane.json").exists() and not (instance.run / "node.sock").exists()
    shown = subprocess.run(["ip", "link", "show", wire.far], capture_output=True, text=True, check=True).stdout
    assert "xdp" not in shown and "PROMISC" not in shown


# ---- replay ----


def test_replay_counts_what_it_leaves_out(instance, tmp_path):
    make_lanes(instance)
    make_replay_tap(instance)
    fits = frame("10.0.0.1", "10.0.0.2", 1, 2, b"x" * 1460)
    large = frame("10.0.0.1", "10.0.0.2", 1, 2, b"x" * 1461)
    path = write_pcap(tmp_path / "a.pcap", [fits, large, fits[:100]], wire_lengths=[len(fits), len(large), len(fits)])
    end = replay(instance, path)
    assert (end["sent"], end["oversize"], end["truncated"], end["failed"]) == (2, 1, 1, 0)
    assert instance.tap()["packets"] == 2
    end = replay(instance, write_pcap(tmp_path / "b.pcap", [large]))
    assert end["state"] == "failed" and "MTU" in end["hint"]


@pytest.mark.parametrize("options, seconds", [({"mode": "rate", "pps": 500}, 0.4), ({"mode": "rate", "mbps": 1}, 0.5),
                                              ({"mode": "recorded"}, 0.398), ({"mode": "recorded", "speed": 2.0}, 0.199)])
def test_replay_keeps_its_pace(instance, tmp_path, options, seconds):
    make_lanes(instance)
    make_replay_tap(instance)
    data = frame("10.0.0.1", "10.0.0.2", 1, 2, b"x" * 258)
    assert len(data) == 312
    end = replay(instance, write_pcap(tmp_path / "a.pcap", [data] * 200, gap_us=2000), **options)
    assert end["sent"] == 200
    assert seconds * 1000 - 10 <= end["elapsedMs"] <= seconds * 1000 + 400


def test_replay_in_loops_until_it_is_stopped(instance, tmp_path):
    make_lanes(instance)
    make_replay_tap(instance)
    path = write_pcap(tmp_path / "a.pcap", [data for _, data in flows(10, 1)])
    end = replay(instance, path, loops=7)
    assert (end["sent"], end["loop"], end["state"]) == (70, 7, "done")
    instance.call("POST", REPLAY, {"files": [str(path), str(path)], "mode": "rate", "pps": 1000, "loops": 0})
    wait_until(lambda: instance.get(REPLAY)["loop"] > 3, 10, "a few turns")
    with pytest.raises(Refused) as refused:
        instance.call("POST", REPLAY, {"files": [str(path)]})
    assert refused.value.status == 409 and "--stop" in refused.value.error["hint"]
    end = instance.delete(REPLAY)
    assert end["state"] == "done" and end["stopped"] is True
    sent = instance.get(REPLAY)["sent"]
    time.sleep(0.1)
    assert instance.get(REPLAY)["sent"] == sent
    assert instance.tap()["packets"] == 70 + sent


def test_fast_replay_loses_nothing_on_the_way(instance, readers, tmp_path):
    make_lanes(instance, 2)
    make_replay_tap(instance)
    readers(2)
    path = write_pcap(tmp_path / "a.pcap", [data for _, data in flows(1000, 2)])
    end = replay(instance, path, loops=50)
    assert end["sent"] == 100_000 and end["failed"] == 0
    wait_until(lambda: sum_of(instance.plane(), "packets") >= 100_000, 5, "the last packets")
    plane = instance.plane()
    assert plane["taps"][0]["packets"] == 100_000 and plane["taps"][0]["dropped"] == 0
    assert sum_of(plane, "packets") == 100_000 and sum_of(plane, "ringDropped") == 0 and sum_of(plane, "unread") == 0


def test_a_damaged_capture_is_told(instance, tmp_path):
    make_lanes(instance)
    make_replay_tap(instance)
    path = write_pcap(tmp_path / "a.pcap", [data for _, data in flows(10, 1)])
    path.write_bytes(path.read_bytes()[:-5])
    end = replay(instance, path)
    assert end["state"] == "failed" and end["sent"] == 9 and "a.pcap" in end["error"]


def test_a_replay_that_the_agent_did_not_survive_is_told(instance, tmp_path):
    make_lanes(instance)
    make_replay_tap(instance)
    path = write_pcap(tmp_path / "a.pcap", [data for _, data in flows(10, 1)])
    assert instance.get(REPLAY)["state"] == "none"
    instance.call("POST", REPLAY, {"files": [str(path)], "mode": "rate", "pps": 10, "loops": 0})
    instance.stop(signal.SIGKILL)
    instance.start()
    end = instance.get(REPLAY)
    assert end["state"] == "failed" and "restarted" in end["error"]
    assert replay(instance, path)["state"] == "done"


# ---- the command ----


def picket_replay(instance, *args, **more):
    """The agent answers the calls that serve hands on under the same paths."""
    return subprocess.run(instance.command("--server", f"unix:{instance.run}/node.sock", "replay", *args),
                          capture_output=True, text=True, timeout=60, check=False, **more)


def test_the_replay_command(instance, tmp_path):
    make_lanes(instance)
    make_replay_tap(instance)
    data = frame("10.0.0.1", "10.0.0.2", 1, 2, b"x" * 258)
    write_pcap(tmp_path / "a.pcap", [data] * 100, gap_us=1000)
    large = write_pcap(tmp_path / "b.pcap", [data, frame("10.0.0.1", "10.0.0.2", 1, 2, b"x" * 3000)])
    none = picket_replay(instance, "--status")
    assert none.returncode == 0 and "No replay" in none.stdout
    done = picket_replay(instance, "a.pcap", cwd=tmp_path)  # the only tap; a path from here
    assert done.returncode == 0 and "done: 100 packets" in done.stdout and "\r" not in done.stderr, done
    assert instance.get(REPLAY)["elapsedMs"] >= 99
    done = picket_replay(instance, "a.pcap", str(large), "--tap", "f/t", "--fast", "--loop", "3", "-o", "json", cwd=tmp_path)
    summary = json.loads(done.stdout)
    assert {key: summary[key] for key in ("sent", "oversize", "failed")} == {"sent": 303, "oversize": 3, "failed": 0}
    assert summary["bytes"] == 303 * len(data) and summary["elapsedMs"] >= 0
    done = picket_replay(instance, str(large), "--tap", "t", "--mbps", "100")
    assert done.returncode == 0 and "MTU" in done.stderr
    done = picket_replay(instance, str(large), "--pps", "50", "--loop", "forever", "--detach")
    assert done.returncode == 0 and instance.get(REPLAY)["state"] == "running"
    busy = picket_replay(instance, str(large))
    assert busy.returncode != 0 and "is running" in busy.stderr
    stopped = picket_replay(instance, "--stop", "--tap", "f/t")
    assert stopped.returncode == 0 and stopped.stdout.startswith("stopped: ")
    assert instance.get(REPLAY)["state"] == "done"


def test_ctrl_c_stops_the_replay(instance, tmp_path):
    make_lanes(instance)
    make_replay_tap(instance)
    path = write_pcap(tmp_path / "a.pcap", [b"\x01" * 60] * 10)
    command = instance.command("--server", f"unix:{instance.run}/node.sock", "replay", path, "--pps", "100", "--loop", "forever")
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: instance.get(REPLAY)["sent"] > 5, 10, "the replay to run")
    running.send_signal(signal.SIGINT)
    out, fault = running.communicate(timeout=10)
    assert running.returncode not in (0, None) and "stopped" in out and "--detach" in fault
    assert instance.get(REPLAY)["state"] == "done" and instance.get(REPLAY)["stopped"]


@pytest.mark.parametrize("args, words", [
    ([], ["no capture file"]), (["missing.pcap"], ["missing.pcap", "No such file"]), (["/"], ["regular file"]),
    (["{a}", "--tap", "other"], ["no replay tap other", "picket status"]), (["{a}", "--tap", "g/t"], ["no replay tap"]),
    (["{a}", "--pps", "5", "--fast"], ["exclude"]), (["{a}", "--loop", "0"], ["--loop", "forever"]),
    (["{a}", "--loop", "often"], ["--loop", "forever"]), (["{a}", "--stop"], ["--stop"]),
    (["{a}", "--speed", "-1"], ["speed"]), (["{a}", "--pps", "x"], ["pps"]), (["{t}"], ["t.pcap"])])
def test_the_replay_command_refuses(instance, tmp_path, args, words):
    make_lanes(instance)
    make_replay_tap(instance)
    a = write_pcap(tmp_path / "a.pcap", [b"\x01" * 60])
    t = tmp_path / "t.pcap"
    t.write_text("this is no capture")
    done = picket_replay(instance, *[x.format(a=a, t=t) for x in args], cwd=tmp_path)
    assert done.returncode not in (0, -6, -11) and all(word in done.stderr for word in words), done
    assert instance.tap()["packets"] == 0


# ---- errors ----


def refused(instance, status, method, path, body=None):
    with pytest.raises(Refused) as caught:
        instance.call(method, path, body)
    assert caught.value.status == status, caught.value
    assert caught.value.error["message"]
    return caught.value.error


def test_errors_say_what_to_do_and_change_nothing(instance, wire, tmp_path):
    make_lanes(instance)
    make_replay_tap(instance)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    capture = write_pcap(tmp_path / "a.pcap", [b"\x01" * 60])
    before, links = instance.plane(), instance.links()
    taps = "/v1/fleets/f/taps/u"
    cases = [
        (404, "PUT", taps, {"kind": "interface", "interface": "nosuchif0", "group": "g"}, "doctor"),
        (404, "PUT", taps, {"kind": "interface", "interface": wire.far, "group": "nogroup"}, "group"),
        (409, "PUT", taps, {"kind": "interface", "interface": "lo", "group": "g"}, "mirror"),
        (404, "PUT", "/v1/fleets/f/groups/g", {"lanes": [{"index": 0}, {"index": 7}]}, "lane"),
        (409, "DELETE", "/v1/fleets/f/lanes/g/0", None, "group"),
        (409, "DELETE", "/v1/fleets/f/groups/g", None, "tap"),
        (404, "POST", "/v1/fleets/f/taps/none/replay", {"files": [str(capture)]}, "status"),
        (404, "POST", REPLAY, {"files": [str(tmp_path / "missing.pcap")]}, "file"),
        (422, "POST", REPLAY, {"files": [str(fifo)]}, "pcap"),
        (422, "POST", REPLAY, {"files": [str(tmp_path)]}, "pcap"),
    ]
    for status, method, path, body, hint in cases:
        error = refused(instance, status, method, path, body)
        assert hint in error["hint"], error
    wrong = [("lanes/g/0", {"mtu": 10}), ("lanes/g/0", {"mtu": "1500"}), ("lanes/g/0", []), ("lanes/g/9999", {}),
             ("lanes/G/0", {}), ("lanes/g/x", {}), ("groups/g", {"lanes": []}), ("groups/g", {"lanes": "0"}),
             ("taps/u", {"kind": "magic", "group": "g"}), ("taps/u", {"kind": "replay"}), ("taps/u", "{"),
             ("taps/u", {"kind": "interface", "interface": "../../x", "group": "g"})]
    for path, body in wrong:
        with pytest.raises(Refused) as caught:
            instance.put(f"/v1/fleets/f/{path}", body)
        assert 400 <= caught.value.status < 500, (path, body, caught.value)
    refused(instance, 404, "GET", "/v1/nothing")
    assert instance.plane() == before and instance.links() == links


def test_an_interface_feeds_one_tap(instance, wire, picket):
    make_lanes(instance)
    body = {"kind": "interface", "interface": wire.far, "group": "g"}
    instance.put("/v1/fleets/f/taps/t", body)
    error = refused(instance, 409, "PUT", "/v1/fleets/f/taps/other", body)
    assert "tap 't' of fleet 'f'" in error["message"] and error["hint"]
    second = Instance(picket)
    try:
        second.start()
        make_lanes(second)
        error = refused(second, 409, "PUT", "/v1/fleets/f/taps/t", body)  # its XDP hook is taken
        assert wire.far in error["message"] or "XDP" in error["message"]
        assert second.plane()["taps"] == []
    finally:
        second.close()
    assert instance.tap()["state"] == "up"
    wire.send(frame("10.0.0.1", "10.0.0.2", 5, 80, b"x"))
    wait_until(lambda: instance.tap()["packets"] == 1, 5, "the frame")


def test_a_second_agent_is_refused(instance):
    second = subprocess.run(instance.command("node"), capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode != 0
    assert str(instance.agent.pid) in second.stderr and "hint" in second.stderr
    assert instance.get("/v1/node")["pid"] == instance.agent.pid


def test_a_full_disk_leaves_the_old_plane(idle_instance):
    instance = idle_instance
    disk = instance.state / "node"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], check=True)
    try:
        instance.start()
        make_lanes(instance)
        before, links = instance.plane(), instance.links()
        filler = disk / "filler"
        try:
            with open(filler, "wb", buffering=0) as out:
                while True:
                    out.write(b"x" * 512)
        except OSError:
            pass
        error = refused(instance, 507, "PUT", "/v1/fleets/f/lanes/g/1", {"mtu": 1500})
        assert "room" in error["hint"]
        refused(instance, 507, "PUT", "/v1/fleets/f/taps/t", {"kind": "replay", "mtu": 1500, "group": "g"})
        assert instance.plane() == before and instance.links() == links and len(instance.namespaces()) == 1
        # What goes does not wait for the disk.
        saved = (disk / "plane.json").read_text()
        instance.delete("/v1/fleets/f/groups/g")
        instance.delete("/v1/fleets/f/lanes/g/0")
        assert instance.plane()["groups"] == [] and instance.plane()["lanes"] == [] and instance.namespaces() == []
        assert (disk / "plane.json").read_text() == saved
        filler.unlink()
        wait_until(lambda: json.loads((disk / "plane.json").read_text())["groups"] == [], 10, "the file to follow")
        assert json.loads((disk / "plane.json").read_text())["lanes"] == []
        make_lanes(instance, 2)
        assert len(instance.plane()["lanes"]) == 2
        instance.delete("/v1/plane")
        instance.stop()
    finally:
        instance.stop(signal.SIGKILL)
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_what_cannot_be_removed_stays_known(instance):
    """As with a bpffs that somebody mounted read-only: programs' pins cannot be taken out."""
    make_lanes(instance)
    instance.put("/v1/fleets/f/taps/t", {"kind": "replay", "mtu": 1500, "group": "g"})
    bpf = str(instance.run / "bpf")
    subprocess.run(["mount", "-o", "remount,bind,ro", bpf], check=True)
    try:
        refused(instance, 500, "DELETE", "/v1/fleets/f/taps/t")
        tap = instance.tap()
        assert tap["state"] == "detached" and "cannot be removed" in tap["detail"]
        assert json.loads((instance.state / "node/plane.json").read_text())["taps"][0]["leaving"]
        refused(instance, 409, "DELETE", "/v1/fleets/f/groups/g")  # the tap may send to it still
        subprocess.run(["mount", "-o", "remount,bind,rw", bpf], check=True)
        wait_until(lambda: instance.plane()["taps"] == [], 10, "the sweep to end it")
        instance.delete("/v1/fleets/f/groups/g")

        subprocess.run(["mount", "-o", "remount,bind,ro", bpf], check=True)
        refused(instance, 500, "DELETE", "/v1/fleets/f/lanes/g/0")
        assert "cannot be removed" in instance.lane()["detail"]
        assert json.loads((instance.state / "node/plane.json").read_text())["lanes"] == []
        refused(instance, 404, "PUT", "/v1/fleets/f/groups/g", {"lanes": [{"index": 0}]})
        subprocess.run(["mount", "-o", "remount,bind,rw", bpf], check=True)
        wait_until(lambda: instance.plane()["lanes"] == [], 10, "the sweep to end it")
        assert instance.links() == [] and instance.namespaces() == []
    finally:
        subprocess.run(["mount", "-o", "remount,bind,rw", bpf], check=True)
    make_lanes(instance)
    assert instance.lane()["state"] == "unread"


def test_a_damaged_plane_file_stops_the_start_not_the_packets(instance):
    make_lanes(instance)
    instance.stop(signal.SIGKILL)
    path = instance.state / "node/plane.json"
    good = path.read_text()
    path.write_text(good[: len(good) // 2])
    run = subprocess.run(instance.command("node"), capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode != 0 and "plane.json" in run.stderr and "packets still flow" in run.stderr
    assert instance.links() and instance.namespaces()
    path.write_text(good)
    instance.start()
    assert instance.lane()["state"] == "unread"


def test_the_agent_keeps_few_rights(instance):
    status = pathlib.Path(f"/proc/{instance.agent.pid}/status").read_text()
    kept = sum(1 << n for n in (0, 1, 12, 13, 19, 21, 38, 39))  # chown dac_override net_admin net_raw sys_ptrace sys_admin perfmon bpf
    fields = dict(re.findall(r"^(\w+):\s*(\S+)$", status, re.M))
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(fields[name], 16) & ~kept == 0, name
    assert fields["NoNewPrivs"] == "1"
    mode = (instance.run / "node.sock").stat().st_mode & 0o777
    assert mode == 0o600 and (instance.run / "bpf").stat().st_mode & 0o777 == 0o700


def test_without_rights_the_agent_says_which(picket, idle_instance):
    run = subprocess.run(["setpriv", "--bounding-set", "-net_admin", "--", *idle_instance.command("node")],
                         capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode != 0 and "CAP_NET_ADMIN" in run.stderr and "root" in run.stderr


def test_the_machine_is_described(instance, wire):
    node = instance.get("/v1/node")
    assert node["hostname"] == socket.gethostname() and node["cpus"] == os.cpu_count()
    assert node["kernel"] == os.uname().release and node["memoryBytes"] > 1 << 28 and node["numaNodes"] >= 1
    shown = {link["name"]: link for link in node["interfaces"]}
    assert shown[wire.far]["driver"] == "veth" and shown[wire.far]["mtu"] == 1500 and shown["lo"]["state"] == "loopback"
    make_lanes(instance)
    make_replay_tap(instance)
    assert not [n for n in (x["name"] for x in instance.get("/v1/node")["interfaces"]) if n.startswith(instance.tag)]
