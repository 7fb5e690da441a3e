# SPDX-License-Identifier: Apache-2.0
"""Suricata as an IPS between two namespaces: what a drop rule names does not get through, all else does."""
import contextlib
import http.client
import itertools
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import UnixConnection, in_netns
from lanes import PACKET_OUTGOING, SOL_PACKET, TP_STATUS_VLAN_VALID, frame
from whole import Whole, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="up needs root")
CLIENT, SERVER = "198.51.100.1", "198.51.100.2"
MTU = 9000
GAP_MAX_MS = 300
RULES = (
    'drop http any any -> any any (msg:"forbidden page"; http.uri; content:"/forbidden"; sid:1000001;)',
    'drop udp any any -> any 7777 (msg:"forbidden port"; sid:1000002;)',
    'alert udp any any -> any 7778 (msg:"seen port"; sid:1000003;)',
)
SERVE = ("import http.server\n"
         "class Page(http.server.BaseHTTPRequestHandler):\n"
         "    def do_GET(self):\n"
         "        self.send_response(200); self.end_headers(); self.wfile.write(b'page ' + self.path.encode())\n"
         "    def log_message(self, *args): pass\n"
         f"http.server.ThreadingHTTPServer(('{SERVER}', 80), Page).serve_forever()\n")


class End:
    """A host: a namespace with one interface, whose cable's other end is an interface of this machine."""

    def __init__(self, tag, letter, address):
        self.name = f"{tag}{letter}"
        self.netns = f"/run/netns/{self.name}"
        self.cable = f"{self.name}w"
        ip("netns", "add", self.name)
        self.mac = f"02:00:00:00:01:{ord(letter):02x}"
        ip("link", "add", self.cable, "mtu", MTU, "type", "veth", "peer", "name", "eth0", "address", self.mac, "mtu", MTU,
           "netns", self.name)
        pathlib.Path(f"/proc/sys/net/ipv6/conf/{self.cable}/disable_ipv6").write_text("1", encoding="ascii")
        ip("link", "set", self.cable, "up")
        self.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        self.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        # As a card would: checksums in the packets, none larger than the MTU. GRO, switched on while the
        # interface is up, gives it NAPI, without which a veth takes no redirected frames.
        self.run("ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "on")
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *args):
        subprocess.run(["ip", "netns", "exec", self.name, *args], check=True, capture_output=True)

    def start(self, *args):
        return subprocess.Popen(["ip", "netns", "exec", self.name, *args])

    def socket(self, *kind):
        return in_netns(self.netns, lambda: socket.socket(*kind))

    def packets(self):
        """A packet socket that sends, and receives what came in."""
        sock = self.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        sock.setsockopt(SOL_PACKET, 8, 1)  # PACKET_AUXDATA
        sock.bind(("eth0", 3))
        sock.settimeout(1)
        return sock

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], check=False)
        subprocess.run(["ip", "link", "del", self.cable], check=False, capture_output=True)


def ip(*args):
    subprocess.run(["ip", *map(str, args)], check=True, capture_output=True)


def fleet(ends, failure="open"):
    rules = "\n".join(" " * 16 + rule for rule in RULES)
    return f"""apiVersion: picket.dev/v1alpha1
kind: Fleet
metadata: {{name: edge}}
spec:
  taps:
    - {{name: wan, inline: {{interfaces: [{ends[0].cable}, {ends[1].cable}], failure: {failure}}}}}
  groups:
    - name: ips
      taps: [wan]
      lanes: 1
      tools:
        - package: suricata@7
          memory: 1GiB
          values:
            capture: {{ring-size: 1024}}
            rules:
              extra: |
{rules}
  events:
    sinks: [{{store: {{retain: 1d, sealAfter: 1s}}}}]
"""


