"""The generator of simulated groups: what it calls the truth is in the pixels."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from click.testing import CliRunner
from make_group import (
    GroupSpec,
    Truth,
    artefacts,
    frame_header,
    from_ideal,
    main,
    read_truth,
    render_frame,
    scene,
    to_ideal,
    to_reference,
    truth_of,
    write_group,
)

SMALL = GroupSpec(frames=4, rows=120, cols=160, stars=30, dither=8)
# Bright stars on a flat sky: what is measured is limited by the rounding to integers only.
CLEAN = GroupSpec(
    frames=4,
    rows=240,
    cols=320,
    cfa=None,
    stars=25,
    flux=(1e5, 4e5),
    dither=12,
    flip=True,
    gradient=0,
    noise=0,
    gain=None,
    trails=0,
    hot_pixels=0,
    cosmic_rays=0,
    nebula=False,
)


# A strong lens, and frames that lean.
BENT = replace(CLEAN, lens=-0.05, tilt=0.03)


def isolated_stars(spec, truth, k, margin):
    """Yield (star, x, y) in frame pixels for stars `margin` from the border and from each other."""
    xy = from_ideal(spec, truth, k, np.column_stack([truth.x, truth.y]))
    for star, (x, y) in enumerate(xy):
        inside = margin <= x <= spec.cols - 1 - margin and margin <= y <= spec.rows - 1 - margin
        apart = np.sort(np.hypot(*(xy - (x, y)).T))[1] > 2 * margin
        if inside and apart:
            yield star, x, y


def aperture(image, x, y, half):
    x, y = round(x), round(y)
    return image[y - half : y + half + 1, x - half : x + half + 1].astype(float)


def test_a_rotation_leads_from_frame_to_reference():
    truth, points = truth_of(CLEAN), np.random.default_rng(0).uniform(0, 200, (20, 2))
    for k, matrix in enumerate(truth.matrices):
        # The transpose of a rotation is its inverse.
        np.testing.assert_allclose(
            from_ideal(CLEAN, truth, k, points), (points - matrix[:, 2]) @ matrix[:, :2]
        )
        np.testing.assert_allclose(
            to_reference(CLEAN, truth, k, points), points @ matrix[:, :2].T + matrix[:, 2]
        )


def test_a_lens_draws_the_corners_in_by_its_fraction():
    spec = replace(CLEAN, lens=-0.05)
    truth = truth_of(spec)
    ends = np.array([[0.0, 0.0], [319.0, 0.0], [319.0, 239.0], [0.0, 239.0]])
    seen = from_ideal(spec, truth, 0, ends)
    np.testing.assert_allclose(np.hypot(*(seen - spec.centre).T), 0.95 * spec.corner)
    np.testing.assert_allclose(to_ideal(spec, truth, 0, seen), ends, atol=1e-9)


def test_a_keystone_changes_the_scale_across_the_frame():
    spec = replace(CLEAN, tilt=0.03, rotation=0, dither=0, flip=False)
    truth = truth_of(spec)
    tilt = truth.tilts[1]
    assert 0.015 <= np.hypot(*tilt) <= 0.03
    end = spec.centre + spec.corner * tilt / np.hypot(*tilt)
    moved = to_ideal(spec, truth, 1, end[None])[0] - spec.centre
    np.testing.assert_allclose(moved, (end - spec.centre) / (1 + np.hypot(*tilt)))
    assert (truth.tilts[0] == 0).all()


@pytest.mark.parametrize("k", range(BENT.frames))
def test_bent_maps_lead_there_and_back(k):
    truth = truth_of(BENT)
    points = np.random.default_rng(k).uniform(-20, [340, 260], (50, 2))
    np.testing.assert_allclose(
        from_ideal(BENT, truth, k, to_ideal(BENT, truth, k, points)), points, atol=1e-9
    )
    if k == 0:
        np.testing.assert_allclose(to_reference(BENT, truth, k, points), points, atol=1e-9)


def test_what_a_barrel_would_fold_back_is_not_seen():
    far = BENT.centre + np.array([[0.0, 0.0], [4 * BENT.corner, 0.0]])
    assert np.isfinite(from_ideal(BENT, truth_of(BENT), 0, far)).all(axis=1).tolist() == [True, False]


@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize("k", range(CLEAN.frames))
@pytest.mark.parametrize("beta", [None, 3.5])
def test_a_star_is_where_the_true_transform_puts_it(k, beta, bent):
    spec = replace(BENT if bent else CLEAN, beta=beta)
    truth = truth_of(spec)
    image = render_frame(spec, truth, k) - truth.sky[k, 0, 0]
    found = 0
    for _, x, y in isolated_stars(spec, truth, k, margin=14):
        box = aperture(image, x, y, 9)
        row, col = np.indices(box.shape) - 9
        assert abs((box * col).sum() / box.sum() + round(x) - x) < 0.05
        assert abs((box * row).sum() / box.sum() + round(y) - y) < 0.05
        found += 1
    assert found >= 5


@pytest.mark.parametrize(("beta", "half"), [(None, 9), (3.5, 17)])
def test_a_star_has_its_true_flux(beta, half):
    spec = replace(CLEAN, beta=beta)
    truth = truth_of(spec)
    for k in (0, 3):
        image = render_frame(spec, truth, k) - truth.sky[k, 0, 0]
        stars = list(isolated_stars(spec, truth, k, margin=half + 9))
        assert len(stars) >= 2
        for star, x, y in stars:
            expected = truth.flux[0, star] * truth.transparency[k]
            assert aperture(image, x, y, half).sum() == pytest.approx(expected, rel=1e-3)


def test_the_seeing_is_the_true_fwhm():
    truth = truth_of(CLEAN)
    image = render_frame(CLEAN, truth, 0) - truth.sky[0, 0, 0]
    _, x, y = next(isolated_stars(CLEAN, truth, 0, margin=14))
    box = aperture(image, x, y, 9)
    col = np.indices(box.shape)[1] - 9 - (x - round(x))
    # a pixel's own width adds 1/12 to the variance of the Gaussian
    sigma = np.sqrt((box * col**2).sum() / box.sum() - 1 / 12)
    assert sigma * 2 * np.sqrt(2 * np.log(2)) == pytest.approx(truth.fwhm[0], rel=0.01)


def test_frame_0_is_the_scene_on_its_sky():
    spec = replace(CLEAN, nebula=True, gradient=200)
    truth = truth_of(spec)
    s0, s1, s2 = truth.sky[0, 0]
    row, col = np.indices((spec.rows, spec.cols))
    sky = s0 + s1 * (col - (spec.cols - 1) / 2) + s2 * (row - (spec.rows - 1) / 2)
    expected = scene(spec, truth, 0, fwhm=truth.fwhm[0]) + sky
    np.testing.assert_allclose(render_frame(spec, truth, 0), expected, atol=0.51)
    assert np.hypot(s1, s2) * np.hypot(spec.rows, spec.cols) == pytest.approx(200)


def test_the_nebula_turns_with_the_field():
    spec = replace(CLEAN, stars=0, nebula=True, rotation=0, dither=0, transparency=(0.5, 0.5), sky=100)
    truth = truth_of(spec)
    image = render_frame(spec, truth, 3)[::-1, ::-1] - truth.sky[3, 0, 0]
    nebula = scene(spec, truth, 0)
    assert 30 < nebula.max() < 400
    np.testing.assert_allclose(image, 0.5 * nebula, atol=0.51)


def test_a_bent_nebula_shows_the_same_sky():
    spec = replace(BENT, stars=0, nebula=True, transparency=(1, 1), sky=500)
    truth = truth_of(spec)
    image = render_frame(spec, truth, 2) - truth.sky[2, 0, 0]
    points = np.array([[60.0, 50.0], [160.0, 120.0], [250.0, 200.0]])
    nebula = scene(spec, truth, 0, origin=(-40, -40), shape=(320, 400))
    for point, (x, y) in zip(points, to_reference(spec, truth, 2, points) + 40, strict=True):
        step = np.eye(2)
        (a, b), (c, d) = (
            (
                to_reference(spec, truth, 2, (point + s)[None])
                - to_reference(spec, truth, 2, (point - s)[None])
            )[0]
            for s in step / 2
        )
        i, j = int(y), int(x)
        box, u, v = nebula[i : i + 2, j : j + 2].astype(float), x - j, y - i
        level = np.array([1 - v, v]) @ box @ np.array([1 - u, u])
        seen = image[int(point[1]), int(point[0])]
        assert seen == pytest.approx(level * abs(a * d - b * c), abs=0.6)


def test_a_shifted_scene_is_a_cut_of_the_scene():
    truth = truth_of(SMALL)
    whole = scene(SMALL, truth, 2, origin=(-10, -20), shape=(150, 190), fwhm=3.0)
    cut = scene(SMALL, truth, 2, origin=(5, 7), shape=(60, 50), fwhm=3.0)
    np.testing.assert_allclose(cut, whole[27:87, 15:65], rtol=1e-4, atol=0.02)


@pytest.mark.parametrize("cfa", ["RGGB", "BGGR", "GBRG", "GRBG"])
def test_a_mosaic_picks_the_colours_of_the_cube(cfa):
    spec = replace(SMALL, cfa=cfa, noise=0, gain=None)
    truth = truth_of(spec)
    mosaic, cube = (render_frame(s, truth, 1) for s in (spec, replace(spec, cfa="RGB")))
    assert cube.shape == (3, spec.rows, spec.cols)
    for i, colour in enumerate(cfa):
        site = np.s_[i // 2 :: 2, i % 2 :: 2]
        np.testing.assert_array_equal(mosaic[site], cube["RGB".index(colour)][site])


@pytest.mark.parametrize("cfa", [None, "GRBG", "RGB"])
def test_a_frame_depends_on_its_spec_and_number_only(cfa):
    spec = replace(SMALL, cfa=cfa)
    first = render_frame(spec, truth_of(spec), 2)
    render_frame(spec, truth_of(spec), 1)
    np.testing.assert_array_equal(first, render_frame(spec, truth_of(spec), 2))
    longer = replace(spec, frames=7)
    np.testing.assert_array_equal(first, render_frame(longer, truth_of(longer), 2))
    other = replace(spec, seed=2)
    assert (first != render_frame(other, truth_of(other), 2)).mean() > 0.9


def test_the_noise_is_as_asked_and_starlight_adds_its_own():
    dark = replace(CLEAN, stars=0, noise=20, gain=1.0)
    assert np.std(render_frame(dark, truth_of(dark), 0)) == pytest.approx(20, rel=0.02)
    lit = replace(CLEAN, noise=0.5, gain=0.5)
    truth = truth_of(lit)
    light = scene(lit, truth, 0, fwhm=truth.fwhm[0])
    residual = render_frame(lit, truth, 0) - truth.sky[0, 0, 0] - light
    bright = light > 500
    assert np.std(residual[bright] / np.sqrt(light[bright] / 0.5)) == pytest.approx(1, rel=0.1)


def test_artefacts_are_in_one_frame_and_hot_pixels_in_all():
    spec = replace(CLEAN, stars=0, trails=1, hot_pixels=1e-3, cosmic_rays=20)
    truth = truth_of(spec)
    bad = truth.hot > 0
    assert bad.sum() == round(1e-3 * spec.rows * spec.cols)
    for k in range(2):
        excess = render_frame(spec, truth, k) - truth.sky[k, 0, 0]
        outlier = artefacts(spec, k) > 0
        assert spec.cols // 2 < outlier.sum() < 0.1 * outlier.size
        assert (excess[bad] > 1999).all()
        assert np.abs(excess[~bad & ~outlier]).max() <= 0.51
    assert (artefacts(spec, 0) != artefacts(spec, 1)).any()
    assert not artefacts(replace(spec, trails=0, cosmic_rays=0), 0).any()


def test_the_reference_is_frame_0_and_the_flip_starts_half_way():
    truth = truth_of(CLEAN)
    np.testing.assert_array_equal(truth.matrices[0], [[1, 0, 0], [0, 1, 0]])
    assert truth.transparency[0] == 1
    assert (np.sign(truth.matrices[:, 0, 0]) == [1, 1, -1, -1]).all()
    np.testing.assert_allclose(np.linalg.det(truth.matrices[:, :, :2]), 1)
    centres = truth.matrices @ [*CLEAN.centre, 1]
    assert np.abs(centres - CLEAN.centre).max() <= CLEAN.dither


def test_a_chain_overlaps_by_its_fraction():
    spec = replace(CLEAN, chain=0.3, rotation=0, flip=False)
    truth = truth_of(spec)
    np.testing.assert_allclose(np.diff(truth.matrices[:, 0, 2]), 0.7 * spec.cols)
    assert np.abs(truth.matrices[:, 1, 2]).max() <= spec.dither
    for k in range(spec.frames):
        assert len(list(isolated_stars(spec, truth, k, margin=5))) > 10


@pytest.mark.filterwarnings(
    "ignore:.*Set MJD-OBS:astropy.wcs.FITSFixedWarning"
)  # cameras write DATE-OBS only
def test_the_wcs_agrees_with_the_transforms():
    spec = replace(CLEAN, wcs=True)
    truth = truth_of(spec)
    skies = [WCS(frame_header(spec, truth, k)) for k in range(spec.frames)]
    assert skies[0].wcs_pix2world([spec.centre], 0)[0] == pytest.approx((315.4, 68.1))
    corners = np.array([[0, 0], [319, 0], [0, 239], [319, 239]], float)
    for matrix, sky in zip(truth.matrices, skies, strict=True):
        in_reference = corners @ matrix[:, :2].T + matrix[:, 2]
        expected = skies[0].wcs_pix2world(in_reference, 0)
        np.testing.assert_allclose(sky.wcs_pix2world(corners, 0), expected, rtol=0, atol=1e-9)


def test_a_group_on_disk_is_what_a_camera_writes(tmp_path):
    spec = replace(SMALL, frames=3)
    paths = write_group(spec, tmp_path)
    assert paths == sorted(tmp_path.glob("*.fits"))
    dates = []
    for k, path in enumerate(paths):
        with fits.open(path, do_not_scale_image_data=True) as hdus:
            assert (hdus[0].header["BITPIX"], hdus[0].header["BZERO"]) == (16, 32768)
        data, header = fits.getdata(path, header=True)
        assert data.dtype == np.uint16
        np.testing.assert_array_equal(data, render_frame(spec, truth_of(spec), k))
        assert (header["BAYERPAT"], header["IMAGETYP"], header["EXPTIME"]) == ("GRBG", "Light", 10)
        assert {"OBJECT", "FILTER", "INSTRUME"} <= set(header)
        dates.append(header["DATE-OBS"])
    assert dates == sorted(set(dates))


@pytest.mark.parametrize("cfa", [None, "RGB"])
def test_the_truth_survives_its_file(tmp_path, cfa):
    spec = replace(SMALL, frames=2, cfa=cfa)
    write_group(spec, tmp_path)
    path = tmp_path / "truth" / "truth.fits"
    again, truth = read_truth(path)
    assert again == spec
    for name in Truth.__dataclass_fields__:
        expected = getattr(truth_of(spec), name)
        assert getattr(truth, name).dtype == expected.dtype
        np.testing.assert_array_equal(getattr(truth, name), expected)
    sky = fits.getdata(path)
    assert sky.shape == (spec.channels, spec.rows, spec.cols)
    np.testing.assert_array_equal(sky[-1], scene(spec, truth, spec.channels - 1))
    assert "BAYERPAT" not in fits.getheader(tmp_path / "light_0001.fits")


def test_another_groups_lights_are_not_mixed_in(tmp_path):
    write_group(replace(SMALL, frames=2), tmp_path)
    with pytest.raises(FileExistsError, match=r"light_0002\.fits"):
        write_group(replace(SMALL, frames=1), tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cfa": "XYZW"},
        {"frames": 0},
        {"seed": -1},
        {"chain": 1.5},
        {"fwhm": (3.0, 2.0)},
        {"beta": 0.0},
        {"gain": 0.0},
        {"lens": 0.5},
        {"tilt": -0.01},
        {"wcs": True, "lens": 0.01},
    ],
)
def test_a_spec_that_cannot_be_rendered_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(SMALL, **wrong)


def test_the_command_line_writes_the_group_it_was_asked_for(tmp_path):
    options = (
        "--frames 2 --rows 60 --cols 80 --cfa mono --seed 5 --gain 0 --fwhm 2 3 --no-nebula --flip --wcs"
    )
    result = CliRunner().invoke(main, [str(tmp_path), *options.split()])
    assert result.exit_code == 0, result.output
    assert "truth.fits" in result.output
    spec, _ = read_truth(tmp_path / "truth" / "truth.fits")
    assert spec == GroupSpec(
        frames=2,
        rows=60,
        cols=80,
        cfa=None,
        seed=5,
        gain=None,
        fwhm=(2, 3),
        nebula=False,
        flip=True,
        wcs=True,
    )
    refused = CliRunner().invoke(main, [str(tmp_path), "--frames", "1"])
    assert refused.exit_code == 1
    assert "another group" in refused.output


def test_every_field_of_the_spec_has_an_option():
    names = {parameter.name for parameter in main.params} - {"folder"}
    assert names == set(GroupSpec.__dataclass_fields__)
    assert all(parameter.help for parameter in main.params if parameter.name != "folder")
