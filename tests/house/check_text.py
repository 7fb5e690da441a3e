# SPDX-License-Identifier: Apache-2.0
"""Each file: a licence line, no tabs or blanks at line ends, one line feed at the end, not too long."""
import re

from house import ROOT, files, finish, is_text, name

CODE = {".c", ".h", ".py", ".sh", ".build"}
MAX_LINES = 1000
# Made by others, or meant to be odd.
EXEMPT = ("LICENSE", "tests/fuzz/corpus/", "tests/data/", "catalog/")
TABS = {"Makefile"}


def main():
    faults = []
    checked = 0
    for path in files():
        where = name(path)
        if where.startswith(EXEMPT) or not is_text(path) or path.suffix in {".json", ".svg"}:
            continue
        checked += 1
        text = path.read_text()
        lines = text.splitlines()
        script = text.startswith("#!")
        if path.suffix in CODE or script:
            head = "\n".join(lines[:2 if script else 1])
            if "SPDX-License-Identifier: " not in head:
                faults.append(f"{where}:1: no SPDX-License-Identifier line")
            wanted = "GPL-2.0-only OR Apache-2.0" if ".bpf." in path.name else "Apache-2.0"
            if "SPDX-License-Identifier: " in head and wanted not in head:
                faults.append(f"{where}:1: the licence here is {wanted}")
        if path.suffix in CODE and len(lines) > MAX_LINES:
            faults.append(f"{where}: {len(lines)} lines; split it ({MAX_LINES} at most)")
        if text and not text.endswith("\n"):
            faults.append(f"{where}:{len(lines)}: no line feed at the end")
        if text.endswith("\n\n"):
            faults.append(f"{where}:{len(lines)}: empty lines at the end")
        for number, line in enumerate(lines, 1):
            if "\t" in line and path.name not in TABS:
                faults.append(f"{where}:{number}: a tab")
            if line.endswith((" ", "\t")):
                faults.append(f"{where}:{number}: blanks at the end of the line")
            if path.suffix in {".c", ".h"} and re.search(r"(^|[^:\"'])//", line) and \
                    not re.search(r'["\'].*//.*["\']', line) and "*" not in line and "SPDX" not in line:
                faults.append(f"{where}:{number}: a // comment; write /* */")
    assert ROOT.is_dir()
    finish(faults, checked)


main()
