"""Bad input: a message that names the file and the remedy, the right exit code, and nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from conftest import SPEC
from make_group import GroupSpec, write_group

from zmtile.cli import cli
from zmtile.tiles.tile import read_tile


@pytest.fixture
def folder(group, tmp_path, monkeypatch):
    """A working folder with the group in it, as lights that a test may spoil."""
    for path in group:
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def other_field(tmp_path_factory):
    """A frame of another part of the sky."""
    return write_group(replace(SPEC, frames=2, seed=77), tmp_path_factory.mktemp("other"))[1]


def variant(tmp_path_factory, name: str, **changes: object) -> list[Path]:
    """Return the group as another camera would have taken it."""
    spec: GroupSpec = replace(SPEC, **changes)
    return write_group(spec, tmp_path_factory.mktemp(name))


def build(*words):
    return CliRunner().invoke(cli, ["build", *map(str, words)])


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder, *words, names, code=2):
    """Assert that a build is refused, with its reasons, and that it leaves nothing behind."""
    before = contents(folder)
    result = build(*words)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    message = result.stderr[result.stderr.index("zmtile: error: ") :]
    for name in (names,) if isinstance(names, str) else names:
        assert name in message
    assert len(message.splitlines()) > 1, "a remedy"
    assert "Traceback" not in result.output
    assert contents(folder) == before
    return message


def spoil(path, data=None, **cards):
    """Rewrite a light with other pixels or cards."""
    with fits.open(path) as hdus:
        pixels, header = hdus[0].data, hdus[0].header
    header = header.copy()
    for key in ("BZERO", "BSCALE"):
        header.remove(key, ignore_missing=True)
    header.update(cards)
    fits.PrimaryHDU(pixels if data is None else data, header).writeto(path, overwrite=True)
    return path


# Files that cannot be read: the run stops, or, on demand, goes on without them.

UNREADABLE = {
    "not FITS": (lambda path: path.write_text("a photograph\n" * 300), "not a FITS file"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:100_000]), "truncated"),
    "cut in the header": (lambda path: path.write_bytes(path.read_bytes()[:1000]), "FITS"),
    "of 10^12 pixels": (
        lambda path: path.write_bytes(
            path.read_bytes()
            .replace(b"NAXIS1  = %20d" % SPEC.cols, b"NAXIS1  = %20d" % 10**6)
            .replace(b"NAXIS2  = %20d" % SPEC.rows, b"NAXIS2  = %20d" % 10**6)
        ),
        "1,000,000,000,000 pixels",
    ),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "without columns": (
        lambda path: path.write_bytes(
            path.read_bytes()[:2880].replace(b"NAXIS1  = %20d" % SPEC.cols, b"NAXIS1  = %20d" % 0)
        ),
        "no pixels",
    ),
    "with an unknown pattern": (lambda path: spoil(path, BAYERPAT="XTRANS"), "XTRANS"),
    "a finished tile": (lambda path: spoil(path, ZMT_TYPE="Master Tile"), "master tile"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_cannot_be_read_stops_the_run(folder, kind):
    ruin, reason = UNREADABLE[kind]
    bad = folder / "light_0002.fits"
    ruin(bad)
    message = refused(folder, folder, names=(str(bad), reason))
    assert "--skip-unreadable" in message


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_cannot_be_read_is_left_out_on_demand(folder, kind):
    ruin, reason = UNREADABLE[kind]
    ruin(folder / "light_0002.fits")
    result = build(folder, "--skip-unreadable", "--json", "-o", "tile.fits")
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    (record,) = [f for f in report["frames"] if not f["used"]]
    assert record["name"] == "light_0002.fits"
    assert reason in record["reason"]
    assert "light_0002.fits" in result.stderr
    (row,) = [r for r in read_tile(folder / "tile.fits").frames if not r.used]
    assert reason in row.reason


def test_no_such_file(folder):
    refused(folder, folder / "light_0001.fits", "missing.fits", names="missing.fits: no such file")


def test_nothing_but_unreadable_files(folder):
    for path in folder.glob("*.fits"):
        path.write_text("a photograph")
    refused(folder, folder, "--skip-unreadable", names="none of the files", code=3)


# Frames that can be read but not registered: left out, with exit code 1.

FLAT = np.full((SPEC.rows, SPEC.cols), 1000, np.uint16)
NOISE = np.random.default_rng(0).normal(1000, 30, FLAT.shape)
HOPELESS = {
    "all NaN": np.full(FLAT.shape, np.nan, np.float32),
    "constant": FLAT,
    "zero": FLAT * 0,
    "saturated": FLAT * 0 + 65535,
    "without stars": NOISE.astype(np.uint16),
    "a bright line": np.where(np.indices(FLAT.shape).sum(0) == 200, 60000, NOISE).astype(np.uint16),
    "one row": FLAT[:1],
    "one pixel": FLAT[:1, :1],
}


@pytest.mark.parametrize("kind", HOPELESS)
def test_a_frame_that_shows_nothing_is_left_out_and_named(folder, kind):
    spoil(folder / "light_0003.fits", HOPELESS[kind])
    result = build(folder, "-o", "tile.fits")
    assert result.exit_code == 1, result.output
    assert "light_0003.fits is left out: " in result.stderr
    assert "light_0003.fits" in result.stdout
    assert "Traceback" not in result.output
    tile = read_tile(folder / "tile.fits")
    assert [r.used for r in tile.frames] == [True, True, False, True]
    assert tile.frames[2].reason
    assert tile.coverage.max() == 3


@pytest.mark.parametrize("kind", HOPELESS)
def test_frames_that_all_show_nothing_are_too_few(folder, kind):
    for k, path in enumerate(sorted(folder.glob("*.fits"))):
        data = HOPELESS[kind].copy()
        if data.size > 4 and np.isfinite(data).all():
            data.flat[k] ^= 1  # else they would be copies of each other
        spoil(path, data, FRAME=k)
    refused(folder, folder, names="stars", code=3)


def test_a_frame_of_another_field_is_left_out(folder, other_field):
    shutil.copy(other_field, folder / "light_0009.fits")
    result = build(folder, "-o", "tile.fits")
    assert result.exit_code == 1
    assert "light_0009.fits is left out: " in result.stderr
    assert "left out: 1" in result.stdout
    assert [r.used for r in read_tile(folder / "tile.fits").frames] == [True] * 4 + [False]


def test_frames_of_different_fields_are_too_few(folder, other_field):
    shutil.copy(other_field, folder / "light_0009.fits")
    names = ("light_0001.fits", "light_0009.fits")
    message = refused(folder, *names, names="1 of 2 frames can be used", code=3)
    assert any(name in message for name in names)


def test_as_many_frames_as_asked_for_are_needed(folder, other_field):
    shutil.copy(other_field, folder / "light_0009.fits")
    message = refused(folder, folder, "--min-frames", 5, names="4 of 5 frames can be used", code=3)
    assert "light_0009.fits" in message
    assert "--min-frames" in message


# Input that is unusual, and good.


@pytest.mark.parametrize("cfa", [SPEC.cfa, None, "RGB"])
def test_one_frame_is_a_tile(tmp_path_factory, tmp_path, cfa):
    (light,) = variant(tmp_path_factory, "one", frames=1, cfa=cfa)
    result = build(light, "-o", tmp_path / "tile.fits", "--planes", "all")
    assert result.exit_code == 0, result.output
    tile = read_tile(tmp_path / "tile.fits")
    assert tile.coverage.max() == 1
    assert (tile.coverage == 1).mean() > 0.98
    assert np.array_equal(np.isfinite(tile.image), tile.coverage == 1)
    assert not tile.rejlow.any()
    assert not tile.rejhigh.any()
    if cfa != SPEC.cfa:
        np.testing.assert_array_equal(tile.image, fits.getdata(light))


def test_one_frame_without_stars_is_a_tile_too(folder):
    path = spoil(folder / "light_0001.fits", HOPELESS["without stars"])
    result = build(path, "-o", "tile.fits")
    assert result.exit_code in (0, 3), result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("how", ["twice", "symlink", "hard link", "copy"])
def test_the_same_file_twice_is_used_once_and_said_so(folder, how):
    again = folder / "light_0099.fits"
    if how == "symlink":
        again.symlink_to("light_0002.fits")
    elif how == "hard link":
        again.hardlink_to(folder / "light_0002.fits")
    elif how == "copy":
        shutil.copy(folder / "light_0002.fits", again)
    else:
        again = folder / "light_0002.fits"
    result = build(folder, again, "-o", "tile.fits")
    assert result.exit_code == 0, result.output
    assert "light_0002.fits" in result.stderr
    assert "used once" in result.stderr
    tile = read_tile(folder / "tile.fits")
    assert sum(r.used for r in tile.frames) == 4
    assert tile.coverage.max() == 4


def test_mixed_sizes_work_with_a_warning(folder):
    path = folder / "light_0003.fits"
    spoil(path, fits.getdata(path)[20:-40, 30:-10])
    result = build(folder, "-o", "tile.fits")
    assert result.exit_code == 0, result.output
    assert "warning: light_0003.fits has another size (300×440 pixels)" in result.stderr
    assert all(r.used for r in read_tile(folder / "tile.fits").frames)


def test_mono_and_bayer_do_not_mix(folder, tmp_path_factory):
    mono = variant(tmp_path_factory, "mono", frames=1, cfa=None)[0]
    shutil.copy(mono, folder / "light_mono.fits")
    message = refused(folder, folder, names="light_mono.fits is mono")
    assert "BAYERPAT" in message


def test_bayer_and_colour_frames_work_together(folder, tmp_path_factory):
    colour = variant(tmp_path_factory, "colour", cfa="RGB")[3]
    shutil.copy(colour, folder / "light_0004.fits")
    result = build(folder, "-o", "tile.fits")
    assert result.exit_code == 0, result.output
    assert "light_0004.fits has another Bayer pattern" in result.stderr


def test_each_frame_is_read_by_its_own_bayer_pattern(group, tmp_path, tmp_path_factory):
    turned = variant(tmp_path_factory, "rggb", cfa="RGGB")
    mixed = [group[0], group[1], turned[2], turned[3]]
    result = build(*mixed, "--reference", group[0], "-o", tmp_path / "mixed.fits")
    assert result.exit_code == 0, result.output
    assert "another Bayer pattern (RGGB)" in result.stderr
    assert build(*group, "--reference", group[0], "-o", tmp_path / "pure.fits").exit_code == 0
    pure, both = read_tile(tmp_path / "pure.fits"), read_tile(tmp_path / "mixed.fits")
    inside = (pure.coverage == 4) & (both.coverage == 4)
    for channel in range(3):
        difference = (both.image - pure.image)[channel][inside[channel]]
        # A pattern misread turns red into green: the skies of the colours are 200 ADU and more apart.
        assert abs(np.median(difference)) < 5


# Masters.

SHAPE = (SPEC.rows, SPEC.cols)
FLATTISH = np.full(SHAPE, 20000, np.uint16)
BAD_MASTERS = {
    "of another size": ("dark", FLATTISH[2:, :-4], {}, "358×476 pixels"),
    "of another pattern": ("flat", FLATTISH, {"BAYERPAT": "RGGB"}, "RGGB"),
    "demosaiced": ("flat", np.stack([FLATTISH] * 3), {}, "planes"),
    "upside down": ("bias", FLATTISH, {"ROWORDER": "BOTTOM-UP"}, "BOTTOM-UP"),
    "a light": ("dark", FLATTISH, {"IMAGETYP": "Light Frame"}, "IMAGETYP says light"),
    "of another kind": ("flat", FLATTISH, {"IMAGETYP": "Master Bias"}, "IMAGETYP says bias"),
    "of another exposure": ("dark", FLATTISH, {"EXPTIME": 300.0}, "300 s"),
    "all NaN": ("flat", np.full(SHAPE, np.nan, np.float32), {}, "no data"),
    "zero": ("flat", FLATTISH * 0, {}, "median is 0 ADU"),
    "between 0 and 1": ("dark", np.full(SHAPE, 0.01, np.float32), {}, "between 0 and 1"),
    "a tile": ("dark", FLATTISH, {"ZMT_TYPE": "Master Tile"}, "master tile"),
}


@pytest.mark.parametrize("kind", BAD_MASTERS)
def test_a_master_that_cannot_be_one_is_refused(folder, kind):
    option, pixels, cards, reason = BAD_MASTERS[kind]
    (folder / "masters").mkdir()
    path = folder / "masters" / "m.fits"
    fits.PrimaryHDU(pixels, fits.Header(cards)).writeto(path)
    refused(folder, folder, f"--{option}", path, names=("m.fits", reason))


def test_a_master_that_is_not_there_or_no_fits_file(folder):
    refused(folder, folder, "--bias", "nowhere.fits", names="nowhere.fits")
    (folder / "bias.txt").write_text("a photograph\n" * 300)
    refused(folder, folder, "--bias", "bias.txt", names=("bias.txt", "not a FITS file"))


def test_a_master_among_the_frames_is_refused(folder):
    refused(folder, folder, "--dark", "light_0002.fits", names=("light_0002.fits", "IMAGETYP says light"))
    spoil(folder / "light_0002.fits", IMAGETYP="Dark")
    refused(folder, folder, "--dark", "light_0002.fits", names=("light_0002.fits", "one of the frames"))


def scaled_dark(folder, level=600, **cards):
    """A bias, and a dark that is to be scaled, in a folder of their own."""
    (folder / "masters").mkdir()
    for name, plane, own in (("bias", 500, {}), ("dark", level, cards)):
        pixels = np.full(SHAPE, plane, np.uint16)
        fits.PrimaryHDU(pixels, fits.Header(own)).writeto(folder / "masters" / f"{name}.fits")
    return "--bias", "masters/bias.fits", "--dark", "masters/dark.fits"


def test_a_dark_is_scaled_only_where_both_exposures_are_known(folder):
    words = scaled_dark(folder)
    refused(folder, folder, *words, names=("dark.fits", "how long", "EXPTIME"))
    shutil.rmtree(folder / "masters")
    words = scaled_dark(folder, EXPTIME=30.0)
    spoil(folder / "light_0002.fits", EXPTIME="unknown")
    refused(folder, folder, *words, names=("light_0002.fits", "how long", "EXPTIME"))


def test_a_dark_below_the_bias_has_lost_its_bias_already(folder):
    words = scaled_dark(folder, level=20, EXPTIME=30.0)
    refused(folder, folder, *words, names=("dark.fits", "below the bias", "CALSTAT"))


def test_a_light_that_is_calibrated_already_is_not_calibrated_again(folder):
    words = scaled_dark(folder, EXPTIME=30.0)
    spoil(folder / "light_0003.fits", CALSTAT="BDF")
    refused(folder, folder, *words, names=("light_0003.fits", "CALSTAT", "--bias"))


def test_the_output_is_never_a_master(folder):
    words = scaled_dark(folder, EXPTIME=30.0)
    refused(folder, folder, *words, "-o", "masters/dark.fits", "--overwrite", names="one of the inputs")


def test_a_dark_among_the_lights_is_pointed_out(folder):
    spoil(folder / "light_0003.fits", IMAGETYP="Dark")
    result = build(folder, "-o", "tile.fits")
    assert "light_0003.fits is taken for a light; its IMAGETYP says dark" in result.stderr


# Targets.


def test_the_output_exists(folder):
    (folder / "tile.fits").write_text("precious")
    message = refused(folder, folder / "light_0001.fits", "-o", "tile.fits", names="tile.fits")
    assert "--overwrite" in message


def test_the_default_output_exists(folder):
    (folder / "master_tile_NGC_7023_IRCUT.fits").write_text("precious")
    refused(folder, folder, names=("master_tile_NGC_7023_IRCUT.fits", "--overwrite"))


def test_an_existing_output_is_replaced_on_demand_only_when_the_tile_is_complete(folder):
    (folder / "tile.fits").write_text("old")
    assert build("light_0001.fits", "light_0002.fits", "-o", "tile.fits", "--overwrite").exit_code == 0
    assert len(read_tile(folder / "tile.fits").frames) == 2


@pytest.mark.parametrize("how", ["itself", "symlink", "hard link"])
def test_the_output_is_one_of_the_inputs(folder, how):
    target = folder / "light_0001.fits"
    if how != "itself":
        target = folder / "out.dat"
        (target.symlink_to if how == "symlink" else target.hardlink_to)(folder / "light_0001.fits")
    refused(folder, folder, "-o", target, "--overwrite", names=(target.name, "one of the inputs"))


@pytest.mark.parametrize("kept", ["light_0001.fits", "masters/dark.fits", "old.fits", "new.fits"])
def test_the_page_is_never_a_frame_a_master_or_the_tile(folder, kept):
    words = scaled_dark(folder, EXPTIME=30.0)
    (folder / "old.fits").write_text("precious")
    (folder / "page.html").symlink_to(folder / kept)
    output = "new.fits" if kept == "new.fits" else "old.fits"
    words = (*words, "-o", output, "--report", "page.html", "--overwrite")
    refused(folder, "light_0001.fits", "light_0002.fits", *words, names=("page.html", "one of the inputs"))


def test_the_page_is_not_the_tile_whose_name_is_known_late(folder):
    (folder / "page.html").symlink_to(folder / "master_tile_NGC_7023_IRCUT.fits")
    refused(folder, "light_0001.fits", "--report", "page.html", names=("page.html", "one of the inputs"))


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("missing/tile.fits", "no folder"),
        (".", "folder"),
        ("light_0001.fits/tile.fits", "folder"),
        ("/dev/null", "no regular file"),
        ("/proc/tile.fits", "/proc/tile.fits"),
        ("n" * 300 + ".fits", "too long"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before_the_work(folder, target, reason):
    message = refused(folder, folder, "-o", target, "--overwrite", names=reason)
    assert Path(target).name in message or target == "."


def test_a_folder_that_may_not_be_written_to(folder):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    locked = folder / "locked"
    locked.mkdir(mode=0o500)
    refused(folder, folder, "-o", locked / "tile.fits", names=("locked/tile.fits", "permission"))


# Ends from outside. A subprocess runs the program with something done to it at a certain step.

PRELUDE = """
import os, resource, signal, sys
import zmtile.console, zmtile.tiles.fitsfile
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
signal.signal(signal.SIGTERM, signal.SIG_DFL)
"""
AT_STEP = """
def step(self, count=1, before=zmtile.console.Stages.step):
    if self._name == {stage!r}:
        os.kill(os.getpid(), {signum})
