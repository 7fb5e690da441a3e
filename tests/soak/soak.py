#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A long run at half of what the machine takes: nothing may grow, and no packet may be lost unexplained.

Makes an instance of its own (as root, with the image of 'picket image build suricata'), finds the highest rate that loses
nothing, replays generated traffic at half of it, and looks every ten seconds at the memory, descriptors, folders and BPF
objects of that instance. Exit status 1 when something grew, a process or tool ended, or a sum does not add up.
"""
import argparse
import collections
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/system"))
from conftest import UnixConnection  # noqa: E402
from whole import Whole, make_traffic, wait_for  # noqa: E402

FLEET = "soak"
ROLES = ["serve", "node", "ship", "podman"]
SETTLE = 60  # seconds until queues and caches have their size
STEP = 6  # seconds that a rate is tried
CONFIRM = 20  # seconds that the rate that was found has to hold
RATE_FIRST, RATE_MAX = 4000, 3000000

# What a value may be larger in the last third than in the middle one: absolute, and a share. What is not named: nothing.
ROOM = {
    "serve KiB": (8192, 0.10),  # DuckDB's ups and downs
    "podman KiB": (16384, 0.25),  # a program with a garbage collector
    "node KiB": (2048, 0.05),
    "ship KiB": (2048, 0.05),
    "serve fds": (2, 0),  # connections and files of the moment
    "serve threads": (2, 0),
    "podman fds": (4, 0),
    "podman threads": (4, 0),
    "node fds": (2, 0),
    "node threads": (2, 0),
    "ship fds": (4, 0),
    "bpf map KiB": (64, 0.01),
    "units files": (16, 0.1), "units MiB": (32, 0.25),
    "events files": (48, 0.25), "events MiB": (32, 0.25),
    "ship files": (16, 0.1), "ship MiB": (8, 0.1),
    "state MiB": (8, 0.1),
    "run MiB": (4, 0.1),
}
# These have their final size when the oldest file that is kept has gone (sealed logs stay for ten minutes, see
# 'picket ship'), which must be over when the middle third begins.
LATE = ["units files", "units MiB", "events files", "events MiB", "ship fds", "ship files", "ship MiB"]
LATE_MINUTES = 30
SHOWN_ONLY = ["tools KiB"]  # the tools' own memory is not picket's


def fleet_text(groups, lanes):
    """Logs and events go after minutes, so that folders too come to rest within the run."""
    text = f"""apiVersion: picket.dev/v1alpha1
kind: Fleet
metadata: {{name: {FLEET}}}
spec:
  taps: [{{name: wire, replay: {{mtu: 9216}}}}]
  groups:
