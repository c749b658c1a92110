"""Real light frames, which are not part of the project: skipped where they are not at hand.

They are looked for in the folder that REAL_FRAMES names, or in ../shared/data.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zmtile import Options, build_tile
from zmtile.pipeline import plan_tile

FOLDER = Path(os.environ.get("REAL_FRAMES", Path(__file__).parents[2] / "shared" / "data"))


def group(name):
    if not (FOLDER / name).is_dir():
        pytest.skip(f"no real frames in {FOLDER / name}")
    return FOLDER / name


def test_three_nights_turned_by_69_degrees_are_one_group():
    plan = plan_tile([group("m94")])
    assert [r.used for r in plan.records] == [True] * 15
    assert max(r.rms for r in plan.records) <= 0.35
    turned = [np.degrees(np.arctan2(r.matrix[1, 0], r.matrix[0, 0])) for r in plan.records]
    assert sum(abs(angle) > 60 for angle in turned) == 3


def test_two_telescopes_of_one_model_are_told_apart_by_their_hot_pixels():
    plan = plan_tile([group("m94")], Options(hot_pixels=True))
    bad = [correction.bad.tolist() for correction in plan.corrections]
    assert bad == [bad[0]] * 12 + [bad[12]] * 3  # in the order of the nights
    assert bad[0]
    assert bad[12]
    assert not set(bad[0]) & set(bad[12])


def test_two_years_turned_by_121_degrees_share_one_wcs():
    tile = build_tile([group("ngc7023")])
    assert [r.used for r in tile.frames] == [True] * 6
    assert max(r.rms for r in tile.frames) <= 0.35
    assert tile.header["CTYPE1"] == "RA---TAN"
    assert {f"CD{i}_{j}" for i in (1, 2) for j in (1, 2)} <= set(tile.header)
    np.testing.assert_array_equal(np.isnan(tile.image), tile.coverage == 0)


def test_trailed_mono_stars_register():
    tile = build_tile([group("j1749")])
    assert [r.used for r in tile.frames] == [True] * 3
    assert tile.image.ndim == 2


def test_a_mirrored_frame_and_one_of_half_the_size_find_their_place(tmp_path):
    light, other = sorted(group("m94").glob("*.fit"))[:2]
    with fits.open(light) as file:
        header, data = file[0].header, file[0].data
    assert header["BAYERPAT"] == "GRBG"
    header["BAYERPAT"] = "RGGB"
    fits.writeto(tmp_path / "mirrored.fits", np.ascontiguousarray(data[:, ::-1]), header)
    del header["BAYERPAT"]
    green = 0.5 * (data[::2, ::2].astype(np.float32) + data[1::2, 1::2])
    fits.writeto(tmp_path / "half.fits", np.stack([data[::2, 1::2], green, data[1::2, ::2]]), header)
    plan = plan_tile([other, *tmp_path.iterdir()], Options(reference=str(other)))
    found = {Path(r.name).stem: r for r in plan.records}
    assert all(r.used for r in plan.records)
    assert np.linalg.det(found["mirrored"].matrix[:, :2]) == pytest.approx(-1.0, abs=0.01)
    assert np.linalg.det(found["half"].matrix[:, :2]) == pytest.approx(4.0, abs=0.04)
