# SPDX-License-Identifier: Apache-2.0
"""The API of 'picket serve': every route, good and bad input, held to docs/api/openapi.json."""
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from served import OPENAPI, SEEN, Served, UnixConnection, check_answer
from whole import PICKET, fleet_text, make_traffic, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent needs root")


def test_version_is_public_and_described(served):
    assert served.call("GET", "/v1/version", expect=200)["api"] == "v1"


def test_unknown_paths_and_methods(served):
    assert served.call("GET", "/v1/nothing")[0] == 404
    assert served.call("GET", "/")[0] == 404
    assert served.call("PUT", "/v1/fleets")[0] in (404, 405)


BAD_PATHS = [
    "/v1/fleets/UPPER/status",
    "/v1/fleets/a%20b/status",
    "/v1/fleets/..%2f..%2fetc/status",
    "/v1/fleets/" + "a" * 41 + "/status",
    "/v1/fleets/t/revisions?limit=0",
    "/v1/fleets/t/revisions?limit=1001",
    "/v1/fleets/t/revisions?before=-1",
    "/v1/fleets/t/revisions/0",
    "/v1/fleets/t/revisions/x",
    "/v1/fleets/t/revisions/99999999999999999999",
    "/v1/fleets/t/revisions/1/progress?wait=30001",
    "/v1/fleets/t/revisions/1/progress?after=x",
    "/v1/fleets/t/units/a/256/suricata/logs",
    "/v1/fleets/t/units/a/0/suricata/logs?lines=0",
    "/v1/fleets/t/units/A/0/suricata/logs",
    "/v1/fleets/t/taps/No/replay",
    "/v1/plans/xyz",
    "/v1/plans/7F3A",
    "/v1/plans/" + "0" * 13,
    "/v1/events?since=yesteryear",
    "/v1/events?limit=0",
    "/v1/events?limit=10001",
    "/v1/events?since=1h&until=2h",
    "/v1/events?q=" + "a" * 4097,
    "/v1/events?q=nofield:1",
    "/v1/events/count",
    "/v1/events/count?by=signatur",
    "/v1/events/follow?q=nofield:1",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_bad_input_is_refused(served, path):
    status, value = served.call("GET", path)
    assert 400 <= status < 500, value


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"', b"{}",
    {"document": 5}, {"documnt": "x"}, {"document": "x", "fleet": "t", "revision": 1},
    {"fleet": "t"}, {"fleet": "t", "revision": 0}, {"fleet": "t", "revision": 1, "remove": True},
    {"fleet": "T", "remove": True}, {"fleet": "t", "remove": "yes"}, {"revision": 1},
    b'{"document": "a\\u0000b"}', b'{"document": "a", "document": "b"}',
])
def test_bad_plan_requests(served, body):
    status, value = served.call("POST", "/v1/plans", body)
    assert 400 <= status < 500, value


def test_a_hint_names_the_key(served):
    _, value = served.call("POST", "/v1/plans", {"documnt": "x"})
    assert "document" in value["error"]["hint"]


def test_faults_of_a_document_come_all_at_once(served):
    text = fleet_text().replace("lanes: 2", "lanes: many").replace("mtu:", "mtuu:")
    value = served.call("POST", "/v1/plans", {"document": text, "name": "bad.yaml"}, expect=422)
    assert len(value["errors"]) >= 2
    for error in value["errors"]:
        assert error["file"] == "bad.yaml" and error["line"] > 0 and error["column"] > 0
    assert served.call("GET", "/v1/fleets", expect=200)["fleets"] == []


def test_body_too_large(served):
    status, _, _ = served.raw("POST", "/v1/plans", b"x" * (17 << 20))
    assert status == 413


def test_not_found(served):
    for path in ["/v1/fleets/none/status", "/v1/fleets/none/revisions/1", "/v1/fleets/none/revisions/1/progress",
                 "/v1/plans/000000000000", "/v1/fleets/none/units/a/0/suricata/logs"]:
        assert served.call("GET", path)[0] == 404, path
    assert served.call("POST", "/v1/plans/000000000000/apply", {})[0] == 404
    assert served.call("POST", "/v1/plans", {"fleet": "none", "remove": True})[0] == 404
    assert served.call("POST", "/v1/plans", {"fleet": "none", "revision": 1})[0] == 404
    assert served.call("DELETE", "/v1/tokens/none")[0] == 404


def converged(served, fleet):
    status = served.call("GET", f"/v1/fleets/{fleet}/status", expect=200)
    return status if status["state"] == "converged" else None


