# SPDX-License-Identifier: Apache-2.0
"""As the systemd units have it: agent and Podman as root, serve and ship as a user without any rights. Sensors
then run as that user too, with NET_RAW and nothing else."""
import grp
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess

import pytest

from whole import PICKET, ROOT, Whole, fleet_text, make_traffic, wait_for

NET_RAW = 1 << 13
# What 'picket up' writes for machines without systemd; with it, cgroupfs works for a test as well.
CONTAINERS_CONF = """[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


@pytest.fixture(scope="module")
def user():
    """A system user made for the test, gone at its end."""
    if os.geteuid() != 0:
        pytest.skip("making a user needs root")
    if shutil.which("useradd") is None or shutil.which("setpriv") is None:
        pytest.skip("useradd or setpriv is not installed")
    name = f"pktest{os.getpid()}"
    subprocess.run(["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
                    "--shell", "/usr/sbin/nologin", name], check=True, capture_output=True)
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


class Split(Whole):
    """An instance whose processes are started one by one, as systemd would."""

    def __init__(self, user):
        super().__init__()
        self.user, self.group = user, grp.getgrgid(user.pw_gid).gr_name
        self.processes = {}
        self.base.chmod(0o755)
        self.program = self.install()
        # packaging/systemd/picket.tmpfiles.conf
        self.rundir.mkdir()
        os.chown(self.rundir, 0, user.pw_gid)
        self.rundir.chmod(0o770)
        self.state.mkdir()
        os.chown(self.state, user.pw_uid, user.pw_gid)
        self.state.chmod(0o750)

    def install(self):
        """The program with what it needs where any user may read it: the source tree may be root's alone."""
        prefix = self.base / "prefix"
        (prefix / "bin").mkdir(parents=True)
        (prefix / "lib/picket").mkdir(parents=True)
        shutil.copy(PICKET, prefix / "bin/picket")
        shutil.copytree(ROOT / "catalog", prefix / "share/picket/catalog")
        duckdb = os.environ.get("PICKET_DUCKDB") or next((ROOT / "deps").glob("node_modules/@duckdb/*/libduckdb.so"), None)
        assert duckdb, "libduckdb.so is not there: run tools/fetch-duckdb"
        duckdb = pathlib.Path(duckdb)
        shutil.copy(duckdb / "libduckdb.so" if duckdb.is_dir() else duckdb, prefix / "lib/picket/libduckdb.so")
        return str(prefix / "bin/picket")

    def spawn(self, name, command, **more):
        with open(self.base / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more)

    def picket(self, *args):
        return [self.program, *args, "--state-dir", str(self.state), "--run-dir", str(self.rundir)]

    def as_user(self, *args):
        return ["setpriv", "--reuid", self.user.pw_name, "--regid", self.group, "--init-groups", "--no-new-privs",
                "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", *self.picket(*args)]

    def answers(self, name):
        path = self.rundir / f"{name}.sock"

        def there():
            assert self.processes[name].poll() is None, f"{name} ended: {(self.base / f'{name}.log').read_text()}"
            return path.exists()

        wait_for(f"the socket of {name}", 20, there)

    def up(self):
        conf = self.rundir / "containers.conf"
        conf.write_text(CONTAINERS_CONF)
        # picket-podman.socket: a listening socket is handed over as file descriptor 3.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            path = self.rundir / "podman.sock"
            listener.bind(str(path))
            os.chown(path, 0, self.user.pw_gid)
            path.chmod(0o660)
            listener.listen(64)
            self.spawn("podman", ["sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec podman system service --time=0"],
                       preexec_fn=lambda: os.dup2(listener.fileno(), 3, inheritable=True), close_fds=False,
                       env={**os.environ, "CONTAINERS_CONF": str(conf)})
        self.spawn("node", self.picket("node", f"--group={self.group}"), umask=0o027)
        self.answers("node")
        self.spawn("serve", self.as_user("serve", f"--group={self.group}"), umask=0o027)
        self.answers("serve")
        self.spawn("ship", self.as_user("ship", "--keep", "1s"), umask=0o027)

    def end(self, name):
        process = self.processes.pop(name, None)
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def down(self):
        try:
            self.run("delete", "u", "--yes", check=False)
            self.end("serve")
            self.end("ship")
            self.run("down", "--purge", "--yes", check=False)
        finally:
            for name in list(self.processes):
                self.end(name)
            shutil.rmtree(self.base, ignore_errors=True)


