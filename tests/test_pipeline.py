"""The promises that only the whole program can keep."""

from __future__ import annotations

import dataclasses
import warnings

import make_group
import numpy as np
import pytest
import threadpoolctl
from astropy.io import fits

from zmtile import FrameError, Options, Resources, TooFewFrames, UsageError, build_tile
from zmtile.memory import MIN_BLOCK_PIXELS
from zmtile.pipeline import plan_tile, stack_plan
from zmtile.registration.transform import apply, compose, corners, invert
from zmtile.stacking import rejection, strips
from zmtile.stacking.canvas import Canvas

SPEC = make_group.GroupSpec(frames=6, rows=360, cols=480, stars=120, seed=3, rotation=8.0, dither=20.0)


@pytest.fixture(scope="module")
def lights(tmp_path_factory):
    return make_group.write_group(SPEC, tmp_path_factory.mktemp("lights"))


@pytest.fixture(scope="module")
def truth():
    return make_group.truth_of(SPEC)


@pytest.fixture(scope="module")
def tile(lights):
    return build_tile(lights, Options(reference=lights[0].name))


def same_pixels(a, b):
    return all(
        getattr(a, plane).tobytes() == getattr(b, plane).tobytes()
        for plane in ("image", "uncert", "weight", "coverage", "rejlow", "rejhigh")
    )


def test_all_frames_are_used_and_every_corner_is_where_truth_says(tile, truth):
    ends = corners(SPEC.rows, SPEC.cols)
    assert all(record.used for record in tile.frames)
    for k, record in enumerate(tile.frames):
        error = np.hypot(*(apply(record.matrix, ends) - apply(truth.matrices[k], ends)).T).max()
        assert error < 0.1, record.name


def test_what_is_thought_ahead_is_what_the_rejection_asks_for(lights):
    build_tile(lights)  # the kernel is compiled now
    rejection._widths.cache_clear()
    plan = plan_tile(lights, resources=Resources(threads=2))
    before = rejection._widths.cache_info()
    rejection.rejection(plan.options, len(plan.frames))
    assert rejection._widths.cache_info().misses == before.misses > 0


def test_coverage_is_that_of_the_true_transforms(tile, truth):
    y, x = np.mgrid[: SPEC.rows, : SPEC.cols]
    xy = np.column_stack([x.ravel(), y.ravel()]).astype(float)
    surely, at_most = np.zeros(len(xy), int), np.zeros(len(xy), int)
    for matrix in truth.matrices:
        fx, fy = apply(invert(matrix), xy).T
        edge = np.minimum.reduce([fx, fy, SPEC.cols - 1 - fx, SPEC.rows - 1 - fy])
        surely += edge >= 4  # cubic kernel, demosaic, rounding
        at_most += edge >= -0.2
    for channel in tile.coverage:
        assert (channel.ravel() >= surely).all()
        assert (channel.ravel() <= at_most).all()
    np.testing.assert_array_equal(np.isnan(tile.image), tile.coverage == 0)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("limit", [48 * 2**20, 200 * 2**20, None])
def test_threads_and_memory_change_no_bit(lights, tile, threads, limit):
    again = build_tile(lights, Options(reference=lights[0].name), Resources(threads, limit))
    assert same_pixels(tile, again)


@pytest.mark.parametrize(("cols", "pixels"), [(37, 1024), (480, 1024), (64, 5000), (33, 16384)])
def test_the_shape_of_blocks_changes_no_bit(lights, tile, monkeypatch, cols, pixels):
    monkeypatch.setattr(strips, "BLOCK_COLS", cols)
    monkeypatch.setattr(strips, "WIDE_BLOCK_PIXELS", 0)
    monkeypatch.setattr(strips, "MAX_BLOCK_PIXELS", pixels)
    blocks = list(strips.blocks_of(Canvas(SPEC.rows, SPEC.cols), len(lights), 3, 2**30))
    assert max(b.cols for b in blocks) == cols
    again = build_tile(lights, Options(reference=lights[0].name))
    assert same_pixels(tile, again)
    assert tile.frames[3].nrejhigh == again.frames[3].nrejhigh


def test_a_frame_without_data_is_refused(tmp_path):
    fits.writeto(tmp_path / "nothing.fits", np.full((64, 64), np.nan, np.float32))
    with pytest.raises(FrameError, match=r"nothing\.fits: it has no data"):
        build_tile([tmp_path])


