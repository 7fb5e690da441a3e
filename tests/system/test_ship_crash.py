# SPDX-License-Identifier: Apache-2.0
"""Events come back exactly once: whatever is killed, renamed, deleted or truncated meanwhile.

A writer appends numbered EVE records as a tool would; ship and serve are killed at random times; in
the end the store must hold each number exactly once.
"""
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import pytest

PICKET = os.environ.get("PICKET", str(pathlib.Path(__file__).parents[2] / "build/src/cli/picket"))


class Instance:
    def __init__(self, base, keep="1s"):
        self.base = base
        self.state, self.run = base / "s", base / "r"
        self.logs = self.state / "units" / "x" / "log"
        self.logs.mkdir(parents=True)
        (self.state / "ship").mkdir()
        self.sources(True)
        self.keep = keep
        self.procs = {}

    def sources(self, active):
        path = self.state / "ship" / "sources.json"
        path.with_suffix(".tmp").write_text(json.dumps({"sources": [{
            "fleet": "test", "group": "g", "lane": 0, "tool": "suricata", "package": "suricata",
            "version": "7", "dir": str(self.logs), "active": active,
            "logs": [{"glob": "eve*.json", "format": "eve"}]}]}))
        path.with_suffix(".tmp").rename(path)

    def args(self, *more):
        return [PICKET, *more, "--state-dir", str(self.state), "--run-dir", str(self.run)]

    def start(self, name):
        extra = {"serve": ["serve", "--engine", "fake"], "ship": ["ship", "--keep", self.keep]}[name]
        log = open(self.base / (name + ".log"), "ab")
        self.procs[name] = subprocess.Popen(self.args(*extra), stdout=log, stderr=log)

    def kill(self, name, signo=signal.SIGKILL):
        proc = self.procs.pop(name)
        proc.send_signal(signo)
        proc.wait(30)

    def close(self):
        for name in list(self.procs):
            self.kill(name, signal.SIGTERM if name == "ship" else signal.SIGKILL)

    def json(self, *more):
        done = subprocess.run(self.args(*more), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]

    def numbers(self, kind="flow"):
        found, page = collections.Counter(), None
        while True:
            args = self.args("events", "--type", kind, "--since", "2000-01-01T00:00:00Z",
                             "--limit", "10000", "-o", "json")
            done = subprocess.run(args + (["--page", page] if page else []), capture_output=True,
                                  text=True, timeout=60)
            if done.returncode != 0:
                return None
            for line in done.stdout.splitlines():
                event = json.loads(line)
                found[json.loads(event["raw"])["n"] if kind == "flow" else event["raw"]] += 1
            page = next((word for line in done.stderr.splitlines() if "--page" in line
                         for word in [line.split("--page", 1)[1].split()[0].strip("'\"`.,")]), None)
            if page is None:
                return found

    def wait_numbers(self, want, timeout=40):
        end = time.monotonic() + timeout
        found = None
        while time.monotonic() < end:
            found = self.numbers()
            if found is not None and len(found) >= want:
                break
            time.sleep(0.3)
        return found

    def wait_hold_empty(self, timeout=30):
        hold = self.state / "ship" / "hold"
        end = time.monotonic() + timeout
        while time.monotonic() < end and list(hold.glob("*")):
            time.sleep(0.2)
        return list(hold.glob("*"))


@pytest.fixture
def instance():
    base = pathlib.Path(tempfile.mkdtemp(prefix="store-", dir="/tmp"))
    made = Instance(base)
    yield made
    made.close()
    shutil.rmtree(base)