zmtile.console.Stages.step = step
"""
AT_TABLE = """
def write_table(*_):
    os.kill(os.getpid(), {signum})
import zmtile.tiles.tile
zmtile.tiles.tile.write_table = write_table
"""
FULL_DISK = """
def stage(self, name, total, before=zmtile.console.Stages.stage):
    if name == 'write':
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    before(self, name, total)
zmtile.console.Stages.stage = stage
"""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def run(prelude, *words, **keywords):
    code = PRELUDE + prelude + "\nfrom zmtile.cli import main\nmain()\n"
    command = [sys.executable, "-c", code, "build", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords)


def ended(process, folder, before):
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    assert contents(folder) == before
    assert "zmtile: error: " in err
    return out, err


@pytest.mark.parametrize("stage", ["measure", "write"])
def test_ctrl_c_leaves_nothing_behind(folder, stage):
    before = contents(folder)
    prelude = AT_TABLE if stage == "write" else AT_STEP
    process = run(prelude.format(stage=stage, signum=int(signal.SIGINT)), folder, "-o", "tile.fits")
    out, err = ended(process, folder, before)
    assert (process.returncode, out) == (130, "")
    assert "Ctrl-C" in err


@pytest.mark.parametrize("stage", ["stack", "write"])
def test_sigterm_leaves_nothing_behind_and_an_old_tile_unharmed(folder, stage):
    (folder / "tile.fits").write_text("precious")
    before = contents(folder)
    prelude = AT_TABLE if stage == "write" else AT_STEP
    words = (folder.glob("light*"), "-o", "tile.fits", "--overwrite", "--json")
    process = run(prelude.format(stage=stage, signum=int(signal.SIGTERM)), *words[0], *words[1:])
    out, err = ended(process, folder, before)
    assert process.returncode == 143
    assert json.loads(out)["exit_code"] == 143
    assert "SIGTERM" in err


@pytest.mark.parametrize("signum", CODES)
def test_a_signal_from_outside_ends_the_run(group, tmp_path, signum):
    lights = []
    for k in range(24):  # enough for the signal to arrive in time
        with fits.open(group[k % 4]) as hdus:
            header = hdus[0].header.copy()
            header.update(FRAME=k)
            pixels = np.roll(hdus[0].data, 2 * k, axis=1)
        for key in ("BZERO", "BSCALE"):
            header.remove(key)
        lights.append(tmp_path / f"light_{k:02d}.fits")
        fits.PrimaryHDU(pixels, header).writeto(lights[-1])
    before = contents(tmp_path)
    process = run("", *lights, cwd=tmp_path)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("read: 24 files")
    process.send_signal(signum)
    ended(process, tmp_path, before)
    assert process.returncode == CODES[signum]


def test_a_full_disk_leaves_nothing_behind_and_an_old_tile_unharmed(folder):
    (folder / "tile.fits").write_text("precious")
    before = contents(folder)
    process = run(FULL_DISK, "light_0001.fits", "light_0002.fits", "-o", "tile.fits", "--overwrite")
    out, err = ended(process, folder, before)
    assert (process.returncode, out) == (2, "")
    assert "tile.fits" in err
    assert "another disk" in err
