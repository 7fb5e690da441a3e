# SPDX-License-Identifier: Apache-2.0
"""A tool of an inline lane: copies packets between tap0 and tap1, as Suricata's copy-mode does.

Run with the lane's namespace entered; ends when it is killed. What it is told on its standard input,
line by line, and says again: "drop" = copy only what is no IP packet, "copy" = copy all.
"""
import select
import socket
import struct
import sys

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23
TP_STATUS_VLAN_VALID = 16


def open_end(name):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.bind((name, ETH_P_ALL))
    sock.setblocking(False)
    return sock


def take(sock):
    data, extra, _, _ = sock.recvmsg(70000, 256)
    for level, kind, value in extra:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", value[:20])
            if status & TP_STATUS_VLAN_VALID and tci:  # as Suricata 7 puts it back
                data = data[:12] + struct.pack("!HH", 0x8100, tci) + data[12:]
    return data


def main():
    ends = [open_end("tap0"), open_end("tap1")]
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    drops = False
    print("ready", flush=True)
    watched = [*ends, sys.stdin]
    while True:
        for sock in select.select(watched, [], [])[0]:
            if sock is sys.stdin:
                word = sock.readline().strip()
                if not word:
                    watched.remove(sock)
                drops = word == "drop"
                print(word, flush=True)
                continue
            try:
                while True:
                    data = take(sock)
                    if not drops or data[12:14] not in (b"\x08\x00", b"\x86\xdd"):
                        other[sock].send(data)
            except BlockingIOError:
                pass


if __name__ == "__main__":
    main()