def test_life_of_a_fleet(served, tmp_path):
    text = fleet_text("life", lanes=2)
    plan = served.call("POST", "/v1/plans", {"document": text, "name": "life.yaml"}, expect=200)
    assert plan["fleet"] == "life" and plan["steps"] and plan["traffic"]
    assert [step["kind"] for step in plan["steps"]].count("lane") == 2
    assert served.call("GET", f"/v1/plans/{plan['id']}", expect=200)["id"] == plan["id"]
    other = served.call("POST", "/v1/plans", {"document": fleet_text("life", lanes=1), "name": "x"}, expect=200)
    assert other["id"] != plan["id"]

    started = served.call("POST", f"/v1/plans/{plan['id']}/apply", {"reason": "first"}, expect=202)
    assert started == {"fleet": "life", "revision": 1}
    journal = served.finish(started)
    assert journal["outcome"] == "applied", journal
    assert all(step["state"] == "done" for step in journal["steps"])

    status = wait_for("a converged fleet", 30, lambda: converged(served, "life"))
    assert status["revision"] == 1
    assert len(status["groups"][0]["lanes"]) == 2
    assert sum(lane["slots"] for lane in status["groups"][0]["lanes"]) == 65537
    assert served.call("GET", "/v1/fleets", expect=200)["fleets"] == ["life"]

    # Made from what is no longer so.
    assert served.call("POST", f"/v1/plans/{other['id']}/apply", {})[0] == 409

    again = served.call("POST", "/v1/plans", {"document": text, "name": "life.yaml"}, expect=200)
    assert again["steps"] == []
    assert served.call("POST", f"/v1/plans/{again['id']}/apply", {}, expect=202)["revision"] == 0

    journal = served.apply(fleet_text("life", lanes=1))
    assert journal["outcome"] == "applied" and journal["revision"] == 2
    back = served.call("POST", "/v1/plans", {"fleet": "life", "revision": 1}, expect=200)
    assert served.finish(served.call("POST", f"/v1/plans/{back['id']}/apply", {"reason": "back"}, expect=202))

    history = served.call("GET", "/v1/fleets/life/revisions", expect=200)["revisions"]
    assert [revision["number"] for revision in history] == [3, 2, 1]
    assert history[0]["reason"] == "back" and history[0]["user"] == "root"
    page = served.call("GET", "/v1/fleets/life/revisions?before=3&limit=1", expect=200)["revisions"]
    assert [revision["number"] for revision in page] == [2]
    assert served.call("GET", "/v1/fleets/life/revisions/1", expect=200)["document"] == text

    # The agent's routes.
    plane = served.call("GET", "/v1/plane", expect=200)
    assert {tap["name"] for tap in plane["taps"]} == {"wire"}
    assert served.call("GET", "/v1/node", expect=200)["cpus"] > 0
    replay = "/v1/fleets/life/taps/wire/replay"
    capture = make_traffic(tmp_path / "t.pcap", "--flows", 20, "--seconds", 1)
    assert served.call("POST", replay, {"files": [str(capture)], "mod": "fast"})[0] == 400
    served.call("POST", replay, {"files": [str(capture)], "mode": "recorded", "loops": 1}, expect=200)
    wait_for("the replay", 20, lambda: served.call("GET", replay, expect=200)["state"] == "done")
    served.call("DELETE", replay, expect=200)
    assert served.call("POST", "/v1/fleets/life/taps/none/replay", {"files": [str(capture)]})[0] == 404

    def counted():
        status = served.call("GET", "/v1/fleets/life/status", expect=200)
        tools = [tool["packets"] for lane in status["groups"][0]["lanes"] for tool in lane["tools"]]
        return status["taps"][0]["packets"] > 0 and sum(tools) == status["taps"][0]["packets"]
    wait_for("each packet of the tap at a tool", 10, counted)
    drain = "/v1/fleets/life/lanes/analysis/1/drain"
    served.call("PUT", drain, expect=200)

    def drained():
        lane = served.call("GET", "/v1/fleets/life/status", expect=200)["groups"][0]["lanes"][1]
        return lane["drain"] is not None and lane["drain"]["state"] == "drained"
    wait_for("a drained lane", 40, drained)
    served.call("DELETE", drain, expect=200)
    assert served.call("PUT", "/v1/fleets/life/lanes/analysis/9/drain")[0] == 404
    assert served.call("PUT", "/v1/fleets/life/lanes/analysis/x/drain")[0] == 400
    shunts = "/v1/fleets/life/shunts"
    flow = {"src": "192.0.2.1", "srcPort": 40000, "dst": "198.51.100.7", "dstPort": 443, "proto": "tcp"}
    assert served.call("POST", shunts, {"flows": [flow]}, expect=200)["added"] == 1
    assert len(served.call("GET", shunts, expect=200)["shunts"]) == 1
    served.call("GET", shunts + "/stats", expect=200)
    assert served.call("DELETE", shunts, {"all": True}, expect=200)["removed"] == 1
    assert served.call("GET", "/v1/fleets/life/units/analysis/0/suricata/logs")[0] == 200

    def told():
        ledger = served.call("GET", "/v1/fleets/life/ledger", expect=200)
        balance = ledger["groups"][0]["balances"][0]
        return ledger["addsUp"] and balance["in"] == balance["delivered"] > 0
    wait_for("a ledger that adds up", 20, told)
    assert served.call("GET", "/v1/fleets/life/ledger?since=1h", expect=200)["kind"] == "Ledger"
    assert served.call("GET", "/v1/fleets/life/ledger?since=never")[0] == 400
    assert served.call("GET", "/v1/fleets/none/ledger")[0] == 404

    remove = served.call("POST", "/v1/plans", {"fleet": "life", "remove": True}, expect=200)
    assert all(step["op"] == "remove" for step in remove["steps"])
    journal = served.finish(served.call("POST", f"/v1/plans/{remove['id']}/apply", {}, expect=202))
    assert journal["outcome"] == "applied", journal
    assert served.call("GET", "/v1/fleets/life/status")[0] == 404
    assert served.call("GET", "/v1/fleets", expect=200)["fleets"] == []
    plane = served.call("GET", "/v1/plane", expect=200)
    assert plane["taps"] == [] and plane["lanes"] == []


