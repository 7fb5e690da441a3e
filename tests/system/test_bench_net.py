# SPDX-License-Identifier: Apache-2.0
"""picket bench net: runs small, says what it should, leaves nothing behind."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import xml.etree.ElementTree as ElementTree

import pytest

from conftest import wait_until

WAYS = ["host", "macvlan", "bridge", "tc", "ovs", "sriov", "lane", "lane-afxdp"]
PROGRAMS = {"generate", "spread", "to_socket"}


def needs_root():
    if os.geteuid() != 0:
        pytest.skip("needs root")


def run(picket, *args, **more):
    return subprocess.run([picket, "bench", "net", *args], capture_output=True, text=True, timeout=300,
                          check=False, **more)


def links():
    return {path.name for path in pathlib.Path("/sys/class/net").iterdir()}


def of_ours(name):
    return re.fullmatch(r"(wire|nic|out|floor|bridge|br)\d+|ovs-netdev", name)


def programs():
    """Ids of BPF programs that only the bench loads."""
    answer = subprocess.run(["bpftool", "prog", "show", "-j"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        return set()
    return {each["id"] for each in json.loads(answer.stdout) if each.get("name") in PROGRAMS}


def children(pid):
    try:
        return {int(each) for each in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except OSError:
        return set()


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def nothing_is_left(before_links, before_programs):
    assert not {name for name in links() - before_links if of_ours(name)}
    mounts = pathlib.Path("/proc/self/mounts").read_text()
    assert "tmpfs /sys/fs/bpf" not in mounts
    # The kernel frees programs a moment after their last user.
    wait_until(lambda: not programs() - before_programs, 30, "the programs to go")


def test_what_is_wrong_is_said(picket):
    for args, hint in [(["--sizes", "63"], "64,512,imix"), (["--sizes", "64,,512"], "64,512,imix"),
                       (["--sizes", ",".join(["64"] * 9)], "at most 8"), (["--groups", "4"], "1..3"),
                       (["--groups", "2..1"], "1..3"), (["--groups", ""], "1..3"),
                       (["--lanes", "0"], "readers"), (["--seconds", "0"], "seconds"),
                       (["--seconds", "nan"], ""), (["--only", "lane,lan"], "lane-afxdp"),
                       (["--only", ""], "lane-afxdp")]:
        answer = run(picket, *args)
        assert answer.returncode == 2, (args, answer)
        assert hint in answer.stderr, (args, answer.stderr)


def test_needs_root_and_says_so(picket):
    needs_root()
    try:
        answer = run(picket, user=65534, group=65534, extra_groups=[])
    except PermissionError:
        pytest.skip("another user cannot run the program where it lies")
    assert answer.returncode != 0
    assert "root" in answer.stderr and "sudo" in answer.stderr


@pytest.fixture(scope="module")
def report(picket, tmp_path_factory):
    needs_root()
    chart = tmp_path_factory.mktemp("bench") / "net.svg"
    before = links(), programs()
    answer = run(picket, "--sizes", "64,imix", "--lanes", "2", "--seconds", "0.05", "-o", "json",
                 "--chart", str(chart))
    assert answer.returncode == 0, answer.stderr
    assert "round 5 of 5" in answer.stderr
    nothing_is_left(*before)
    return json.loads(answer.stdout), chart.read_text()


def test_the_report(report):
    document, _ = report
    assert document["kind"] == "BenchNet"
    assert document["options"]["sizes"] == ["64", "imix"] and document["options"]["groups"] == [1]
    assert document["machine"]["kernel"] == os.uname().release
    assert [way["name"] for way in document["ways"]] == WAYS
    ways = {way["name"]: way for way in document["ways"]}
    for way in document["ways"]:
        assert way["available"] or len(way["why"]) > 10, way
        assert ("isolation" in way) == way["available"]
    for name in ("host", "tc", "lane", "lane-afxdp"):  # what any kernel that picket runs on has
        assert ways[name]["available"], ways[name]
    rows = {(row["way"], row["size"]): row for row in document["rows"]}
    assert set(rows) == {(name, size) for name in WAYS for size in ("64", "imix")
                         if ways[name]["available"]}
    for row in document["rows"]:
        assert 0 <= row["delivered"] <= row["sent"] * row["groups"], row
        assert row["sent"] >= 5 * 32768
        assert 0 <= row["loss"] <= 100
        if row["delivered"] == row["sent"] * row["groups"]:
            assert row["loss"] == 0
        assert row["rawNs"] > 0 or row["delivered"] == 0
    # The rings take all of so few packets; a veth may not, on a machine that is busy with other things.
    for name in ("host", "lane"):
        assert rows[name, "64"]["delivered"] > rows[name, "64"]["sent"] / 2
    for base in document["baseline"]:
        assert 0 < base["generator"] < base["hop"]


def test_isolation_is_what_it_is_known_to_be(report):
    ways = {way["name"]: way.get("isolation") for way in report[0]["ways"]}
    assert ways["host"]["seesHost"] and ways["host"]["seesOthers"]
    assert ways["host"]["sends"] == ["network"]
    assert ways["tc"]["sends"] == ["host"] and not ways["tc"]["seesOthers"]
    for name in ("lane", "lane-afxdp"):
        assert ways[name] == {"seesHost": False, "seesOthers": False, "sends": [],
                              "text": "sees its own interface; its own packets; cannot send"}
    for name in ("macvlan", "bridge"):
        if ways[name]:
            assert not ways[name]["seesHost"] and "network" in ways[name]["sends"]


def test_the_chart(report):
    document, text = report
    root = ElementTree.fromstring(text)
    name = "{http://www.w3.org/2000/svg}"
    bars = [each for each in root.iter(name + "rect") if each.get("class") in ("b", "o")]
    assert len(bars) == len(document["rows"])
    assert "prefers-color-scheme:dark" in text
    width, height = (float(each) for each in root.get("viewBox").split()[2:])
    for each in root.iter(name + "rect"):
        assert 0 <= float(each.get("x", 0)) + float(each.get("width")) <= width
    words = [each.text for each in root.iter(name + "text")]
    assert all(0 < float(each.get("y")) < height for each in root.iter(name + "text"))
    for way in document["ways"]:
        assert way["title"] in words
    assert "IMIX, to 1 group" in words


def test_table_and_quiet(picket):
    needs_root()
    answer = run(picket, "--quiet", "--only", "lane,sriov", "--sizes", "512", "--lanes", "1",
                 "--seconds", "0.05")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    assert re.search(r"^lane +1 +512 +", answer.stdout, re.M), answer.stdout
    assert re.search(r"^sriov .*not available: ", answer.stdout, re.M), answer.stdout


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed(picket, signo):
    needs_root()
    before = links(), programs()
    # What runs in the background of a shell ignores Ctrl-C, and hands that on.
    process = subprocess.Popen([picket, "bench", "net", "--seconds", "30", "--sizes", "64"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        for line in process.stderr:
            if "round 1" in line:
                break
        time.sleep(0.3)
        helpers = children(process.pid)
        assert programs() - before[1]
    finally:
        process.send_signal(signo)
        process.wait(timeout=60)
        process.stderr.close()
    assert process.returncode != 0
    wait_until(lambda: not any(is_alive(pid) for pid in helpers), 10, "helpers to end")
    nothing_is_left(*before)