def test_the_order_of_arguments_changes_no_byte(lights, tmp_path):
    written = []
    for i, order in enumerate((lights, lights[::-1], [lights[k] for k in (3, 0, 5, 1, 4, 2)])):
        written.append(build_tile(order).write(tmp_path / f"{i}.fits").read_bytes())
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize("framing", ["union", "intersection"])
def test_framing_moves_no_value(lights, tile, framing):
    options = Options(reference=lights[0].name, framing=framing)
    other = build_tile(lights, options)
    x0, y0 = other.header["ZMT_X0"], other.header["ZMT_Y0"]
    rows, cols = other.image.shape[1:]
    top, left = max(0, -y0), max(0, -x0)
    bottom, right = min(rows, SPEC.rows - y0), min(cols, SPEC.cols - x0)
    ours = other.image[:, top:bottom, left:right]
    there = tile.image[:, top + y0 : bottom + y0, left + x0 : right + x0]
    # A pixel's place in the frame is rounded from another origin: 1/2048 px at the most.
    finite = np.isfinite(ours) & np.isfinite(there)
    assert finite.mean() > (0.999 if framing == "intersection" else 0.99)
    assert np.median(np.abs(ours - there)[finite]) < 0.01
    if framing == "intersection":
        assert other.coverage.min() == len(lights)
    else:
        assert other.image.shape[1] > SPEC.rows
        assert other.image.shape[2] > SPEC.cols


def border_frames(folder):
    """Three colour frames of one sky, two of which end in NaN at their right or left border."""
    rng = np.random.default_rng(0)
    levels = np.array([900.0, 1000.0, 700.0])[:, None, None]
    paths = []
    for k, hole in enumerate([np.s_[:], np.s_[:, :, :30], np.s_[:, :, -30:]]):
        frame = (levels + rng.normal(0, 5, (3, 64, 96))).astype(np.float32)
        frame[:, :4] = np.nan  # nobody saw these rows
        if k:
            frame[hole] = np.nan
        header = fits.Header({"EXPTIME": 10.0})
        for axis, value in (("1", 180.0), ("2", 40.0)):
            header[f"CTYPE{axis}"] = ("RA---TAN", "DEC--TAN")[int(axis) - 1]
            header[f"CRVAL{axis}"], header[f"CRPIX{axis}"] = value, 30.0
            header[f"CD{axis}_{axis}"] = 1e-3
        path = folder / f"border{k}.fits"
        fits.writeto(path, np.moveaxis(frame, 0, -1) if k == 1 else frame, header)
        paths.append(path)
    return paths


def test_borders_take_only_the_frames_that_cover_them(tmp_path):
    """The seed of the project: no data is NaN, and no border takes on a colour."""
    tile = build_tile(border_frames(tmp_path), Options(align="wcs", reference="border0.fits", weight="none"))
    assert np.isnan(tile.image[:, :4]).all()
    assert (tile.coverage[:, :4] == 0).all()
    body = np.s_[:, 4:]
    assert np.isfinite(tile.image[body]).all()
    coverage = tile.coverage[body]
    assert (coverage[:, :, :30] == 2).all()
    assert (coverage[:, :, 30:-30] == 3).all()
    assert (coverage[:, :, -30:] == 2).all()
    for c, level in enumerate((900, 1000, 700)):
        image = tile.image[c, 4:]
        for part in (image[:, :30], image[:, 30:-30], image[:, -30:]):
            assert abs(part.mean() - level) < 1.0
    colour = tile.image[0, 4:] - tile.image[1, 4:]
    assert abs(colour[:, :30].mean() - colour[:, 30:-30].mean()) < 0.6
    assert abs(colour[:, -30:].mean() - colour[:, 30:-30].mean()) < 0.6


def test_scale_and_offset_of_the_group_go_through(tmp_path, lights):
    """a·x + b on every frame gives a·tile + b."""
    moved = []
    for path in lights[:4]:
        with fits.open(path) as hdus:
            pixels, header = hdus[0].data.astype(np.float32), hdus[0].header
        for key in ("BZERO", "BSCALE"):
            header.remove(key, ignore_missing=True)
        fits.writeto(tmp_path / path.name, 2.0 * pixels + 512.0, header)
        moved.append(tmp_path / path.name)
    options = Options(reference=lights[0].name)
    plain, scaled = build_tile(lights[:4], options), build_tile(moved, options)
    np.testing.assert_array_equal(plain.coverage, scaled.coverage)
    same = (plain.rejlow == scaled.rejlow) & (plain.rejhigh == scaled.rejhigh) & np.isfinite(plain.image)
    assert same.sum() > 0.999 * np.isfinite(plain.image).sum()
    np.testing.assert_allclose(scaled.image[same], 2.0 * plain.image[same] + 512.0, rtol=1e-4)


