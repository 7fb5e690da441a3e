# SPDX-License-Identifier: Apache-2.0
"""Shell scripts pass shellcheck; Python compiles."""
import ast
import subprocess

from house import ROOT, files, finish, is_text, name, need


def main():
    tool = need("shellcheck")
    shell, faults = [], []
    python = files(".py")
    for path in files():
        if path.is_file() and is_text(path):
            first = path.read_text(errors="replace").split("\n", 1)[0]
            if first.startswith("#!") and first.split("/")[-1].split()[-1] in ("sh", "bash"):
                shell.append(path)
            elif first.startswith("#!") and "python" in first and path.suffix != ".py":
                python.append(path)
    if shell:
        done = subprocess.run([tool, "-f", "gcc", *shell], cwd=ROOT, capture_output=True, text=True,
                              check=False)
        faults += [line.replace(f"{ROOT}/", "") for line in done.stdout.splitlines()]
    for path in python:
        try:
            ast.parse(path.read_text(), str(path))
        except SyntaxError as fault:
            faults.append(f"{name(path)}:{fault.lineno}: {fault.msg}")
    finish(faults, len(shell) + len(python))


main()
