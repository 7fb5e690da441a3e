# SPDX-License-Identifier: Apache-2.0
"""Help, manual pages and completion agree, as all come from one table: each command has a summary,
help with its options, a page that mandoc finds nothing wrong with, and completes."""
import pathlib
import re
import subprocess
import sys
import tempfile

from house import finish, need

PICKET = sys.argv[1]


def run(*words):
    done = subprocess.run([PICKET, *words], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=20)
    return done.returncode, done.stdout, done.stderr


def rows(text):
    """The first column of the tables in a help text."""
    return re.findall(r"^  ([a-z][a-z -]*?)(?:  |$)", text, re.M)


def options(text):
    return set(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z-]*)", text, re.M))


def check_command(command, pages, faults):
    status, text, _ = run(*command.split(), "--help")
    if status != 0 or not text.startswith(f"picket {command}: "):
        faults.append(f"picket {command} --help: status {status}: {text[:60]!r}")
    if run("help", *command.split())[1] != text:
        faults.append(f"picket help {command} differs from picket {command} --help")
    if any(len(line) > 100 for line in text.splitlines()):
        faults.append(f"picket {command} --help: a line of more than 100 columns")
    page = pages / f"picket-{command.replace(' ', '-')}.1"
    if not page.is_file():
        faults.append(f"{command}: no manual page")
        return
    in_page = set(re.findall(r"(--[a-z][a-z-]*)", page.read_text().replace("\\-", "-")))
    shown = options(text)
    for option in shown - in_page:
        faults.append(f"{command}: {option} is in the help but not in the manual page")
    completed = {line.split("\t")[0] for line in
                 run("__complete", "--", *command.split(), "--")[1].splitlines()}
    if completed != shown:
        faults.append(f"{command}: completion and help differ: {sorted(completed ^ shown)}")
    status, _, errors = run(*command.split(), "--no-such-option")
    if status != 2 or "no-such-option" not in errors or "hint: " not in errors:
        faults.append(f"{command}: a wrong option gives status {status}: {errors!r}")


def main():
    mandoc = need("mandoc")
    faults = []
    status, overview, _ = run("--help")
    commands = [row for row in rows(overview.split("Topics")[0])
                if not row.startswith("picket ") and row != "picket"]
    if status != 0 or len(commands) < 5:
        faults.append(f"picket --help: status {status}, {len(commands)} commands")
    for topic in rows(overview.split("Topics")[1]):
        if run("help", topic)[0] != 0:
            faults.append(f"picket help {topic} fails")
    with tempfile.TemporaryDirectory() as folder:
        pages = pathlib.Path(folder)
        if run("__man", folder)[0] != 0:
            faults.append("the manual pages cannot be written")
        for command in commands:
            check_command(command, pages, faults)
        made = sorted(pages.glob("*.1"))
        if len(made) != len(commands) + 1:
            faults.append(f"{len(made)} manual pages for {len(commands)} commands")
        lint = subprocess.run([mandoc, "-Tlint", "-Wwarning", *made], capture_output=True,
                              text=True, check=False)
        faults += lint.stdout.splitlines()
    first_words = {command.split()[0] for command in commands}
    completed = {line.split("\t")[0] for line in run("__complete", "--", "")[1].splitlines()}
    if not first_words <= completed:
        faults.append(f"commands that do not complete: {sorted(first_words - completed)}")
    finish(faults, len(commands))


main()
