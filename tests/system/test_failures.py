# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around picket, with the real programs and real Podman: each failure is said with what to do about
it, changes nothing by halves, and ends by itself once its cause is gone."""
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from whole import Keeper, PICKET, ROOT, Whole, fleet_text, make_traffic, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextlib.contextmanager
def instance(disk=None):
    """A running instance; its state on a small disk of its own where one is asked for."""
    whole = Whole()
    if disk is not None:
        whole.state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk}", "tmpfs", str(whole.state)], check=True)
    try:
        whole.up()
        yield whole
    finally:
        try:
            whole.run("down", "--purge", "--yes", check=False)
        finally:
            if disk is not None:
                subprocess.run(["umount", "-l", str(whole.state)], check=True)
            left = traces(whole)
            whole.down()
    assert not left


def traces(whole):
    """What there is of an instance in the kernel and in Podman."""
    tag = whole.tag()
    found = [name for name in os.listdir("/sys/class/net") if name.startswith(tag)]
    found += [path.name for path in pathlib.Path("/run/netns").glob(f"{tag}-*")]
    found += [name for name in containers() if name.startswith(tag)]
    return found + [line for line in pathlib.Path("/proc/self/mounts").read_text().splitlines() if str(whole.rundir) in line]


def containers():
    done = subprocess.run(["podman", "ps", "--all", "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.fixture(scope="module")
def whole(suricata_image):
    with instance() as running:
        yield running


def status_of(whole, fleet):
    done = whole.run("status", fleet, "-o", "json", check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def converged(whole, fleet):
    status = status_of(whole, fleet)
    if not status or status["state"] != "converged":
        return None
    tools = [tool for group in status["groups"] for lane in group["lanes"] for tool in lane["tools"]]
    return status if all(tool["state"] == "running" for tool in tools) else None


def settled(whole, fleet, seconds=60):
    return wait_for(f"fleet {fleet} to converge", seconds, lambda: converged(whole, fleet))


def tools_of(status):
    return {lane["name"]: lane["tools"][0] for group in status["groups"] for lane in group["lanes"]}


def refused(whole, *args, exit_code, words, hint, **more):
    """The command fails as it should: exit code, what is wrong, what to do."""
    done = whole.run(*args, check=False, **more)
    text = done.stderr
    assert done.returncode == exit_code, (done.returncode, done.stdout, text)
    for word in [words] if isinstance(words, str) else words:
        assert word in text, text
    assert "hint: " in text and hint in text.split("hint: ", 1)[1], text
    return done


def interface_fleet(name, interface):
    return re.sub(r"replay: .*", f"interface: {interface}", fleet_text(name, lanes=1))


@pytest.fixture
def wire():
    """A cable of our own: a pair of veth links."""
    name = f"pkx{os.getpid() % 100000}"
    make = ["ip", "link", "add", name, "mtu", "4000", "type", "veth", "peer", "name", name + "b", "mtu", "4000"]
    subprocess.run(make, check=True)
    try:
        yield name, make
    finally:
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)


# ---- what is missing at the apply ----

def test_image_missing(whole):
    catalog = whole.base / "catalog"
    shutil.copytree(ROOT / "catalog", catalog)
    manifest = catalog / "suricata/manifest.yaml"
    manifest.write_text(manifest.read_text().replace("localhost/picket/suricata:7", "localhost/picket/suricata:7-none"))
    with contextlib.ExitStack() as stack:
        stack.callback(os.environ.pop, "PICKET_CATALOG")
        os.environ["PICKET_CATALOG"] = str(catalog)
        other = stack.enter_context(instance())
        fleet = other.write_fleet(fleet_text("noimage", lanes=2))
        refused(other, "apply", fleet, "--yes", exit_code=3, words="localhost/picket/suricata:7-none", hint="picket image build suricata")
        assert other.json("status").get("fleets", []) == [] and status_of(other, "noimage") is None
        assert traces(other) == [] or all("bpf" in trace for trace in traces(other))


def test_interface_missing_and_vanishing(whole, wire):
    name, make = wire
    before = traces(whole)
    fleet = whole.write_fleet(interface_fleet("cable", "pkxnone0"), "cable.yaml")
    refused(whole, "apply", fleet, "--yes", exit_code=3, words=["pkxnone0", "cable.yaml:6:7"], hint="ip link")
    assert traces(whole) == before and status_of(whole, "cable") is None

    whole.apply(interface_fleet("cable", name), "cable.yaml")
    assert settled(whole, "cable")["taps"][0]["state"] == "up"
    # Its largest frames get through: the lanes have room for them.
    subprocess.run(["ip", "link", "set", name + "b", "up"], check=True)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as end:
        end.bind((name + "b", 0))
        for _ in range(10):
            end.send(b"\x02" * 12 + b"\x88\xb5" + b"x" * 4000)

    def arrived():
        status = status_of(whole, "cable")
        lane = status["groups"][0]["lanes"][0]
        return lane["bytes"] >= 40000 and lane["packets"] == status["taps"][0]["packets"] and lane["dropped"] == 0
    wait_for("large frames in the lane", 10, arrived)
    subprocess.run(["ip", "link", "del", name], check=True)
    lost = wait_for("the tap to be missed", 10, lambda: (s := status_of(whole, "cable")) and s["state"] == "degraded" and s)
    assert lost["taps"][0]["state"] == "missing" and any(name in reason for reason in lost["reasons"]), lost["reasons"]
    subprocess.run(make, check=True)
    assert settled(whole, "cable", 20)["taps"][0]["state"] == "up"
    whole.run("delete", "cable", "--yes")
    assert traces(whole) == before


def test_podman_away(whole):
    """Podman's service stopped dead, then its socket removed: said at once, in bounded time, and over when it is back."""
    whole.apply(fleet_text("podm", lanes=1))
    before = settled(whole, "podm")
    pid = whole.pid_of("podman")[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        fleet = whole.write_fleet(fleet_text("podm", lanes=2), "two.yaml")
        begun = time.monotonic()
        refused(whole, "apply", fleet, "--yes", exit_code=7, words="engine did not answer", hint="picket doctor")
        assert time.monotonic() - begun < 45
        status = wait_for("the engine to be missed", 45, lambda: (s := status_of(whole, "podm")) and not s["engine"]["reachable"] and s)
        assert status["state"] == "degraded" and status["revision"] == before["revision"]
    finally:
        os.kill(pid, signal.SIGCONT)
    after = settled(whole, "podm")
    assert tools_of(after)["analysis/0"]["pid"] == tools_of(before)["analysis/0"]["pid"]

    (whole.rundir / "podman.sock").unlink()
    wait_for("another socket", 20, lambda: (whole.rundir / "podman.sock").exists())
    after = settled(whole, "podm")
    assert tools_of(after)["analysis/0"]["pid"] == tools_of(before)["analysis/0"]["pid"]
    whole.run("delete", "podm", "--yes")


def test_second_of_everything(whole):
    """A second server or agent of the same folders is refused, and harms neither."""
    for role in ("serve", "node"):
        pid = (whole.rundir / "up" / f"{role}.pid").read_text().split()[0]
        done = refused(whole, role, exit_code=5, words=pid, hint="", timeout=30)
        assert done.stdout == ""
    whole.run("status")
    assert whole.pid_of("node") and whole.pid_of("serve")


def test_port_taken(whole, tmp_path):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"], check=True, capture_output=True)
    other = Whole()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        try:
            refused(other, "serve", "--engine", "fake", "--listen", address, "--cert", tmp_path / "cert.pem", "--key", tmp_path / "key.pem",
                    exit_code=5, words=str(taken.getsockname()[1]), hint="port", timeout=30)
            assert not (other.rundir / "serve.sock").exists()
        finally:
            shutil.rmtree(other.base, ignore_errors=True)


@pytest.mark.parametrize("right", ["bpf", "net_admin", "perfmon", "sys_admin"])
def test_rights_missing(right):
    other = Whole()
    try:
        done = subprocess.run(["setpriv", "--bounding-set", f"-{right}", "--", PICKET, "--state-dir", str(other.state), "--run-dir",
                               str(other.rundir), "node"], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 4 and f"CAP_{right.upper()}" in done.stderr and "hint: " in done.stderr, done
        assert not (other.rundir / "node.sock").exists() and traces(other) == []
    finally:
        shutil.rmtree(other.base, ignore_errors=True)


# ---- what somebody did behind picket's back ----

def edit(path):
    path.write_text(path.read_text() + "\n# changed by hand\n")


DAMAGES = {
    "container removed": lambda whole, tool, lane: subprocess.run(["podman", "rm", "-f", "-t", "0", tool["unit"]], check=True, capture_output=True),
    "container stopped": lambda whole, tool, lane: subprocess.run(["podman", "stop", "-t", "5", tool["unit"]], check=True, capture_output=True),
    "namespace gone": lambda whole, tool, lane: subprocess.run(["ip", "netns", "del", pathlib.Path(lane["netns"]).name], check=True),
    "config changed": lambda whole, tool, lane: edit(next((whole.state / "units" / tool["unit"] / "config").glob("*/suricata.yaml"))),
    "config removed": lambda whole, tool, lane: shutil.rmtree(whole.state / "units" / tool["unit"] / "config"),
}


@pytest.fixture(scope="module")
def drifting(whole):
    whole.apply(fleet_text("drift", lanes=2), "drift.yaml")
    yield whole
    whole.run("delete", "drift", "--yes")


@pytest.mark.parametrize("damage", DAMAGES)
def test_drift_is_seen_and_repaired(drifting, damage):
    whole = drifting
    before = settled(whole, "drift")
    tools = tools_of(before)
    DAMAGES[damage](whole, tools["analysis/0"], before["groups"][0]["lanes"][0])
    seen = wait_for("status to say it", 20, lambda: (s := status_of(whole, "drift")) and s["state"] != "converged" and s)
    assert any("analysis/0" in reason for reason in seen["reasons"]), seen["reasons"]
    after = settled(whole, "drift")
    assert after["revision"] == before["revision"]
    assert tools_of(after)["analysis/0"]["pid"] != tools["analysis/0"]["pid"]
    assert tools_of(after)["analysis/1"]["pid"] == tools["analysis/1"]["pid"]  # the other lane had no part in it
    assert not list((whole.state / "units").glob("*/config/*/suricata.yaml")) == []
    assert "changed by hand" not in "".join(path.read_text() for path in (whole.state / "units").glob("*/config/*/suricata.yaml"))


# ---- changes ----

def two_tools(name, memory):
    """Two groups, so that one value belongs to one of them."""
    text = fleet_text(name, lanes=1)
    head, rest = text.split("  groups:\n")
    group, tail = rest.split("  events:\n")
    second = group.replace("name: analysis", "name: second").replace("memory: 1GiB", f"memory: {memory}").replace("taps: [wire]", "taps: [wire2]")
    return f"{head}    - name: wire2\n      replay: {{}}\n  groups:\n{group}{second}  events:\n{tail}"


def test_change_stale_rollback(whole):
    whole.apply(two_tools("chg", "1GiB"), "chg.yaml")
    before = tools_of(settled(whole, "chg"))
    assert "othing to do" in whole.apply(two_tools("chg", "1GiB"), "chg.yaml").stdout
    assert status_of(whole, "chg")["revision"] == 1

    # One value: one unit.
    stale = whole.json("plan", whole.write_fleet(two_tools("chg", "700MiB"), "stale.yaml"))
    whole.apply(two_tools("chg", "800MiB"), "chg.yaml")
    after = tools_of(settled(whole, "chg"))
    assert after["analysis/0"]["pid"] == before["analysis/0"]["pid"]
    assert after["second/0"]["pid"] != before["second/0"]["pid"]

    # What was planned before that is not applied any more.
    refused(whole, "apply", stale["id"], "--yes", exit_code=5, words="stale", hint="picket plan")
    assert status_of(whole, "chg")["revision"] == 2

    refused(whole, "rollback", "1", "--fleet", "chg", "--yes", exit_code=2, words="reason", hint="--reason")
    assert status_of(whole, "chg")["revision"] == 2
    whole.run("rollback", "1", "--fleet", "chg", "--reason", "the old limit was right", "--yes")
    back = settled(whole, "chg")
    assert back["revision"] == 3
    assert tools_of(back)["analysis/0"]["pid"] == before["analysis/0"]["pid"]
    assert "the old limit was right" in whole.run("history", "chg", "-o", "json").stdout
    whole.run("delete", "chg", "--yes")


def test_apply_cut_off(whole):
    """serve killed at some moment of an apply, ten times: its restart, or the next apply, comes to the end."""
    dice = random.Random(5)
    try:
        for turn in range(int(os.environ.get("PICKET_KILL_ROUNDS", "4"))):
            lanes = 1 + (turn + 1) % 3
            fleet = whole.write_fleet(fleet_text("cut", lanes=lanes), "cut.yaml")
            apply = subprocess.Popen([PICKET, "--state-dir", str(whole.state), "--run-dir", str(whole.rundir), "apply", str(fleet), "--yes"],
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            time.sleep(dice.uniform(0.1, 2.5))
            os.kill(whole.pid_of("serve")[0], signal.SIGKILL)
            out, err = apply.communicate(timeout=120)
            assert apply.returncode >= 0, (out, err)
            if apply.returncode != 0:
                assert "hint: " in err, err
            wait_for("serve", 30, lambda: whole.run("status", check=False).returncode == 0)
            if turn % 2 or status_of(whole, "cut") is None:
                whole.run("apply", fleet, "--yes")
            status = wait_for("the whole fleet", 60, lambda: (s := converged(whole, "cut")) and len(s["groups"][0]["lanes"]) == lanes and s)
            named = [name for name in containers() if name.startswith(f"{whole.tag()}-cut-")]
            assert len(named) == lanes and len(tools_of(status)) == lanes
    finally:
        wait_for("serve", 30, lambda: whole.run("status", check=False).returncode == 0)
        whole.run("delete", "cut", "--yes", check=False)
    assert [trace for trace in traces(whole) if "-cut-" in trace] == []


# ---- the disk ----

def fill(folder, leave=0):
    """Writes all room but the given bytes away."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as out:
        try:
            while True:
                out.write(b"x" * 65536)
        except OSError:
            pass
        out.truncate(max(0, out.tell() - leave))
    return filler


def test_disk_full(suricata_image, tmp_path):
    with instance(disk="64m") as whole:
        # At the apply: refused, nothing by halves; once there is room it goes through.
        filler = fill(whole.state)
        fleet = whole.write_fleet(fleet_text("full", lanes=2))
        done = whole.run("apply", fleet, "--yes", check=False)
        assert done.returncode == 1 and "hint: " in done.stderr and ("room" in done.stderr or "space" in done.stderr), done.stderr
        assert [name for name in containers() if name.startswith(whole.tag())] == []
        filler.unlink()
        whole.run("apply", fleet, "--yes")
        settled(whole, "full")

        # While events come in: they wait in the tools' files, and none is lost or doubled.
        keeper = Keeper(whole, whole.state / "kept")
        try:
            capture = make_traffic(tmp_path / "t.pcap", "--flows", 600, "--seconds", 4, "--seed", 9)
            whole.run("replay", capture, "--tap", "full/wire")
            wait_for("events", 30, lambda: whole.events(fleet="full"))
            filler = fill(whole.state, leave=1 << 20)
            whole.run("replay", capture, "--tap", "full/wire", "--loop", 2)
            time.sleep(3)
            assert status_of(whole, "full") is not None and whole.events(fleet="full")
            filler.unlink()
            settled(whole, "full", 90)
            whole.run("replay", capture, "--tap", "full/wire")
            keeper.check(whole, "full")
        finally:
            keeper.close()
            shutil.rmtree(keeper.folder)


def test_read_only_state(suricata_image):
    """Nothing is started that could not keep its state; with the disk writable again, the fleets are back."""
    with instance(disk="64m") as whole:
        whole.apply(fleet_text("ro", lanes=1))
        settled(whole, "ro")
        whole.run("down")
        subprocess.run(["mount", "-o", "remount,ro", str(whole.state)], check=True)
        done = whole.run("up", check=False)
        whole.run("down", check=False)
        subprocess.run(["mount", "-o", "remount,rw", str(whole.state)], check=True)
        assert done.returncode != 0 and "ead-only" in done.stderr and "hint: " in done.stderr, done.stderr
        whole.up()
        settled(whole, "ro")


# ---- files that are damaged ----

@pytest.mark.parametrize("role, name", [("serve", "fleet.db"), ("serve", "events/manifest.db"), ("node", "node/plane.json"), ("serve", "ship/sources.json")])
def test_damaged_state(suricata_image, role, name):
    """Told with the file's name, the file left as it is for whoever wants to save something of it, and the tools go on."""
    with instance() as whole:
        whole.apply(fleet_text("dmg", lanes=1))
        before = settled(whole, "dmg")
        time.sleep(1)
        path = whole.state / name
        os.kill(int((whole.rundir / "up" / "supervisor.pid").read_text().split()[0]), signal.SIGKILL)
        os.kill(whole.pid_of(role)[0], signal.SIGKILL)
        time.sleep(0.3)
        good = {path: path.read_bytes() for path in [path, *path.parent.glob(path.name + "-*")]}
        for extra in list(good)[1:]:
            extra.unlink()
        path.write_bytes(b"\x00rubbish" * 2000)
        done = whole.run(role, check=False, timeout=30) if name != "ship/sources.json" else None
        if done is not None:
            assert done.returncode > 0 and pathlib.Path(name).name in done.stderr and "hint: " in done.stderr, done.stderr
            assert path.read_bytes() == b"\x00rubbish" * 2000
            for each, data in good.items():
                each.write_bytes(data)
        whole.up()
        after = settled(whole, "dmg")
        assert tools_of(after)["analysis/0"]["pid"] == tools_of(before)["analysis/0"]["pid"]
        if name == "ship/sources.json":
            wait_for("the list made anew", 20, lambda: json.loads(path.read_text())["sources"])
