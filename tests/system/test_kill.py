# SPDX-License-Identifier: Apache-2.0
"""kill -9 of any process while packets flow: the fleet converges again by itself, no event is lost or
doubled, packets are lost only in the lane whose tool died, and every packet is accounted for."""
import json
import os
import pathlib
import signal
import time

import pytest

from whole import Keeper, Whole, fleet_text, make_traffic, wait_for

ROUNDS = int(os.environ.get("PICKET_KILL_ROUNDS", "2"))
ROLES = ["node", "serve", "ship", "podman", "suricata", "conmon", "supervisor"]
TOOLS = ("suricata", "conmon")  # conmon watches a container; without it nobody tells Podman of the tool's end


@pytest.fixture(scope="module")
def whole(suricata_image):
    instance = Whole()
    keeper = None
    try:
        instance.up()
        keeper = Keeper(instance, instance.base / "kept")
        instance.keeper = keeper
        instance.apply(fleet_text("k", lanes=2))
        yield instance
    finally:
        if keeper is not None:
            keeper.close()
        instance.down()


def converged(whole):
    done = whole.run("status", "k", "-o", "json", check=False)
    if done.returncode != 0:
        return None
    status = json.loads(done.stdout)
    lanes = status["groups"][0]["lanes"]
    ready = all(lane["state"] == "ready" and all(tool["state"] == "running" for tool in lane["tools"]) for lane in lanes)
    return status if status["state"] == "converged" and ready else None


def tool_of(status, lane):
    return status["groups"][0]["lanes"][lane]["tools"][0]


def conmon_of(pid):
    """The parent of a container's first process."""
    parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    assert "conmon" in pathlib.Path(f"/proc/{parent}/comm").read_text()
    return parent


def victim(whole, role, lane):
    if role == "supervisor":
        return int((whole.rundir / "up" / "supervisor.pid").read_text().split()[0])
    if role in TOOLS:
        pid = tool_of(whole.status("k"), lane)["pid"]
        return pid if role == "suricata" else conmon_of(pid)
    pids = whole.pid_of(role)
    assert pids, f"no process of {role}"
    return pids[0]


def at_rest(whole):
    """The status once nothing moves any more, and the tools have told all that they read."""
    def look():
        before = converged(whole)
        time.sleep(1.3)  # tools are asked every second
        after = converged(whole)
        if not before or not after or counts(before) != counts(after):
            return None
        return after
    return wait_for("the counters to rest", 60, look)


def counts(status):
    tap = status["taps"][0]
    rows = [(tap["packets"], tap["dropped"])]
    for lane in status["groups"][0]["lanes"]:
        tool = lane["tools"][0]
        rows.append((lane["packets"], lane["unread"], lane["ringDropped"], tool["packets"], tool["unconfirmed"], tool["dropped"]))
    return rows


def check_packets(status, before, dead_lane):
    """Nothing vanishes without a trace: between two looks at rest."""
    (tap, dropped), *lanes = [tuple(a - b for a, b in zip(now, then)) for now, then in zip(counts(status), counts(before))]
    assert dropped == 0
    assert tap > 0 and tap == sum(lane[0] + lane[2] for lane in lanes), (tap, lanes)
    for index, (packets, unread, _, read, unconfirmed, unread_by_tool) in enumerate(lanes):
        assert packets == unread + read + unconfirmed, (index, lanes)
        if index == dead_lane:
            # Its slots went to the other lane at once.
            assert packets < max(lane[0] for lane in lanes), lanes
        else:
            assert (unread, read, unread_by_tool) == (0, packets, 0), (index, lanes)


@pytest.mark.parametrize("role", ROLES)
def test_kill(whole, role, tmp_path):
    capture = make_traffic(tmp_path / "t.pcap", "--flows", 400, "--seconds", 6, "--seed", 3)
    wait_for("a converged fleet", 60, lambda: converged(whole))
    for turn in range(ROUNDS):
        lane = turn % 2
        before = at_rest(whole)
        whole.run("replay", capture, "--tap", "k/wire", "--loop", "forever", "--detach")
        time.sleep(0.7)
        pid = victim(whole, role, lane)
        os.kill(pid, signal.SIGKILL)
        if role == "supervisor":
            whole.run("up")
        if role == "conmon":
            time.sleep(0.3)
            os.kill(tool_of(whole.status("k"), lane)["pid"], signal.SIGKILL)
        wait_for(f"another {role}", 60, lambda: replaced(whole, role, lane, pid))
        wait_for(f"a converged fleet after killing {role}", 60, lambda: converged(whole))
        time.sleep(0.3)
        whole.run("replay", "--tap", "k/wire", "--stop", check=role != "node")
        after = at_rest(whole)
        check_packets(after, before, lane if role in TOOLS else None)
        if role in TOOLS:
            tool = tool_of(after, lane)
            assert tool["restarts"] == tool_of(before, lane)["restarts"] + 1
            assert tool["lastEnd"]["reason"], tool
    whole.keeper.check(whole, "k")


def replaced(whole, role, lane, pid):
    try:
        return victim(whole, role, lane) != pid
    except (AssertionError, FileNotFoundError):
        return False
