from __future__ import annotations

from pathlib import Path

import make_group
import numpy as np
import pytest
from astropy.io import fits
from starlists import corner_error, field, turn

from zmtile import Options, UsageError
from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats
from zmtile.pipeline import plan_tile
from zmtile.registration.reference import find_reference, most_central
from zmtile.registration.register import _odd_scales
from zmtile.registration.registration import APART
from zmtile.registration.transform import IDENTITY, Transform, compose


def frames(*names):
    return [Frame(Path("/lights") / n, n, 10, 10, "mono", "", fits.Header()) for n in names]


@pytest.mark.parametrize("wanted", ["b.fits", "b", "/elsewhere/b.fits"])
def test_a_reference_is_found_by_name_stem_or_file_name(wanted):
    assert find_reference(frames("a.fits", "b.fits"), wanted) == 1


@pytest.mark.parametrize("wanted", ["c.fits", "fits"])
def test_an_unknown_reference_is_refused(wanted):
    with pytest.raises(UsageError, match="none of the frames"):
        find_reference(frames("a.fits", "b.fits"), wanted)


def test_an_ambiguous_reference_is_refused():
    with pytest.raises(UsageError, match="fits 2 frames"):
        find_reference(frames("one/a.fits", "two/a.fits"), "a.fits")


def scaled(scale, nmatch):
    return Transform(IDENTITY * [scale, scale, 1.0], nmatch, 0.1)


def test_few_stars_do_not_prove_a_scale_of_their_own():
    group = [scaled(1.0, 200), scaled(1.001, 80), None, scaled(0.6, 5), scaled(1.02, 5)]
    assert _odd_scales(group) == [3]
    # Another telescope whose scale many stars have proven vouches for its frame with few.
    assert _odd_scales([*group, scaled(0.61, 40)]) == []
    assert np.isclose(scaled(0.6, 5).matrix[0, 0], 0.6)


def plan(spec, folder, change=None):
    """Register a simulated group; return the plan's records by frame number, and the true matrices."""
    paths = make_group.write_group(spec, folder)
    if change:
        for k, path in enumerate(paths):
            change(k, path)
    result = plan_tile(paths, Options(reference=paths[0].name))
    records = {record.name: record for record in result.records}
    return [records[path.name] for path in paths], make_group.truth_of(spec).matrices


def flip_odd(k, path):
    """Mirror every second frame; left and right exchanged, GRBG reads RGGB."""
    if k % 2:
        with fits.open(path, mode="update") as file:
            file[0].data = np.ascontiguousarray(file[0].data[:, ::-1])
            file[0].header["BAYERPAT"] = "RGGB"


def test_mirrored_frames_are_registered_and_told_once(tmp_path, caplog):
    spec = make_group.GroupSpec(frames=4, rows=360, cols=480, stars=120, seed=3, rotation=8.0, dither=20.0)
    with caplog.at_level("WARNING", "zmtile"):
        records, matrices = plan(spec, tmp_path, flip_odd)
    back = np.array([[-1.0, 0.0, spec.cols - 1.0], [0.0, 1.0, 0.0]])
    for k, record in enumerate(records):
        true = compose(matrices[k], back) if k % 2 else matrices[k]
        assert record.used
        assert corner_error(record.matrix, true, spec.rows, spec.cols) < 0.3
        assert np.linalg.det(record.matrix[:, :2]) * (-1) ** k > 0
    assert [m.message for m in caplog.records].count(
        "light_0002.fits and 1 more: mirror images of the reference; they are turned over"
    ) == 1


def test_the_tile_is_no_mirror_image_of_most_of_its_frames():
    def placed(*parities):
        return [Transform(turn(5 * k, mirrored=p), 50, 0.1) for k, p in enumerate(parities)]

    group = frames("a.fits", "b.fits", "c.fits")
    stars = field(np.zeros((20, 2)), np.ones(20)).stars
    stats = [FrameStats(stars, 3.0 + 0.01 * k, 1.0, None, None, 0, 1.0, "") for k in range(3)]
    assert most_central(group, stats, placed(False, True, True), 0) == 1
    assert most_central(group, stats, placed(False, True, False), 0) == 0


def test_hot_pixels_do_not_hold_a_group_in_place(tmp_path):
    spec = make_group.GroupSpec(
        frames=4,
        rows=360,
        cols=480,
        stars=50,
        seed=5,
        hot_pixels=8e-3,
        dither=12.0,
        cosmic_rays=5,
        trails=0.0,
    )
    records, matrices = plan(spec, tmp_path)
    for record, true in zip(records, matrices, strict=True):
        assert record.used
        assert corner_error(record.matrix, true, spec.rows, spec.cols) < 0.5


@pytest.mark.parametrize("seed", [6, 7, 8])
def test_a_sky_at_rest_is_registered_where_it_is(tmp_path, seed):
    spec = make_group.GroupSpec(
        frames=3, rows=360, cols=480, stars=50, seed=seed, hot_pixels=8e-3, dither=0.0, rotation=0.0
    )
    records, _ = plan(spec, tmp_path)
    for record in records:
        assert record.used
        assert corner_error(record.matrix, IDENTITY, spec.rows, spec.cols) < 0.3


def test_a_second_field_among_the_frames_is_told(tmp_path):
    paths = []
    for name, seed in (("here", 3), ("there", 4)):
        spec = make_group.GroupSpec(frames=2, rows=360, cols=480, stars=120, dither=12.0, seed=seed)
        paths += make_group.write_group(spec, tmp_path / name)
    records = plan_tile(paths, Options(reference=str(paths[0]))).records
    assert [record.used for record in records] == [True, True, False, False]
    assert {record.reason for record in records[2:]} == {APART}