"""
    for i in range(groups):
        text += (f"    - {{name: g{i}, taps: [wire], lanes: {lanes}, hash: flow, tools: "
                 "[{package: suricata@7, memory: 1GiB, values: {eve: {rotate-interval: 1m}}}]}\n")
    return text + "  events: {sinks: [{store: {retain: 5m, maxSize: 2GiB, sealAfter: 5s}}]}\n"


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def plane(whole):
    connection = UnixConnection(str(whole.rundir / "node.sock"))
    connection.request("GET", "/v1/plane")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def settled(whole, seconds=60):
    """Plane and ledger when no packet is under way: both unchanged from one look to the next. The tools are asked for
    their counts each second."""
    before, deadline = None, time.monotonic() + seconds
    while True:
        now, ledger = plane(whole), whole.json("ledger", FLEET)
        sums = [balance for group in ledger["groups"] for balance in group["balances"]]
        counts = ([(t["packets"], t["dropped"]) for t in now["taps"]], [lane["packets"] for lane in now["lanes"]],
                  [(s["in"], s["delivered"], s["lost"], s["unexplained"]) for s in sums])
        if (counts == before and not any(s["underWay"] for s in sums)) or time.monotonic() > deadline:
            return now, ledger
        before = counts
        time.sleep(1.5)


def lost(ledger):
    return sum(loss["packets"] for loss in ledger["losses"] if loss["kind"] in ("lost", "unconfirmed"))


# ---- the rate ----

def try_rate(whole, capture, pps, seconds):
    """What was really sent per second, and how much of it was lost."""
    before = lost(settled(whole)[1])
    whole.run("replay", capture, "--pps", pps, "--loop", "forever", "--detach")
    began = time.monotonic()
    time.sleep(seconds)
    whole.run("replay", "--stop")
    rate = whole.json("replay", "--status")["sent"] / (time.monotonic() - began)
    losses = lost(settled(whole)[1]) - before
    say(f"  {pps} packets/s for {seconds} s: {rate:.0f}/s sent, {losses} lost")
    return rate, losses


def find_rate(whole, capture):
    """About the highest rate that loses nothing, from the interface to the tools."""
    good, bad, pps = 0, None, RATE_FIRST
    while pps <= RATE_MAX:
        rate, losses = try_rate(whole, capture, pps, STEP)
        if losses:
            bad = pps
        else:
            good = max(good, min(pps, int(rate)))
            if rate < 0.8 * pps:
                break  # the sender takes no more
        if bad and (bad - good < 0.15 * bad or bad < 200):
            break
        pps = (good + bad) // 2 if bad and good else bad // 2 if bad else int(pps * 1.6)
    while good:
        rate, losses = try_rate(whole, capture, good, CONFIRM)
        if losses == 0:
            return min(good, int(rate))
        good = int(good * 0.8) if good > 200 else 0
    raise SystemExit("no rate goes through without loss: is the machine busy with something else?")


# ---- looks ----

def descriptors(pid):
    """The ids of BPF objects that a process holds: {"map": {..}, "prog": {..}, "link": {..}}."""
    held = collections.defaultdict(set)
    for entry in pathlib.Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            for line in entry.read_text().splitlines():
                key, _, value = line.partition(":")
                if key in ("map_id", "prog_id", "link_id"):
                    held[key[:-3]].add(int(value))
        except OSError:
            pass  # closed meanwhile
    return held


def bpf_objects(whole, node):
    """Those of this instance: what is pinned in its folder or held by its agent, the programs of these links and the maps
    of these programs."""
    held, listed = descriptors(node), {}
    for kind in ["link", "prog", "map"]:
        out = subprocess.run(["bpftool", "-j", "-f", kind, "show"], capture_output=True, text=True, check=True).stdout
        listed[kind] = json.loads(out)
        for thing in listed[kind]:
            if any(pin.startswith(f"{whole.rundir}/") for pin in thing.get("pinned", [])):
                held[kind].add(thing["id"])
        for thing in listed[kind]:
            if thing["id"] in held[kind]:
                if kind == "link":
                    held["prog"].add(thing.get("prog_id"))
                held["map"].update(thing.get("map_ids", []))
    mine = {kind: [thing for thing in listed[kind] if thing["id"] in held[kind]] for kind in listed}
    return {"bpf maps": len(mine["map"]), "bpf programs": len(mine["prog"]), "bpf links": len(mine["link"]),
            "bpf map KiB": sum(thing.get("bytes_memlock", 0) for thing in mine["map"]) // 1024}


def resident(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def tree(path):
    files = size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                size += os.lstat(os.path.join(folder, name)).st_size
                files += 1
            except FileNotFoundError:
                pass
    return {"files": files, "MiB": round(size / (1 << 20), 1)}


def look(whole):
    """A row of numbers, and what must stay the same: the processes, and how often tools were restarted."""
    row, same = {}, {}
    for role in ROLES:
        pids = whole.pid_of(role)
        same[role] = pids
        row[f"{role} KiB"] = sum(map(resident, pids))
        row[f"{role} fds"] = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
        row[f"{role} threads"] = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)
    status = whole.json("status", FLEET)
    tools = [tool for group in status["groups"] for lane in group["lanes"] for tool in lane["tools"]]
    same["tools"] = sorted((tool["unit"], tool["pid"], tool["restarts"]) for tool in tools)
    row["tools"] = len(tools)
    row["tools KiB"] = sum(resident(tool["pid"]) for tool in tools)
    row.update(bpf_objects(whole, same["node"][0]))
    for name, path in [("units", whole.state / "units"), ("events", whole.state / "events"),
                       ("ship", whole.state / "ship"), ("run", whole.rundir)]:
        row.update({f"{name} {key}": value for key, value in tree(path).items()})
    row["state MiB"] = round(sum(path.stat().st_size for path in whole.state.iterdir() if path.is_file()) / (1 << 20), 1)
    return row, same


# ---- what came of it ----

def table(rows, minutes):
    """Prints each value's medians over the thirds of the run; the names of those that grew."""
    third, grew = len(rows) // 3, []
    if third < 4:
        say(f"only {len(rows)} looks: too few to tell what grows")
        return grew
    print(f"{'':16}{'first third':>14}{'middle':>14}{'last third':>14}{'most':>14}")
    for key in rows[0]:
        values = [row[key] for row in rows]
        first, middle, last = (statistics.median(part) for part in
                               (values[:third], values[third:-third], values[-third:]))
        most, share = ROOM.get(key, (0, 0))
        note = ""
        if key in SHOWN_ONLY:
            note = "  (not judged: the tools' own)"
        elif key in LATE and minutes < LATE_MINUTES:
            note = f"  (judged in runs of {LATE_MINUTES} minutes)"
        elif last - middle > most + share * middle:
            note = "  GREW"
            grew.append(key)
        print(f"{key:16}{first:14g}{middle:14g}{last:14g}{max(values):14g}{note}")
    return grew


def rise(start, end, things, of, key):
    before = {tuple(thing[k] for k in of): thing[key] for thing in start[things]}
    return sum(thing[key] - before[tuple(thing[k] for k in of)] for thing in end[things])


