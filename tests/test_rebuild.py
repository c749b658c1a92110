"""A tile is made again from what it tells of itself, or it is said what has changed."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from zmtile import __version__
from zmtile.cli import cli
from zmtile.errors import UsageError
from zmtile.frames.inputs import Named
from zmtile.progress import NullProgress
from zmtile.rebuild import default_target, gather, told_apart
from zmtile.tiles import sources
from zmtile.tiles.recipe import read_recipe
from zmtile.tiles.sources import find_sources
from zmtile.tiles.tile import Tile, read_tile


def zm(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def made(group, tmp_path_factory):
    """A tile with a master, a frame that a rule leaves out, a file that cannot be read, and a fill."""
    folder = tmp_path_factory.mktemp("made")
    for night, path in zip(("n1", "n1", "n2", "n2"), group, strict=True):
        (folder / "frames" / night).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "frames" / night)
    (folder / "frames" / "n2" / "light_bad.fits").write_text("no FITS file")
    rng = np.random.default_rng(1)
    fits.writeto(folder / "flat é.fits", rng.normal(1000, 5, (360, 480)).astype(np.float32))
    rule = f"sky<{rule_between(group)}"
    done = zm(
        "build", folder / "frames/n1", folder / "frames/n2", "-o", folder / "tile.fits", "-q",
        "--flat", folder / "flat é.fits", "--skip-unreadable", "--reject-frames", f"{rule}, stars>9",
        "--reject", "auto", "--fill", "0", "--planes", "all", "--min-frames", "3",
        "--reference", group[1].stem,
    )  # fmt: skip
    assert done.exit_code == 1, done.output
    return folder


def rule_between(group) -> float:
    """A level of the sky that one frame, which is not the second, is above."""
    levels = [float(np.median(fits.getdata(path))) for path in group]
    order = sorted(levels)
    assert levels.index(order[-1]) != 1
    return (order[-1] + order[-2]) / 2


@pytest.fixture
def moved(made, tmp_path, monkeypatch):
    """The inputs under other names, in another order, elsewhere; only the master has kept its name."""
    for k, path in enumerate(sorted((made / "frames").rglob("light_0*"), reverse=True)):
        (tmp_path / f"deep/{k}").mkdir(parents=True)
        shutil.copy(path, tmp_path / f"deep/{k}/light_000{k}.fits")
    shutil.copy(made / "flat é.fits", tmp_path / "deep")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "deep"


def test_from_frames_that_were_renamed_comes_the_same_tile(made, moved, tmp_path):
    done = zm("rebuild", made / "tile.fits", "--inputs", moved, "--verify", "-o", tmp_path / "again.fits")
    assert done.exit_code == 0, done.output
    assert re.search("^pixels +the same, bit for bit: PRIMARY, .*, WEIGHT$", done.stdout, re.M)
    assert "inputs    4 frames, flat: all as they were" in done.stdout
    before, after = read_tile(made / "tile.fits"), read_tile(tmp_path / "again.fits")
    assert [f.name for f in after.frames] == [f.name for f in before.frames if f.sha256]
    assert [f.used for f in after.frames].count(False) == 1
    differing = fits.HeaderDiff(after.header, before.header).diff_keyword_values
    assert set(differing) == {"ZMT_NRAW"}  # the file that could not be read has no part in it


def test_what_lies_beside_the_tile_is_found_by_its_name(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = zm("rebuild", made / "tile.fits", "--verify", "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["exit_code"], report["same"], report["output"]) == (0, 0, True, None)
    assert [plane["differing"] for plane in report["planes"]] == [0] * 8
    assert {source["state"] for source in report["inputs"]} == {"found"}
    assert report["changes"] == []
    assert list(tmp_path.iterdir()) == []


def test_inputs_that_changed_or_are_missing_are_named(made, moved):
    tile = made / "tile.fits"
    names = [frame.name for frame in read_tile(tile).frames]
    (moved / "0/light_0000.fits").unlink()
    shutil.move(moved / "3/light_0003.fits", moved / Path(names[0]).name)
    with open(moved / Path(names[0]).name, "ab") as file:
        file.write(b" ")
    done = zm("rebuild", tile, "--inputs", moved, "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["exit_code"]) == (4, 4)
    states = {source["name"]: source["state"] for source in report["inputs"]}
    assert states == {names[0]: "changed", names[1]: "found", names[2]: "found", names[3]: "missing",
                      "flat é.fits": "found"}  # fmt: skip
    assert re.search(rf"frame {names[0]}: changed, .* holds something else\n", done.stderr)
    assert re.search(rf"frame {names[3]}: missing\n", done.stderr)
    assert "--inputs" in report["remedy"]
    assert not list(made.glob("*_rebuilt*"))


def test_another_flat_of_the_same_name_is_no_substitute(made, moved):
    fits.writeto(moved / "flat é.fits", np.ones((360, 480), np.float32), overwrite=True)
    done = zm("rebuild", made / "tile.fits", "--inputs", moved)
    assert done.exit_code == 4
    assert "flat flat é.fits: changed" in done.stderr


def test_a_plane_that_differs_is_told(made, moved, tmp_path):
    tile = read_tile(made / "tile.fits")
    tile.uncert[0, 100, 100] += 2.0
    tile.image[1, 50, 60] = np.nan
    tile.header["CREATOR"] = "zmtile 0.0.9"
    tile.write(tmp_path / "other.fits", planes=())
    done = zm("rebuild", tmp_path / "other.fits", "--inputs", moved, "--verify", "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["same"]) == (1, False)
    planes = {plane["name"]: plane for plane in report["planes"] if plane["differing"]}
    assert set(planes) == {"PRIMARY", "UNCERT", "ALPHA"}
    assert (planes["UNCERT"]["differing"], planes["UNCERT"]["largest"]) == (1, pytest.approx(2.0, rel=1e-3))
    assert (planes["PRIMARY"]["differing"], planes["PRIMARY"]["gained"], planes["PRIMARY"]["lost"]) == (
        1,
        1,
        0,
    )
    assert report["changes"] == [f"CREATOR was zmtile 0.0.9, now it is zmtile {__version__}"]
    text = zm("rebuild", tmp_path / "other.fits", "--inputs", moved, "--verify").stdout
    assert "differs   UNCERT: 1 of 518,400 pixels, by 2 at most" in text
    assert "differs   PRIMARY: 1 of 518,400 pixels, 1 have data now and had none" in text
    assert f"changed   CREATOR was zmtile 0.0.9, now it is zmtile {__version__}" in text


def test_a_tile_whose_pixels_are_damaged_is_made_again(made, moved, tmp_path):
    damaged = bytearray((made / "tile.fits").read_bytes())
    damaged[100_000] ^= 1
    (tmp_path / "master.fits").write_bytes(damaged)
    with pytest.raises(UsageError, match="damaged"):
        read_tile(tmp_path / "master.fits")
    done = zm("rebuild", tmp_path / "master.fits", "--inputs", moved / "*" / "*", "--inputs", moved)
    assert done.exit_code == 0, done.output
    assert f"written   {tmp_path / 'master_rebuilt.fits'}" in done.stdout
    assert np.array_equal(
        read_tile(tmp_path / "master_rebuilt.fits").image, read_tile(made / "tile.fits").image, equal_nan=True
    )
    again = zm("rebuild", tmp_path / "master.fits", "--inputs", moved)
    assert (again.exit_code, "--overwrite" in again.stderr) == (2, True)


def test_what_is_used_otherwise_is_told(made):
    recipe, tile = read_recipe(made / "tile.fits"), read_tile(made / "tile.fits")
    left_out = next(frame for frame in tile.frames if frame.sha256 and not frame.used)
    assert list(told_apart(recipe, tile)) == []
    swapped = [
        replace(frame, used=not frame.used, reason="dim" if frame.used else "")
        for frame in (tile.frames[-2], left_out)
    ]
    other = Tile(tile.image, tile.uncert, tile.weight, tile.coverage, tile.rejlow, tile.rejhigh,
                 tuple(swapped), tile.header)  # fmt: skip
    told = list(told_apart(recipe, other))
    assert f"{left_out.name} was left out ({left_out.reason}), now it is used" in told
    assert f"{tile.frames[-2].name} was used, now it is left out (dim)" in told
    assert len(told) == 2


def test_no_file_is_read_after_all_are_found(made, moved, monkeypatch):
    read, true = [], sources._sha256
    monkeypatch.setattr(sources, "_sha256", lambda path: read.append(path.name) or true(path))
    for k in range(50):
        (moved / f"other_{k}.fits").write_text("another")
    (moved / "master_tile_m94.fits").write_text("a tile")
    found = find_sources(read_recipe(made / "tile.fits"), [moved], NullProgress())
    assert all(source.state == "found" for source in found)
    # Those of the names that the tile tells come first, and here they are all of them.
    assert sorted(read) == ["flat é.fits", *(f"light_000{k}.fits" for k in range(4))]


def test_the_order_and_the_names_are_those_of_the_tile(made, moved):
    ingredients = gather(made / "tile.fits", [moved])
    assert isinstance(ingredients.frames, Named)
    assert list(ingredients.frames.names) == [
        f.name for f in read_tile(made / "tile.fits").frames if f.sha256
    ]
    assert [p.name for p in ingredients.frames] == [f"light_000{k}.fits" for k in (3, 2, 1, 0)]
    assert Path(ingredients.options.reference).name == "light_0002.fits"  # the one that was light_0002


def test_what_tells_no_recipe_is_refused(made, moved, tmp_path):
    for path, what in ((moved / "0/light_0000.fits", "not a tile"), (tmp_path / "x.fits", "no such file")):
        done = zm("rebuild", path)
        assert (done.exit_code, what in done.stderr) == (2, True)
    damaged = bytearray((made / "tile.fits").read_bytes())
    damaged[damaged.rindex(b"n1/light_0")] ^= 1
    (tmp_path / "x.fits").write_bytes(damaged)
    done = zm("rebuild", tmp_path / "x.fits")
    assert (done.exit_code, "FRAMES table is damaged" in done.stderr) == (2, True)
    (tmp_path / "x.fits").write_bytes(damaged[:40000])
    command = [sys.executable, "-m", "zmtile", "rebuild", tmp_path / "x.fits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 2), done.stderr  # error and remedy, no warning
    shutil.copy(made / "tile.fits", tmp_path / "y.fits")
    fits.delval(tmp_path / "y.fits", "ZMT_KHI")
    done = zm("rebuild", tmp_path / "y.fits")
    assert done.exit_code == 2
    assert "y.fits: its header does not tell what --kappa was (ZMT_KLOW = 3.0, no ZMT_KHI)" in done.stderr


def test_an_input_is_never_the_output(made, moved):
    frame = moved / "0/light_0000.fits"
    before = frame.read_bytes()
    done = zm("rebuild", made / "tile.fits", "--inputs", moved, "-o", frame, "--overwrite")
    assert (done.exit_code, "one of the inputs" in done.stderr) == (2, True)
    assert frame.read_bytes() == before


@pytest.mark.parametrize("words", [[], ["--verify"]])
def test_the_tile_that_is_made_again_is_never_the_output(made, moved, tmp_path, words):
    tile = tmp_path / "tile.fits"
    shutil.copy(made / "tile.fits", tile)
    words = [*words, "--inputs", moved, "-o", tile, "--overwrite"]
    done = zm("rebuild", tile, *words)
    assert (done.exit_code, "one of the inputs" in done.stderr) == (2, True)
    assert tile.read_bytes() == (made / "tile.fits").read_bytes()


@pytest.mark.parametrize(
    ("tile", "target"),
    [("a/t.fits", "a/t_rebuilt.fits"), ("t.FIT.gz", "t_rebuilt.fits"), ("t", "t_rebuilt.fits")],
)
def test_it_goes_beside_the_other_one(tile, target):
    assert default_target(Path(tile)) == Path(target)
