"""The log file has everything, whatever the terminal shows."""

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
    assert len(re.findall(r"^    .*FrameError: nix.fits: it cannot be read", text, re.M)) == 2


def test_a_rebuild_has_a_log_as_well(group, tmp_path):
    assert zm("build", *group, "-o", tmp_path / "t.fits", "-q").exit_code == 0
    words = ["--inputs", group[0].parent, "--verify", "--log-file", tmp_path / "l"]
    assert zm("rebuild", tmp_path / "t.fits", *words).exit_code == 0
    assert "MT_COVERAGE: propagate_mask=True" in (tmp_path / "l").read_text()


def test_no_frame_becomes_a_log(group, tmp_path):
    frame = tmp_path / "frame.log"
    frame.write_bytes(group[0].read_bytes())
    for place, what in ((frame, "this is a FITS file"), (tmp_path / "no/where", "cannot be written"),
                        (tmp_path, "directory")):  # fmt: skip
        done = zm("build", *group, "-o", tmp_path / "t.fits", "--log-file", place)
        assert done.exit_code == 2
        assert what in done.stderr
    assert frame.read_bytes() == group[0].read_bytes()
    assert not (tmp_path / "t.fits").exists()