def test_one_frame_is_a_tile_of_coverage_one(lights):
    tile = build_tile(lights[:1])
    inner = np.s_[:, 1:-1, 1:-1]  # the outermost pixels of a mosaic lack a neighbour
    assert (tile.coverage[inner] == 1).all()
    assert np.isfinite(tile.image[inner]).all()
    with fits.open(lights[0]) as hdus:
        mosaic = hdus[0].data
    np.testing.assert_array_equal(tile.image[1, 2:-2:2, 2:-2:2], mosaic[2:-2:2, 2:-2:2])


def test_normalize_none_leaves_the_values_alone(tmp_path):
    rng = np.random.default_rng(0)
    header = fits.getheader(border_frames(tmp_path)[0])
    for k, level in enumerate((100.0, 300.0)):
        fits.writeto(tmp_path / f"mono{k}.fits", rng.normal(level, 1, (64, 96)).astype(np.float32), header)
    tile = build_tile(
        [tmp_path / "mono0.fits", tmp_path / "mono1.fits"],
        Options(align="wcs", normalize="none", weight="none"),
    )
    assert tile.image.mean() == pytest.approx(200, abs=0.1)


def test_the_frames_table_tells_how_each_value_was_made(tmp_path):
    """SCALE, the sky's six coefficients and MATRIX make a tile's pixel again from the frame's."""
    rng = np.random.default_rng(1)
    header = fits.getheader(border_frames(tmp_path)[0])
    y, x = np.mgrid[:192, :256]
    for k, bend in enumerate((0.0, 50.0)):
        header["CRPIX1"] = 30.0 - 40 * k  # moved by whole pixels: copied, not interpolated
        sky = 500.0 + 30 * k + bend * ((x - 100) * (y - 60) + (x - 80) ** 2) / 128**2
        fits.writeto(tmp_path / f"bent{k}.fits", (sky + rng.normal(0, 1, sky.shape)).astype("f4"), header)
    options = Options(reference="bent0.fits", align="wcs", framing="union", sky_degree=2)
    tile = build_tile([tmp_path / "bent0.fits", tmp_path / "bent1.fits"], options)
    record = tile.frames[1]
    assert abs(record.curve_xx[0]) > 30
    assert abs(record.curve_xy[0]) > 30
    u, v = (x + 40 - (256 - 1) / 2) / 128, (y - (192 - 1) / 2) / 128
    sky = record.offset[0] + record.slope_x[0] * u + record.slope_y[0] * v
    sky += record.curve_xx[0] * u * u + record.curve_xy[0] * u * v + record.curve_yy[0] * v * v
    made = record.scale[0] * fits.getdata(tmp_path / "bent1.fits") + sky
    left = round(record.matrix[0, 2]) - tile.header["ZMT_X0"]
    alone = tile.image[:, left : left + 256][:, -40:]  # no other frame reaches there
    np.testing.assert_allclose(alone, made[:, -40:], atol=1e-3)


def test_min_coverage_blanks_thin_places(lights):
    thin = build_tile(lights, Options(min_coverage=5, reference=lights[0].name))
    np.testing.assert_array_equal(np.isnan(thin.image), thin.coverage < 5)
    assert (thin.coverage < 5).any()


def test_a_min_coverage_that_leaves_nothing_is_refused(lights):
    with pytest.raises(UsageError, match="min coverage is 7, more than the frames used") as caught:
        plan_tile(lights, Options(min_coverage=7))
    assert "--min-coverage 6" in caught.value.remedy
    assert plan_tile(lights, Options(min_coverage=6)).options.min_coverage == 6


def test_feathering_counts_as_memory(lights):
    plain, feathered = (plan_tile(lights, Options(feather=width)) for width in (0, 20))
    shares = 4 * len(lights) * MIN_BLOCK_PIXELS
    workers = Resources().workers
    assert feathered.planned_memory - plain.planned_memory == shares * workers


def test_a_copy_is_used_once(lights, tmp_path, caplog):
    copy = tmp_path / "copy.fits"
    copy.write_bytes(lights[1].read_bytes())
    with caplog.at_level("WARNING", "zmtile"):
        tile = build_tile([*lights[:3], copy])
    assert len(tile.frames) == 3
    assert "same content" in caplog.text


