"""The log file has everything, whatever the terminal shows."""

import gzip
import re

import pytest
from click.testing import CliRunner

from zmtile.cli import cli


def zm(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.mark.parametrize("loudness", ["-q", "-v", "--json"])
def test_the_whole_log_is_in_the_file(group, tmp_path, loudness):
    log = tmp_path / "build.log"
    done = zm("build", *group, "-o", tmp_path / "t.fits", "--log-file", log, loudness)
    assert done.exit_code == 0, done.output
    text = log.read_text()
    assert re.search(r"^\S+Z DEBUG +MT_COVERAGE: propagate_mask=True$", text, re.M)
    assert ("MT_COVERAGE" in done.stderr) == (loudness == "-v")
    for stage in ("read", "measure", "register", "match", "stack", "write"):
        assert re.search(rf"DEBUG +{stage}: \d", text)
    assert "INFO    reference: light_000" in text
    lines = text.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ +\S", line) for line in lines)
    assert re.search("zmtile .*: ", lines[0])
    assert "ended after" in lines[-1]


def test_runs_follow_each_other_and_failures_are_told(group, tmp_path):
    log = tmp_path / "build.log"
    for _ in range(2):
        done = zm("build", *group, "-o", tmp_path / "t.fits", "--log-file", log, "--dark", "nix.fits", "-q")
        assert done.exit_code == 2
    text = log.read_text()
    assert len(re.findall("^.* ERROR +failed after", text, re.M)) == 2
    assert len(re.findall(r"^    .*FrameError: nix.fits: no such file", text, re.M)) == 2


def test_a_rebuild_has_a_log_as_well(group, tmp_path):
    assert zm("build", *group, "-o", tmp_path / "t.fits", "-q").exit_code == 0
    words = ["--inputs", group[0].parent, "--verify", "--log-file", tmp_path / "l"]
    assert zm("rebuild", tmp_path / "t.fits", *words).exit_code == 0
    assert "MT_COVERAGE: propagate_mask=True" in (tmp_path / "l").read_text()


@pytest.mark.parametrize("kind", ["frame", "packed frame", "list", "options", "picture", "other log"])
def test_nothing_but_a_log_is_continued(group, tmp_path, kind):
    path = tmp_path / "kept"
    content = {
        "frame": group[0].read_bytes(),
        "packed frame": gzip.compress(group[0].read_bytes()),
        "list": "".join(f"{frame}\n" for frame in group).encode(),
        "options": b"[build]\ngrow = 3\n",
        "picture": b"\x89PNG\r\n\x1a\n",
        "other log": b"2026-01-01T00:00:00.000Z DEBUG   another program 1.0: build\n",
    }[kind]
    path.write_bytes(content)
    words = {"list": [f"@{path}"], "options": [*group, "--config", path]}.get(kind, [*group, path])
    done = zm("build", *words, "-o", tmp_path / "t.fits", "--log-file", path)
    assert (done.exit_code, "kept: this file is no log of zmtile" in done.stderr) == (2, True)
    assert path.read_bytes() == content
    assert not (tmp_path / "t.fits").exists()


def test_an_empty_file_becomes_a_log(group, tmp_path):
    (tmp_path / "l").touch()
    done = zm("build", *group, "-o", tmp_path / "t.fits", "--log-file", tmp_path / "l", "--dry-run")
    assert (done.exit_code, "ended after" in (tmp_path / "l").read_text()) == (0, True)


def test_a_place_that_cannot_hold_a_log_is_refused(group, tmp_path):
    for place, what in ((tmp_path / "no/where", "cannot be written"), (tmp_path, "directory")):
        done = zm("build", *group, "-o", tmp_path / "t.fits", "--log-file", place)
        assert (done.exit_code, what in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
