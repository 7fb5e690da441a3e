#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A long run at half of what the machine takes: nothing may grow, and no packet may be lost unexplained.

tests/soak/soak.py [--minutes 30] [--lanes 2] [--groups 2] [--pps N]

Makes an instance of its own (as root, Suricata's image built), replays generated traffic without end, and looks twice a
minute at the memory, files and BPF objects of each process and at every counter. Without --pps it first finds the rate
that goes through without loss, and takes half of it. Prints a table; exit status 1 when something grew or a sum is wrong.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/system"))
from conftest import UnixConnection  # noqa: E402
from whole import Whole, make_traffic, wait_for  # noqa: E402

ROLES = ["serve", "node", "ship"]
SETTLE = 60  # seconds until queues and caches have their size


def fleet_text(groups, lanes):
    text = """apiVersion: picket.dev/v1alpha1
kind: Fleet
metadata: {name: soak}
spec:
  taps: [{name: wire, replay: {mtu: 9216}}]
  groups:
"""
    for i in range(groups):
        text += f"    - {{name: g{i}, taps: [wire], lanes: {lanes}, hash: flow, tools: [{{package: suricata@7, memory: 1GiB}}]}}\n"
    return text + "  events: {sinks: [{store: {retain: 10m, maxSize: 2GiB, sealAfter: 5s}}]}\n"


def agent(whole, path):
    connection = UnixConnection(str(whole.rundir / "node.sock"))
    connection.request("GET", path)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def settled(whole):
    """The plane's counters when no packet is under way between two of them."""
    before = None
    while True:
        now = agent(whole, "/v1/plane")
        counts = [(t["packets"], t["dropped"]) for t in now["taps"]] + [lane["packets"] for lane in now["lanes"]]
        if counts == before:
            return now
        before = counts
        time.sleep(0.5)


def losses(plane):
    return sum(lane["dropped"] for lane in plane["lanes"]) + sum(tap["dropped"] for tap in plane["taps"])


def replay_for(whole, capture, pps, seconds):
    """Sends at a rate for a time; the packets sent."""
    whole.run("replay", capture, "--pps", pps, "--loop", "forever", "--detach")
    time.sleep(seconds)
    whole.run("replay", "--stop")
    return whole.json("replay", "--status")["sent"]


def find_rate(whole, capture):
    """The largest of some rates that loses nothing in the broker and the lanes' rings."""
    good = 0
    pps = 10000
    while pps <= 2000000:
        before = losses(settled(whole))
        sent = replay_for(whole, capture, pps, 6)
        lost = losses(settled(whole)) - before
        print(f"  {pps} packets/s asked: {sent / 6:.0f}/s sent, {lost} lost", flush=True)
        if lost > 0 or sent < 0.8 * pps * 6:
            return max(good, int(sent / 6) if lost == 0 else 0)
        good = pps
        pps = int(pps * 1.5)
    return good


def bpf_objects():
    """How many maps, programs and links there are on the machine, and the maps' memory: another instance beside this
    one shows here."""
    out = {}
    for kind in ["map", "prog", "link"]:
        listed = json.loads(subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True,
                                           check=True).stdout)
        mine = [thing for thing in listed if kind == "link" or str(thing.get("name", "")).startswith("pk_")]
        out[kind] = len(mine)
        if kind == "map":
            out["mapKiB"] = sum(thing.get("bytes_memlock", 0) for thing in mine) // 1024
    return out