def test_too_small_a_memory_limit_is_refused_before_the_work(lights):
    with pytest.raises(UsageError, match="memory-limit"):
        plan_tile(lights, Options(), Resources(memory_limit=2**20))


def test_min_frames(lights):
    with pytest.raises(TooFewFrames, match="7 are needed"):
        build_tile(lights, Options(min_frames=7))


@pytest.mark.parametrize("kernel", ["bilinear", "lanczos3", "lanczos4"])
@pytest.mark.parametrize("reject", ["winsor-quantile", "sigma", "none"])
def test_kernels_and_rejections_agree_on_the_sky(lights, tile, kernel, reject):
    other = build_tile(lights[:4], Options(reference=lights[0].name, kernel=kernel, reject=reject))
    middle = np.s_[1, 100:260, 100:380]
    assert np.median(other.image[middle]) == pytest.approx(np.median(tile.image[middle]), abs=5)


def test_chained_frames_reach_the_reference_over_neighbours(tmp_path):
    spec = dataclasses.replace(SPEC, frames=5, chain=0.45, rotation=2.0, stars=200, nebula=False)
    paths, truth = make_group.write_group(spec, tmp_path), make_group.truth_of(spec)
    tile = build_tile(paths, Options(framing="union"))
    assert all(record.used for record in tile.frames)
    home = [record.name for record in tile.frames].index(tile.header["ZMT_REF"])
    ends = corners(spec.rows, spec.cols)
    for k, record in enumerate(tile.frames):
        true = compose(invert(truth.matrices[home]), truth.matrices[k])
        assert np.hypot(*(apply(record.matrix, ends) - apply(true, ends)).T).max() < 0.6


def test_a_frame_off_the_canvas_is_left_out_and_not_counted(tmp_path):
    spec = dataclasses.replace(SPEC, frames=5, chain=0.45, rotation=2.0, stars=200, nebula=False)
    paths = make_group.write_group(spec, tmp_path)
    tile = build_tile(paths, Options(reference=paths[0].name))
    used = [record.used for record in tile.frames]
    assert used == [True, True, False, False, False]
    assert all("outside the reference frame" in r.reason for r in tile.frames if not r.used)
    assert tile.header["NCOMBINE"] == 2


def test_align_wcs_leaves_out_what_holds_nothing_or_shows_another_field(tmp_path):
    spec = dataclasses.replace(SPEC, frames=4, wcs=True)
    paths = make_group.write_group(spec, tmp_path)
    with fits.open(paths[0]) as hdus:
        pixels, header = hdus[0].data, hdus[0].header
    fits.writeto(tmp_path / "constant.fits", np.full_like(pixels, 900), header)
    header["CRVAL1"] += 30.0
    fits.writeto(tmp_path / "far.fits", pixels[::-1], header)
    tile = build_tile([tmp_path], Options(align="wcs"))
    reasons = {r.name: r.reason for r in tile.frames if not r.used}
    assert "constant" in reasons["constant.fits"]
    assert "far.fits" in reasons
    assert len(reasons) == 2
    with pytest.raises(TooFewFrames, match="cannot be the reference"):
        build_tile([tmp_path], Options(align="wcs", reference="constant.fits"))


def test_meridian_flip(tmp_path):
    spec = dataclasses.replace(SPEC, frames=4, flip=True)
    tile = build_tile(make_group.write_group(spec, tmp_path))
    assert all(record.used for record in tile.frames)
    assert sum(record.matrix[0, 0] < -0.9 for record in tile.frames) == 2


def test_wcs_of_the_tile_is_that_of_the_frames(tmp_path):
    from astropy.wcs import WCS

    spec = dataclasses.replace(SPEC, frames=3, wcs=True)
    paths, truth = make_group.write_group(spec, tmp_path), make_group.truth_of(spec)
    for options in (Options(framing="union"), Options(align="wcs", framing="union")):
        tile = build_tile(paths, options)
        home = [record.name for record in tile.frames].index(tile.header["ZMT_REF"])
        sky = apply(invert(truth.matrices[home]), np.column_stack([truth.x, truth.y]))
        here = sky - [tile.header["ZMT_X0"], tile.header["ZMT_Y0"]]
        reference = make_group.frame_header(spec, truth, home)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # DATE-OBS without MJD-OBS
            expected = WCS(reference, naxis=2).all_pix2world(sky, 0)
        found = WCS(tile.header, naxis=2).all_pix2world(here, 0)
        np.testing.assert_allclose(found, expected, atol=0.01 / 3600)


