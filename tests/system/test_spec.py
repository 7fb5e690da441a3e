# SPDX-License-Identifier: Apache-2.0
"""picket spec and picket catalog: what goes to which stream, exit statuses, files that are kept."""
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BAD = sorted((ROOT / "tests/data/bad-fleets").glob("*.yaml"))


def run(picket, *args, text=None, **extra):
    env = dict(os.environ, PICKET_CATALOG=str(ROOT / "catalog"), NO_COLOR="1", **extra)
    return subprocess.run([picket, *args], input=text, capture_output=True, text=True, env=env,
                          timeout=60, errors="replace")


def test_example_is_valid_and_formats_to_itself(picket, tmp_path):
    example = run(picket, "spec", "example")
    assert example.returncode == 0 and example.stderr == ""
    path = tmp_path / "fleet.yaml"
    path.write_text(example.stdout)
    checked = run(picket, "spec", "check", str(path))
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
    assert "fleet border is valid" in checked.stdout
    once = run(picket, "spec", "fmt", str(path)).stdout
    twice = run(picket, "spec", "fmt", "-", text=once).stdout
    assert once == twice != ""


def test_write_keeps_files_with_comments(picket, tmp_path):
    path = tmp_path / "fleet.yaml"
    path.write_text(run(picket, "spec", "example").stdout)
    before = path.read_text()
    refused = run(picket, "spec", "fmt", "--write", str(path))
    assert refused.returncode == 2 and "comments" in refused.stderr and "hint:" in refused.stderr
    assert path.read_text() == before
    done = run(picket, "spec", "fmt", "--write", "--drop-comments", str(path))
    assert done.returncode == 0, done.stderr
    assert "#" not in path.read_text()
    assert run(picket, "spec", "check", str(path)).returncode == 0


@pytest.mark.parametrize("path", BAD, ids=[p.stem for p in BAD])
def test_bad_fleets(picket, path):
    wants = [line[8:] for line in path.read_text(errors="replace").splitlines()
             if line.startswith("# want: ")]
    assert wants
    checked = run(picket, "spec", "check", str(path))
    assert checked.returncode == 2
    assert checked.stdout == ""
    assert "hint:" in checked.stderr
    for want in wants:
        position, message = want.split(": ", 1)
        assert any(f"{path}:{position}: " in line and message in line
                   for line in checked.stderr.splitlines()), checked.stderr


def test_check_as_json(picket):
    good, bad = ROOT / "tests/data/fleets/demo.yaml", ROOT / "tests/data/bad-fleets/lanes-many.yaml"
    checked = run(picket, "spec", "check", "-o", "json", str(good), str(bad))
    assert checked.returncode == 2
    files = json.loads(checked.stdout)["files"]
    assert [f["valid"] for f in files] == [True, False]
    fault = files[1]["errors"][0]
    assert (fault["code"], fault["line"], fault["column"]) == ("invalid", 11, 14)
    assert fault["hint"]


def test_shipped_examples_are_valid(picket):
    examples = sorted((ROOT / "examples").glob("*.yaml"))
    assert examples
    checked = run(picket, "spec", "check", *map(str, examples))
    assert checked.returncode == 0, checked.stderr


def test_schema_is_json(picket):
    schema = json.loads(run(picket, "spec", "schema").stdout)
    assert schema["$schema"].endswith("/draft/2020-12/schema")
    assert schema["additionalProperties"] is False


def test_catalog(picket):
    packages = json.loads(run(picket, "catalog", "list", "-o", "json").stdout)
    assert "suricata" in [p["name"] for p in packages]
    shown = run(picket, "catalog", "show", "suricata")
    assert shown.returncode == 0 and "suricata@7" in shown.stdout and "NET_RAW" in shown.stdout
    values = run(picket, "catalog", "values", "suricata")
    assert values.returncode == 0 and "home-net" in values.stdout
    schema = json.loads(run(picket, "catalog", "values", "suricata", "-o", "json").stdout)
    assert "home-net" in schema["properties"]
    unknown = run(picket, "catalog", "show", "surikata")
    assert unknown.returncode == 3 and 'did you mean "suricata"?' in unknown.stderr


def test_broken_package_is_told_and_left_out(picket, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "manifest.yaml").write_text("apiVersion: picket.dev/v1alpha1\nkind: Package\nnam: broken\n")
    env = f"{tmp_path}:{ROOT / 'catalog'}"
    listed = subprocess.run([picket, "catalog", "list"], capture_output=True, text=True, timeout=60,
                            env=dict(os.environ, PICKET_CATALOG=env))
    assert listed.returncode == 0
    assert "suricata" in listed.stdout and "broken" not in listed.stdout
    assert f"{broken}/manifest.yaml:3:1: unknown key \"nam\"" in listed.stderr
    assert 'did you mean "name"?' in listed.stderr
