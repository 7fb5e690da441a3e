# SPDX-License-Identifier: Apache-2.0
"""Functions that picket does not call, with the files that may."""
import re

from house import files, finish, name

HEAP = "use base/alloc.h"
BANNED = {
    "strcpy": "use snprintf or pk_buf", "strcat": "use pk_buf", "strncpy": "use snprintf",
    "strncat": "use pk_buf", "sprintf": "use snprintf", "vsprintf": "use vsnprintf",
    "strtok": "use strtok_r", "gets": "use fgets",
    "sscanf": "use base/str.h", "fscanf": "use base/str.h", "scanf": "use base/str.h",
    "atoi": "use base/str.h", "atol": "use base/str.h", "atoll": "use base/str.h",
    "atof": "use base/str.h", "strtol": "use base/str.h", "strtoll": "use base/str.h",
    "strtoul": "use base/str.h", "strtoull": "use base/str.h", "strtod": "use base/str.h",
    "system": "use base/proc.h", "popen": "use base/proc.h", "tmpnam": "use mkostemp",
    "tempnam": "use mkostemp", "mktemp": "use mkostemp", "rand": "use randombytes_buf",
    "random": "use randombytes_buf", "localtime": "use base/time.h", "ctime": "use base/time.h",
    "asctime": "use base/time.h", "gmtime": "use gmtime_r", "strerror": "use strerror_r",
    "malloc": HEAP, "calloc": HEAP, "realloc": HEAP, "reallocarray": HEAP, "strdup": HEAP,
    "strndup": HEAP, "asprintf": HEAP, "vasprintf": HEAP, "free": HEAP, "alloca": HEAP,
}
# What stands for the banned thing itself, and what other libraries hand over to be released.
ALLOWED = {
    "src/base/alloc.c": {"malloc", "calloc", "realloc", "free"},
    "src/base/str.c": {"strtod"},
    "src/catalog/image_debian.c": {"sscanf"},  # what apt prints, with bounded widths
    "src/node/links.c": {"sscanf"},  # the kernel's own text, with bounded widths
    "src/node/netns.c": {"sscanf"},
    "src/ship/scan.c": {"atoi"},  # digits in paths of our own table of columns
    "src/cli/cmd_replay.c": {"free"},  # of realpath(3)
}
# Tests may use more of the C library: their input is their own.
NOT_IN_TESTS = {"sprintf", "vsprintf", "gets", "system", "popen", "tmpnam", "tempnam", "mktemp"}
# Members of structures called "free" and the like, and names that only look alike, do not count.
CALL = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")


def code_of(text):
    """The text without comments and literals; lines keep their numbers."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def main():
    faults = []
    paths = files(".c", ".h", under="src") + files(".c", ".h", under="tests")
    for path in paths:
        allowed = ALLOWED.get(name(path), set())
        code = code_of(path.read_text())
        for match in CALL.finditer(code):
            function = match.group(1)
            number = code.count("\n", 0, match.start()) + 1
            if name(path).startswith("tests/") and function not in NOT_IN_TESTS:
                continue
            if function not in allowed:
                faults.append(f"{name(path)}:{number}: {function}(): {BANNED[function]}")
    finish(faults, len(paths))


main()
