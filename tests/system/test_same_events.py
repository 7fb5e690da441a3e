# SPDX-License-Identifier: Apache-2.0
"""Through 1, 2 and 4 lanes the same events come back as from one Suricata that reads the file alone."""
import json
import os
import pathlib
import time

import pytest

from whole import (ROOT, Whole, difference, fleet_text, make_traffic, multiset, read_offline, wait_for)

SHARED = pathlib.Path(os.environ.get("PICKET_SHARED_DATA", ROOT.parent / "shared/data"))


@pytest.fixture(scope="module")
def whole(suricata_image):
    instance = Whole()
    try:
        instance.up()
        yield instance
    finally:
        instance.down()


def through_lanes(whole, name, lanes, captures, pps):
    """Replays the captures one after the other; returns what one Suricata alone says of each, too."""
    whole.apply(fleet_text(name, lanes=lanes), f"{name}.yaml")
    config = next(iter(whole.state.glob(f"units/*-{name}-*/config/*/suricata.yaml"))).parent
    reference = [event for capture in captures for event in read_offline(whole, config, capture)] if lanes == 1 else None
    replay = whole.json("replay", *captures, "--tap", f"{name}/wire", "--pps", pps, timeout=300)

    def all_read():
        """The tools count what they took; a busy machine gives them the time when it likes."""
        lanes_now = whole.status(name)["groups"][0]["lanes"]
        behind = any(tool["packets"] < lane["packets"] for lane in lanes_now for tool in lane["tools"])
        return None if behind else lanes_now

    lanes_seen = wait_for("the tools to read all", 30, all_read)
    time.sleep(1)  # what they took they also work on
    # Deleting the fleet stops the tools, which then write the flows that are still open.
    whole.run("delete", name, "--yes")
    return reference, replay, lanes_seen


def compare(whole, captures, name, pps):
    expected = None
    for lanes in (1, 2, 4):
        fleet = f"{name}{lanes}"
        reference, replay, seen = through_lanes(whole, fleet, lanes, captures, pps)
        if reference is not None:
            expected = multiset(reference)
            assert sum(expected.values()) > 0
        assert replay["sent"] > 0 and replay["failed"] == 0 and replay["oversize"] == 0
        got = []

        def complete():
            got[:] = [json.loads(event["raw"]) for event in whole.events(fleet=fleet)]
            return multiset(got) == expected

        try:
            wait_for("all events", 30, complete)
        except AssertionError:
            pytest.fail(f"{lanes} lanes: {difference(expected, multiset(got))}; {seen}")
        # No conversation's records come from two lanes, and each lane has some.
        where = {}
        for event in whole.events("type:flow", fleet=fleet):
            where.setdefault(event["community_id"], set()).add(event["lane"])
        assert all(len(lanes_of) == 1 for lanes_of in where.values())
        if len(where) > 50:
            assert len(set.union(*where.values())) == lanes


def test_own_traffic(whole, tmp_path):
    capture = make_traffic(tmp_path / "own.pcap", "--flows", 1500, "--seconds", 10, "--seed", 7)
    compare(whole, [capture], "own", 8000)


# Of other projects. Left out are those in which no two readers agree: FTP data connections (known for what they are
# only where the control connection is seen too) and captures without Ethernet headers (which replay adds).
REAL = ["wikipedia.pcap", "http-qinq-0.pcap", "smtp.pcap", "ipv6-fragmented-dns.pcap",
        "ipv6-http-atomic-frag.pcap", "dns/mdns.pcap", "dns/naptr.pcap", "http/bro.org.pcap", "http/methods.pcap",
        "ipv4/fragmented-4.pcap", "mixed-vlan-mpls.pcap", "pppoe-over-qinq.pcap", "ssh/ssh.pcap", "ssh/sshguess.pcap",
        "tls/tls1.2.pcap", "tls/tls13-ech.pcap", "tls/heartbleed.pcap", "smb/smb2.pcap", "erspanII.pcap"]


@pytest.mark.skipif(not (SHARED / "captures").is_dir(), reason="no captures of other projects here")
def test_real_captures(whole):
    compare(whole, [SHARED / "captures" / name for name in REAL], "real", 2000)
