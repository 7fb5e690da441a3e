# SPDX-License-Identifier: Apache-2.0
"""picket up and down: nothing is doubled, what dies comes back, nothing is left behind."""
import concurrent.futures
import fcntl
import json
import os
import pathlib
import signal
import time

import pytest

from standin import StandIns
from whole import Whole, fleet_text, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="up needs root")
NAMES = ["node", "serve", "ship"]


def up(whole, *args, check=True):
    return whole.run("up", "--force", "--engine", "fake", *args, check=check)


@pytest.fixture
def whole():
    instance = Whole()
    standins = StandIns(instance.state, instance.rundir)
    try:
        yield instance
    finally:
        standins.close()
        instance.down()


def pid_file(whole, name):
    return int((whole.rundir / "up" / f"{name}.pid").read_text().split()[0])


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def mine(whole):
    """All processes that have this instance's run folder in their arguments, by role."""
    roles = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            args = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(str(whole.rundir) in arg for arg in args) and alive(int(entry.name)):
            roles.setdefault(args[1] if len(args) > 1 else args[0], []).append(int(entry.name))
    return roles


def once_each(whole):
    roles = mine(whole)
    return roles if all(len(roles.get(name, [])) == 1 for name in NAMES + ["supervise"]) and len(roles) == 4 else None


def ready(whole):
    state = json.loads((whole.rundir / "up" / "state.json").read_text())
    return state if all(process["state"] == "ready" for process in state["processes"]) else None


def test_up_twice_and_down(whole):
    first = up(whole)
    for name in NAMES:
        assert name in first.stdout
    before = wait_for("one of each", 10, lambda: once_each(whole))
    second = up(whole)
    assert once_each(whole) == before
    assert "ready" in second.stdout
    rows = json.loads(up(whole, "-o", "json").stdout)["processes"]
    assert {row["name"]: row["pid"] for row in rows} == {name: before[name][0] for name in NAMES}
    other = whole.run("up", "--force", "--engine", "podman", check=False)
    assert other.returncode == 5 and "picket down" in other.stderr

    done = whole.run("down")
    assert mine(whole) == {}
    assert not whole.rundir.exists(), list(whole.rundir.rglob("*"))
    assert (whole.state / "fleet.db").exists() and str(whole.state) in done.stdout
    assert whole.run("down").returncode == 0
    assert whole.run("down", "--purge", check=False).returncode == 2  # asks, and nobody is there to answer
    whole.run("down", "--purge", "--yes")
    assert not whole.state.exists(), list(whole.state.rglob("*"))
    assert whole.run("down", "--purge", "--yes").returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_kill_of_a_process(whole, name):
    up(whole)
    wait_for("all ready", 10, lambda: ready(whole))
    for _ in range(2):
        pid = pid_file(whole, name)
        os.kill(pid, signal.SIGKILL)
        wait_for("another pid", 20, lambda: pid_file(whole, name) != pid)
        wait_for("all ready", 20, lambda: ready(whole))
    row = next(row for row in ready(whole)["processes"] if row["name"] == name)
    assert row["restarts"] == 2 and "signal 9" in row["reason"]
    assert once_each(whole)


def test_kill_of_the_supervisor(whole):
    up(whole)
    before = wait_for("one of each", 10, lambda: once_each(whole))
    os.kill(before["supervise"][0], signal.SIGKILL)
    wait_for("the supervisor's end", 5, lambda: not alive(before["supervise"][0]))
    assert {name: mine(whole)[name] for name in NAMES} == {name: before[name] for name in NAMES}

    # One dies while nobody looks after it; another loses its pid file, as if the kill had come before it was written.
    os.kill(before["ship"][0], signal.SIGKILL)
    (whole.rundir / "up" / "node.pid").unlink()
    up(whole)
    after = wait_for("one of each", 20, lambda: once_each(whole))
    assert after["supervise"] != before["supervise"] and after["ship"] != before["ship"]
    assert after["node"] == before["node"] and after["serve"] == before["serve"]
    # The adopted ones are looked after too.
    os.kill(after["serve"][0], signal.SIGKILL)
    wait_for("serve again", 20, lambda: (once_each(whole) or after)["serve"] != after["serve"])


