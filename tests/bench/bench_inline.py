#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An IPS dies: picket's inline tap beside Suricata's own AF_PACKET copy-mode. README.md says what is measured."""
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/system"))
ROUNDS = int(os.environ.get("PICKET_BENCH_ROUNDS", "5"))
AFTER = 2.5  # seconds that are looked at after the kill


def skip(why):
    print(f"inline: skipped: {why}")
    sys.exit(77)


try:
    from test_inline_suricata import CLIENT, MTU, SERVER, End, Site, Stream
    from whole import IMAGE, wait_for
except ImportError as fault:
    skip(fault)


def longest(stream):
    """-> sent, lost, ms from the first lost packet to the next that came, or None when none came any more"""
    sent, lost, gap = stream.stop()
    last = max((number for _, number in stream.arrivals), default=-1)
    return sent, lost, None if last < sent - 100 else max(gap, 0)


class Alone:
    """Suricata between the same two hosts by itself: in a namespace that has the other ends of their cables."""

    def __init__(self, site):
        self.tag = "ix" + site.whole.tag()[2:] + "s"
        self.name = self.tag + "m"
        # The very files that picket made for the lane's Suricata.
        config = next(site.whole.state.glob("units/*/config/*"))
        self.base = site.whole.base / "alone"
        for folder in ("log", "run"):
            (self.base / folder).mkdir(parents=True)
        shutil.copytree(config, self.base / "config")
        self.ends = [End(self.tag, "a", CLIENT), End(self.tag, "b", SERVER)]
        for end, other, address in ((self.ends[0], self.ends[1], SERVER), (self.ends[1], self.ends[0], CLIENT)):
            end.run("ip", "neigh", "replace", address, "lladdr", other.mac, "dev", "eth0", "nud", "permanent")
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        for end, inner in zip(self.ends, ("tap0", "tap1")):
            for command in (["ip", "link", "set", end.cable, "netns", self.name, "name", inner],
                            ["ip", "-n", self.name, "link", "set", inner, "mtu", str(MTU), "up"],
                            ["ip", "netns", "exec", self.name, "ethtool", "-K", inner, "gro", "off", "gso", "off",
                             "tso", "off"]):
                subprocess.run(command, check=True, capture_output=True)

    def start(self):
        mounts = [f"--volume={self.base}/{name}:{target}" for name, target in
                  (("config", "/etc/picket:ro"), ("log", "/var/log/suricata"), ("run", "/run/suricata"))]
        subprocess.run(["podman", "run", "--detach", "--rm", "--name", self.name, f"--network=ns:/run/netns/{self.name}",
                        "--cap-add=NET_RAW", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", *mounts, IMAGE, "/usr/bin/suricata", "-c", "/etc/picket/suricata.yaml",
                        "--af-packet", "-l", "/var/log/suricata"], check=True, capture_output=True)

        def flows():
            stream = Stream(self.ends)
            time.sleep(0.3)
            sent, lost, _ = stream.stop()
            return lost < sent

        wait_for("Suricata alone", 30, flows)

    def pid(self):
        done = subprocess.run(["podman", "inspect", "--format", "{{.State.Pid}}", self.name], capture_output=True,
                              text=True, check=True)
        return int(done.stdout)

    def stop(self):
        subprocess.run(["podman", "rm", "--force", "--time", "0", self.name], check=False, capture_output=True)

    def close(self):
        self.stop()
        for end in self.ends:
            end.close()
        subprocess.run(["ip", "netns", "del", self.name], check=False)


def kill(stream, pids, signo):
    time.sleep(0.7)
    for pid in pids:
        os.kill(pid, signo)
    time.sleep(AFTER)
    return longest(stream)


def picket_round(site, signo, agent_too):
    site.inline()
    victims = [site.suricata()] + (site.whole.pid_of("node") if agent_too else [])
    result = kill(Stream(site.ends), victims, signo)
    if signo == signal.SIGSTOP:
        os.kill(victims[0], signal.SIGCONT)
    return result


def alone_round(alone, signo):
    alone.start()
    try:
        return kill(Stream(alone.ends), [alone.pid()], signo)
    finally:
        alone.stop()


def tell(way, what, results):
    gaps = [gap for _, _, gap in results]
    lost = statistics.median(lost for _, lost, _ in results)
    if None in gaps:
        print(f"{way:<10} {what:<34} {lost:>8.0f}  stays cut (looked at for {AFTER} s), {gaps.count(None)} of {len(gaps)} rounds")
    else:
        print(f"{way:<10} {what:<34} {lost:>8.0f} {min(gaps):>8.0f} {statistics.median(gaps):>8.0f} {max(gaps):>8.0f}")


def main():
    if os.geteuid() != 0:
        skip("needs root")
    if subprocess.run(["podman", "image", "exists", IMAGE], check=False).returncode != 0:
        skip(f"needs the image {IMAGE}: picket image build suricata@7")
    cases = (("Suricata killed", signal.SIGKILL, False), ("Suricata stopped (SIGSTOP)", signal.SIGSTOP, False),
             ("Suricata and the agent killed", signal.SIGKILL, True))
    print(f"1,000 packets a second, {ROUNDS} rounds, failAfter 200 ms, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'':<10} {'':<34} {'lost':>8} {'longest gap, ms':>26}")
    print(f"{'way':<10} {'what happens':<34} {'median':>8} {'min':>8} {'median':>8} {'max':>8}")
    site = Site()
    alone = None
    try:
        site.start()
        site.inline()
        alone = Alone(site)
        for what, signo, agent_too in cases:
            picket, peer = [], []
            for _ in range(ROUNDS):
                picket.append(picket_round(site, signo, agent_too))
                if not agent_too:  # it has none
                    peer.append(alone_round(alone, signo))
            tell("picket", what, picket)
            if peer:
                tell("Suricata", what, peer)
    finally:
        if alone is not None:
            alone.close()
        site.close()


if __name__ == "__main__":
    main()
