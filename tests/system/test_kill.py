# SPDX-License-Identifier: Apache-2.0
"""kill -9 of any process while packets flow: the fleet converges again, no event is lost or doubled."""
import collections
import json
import os
import signal
import time

import pytest

from whole import Whole, fleet_text, make_traffic, wait_for

ROUNDS = int(os.environ.get("PICKET_KILL_ROUNDS", "3"))


@pytest.fixture(scope="module")
def whole(suricata_image):
    instance = Whole()
    try:
        instance.up()
        instance.apply(fleet_text("k", lanes=2))
        yield instance
    finally:
        instance.down()


def converged(whole):
    done = whole.run("status", "k", "-o", "json", check=False)
    if done.returncode != 0:
        return None
    status = json.loads(done.stdout)
    lanes = status["groups"][0]["lanes"]
    ready = all(lane["state"] == "ready" and all(tool["state"] == "running" for tool in lane["tools"]) for lane in lanes)
    return status if status["state"] == "converged" and ready else None


def suricata_pids(whole):
    return [tool["pid"] for lane in whole.status("k")["groups"][0]["lanes"] for tool in lane["tools"]]


def written_lines(whole):
    """Each whole line that a tool has written, as the tools' own files and the pins have it."""
    lines = collections.Counter()
    seen = set()
    for path in [*whole.state.glob("units/*/log/eve*"), *whole.state.glob("ship/hold/*")]:
        info = path.stat()
        if (info.st_dev, info.st_ino) in seen:
            continue
        seen.add((info.st_dev, info.st_ino))
        data = path.read_bytes()
        lines.update(data[:data.rfind(b"\n") + 1].decode().splitlines())
    return lines


@pytest.mark.parametrize("role", ["node", "serve", "ship", "podman", "suricata"])
def test_kill(whole, role, tmp_path):
    capture = make_traffic(tmp_path / "t.pcap", "--flows", 400, "--seconds", 6, "--seed", 3)
    wait_for("a converged fleet", 60, lambda: converged(whole))
    for _ in range(ROUNDS):
        whole.run("replay", capture, "--tap", "k/wire", "--loop", "forever", "--detach")
        time.sleep(0.7)
        pids = suricata_pids(whole)[:1] if role == "suricata" else whole.pid_of(role)
        assert pids, f"no process of {role}"
        os.kill(pids[0], signal.SIGKILL)
        time.sleep(0.5)
        wait_for(f"a converged fleet after killing {role}", 60, lambda: converged(whole))
        whole.run("replay", "--tap", "k/wire", "--stop", check=False)
    # Everything that the tools wrote is in the store exactly once. A half line of a killed tool is no
    # record; whatever else stands in the files is.
    def equal():
        in_store = collections.Counter(event["raw"] for event in whole.events(fleet="k"))
        missing = written_lines(whole) - in_store
        doubled = {line: n for line, n in in_store.items() if n > 1 and json.loads(line).get("event_type") != "stats"}
        return not missing and not doubled

    time.sleep(3)
    wait_for("store and files to agree", 30, equal)
