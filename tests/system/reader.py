# SPDX-License-Identifier: Apache-2.0
"""A tool of the tests: a process of its own that reads a lane and says what it got.

Run in the lane's namespace: reader.py INTERFACE [ring]. Prints, for each packet with a number, one
record of 12 bytes to the standard output: flow, number, milliseconds of the monotonic clock. "ring":
with a receive ring, as real tools have one."""
import mmap
import os
import socket
import struct
import sys
import time

ETH_P_ALL, SOL_PACKET, PACKET_RX_RING, PACKET_VERSION = 3, 263, 5, 10
MARK = b"PKTN"


def record(data):
    at = data.find(MARK)
    if at >= 0:
        flow, number = struct.unpack_from("!II", data, at + 4)
        os.write(1, struct.pack("=III", flow, number, time.monotonic_ns() // 1_000_000 & 0xFFFFFFFF))


def main():
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    if "ring" in sys.argv:
        size, frames = 2048, 4096
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, 0)
        sock.setsockopt(SOL_PACKET, PACKET_RX_RING, struct.pack("IIII", size * 16, frames // 16, size, frames))
        ring = mmap.mmap(sock.fileno(), size * frames)
    sock.bind((sys.argv[1], ETH_P_ALL))
    at = 0
    while "ring" not in sys.argv:
        record(sock.recv(70000))
    while True:
        base = at * size
        if not struct.unpack_from("L", ring, base)[0] & 1:
            time.sleep(0.001)
            continue
        _, _, snap, mac = struct.unpack_from("LIIH", ring, base)
        record(ring[base + mac:base + mac + snap])
        struct.pack_into("L", ring, base, 0)
        at = (at + 1) % frames


main()
