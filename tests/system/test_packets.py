# SPDX-License-Identifier: Apache-2.0
"""The packages' packet tests: a capture in, the expected events out, for every version line that has an image.

A case is a folder catalog/PACKAGE/tests/CASE with capture.pcap and case.json:
  runs: [{about, values, versions, expect: {alerts: {signature: count}   all alerts, exactly
                                           events: {type: count}        of the types named, exactly
                                           fields: [{where: {dotted path: value or "*"}, count}]}}]
"""
import collections
import json
import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RENDER = ROOT / "build/tests/packets/render_package"
VERSIONS = ["7", "8"]
RUNS = [(case.parent, run, version)
        for case in sorted(ROOT.glob("catalog/suricata/tests/*/case.json"))
        for run in json.loads(case.read_text())["runs"]
        for version in run.get("versions", VERSIONS)]


def image_there(version):
    return shutil.which("podman") is not None and os.geteuid() == 0 and subprocess.run(
        ["podman", "image", "exists", f"localhost/picket/suricata:{version}"], capture_output=True).returncode == 0


def suricata(version, config, logs, arguments, capture=None):
    runtime = [] if shutil.which("runc") is None else ["--runtime", "runc"]
    mounts = ["-v", f"{config}:/etc/picket:ro", "-v", f"{logs}:/var/log/suricata:rw"]
    if capture is not None:
        mounts += ["-v", f"{capture}:/in.pcap:ro"]
    return subprocess.run(
        ["podman", *runtime, "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "all",
         "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--tmpfs", "/run/suricata", *mounts,
         f"localhost/picket/suricata:{version}", "/usr/bin/suricata", "-c", "/etc/picket/suricata.yaml",
         "-l", "/var/log/suricata", *arguments],
        capture_output=True, text=True, timeout=120)


def render(version, values, folder):
    environment = dict(os.environ, PICKET_CATALOG=str(ROOT / "catalog"))
    folder.mkdir()
    subprocess.run([RENDER, "suricata", version, json.dumps(values), folder], check=True, env=environment)
    return folder


def at(event, path):
    for part in path.split("."):
        event = event.get(part) if isinstance(event, dict) else None
    return event


def fits(event, where):
    return all(at(event, path) is not None if value == "*" else at(event, path) == value
               for path, value in where.items())


@pytest.fixture(autouse=True)
def ready(suricata_image):
    if not RENDER.exists():
        pytest.skip(f"{RENDER} is not built")


@pytest.mark.parametrize("case, run, version", RUNS, ids=lambda x: x.name if isinstance(x, pathlib.Path)
                         else x["about"].replace(" ", "-") if isinstance(x, dict) else x)
def test_packets(case, run, version, tmp_path):
    if not image_there(version):
        pytest.skip(f"no image of version {version}: picket image build suricata@{version}")
    config = render(version, run.get("values", {}), tmp_path / "config")
    logs = tmp_path / "logs"
    logs.mkdir()
    done = suricata(version, config, logs, ["-r", "/in.pcap"], case / "capture.pcap")
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for path in logs.glob("eve-*.json") for line in path.read_text().splitlines()]
    expect = run["expect"]
    alerts = collections.Counter(str(e["alert"]["signature_id"]) for e in events if e["event_type"] == "alert")
    types = collections.Counter(e["event_type"] for e in events)
    if "alerts" in expect:
        assert dict(alerts) == expect["alerts"]
    for name, count in expect.get("events", {}).items():
        assert types[name] == count, name
    for field in expect.get("fields", []):
        assert sum(fits(event, field["where"]) for event in events) == field["count"], field


@pytest.mark.parametrize("version", VERSIONS)
def test_configuration_loads(version, tmp_path):
    """Everything switched on: no rule fails, no warning is given."""
    if not image_there(version):
        pytest.skip(f"no image of version {version}: picket image build suricata@{version}")
    values = {
        "home-net": ["10.0.0.0/8", "2001:db8::/32", "!10.9.0.0/16"], "threads": 2, "pin-threads": True,
        "address-groups": {"dns-servers": "[10.1.0.53,10.1.0.54]", "extra": [{"name": "PRINTERS", "value": "10.7.0.0/16"}]},
        "port-groups": {"http": "[80,8080]", "extra": [{"name": "PRINTER_PORTS", "value": "[515,9100]"}]},
        "rules": {"extra": "alert tcp any any -> $PRINTERS $PRINTER_PORTS (msg:\"x\"; filemagic:\"PDF\"; sid:5;)\n"
                  .replace("tcp", "http"), "limit": [{"sid": 5, "count": 1, "seconds": 60}]},
        "capture": {"checksum-checks": True, "bpf-filter": "not port 9200"},
        "eve": {"rotate-interval": "10m", "ethernet": True, "http-headers": "both", "netflow": True, "pgsql": True,
                "files": {"hash": "sha256"}, "xff": {"enabled": True}, "anomaly": {"decode": True, "stream": True},
                "arp": True, "alert": {"http-body": True}},
        "protocols": {"ja3": "yes", "ja4": "yes", "hassh": "yes", "tls-encrypted": "bypass", "modbus": True,
                      "dnp3": True, "enip": True},
        "stream": {"midstream": True, "depth": "0", "async-oneside": True}, "detect": {"profile": "high"},
    }
    config = render(version, values, tmp_path / "config")
    logs = tmp_path / "logs"
    logs.mkdir()
    done = suricata(version, config, logs, ["-T"])
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "0 rules failed" in output
    assert "Warning" not in output and "Error" not in output, output


@pytest.mark.parametrize("version", VERSIONS)
def test_bad_rule_is_fatal(version, tmp_path):
    """strict (the default): a rule that does not load keeps Suricata from starting; off: it goes on."""
    if not image_there(version):
        pytest.skip(f"no image of version {version}: picket image build suricata@{version}")
    for strict in (True, False):
        values = {"rules": {"strict": strict, "extra": "alert nonsense any any -> any any (sid:1;)\n"}}
        config = render(version, values, tmp_path / f"config-{strict}")
        logs = tmp_path / f"logs-{strict}"
        logs.mkdir()
        done = suricata(version, config, logs, ["-r", "/in.pcap"], ROOT / "catalog/suricata/tests/marker/capture.pcap")
        assert (done.returncode != 0) == strict, done.stdout + done.stderr
