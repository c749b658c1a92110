"""The second pass of frames whose map is bent: places, footprint, blocks and flux."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import oracle
import pytest
from astropy.io import fits
from scipy.special import erf

from zmtile.frames.frame import Frame, read_frame
from zmtile.frames.pixels import open_pixels
from zmtile.kernels.tables import STEPS, kernel_table, lost_margin
from zmtile.matching.match import Photometry
from zmtile.options import KERNELS, Options
from zmtile.registration.mapping import Bent, apply, flat_bend, invert
from zmtile.stacking.canvas import Canvas, frame_up
from zmtile.stacking.warp import Block, feather, source_of, warp

ROWS, COLS = 90, 120


def curved(matrix, tilt=(0.0, 0.0), size=0.0, rows=ROWS, cols=COLS, seed=0):
    bend = flat_bend(rows, cols)
    bend[4:6] = tilt
    bend[6:] = np.random.default_rng(seed).uniform(-size, size, 14)
    made = Bent(np.array(matrix, np.float64), bend)
    assert made.sound
    return made


def turned(degrees, scale=1.0, shift=(0.0, 0.0), rows=ROWS, cols=COLS):
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    linear, middle = np.array([[c, -s], [s, c]]), np.array([(cols - 1) / 2, (rows - 1) / 2])
    return np.column_stack([linear, middle - linear @ middle + shift])


def source(tmp_path, image, to_reference, canvas, kernel="cubic", clamp=False, cfa=""):
    """Return a frame of an image, as the second pass needs it, and its pixels."""
    path = tmp_path / f"{abs(hash(image.tobytes()))}.fits"
    if not path.exists():
        cards = {"BAYERPAT": cfa} if len(cfa) == 4 else {}
        fits.PrimaryHDU(image, fits.Header(cards)).writeto(path)
    frame = read_frame(path, path.name)
    one, nothing = np.ones(frame.channels), np.zeros((frame.channels, 1))
    light = Photometry(one, nothing, one, one)
    reference = Frame(Path("/r.fits"), "r.fits", canvas.rows, canvas.cols, "mono", "", fits.Header())
    options = Options(kernel=kernel, clamp=clamp)
    return source_of(frame, to_reference, light, canvas, reference, options), open_pixels(frame)


def warped(made, pixels, block):
    out = np.empty((made.frame.channels, block.rows, block.cols), np.float32)
    warp(pixels, made, block, out)
    return out


def picture(rows=ROWS, cols=COLS, seed=0):
    return np.random.default_rng(seed).uniform(100, 1000, (rows, cols)).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
def test_samples_are_those_of_the_oracle(tmp_path, kernel):
    image = picture()
    image[40, 50] = np.nan
    to_reference = curved(turned(25, 1.1), (0.003, -0.005), 0.4)
    made, pixels = source(tmp_path, image, to_reference, Canvas(ROWS, COLS, -3, 5), kernel)
    ours = warped(made, pixels, Block(10, 20, 30, 40))[0]
    taps = kernel_table(kernel).shape[1]
    compared = 0
    for i in range(0, 30, 4):
        for j in range(0, 40, 4):
            # Anew from the definition: the way back, its place in the table, and the change of area.
            tile = np.array([[20.0 + j - 3, 10.0 + i + 5]])
            x, y, area = invert(to_reference).points(tile)[0]
            x, y = (math.floor(v) + round((v - math.floor(v)) * STEPS) / STEPS for v in (x, y))
            expected = oracle.interpolate(image, x, y, lambda t: oracle.kernel_weights(kernel, t), taps)
            if min(x % 1, y % 1, 1 - x % 1, 1 - y % 1) < 2e-3:
                continue  # the place next to a pixel's centre may be counted from either side
            if math.isnan(expected):
                assert np.isnan(ours[i, j])
            else:
                # Places between the nodes are off by up to 1e-3 px here, in noise of 260 ADU a pixel.
                assert ours[i, j] == pytest.approx(expected * area, abs=2.0)
                compared += 1
    assert compared > 40


@pytest.mark.parametrize("scale", [1.1, 0.9, 0.5])
@pytest.mark.parametrize("cfa", ["", "GRBG", "RGB"])
def test_blocks_fit_together_bit_for_bit(tmp_path, cfa, scale):
    image = np.stack([picture(seed=s) for s in range(3)]) if cfa == "RGB" else picture()
    canvas = Canvas(ROWS + 40, COLS + 40, -20, -17)
    made, pixels = source(
        tmp_path, image, curved(turned(33, scale), (0.03, 0.01), 3.0 * scale), canvas, clamp=True, cfa=cfa
    )
    whole = warped(made, pixels, Block(0, 0, canvas.rows, canvas.cols))
    assert 0.1 < np.isfinite(whole).mean() < 0.95
    for top in range(0, canvas.rows, 13):
        for left in range(0, canvas.cols, 29):
            block = Block(top, left, min(13, canvas.rows - top), min(29, canvas.cols - left))
            there = np.s_[:, top : top + block.rows, left : left + block.cols]
            if made.need(block)[1]:
                assert warped(made, pixels, block).tobytes() == whole[there].tobytes()
            else:
                assert np.isnan(whole[there]).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("seed", "scale"), [(0, 1.2), (1, 1.2), (2, 1.2), (0, 0.8), (1, 0.46)])
def test_the_footprint_is_where_the_whole_kernel_lies_on_the_frame(tmp_path, kernel, seed, scale):
    image = picture(seed=seed)
    to_reference = curved(turned(40 * seed + 5, scale), (0.004, -0.002), 0.5 * scale, seed=seed)
    canvas = Canvas(ROWS + 60, COLS + 60, -30, -30)
    made, pixels = source(tmp_path, image, to_reference, canvas, kernel)
    data = np.isfinite(warped(made, pixels, Block(0, 0, canvas.rows, canvas.cols))[0])
    y, x = np.mgrid[: canvas.rows, : canvas.cols]
    tile = np.column_stack([x.ravel() - 30, y.ravel() - 30]).astype(np.float64)
    margin = lost_margin(kernel, False, made.span)
    assert margin == {1.2: 0, 0.8: 1, 0.46: 2}[scale] + KERNELS.index(kernel)
    fx, fy = apply(invert(to_reference), tile).T.reshape(2, canvas.rows, canvas.cols)
    inside = np.minimum.reduce([fx - margin, fy - margin, COLS - 1 - margin - fx, ROWS - 1 - margin - fy])
    close = np.abs(inside) < 5e-3  # on the border itself rounding decides
    np.testing.assert_array_equal(data[~close], (inside > 0)[~close])
    assert close.mean() < 2e-3


def star(x, y, flux, fwhm, rows, cols):
    """A Gaussian star integrated over every pixel."""
    root2_sigma = fwhm / (2 * math.sqrt(math.log(2)))
    row, col = ((np.arange(n) - at) for n, at in ((rows, y), (cols, x)))
    wx, wy = ((erf((d + 0.5) / root2_sigma) - erf((d - 0.5) / root2_sigma)) / 2 for d in (col, row))
    return flux * np.outer(wy, wx)


@pytest.mark.parametrize("kind", ["matrix", "homography", "polynomial"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_flux_is_conserved_wherever_a_star_is(tmp_path, scale, kind):
    rows, cols, fwhm = 200, 240, 5.0  # scaled to half, a star still fills its pixels
    tilt = (0.06, -0.08) if kind == "homography" else (0.0, 0.0)
    matrix = turned(17, scale, (60 * scale, 40 * scale), rows, cols)
    made = curved(matrix, tilt, 3.0 * scale if kind == "polynomial" else 0.0, rows, cols)
    stars = [(40.3, 50.1), (200.2, 30.4), (118.6, 101.2), (45.7, 165.3), (196.1, 150.8)]
    image = sum(star(x, y, 1e5, fwhm, rows, cols) for x, y in stars).astype(np.float32)
    to_reference = matrix if kind == "matrix" else made
    corner_frame = Frame(Path("/f.fits"), "f.fits", rows, cols, "mono", "", fits.Header())
    canvas = frame_up([corner_frame], [to_reference], 0, "union")
    source_, pixels = source(tmp_path, image, to_reference, canvas)
    tile = warped(source_, pixels, Block(0, 0, canvas.rows, canvas.cols))[0]
    y, x = np.mgrid[: canvas.rows, : canvas.cols]
    for at in stars:
        cx, cy = apply(to_reference, np.array([at]))[0] - [canvas.x0, canvas.y0]
        near = np.hypot(x - cx, y - cy) < 15 * scale
        assert np.isfinite(tile[near]).all()
        assert tile[near].sum() == pytest.approx(1e5, rel=5e-3)


def test_the_canvas_of_bent_frames_has_room_for_all_and_holes_for_none(tmp_path):
    image = picture()
    maps = [curved(turned(5 * k, 1.0), (0.02 * k, -0.03), 1.0, seed=k) for k in range(3)]
    frames = [Frame(Path("/f.fits"), "f.fits", ROWS, COLS, "mono", "", fits.Header())] * 3
    union = frame_up(frames, maps, 0, "union")
    inner = frame_up(frames, maps, 0, "intersection", margins=[1] * 3)
    assert inner.rows * inner.cols > 0.5 * ROWS * COLS
    for made in maps:
        source_, pixels = source(tmp_path, image, made, inner)
        assert np.isfinite(warped(source_, pixels, Block(0, 0, inner.rows, inner.cols))).all()
        x, y = apply(made, np.random.default_rng(0).uniform([0, 0], [COLS - 1, ROWS - 1], (5000, 2))).T
        assert union.x0 <= x.min()
        assert x.max() <= union.x0 + union.cols - 1
        assert union.y0 <= y.min()
        assert y.max() <= union.y0 + union.rows - 1


def test_no_bend_is_no_change(tmp_path):
    """A bend of zeros gives what the matrix alone gives, to the rounding of a place."""
    image, canvas = picture(), Canvas(ROWS, COLS)
    flat, pixels = source(tmp_path, image, turned(12), canvas)
    bent, _ = source(tmp_path, image, curved(turned(12)), canvas)
    block = Block(0, 0, ROWS, COLS)
    np.testing.assert_allclose(warped(bent, pixels, block), warped(flat, pixels, block), atol=0.5)


def test_a_feather_follows_the_curved_border(tmp_path):
    to_reference = curved(turned(15), (0.02, -0.02), 2.0)
    canvas = Canvas(ROWS + 40, COLS + 40, -20, -20)
    made, _ = source(tmp_path, picture(), to_reference, canvas)
    share = feather(made, Block(0, 0, canvas.rows, canvas.cols), 12.0)
    inner = np.array([[11.5, y] for y in range(20, 70, 10)])
    halfway = inner - np.array([6.0, 0.0])
    for line, expected in ((inner, 1.0), (halfway, 0.5)):
        x, y = np.rint(apply(to_reference, line) + 20).astype(int).T
        np.testing.assert_allclose(share[y, x], expected, atol=0.11)  # half a pixel of rounding
