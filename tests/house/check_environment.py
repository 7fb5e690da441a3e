# SPDX-License-Identifier: Apache-2.0
"""'picket help environment' names each PICKET_ variable that the program reads, and no other."""
import re
import subprocess
import sys

from house import files, finish


def main():
    read = set()
    for path in files(".c", under="src"):
        read |= set(re.findall(r'"(PICKET_[A-Z_]+)"', path.read_text()))
    text = subprocess.run([sys.argv[1], "help", "environment"], capture_output=True, text=True,
                          check=True).stdout
    told = set(re.findall(r"^  (PICKET_[A-Z_]+)", text, re.M))
    faults = [f"{variable} is read but not in 'picket help environment'" for variable in read - told]
    faults += [f"{variable} is in 'picket help environment' but not read" for variable in told - read]
    finish(faults, len(read))


main()