def sums(start, end, sent, groups):
    """Compares what was sent with what the broker and the lanes counted."""
    tap, lane = ("fleet", "name"), ("fleet", "group", "index")
    came, dropped = rise(start, end, "taps", tap, "packets"), rise(start, end, "taps", tap, "dropped")
    arrived, ring = rise(start, end, "lanes", lane, "packets"), rise(start, end, "lanes", lane, "ringDropped")
    unread = rise(start, end, "lanes", lane, "unread")
    print(f"packets: sent {sent}, came in {came}; for {groups} groups: arrived {arrived} (unread {unread}), "
          f"dropped by rings {ring}, at taps {dropped}")
    found = []
    if sent != came:
        found.append(f"{sent - came} packets between replay and tap")
    if came * groups != arrived + ring + dropped:
        found.append(f"{came * groups - arrived - ring - dropped} packets unexplained between tap and lanes")
    return found


def ledger_sums(before, ledger):
    found = []
    for group in ledger["groups"]:
        for s in group["balances"]:
            print(f"ledger: group {group['name']}, {s['tool']}: in {s['in']}, delivered {s['delivered']}, left out "
                  f"{s['leftOut']}, lost {s['lost']}, unconfirmed {s['unconfirmed']}, unexplained {s['unexplained']}")
            if s["unexplained"] or s["underWay"] or not s["addsUp"]:
                found.append(f"the ledger of group {group['name']} does not add up: {s['gaps'] or s}")
    for tap in ledger["taps"]:
        if not tap["balance"]["addsUp"]:
            found.append(f"the ledger of tap {tap['name']} does not add up: {tap['balance']['gaps']}")
    old = {(loss["cause"], loss.get("where")): loss["packets"] for loss in before["losses"]}
    for loss in ledger["losses"]:
        more = loss["packets"] - old.get((loss["cause"], loss.get("where")), 0)
        if more:
            print(f"ledger: {more} {loss['kind']}: {loss['cause']}, {loss.get('where', '')}")
    print(f"lost at this rate: {lost(ledger) - lost(before)}")
    return found


def stored(whole):
    """All that the tools wrote comes to rest in the store, and nothing of it was given up."""
    deadline = time.monotonic() + 120
    while True:
        events = whole.json("status", FLEET)["events"]
        if events["received"] == events["stored"] or time.monotonic() > deadline:
            break
        time.sleep(2)
    print(f"events: received {events['received']}, stored {events['stored']}, lost {events['lost']}")
    left = events["received"] - events["stored"]
    return ([f"{left} events are not stored"] if left else []) + \
        ([f"{events['lost']} events could not be read"] if events["lost"] else [])


def watch(whole, seconds):
    """Looks until the time is over; the rows, and what went wrong meanwhile."""
    rows, found, first = [], [], None
    began, pause = time.monotonic(), max(2, min(10, seconds / 60))
    settle = min(SETTLE, seconds / 6)
    while time.monotonic() - began < seconds:
        time.sleep(min(pause, max(0.1, began + seconds - time.monotonic())))
        if time.monotonic() - began < settle:
            continue
        try:
            row, same = look(whole)
        except (AssertionError, OSError, LookupError, ValueError, subprocess.SubprocessError) as fault:
            found.append(f"a look failed: {str(fault)[:300]}")
            say(found[-1])
            continue
        for key in same:
            if first and same[key] != first[key]:
                found.append(f"{key} ended or began: {first[key]} -> {same[key]}")
                say(found[-1])
        first = same
        rows.append(row)
        if len(rows) % 30 == 1:
            say(", ".join(f"{key} {row[key]}" for key in ("serve KiB", "node KiB", "ship KiB", "bpf maps", "events MiB")))
    return rows, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--rate", default="auto", help="packets per second; auto: half of what goes through without loss")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # and cleans up
    whole, found = Whole(), []
    try:
        capture = make_traffic(whole.base / "mix.pcap", "--flows", 4000)
        whole.up()
        whole.apply(fleet_text(args.groups, args.lanes))
        wait_for("lanes with readers", 120, lambda: all(lane["state"] == "ready" for lane in plane(whole)["lanes"]))
        if args.rate == "auto":
            say("looking for the highest rate without loss")
            capacity = find_rate(whole, capture)
            pps = capacity // 2
            say(f"capacity {capacity} packets/s")
        else:
            pps = int(args.rate)
        say(f"{args.minutes:g} minutes at {pps} packets/s to {args.groups} groups of {args.lanes} lanes")
        start, start_ledger = settled(whole)
        whole.run("replay", capture, "--pps", pps, "--loop", "forever", "--detach")
        rows, found = watch(whole, args.minutes * 60)
        whole.run("replay", "--stop")
        replay = whole.json("replay", "--status")
        time.sleep(2)
        end, ledger = settled(whole)
        print(f"{replay['sent']} packets sent in {replay['elapsedMs'] / 1000:.0f} s, "
              f"{replay['sent'] * 1000 / replay['elapsedMs']:.0f}/s of {pps}/s asked for")
        found += [f"{key} grew" for key in table(rows, args.minutes)]
        found += sums(start, end, replay["sent"], args.groups)
        found += ledger_sums(start_ledger, ledger)
        found += stored(whole)
        for finding in found:
            print(f"FOUND: {finding}")
        print(f"{len(found)} findings" if found else "nothing grew, every packet is accounted for")
    finally:
        whole.down()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
