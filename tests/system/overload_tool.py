# SPDX-License-Identifier: Apache-2.0
"""A tool of the tests that takes only so much. Run in a lane's namespace:

    overload_tool.py FRAMES RATE MICROSECONDS [CPU]

FRAMES: of its receive ring, 0 = a socket without one. It takes RATE packets a second at most (0 = all), and spends so much of the
processor's time on each. Prints, for each packet with a number, its flow and its number (8 bytes); at SIGTERM, to the standard
error, what the kernel gave it and what was lost in its ring or socket."""
import mmap
import os
import signal
import socket
import struct
import sys
import time

ETH_P_ALL, SOL_PACKET, PACKET_RX_RING, PACKET_STATISTICS = 3, 263, 5, 6
MARK = b"PKTN"
SIZE = 2048

FRAMES, RATE, COST = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]) / 1e6
if len(sys.argv) > 4:
    os.sched_setaffinity(0, {int(sys.argv[4])})
    os.nice(-15)  # what else runs on the machine is not part of the test
SOCK = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
RING = None
if FRAMES:
    SOCK.setsockopt(SOL_PACKET, PACKET_RX_RING, struct.pack("IIII", SIZE * 16, FRAMES // 16, SIZE, FRAMES))
    RING = mmap.mmap(SOCK.fileno(), SIZE * FRAMES)
SOCK.bind(("tap0", ETH_P_ALL))


def end(*_):
    """What has not been read yet is read first, so that all that the kernel gave it has been told."""
    global RATE, COST  # pylint: disable=global-statement
    RATE = COST = 0
    ENDING.append(True)


ENDING = []
signal.signal(signal.SIGTERM, end)


def packets():
    at = 0
    SOCK.setblocking(False)
    while True:
        if RING is None:
            try:
                yield SOCK.recv(65536)
                continue
            except BlockingIOError:
                pass
        else:
            base = at * SIZE
            if struct.unpack_from("L", RING, base)[0] & 1:
                _, _, snap, mac = struct.unpack_from("LIIH", RING, base)
                data = RING[base + mac:base + mac + snap]
                yield data
                struct.pack_into("L", RING, base, 0)
                at = (at + 1) % FRAMES
                continue
        if ENDING:
            return
        yield None


took, due = 0, time.monotonic()
for packet in packets():
    if packet is None:
        time.sleep(0.001)
        continue
    took += 1
    mark = packet.find(MARK)
    if mark >= 0:
        os.write(1, packet[mark + 4:mark + 12])
    if RATE:
        due = max(due + 1 / RATE, time.monotonic() - 0.05)
        time.sleep(max(due - time.monotonic(), 0))
    if COST:
        until = time.thread_time() + COST
        while time.thread_time() < until:
            pass
given, lost = struct.unpack("II", SOCK.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
print(took, given, lost, file=sys.stderr)
