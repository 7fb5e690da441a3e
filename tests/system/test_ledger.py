# SPDX-License-Identifier: Apache-2.0
"""The ledger over real traffic: packets are lost on purpose in each place where that can be forced, each loss is told at
its place, and what the sender sent is what was delivered, left out and lost, to the packet."""
import errno
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from conftest import UnixConnection
from lanes import Wire, flows, frame
from whole import PICKET, Whole, wait_for

FLEET = """apiVersion: picket.dev/v1alpha1
kind: Fleet
metadata: {{name: led}}
spec:
  taps:
    - name: wire
      interface: {interface}
  tenants:
    - name: nobody
      match: {{vlans: [4000]}}
  groups:
    - name: analysis
      taps: [wire]
      filter: not udp port 9999
      lanes: 1
      canary: off
      tools:
        - package: suricata@7
          memory: 1GiB
          values: {{capture: {{ring-size: 2048}}}}
  events:
    sinks: [{{store: {{retain: 1d, sealAfter: 1s}}}}]
"""


class Sender:
    """Counts what it sends into the tap's interface."""

    def __init__(self, wire):
        self.wire, self.sent = wire, 0

    def send(self, frames):
        for data in frames:
            try:
                self.wire.send(data)
            except OSError as fault:  # the link did not take it, and counted that
                assert fault.errno == errno.ENOBUFS
        self.sent += len(frames)
        return len(frames)


def udp(count, port=53, size=60, source="10.1.0.1", vlans=()):
    return [frame(source, "192.0.2.9", 1024 + n % 50000, port, b"x" * size, 17, vlans) for n in range(count)]


@pytest.fixture(scope="module")
def site(suricata_image):
    whole = Whole()
    wire = None
    try:
        whole.up()
        wire = Wire(f"led{os.getpid() % 10000}")
        whole.apply(FLEET.format(interface=wire.far))
        whole.sender = Sender(wire)
        whole.wire = wire
        yield whole
    finally:
        whole.down()
        if wire is not None:
            wire.unplug()


def ledger(site, *more):
    return site.json("ledger", "led", *more)


def balance(document):
    return document["groups"][0]["balances"][0]


def lost(document):
    return {(row["cause"], row["where"]): row["packets"] for row in document["losses"] if row["kind"] != "note"}


def at_rest(site):
    """The ledger once nothing is under way any more, and two looks agree."""
    last = []

    def look():
        done = site.run("ledger", "led", "-o", "json", check=False)
        if done.returncode != 0:
            return None
        document = json.loads(done.stdout)
        if not document["groups"] or not document["taps"]:
            return None
        told = balance(document)
        seen = (told["in"], told["delivered"], told["lost"], told["unconfirmed"], document["taps"][0]["balance"]["in"],
                told["underWay"])
        last.append((seen, document["at"]))
        quiet = len(last) > 1 and last[-2][0] == seen and last[-2][1] != document["at"] and told["underWay"] == 0
        return document if quiet and document["taps"][0]["balance"]["in"] >= site.sender.sent else None
    try:
        return wait_for("the ledger to rest", 60, look)
    except AssertionError as fault:
        raise AssertionError(f"{fault}; {last[-2:]}; sent {site.sender.sent}\n{site.run('ledger', 'led', check=False).stdout}") from None


def ready(site):
    def look():
        done = site.run("status", "led", "-o", "json", check=False)
        if done.returncode != 0:  # the server was killed, and is started again
            return None
        lane = json.loads(done.stdout)["groups"][0]["lanes"][0]
        return lane if lane["state"] == "ready" and lane["tools"][0]["state"] == "running" else None
    return wait_for("a tool that reads", 60, look)


def check(site, document):
    """Every frame that was sent has one place."""
    tap, group = document["taps"][0]["balance"], balance(document)
    assert document["addsUp"], document
    assert tap["in"] == site.sender.sent, (tap, site.sender.sent, document["losses"])
    assert tap["in"] == tap["delivered"] + tap["leftOut"] + tap["lost"]
    assert group["in"] == tap["delivered"]
    assert group["in"] == group["delivered"] + group["leftOut"] + group["lost"] + group["unconfirmed"]
    told = {}
    for row in document["losses"]:
        if row["kind"] == "note":
            continue
        assert row["text"] and row["remedy"] and row["place"], row
        told[row["kind"]] = told.get(row["kind"], 0) + row["packets"]
    assert told.get("lost", 0) == tap["lost"] + group["lost"]
    assert told.get("left-out", 0) == tap["leftOut"] + group["leftOut"]
    assert told.get("unconfirmed", 0) == group["unconfirmed"]


