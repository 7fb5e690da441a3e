# SPDX-License-Identifier: Apache-2.0
"""What 'make demo' takes for its own. It is cut off where it starts picket: the run folder cannot be made."""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not (ROOT / "picket").exists(),
                                reason="the demo needs root and ./picket, which 'make' makes")


def demo(state, what="start"):
    env = {**os.environ, "PICKET_STATE_DIR": str(state), "PICKET_RUN_DIR": "/proc/picket-demo"}
    return subprocess.run([str(ROOT / "tools/demo"), what], env=env, capture_output=True, text=True, timeout=60)


def test_an_instance_of_somebody_is_left_alone(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    (state / "images").mkdir()
    (state / "fleet.db").write_text("theirs")
    for what in ("start", "stop"):
        done = demo(state, what)
        assert done.returncode == 1 and "is not the demo's" in done.stderr, done.stderr
    assert sorted(path.name for path in state.iterdir()) == ["fleet.db", "images"]


@pytest.mark.parametrize("there", [None, "empty", "images"])
def test_images_alone_are_no_instance(tmp_path, there):
    """'picket image build' makes <state>/images, which the demo uses and does not take for its own."""
    state = tmp_path / "state"
    if there is not None:
        state.mkdir()
    if there == "images":
        (state / "images").mkdir()
        (state / "images/suricata-7.json").write_text("{}")
    for _ in range(2):  # the second time it is the demo's
        done = demo(state)
        assert done.returncode != 0 and "is not the demo's" not in done.stderr, done.stderr
        assert "Start picket" in done.stdout
    found = (state / ".demo").read_text().split()
    assert ("images" in found) == (there == "images")
    assert (there == "images") == (state / "images/suricata-7.json").exists()
