# SPDX-License-Identifier: Apache-2.0
"""What fetches something names no host: mirrors and registries are settings of the machine that builds."""
import re

from house import files, finish, is_text, name

FETCHES = re.compile(r"^(Makefile|meson\.build|\.ci/.*|tools/.*|packaging/.*|src/catalog/image.*|catalog/[^/]+/image\.yaml)$")
URL = re.compile(r"\b(?:https?|ftp|git|docker)://([A-Za-z0-9][A-Za-z0-9.-]*)")
HERE = re.compile(r"^(127\.|localhost$)|\.example$")


def main():
    faults = []
    paths = [p for p in files() if FETCHES.match(name(p)) and is_text(p)]
    for path in paths:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            for host in URL.findall(line):
                if not HERE.search(host):
                    faults.append(f"{name(path)}:{number}: names the host {host}")
    finish(faults, len(paths))


main()
