# SPDX-License-Identifier: Apache-2.0
"""A whole picket instance for a test: 'picket up' in folders of its own, gone again at the end."""
import collections
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICKET = os.environ.get("PICKET", str(ROOT / "build/src/cli/picket"))
TRAFFIC = os.environ.get("PICKET_TRAFFIC", str(ROOT / "build/tools/traffic/traffic"))
IMAGE = "localhost/picket/suricata:7"


def wait_for(what, seconds, condition):
    """Polls condition until it gives something true; that is returned."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}; last: {value!r}")
        time.sleep(0.2)


class Whole:
    def __init__(self):
        # The run folder is short: socket paths have at most 107 bytes.
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="pk-", dir="/tmp"))
        self.state = self.base / "state"
        self.rundir = self.base / "run"

    def run(self, *args, check=True, timeout=120, **more):
        command = [PICKET, "--state-dir", str(self.state), "--run-dir", str(self.rundir), *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **more)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *args, **more):
        return json.loads(self.run(*args, "-o", "json", **more).stdout)

    def up(self):
        self.run("up")

    def down(self):
        try:
            self.run("down", "--purge", "--yes", check=False)
        finally:
            shutil.rmtree(self.base, ignore_errors=True)

    def write_fleet(self, text, name="fleet.yaml"):
        path = self.base / name
        path.write_text(text)
        return path

    def apply(self, text, name="fleet.yaml"):
        return self.run("apply", self.write_fleet(text, name), "--yes")

    def events(self, query="", **filters):
        args = ["events", "--since", "1d", "--limit", "0"]
        for key, value in filters.items():
            args += [f"--{key}", str(value)]
        if query:
            args.append(query)
        lines = self.run(*args, "-o", "json").stdout.splitlines()
        return [json.loads(line) for line in lines]

    def status(self, fleet):
        return self.json("status", fleet)

    def tag(self):
        """What the names of all that this instance makes in the kernel and in Podman begin with."""
        return "pk" + hashlib.sha256(str(self.rundir).encode()).hexdigest()[:4]

    def pid_of(self, role):
        """Process ids of this instance's role: "serve", "node", "ship", "podman"."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                args = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            mine = any(str(self.rundir) in arg for arg in args)
            if mine and role in args[:8] and (role == "podman" or "picket" in args[0]):
                found.append(int(entry.name))
            elif mine and role == "podman" and "system" in args and args[0].endswith("podman"):
                found.append(int(entry.name))
        return sorted(set(found))


class Keeper:
    """Keeps all that the tools write: a hard link to each of their files, whatever becomes of it."""

    def __init__(self, whole, folder):
        self.logs = whole.state / "units"
        self.folder = folder
        self.folder.mkdir()
        self.names = {}
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def look(self):
        for path in self.logs.glob("*/log/eve-*.json"):
            try:
                number = path.stat().st_ino
                if number not in self.names:
                    os.link(path, self.folder / f"{number}-{path.name}")
                    self.names[number] = path
            except FileNotFoundError:
                pass

    def run(self):
        while not self.stop.wait(0.1):
            self.look()

    def close(self):
        self.stop.set()
        self.thread.join()

    def written(self):
        """Whole lines, and what a killed tool left without its end: no record, but kept all the same."""
        self.look()
        lines, halves = collections.Counter(), collections.Counter()
        for path in self.folder.iterdir():
            *whole_lines, half = path.read_bytes().decode().split("\n")
            lines.update(whole_lines)
            halves.update([half] if half else [])
        return lines, halves

    def compare(self, whole, fleet):
        """What is missing in the store of all that was written before the look, what is there too often, and how much
        was written."""
        before, _ = self.written()
        stored = collections.Counter(event["raw"] for event in whole.events(fleet=fleet))
        after, halves = self.written()
        return before - stored, stored - after - halves, before.total()

    def check(self, whole, fleet):
        """Everything that the tools wrote is in the store exactly once."""
        found = ()

        def equal():
            nonlocal found
            found = missing, doubled, lines = self.compare(whole, fleet)
            return lines > 0 and not missing and not doubled
        try:
            wait_for("store and files to agree", 60, equal)
        except AssertionError:
            missing, doubled, lines = found
            raise AssertionError(f"of {lines} lines {missing.total()} are missing, {doubled.total()} too many: "
                                 f"{list(missing)[:2]} {list(doubled)[:2]}") from None


