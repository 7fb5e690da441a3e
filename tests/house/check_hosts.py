# SPDX-License-Identifier: Apache-2.0
"""No file names a package registry, a mirror or a place on one developer's machine: those are settings
of the machine that builds."""
import re

from house import files, finish, is_text, name

# In two parts, so that this file is not at fault itself.
HOSTS = [r"deb\." + r"debian\.org", r"registry\.npm" + r"js\.org", r"py" + r"pi\.org",
         r"files\.python" + r"hosted\.org", r"docker\." + r"io/", r"quay\." + r"io",
         r"gh" + r"cr\.io", r"proxy\.go" + r"lang\.org", r"/work/" + r"(shared|main|wt|scratch|\.)"]
PATTERN = re.compile("|".join(HOSTS))


def main():
    faults = []
    paths = [p for p in files() if is_text(p)]
    for path in paths:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            match = PATTERN.search(line)
            if match:
                faults.append(f"{name(path)}:{number}: names {match.group(0)}")
    finish(faults, len(paths))


main()