def change(site, action):
    """What came to the losses by an action, and the ledger after it."""
    before = lost(at_rest(site))
    action()
    after = at_rest(site)
    check(site, after)
    now = lost(after)
    return {key: count - before.get(key, 0) for key, count in now.items() if count != before.get(key, 0)}, after


LANE, TOOL, TAP, GROUP = "lane analysis/0", "tool analysis/0/suricata", "tap wire", "group analysis"


def test_all_is_delivered(site):
    ready(site)
    made = [data for _, data in flows(300)]
    losses, document = change(site, lambda: site.sender.send(made))
    assert losses == {}
    assert balance(document)["delivered"] == site.sender.sent == len(made)
    text = site.run("ledger", "led").stdout
    assert re.search(r"group analysis: .* adds up", text) and "unexplained" not in text


def test_filtered(site):
    losses, _ = change(site, lambda: site.sender.send(udp(37, port=9999)))
    assert losses == {("filtered", GROUP): 37}


def test_unclaimed(site):
    """A tenant that has no group: what it claims is nobody's, whatever the groups' filters say."""
    losses, document = change(site, lambda: site.sender.send(udp(29, vlans=[(0x8100, 4000)]) + udp(3)))
    assert losses == {("unclaimed", TAP): 29}
    tenants = {row["name"]: row["packets"] for row in document["taps"][0]["tenants"]}
    assert tenants["nobody"] == 29 and sum(tenants.values()) == site.sender.sent, tenants


def test_interface(site):
    """Frames that are too long for the receiving end are lost before any program sees them."""
    subprocess.run(["ip", "link", "set", site.wire.near, "mtu", "3000"], check=True)
    losses, _ = change(site, lambda: site.sender.send(udp(11, size=2500)))
    subprocess.run(["ip", "link", "set", site.wire.near, "mtu", "1500"], check=True)
    assert losses == {("nic-sender", TAP): 11}


def test_lane_does_not_take_it(site):
    """The tap takes longer frames than the lane, since nobody is there to make room for them."""
    def action():
        (agent,) = site.pid_of("node")
        os.kill(agent, signal.SIGSTOP)
        try:
            for end in (site.wire.near, site.wire.far):
                subprocess.run(["ip", "link", "set", end, "mtu", "3000"], check=True)
            site.sender.send(udp(13, size=2500))
            time.sleep(0.2)
            for end in (site.wire.near, site.wire.far):
                subprocess.run(["ip", "link", "set", end, "mtu", "1500"], check=True)
        finally:
            os.kill(agent, signal.SIGCONT)
    losses, _ = change(site, action)
    assert losses == {("lane-ring", LANE): 13}


def agent_lanes(site):
    """The lanes that the agent has, or None while it does not answer."""
    connection = UnixConnection(str(site.rundir / "node.sock"))
    try:
        connection.request("GET", "/v1/plane")
        return json.load(connection.getresponse())["lanes"]
    except OSError:
        return None
    finally:
        connection.close()


class Hog:
    """Takes a CPU from all but real-time threads."""

    def __init__(self, cpu):
        self.child = subprocess.Popen(
            ["/usr/bin/python3", "-S", "-c", f"import os; os.sched_setaffinity(0, {{{cpu}}});"
             "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)); os.write(1, b'!')\nwhile True: pass"],
            stdout=subprocess.PIPE)
        assert self.child.stdout.read(1) == b"!"

    def end(self):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()


