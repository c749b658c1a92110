"""Pictures of tiles: what is transparent, what is grey, and which files are refused."""

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from zmtile import Options, UsageError, build_tile
from zmtile.cli import cli
from zmtile.looks.preview import shrunk, write_preview
from zmtile.looks.skyimage import SkyImage, read_image
from zmtile.looks.stretch import CURVES, SKY_LEVEL, stretched


@pytest.fixture(scope="module")
def tile(group, tmp_path_factory):
    path = tmp_path_factory.mktemp("preview") / "master_tile.fits"
    build_tile(group, Options(framing="union")).write(path)
    return path


def sky_of(image, order="TOP-DOWN"):
    return SkyImage("x.fits", np.asarray(image, np.float32), None, fits.Header({"ROWORDER": order}))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_no_data_and_nothing_else_is_transparent(tile, tmp_path, suffix):
    sky = read_image(tile)
    path = write_preview(sky, tmp_path / f"picture.{suffix}")
    pixels = np.asarray(Image.open(path)) if suffix == "png" else tifffile.imread(path)
    inside = np.isfinite(sky.image).all(axis=0)
    assert not inside.all()
    np.testing.assert_array_equal(pixels[..., 3] > 0, inside)
    assert pixels.dtype == (np.uint8 if suffix == "png" else np.uint16)
    assert pixels.shape == (*inside.shape, 4)


def test_a_jpeg_is_black_where_there_is_no_data(tile, tmp_path):
    sky = read_image(tile)
    pixels = np.asarray(Image.open(write_preview(sky, tmp_path / "picture.jpg")))
    assert pixels.shape == (*sky.image.shape[1:], 3)
    assert pixels[:3, :3].max() < 40  # the corner of a union of turned frames; JPEG smears a little


def test_a_mono_image_stays_grey(tmp_path):
    path = write_preview(sky_of(np.random.default_rng(0).normal(100, 5, (1, 20, 30))), tmp_path / "grey.png")
    assert np.asarray(Image.open(path)).shape == (20, 30, 2)


def test_the_lowest_row_comes_first_in_a_bottom_up_file(tmp_path):
    image = np.random.default_rng(0).normal(100, 5, (1, 20, 30))
    image[:, 0] = np.nan
    for order, row in (("TOP-DOWN", 0), ("BOTTOM-UP", 19)):
        picture = Image.open(write_preview(sky_of(image, order), tmp_path / f"{order}.png"))
        assert np.flatnonzero(~np.asarray(picture)[..., -1].any(axis=1)).tolist() == [row]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("linked", [True, False])
def test_the_sky_is_a_dark_grey_in_every_channel(curve, linked):
    rng = np.random.default_rng(1)
    image = rng.normal([[[900.0]], [[700.0]], [[500.0]]], 20, (3, 200, 200)).astype(np.float32)
    image[:, :4, :40] += 30000
    shown = stretched(image, curve, linked)
    sky = np.median(shown, axis=(1, 2))
    np.testing.assert_allclose(sky, sky[0], atol=0.02)
    if curve != "linear":
        np.testing.assert_allclose(sky, SKY_LEVEL, atol=0.02)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=40), st.sampled_from(CURVES))
@example([0.0, 0.0, 3127.0, 2.620428128287408e-43], "stf")
def test_a_stretch_never_turns_the_order_of_pixels(values, curve):
    image = np.array([[values]], np.float32)
    shown = stretched(image, curve)[0, 0]
    assert ((shown >= 0) & (shown <= 1)).all()
    assert (np.diff(shown[np.argsort(image[0, 0], kind="stable")]) >= -1e-6).all()


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12))
def test_shrinking_takes_the_mean_of_the_pixels_with_data(factor, rows, cols):
    image = np.arange(rows * cols, dtype=np.float32).reshape(1, rows, cols)
    image[0, :: max(1, rows // 2), :2] = np.nan
    small = shrunk(image, factor)
    for i in range(small.shape[1]):
        for j in range(small.shape[2]):
            block = image[0, i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
            good = block[np.isfinite(block)]
            expected = good.mean() if good.size else np.nan
            np.testing.assert_allclose(small[0, i, j], expected, rtol=1e-6)


def test_an_image_of_another_program_is_read_with_its_colours_in_any_place(tmp_path):
    colour = np.random.default_rng(2).integers(0, 65535, (3, 8, 9)).astype(np.uint16)
    for name, array in {"planes": colour, "last": np.moveaxis(colour, 0, -1), "mono": colour[0]}.items():
        path = tmp_path / f"{name}.fits"
        fits.writeto(path, array)
        sky = read_image(path)
        np.testing.assert_array_equal(sky.image, colour[:1] if name == "mono" else colour)
        assert sky.coverage is None


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("tile", ["-o", "picture.gif"], "no picture has this suffix"),
        ("tile", ["-o", "picture.png", "--size", "0"], "size is 0"),
        ("missing.fits", ["-o", "picture.png"], "no such file"),
        ("text.fits", ["-o", "picture.png"], "it cannot be read"),
        ("cube.fits", ["-o", "picture.png"], "neither mono nor of three colours"),
        ("table.fits", ["-o", "picture.png"], "it holds no image"),
        ("tile", ["-o", "nowhere/picture.png"], "there is no folder"),
        ("tile", ["-o", "there.png"], "the file exists"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tile, tmp_path, monkeypatch, name, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_bytes(b"mine")
    (tmp_path / "text.fits").write_text("no FITS")
    fits.writeto(tmp_path / "cube.fits", np.zeros((5, 4, 4)))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([])]).writeto(tmp_path / "table.fits")
    before = sorted(p.name for p in tmp_path.iterdir())
    result = CliRunner().invoke(cli, ["preview", str(tile) if name == "tile" else name, *words])
    assert result.exit_code == 2
    assert message in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "there.png").read_bytes() == b"mine"


def test_a_picture_never_replaces_its_tile(tile, tmp_path):
    before = tile.read_bytes()
    (tmp_path / "link.png").symlink_to(tile)
    words = ["preview", str(tile), "-o", str(tmp_path / "link.png"), "--overwrite"]
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, "one of the inputs" in result.stderr) == (2, True)
    assert tile.read_bytes() == before


def test_an_unknown_curve_is_refused(tmp_path):
    with pytest.raises(UsageError, match="curve"):
        write_preview(sky_of(np.zeros((1, 4, 4))), tmp_path / "x.png", curve="magic")
