# SPDX-License-Identifier: Apache-2.0
"""Through 1, 2 and 4 lanes the same events come back as from one Suricata that reads the file alone."""
import json
import os
import pathlib

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


def through_lanes(whole, name, lanes, capture, pps):
    whole.apply(fleet_text(name, lanes=lanes), f"{name}.yaml")
    config = None
    for path in whole.state.glob(f"units/*-{name}-*/config/*/suricata.yaml"):
        config = path.parent
    reference = read_offline(whole, config, capture) if lanes == 1 else None
    replay = whole.json("replay", capture, "--tap", f"{name}/wire", "--pps", pps, timeout=300)
    status = whole.status(name)
    lanes_seen = status["groups"][0]["lanes"]
    # Deleting the fleet stops the tools, which then write the flows that are still open.
    whole.run("delete", name, "--yes")
    return reference, replay, lanes_seen


def compare(whole, capture, name, pps=8000):
    expected = None
    for lanes in (1, 2, 4):
        fleet = f"{name}{lanes}"
        reference, replay, seen = through_lanes(whole, fleet, lanes, capture, pps)
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
            pytest.fail(f"{capture.name}, {lanes} lanes: {difference(expected, multiset(got))}; {seen}")
        # No conversation's records come from two lanes.
        where = {}
        for event in whole.events("type:flow", fleet=fleet):
            where.setdefault(event["community_id"], set()).add(event["lane"])
        assert all(len(lanes_of) == 1 for lanes_of in where.values())
        if lanes > 1 and len(where) > 50:
            assert len(set.union(*where.values())) == lanes


def test_own_traffic(whole, tmp_path):
    compare(whole, make_traffic(tmp_path / "own.pcap", "--flows", 1500, "--seconds", 10, "--seed", 7), "own")


@pytest.mark.skipif(not (SHARED / "captures").is_dir(), reason="no captures of other projects here")
@pytest.mark.parametrize("name", ["wikipedia.pcap", "http-vlan-0.pcap", "http-qinq-0.pcap", "smtp.pcap",
                                  "ipv6-fragmented-dns.pcap"])
def test_real_captures(whole, name):
    compare(whole, SHARED / "captures" / name, "r" + name.split(".")[0].replace("_", "-")[:20], pps=500)