def threaded(lane, on):
    """Whether a thread of the kernel's own empties the lane's receive ring; containers leave its /sys read-only."""
    script = f"mount -o remount,rw /sys && echo {on} > /sys/class/net/tap0/threaded; mount -o remount,ro /sys"
    done = subprocess.run(["ip", "netns", "exec", os.path.basename(lane["netns"]), "sh", "-c", script],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done


def pollers():
    """Those threads, of all lanes on the machine."""
    found = set()
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and pathlib.Path(entry.path, "comm").read_text().startswith("napi/tap0-"):
                found.add(int(entry.name))
        except OSError:  # ended meanwhile
            pass
    return found


def test_lane_ring_runs_over(site):
    """The CPU that empties the lane's receive ring is busy with something else: the ring takes what it has room for."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    (lane,) = agent_lanes(site)

    def action():
        others = pollers()
        threaded(lane, 1)
        try:
            mine = pollers() - others
            assert len(mine) == 1, mine
            os.sched_setaffinity(mine.pop(), {second})
            hog = Hog(second)
            try:
                os.sched_setaffinity(0, {first})
                site.sender.send(udp(1500))
            finally:
                hog.end()
                os.sched_setaffinity(0, {first, second})
        finally:
            threaded(lane, 0)
    losses, _ = change(site, action)
    assert ("lane-ring", LANE) in losses and set(losses) <= {("lane-ring", LANE), ("tool-ring", TOOL)}, losses
    assert 0 < losses["lane-ring", LANE] < 1500, losses


def test_tool_does_not_read(site):
    """Suricata is stopped until its ring runs over; what did not fit is its own count."""
    def action():
        pid = ready(site)["tools"][0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(20):
                site.sender.send(udp(2000, size=1200))
        finally:
            os.kill(pid, signal.SIGCONT)
        ready(site)
    losses, _ = change(site, action)
    assert set(losses) == {("tool-ring", TOOL)} and 0 < losses["tool-ring", TOOL] < 40000, losses


def test_tool_dies(site):
    """Packets while no tool reads are unread; what was in a dead tool's hands is unconfirmed, and no more than that."""
    def action():
        pid = ready(site)["tools"][0]["pid"]
        site.sender.send(udp(300))
        os.kill(pid, signal.SIGKILL)
        site.sender.send(udp(50))

        def shut():
            lanes = json.loads(site.run("status", "led", "-o", "json").stdout)["groups"][0]["lanes"]
            return lanes[0]["state"] != "ready"
        wait_for("a shut lane", 10, shut)
        site.sender.send(udp(200))
        ready(site)
        site.sender.send(udp(100))
    losses, document = change(site, action)
    assert set(losses) <= {("unread", LANE), ("unconfirmed", TOOL)}, losses
    assert losses["unread", LANE] >= 200
    assert sum(losses.values()) <= 300 + 50 + 200, losses
    assert balance(document)["delivered"] >= 100


def test_killed_server_and_agent(site):
    """The broker counts on while nobody asks it, and the account is taken up."""
    before = balance(at_rest(site))["delivered"]

    def action():
        for role in ("serve", "node"):
            for pid in site.pid_of(role):
                os.kill(pid, signal.SIGKILL)
            site.sender.send(udp(400))
        ready(site)
        site.sender.send(udp(70))
    losses, document = change(site, action)
    assert losses == {}
    assert balance(document)["delivered"] == before + 870


def test_interface_comes_and_goes(site):
    """A tap whose interface is made again counts on."""
    def action():
        site.wire.unplug()
        wait_for("a missing tap", 10, lambda: site.status("led")["taps"][0]["state"] == "missing")
        site.wire.plug()
        wait_for("a tap", 20, lambda: site.status("led")["taps"][0]["state"] == "up")
        site.sender.send(udp(150))
    losses, _ = change(site, action)
    assert losses == {}


def test_views(site):
    """Filters of the command, the exit status, the API's errors."""
    document = ledger(site, "--group", "analysis")
    assert not document["taps"] and all("analysis" in row["where"] for row in document["losses"])
    document = ledger(site, "--tap", "wire")
    assert not document["groups"] and {row["where"] for row in document["losses"]} <= {"tap wire"}
    assert ledger(site, "--lane", "analysis/0")["groups"][0]["lanes"][0]["name"] == "analysis/0"
    assert site.run("ledger", "led", "--exit-code", check=False).returncode == 10
    for args, code in ((["--lane", "analysis/7"], 3), (["nosuch"], 3), (["--since", "x"], 2), (["--tap", "a", "--group", "b"], 2)):
        done = site.run("ledger", *([] if args == ["nosuch"] else ["led"]), *args, check=False)
        assert done.returncode == code and "hint:" in done.stderr, (args, done)
    recent = ledger(site, "--since", "1s")
    assert recent["since"] > document["since"]
    site.sender.send(udp(5))
    at_rest(site)


def metrics(site):
    connection = UnixConnection(str(site.rundir / "node.sock"))
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("Content-Type").startswith("application/openmetrics-text; version=1.0.0")
        text = answer.read().decode()
    finally:
        connection.close()
    assert text.endswith("# EOF\n")
    samples = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name not in samples
            samples[name] = float(value)
    return samples


def test_metrics_agree(site):
    document = at_rest(site)
    samples = metrics(site)
    group = 'fleet="led",group="analysis"'
    assert samples[f"picket_group_packets_total{{{group}}}"] == balance(document)["in"]
    assert samples[f'picket_group_unsent_packets_total{{{group},reason="filtered"}}'] == lost(document)["filtered", GROUP]
    lane = f'{{{group},lane="0"}}'
    ring = samples[f"picket_lane_sent_packets_total{lane}"] - samples[f"picket_lane_packets_total{lane}"]
    assert ring == lost(document)["lane-ring", LANE]
    assert samples[f"picket_lane_unread_packets_total{lane}"] == lost(document)["unread", LANE]
    assert samples[f"picket_lane_ready{lane}"] == 1
    assert samples["picket_agent_sweep_seconds_count"] > 0


def test_top_without_terminal(site):
    lines = site.run("top", "led", "-o", "json", "--count", "2").stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        kinds = [row["kind"] for row in json.loads(line)["rows"]]
        assert kinds == ["tap", "tenant", "tenant", "group", "lane", "tool"]
    text = site.run("top", "--count", "1").stdout
    assert "tap wire" in text and "\033" not in text


def read_terminal(master, until, seconds=15):
    data, deadline = b"", time.monotonic() + seconds
    while not until(data):
        assert time.monotonic() < deadline, data
        if select.select([master], [], [], 0.2)[0]:
            try:
                data += os.read(master, 65536)
            except OSError:
                break
    return data


@pytest.mark.parametrize("end", ["q", signal.SIGTERM, signal.SIGINT])
def test_top_on_a_terminal(site, end):
    """It takes the other screen, shows the tap, and gives the terminal back as it was."""
    master, slave = pty.openpty()
    subprocess.run(["stty", "rows", "24", "cols", "80"], stdin=slave, check=True)
    before = subprocess.run(["stty", "-a"], stdin=slave, capture_output=True, check=True).stdout
    top = subprocess.Popen([PICKET, "--state-dir", str(site.state), "--run-dir", str(site.rundir), "top"], stdin=slave,
                           stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"})
    try:
        shown = read_terminal(master, lambda data: b"lane 0" in data and b"LOST/S" in data)
        assert shown.startswith(b"\033[?1049h\033[?25l") and b"wire" in shown
        assert not re.search(rb"\033\[[0-9;]*[1-9]m", shown)  # no colours
        if end == "q":
            os.write(master, b"h")
            read_terminal(master, lambda data: b"this help" in data)
            os.write(master, b"q")
        else:
            top.send_signal(end)
        rest = read_terminal(master, lambda data: b"\033[?1049l" in data)
        assert b"\033[?25h" in rest
        assert top.wait(timeout=10) == 0
        assert subprocess.run(["stty", "-a"], stdin=slave, capture_output=True, check=True).stdout == before
    finally:
        top.kill()
        top.wait()
        os.close(master)
        os.close(slave)


def test_no_lane(site):
    """An agent that is killed and finds an old list, without the lane that its group had: the slots stay empty until the
    server, which is stopped meanwhile, has the lane made again. The last test: the lane counts from 0 after it."""
    def action():
        path = site.state / "node/plane.json"
        (serve,) = site.pid_of("serve")
        (agent,) = site.pid_of("node")
        os.kill(serve, signal.SIGSTOP)
        try:
            os.kill(agent, signal.SIGSTOP)
            path.write_text(json.dumps({**json.loads(path.read_text()), "lanes": []}))
            os.kill(agent, signal.SIGKILL)
            wait_for("the next agent", 20, lambda: agent_lanes(site) == [])
            site.sender.send(udp(120))
        finally:
            os.kill(serve, signal.SIGCONT)
        wait_for("a lane made again", 60, lambda: [row["slots"] for row in agent_lanes(site) or [] if row["state"] == "ready"])
        ready(site)
        site.sender.send(udp(80))
    losses, _ = change(site, action)
    assert losses == {("no-lane", GROUP): 120}, losses


def slow_down(pid, percent):
    """The process gets so much of one processor; False where this machine's cgroups cannot say so."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
        number, kinds, path = line.split(":", 2)
        quota = pathlib.Path("/sys/fs/cgroup", *([] if number == "0" else [kinds]), path.lstrip("/"),
                             "cpu.max" if number == "0" else "cpu.cfs_quota_us")
        if ("cpu" in kinds.split(",") or number == "0") and quota.exists():
            quota.write_text(f"{percent * 1000} 100000" if number == "0" else str(percent * 1000), encoding="ascii")
            return True
    return False


def test_shed(site):
    """Suricata gets less of the processor than it needs: whole flows are left out, and each packet has one place."""
    pid = ready(site)["tools"][0]["pid"]
    if not slow_down(pid, 4):
        pytest.skip("cgroups of this machine do not limit the processor's time")

    def action():
        frames = [frame(f"10.9.{n // 200}.{n % 200 + 1}", "192.0.2.9", 2000 + n, 53, b"x" * 1200, 17) for n in range(2000)]
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            site.sender.send(frames)
            group = site.status("led")["groups"][0]
            if group["counters"]["shed"] > 20000 or group["overload"]["shedShare"] > 0.9:
                break
        ready(site)
        slow_down(pid, 100)
    losses, document = change(site, action)
    assert losses.get(("shed", GROUP), 0) > 0 and ("yielded", GROUP) not in losses, losses
    assert set(losses) <= {("shed", GROUP), ("shunted", GROUP), ("tool-ring", TOOL)}, losses
    assert document["groups"][0]["balances"][0]["addsUp"]
    text = site.run("ledger", "led").stdout
    assert "whole flows were left out" in text