class Site:
    def __init__(self):
        self.whole = Whole()
        self.ends = []
        self.server = None

    def start(self):
        tag = "ix" + self.whole.tag()[2:]
        self.ends = [End(tag, "a", CLIENT), End(tag, "b", SERVER)]
        for end, other, address in ((self.ends[0], self.ends[1], SERVER), (self.ends[1], self.ends[0], CLIENT)):
            end.run("ip", "neigh", "replace", address, "lladdr", other.mac, "dev", "eth0", "nud", "permanent")
        self.server = self.ends[1].start("/usr/bin/python3", "-c", SERVE)
        self.whole.up()
        self.whole.apply(fleet(self.ends))
        return self

    def tap(self):
        """As the agent has it now: the status is up to a second old."""
        def ask():
            connection = UnixConnection(str(self.whole.rundir / "node.sock"))
            try:
                connection.request("GET", "/v1/plane")
                return json.loads(connection.getresponse().read())["taps"][0]
            except (OSError, http.client.HTTPException):  # the agent is being started again
                return None
            finally:
                connection.close()
        return wait_for("the agent", 10, ask)

    def ways(self):
        """The counters by direction, once no packet is on its way any more."""
        seen = []

        def still():
            ways = self.tap()["inline"]["directions"]
            seen.append([way[name] for way in ways for name in ("packets", "returned", "toolDropped")])
            return ways if seen[-3:] == 3 * seen[-1:] else None

        ways = wait_for("the packets to settle", 10, still)
        for way in ways:
            assert way["packets"] == way["sent"] + way["bypassed"] + way["blocked"], way
            assert way["sent"] == (way["ringDropped"] + way["unread"] + way["toolDropped"] + way["returned"]
                                   + way["notSent"]), way
        return ways

    def inline(self):
        wait_for("Suricata to answer", 30, lambda: self.tap()["inline"]["state"] == "inline")

    def get(self, path):
        """A page's text; None when there is no answer."""
        with self.ends[0].socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            # It ends with a reset: no packet of the connection is sent again while other things are counted.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.settimeout(2)
            try:
                sock.connect((SERVER, 80))
                sock.sendall(f"GET {path} HTTP/1.0\r\nHost: {SERVER}\r\n\r\n".encode())
                answer = b"".join(iter(lambda: sock.recv(4096), b""))
            except OSError:
                return None
        return answer.split(b"\r\n\r\n", 1)[1].decode()

    def suricata(self):
        """Process ids of Suricata."""
        unit = next(iter((self.whole.state / "units").iterdir())).name
        done = subprocess.run(["podman", "inspect", "--format", "{{.State.Pid}}", unit], capture_output=True, text=True,
                              check=True)
        return int(done.stdout)

    def close(self):
        try:
            if self.server is not None:
                self.server.kill()
                self.server.wait()
            self.whole.down()
        finally:
            for end in self.ends:
                end.close()


@pytest.fixture(scope="module")
def site(suricata_image):
    made = Site()
    try:
        yield made.start()
    finally:
        made.close()


def received(sock, seconds=1.0):
    """Frames that come in until none comes for a while, with the tag that the kernel took out put back."""
    frames = []
    sock.settimeout(seconds)
    while True:
        try:
            data, extra, _, address = sock.recvmsg(70000, 256)
        except TimeoutError:
            return frames
        if address[2] == PACKET_OUTGOING:
            continue
        for _, _, value in extra:
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", value[:20])
            if status & TP_STATUS_VLAN_VALID:
                data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
        frames.append(data)


def change(before, after, side, name):
    return after[side][name] - before[side][name]


def test_exactly_what_the_rule_names_is_dropped(site):
    site.inline()
    receivers = {port: site.ends[1].socket(socket.AF_INET, socket.SOCK_DGRAM) for port in (7777, 7778)}
    for port, sock in receivers.items():
        sock.bind((SERVER, port))
        sock.settimeout(0.5)
    sender = site.ends[0].socket(socket.AF_INET, socket.SOCK_DGRAM)
    before = site.ways()
    for number in range(200):
        sender.sendto(b"%d" % number, (SERVER, 7777 + number % 2))
        time.sleep(0.001)
    got = {port: 0 for port in receivers}
    for port, sock in receivers.items():
        with contextlib.suppress(TimeoutError):
            while True:
                sock.recv(100)
                got[port] += 1
        sock.close()
    sender.close()
    after = site.ways()
    assert got == {7777: 0, 7778: 100}
    assert change(before, after, 0, "packets") == 200
    assert change(before, after, 0, "toolDropped") == 100
    assert change(before, after, 0, "returned") == 100
    assert change(before, after, 0, "bypassed") == 0


def test_a_page_is_allowed_and_another_dropped(site):
    site.inline()
    before = site.ways()
    assert site.get("/welcome") == "page /welcome"
    clean = site.ways()
    assert [change(before, clean, side, "toolDropped") for side in (0, 1)] == [0, 0]
    assert [change(before, clean, side, "bypassed") for side in (0, 1)] == [0, 0]
    assert change(before, clean, 0, "returned") >= 5
    assert site.get("/forbidden") is None
    assert change(clean, site.ways(), 0, "toolDropped") > 0
    assert site.get("/welcome") == "page /welcome"
    found = wait_for("the alert", 30, lambda: site.whole.events("event_type:alert"))
    assert any(event["signature_id"] == 1000001 and event["action"] == "blocked" for event in found)


def tagged(*tags, port=7778, size=60):
    return frame(CLIENT, SERVER, 5000, port, b"x" * size, protocol=17, vlans=tags)