def test_events_of_an_empty_store(served):
    answer = served.call("GET", "/v1/events?since=1h", expect=200)
    assert answer == {"events": [], "page": None}
    assert served.call("GET", "/v1/events/count?by=type", expect=200)["counts"] == []
    assert served.call("GET", "/v1/events/stats", expect=200)["received"] == 0
    assert "session" in served.call("GET", "/v1/ingest", expect=200)


def test_garbage_batches_are_refused(served):
    for body in [b"", b"garbage", b"\0" * 1000, os.urandom(4096)]:
        status, _ = served.call("POST", "/v1/ingest", body)
        assert 400 <= status < 500


def test_canaries_of_nobody(served):
    for body in ({}, {"canaries": 1}, []):
        served.call("POST", "/v1/ingest/canaries", body, expect=422)
    rows = [{"fleet": "none", "group": "g", "lane": 0, "tool": "t", "number": 1, "delayMs": 1}]
    assert served.call("POST", "/v1/ingest/canaries", {"canaries": rows}, expect=200) == {}


def test_one_server_per_state_folder(served):
    done = served.cli("serve", "--engine", "fake", expect=5)
    assert str(served.processes["serve"].pid) in done.stderr
    assert "hint" in done.stderr


def test_engine_and_options_are_checked(served):
    for args in [["--engine", "docker"], ["--listen", "127.0.0.1:7443"], ["--listen", "nonsense", "--cert", "x", "--key", "y"],
                 ["--cert", "x"], ["--group", "no-such-group"]]:
        done = served.cli("serve", *args, expect=None)
        assert done.returncode in (2, 3, 5), (args, done)
        assert "hint" in done.stderr, (args, done)


def as_nobody(path):
    """Asks over the socket as user nobody; 'status' or the errno's name."""
    code = ("import os,socket,sys\nos.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
            "s=socket.socket(socket.AF_UNIX)\n"
            "try:\n s.connect(sys.argv[1])\nexcept OSError as e:\n print(e.strerror); sys.exit()\n"
            "s.sendall(b'GET /v1/fleets HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n"
            "print(s.recv(4096).split()[1].decode())\n")
    return subprocess.run(["/usr/bin/python3", "-c", code, str(path)], capture_output=True, text=True).stdout.strip()


def test_who_may_use_the_socket():
    plain = Served(node=False)
    try:
        plain.start()
        plain.base.chmod(0o755)
        assert as_nobody(plain.rundir / "serve.sock") == "Permission denied"
    finally:
        plain.stop()
    grouped = Served("--group", "nogroup", node=False)
    try:
        grouped.start()
        grouped.base.chmod(0o755)
        assert as_nobody(grouped.rundir / "serve.sock") == "200"
    finally:
        grouped.stop()