@pytest.fixture(scope="module")
def feathered(lights):
    return build_tile(lights, Options(reference=lights[0].name, framing="union", feather=40.0))


def test_feather_weighs_by_the_distance_from_the_outline(lights, feathered):
    x0, y0 = feathered.header["ZMT_X0"], feathered.header["ZMT_Y0"]
    _, rows, cols = feathered.image.shape
    expected = np.zeros((rows, cols))
    for record in feathered.frames:
        for y in range(0, rows, 7):
            for x in range(0, cols, 7):
                fx, fy = apply(invert(record.matrix), np.array([[x + x0, y + y0]], float))[0]
                away = min(fx + 0.5, fy + 0.5, SPEC.cols - 0.5 - fx, SPEC.rows - 0.5 - fy)
                if away >= 3.5:  # the cubic kernel and the demosaic have all their pixels
                    t = min(away / 40, 1.0)
                    expected[y, x] += record.weight[1] * max(t * t * (3 - 2 * t), 1e-3)
    at = np.s_[::7, ::7]
    lost = (feathered.rejlow + feathered.rejhigh)[1][at] > 0
    near = np.abs(feathered.weight[1][at] - expected[at]) < 0.03  # at an outline a sample more or less
    assert near[~lost].mean() > 0.995


def test_a_median_has_no_weights(lights):
    tile = build_tile(lights, Options(reference=lights[0].name, combine="median"))
    assert tile.header["ZMT_WGHT"] == "none"
    assert all(set(np.ravel(record.weight)) == {1.0} for record in tile.frames)
    np.testing.assert_array_equal(tile.weight, tile.coverage - tile.rejlow - tile.rejhigh)


def test_feather_changes_weights_only(lights, feathered):
    plain = build_tile(lights, Options(reference=lights[0].name, framing="union"))
    for plane in ("coverage", "rejlow", "rejhigh"):
        np.testing.assert_array_equal(getattr(plain, plane), getattr(feathered, plane))
    np.testing.assert_array_equal(np.isnan(plain.image), np.isnan(feathered.image))
    assert (feathered.weight[feathered.coverage > feathered.rejlow + feathered.rejhigh] > 0).all()
    single = plain.coverage == 1  # one sample is its own mean, whatever its weight
    np.testing.assert_allclose(feathered.image[single], plain.image[single], rtol=1e-6)
    np.testing.assert_allclose(feathered.uncert[single], plain.uncert[single], rtol=1e-5)
    middle = np.s_[:, 150:250, 200:300]
    np.testing.assert_array_equal(feathered.image[middle], plain.image[middle])


def test_the_shape_of_blocks_changes_no_bit_of_a_feathered_tile(lights, feathered, monkeypatch):
    monkeypatch.setattr(strips, "BLOCK_COLS", 37)
    monkeypatch.setattr(strips, "WIDE_BLOCK_PIXELS", 0)
    monkeypatch.setattr(strips, "MAX_BLOCK_PIXELS", 37 * 11)
    again = build_tile(lights, Options(reference=lights[0].name, framing="union", feather=40.0))
    assert same_pixels(feathered, again)


def test_linear_algebra_has_one_thread_whatever_the_machine_has(lights, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "zmtile.planning.check_mixture", lambda *_: seen.extend(threadpoolctl.threadpool_info())
    )
    with threadpoolctl.threadpool_limits(2, "blas"):
        plan_tile(lights, Options())
    assert {pool["num_threads"] for pool in seen if pool["user_api"] == "blas"} == {1}


def test_weights_that_nobody_asks_for_take_no_memory(lights):
    plans = [plan_tile(lights, Options(planes=planes)) for planes in (("mask",), ("mask", "weight"))]
    pixels = plans[0].canvas.rows * plans[0].canvas.cols * 3
    assert plans[1].planned_memory - plans[0].planned_memory == 4 * pixels
    without, with_weight = (stack_plan(plan) for plan in plans)
    assert np.isnan(without.weight).all()
    assert without.weight.strides == (0, 0, 0)
    assert np.isfinite(with_weight.weight).all()
    assert same_pixels(dataclasses.replace(with_weight, weight=without.weight), without)
    # Who calls it from Python gets all that a tile has.
    assert build_tile(lights).weight.tobytes() == with_weight.weight.tobytes()
