# SPDX-License-Identifier: Apache-2.0
"""Images whose builder stage begins with a base image: from a registry of our own, and without any."""
import json
import os
import shutil
import socket
import subprocess

import pytest

from whole import PICKET, ROOT, wait_for

IMAGE, BASE = f"localhost/picket-test/tree-{os.getpid()}:2", f"picket-test/base-{os.getpid()}:1"
MANIFEST = f"""apiVersion: picket.dev/v1alpha1
kind: Package
name: tree
summary: A small program, for tests of images
description: Lists folders.
homepage: https://example.org
license: GPL-2.0-or-later
roles: [lane]
defaultVersion: "2"
defaults:
  argv: [/usr/bin/tree]
  configDir: /etc/tree
  logDir: /var/log/tree
  runDir: /run/tree
  stopTimeout: 2s
  pidsMax: 16
  nofile: 64
  tmpfs: 1MiB
versions:
  - {{version: "2", image: "{IMAGE}"}}
"""
RECIPE = f"""apiVersion: picket.dev/v1alpha1
kind: Image
versions:
  - version: "2"
    base: {BASE}
    debian: {{release: bookworm, suites: [bookworm], packages: [tree]}}
    final: {{programs: [/usr/bin/tree], command: [/usr/bin/tree]}}
    check: [/usr/bin/tree, --version]
"""


def run(*command, check=True, timeout=600, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout, **more)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done


class Bench:
    def __init__(self, folder):
        self.folder = folder
        package = folder / "catalog/tree"
        package.mkdir(parents=True)
        (package / "manifest.yaml").write_text(MANIFEST)
        (package / "image.yaml").write_text(RECIPE)
        shutil.copy(ROOT / "tests/data/plans/catalog/sniffer/values.schema.json", package)

    def build(self, *options, check=True, registry=None):
        environment = dict(os.environ, PICKET_CATALOG=str(self.folder / "catalog"))
        environment.pop("PICKET_REGISTRY", None)
        if registry is not None:
            environment["PICKET_REGISTRY"] = registry
        return run(PICKET, "--state-dir", self.folder / "state", "--run-dir", self.folder / "run", "image", "build", "tree", "--force",
                   *options, env=environment, check=check)

    def labels(self):
        return json.loads(run("podman", "image", "inspect", IMAGE).stdout)[0]["Labels"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("building images needs root")
    for program in ("podman", "mmdebstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    try:
        yield Bench(tmp_path_factory.mktemp("images"))
    finally:
        run("podman", "rmi", "--force", IMAGE, check=False)


def registry_program(folder):
    """Debian's docker-registry, unpacked: installed, it would start a service."""
    if shutil.which("docker-registry") is not None:
        return "docker-registry"
    if shutil.which("apt-get") is None or run("apt-get", "download", "docker-registry", cwd=folder, check=False).returncode != 0:
        return None
    run("dpkg-deb", "--extract", next(folder.glob("docker-registry_*.deb")), folder / "unpacked")
    return str(folder / "unpacked/usr/bin/docker-registry")


@pytest.fixture(scope="module")
def registry(bench, tmp_path_factory):
    """HOST:PORT of a registry that has the base image; plain HTTP on loopback."""
    folder = tmp_path_factory.mktemp("registry")
    program = registry_program(folder)
    if program is None:
        pytest.skip("docker-registry is not installed, and apt cannot fetch it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config.yml").write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
                                       f"http: {{addr: \"127.0.0.1:{port}\"}}\n")
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    address = f"127.0.0.1:{port}"
    local = f"localhost/{BASE}"
    try:
        run("mmdebstrap", "--quiet", "--variant=apt", "--mode=root", "--aptopt=Apt::Install-Recommends \"false\"", "bookworm", folder / "base.tar",
            env={**os.environ, "TMPDIR": "/var/tmp"})  # apt drops its rights and must still get in

        def listens():
            assert process.poll() is None, (folder / "log").read_text()
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        wait_for("the registry", 20, listens)
        run("podman", "import", "--quiet", folder / "base.tar", local)
        run("podman", "push", "--quiet", "--tls-verify=false", local, f"{address}/{BASE}")
        run("podman", "rmi", local)
        yield address
    finally:
        process.terminate()
        process.wait(10)
        run("podman", "rmi", "--force", local, f"{address}/{BASE}", check=False)


def containers():
    return run("podman", "ps", "--all", "--format", "{{.Names}}").stdout.split()


def test_from_a_registry(bench, registry):
    done = bench.build("--registry", registry)
    assert f"builder stage: {registry}/{BASE}" in done.stderr and "Debian packages alone" not in done.stderr
    labels = bench.labels()
    assert labels["io.picket.base"] == f"{registry}/{BASE}" and labels["io.picket.release"].startswith("2.")
    assert not [name for name in containers() if name.startswith("picket-build-")]
    # The final stage carries what runs, not the base: no shell, no package manager.
    root = bench.folder / "root"
    archive = bench.folder / "image.tar"
    run("podman", "save", "--format", "docker-archive", "--output", archive, IMAGE)
    root.mkdir()
    run("tar", "-C", root, "-xf", archive)
    layer = json.loads((root / "manifest.json").read_text())[0]["Layers"][-1]
    files = run("tar", "-tf", root / layer).stdout.split()
    assert "usr/bin/tree" in files and len(files) < 60
    assert not [name for name in files if name.endswith(("bin/sh", "bin/apt-get", "bin/dpkg"))]


def test_no_registry_answers(bench):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but nobody listens
        done = bench.build("--registry", f"127.0.0.1:{closed.getsockname()[1]}")
    lines = [line for line in done.stderr.splitlines() if BASE in line]
    assert lines == [f"no registry has {BASE} (connection refused): Debian packages alone"]
    assert bench.labels()["io.picket.base"] == ""


def test_a_registry_that_hangs_is_given_up(bench):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(8)
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        done = bench.build(registry=address)  # PICKET_REGISTRY
        assert "(no answer in 4 s): Debian packages alone" in done.stderr
        # The option goes before the variable, and none asks nobody.
        assert "registry" not in bench.build("--registry", "none", registry=address).stderr


@pytest.mark.parametrize("wrong", ["a b", "http://h", "-h", "h:", "h:99999", "h/x", "[::1", "h:1]\ninsecure = true"])
def test_not_a_registry(bench, wrong):
    done = bench.build(f"--registry={wrong}", check=False)
    assert done.returncode == 2 and "not a registry" in done.stderr and "hint:" in done.stderr
