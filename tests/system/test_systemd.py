# SPDX-License-Identifier: Apache-2.0
"""The systemd units, as far as they can be checked where systemd is not process 1."""
import re
import shutil
import subprocess

import pytest

from whole import ROOT

UNITS = [path for kind in ("service", "socket", "mount") for path in sorted((ROOT / "packaging/systemd").glob(f"*.{kind}"))]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_units_are_valid(tmp_path):
    for unit in UNITS:
        # The program need not be installed for this.
        text = re.sub(r"=(-?)(@bindir@|/usr/bin)/(picket|podman) ", r"=\1/bin/true ", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())],
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_the_agent_stays_in_the_hosts_mount_namespace():
    """Any of these would hide the network namespaces that it mounts from Podman."""
    text = (ROOT / "packaging/systemd/picket-node.service").read_text()
    settings = {line.split("=")[0] for line in text.splitlines() if "=" in line and not line.startswith("#")}
    assert not settings & {"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "ProtectKernelTunables",
                           "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ReadWritePaths",
                           "ReadOnlyPaths", "InaccessiblePaths", "BindPaths", "PrivateMounts", "RootDirectory",
                           "MountFlags", "ProtectProc", "TemporaryFileSystem", "StateDirectory"}
