# SPDX-License-Identifier: Apache-2.0
"""What the checks of the house share: the project's files, and how faults are told."""
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(os.environ.get("PICKET_SOURCE", pathlib.Path(__file__).parents[2])).resolve()
SKIPPED = 77  # Meson's exit status for a skipped test
NOT_OURS = ("build", "deps", "node_modules", ".git", "__pycache__", ".pytest_cache")


def files(*suffixes, under=""):
    """The files that git tracks or would track; outside a repository, all but built ones."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=False)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [p for p in ROOT.rglob("*")
                 if not any(part.startswith(NOT_OURS) for part in p.relative_to(ROOT).parts)]
    paths = sorted(p for p in paths if p.is_file() and not p.is_symlink())
    base = ROOT / under
    return [p for p in paths if p.is_relative_to(base) and (not suffixes or p.suffix in suffixes)]


def name(path):
    return str(path.relative_to(ROOT))


def is_text(path):
    return b"\0" not in path.read_bytes()[:8192]


def need(tool):
    """The tool's path, or the whole check is skipped."""
    found = shutil.which(tool)
    if found is None:
        print(f"skipped: {tool} is not installed")
        sys.exit(SKIPPED)
    return found


def finish(faults, checked):
    for fault in faults:
        print(fault)
    print(f"{checked} checked, {len(faults)} faults")
    sys.exit(1 if faults or checked == 0 else 0)
