# SPDX-License-Identifier: Apache-2.0
"""All C files are as clang-format 14 leaves them."""
import subprocess

from house import ROOT, files, finish, need


def main():
    tool = need("clang-format-14")
    paths = files(".c", ".h", under="src") + files(".c", ".h", under="tests")
    done = subprocess.run([tool, "--dry-run", "-Werror", *paths], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    faults = sorted({line.replace(f"{ROOT}/", "") for line in done.stderr.splitlines()
                     if "error:" in line})
    if faults:
        faults.append("run: clang-format-14 -i FILE")
    finish(faults, len(paths))


main()
