# SPDX-License-Identifier: Apache-2.0
"""Zeek's logs in JSON, rotated as zeekctl does: each log is renamed, a new one begins with its next record, the old
one is packed and removed a little later. Nothing of it is lost or doubled while ship and serve are killed."""
import collections
import gzip
import json
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import pytest

from test_ship_crash import Instance

START = 1767225600  # 2026-01-01


class ZeekInstance(Instance):
    def sources(self, active):
        path = self.state / "ship" / "sources.json"
        path.with_suffix(".tmp").write_text(json.dumps({"sources": [{
            "fleet": "test", "group": "g", "lane": 1, "tool": "zeek", "package": "zeek", "version": "7",
            "dir": str(self.logs), "active": active, "logs": [{"glob": "*.log", "format": "zeek-json"}]}]}))
        path.with_suffix(".tmp").rename(path)

    def uids(self, kind):
        found, page = collections.Counter(), None
        while True:
            args = self.args("events", "--type", kind, "--since", "2000-01-01T00:00:00Z", "--limit", "10000",
                             "-o", "json")
            done = subprocess.run(args + (["--page", page] if page else []), capture_output=True, text=True, timeout=60)
            if done.returncode != 0:
                return None
            events = [json.loads(line) for line in done.stdout.splitlines()]
            found.update(event["uid"] for event in events)
            page = next((line.split("--page", 1)[1].split()[0].strip("'\"`.,") for line in done.stderr.splitlines()
                         if "--page" in line), None)
            if page is None:
                return found

    def wait_uids(self, kind, want, timeout=60):
        end = time.monotonic() + timeout
        while True:
            found = self.uids(kind)
            if (found is not None and len(found) >= want) or time.monotonic() > end:
                return found
            time.sleep(0.3)


@pytest.fixture
def instance():
    base = pathlib.Path(tempfile.mkdtemp(prefix="zeek-", dir="/tmp"))
    made = ZeekInstance(base)
    yield made
    made.close()
    shutil.rmtree(base)


def record(kind, n):
    common = {"ts": START + n / 1000, "uid": "C%s%06d" % (kind[0], n), "id.orig_h": "10.1.0.%d" % (n % 250 + 1),
              "id.orig_p": 1024 + n % 60000, "id.resp_h": "fd00::%x" % (n % 100) if kind == "dns" else "192.168.7.7",
              "id.resp_p": 53 if kind == "dns" else 443, "proto": "udp" if kind == "dns" else "tcp"}
    more = {"conn": {"service": "ssl", "duration": 1.5, "orig_ip_bytes": n, "resp_ip_bytes": 2 * n, "history": "ShADad"},
            "dns": {"query": "H%d.Example.org" % n, "rcode_name": "NOERROR", "answers": ["192.0.2.1"]}}[kind]
    if kind == "dns":
        common["id.orig_h"] = "fd00::1:%x" % (n % 250)
    return json.dumps({**common, **more}).encode() + b"\n"


class Zeek(threading.Thread):
    """Writes conn.log and dns.log; rotates all of them every `each` records."""

    def __init__(self, logs, archive, total, each=2500, rate=6000):
        super().__init__()
        self.logs, self.archive, self.total, self.each, self.rate = logs, archive, total, each, rate
        self.open_logs, self.old, self.rotated = {}, [], 0

    def write(self, kind, data):
        if kind not in self.open_logs:  # a log begins with its first record
            self.open_logs[kind] = open(self.logs / f"{kind}.log", "ab", buffering=0)
        self.open_logs[kind].write(data)

    def rotate(self):
        self.rotated += 1
        stamp = time.strftime("%y-%m-%d_%H.%M.%S", time.gmtime(START + 3600 * self.rotated))
        for kind, out in self.open_logs.items():
            path = self.logs / f"{kind}-{stamp}.log"
            (self.logs / f"{kind}.log").rename(path)
            out.close()
            self.old.append((time.monotonic() + 1.0, path))
        self.open_logs = {}

    def pack(self, all_of_them=False):
        """What zeekctl's archive-log does, a while after the rotation."""
        while self.old and (all_of_them or self.old[0][0] < time.monotonic()):
            due, path = self.old.pop(0)
            time.sleep(max(0, due - time.monotonic()))
            with open(path, "rb") as plain, gzip.open(self.archive / (path.name + ".gz"), "wb") as packed:
                shutil.copyfileobj(plain, packed)
            path.unlink()

    def run(self):
        start = time.monotonic()
        for n in range(self.total):
            self.write("conn", record("conn", n))
            if n % 4 == 0:
                self.write("dns", record("dns", n))
            if n % self.each == self.each - 1:
                self.rotate()
            self.pack()
            late = n / self.rate - (time.monotonic() - start)
            if late > 0:
                time.sleep(late)
        self.rotate()
        self.pack(True)


