"""`zmtile inspect`: the facts of a tile, its table of frames, its picture."""

import itertools
import json
import math

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from PIL import Image

from zmtile import Options, UsageError, build_tile
from zmtile.cli import cli
from zmtile.looks.facts import SORT_KEYS, facts_of, frame_value, sorted_frames
from zmtile.looks.factsheet import frame_table, picture
from zmtile.looks.skyimage import SkyImage, read_image


@pytest.fixture(scope="module")
def tile(group, tmp_path_factory):
    path = tmp_path_factory.mktemp("inspect") / "master_tile.fits"
    build_tile(group, Options(framing="union")).write(path)
    return path


def zm(*words):
    return CliRunner().invoke(cli, ["inspect", *map(str, words)])


def test_facts_are_those_of_the_tile(tile):
    sky = read_image(tile)
    facts = facts_of(sky)
    assert (facts["rows"], facts["cols"], facts["channels"]) == (*sky.image.shape[1:], 3)
    assert facts["data"] == pytest.approx(np.isfinite(sky.image).mean())
    assert facts["tile"]["used"] == 4
    assert facts["tile"]["exposure"] == 40
    assert facts["tile"]["method"]["rejection"] == "winsor"
    noise = facts["sky"][1]["noise"]
    assert 0.5 * 45 / 2 < noise < 45  # of a mean of four, somewhat smoothed


def test_the_histogram_of_coverage_counts_every_pixel_once(tile):
    sky = read_image(tile)
    parts = facts_of(sky)["tile"]["coverage"]
    assert sum(p["fraction"] for p in parts) == pytest.approx(1)
    assert [(p["from"], p["to"]) for p in parts] == [(n, n) for n in range(5)]
    for part in parts:
        assert part["fraction"] == pytest.approx((sky.coverage == part["from"]).mean())


def test_a_long_histogram_is_told_in_ranges_without_gaps(tile):
    sky = read_image(tile)
    sky.tile.coverage[:] = np.random.default_rng(0).integers(0, 777, sky.tile.coverage.shape)
    parts = facts_of(sky)["tile"]["coverage"]
    assert len(parts) <= 13
    assert parts[0]["from"] == parts[0]["to"] == 0
    assert parts[-1]["to"] == 776
    assert all(a["to"] + 1 == b["from"] for a, b in itertools.pairwise(parts))
    assert sum(p["fraction"] for p in parts) == pytest.approx(1)


@pytest.mark.parametrize("key", SORT_KEYS)
@pytest.mark.parametrize("sign", ["", "-"])
def test_frames_are_sorted_and_none_is_lost(tile, key, sign):
    frames = read_image(tile).tile.frames
    chosen = sorted_frames(frames, sign + key)
    assert {f.name for f in chosen} == {f.name for f in frames}
    values = [frame_value(f, key) for f in chosen]
    assert values == sorted(values, reverse=sign == "-")


def test_unknown_values_come_last(tile):
    from dataclasses import replace

    frames = list(read_image(tile).tile.frames)
    frames[0] = replace(frames[0], fwhm=math.nan)
    assert sorted_frames(frames, "fwhm")[-1] is frames[0]
    assert sorted_frames(frames, "-fwhm")[-1] is frames[0]


def test_only_frames_that_hold_the_rules_are_shown(tile):
    frames = read_image(tile).tile.frames
    middle = np.median([f.fwhm for f in frames])
    chosen = sorted_frames(frames, None, ["fwhm<=1*median", "stars>0"])
    assert {f.name for f in chosen} == {f.name for f in frames if f.fwhm <= middle}


@pytest.mark.parametrize(
    ("sort", "where", "message"),
    [("magic", [], "sorted by"), (None, ["sky>1"], "does not hold"), (None, ["x"], "no rule")],
)
def test_what_frames_do_not_have_is_refused(tile, sort, where, message):
    with pytest.raises(UsageError, match=message):
        sorted_frames(read_image(tile).tile.frames, sort, where)


