# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures of the system tests: the built program, and an instance in folders of its own."""
import ctypes
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="session")
def picket():
    path = pathlib.Path(os.environ.get("PICKET", ROOT / "build/src/cli/picket"))
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return str(path)


def wait_until(condition, seconds=10, what="a condition"):
    """Polls until condition() is true; its value is returned."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}; last: {value!r}"
        time.sleep(0.02)


def in_netns(path, function):
    """Runs function in a network namespace, on a thread that ends with it."""
    result = {}

    def body():
        try:
            with open(path, "rb") as handle:
                if LIBC.setns(handle.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {path}")
            result["value"] = function()
        except BaseException as fault:  # handed to the caller
            result["fault"] = fault

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if "fault" in result:
        raise result["fault"]
    return result["value"]


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Refused(AssertionError):
    """An answer of the API that is an error."""

    def __init__(self, status, error):
        super().__init__(f"{status} {error}")
        self.status, self.error = status, error


class Instance:
    """The agent of an instance of its own. What it made is gone after close()."""

    def __init__(self, picket):
        self.picket = picket
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="pkt-", dir="/tmp"))
        self.state, self.run = self.base / "state", self.base / "run"
        self.tag = "pk" + hashlib.sha256(str(self.run).encode()).hexdigest()[:4]
        self.agent = None
        self.log = self.base / "node.log"

    def command(self, *args):
        return [self.picket, "--state-dir", str(self.state), "--run-dir", str(self.run), *map(str, args)]

    def start(self):
        with open(self.log, "ab") as log:
            self.agent = subprocess.Popen(self.command("node"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def answers():
            assert self.agent.poll() is None, f"the agent ended: {self.log.read_text()}"
            try:
                return self.get("/v1/node")["pid"] == self.agent.pid
            except (OSError, http.client.HTTPException):
                return False

        wait_until(answers, 20, "the agent to answer")
        return self

    def stop(self, signo=signal.SIGTERM):
        agent, self.agent = self.agent, None
        if agent is not None:
            agent.send_signal(signo)
            return agent.wait(timeout=20)
        return None

    def call(self, method, path, body=None):
        connection = UnixConnection(str(self.run / "node.sock"))
        try:
            text = None if body is None else body if isinstance(body, (str, bytes)) else json.dumps(body)
            connection.request(method, path, body=text, headers={"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        parsed = json.loads(data) if data else None
        if answer.status >= 400:
            raise Refused(answer.status, parsed["error"])
        return parsed

    def get(self, path):
        return self.call("GET", path)

    def put(self, path, body):
        return self.call("PUT", path, body)

    def delete(self, path):
        return self.call("DELETE", path)

    def plane(self):
        return self.get("/v1/plane")

    def lane(self, index=0, group="g"):
        return next(x for x in self.plane()["lanes"] if x["group"] == group and x["index"] == index)

    def tap(self, name="t"):
        return next(x for x in self.plane()["taps"] if x["name"] == name)

    # what there is of it in the kernel
    def links(self):
        return sorted(n for n in os.listdir("/sys/class/net") if n.startswith(self.tag))

    def namespaces(self):
        try:
            return sorted(n for n in os.listdir("/run/netns") if n.startswith(self.tag))
        except FileNotFoundError:
            return []

    def mounts(self):
        return [x for x in pathlib.Path("/proc/self/mounts").read_text().splitlines() if str(self.run) in x]

    def close(self):
        try:
            if self.agent is None and (self.links() or self.namespaces()):
                self.start()
            if self.agent is not None:
                self.delete("/v1/plane")
                # Ends well, which sanitizers make fail on leaks too.
                assert self.stop() == 0, self.log.read_text()
        finally:
            self.stop(signal.SIGKILL)
            # By hand as well, in case that it was the agent that did not work.
            for name in self.links():
                subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
            for name in self.namespaces():
                subprocess.run(["ip", "netns", "del", name], check=False)
            while (self.run / "bpf").is_mount():
                if subprocess.run(["umount", "-l", str(self.run / "bpf")], check=False).returncode != 0:
                    break
            shutil.rmtree(self.base, ignore_errors=True)


@pytest.fixture
def idle_instance(picket):
    """An instance without a running agent."""
    if os.geteuid() != 0:
        pytest.skip("the agent needs root")
    instance = Instance(picket)
    try:
        yield instance
    finally:
        instance.close()


@pytest.fixture
def instance(idle_instance):
    return idle_instance.start()


@pytest.fixture(scope="module")
def served():
    """An agent and a server, for all tests of a file."""
    from served import Served
    running = Served()
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="session")
def suricata_image(picket):
    """Suricata's image, built once from the package's recipe; without what that takes the test is skipped."""
    if os.geteuid() != 0:
        pytest.skip("building images needs root")
    for program in ("podman", "mmdebstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with tempfile.TemporaryDirectory(prefix="pkt-image-") as base:
        done = subprocess.run(
            [picket, "--state-dir", f"{base}/state", "--run-dir", f"{base}/run", "image", "build", "suricata"],
            capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