def test_down_with_everything_dead(whole):
    fleet = whole.write_fleet(fleet_text("dead", lanes=2))
    up(whole, fleet)
    assert whole.status("dead")["fleet"] == "dead"
    for name in ["supervisor", *NAMES]:
        os.kill(pid_file(whole, name), signal.SIGKILL)
    whole.run("down", "--purge", "--yes")
    assert mine(whole) == {} and not whole.rundir.exists() and not whole.state.exists()
    assert str(whole.rundir) not in pathlib.Path("/proc/self/mounts").read_text()
    assert traces("dead") == []


class Held:
    """The lock of a process that was killed, as if the kernel had not closed that process's files yet."""

    def __init__(self, path):
        self.file = open(path)
        wait_for("the lock", 20, self.take)

    def take(self):
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False


def kill(whole, *names):
    pids = [pid_file(whole, name) for name in names]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for("the end", 20, lambda: not any(map(alive, pids)))


def test_down_waits_for_an_agent_that_is_not_gone_yet(whole):
    up(whole)
    kill(whole, "supervisor", "node")
    held = Held(whole.rundir / "node.lock")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        down = pool.submit(whole.run, "down")
        time.sleep(4)
        assert not down.done()
        held.file.close()
        said = down.result().stderr
    assert "has ended: waiting until" in said and "node.lock" in said
    assert mine(whole) == {} and not whole.rundir.exists()


def test_a_supervisor_and_an_agent_wait_for_those_that_are_not_gone_yet(whole):
    up(whole)
    before = wait_for("one of each", 10, lambda: once_each(whole))
    kill(whole, "supervisor", "node")
    held = [Held(whole.rundir / lock) for lock in ("up/lock", "node.lock")]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        again = pool.submit(up, whole)  # waits for the agent
        for lock, log in zip(held, ("supervise", "node")):
            log = whole.rundir / "up" / f"{log}.log"
            wait_for(f"a word in {log}", 20, lambda: "has ended: waiting until" in log.read_text())
            lock.file.close()
        again.result()
    after = wait_for("one of each", 20, lambda: once_each(whole))
    assert after["serve"] == before["serve"] and after["node"] != before["node"]
    assert json.loads((whole.rundir / "up" / "state.json").read_text())["processes"][0]["restarts"] == 0


def traces(fleet):
    return [path.name for path in pathlib.Path("/run/netns").glob(f"pk*-{fleet}-*")]


def test_up_brings_the_fleets_back(whole):
    fleet = whole.write_fleet(fleet_text("back", lanes=2))
    up(whole, fleet)
    wait_for("lanes", 20, lambda: whole.status("back")["state"] == "converged")
    assert len(traces("back")) == 2
    whole.run("down")
    assert traces("back") == []
    up(whole)
    wait_for("the fleet again", 90, lambda: whole.status("back")["state"] == "converged")
    assert len(traces("back")) == 2
    whole.run("down", "--purge", "--yes")
    assert traces("back") == []


def test_a_process_that_cannot_start_is_said(whole):
    whole.rundir.mkdir(parents=True)
    (whole.rundir / "serve.sock").write_text("not a socket")
    begun = time.monotonic()
    done = up(whole, check=False)
    assert done.returncode == 7 and "serve is not ready" in done.stderr, done.stderr
    assert "serve.sock" in done.stderr and time.monotonic() - begun < 30
    state = json.loads((whole.rundir / "up" / "state.json").read_text())
    row = next(row for row in state["processes"] if row["name"] == "serve")
    assert row["restarts"] >= 3 and "status" in row["reason"]


def test_log_is_bounded(whole):
    up(whole)
    log = whole.rundir / "up" / "ship.log"
    with open(log, "ab") as f:
        f.write(b"x" * (9 << 20))
    wait_for("the log to be cut", 15, lambda: log.stat().st_size < 1 << 20)
    assert (whole.rundir / "up" / "ship.log.1").stat().st_size >= 8 << 20
