"""The sensor under a simulated group: its masters take out what it did to the lights."""

from __future__ import annotations

from dataclasses import replace

import make_masters
import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from make_group import GroupSpec, truth_of, write_group

from zmtile import Options, build_tile

SPEC = GroupSpec(frames=4, rows=360, cols=480, stars=120, dither=12.0, trails=0.0, cosmic_rays=0)


@pytest.fixture(scope="module", params=["GRBG", None])
def camera(request, tmp_path_factory):
    """A folder with ideal lights, raw lights and masters."""
    folder = tmp_path_factory.mktemp("camera")
    write_group(replace(SPEC, cfa=request.param), folder)
    result = CliRunner().invoke(make_masters.main, [str(folder)])
    assert result.exit_code == 0, result.output
    return folder


def test_the_calibrated_tile_is_that_of_an_ideal_sensor(camera):
    masters = {kind: str(camera / "masters" / f"{kind}.fits") for kind in ("bias", "dark", "flat")}
    ideal = build_tile([camera / "light_*.fits"], Options(reference="light_0001.fits"))
    raw = build_tile([camera / "raw"], Options(reference="light_0001.fits"))
    tile = build_tile([camera / "raw"], Options(reference="light_0001.fits", **masters))
    # A flat leaves the level open: what it calls 1 is its median.
    difference, uncalibrated = ((t.image / np.nanmedian(t.image) * 900) for t in (tile, raw))
    truth = ideal.image / np.nanmedian(ideal.image) * 900
    wide = np.nanpercentile(np.abs(uncalibrated - truth), 90)
    assert np.nanpercentile(np.abs(difference - truth), 90) < 0.5 * wide
    assert np.nanmedian(np.abs(difference - truth)) < 15  # noise of a tile of four frames is 25
    assert tile.coverage.min() < raw.coverage.max()


def test_masters_say_what_they_are(camera):
    spec = replace(SPEC, cfa=fits.getheader(camera / "light_0001.fits").get("BAYERPAT"))
    sensor = make_masters.sensor_of(spec, truth_of(spec).hot)
    for kind, seconds in (("bias", 0.0), ("dark", 60.0), ("flat", 1.0)):
        plane, header = fits.getdata(camera / "masters" / f"{kind}.fits", header=True)
        assert (header["IMAGETYP"], header["EXPTIME"]) == (f"Master {kind}", seconds)
        assert header.get("BAYERPAT") == spec.cfa
        light = make_masters.lamp_of(spec) if kind == "flat" else np.zeros(plane.shape)
        noise = plane - make_masters.exposed(sensor, light, seconds)
        assert abs(noise.mean()) < 0.3
        assert noise.std() < 30
    assert (sensor.flat == 0).any()


def test_a_folder_without_a_group_and_colour_cubes_are_refused(tmp_path):
    result = CliRunner().invoke(make_masters.main, [str(tmp_path)])
    assert (result.exit_code, "no group" in result.output) == (1, True)
    write_group(replace(SPEC, frames=1, cfa="RGB"), tmp_path)
    result = CliRunner().invoke(make_masters.main, [str(tmp_path)])
    assert (result.exit_code, "no sensor" in result.output) == (1, True)