def test_rotation_and_kills(instance):
    total = 24000
    archive = instance.base / "archive"
    archive.mkdir()
    instance.start("serve")
    instance.start("ship")
    zeek = Zeek(instance.logs, archive, total)
    zeek.start()
    rng = random.Random(3)
    kills = 0
    while zeek.is_alive():
        time.sleep(rng.uniform(0.3, 0.8))
        victim = rng.choice(["ship", "serve"])
        instance.kill(victim)
        kills += 1
        instance.start(victim)
    zeek.join()
    conn = instance.wait_uids("conn", total)
    dns = instance.wait_uids("dns", total // 4)
    # The archive holds what Zeek wrote: the store has the same, each record once.
    for kind, found in (("conn", conn), ("dns", dns)):
        wrote = collections.Counter()
        for path in archive.glob(f"{kind}-*.gz"):
            with gzip.open(path) as lines:
                wrote.update(json.loads(line)["uid"] for line in lines)
        assert max(wrote.values()) == 1
        missing, extra = wrote - found, found - wrote
        assert (len(missing), len(extra)) == (0, 0), (kind, list(missing)[:3], list(extra)[:3], kills)
    assert instance.uids("invalid") == {}
    instance.sources(False)
    assert instance.wait_hold_empty() == []


def test_columns(instance):
    """The names of Zeek's fields become the columns; the type is the log's name, also after it was renamed."""
    instance.start("serve")
    (instance.logs / "conn-26-01-01_01.00.00.log").write_bytes(record("conn", 7))
    (instance.logs / "known_hosts.log").write_bytes(b'{"ts":1767225601.25,"host":"10.9.9.9"}\n')
    (instance.logs / "dns.log").write_bytes(record("dns", 8))
    instance.start("ship")
    assert instance.wait_uids("dns", 1) == {"Cd000008": 1}
    assert instance.wait_uids("conn", 1) == {"Cc000007": 1}
    conn, = instance.json("events", "type:conn", "--since", "2000-01-01T00:00:00Z", "-o", "json")
    assert conn["time"].startswith("2026-01-01T00:00:00.007")
    assert (conn["src_ip"], conn["src_port"], conn["dst_ip"], conn["dst_port"]) == ("10.1.0.8", 1031, "192.168.7.7", 443)
    assert (conn["tool"], conn["lane"], conn["proto"], conn["app_proto"]) == ("zeek", 1, "tcp", "ssl")
    assert (conn["bytes_toserver"], conn["bytes_toclient"]) == (7, 14)
    assert conn["community_id"].startswith("1:") and json.loads(conn["raw"])["history"] == "ShADad"
    dns, = instance.json("events", "id.resp_h:fd00::/16 query:h8.*", "--since", "2000-01-01T00:00:00Z", "-o", "json")
    assert (dns["host"], dns["src_ip"]) == ("h8.example.org", "fd00::1:8")
    hosts, = instance.json("events", "type:known_hosts", "--since", "2000-01-01T00:00:00Z", "-o", "json")
    assert hosts["time"].startswith("2026-01-01T00:00:01.25")
    instance.kill("ship", signal.SIGTERM)
