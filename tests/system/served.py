# SPDX-License-Identifier: Apache-2.0
"""'picket serve --engine fake' with a real 'picket node', and a client that holds every answer to
docs/api/openapi.json."""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile

import jsonschema

from standin import StandIns
from whole import PICKET, ROOT, wait_for

SEEN = set()  # operations that answered with success
OPENAPI = json.loads((ROOT / "docs/api/openapi.json").read_text())


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=60):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def operation_of(method, path):
    """The description of the call: its path with the parameters as names."""
    bare = path.split("?")[0]
    for template, operations in OPENAPI["paths"].items():
        pattern = re.sub(r"\{\w+\}", "[^/]+", template)
        if re.fullmatch(pattern, bare) and method.lower() in operations:
            return operations[method.lower()]
    return None


def check_schema(schema, value):
    jsonschema.Draft202012Validator({**schema, "components": OPENAPI["components"]}).validate(value)


def check_answer(method, path, status, content_type, body):
    """Fails unless the answer is what openapi.json says; returns the body, parsed where it is JSON."""
    operation = operation_of(method, path)
    if operation is None:
        assert status in (404, 405), f"{method} {path} answers {status} but is not described"
        described = OPENAPI["components"]["responses"]["Error"]
    else:
        described = operation["responses"].get(str(status))
        if described is None:
            assert status >= 400, f"{method} {path}: {status} is not described"
            described = operation["responses"]["default"]
        if "$ref" in described:
            described = OPENAPI["components"]["responses"][described["$ref"].rsplit("/", 1)[1]]
    if operation is not None and status < 400:
        SEEN.add(operation["operationId"])
    kind = content_type.split(";")[0]
    assert kind in described["content"], f"{method} {path}: {status} came as {content_type}"
    schema = described["content"][kind]["schema"]
    if kind == "application/json":
        value = json.loads(body)
        check_schema(schema, value)
        return value
    if kind == "application/x-ndjson":
        values = [json.loads(line) for line in body.splitlines() if line]
        for value in values:
            check_schema(schema, value)
        return values
    return body.decode()


class Served:
    def __init__(self, *serve_options, node=True):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="pk-", dir="/tmp"))
        self.state, self.rundir = self.base / "state", self.base / "run"
        self.serve_options = serve_options
        self.with_node = node
        self.processes = {}
        self.standins = None

    def folders(self):
        return ["--state-dir", str(self.state), "--run-dir", str(self.rundir)]

    def spawn(self, name, *args):
        log = open(self.base / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen([PICKET, *args, *self.folders()], stdout=log, stderr=log,
                                                stdin=subprocess.DEVNULL)
        log.close()

    def answers(self, name):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            try:
                s.connect(str(self.rundir / f"{name}.sock"))
                return True
            except OSError:
                process = self.processes[name]
                assert process.poll() is None, f"{name} ended:\n{self.log(name)}"
                return False

    def log(self, name):
        return (self.base / f"{name}.log").read_text(errors="replace")

    def start_node(self):
        self.spawn("node", "node")
        wait_for("the agent", 20, lambda: self.answers("node"))

    def start_serve(self):
        self.spawn("serve", "serve", "--engine", "fake", *self.serve_options)
        wait_for("the server", 20, lambda: self.answers("serve"))

    def start(self):
        self.rundir.mkdir(parents=True, exist_ok=True)
        if self.with_node:
            self.standins = StandIns(self.state, self.rundir)
            self.start_node()
        self.start_serve()
        return self

    def end(self, name, signum=signal.SIGTERM, seconds=20):
        process = self.processes.pop(name, None)
        if process is None:
            return None
        process.send_signal(signum)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def stop(self):
        try:
            if self.standins is not None:
                self.standins.close()
            for name in list(self.processes):
                self.end(name)
            # Lanes, links, pins: what the agent leaves running on purpose.
            subprocess.run([PICKET, "down", "--purge", "--yes", *self.folders()], capture_output=True, timeout=60)
        finally:
            shutil.rmtree(self.base, ignore_errors=True)

    def raw(self, method, path, body=None, headers=None, timeout=60):
        connection = UnixConnection(self.rundir / "serve.sock", timeout)
        try:
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            connection.close()

    def call(self, method, path, body=None, expect=None, **more):
        status, content_type, data = self.raw(method, path, body, **more)
        value = check_answer(method, path, status, content_type, data)
        if expect is not None:
            assert status == expect, f"{method} {path}: {status} {value}"
        if status >= 400:
            assert value["error"].get("hint"), f"{method} {path}: an error without a hint: {value}"
        return value if expect is not None else (status, value)

    def cli(self, *args, expect=0, stdin=None, env=None, timeout=60):
        done = subprocess.run([PICKET, *map(str, args), *self.folders()], capture_output=True, text=True,
                              timeout=timeout, input=stdin, env={**os.environ, **(env or {})})
        if expect is not None:
            assert done.returncode == expect, f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def write_fleet(self, text, name="fleet.yaml"):
        path = self.base / name
        path.write_text(text)
        return path

    def apply(self, text):
        """Over the API, to the end; returns the journal."""
        plan = self.call("POST", "/v1/plans", {"document": text, "name": "t.yaml"}, expect=200)
        started = self.call("POST", f"/v1/plans/{plan['id']}/apply", {"reason": "test"}, expect=202)
        return self.finish(started)

    def finish(self, started):
        fleet, revision = started["fleet"], started["revision"]
        if revision == 0:
            return None

        def done():
            progress = self.call("GET", f"/v1/fleets/{fleet}/revisions/{revision}/progress?wait=1000", expect=200)
            return progress if progress["outcome"] != "applying" else None
        return wait_for("the apply", 60, done)