def record(n, pad=200):
    return json.dumps({"timestamp": "2026-01-01T00:%02d:%02d.%06d+0000" % (n // 60000 % 60,
                                                                        n // 1000 % 60, n % 1000),
                       "flow_id": n, "event_type": "flow", "src_ip": "10.0.0.1", "src_port": 1024,
                       "dest_ip": "10.0.0.2", "dest_port": 80, "proto": "TCP", "n": n,
                       "pad": "x" * pad}).encode() + b"\n"


class Writer(threading.Thread):
    """Appends records; changes files as the way says; stops at `total`."""

    def __init__(self, logs, total, way, rate=8000):
        super().__init__()
        self.logs, self.total, self.way, self.rate = logs, total, way, rate
        self.files = 0

    def open(self):
        self.files += 1
        name = "eve.json" if self.way == "rename" else "eve-%04d.json" % self.files
        return open(self.logs / name, "ab", buffering=0), self.logs / name

    def run(self):
        out, path = self.open()
        start = time.monotonic()
        for n in range(self.total):
            line = record(n)
            cut = random.randrange(1, len(line))
            if n % 50 == 0:  # a line in two pieces, as tools with buffers write it
                out.write(line[:cut])
                time.sleep(0.001)
                out.write(line[cut:])
            else:
                out.write(line)
            if n % 3000 == 2999:
                if self.way == "rename":
                    path.rename(self.logs / ("eve-old%04d.json" % self.files))
                old = out
                out, new = self.open()
                if self.way == "delete":  # as soon as the tool is done with it
                    time.sleep(0.6)  # the shipper looks four times a second
                    path.unlink()
                path = new
                old.close()
            late = n / self.rate - (time.monotonic() - start)
            if late > 0:
                time.sleep(late)
        out.close()


@pytest.mark.parametrize("way", ["rotate", "rename", "delete"])
def test_kills(instance, way):
    total = 40000
    instance.start("serve")
    instance.start("ship")
    writer = Writer(instance.logs, total, way)
    writer.start()
    rng = random.Random(7)
    kills = collections.Counter()
    while writer.is_alive() or min(kills["ship"], kills["serve"]) < 10:
        time.sleep(rng.uniform(0.05, 0.4))
        victim = rng.choice(["ship", "serve"])
        instance.kill(victim)
        kills[victim] += 1
        if way != "delete" or victim == "serve":
            time.sleep(rng.uniform(0, 0.3))
        instance.start(victim)
    writer.join()
    found = instance.wait_numbers(total)
    assert found is not None
    lost = [n for n in range(total) if n not in found]
    doubled = [n for n, count in found.items() if count != 1]
    assert (len(lost), len(doubled)) == (0, 0), (way, lost[:5], doubled[:5], kills)
    instance.sources(False)  # the tool is gone: nothing is left behind
    assert instance.wait_hold_empty() == []
    assert [p.name for p in instance.logs.iterdir()] == []
    stats = instance.numbers("invalid")
    assert stats == {}


def test_half_line_and_rubbish(instance):
    """A tool died in the middle of a record and began anew in the same file."""
    instance.start("serve")
    instance.start("ship")
    path = instance.logs / "eve-1.json"
    half = record(1)[:77]
    path.write_bytes(record(0) + half + record(2) + b"no json\n" + b"\xff\xfe\n" + record(3))
    found = instance.wait_numbers(3)
    assert found == {0: 1, 2: 1, 3: 1}
    assert instance.numbers("invalid") == {half.decode(): 1, "no json": 1, "\\xff\\xfe": 1}


def test_truncated(instance):
    instance.start("serve")
    instance.start("ship")
    path = instance.logs / "eve.json"
    path.write_bytes(b"".join(record(n) for n in range(100)))
    assert len(instance.wait_numbers(100)) == 100
    with open(path, "r+b") as out:
        out.truncate(0)
        time.sleep(1)
        out.write(b"".join(record(n) for n in range(100, 150)))
    found = instance.wait_numbers(150)
    assert sorted(found.elements()) == list(range(150))
    instance.kill("ship")  # written anew while nobody looked, and longer than before
    path.write_bytes(b"".join(record(n) for n in range(150, 400)))
    instance.start("ship")
    found = instance.wait_numbers(400)
    assert sorted(found.elements()) == list(range(400))


def test_disk_full(instance):
    """A full disk: events wait in the tool's files, reads go on, nothing is lost or doubled."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    events = instance.state / "events"
    events.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(events)], check=True)
    try:
        instance.start("serve")
        instance.start("ship")
        path = instance.logs / "eve-1.json"
        with open(path, "wb") as out:
            for n in range(1000):
                out.write(record(n))
        assert len(instance.wait_numbers(1000)) == 1000
        filler = events / "filler"
        with open(filler, "wb") as out:
            try:
                while True:
                    out.write(b"x" * 65536)
                    out.flush()
            except OSError:
                pass
        with open(path, "ab") as out:
            for n in range(1000, 30000):
                out.write(record(n))
        time.sleep(8)
        assert set(instance.numbers()) >= set(range(1000))
        filler.unlink()
        found = instance.wait_numbers(30000)
        assert sorted(found.elements()) == list(range(30000))
    finally:
        instance.close()
        subprocess.run(["umount", str(events)], check=True)