FRAMES = {
    "plain": tagged(),
    "vlan": tagged((0x8100, 100)),
    "vlan with priority": tagged((0x8100, 0x6000 | 100)),
    "two vlan tags": tagged((0x8100, 100), (0x8100, 200)),
    "q-in-q": tagged((0x88A8, 100), (0x8100, 200)),
    "q-in-q of old": tagged((0x9100, 100), (0x8100, 200)),
    "service tag alone": tagged((0x88A8, 300)),
    "arp": b"\xff" * 6 + b"\x02\0\0\0\0\x0a\x08\x06" + b"\0\x01\x08\0\x06\x04\0\x01" + b"\x02\0\0\0\0\x0a"
           + socket.inet_aton("198.51.100.77") + b"\0" * 6 + socket.inet_aton("198.51.100.78") + b"\0" * 18,
    "lldp": b"\x01\x80\xc2\0\0\x0e\x02\0\0\0\0\x0a\x88\xcc\x02\x07\x04\x02\0\0\0\0\x0a" + b"\0" * 40,
    "spanning tree": b"\x01\x80\xc2\0\0\0\x02\0\0\0\0\x0a\0\x26BB\x03" + b"\0" * 43,
    "full size": tagged(size=1472),
    "jumbo": tagged(size=MTU - 28),
    "jumbo with a tag": tagged((0x8100, 100), size=MTU - 28),
}


def test_frames_come_out_as_they_went_in(site):
    site.inline()
    socks = [end.packets() for end in site.ends]
    for side in (0, 1):
        before = site.ways()
        for name, data in FRAMES.items():
            received(socks[not side], 0.01)
            socks[side].send(data)
            found = received(socks[not side], 0.3)
            assert data in found, (name, [x[:40].hex() for x in found], data[:40].hex())
        after = site.ways()
        assert change(before, after, side, "bypassed") == 0, "some frames did not go through Suricata"
    for sock in socks:
        sock.close()


def test_rules_see_through_tags(site):
    site.inline()
    socks = [end.packets() for end in site.ends]
    for tags in ((), ((0x8100, 100),), ((0x8100, 100), (0x8100, 200)), ((0x88A8, 100), (0x8100, 200)),
                 ((0x9100, 100), (0x8100, 200))):
        socks[0].send(tagged(*tags, port=7777))
        socks[0].send(tagged(*tags, port=7778))
        found = received(socks[1], 0.3)
        bad, good = tagged(*tags, port=7777), tagged(*tags, port=7778)
        # A tag of type 0x9100 inside the lane is 0x9200, which Suricata 7 does not read: not inspected.
        assert good in found and (bad in found) == (tags[:1] == ((0x9100, 100),)), tags
    for sock in socks:
        sock.close()


class Stream:
    """Numbered datagrams, 1,000 a second, from the client to the server."""

    def __init__(self, ends):
        self.receiver = ends[1].socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.bind((SERVER, 7778))
        self.receiver.settimeout(0.5)
        self.sender = ends[0].socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.times, self.arrivals = [], []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self.threads:
            thread.start()

    def _send(self):
        start = time.monotonic()
        while not self.ending.is_set():
            while len(self.times) < (time.monotonic() - start) * 1000:
                self.times.append(time.monotonic())
                self.sender.sendto(struct.pack("!Q", len(self.times) - 1), (SERVER, 7778))
            time.sleep(0.001)

    def _receive(self):
        while True:
            try:
                number = struct.unpack("!Q", self.receiver.recv(100))[0]
                self.arrivals.append((time.monotonic(), number))
            except TimeoutError:
                if self.ending.is_set():
                    return

    def stop(self):
        """-> sent, lost, the longest time from a lost packet to the next that came, in ms"""
        self.ending.set()
        for thread in self.threads:
            thread.join()
        self.sender.close()
        self.receiver.close()
        order = sorted(self.arrivals, key=lambda arrival: arrival[1])
        gaps = [(when - self.times[a + 1]) * 1000 for (_, a), (when, b) in itertools.pairwise(order) if b > a + 1]
        return len(self.times), len(self.times) - len(order), max(gaps, default=0)


@pytest.mark.parametrize("both", [False, True], ids=["suricata", "suricata-and-agent"])
def test_killed(site, both, record_property):
    site.inline()
    site.get("/welcome")
    before = site.ways()
    stream = Stream(site.ends)
    time.sleep(1)
    victims = [site.suricata()]
    if both:
        victims += site.whole.pid_of("node")
        assert len(victims) == 2
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    time.sleep(2)
    sent, lost, gap = stream.stop()
    print(f"\nkilled {'Suricata and the agent' if both else 'Suricata'}: {sent} packets sent, {lost} lost, "
          f"longest gap {gap:.0f} ms")
    record_property("gap_ms", round(gap))
    record_property("lost", lost)
    assert gap <= GAP_MAX_MS
    site.inline()  # what died was started again, and traffic goes through it
    after = site.ways()
    assert change(before, after, 0, "packets") >= sent
    assert change(before, after, 0, "bypassed") > 0
    assert sum(change(before, after, 0, name) for name in ("ringDropped", "unread", "toolDropped")) == lost
    assert site.get("/forbidden") is None and site.get("/welcome") == "page /welcome"