def test_the_table_has_a_row_for_each_frame_and_keeps_to_the_terminal(tile, monkeypatch):
    frames = read_image(tile).tile.frames
    assert all(f.name in frame_table(frames, "") for f in frames)
    for module in ("looks.factsheet", "richtext"):
        monkeypatch.setattr(f"zmtile.{module}.on_terminal", lambda _: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    narrow = frame_table(frames, frames[0].name)
    assert "…" not in narrow
    assert all(f.name in narrow for f in frames)
    assert f"{frames[0].name}*" in narrow


def test_the_picture_is_blank_where_there_is_no_data(monkeypatch):
    image = np.random.default_rng(0).normal(100, 5, (3, 64, 64)).astype(np.float32)
    image[:, :, :32] = np.nan
    lines = picture(SkyImage("x", image, None, fits.Header()), columns=16).split("\n")
    assert len(lines) == 8
    assert all(line[:8].isspace() and "▀" in line[8:] for line in lines)


def test_text_and_json_tell_the_same(tile):
    text, plain = zm(tile), zm(tile, "--json")
    assert (text.exit_code, plain.exit_code) == (0, 0)
    facts = json.loads(plain.stdout)["tiles"][0]
    assert "4 used" in text.stdout
    assert facts["tile"]["used"] == 4
    assert facts["checksums"] is True
    frames = json.loads(zm(tile, "--frames", "--json").stdout)["tiles"][0]["frames"]
    assert len(frames) == 4
    assert "▀" not in text.stdout  # not on a terminal


def test_a_wrong_checksum_is_said_first(tile, tmp_path):
    path = tmp_path / "changed.fits"
    data = bytearray(tile.read_bytes())
    at = data.index(b"kind of uncertainty")
    data[at : at + 4] = b"KIND"
    path.write_bytes(data)
    result = zm(path)
    assert result.exit_code == 1
    assert result.stdout.split("\n")[1].startswith("DAMAGED")


@pytest.mark.parametrize("plane", ["PRIMARY", "UNCERT", "FRAMES"])
def test_damaged_data_are_said_first(tile, tmp_path, plane):
    data = bytearray(tile.read_bytes())
    with fits.open(tile) as hdus:
        data[hdus[plane].fileinfo()["datLoc"] + 1001] ^= 1
    path = tmp_path / "changed.fits"
    path.write_bytes(data)
    result = zm(path)
    assert result.exit_code == 1
    assert result.stdout.split("\n")[1].startswith("DAMAGED")
    assert plane in result.stdout.split("\n")[1]


def test_a_missing_plane_is_said(tile, tmp_path):
    path = tmp_path / "less.fits"
    with fits.open(tile) as hdus:
        del hdus["REJLOW"]
        hdus.writeto(path)
    result = zm(path)
    assert result.exit_code == 2
    assert "it has no REJLOW" in result.stderr


def test_images_of_other_programs_tell_what_they_can(tmp_path):
    path = tmp_path / "other.fits"
    fits.writeto(path, np.random.default_rng(0).normal(100, 5, (40, 50)), fits.Header({"OBJECT": "M 94"}))
    result = zm(path)
    assert result.exit_code == 0
    assert "M 94" in result.stdout
    assert zm(path, "--frames").exit_code == 2


def test_sorting_without_the_table_is_refused(tile):
    assert zm(tile, "--sort", "fwhm").exit_code == 2


def test_that_no_frame_holds_a_rule_is_said(tile):
    result = zm(tile, "--frames", "--where", "fwhm>99")
    assert result.exit_code == 0
    assert result.stdout.strip() == f"{tile}: no frame holds fwhm>99"


def test_a_picture_is_refused_in_plain_words(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    result = zm(tmp_path / "x.png")
    assert result.exit_code == 2
    assert "it does not begin as FITS files do" in result.stderr
    assert "ignore_" not in result.stderr
