# SPDX-License-Identifier: Apache-2.0
"""Each header compiles alone and has the guard of its path."""
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

from house import ROOT, files, finish, name


# Shared by the BPF programs and user space: each brings its own memory of fragments and of tenants first.
NOT_ALONE = {"src/packet/decide.h", "src/packet/tenant.h"}


def flags_of(build):
    """Folders of headers and definitions, as the build itself uses them."""
    flags = set()
    for entry in json.loads((build / "compile_commands.json").read_text()):
        words = shlex.split(entry["command"])
        for word in words:
            if word.startswith("-I"):
                path = pathlib.Path(entry["directory"], word[2:]).resolve()
                if path.is_dir() and path != ROOT / "src" / "base":  # its time.h hides the system's
                    flags.add(f"-I{path}")
            elif word.startswith("-D"):
                flags.add(word)
    return sorted(flags)


def main():
    build = pathlib.Path(sys.argv[1])
    flags = flags_of(build)
    compiler = os.environ.get("CC", "cc")
    faults = []
    headers = [h for h in files(".h", under="src") if "bpf" not in h.relative_to(ROOT).parts and name(h) not in NOT_ALONE]
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "all.c")
        for header in headers:
            inside = header.relative_to(ROOT / "src")
            guard = "PICKET_" + re.sub(r"[^A-Z0-9]", "_", str(inside).upper())
            text = header.read_text()
            if f"#ifndef {guard}\n#define {guard}\n" not in text:
                faults.append(f"{name(header)}: the guard is not {guard}")
            source.write_text(f'#include "{inside}"\n#include "{inside}"\n')
            done = subprocess.run(
                [compiler, "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                 f"-I{ROOT / 'src'}", *flags, source], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                faults.append(f"{name(header)}: does not compile alone:\n{done.stderr[:1500]}")
    finish(faults, len(headers))


main()
