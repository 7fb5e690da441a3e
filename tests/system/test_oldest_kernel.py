# SPDX-License-Identifier: Apache-2.0
"""The broker on the kernel of this Debian release, the oldest that it supports, in a virtual machine."""
import os
import platform
import shutil
import subprocess

import pytest

from conftest import ROOT

TOOLS = ["qemu-system-x86_64", "busybox", "cpio", "depmod"]


@pytest.fixture(scope="module")
def kernel():
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing or platform.machine() != "x86_64":
        pytest.skip(f"not here: {', '.join(missing) or 'x86_64'}")
    if not (ROOT / "build/tests/unit/broker").is_dir():
        pytest.skip("the unit tests are not built")
    fetched = subprocess.run([ROOT / "tools/fetch-kernel"], capture_output=True, text=True, timeout=300)
    if fetched.returncode != 0:
        pytest.skip(f"no kernel to be had: {fetched.stderr.strip()}")
    return fetched.stdout.strip()


# What needs more of the machine than programs and links, or only repeats them slowly.
@pytest.mark.parametrize("program", ["test_broker_plane", "test_broker_equal"])
def test_broker(kernel, program):
    run = subprocess.run([ROOT / "tools/on-kernel", kernel, "--timeout", "1500", "--",
                          ROOT / "build/tests/unit/broker" / program],
                         capture_output=True, text=True, timeout=1600, cwd=ROOT,
                         env={**os.environ, "CMOCKA_MESSAGE_OUTPUT": "STDOUT"})
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "SKIP" not in run.stdout and "on-kernel-status: 0" in run.stdout, run.stdout[-3000:]
