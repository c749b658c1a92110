"""The measure of steps: it finds those that are there, where they are, and no others."""

import numpy as np
import pytest
from astropy.io import fits

from zmtile.looks.skyimage import SkyImage
from zmtile.looks.steps import find_steps

ROWS, COLS, SIGMA = 400, 480, 10.0


def scene(seed, channels=3):
    """A sky with a gradient, a nebula, stars and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:ROWS, :COLS]
    sky = 900 + 0.3 * x - 0.2 * y + 200 * np.exp(-((x - 200) ** 2 + (y - 150) ** 2) / (2 * 90**2))
    for _ in range(60):
        cx, cy, flux = rng.uniform(0, COLS), rng.uniform(0, ROWS), 10 ** rng.uniform(2, 4.5)
        sky += flux * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 1.5**2)) / (2 * np.pi * 1.5**2)
    return (sky + rng.normal(0, SIGMA, (channels, ROWS, COLS))).astype(np.float32)


def tile(image, border=40):
    """With a coverage plane: 8 frames inside, 4 on the left, the others end there."""
    coverage = np.full(image.shape, 8, np.uint16)
    coverage[:, :, :border] = 4
    return SkyImage("x", image, coverage, fits.Header())


def image_of(image):
    return SkyImage("x", image, None, fits.Header())


def certain(sky):
    return [step for step in find_steps(sky) if step.certain]


@pytest.mark.parametrize("seed", range(3))
def test_a_sky_without_steps_has_none(seed):
    image = scene(seed)
    assert find_steps(tile(image))
    assert certain(tile(image)) == []
    assert [s for s in certain(image_of(image)) if abs(s.jump) > 0.5] == []


@pytest.mark.parametrize("height", [-1.0, 1.0, 3.0])
def test_a_step_of_all_channels_is_one_of_the_luminance(height):
    image = scene(4)
    image[:, :, :40] += np.float32(height * SIGMA / np.sqrt(3))  # the mean of three has less noise
    found = certain(tile(image))
    assert {(s.plane, s.side) for s in found} == {("L", "left")}
    assert abs(found[0].jump - height) < 3 * found[0].error + 0.1


def test_a_step_of_one_channel_is_one_of_colour():
    image = scene(5)
    image[0, :, :40] += 2 * SIGMA
    worst = {s.plane: s for s in reversed(certain(tile(image)))}
    assert worst["R-G"].jump == pytest.approx(2 / np.sqrt(2), abs=0.3)
    assert "B-G" not in worst


def test_opposite_steps_of_two_sides_do_not_cancel():
    image = scene(6)
    image[:, :, :40] += 2 * SIGMA
    image[:, :, -40:] -= 2 * SIGMA
    sky = tile(image)
    sky.coverage[:, :, -40:] = 4
    jumps = {s.side: s.jump for s in certain(sky) if s.plane == "L"}
    assert jumps["left"] > 2
    assert jumps["right"] < -2


@pytest.mark.parametrize(("side", "angle"), [("top", 6), ("left", -4), ("bottom", 0)])
def test_a_tilted_band_is_found_without_a_coverage_plane(side, angle):
    image = scene(7)
    y, x = np.mgrid[:ROWS, :COLS]
    slope = np.tan(np.radians(angle))
    depth = {"top": y + slope * (x - COLS / 2), "left": x + slope * (y - ROWS / 2), "bottom": ROWS - y}[side]
    image[:, depth < 36] += 1.5 * SIGMA
    worst = certain(image_of(image))[0]
    assert (worst.plane, worst.side) == ("L", side)
    at, tilt = worst.line.split(" px from the edge at ")
    assert abs(int(at) - 36) <= 8
    assert abs(int(tilt.split()[0]) - angle) <= 2


def test_no_data_is_no_step():
    image = scene(8)
    image[:, :, :30] = np.nan
    assert [s for s in certain(tile(image, 60)) if abs(s.jump) > 0.5] == []


def test_units_do_not_matter():
    image = scene(9)
    image[:, :, :40] += 2 * SIGMA
    first = certain(tile(image))[0]
    again = certain(tile(image * np.float32(0.25) + np.float32(100)))[0]
    assert again.jump == pytest.approx(first.jump, rel=0.01)


@pytest.mark.parametrize(
    "image", [np.full((1, 50, 50), np.nan), np.full((1, 50, 50), 7.0), np.zeros((1, 5, 5)), scene(1)[:1]]
)
def test_images_without_steps_to_measure_are_no_error(image):
    for step in find_steps(image_of(image.astype(np.float32))):
        assert step.plane == "L"
