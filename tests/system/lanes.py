# SPDX-License-Identifier: Apache-2.0
"""Packets for tests of taps and lanes: frames, capture files, senders, readers."""
import itertools
import select
import os
import socket
import struct
import subprocess
import threading
import time

from conftest import in_netns

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, PACKET_STATISTICS = 263, 8, 6
PACKET_OUTGOING = 4
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 16, 64
MAC_A, MAC_B = b"\x02\x00\x00\x00\x00\x0a", b"\x02\x00\x00\x00\x00\x0b"


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip4(text):
    return socket.inet_aton(text)


def frame(source, target, sport, dport, payload=b"", protocol=6, vlans=(), reverse=False):
    """An Ethernet frame of a flow; reverse: of its other direction. Addresses decide the family."""
    macs = MAC_B + MAC_A
    if reverse:
        source, target, sport, dport, macs = target, source, dport, sport, MAC_A + MAC_B
    if protocol == 6:
        l4 = struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 5 << 4, 0x18, 65535, 0, 0) + payload
    else:
        l4 = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    if ":" in source:
        kind = 0x86DD
        l3 = struct.pack("!IHBB", 6 << 28, len(l4), protocol, 64)
        l3 += socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    else:
        kind = 0x0800
        l3 = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 7, 0, 64, protocol, 0) + ip4(source) + ip4(target)
        l3 = l3[:10] + struct.pack("!H", checksum(l3)) + l3[12:]
    tags = b"".join(struct.pack("!HH", tpid, vid) for tpid, vid in vlans)
    return macs + tags + struct.pack("!H", kind) + l3 + l4


def flows(count, packets=4):
    """count flows of several kinds, packets of each in turn, both directions: [(flow number, frame)]."""
    kinds = []
    for n in range(count):
        four = (f"10.{n % 7}.{n // 250}.{n % 250 + 1}", f"192.0.2.{n % 200 + 1}")
        six = (f"2001:db8::{n + 1:x}", f"2001:db8:1::{n % 9 + 1:x}")
        ends = six if n % 4 == 1 else four
        vlans = [(0x8100, 100 + n % 5)] if n % 4 == 2 else []
        kinds.append((ends, 1024 + n * 3 % 60000, 80 if n % 3 else 53, 17 if n % 4 == 3 else 6, vlans))
    made = []
    for turn in range(packets):
        for n, ((a, b), sport, dport, protocol, vlans) in enumerate(kinds):
            text = f"flow={n:06d} turn={turn};".encode() + b"x" * ((n * 37 + turn * 11) % 900)
            made.append((n, frame(a, b, sport, dport, text, protocol, vlans, reverse=turn % 2 == 1)))
    return made


def write_pcap(path, frames, gap_us=100, wire_lengths=None):
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for n, data in enumerate(frames):
            when = 1_700_000_000_000_000 + n * gap_us
            wire = wire_lengths[n] if wire_lengths else len(data)
            out.write(struct.pack("<IIII", when // 1_000_000, when % 1_000_000, len(data), wire) + data)
    return path


class Reader:
    """A tool's packet socket in a lane: collects whole frames, the VLAN tag put back."""

    def __init__(self, lane):
        self.frames = []
        self.sock = in_netns(lane["netns"], self._open)
        self.ending = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @staticmethod
    def _open():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.bind(("tap0", ETH_P_ALL))
        sock.setblocking(False)
        return sock

    def _take(self):
        data, extra, _, address = self.sock.recvmsg(70000, 256)
        if address[2] == PACKET_OUTGOING:
            return
        for level, kind, value in extra:
            if level == SOL_PACKET and kind == PACKET_AUXDATA:
                status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", value[:20])
                if status & TP_STATUS_VLAN_VALID:
                    tpid = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
                    data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
        self.frames.append(data)

    def _run(self):
        while not self.ending:
            ready, _, _ = select.select([self.sock], [], [], 0.1)
            try:
                while ready:
                    self._take()
            except BlockingIOError:
                pass
            except OSError:  # the interface went away
                time.sleep(0.02)

    def dropped(self):
        """Lost in the socket itself, since the last call: the test's own fault, not the plane's."""
        return struct.unpack("II", self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]

    def close(self):
        self.ending = True
        self.thread.join()
        self.sock.close()


class Wire:
    """A veth pair of the test's own: frames sent into .near come in on .far, which can be a tap."""

    counter = itertools.count()

    def __init__(self, tag):
        stem = f"{tag}x{next(self.counter)}"
        self.near, self.far = stem + "n", stem + "f"
        self.sock = None
        self.plug()

    def plug(self):
        subprocess.run(["ip", "link", "add", self.near, "type", "veth", "peer", "name", self.far], check=True)
        for end in (self.near, self.far):
            try:
                with open(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6", "w", encoding="ascii") as knob:
                    knob.write("1")
                subprocess.run(["ip", "link", "set", end, "arp", "off", "up"], check=True)
            except (FileNotFoundError, subprocess.CalledProcessError):
                if end == self.near or os.path.exists(f"/sys/class/net/{end}"):
                    raise  # else a lane that waited for it has taken it into its namespace already
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.bind((self.near, 0))

    def send(self, data):
        self.sock.send(data)

    def unplug(self):
        if self.sock is not None:
            self.sock.close()
            self.sock = None
            subprocess.run(["ip", "link", "del", self.near], check=False)