def process(pid):
    status = dict(line.split(":", 1) for line in (pathlib.Path("/proc") / str(pid) / "status").read_text().splitlines())
    return {"rssKiB": int(status["VmRSS"].split()[0]), "fds": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": int(status["Threads"])}


def tree(path):
    files = size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                size += os.lstat(os.path.join(folder, name)).st_size
                files += 1
            except FileNotFoundError:
                pass
    return {"files": files, "MiB": size >> 20}


def sample(whole):
    row = {}
    for role in ROLES:
        pids = whole.pid_of(role)
        for key, value in process(pids[0]).items():
            row[f"{role} {key}"] = value
    row.update({f"bpf {key}": value for key, value in bpf_objects().items()})
    row.update({f"units {key}": value for key, value in tree(whole.state / "units").items()})
    row.update({f"run {key}": value for key, value in tree(whole.rundir).items()})
    row["containers"] = len([unit for unit in whole.json("status", "soak").get("units", [])])
    return row


def grown(rows, key):
    """From the second to the last third of the run, by more than noise."""
    values = [row[key] for row in rows]
    third = len(values) // 3
    if third < 2:
        return None
    before, after = statistics.median(values[third:2 * third]), statistics.median(values[2 * third:])
    room = {"rssKiB": 4096 + before * 0.05, "MiB": 64 + before * 0.25, "files": 16 + before * 0.1}
    allowed = next((room[unit] for unit in room if key.endswith(unit)), 0)
    return before, after, after - before > allowed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--pps", type=int)
    args = parser.parse_args()
    whole, bad = Whole(), 0
    try:
        capture = make_traffic(whole.base / "mix.pcap", "--flows", 4000)
        whole.up()
        whole.apply(fleet_text(args.groups, args.lanes))
        wait_for("lanes with readers", 120, lambda: all(lane["state"] == "ready"
                                                        for lane in agent(whole, "/v1/plane")["lanes"]))
        pps = args.pps or find_rate(whole, capture) // 2
        print(f"{args.minutes:g} minutes at {pps} packets/s to {args.groups} groups of {args.lanes} lanes", flush=True)
        start = settled(whole)
        whole.run("replay", capture, "--pps", pps, "--loop", "forever", "--detach")
        began, rows = time.monotonic(), []
        while time.monotonic() - began < args.minutes * 60:
            time.sleep(min(30, args.minutes * 60 / 12))
            if time.monotonic() - began > min(SETTLE, args.minutes * 10):
                rows.append(sample(whole))
        whole.run("replay", "--stop")
        sent = whole.json("replay", "--status")["sent"]
        time.sleep(2)
        end = settled(whole)

        def rise(thing, key):
            at = {"taps": ("fleet", "name"), "lanes": ("fleet", "group", "index")}[thing]
            before = {tuple(x[k] for k in at): x[key] for x in start[thing]}
            return sum(x[key] - before[tuple(x[k] for k in at)] for x in end[thing])

        came, arrived = rise("taps", "packets"), rise("lanes", "packets")
        ring, unread, dropped = rise("lanes", "ringDropped"), rise("lanes", "unread"), rise("taps", "dropped")
        print(f"sent {sent}, came in {came}, to {args.groups} groups: arrived {arrived}, ring {ring}, "
              f"unread {unread}, dropped at taps {dropped}")
        unexplained = came * args.groups - arrived - ring - dropped * args.groups
        if sent != came or unexplained:
            print(f"WRONG: {sent - came} between replay and tap, {unexplained} unexplained behind it")
            bad += 1
        ledger = whole.run("ledger", "soak", "-o", "json", check=False)
        if ledger.returncode == 0:
            for entry in json.loads(ledger.stdout).get("groups", []):
                print("ledger", entry.get("group"), "in", entry.get("in"), "delivered", entry.get("delivered"),
                      "lost", entry.get("lost"), "unexplained", entry.get("unexplained"))
                bad += entry.get("unexplained", 0) != 0
        print(f"{'':24} {'middle':>12} {'last third':>12}")
        for key in rows[0] if rows else []:
            change = grown(rows, key)
            if change is None:
                continue
            before, after, too_much = change
            bad += too_much
            print(f"{key:24} {before:12g} {after:12g}{'  GREW' if too_much else ''}")
        print("nothing grew, every packet is accounted for" if not bad else f"{bad} findings")
    finally:
        whole.down()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
