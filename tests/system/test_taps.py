# SPDX-License-Identifier: Apache-2.0
"""Taps that end tunnels, interfaces that are set up and given back, interfaces that come and go."""
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import LIBC, Refused, in_netns, wait_until
from lanes import MAC_A, MAC_B, Reader, Wire, checksum, flows, frame, ip4
import whole as machine
from whole import Whole, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent needs root")
TAP = "/v1/fleets/f/taps/t"


def ip(*args, check=True):
    return subprocess.run(["ip", *map(str, args)], check=check, capture_output=True, text=True)


class Peer:
    """Another machine: a namespace, at the other end of a veth pair whose near end is this machine's."""

    def __init__(self, tag, mtu=1500, queues=2):
        self.name = f"{tag}peer"
        self.here, self.there = f"{tag}h", f"{tag}p"
        net = int(tag[-4:], 16)
        self.subnet = f"10.{200 + (net >> 12)}.{net & 255}"
        self.address, self.peer_address = f"{self.subnet}.2", f"{self.subnet}.1"
        self.path = f"/run/netns/{self.name}"
        self.mtu = mtu
        ip("netns", "add", self.name)
        ip("link", "add", self.here, "numrxqueues", queues, "numtxqueues", queues, "mtu", mtu, "type", "veth",
           "peer", "name", self.there, "netns", self.name, "mtu", mtu, "numrxqueues", 1, "numtxqueues", 1)
        self.inside("link", "set", "lo", "up")
        self.inside("addr", "add", f"{self.peer_address}/24", "dev", self.there)
        self.inside("link", "set", self.there, "up")
        ip("addr", "add", f"{self.address}/24", "dev", self.here)
        ip("link", "set", self.here, "up")

    def inside(self, *args):
        return ip("-n", self.name, *args)

    def vxlan(self, vni=5001, port=4789, mtu=None):
        """The kernel's own encapsulation: frames sent into it reach this machine in VXLAN."""
        name = f"vx{vni}"
        self.inside("link", "add", name, "mtu", mtu or self.mtu - 50, "type", "vxlan", "id", vni, "remote", self.address,
                    "dstport", port, "noudpcsum", "nolearning")
        in_netns(self.path, lambda: pathlib.Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1"))
        self.inside("link", "set", name, "arp", "off", "up")
        return self.socket(name)

    def socket(self, interface=None):
        def make():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.bind((interface or self.there, 0))
            return sock
        return in_netns(self.path, make)

    def echoes(self, count):
        """How many of so many echo requests (ping) this machine answers."""
        def run():
            sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            sock.settimeout(5)
            answers = set()
            for n in range(count):
                body = struct.pack("!BBHHH", 8, 0, 0, 77, n) + b"picket"
                sock.sendto(body[:2] + struct.pack("!H", checksum(body)) + body[4:], (self.address, 0))
                answers.add(sock.recv(200)[20:][6:8])
            return len(answers)
        return in_netns(self.path, run)

    def mac(self):
        return bytes.fromhex(pathlib.Path(f"/sys/class/net/{self.here}/address").read_text().strip().replace(":", ""))

    def outer(self, protocol, payload, target=None):
        """An outer packet as its mirror would send it."""
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
        header += ip4(self.peer_address) + ip4(target or self.address)
        return self.mac() + MAC_A + b"\x08\x00" + header + payload

    def close(self):
        ip("netns", "del", self.name, check=False)
        ip("link", "del", self.here, check=False)


def udp(port, payload):
    return struct.pack("!HHHH", 50000, port, 8 + len(payload), 0) + payload


@pytest.fixture
def peer(idle_instance, request):
    made = Peer("tp" + idle_instance.tag[2:], **getattr(request, "param", {}))
    yield made
    made.close()


@pytest.fixture
def wire(idle_instance):
    made = Wire("wt" + idle_instance.tag[2:])
    yield made
    made.unplug()


@pytest.fixture
def reader(instance):
    instance.put("/v1/fleets/f/lanes/g/0", {"mtu": 0})
    instance.put("/v1/fleets/f/groups/g", {"lanes": [{"index": 0, "weight": 1}]})
    made = Reader(instance.lane())
    wait_until(lambda: instance.lane()["state"] == "ready", 5, "the lane to be ready")
    yield made
    made.close()


def put_tunnel(instance, peer, types=("vxlan",), nic=None, **more):
    body = {"kind": "tunnel", "interface": peer.here, "groups": [{"name": "g"}],
            "tunnel": {"types": list(types), **more}}
    if nic is not None:
        body["nic"] = nic
    instance.put(TAP, body)


def put_interface(instance, interface, nic=None):
    body = {"kind": "interface", "interface": interface, "groups": [{"name": "g"}]}
    if nic is not None:
        body["nic"] = nic
    instance.put(TAP, body)


def arrived(reader, count, seconds=10):
    wait_until(lambda: len(reader.frames) >= count, seconds, f"{count} frames")
    return reader.frames


# ---- tunnels ----


class OwnTraffic:
    """What this machine does on the interface besides: a TCP transfer, datagrams, echoes. All must arrive."""

    SIZE, DATAGRAMS = 8 << 20, 400

    def __init__(self, peer):
        self.peer = peer
        self.server = socket.create_server((peer.address, 0))
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.datagrams.bind((peer.address, 0))
        self.port = self.server.getsockname()[1]
        self.received = b""
        self.threads = [threading.Thread(target=self._serve), threading.Thread(target=self._send)]
        self.sent = os.urandom(self.SIZE)
        for thread in self.threads:
            thread.start()

    def _serve(self):
        connection, _ = self.server.accept()
        chunks = []
        while chunk := connection.recv(1 << 16):
            chunks.append(chunk)
        connection.sendall(b"thanks")
        connection.close()
        self.received = b"".join(chunks)

    def _send(self):
        target = self.peer.address
        stream, datagrams = in_netns(self.peer.path, lambda: (
            socket.create_connection((target, self.port)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        step = self.SIZE // self.DATAGRAMS + 1
        for n in range(self.DATAGRAMS):
            stream.sendall(self.sent[n * step:(n + 1) * step])
            datagrams.sendto(b"%06d" % n, (target, self.datagrams.getsockname()[1]))
        stream.shutdown(socket.SHUT_WR)
        self.answer = stream.recv(100)

    def check(self):
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()
        assert self.received == self.sent and self.answer == b"thanks"
        self.datagrams.settimeout(5)
        assert {self.datagrams.recv(100) for _ in range(self.DATAGRAMS)} == {
            b"%06d" % n for n in range(self.DATAGRAMS)}


def test_a_vxlan_mirror_is_opened_and_nothing_else_is_lost(instance, reader, peer):
    put_tunnel(instance, peer)
    tap = instance.tap()
    assert (tap["kind"], tap["state"], tap["mode"]) == ("tunnel", "up", "native")
    mirror = peer.vxlan()
    own = OwnTraffic(peer)
    sent = [data for _, data in flows(200, 5)]
    for n, data in enumerate(sent):
        mirror.send(data)
        if n % 50 == 0:
            time.sleep(0.01)
    own.check()
    assert peer.echoes(20) == 20
    frames = arrived(reader, len(sent))
    assert frames == sent  # bit for bit, in order
    tap = instance.tap()
    assert (tap["packets"], tap["bytes"], tap["dropped"]) == (len(sent), sum(map(len, sent)), 0)
    assert tap["passed"] > OwnTraffic.DATAGRAMS
    assert instance.lane()["ringDropped"] == 0


@pytest.mark.parametrize("peer", [{"mtu": 9051}], indirect=True)
def test_jumbo_mirrors(instance, reader, peer):
    put_tunnel(instance, peer)
    mirror = peer.vxlan()
    assert instance.lane()["mtu"] >= 9051
    own = OwnTraffic(peer)
    sent = [frame("10.1.0.1", "192.0.2.7", 1000 + n, 80, b"j" * (8987 - 54 - n)) for n in range(60)]
    for data in sent:
        mirror.send(data)
        time.sleep(0.001)
    own.check()
    assert arrived(reader, len(sent)) == sent
    assert instance.tap()["reasons"].get("mirror-closed", 0) == 0


FRAME = frame("10.9.8.7", "192.0.2.9", 4000, 443, b"what the mirror saw" * 9)
TUNNELS = {
    "geneve": lambda: (17, udp(6081, struct.pack("!BBHI", 2, 0, 0x6558, 77 << 8) + b"\x01\x02\x03\x01" + b"opts" + FRAME)),
    "gre": lambda: (47, struct.pack("!HHI", 0x2000, 0x6558, 99) + FRAME),
    "gre-ip": lambda: (47, struct.pack("!HH", 0, 0x0800) + FRAME[14:]),
    "erspan": lambda: (47, struct.pack("!HH", 0, 0x88BE) + FRAME),
    "erspan-2": lambda: (47, struct.pack("!HHIHHI", 0x1000, 0x88BE, 5, 0x1000, 33, 0) + FRAME),
    "erspan-3": lambda: (47, struct.pack("!HHIHHIHH", 0x1000, 0x22EB, 5, 0x2000, 33, 0, 0, 0) + FRAME),
}


def test_geneve_gre_and_erspan(instance, reader, peer):
    put_tunnel(instance, peer, ["geneve", "gre", "erspan"])
    wire = peer.socket()
    for name, make in TUNNELS.items():
        reader.frames.clear()
        wire.send(peer.outer(*make()))
        (got,) = arrived(reader, 1)
        if name == "gre-ip":
            assert got[12:] == FRAME[12:] and got[:12] == bytes.fromhex("02706b000001" "02706b000002")
        else:
            assert got == FRAME, name
    tap = instance.tap()
    assert (tap["packets"], tap["dropped"]) == (len(TUNNELS), 0)
    # To another address: somebody else's.
    wire.send(peer.outer(*TUNNELS["gre"](), target=f"{peer.subnet}.77"))
    wait_until(lambda: instance.tap()["passed"] > tap["passed"], 5, "the packet to pass")
    assert instance.tap()["packets"] == len(TUNNELS)


def test_outer_headers_stay_when_asked(instance, reader, peer):
    put_tunnel(instance, peer, ["geneve"], decapsulate=False, port=7081)
    wire = peer.socket()
    protocol, payload = TUNNELS["geneve"]()
    wire.send(peer.outer(protocol, payload))  # the registered port is not this tap's
    whole = peer.outer(protocol, payload[:2] + struct.pack("!H", 7081) + payload[4:])
    wire.send(whole)
    assert arrived(reader, 1) == [whole]
    assert instance.tap()["packets"] == 1


def test_fragments_of_the_mirror_keep_their_outer_headers(instance, reader, peer):
    """XDP cannot put datagrams together: tools that can get them as they came; others' stay the machine's."""
    put_tunnel(instance, peer)
    mirror = peer.vxlan(mtu=4000)
    mirror.send(frame("10.1.0.1", "192.0.2.7", 1000, 80, b"f" * 3000))
    frames = arrived(reader, 3)
    assert len(frames) == 3 and all(data[14 + 9] == 17 for data in frames)
    assert instance.tap()["reasons"]["mirror-fragment"] == 3
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((peer.address, 0))
    listener.settimeout(5)
    sender = in_netns(peer.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender.sendto(b"o" * 5000, listener.getsockname())
    assert listener.recv(10000) == b"o" * 5000
    assert len(reader.frames) == 3


def test_tenants_by_the_number_of_the_tunnel(instance, reader, peer):
    instance.put("/v1/fleets/f/lanes/lab/0", {"mtu": 0})
    instance.put("/v1/fleets/f/groups/lab", {"lanes": [{"index": 0, "weight": 1}], "tenant": "lab"})
    lab = Reader(instance.lane(0, "lab"))
    try:
        wait_until(lambda: instance.lane(0, "lab")["state"] == "ready", 5, "the lane to be ready")
        instance.put(TAP, {"kind": "tunnel", "interface": peer.here, "tunnel": {"types": ["vxlan"]},
                           "tenants": [{"name": "lab", "vnis": [5002]}],
                           "groups": [{"name": "g"}, {"name": "lab", "tenant": "lab"}]})
        ours, theirs = peer.vxlan(5001), peer.vxlan(5002)
        for n in range(50):
            ours.send(frame("10.1.0.1", "192.0.2.7", 1000 + n, 80, b"default"))
            theirs.send(frame("10.1.0.1", "192.0.2.7", 1000 + n, 80, b"lab"))
        assert len(arrived(reader, 50)) == 50 and len(arrived(lab, 50)) == 50
        time.sleep(0.2)
        assert {data[54:] for data in reader.frames} == {b"default"} and {data[54:] for data in lab.frames} == {b"lab"}
    finally:
        lab.close()


def test_addresses_are_followed(instance, reader, peer):
    second = f"{peer.subnet}.55"
    put_tunnel(instance, peer)
    wire = peer.socket()
    packet = peer.outer(17, udp(4789, struct.pack("!II", 8 << 24, 1 << 8) + FRAME), target=second)
    wire.send(packet)
    wait_until(lambda: instance.tap()["passed"] >= 1, 5, "it to pass")
    assert instance.tap()["packets"] == 0
    ip("addr", "add", f"{second}/24", "dev", peer.here)

    def taken():
        wire.send(packet)
        return reader.frames

    wait_until(taken, 5, "the new address to be known")
    assert reader.frames[0] == FRAME
    # One that is nobody's here, but named: a load balancer's.
    third = f"{peer.subnet}.66"
    put_tunnel(instance, peer, addresses=[third])
    reader.frames.clear()
    wire.send(peer.outer(17, udp(4789, struct.pack("!II", 8 << 24, 1 << 8) + FRAME), target=third))
    assert arrived(reader, 1) == [FRAME]
    before = instance.tap()["packets"]
    instance.delete(TAP)
    assert before > 0 and f"inet {second}/24" in ip("addr", "show", peer.here).stdout


# ---- the set-up of interfaces ----


def features(interface):
    text = subprocess.run(["ethtool", "-k", interface], capture_output=True, text=True, check=True).stdout
    return {k.strip(): v.split()[0] for k, v in (line.split(":", 1) for line in text.splitlines()[1:] if ":" in line)}


def queues(interface):
    text = subprocess.run(["ethtool", "-l", interface], capture_output=True, text=True, check=True).stdout
    return int(text.split("Current hardware settings:")[1].split("RX:")[1].split()[0])


@pytest.mark.parametrize("end", ["delete", "down"])
@pytest.mark.parametrize("peer", [{"queues": 4}], indirect=True)
def test_an_interface_is_set_up_and_given_back(instance, reader, peer, end):
    if subprocess.run(["which", "ethtool"], capture_output=True).returncode != 0:
        pytest.skip("ethtool is not installed: nothing to compare with")
    subprocess.run(["ethtool", "-K", peer.here, "gro", "on"], check=True)
    ip("link", "set", peer.here, "promisc", "off")
    was, had = features(peer.here), queues(peer.here)
    wanted = 3 if had != 3 else 2
    put_interface(instance, peer.here, {"queues": wanted})
    tap = instance.tap()
    assert queues(peer.here) == wanted and features(peer.here)["generic-receive-offload"] == "off"
    assert {(x["setting"], x["from"], x["to"]) for x in tap["setup"]["set"]} == {
        ("receive queues", str(had), str(wanted)), ("gro", "on", "off"), ("rx-vlan-offload", "on", "off")}
    assert any("no ring sizes" in x["why"] for x in tap["setup"]["cannot"])
    assert tap["options"] == {"nic": {"queues": wanted}}
    # Somebody sets it back: told, not fought over.
    subprocess.run(["ethtool", "-L", peer.here, "rx", str(had)], check=True)
    assert any("set it back" in x["why"] for x in instance.tap()["setup"]["cannot"])
    # Another wish on the same interface.
    put_interface(instance, peer.here, {"queues": 1, "mergeOffloads": "keep"})
    assert queues(peer.here) == 1 and features(peer.here)["generic-receive-offload"] == "on"
    # What was before is known after a crash too.
    instance.stop(signal.SIGKILL)
    if end == "delete":
        instance.start()
        assert instance.tap()["setup"]["set"][0]["setting"] == "receive queues"
        instance.delete(TAP)
    else:
        subprocess.run(instance.command("down", "--purge", "--yes"), check=True, capture_output=True)
    assert queues(peer.here) == had and features(peer.here) == was
    assert "PROMISC" not in ip("link", "show", peer.here).stdout


def test_more_addresses_than_a_tap_can_know(instance, reader, peer):
    """It says how many are left out; what the fleet names is never among them."""
    names = [f"10.77.{n}.1" for n in range(80)]
    batch = "".join(f"addr add {name}/32 dev {peer.here}\n" for name in names[:-1])
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
    put_tunnel(instance, peer, addresses=[names[-1]])
    tap = instance.tap()
    assert tap["state"] == "up" and "too many addresses" in tap["detail"], tap
    assert "too many addresses" in instance.log.read_text()
    left_out = int(re.search(r"sent to (\d+) of them", tap["detail"]).group(1))
    assert 16 <= left_out <= 20  # 79, the interface's own and that of the fleet, of which 64 have room
    subprocess.run(["ip", "-batch", "-"], input=batch.replace("addr add", "addr del"), text=True, check=True)
    wait_until(lambda: instance.tap()["detail"] == "", 10, "the tap to be content")


def test_a_tunnels_interface_is_left_as_it_is(instance, reader, peer):
    subprocess.run(["ethtool", "-K", peer.here, "gro", "on"], check=True)
    was = features(peer.here)
    put_tunnel(instance, peer)
    now = features(peer.here)
    # Attached XDP programs switch segmentation off by themselves.
    assert now["generic-receive-offload"] == "on" and now["rx-vlan-offload"] == was["rx-vlan-offload"]
    assert "PROMISC" not in ip("link", "show", peer.here).stdout


@pytest.mark.parametrize("body, hint", [
    ({"kind": "tunnel", "tunnel": {"types": []}}, ""),
    ({"kind": "tunnel", "tunnel": {"types": ["vxlam"]}}, "vxlan"),
    ({"kind": "tunnel", "tunnel": {"types": ["gre"], "port": 4789}}, "port"),
    ({"kind": "tunnel", "tunnel": {"types": ["vxlan"], "addresses": ["10.0.0.0/8"]}}, "prefix"),
    ({"kind": "tunnel"}, ""),
    ({"kind": "interface", "tunnel": {"types": ["vxlan"]}}, ""),
    ({"kind": "interface", "nic": {"rings": -1}}, "rings"),
    ({"kind": "interface", "nic": {"ring": 7}}, "rings"),
])
def test_bad_requests(instance, reader, peer, body, hint):
    with pytest.raises(Refused) as fault:
        instance.put(TAP, {"interface": peer.here, "groups": [{"name": "g"}], **body})
    assert fault.value.status in (400, 422)
    assert hint in json.dumps(fault.value.error)
    assert instance.plane()["taps"] == []


# ---- interfaces that come and go ----


def test_an_interface_comes_and_goes(instance, reader, wire):
    put_interface(instance, wire.far)
    packets, took = 0, []
    for _ in range(5):
        wire.send(FRAME)
        packets += 1
        arrived(reader, packets)
        assert instance.tap()["packets"] == packets  # counters go on
        wire.unplug()
        gone = wait_until(lambda: (t := instance.tap())["state"] == "missing" and t, 5, "the tap to be missing")
        assert wire.far in gone["detail"]
        time.sleep(0.1)
        wire.plug()
        start = time.monotonic()
        wait_until(lambda: instance.tap()["state"] == "up", 5, "the tap to be up again")
        took.append(time.monotonic() - start)
    took.sort()
    print(f"attached after {took[2] * 1000:.0f} ms (median), at most {took[-1] * 1000:.0f} ms")
    wire.send(FRAME)
    arrived(reader, packets + 1)
    assert "PROMISC" in ip("link", "show", wire.far).stdout


def test_a_renamed_interface_is_let_go(instance, reader, wire):
    put_interface(instance, wire.far)
    other = wire.far + "z"
    ip("link", "set", wire.far, "name", other, check=False)
    if not pathlib.Path(f"/sys/class/net/{other}").exists():  # before Linux 6.2 it has to be down for that
        ip("link", "set", wire.far, "down")
        ip("link", "set", wire.far, "name", other)
    wait_until(lambda: instance.tap()["state"] == "missing", 5, "the tap to be missing")
    shown = ip("-d", "link", "show", other).stdout
    assert "PROMISC" not in shown and "xdp" not in shown
    ip("link", "set", other, "down")
    ip("link", "set", other, "name", wire.far)
    ip("link", "set", wire.far, "up")
    wait_until(lambda: instance.tap()["state"] == "up", 5, "the tap to be up again")
    wire.send(FRAME)
    assert arrived(reader, 1) == [FRAME]
    assert instance.tap()["packets"] == 1


def test_an_interface_moves_to_another_namespace_and_back(instance, reader, wire, peer):
    put_interface(instance, wire.far)
    wire.send(FRAME)
    arrived(reader, 1)
    ip("link", "set", wire.far, "netns", peer.name)
    wait_until(lambda: instance.tap()["state"] == "missing", 5, "the tap to be missing")
    peer.inside("link", "set", wire.far, "up")
    ip("link", "set", wire.near, "up")
    wire.send(FRAME)  # theirs now
    time.sleep(0.2)
    assert len(reader.frames) == 1 and "xdp" not in peer.inside("-d", "link", "show", wire.far).stdout
    peer.inside("link", "set", wire.far, "netns", "1")
    wait_until(lambda: instance.tap()["state"] == "up", 5, "the tap to be up again")
    wait_until(lambda: "LOWER_UP" in ip("link", "show", wire.far).stdout, 5, "the link")
    wire.send(FRAME)
    arrived(reader, 2)
    assert instance.tap()["packets"] == 2


# ---- lanes with an interface of their own ----


def put_device(instance, device):
    return instance.put("/v1/fleets/f/lanes/d/0", {"mtu": 0, "device": device})


def here(name):
    return pathlib.Path(f"/sys/class/net/{name}").exists()


@pytest.mark.parametrize("end", ["delete", "down", "without a plane"])
def test_a_lane_with_an_interface_of_its_own(instance, wire, end):
    subprocess.run(["ethtool", "-K", wire.far, "gro", "on"], check=True)
    was = features(wire.far)
    lane = put_device(instance, wire.far)
    instance.put("/v1/fleets/f/groups/d", {"lanes": [{"index": 0, "weight": 1}]})
    assert not here(wire.far)
    inside = ip("-n", pathlib.Path(lane["netns"]).name, "-d", "link", "show", "tap0").stdout
    assert "PROMISC" in inside and ",UP" in inside
    reader = Reader(lane)
    try:
        wait_until(lambda: instance.lane(0, "d")["state"] == "ready", 5, "the lane to be ready")
        sent = [data for _, data in flows(20, 3)]
        for data in sent:
            wire.send(data)
        assert arrived(reader, len(sent)) == sent
        row = instance.lane(0, "d")
        assert (row["device"], row["packets"], row["dropped"]) == (wire.far, len(sent), 0)
        # It goes on without the agent, and with the next one.
        instance.stop(signal.SIGKILL)
        wire.send(FRAME)
        arrived(reader, len(sent) + 1)
        instance.start()
        wait_until(lambda: instance.lane(0, "d")["state"] == "ready", 5, "the lane to be ready")
        wire.send(FRAME)
        arrived(reader, len(sent) + 2)
        assert instance.lane(0, "d")["packets"] == len(sent) + 2
    finally:
        reader.close()
    if end == "delete":
        instance.delete("/v1/fleets/f/groups/d")
        instance.delete("/v1/fleets/f/lanes/d/0")
        assert features(wire.far) == was
    else:
        instance.stop(signal.SIGKILL)
        if end == "without a plane":
            (instance.state / "node/plane.json").unlink()
        subprocess.run(instance.command("down", "--purge", "--yes"), check=True, capture_output=True)
    wait_until(lambda: here(wire.far), 5, "the interface to be back")
    shown = ip("-d", "link", "show", wire.far).stdout
    assert "alias" not in shown
    if end != "without a plane":
        assert "PROMISC" not in shown and ",UP" in shown and features(wire.far) == was


def test_a_virtual_device_goes_with_its_namespace(instance, wire):
    """What the plan warns of; the lane says what it lacks, and takes the interface when it is there again."""
    lane = put_device(instance, wire.far)
    subprocess.run(["umount", "-l", lane["netns"]], check=True)
    os.unlink(lane["netns"])
    gone = wait_until(lambda: (x := instance.lane(0, "d"))["state"] == "broken" and x, 20, "the lane to be broken")
    assert wire.far in gone["detail"]
    wire.unplug()
    wire.plug()
    wait_until(lambda: instance.lane(0, "d")["state"] == "unread", 5, "the lane to work")
    assert not here(wire.far)


def test_a_device_is_known_by_its_alias(instance, wire):
    """A physical interface whose namespace dies comes back under a name of the kernel's choice."""
    ip("link", "set", wire.far, "down")
    ip("link", "set", wire.far, "name", "dev77")
    ip("link", "set", "dev77", "alias", f"picket device {wire.far} of f/d/0")
    put_device(instance, wire.far)
    assert not here("dev77")
    instance.delete("/v1/fleets/f/lanes/d/0")
    assert here(wire.far)


def test_devices_that_cannot_be(instance, wire, reader):
    for device, words in (("lo", "loopback"), ("nothere0", "no interface"), ("a/b", "no interface")):
        with pytest.raises(Refused) as fault:
            put_device(instance, device)
        assert words in fault.value.error["message"] and fault.value.error["hint"]
    put_interface(instance, wire.far)
    with pytest.raises(Refused) as fault:
        put_device(instance, wire.far)
    assert "is a tap" in fault.value.error["message"]
    assert here(wire.far) and len(instance.plane()["lanes"]) == 1


# ---- from the fleet file ----


def fleet_text(peer, nic, taps="[cloud, wire]"):
    return json.dumps({
        "apiVersion": "picket.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": "taps"},
        "spec": {"taps": [
            {"name": "cloud", "tunnel": {"interface": peer.here, "type": "vxlan", "addresses": ["10.99.0.9"]}},
            {"name": "wire", "interface": f"{peer.here}w", "nic": nic}],
            "groups": [{"name": "analysis", "taps": ["cloud", "wire"], "lanes": 1,
                        "tools": [{"package": "suricata@7"}]}]}})


@pytest.fixture
def wired_peer(served):
    made = Peer("tw" + f"{os.getpid() & 0xffff:04x}")
    wire = f"{made.here}w"
    ip("link", "add", wire, "numrxqueues", 4, "numtxqueues", 4, "type", "veth", "peer", "name", f"{wire}x")
    subprocess.run(["ethtool", "-K", wire, "gro", "on"], check=True)
    yield made
    ip("link", "del", wire, check=False)
    made.close()


def test_the_plan_lists_what_changes_of_interfaces(served, wired_peer):
    wire = f"{wired_peer.here}w"
    had = queues(wire)
    text = fleet_text(wired_peer, {"queues": 3})
    plan = served.call("POST", "/v1/plans", {"document": text, "name": "taps.yaml"}, expect=200)
    steps = {step["name"]: step for step in plan["steps"] if step["kind"] == "tap"}
    told = {(x["setting"], x["from"], x["to"], "why" in x) for x in steps["wire"]["settings"]}
    assert ("receive queues", str(had), "3", False) in told and ("gro", "on", "off", False) in told
    assert ("receive rings", "?", "max", True) in told
    assert "settings" not in steps["cloud"]  # the machine's own interface is left as it is
    assert "what mirrors send to" in steps["cloud"]["traffic"]
    assert queues(wire) == had

    assert served.finish(served.call("POST", f"/v1/plans/{plan['id']}/apply", {}, expect=202))["outcome"] == "applied"
    assert queues(wire) == 3
    taps = {tap["name"]: tap for tap in served.call("GET", "/v1/fleets/taps/status", expect=200)["taps"]}
    assert taps["cloud"]["kind"] == "tunnel"
    assert {x["setting"] for x in taps["wire"]["setup"]["set"]} >= {"receive queues", "gro"}
    again = served.call("POST", "/v1/plans", {"document": text, "name": "taps.yaml"}, expect=200)
    assert again["steps"] == []

    other = served.call("POST", "/v1/plans", {"document": fleet_text(wired_peer, {"queues": 2}), "name": "taps.yaml"},
                        expect=200)
    (step,) = other["steps"]
    assert (step["op"], step["reason"]) == ("change", "settings of nic changed")
    assert {(x["setting"], x["from"], x["to"]) for x in step["settings"]} >= {("receive queues", "3", "2")}
    remove = served.call("POST", "/v1/plans", {"fleet": "taps", "remove": True}, expect=200)
    (gone,) = [step for step in remove["steps"] if step["name"] == "wire"]
    assert {(x["setting"], x["from"], x["to"]) for x in gone["settings"]} >= {
        ("receive queues", "3", str(had)), ("gro", "off", "on")}
    assert served.finish(served.call("POST", f"/v1/plans/{remove['id']}/apply", {}, expect=202))["outcome"] == "applied"
    assert queues(wire) == had and features(wire)["generic-receive-offload"] == "on"


def test_a_fleet_whose_lanes_have_interfaces_of_their_own(served, wired_peer):
    device = f"{wired_peer.here}w"
    text = json.dumps({
        "apiVersion": "picket.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": "devices"},
        "spec": {"groups": [{"name": "analysis", "lane": {"device": device}, "tools": [{"package": "suricata@7"}]}]}})
    plan = served.call("POST", "/v1/plans", {"document": text, "name": "d.yaml"}, expect=200)
    (lane,) = [step for step in plan["steps"] if step["kind"] == "lane"]
    assert f"interface {device} leaves this machine's network" in lane["traffic"]
    assert served.finish(served.call("POST", f"/v1/plans/{plan['id']}/apply", {}, expect=202))["outcome"] == "applied"
    assert not here(device)
    assert served.call("POST", "/v1/plans", {"document": text, "name": "d.yaml"}, expect=200)["steps"] == []
    status = served.call("GET", "/v1/fleets/devices/status", expect=200)
    assert status["groups"][0]["lanes"][0]["state"] == "ready" and status["reasons"] == []
    remove = served.call("POST", "/v1/plans", {"fleet": "devices", "remove": True}, expect=200)
    assert served.finish(served.call("POST", f"/v1/plans/{remove['id']}/apply", {}, expect=202))["outcome"] == "applied"
    assert here(device)


def test_a_fleet_can_be_changed_while_its_interface_is_away(suricata_image):
    """What else the file says is done, and the tap is taken when its interface is back."""
    def text(lanes, interface):
        return machine.fleet_text("away", lanes).replace("replay: {mtu: 9216}", f"interface: {interface}")

    def state(of):
        return next(row["state"] for row in whole.status("away")[of])

    whole = Whole()
    wire = Wire("pw" + whole.tag()[2:])  # what carries the instance's own tag is no interface of the machine
    try:
        whole.up()
        whole.apply(text(1, wire.far))
        wait_for("the fleet to be converged", 60, lambda: whole.status("away")["state"] == "converged")
        wire.unplug()
        wait_for("the tap to be missing", 20, lambda: state("taps") == "missing")
        refused = whole.run("plan", whole.write_fleet(text(1, "nothere0")), check=False)
        assert refused.returncode == 3 and "no interface nothere0" in refused.stderr, refused.stderr
        told = whole.apply(text(2, wire.far))
        assert "waits until its interface is there" in told.stderr, told.stderr
        wait_for("two lanes", 60, lambda: [lane["state"] for lane in whole.status("away")["groups"][0]["lanes"]] ==
                 ["ready", "ready"])
        assert state("taps") == "missing"
        wire.plug()
        wait_for("the fleet to be converged again", 60, lambda: whole.status("away")["state"] == "converged")
        assert state("taps") == "up"
    finally:
        whole.down()
        wire.unplug()