def fleet_text(name="t", lanes=2, values="", mtu=9216):
    extra = f"          values: {values}\n" if values else ""
    return f"""apiVersion: picket.dev/v1alpha1
kind: Fleet
metadata: {{name: {name}}}
spec:
  taps:
    - name: wire
      replay: {{mtu: {mtu}}}
  groups:
    - name: analysis
      taps: [wire]
      lanes: {lanes}
      canary: off
      tools:
        - package: suricata@7
          memory: 1GiB
{extra}  events:
    sinks: [{{store: {{retain: 1d, sealAfter: 1s}}}}]
"""


def make_traffic(path, *args):
    subprocess.run([TRAFFIC, str(path), *map(str, args)], check=True, capture_output=True)
    return path


def addresses(event):
    """The conversation, whichever end the tool took for the client."""
    ends = [(event.get("src_ip"), event.get("src_port")), (event.get("dest_ip"), event.get("dest_port"))]
    return tuple(sorted(map(str, ends))) + (event.get("proto"),)


def essence(event):
    """What two runs over the same packets must agree on."""
    kind = event.get("event_type")
    if kind == "alert":
        return (kind, addresses(event), event["alert"]["signature_id"])
    if kind == "flow":
        flow = event["flow"]
        counts = sorted([(flow["pkts_toserver"], flow["bytes_toserver"]), (flow["pkts_toclient"], flow["bytes_toclient"])])
        return (kind, addresses(event), event.get("app_proto"), str(counts))
    if kind == "http":
        http = event["http"]
        return (kind, addresses(event), http.get("hostname"), http.get("url"), http.get("status"), http.get("length"))
    if kind == "dns":
        dns = event["dns"]
        return (kind, addresses(event), dns.get("type"), dns.get("rrname"), dns.get("rrtype"), dns.get("rcode"))
    if kind == "tls":
        tls = event["tls"]
        return (kind, addresses(event), tls.get("sni"), tls.get("version"), tls.get("fingerprint"))
    if kind == "ssh":
        ssh = event["ssh"]
        return (kind, addresses(event), str(ssh.get("client")), str(ssh.get("server")))
    return None


def multiset(events):
    return collections.Counter(filter(None, map(essence, events)))


def difference(expected, got):
    missing, extra = expected - got, got - expected
    kinds = collections.Counter(k[0] for k in missing.elements()), collections.Counter(k[0] for k in extra.elements())
    return f"missing {dict(kinds[0])} e.g. {list(missing)[:3]}; extra {dict(kinds[1])} e.g. {list(extra)[:3]}"


def read_offline(whole, config, capture):
    """One Suricata reads the file alone, with the very configuration that the lanes had."""
    out = pathlib.Path(tempfile.mkdtemp(prefix="offline-", dir=whole.base))
    done = subprocess.run(
        ["podman", "run", "--rm", "--network", "none", "-v", f"{config}:/etc/picket:ro", "-v", f"{capture}:/in.pcap:ro", "-v", f"{out}:/var/log/picket:rw",
         "-v", f"{out}:/run/picket:rw", IMAGE,
         "suricata", "-c", "/etc/picket/suricata.yaml", "-r", "/in.pcap", "-l", "/var/log/picket"],
        env={**os.environ, "CONTAINERS_CONF": str(whole.rundir / "containers.conf")},
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    events = []
    for path in sorted(out.glob("eve*.json")):
        events += [json.loads(line) for line in path.read_text().splitlines()]
    return events