@pytest.fixture(scope="module")
def split(user, suricata_image):
    instance = Split(user)
    try:
        instance.up()
        instance.apply(fleet_text("u", lanes=2))
        yield instance
    finally:
        instance.down()


def tools(split):
    return [tool for lane in split.status("u")["groups"][0]["lanes"] for tool in lane["tools"]]


def converged(split):
    status = split.status("u")
    return status if status["state"] == "converged" and all(tool["state"] == "running" for tool in tools(split)) else None


def proc_status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.split() for key, value in (line.split(":", 1) for line in lines)}


def test_rights(split, user):
    """Who everything runs as, and what it may do."""
    wait_for("a converged fleet", 60, lambda: converged(split))
    for name in ("serve", "ship"):
        status = proc_status(split.processes[name].pid)
        assert set(status["Uid"]) == {str(user.pw_uid)} and set(status["Gid"]) == {str(user.pw_gid)}
        assert all(int(status[key][0], 16) == 0 for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
        assert status["NoNewPrivs"] == ["1"]
    for tool in tools(split):
        status = proc_status(tool["pid"])
        assert set(status["Uid"]) == {str(user.pw_uid)} and set(status["Gid"]) == {str(user.pw_gid)}
        assert all(int(status[key][0], 16) == NET_RAW for key in ("CapPrm", "CapEff", "CapBnd", "CapAmb"))
        assert status["NoNewPrivs"] == ["1"] and status["Seccomp"] == ["2"]


def test_events_come_back(split, user, tmp_path):
    capture = make_traffic(tmp_path / "t.pcap", "--flows", 300, "--seed", 5)
    wait_for("a converged fleet", 60, lambda: converged(split))
    replay = split.json("replay", capture, "--tap", "u/wire", "--pps", 3000, timeout=120)
    assert replay["sent"] > 0 and replay["failed"] == 0
    wait_for("alerts of both lanes", 30, lambda: {event["lane"] for event in split.events("type:alert", fleet="u")} == {0, 1})
    logs = list(split.state.glob("units/*/log/eve-*.json"))
    assert logs and all(path.stat().st_uid == user.pw_uid for path in logs)


def test_a_killed_tool_comes_back(split):
    wait_for("a converged fleet", 60, lambda: converged(split))
    before = tools(split)
    os.kill(before[0]["pid"], signal.SIGKILL)

    def again():
        after = tools(split)
        return after if after[0]["pid"] not in (0, before[0]["pid"]) and after[0]["state"] == "running" else None

    after = wait_for("another process", 60, again)
    assert after[0]["restarts"] == before[0]["restarts"] + 1 and after[1]["pid"] == before[1]["pid"]
    wait_for("a converged fleet", 60, lambda: converged(split))


def test_delete_leaves_nothing(split):
    def left():
        return [path.name for path in [*split.state.glob("units/*/log/eve*"), *split.state.glob("ship/hold/*")]]

    split.run("delete", "u", "--yes")
    listed = subprocess.run(["podman", "ps", "--all", "--format", "{{.Names}}"], capture_output=True, text=True, check=True,
                            env={**os.environ, "CONTAINERS_CONF": str(split.rundir / "containers.conf")}).stdout
    assert "-u-analysis-" not in listed
    assert not list(pathlib.Path("/run/netns").glob("pk*-u-analysis-*"))
    # The logs go when all that is in them is stored.
    wait_for("logs and pins to go", 60, lambda: not left() or print(left()))