def test_tokens_over_the_socket(served):
    made = served.call("POST", "/v1/tokens", {"name": "one"}, expect=201)
    assert made["role"] == "read" and made["token"].startswith("picket_")
    assert served.call("POST", "/v1/tokens", {"name": "one"})[0] == 409
    for body in [{}, {"name": "Two"}, {"name": "two", "role": "king"}, {"nam": "two"}, {"name": 2}]:
        assert served.call("POST", "/v1/tokens", body)[0] == 400, body
    assert [token["name"] for token in served.call("GET", "/v1/tokens", expect=200)["tokens"]] == ["one"]
    served.call("DELETE", "/v1/tokens/one", expect=200)
    assert served.call("GET", "/v1/tokens", expect=200)["tokens"] == []


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_tls_and_tokens(tmp_path):
    cert, key, port = tmp_path / "cert.pem", tmp_path / "key.pem", free_port()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    served = Served("--listen", f"127.0.0.1:{port}", "--cert", str(cert), "--key", str(key), node=False)

    def call(method, path, token=None, body=None):
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10,
                                                 context=ssl.create_default_context(cafile=str(cert)))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        check_answer(method, path, answer.status, answer.getheader("Content-Type", ""), data)
        return answer.status

    try:
        served.start()
        assert call("GET", "/v1/version") == 200
        assert call("GET", "/v1/fleets") == 403
        assert call("GET", "/v1/fleets", "picket_" + "A" * 43) == 403
        reader = served.cli("token", "create", "reader").stdout.strip()
        admin = served.cli("token", "create", "boss", "--role", "admin").stdout.strip()
        assert served.cli("token", "create", "boss", expect=5)
        assert call("GET", "/v1/fleets", reader) == 200
        assert call("GET", "/v1/tokens", reader) == 403
        assert call("GET", "/v1/ingest", reader) == 403
        assert call("POST", "/v1/plans", reader, {"document": "", "name": "x"}) == 403
        assert call("POST", "/v1/plans", admin, {"document": "", "name": "x"}) == 422
        assert call("GET", "/v1/tokens", admin) == 200
        listed = json.loads(served.cli("token", "list", "-o", "json").stdout)["tokens"]
        assert [(token["name"], token["role"]) for token in listed] == [("boss", "admin"), ("reader", "read")]
        assert all("token" not in token for token in listed)
        served.cli("token", "revoke", "reader")
        assert call("GET", "/v1/fleets", reader) == 403
        # Plain text on the TLS port gets nothing.
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                assert b"200" not in s.recv(100)
            except ConnectionResetError:
                pass
        # A hash, not the token, is on disk.
        for path in served.state.glob("fleet.db*"):
            assert admin.encode() not in path.read_bytes()
    finally:
        served.stop()


def test_stop_ends_streams_and_long_polls():
    served = Served()
    try:
        served.start()
        served.apply(fleet_text("stop", lanes=1))
        streams = []
        paths = ["/v1/events/follow", "/v1/fleets/stop/revisions/1/progress?after=1000000&wait=30000"]
        for path in paths:
            connection = UnixConnection(served.rundir / "serve.sock", 40)
            connection.request("GET", path)
            streams.append(connection)
        time.sleep(1)
        begun = time.monotonic()
        assert served.end("serve") == 0, served.log("serve")
        assert time.monotonic() - begun < 8
        for connection, path in zip(streams, paths):
            answer = connection.getresponse()
            check_answer("GET", path, answer.status, answer.getheader("Content-Type"), answer.read())
            connection.close()
        # Taken up where it was.
        served.start_serve()
        wait_for("the fleet again", 30, lambda: converged(served, "stop"))
    finally:
        served.stop()


def test_kill_in_the_middle_of_an_apply_converges():
    served = Served()
    try:
        served.start()
        for delay in (0.0, 0.05, 0.2, 0.5):
            lanes = 1 if delay in (0.05, 0.5) else 3
            plan = served.call("POST", "/v1/plans", {"document": fleet_text("cut", lanes=lanes), "name": "x"}, expect=200)
            started = served.call("POST", f"/v1/plans/{plan['id']}/apply", {}, expect=202)
            time.sleep(delay)
            served.end("serve", signal.SIGKILL)
            served.start_serve()
            status = wait_for("a converged fleet", 40, lambda: converged(served, "cut"))
            assert status["revision"] == started["revision"] or started["revision"] == 0
            assert len(status["groups"][0]["lanes"]) == lanes
    finally:
        served.stop()


def test_many_clients_at_once(served):
    wrong = []

    def work():
        for _ in range(20):
            status, _, _ = served.raw("GET", "/v1/fleets")
            if status != 200:
                wrong.append(status)
    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_every_route_was_seen():
    """Stands last: each described call has answered with success above, and was held to its schema."""
    described = {operation["operationId"] for operations in OPENAPI["paths"].values() for operation in operations.values()}
    # A batch is made by the shipper: tests/system/test_kill.py has real ones.
    missing = described - SEEN - {"post_ingest"}
    assert not missing
