# SPDX-License-Identifier: Apache-2.0
"""Modules include only what the table in ARCHITECTURE.md lets them."""
import re

from house import ROOT, files, finish, name


def read_table():
    """module -> set of the modules that it may include"""
    rows = {}
    in_table = False
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        if line.startswith("| module |"):
            in_table = True
        elif in_table and not line.startswith("|"):
            break
        elif in_table and not line.startswith("|--"):
            module, _, uses = [cell.strip() for cell in line.strip("|").split("|")]
            rows[module] = uses
    table = {}
    for module, uses in rows.items():
        if uses == "all":
            table[module] = set(rows)
        elif uses.startswith("all but"):
            table[module] = set(rows) - set(re.split(r"[,\s]+", uses.removeprefix("all but").strip()))
        else:
            table[module] = set(filter(None, re.split(r"[,\s]+", uses)))
        table[module].add(module)
    return table


def main():
    table = read_table()
    faults = []
    checked = 0
    for path in files(".c", ".h", under="src"):
        module = path.relative_to(ROOT / "src").parts[0]
        if module not in table:
            faults.append(f"{name(path)}: module '{module}' has no row in ARCHITECTURE.md")
            continue
        checked += 1
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+"([a-z_]+)/', line)
            if match and match.group(1) in table and match.group(1) not in table[module]:
                faults.append(f"{name(path)}:{number}: '{module}' may not include "
                              f"'{match.group(1)}' (see the table in ARCHITECTURE.md)")
    folders = {p.name for p in (ROOT / "src").iterdir() if p.is_dir() and any(p.iterdir())}
    faults += [f"ARCHITECTURE.md: module '{m}' is not in src/" for m in set(table) - folders]
    finish(faults, checked)


main()
