# SPDX-License-Identifier: Apache-2.0
"""The client commands against a real server: exit statuses, what goes to which stream, JSON against the API's schemas."""
import json
import os
import pty
import re
import signal
import subprocess
import time

import pytest

from served import OPENAPI, check_schema
from whole import PICKET, fleet_text, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent needs root")


def schema(name):
    return {"$ref": f"#/components/schemas/{name}"}


def test_no_server_is_exit_6_with_a_hint(tmp_path):
    for args in [["status"], ["history"], ["plan", "-"], ["apply", "-", "--yes"], ["logs", "a/0/b"], ["token", "list"],
                 ["delete", "x", "--yes"], ["rollback", "1", "--reason", "x", "--yes"], ["diff", "1"]]:
        done = subprocess.run([PICKET, *args, "--run-dir", str(tmp_path), "--state-dir", str(tmp_path)],
                              capture_output=True, text=True, input=fleet_text())
        assert done.returncode == 6, (args, done)
        assert done.stdout == "" and "picket up" in done.stderr, (args, done)


def test_nothing_runs(served):
    assert "No fleet runs here" in served.cli("status").stdout
    value = json.loads(served.cli("status", "-o", "json").stdout)
    assert value["kind"] == "StatusList" and value["items"] == []
    assert "picket apply" in served.cli("history", expect=3).stderr
    assert "picket apply" in served.cli("apply", expect=3).stderr
    served.cli("status", "none", expect=3)
    served.cli("delete", "none", "--yes", expect=3)


def test_bad_files(served, tmp_path):
    missing = served.cli("plan", tmp_path / "none.yaml", expect=3)
    assert "none.yaml" in missing.stderr and "hint" in missing.stderr
    bad = served.write_fleet(fleet_text().replace("lanes: 2", "lanes: many").replace("mtu:", "mtuu:"), "bad.yaml")
    for command in (["plan"], ["apply", "--yes"], ["diff"]):
        done = served.cli(*command, bad, expect=2)
        assert done.stdout == ""
        assert len(re.findall(r"bad\.yaml:\d+:\d+: ", done.stderr)) >= 2, done.stderr
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    assert "UTF-8" in served.cli("plan", binary, expect=2).stderr
    assert json.loads(served.cli("status", "-o", "json").stdout)["items"] == []


def test_a_fleet_from_plan_to_delete(served):
    fleet = served.write_fleet(fleet_text("cli", lanes=1))

    # plan
    planned = served.cli("plan", fleet)
    lines = planned.stdout.splitlines()
    assert lines[0] == "fleet cli"
    assert lines[2].startswith("Traffic: "), planned.stdout
    assert re.search(r"^  \+ lane +analysis/0 ", planned.stdout, re.M), planned.stdout
    assert re.search(r"^  \+ unit +analysis/0/suricata ", planned.stdout, re.M)
    plan_id = re.search(r"Saved as plan ([0-9a-f]{12})\. Run 'picket apply \1'", planned.stdout).group(1)
    assert "\x1b" not in planned.stdout
    served.cli("plan", "--exit-code", fleet, expect=10)
    check_schema(schema("Plan"), json.loads(served.cli("plan", fleet, "-o", "json").stdout))
    stdin = served.cli("plan", "-", stdin=fleet.read_text())
    assert stdin.stdout.splitlines()[2:5] == lines[2:5]

    # apply: a file off a terminal needs --yes
    refused = served.cli("apply", fleet, expect=2)
    assert "--yes" in refused.stderr
    assert json.loads(served.cli("status", "-o", "json").stdout)["items"] == []
    applied = served.cli("apply", plan_id, "--reason", "first")
    assert "Applied revision 1 of cli" in applied.stdout
    assert "\x1b" not in applied.stdout + applied.stderr
    for line in applied.stderr.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [+~-] ", line), line
    assert "Nothing to do" in served.cli("apply", fleet, "--yes").stdout
    assert "Nothing to do" in served.cli("apply").stdout
    served.cli("plan", "--exit-code", fleet, expect=0)

    # status
    def converged():
        value = json.loads(served.cli("status", "-o", "json").stdout)
        return value if value.get("state") == "converged" else None
    status = wait_for("a converged fleet", 30, converged)
    check_schema(schema("Status"), status)
    table = served.cli("status").stdout
    assert re.match(r"fleet cli  revision 1  converged", table)
    assert "analysis/0" in table and "suricata" in table and "wire" in table
    assert served.cli("status", "-o", "name").stdout == "cli\n"
    assert served.cli("status", "cli", "-o", "yaml").stdout.startswith("apiVersion: picket.dev/v1alpha1\n")
    assert served.cli("status", "other", expect=3).stdout == ""

    # diff
    wider = served.write_fleet(fleet_text("cli", lanes=2), "wider.yaml")
    assert "Nothing to do" in served.cli("diff", fleet, "--exit-code").stdout
    diff = served.cli("diff", wider, "--exit-code", expect=10).stdout
    assert "-      lanes: 1\n" in diff and "+      lanes: 2\n" in diff and "@@ " in diff
    assert "analysis/1" in diff

    # a stale plan
    stale = re.search(r"Saved as plan (\w+)", served.cli("plan", wider).stdout).group(1)
    again = served.cli("apply", wider, "--yes", "--reason", "wider", "-o", "json")
    progress = json.loads(again.stdout)
    check_schema(schema("Progress"), progress)
    assert progress["revision"] == 2
    refused = served.cli("apply", stale, expect=5)
    assert "plan" in refused.stderr and "hint" in refused.stderr
    served.cli("apply", "0123456789ab", expect=3)

    # rollback and history
    served.cli("rollback", "1", expect=2)
    served.cli("rollback", "0", "--reason", "x", expect=2)
    served.cli("rollback", "99", "--reason", "x", "--yes", expect=3)
    assert "--yes" in served.cli("rollback", "1", "--reason", "x", expect=2).stderr
    back = served.cli("rollback", "1", "--reason", "too wide", "--yes")
    assert "Applied revision 3" in back.stdout and "picket rollback 2" in back.stdout
    history = json.loads(served.cli("history", "-o", "json").stdout)
    check_schema(schema("History"), history)
    assert [(r["number"], r["reason"]) for r in history["revisions"]] == [(3, "too wide"), (2, "wider"), (1, "first")]
    assert "too wide" in served.cli("history").stdout
    assert len(served.cli("history", "-n", "1", "--no-headers").stdout.splitlines()) == 1
    assert served.cli("diff", "3").stdout.endswith("Nothing to do: what runs is what is wanted.\n")

    # logs
    served.cli("logs", "analysis/0/suricata")
    served.cli("logs", "analysis/9/suricata", expect=3)
    for wrong in ["analysis", "analysis/0", "a/b/c/d", "../../x"]:
        assert "hint" in served.cli("logs", wrong, expect=2).stderr

    # two fleets
    served.apply(fleet_text("second", lanes=1))
    assert "say which" in served.cli("history", expect=2).stderr
    value = json.loads(served.cli("status", "-o", "json").stdout)
    assert sorted(item["fleet"] for item in value["items"]) == ["cli", "second"]
    assert sorted(served.cli("status", "-o", "name").stdout.split()) == ["cli", "second"]

    # delete
    assert "--yes" in served.cli("delete", "second", expect=2).stderr
    gone = served.cli("delete", "second", "--yes").stdout
    assert "- tap" in gone and "removed" in gone
    served.cli("delete", "--yes")
    assert "No fleet runs here" in served.cli("status").stdout


def test_errors_as_json(served):
    done = served.cli("status", "none", "-o", "json", expect=3)
    error = json.loads(done.stderr)
    error = error.get("error", error)
    assert error["code"] == "not-found" and done.stdout == ""


def on_terminal(served, *args, answer=None, env=None):
    """Runs the command with a terminal for all its streams; what it wrote, and its exit status."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(PICKET, [PICKET, *map(str, args), *served.folders()],
                  {**os.environ, "TERM": "xterm", "COLUMNS": "100", **(env or {})})
    out = b""
    if answer is not None:
        time.sleep(1.5)
        os.write(fd, answer)
    while True:
        try:
            data = os.read(fd, 4096)
        except OSError:
            break
        if not data:
            break
        out += data
    return out.decode(errors="replace"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_on_a_terminal(served):
    fleet = served.write_fleet(fleet_text("tty", lanes=1), "tty.yaml")
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    os.environ.pop("NO_COLOR", None)
    try:
        out, status = on_terminal(served, "plan", fleet)
        assert status == 0 and "\x1b[32m+" in out
        out, status = on_terminal(served, "plan", fleet, env={"NO_COLOR": "1"})
        assert status == 0 and "\x1b[3" not in out
        out, status = on_terminal(served, "apply", fleet, answer=b"n\n")
        assert "[y/N]" in out and status != 0
        assert "No fleet runs here" in served.cli("status").stdout
        out, status = on_terminal(served, "apply", fleet, answer=b"y\n")
        assert status == 0 and "Applied revision" in out
        served.cli("delete", "tty", "--yes")
    finally:
        os.environ.update(env)


def test_watch_ends_with_ctrl_c(served):
    process = subprocess.Popen([PICKET, "status", "--watch", "--interval", "200ms", *served.folders()],
                               stdout=subprocess.PIPE, text=True)
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=5)
    assert process.returncode == 0
    assert out.count("No fleet runs here") >= 3
