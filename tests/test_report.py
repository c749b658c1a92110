"""Reports: what the page shows is what the tile holds, and it stays small."""

import base64
import io
import json
import math
import re
import shlex
from dataclasses import fields, replace
from html.parser import HTMLParser

import click
import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_choices import choices, files

from zmtile import Options, UsageError, build_tile
from zmtile.cli import cli
from zmtile.clioptions import stacking_options
from zmtile.commands.build import build
from zmtile.frames.inputs import expand
from zmtile.looks.skyimage import SkyImage, read_image
from zmtile.report import pictures
from zmtile.report.charts import coverage_chart, frame_charts, not_matched, rejected_share, sky_above
from zmtile.report.command import command_of, input_list, unlisted
from zmtile.report.maps import colour_maps, round_steps
from zmtile.report.outlines import outlines
from zmtile.report.page import page_of
from zmtile.report.pictures import BUDGET, sky_pictures
from zmtile.report.texts import shown
from zmtile.report.tilereport import report_tile
from zmtile.tiles.keywords import file_text
from zmtile.tiles.recipe import read_recipe

EVIL = "<script>alert(1)</script>\x07 \"'&"


@pytest.fixture(scope="module")
def path(group, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "master_tile.fits"
    build_tile(group, Options(framing="union")).write(path)
    return path


@pytest.fixture(scope="module")
def sky(path):
    return read_image(path)


def sky_of(image):
    return SkyImage("x.fits", np.asarray(image, np.float32), None, fits.Header())


def pixels(url):
    head, _, data = url.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def rewritten(sky, path, header=(), **changes):
    """The tile with other frames or cards, as a file."""
    tile = replace(sky.tile, header=sky.tile.header.copy(), **changes)
    tile.header.update(header)
    tile.write(path)
    return read_image(path)


def test_there_is_a_picture_of_each_stretch_and_channel_with_no_data_transparent(sky):
    made = sky_pictures(sky)
    assert {(p.curve, p.colours) for p in made} == {
        (curve, colours)
        for curve in ("stf", "asinh")
        for colours in ("linked", "unlinked", "red", "green", "blue")
    }
    inside = np.isfinite(sky.image).all(axis=0)
    assert not inside.all()
    for picture in made[:2]:
        np.testing.assert_array_equal(pixels(picture.data)[..., 3] == 255, inside)


def test_a_channel_alone_is_grey(sky):
    red = next(p for p in sky_pictures(sky) if p.colours == "red")
    shown = pixels(red.data).astype(int)
    assert np.abs(shown[..., 0] - shown[..., 2]).max() < 8  # WebP rounds colours


def test_pictures_are_made_smaller_until_they_fit(monkeypatch):
    noise = sky_of(np.random.default_rng(0).normal(500, 20, (3, 400, 800)))
    monkeypatch.setattr(pictures, "BUDGET", 300_000)
    made = sky_pictures(noise)
    assert 100_000 < sum(len(p.data) for p in made) <= 300_000 * 4 / 3 + 40 * len(made)
    assert pixels(made[0].data).shape[:2] == (200, 400)


def test_maps_have_the_shape_of_the_tile_and_a_scale_of_round_numbers(sky):
    maps = {m.name: m for m in colour_maps(sky.tile, bottom_up=False)}
    assert list(maps) == ["Coverage", "Uncertainty", "Rejected above", "Rejected below"]
    assert [label for _, label in maps["Coverage"].ticks] == ["0", "1", "2", "3", "4"]
    assert [place for place, _ in maps["Coverage"].ticks] == [0, 0.25, 0.5, 0.75, 1]
    shown = pixels(maps["Coverage"].data)
    np.testing.assert_array_equal(shown[..., 3] == 255, (sky.coverage > 0).any(axis=0))
    full = (sky.coverage == 4).all(axis=0)
    np.testing.assert_array_equal(np.unique(shown[full], axis=0), [[253, 231, 37, 255]])  # the bright end
    assert pixels(maps["Rejected above"].data).shape == shown.shape


def test_an_end_of_a_scale_says_where_values_lie_beyond_it(sky):
    ramp = np.linspace(1, 2, 40_000, dtype=np.float32).reshape(200, 200)
    full = np.full(ramp.shape, 1000, np.uint16)
    few, one = np.zeros_like(full), np.zeros_like(full)
    few[:, :100] = np.linspace(0, 100, 20_000).reshape(200, 100).astype(np.uint16)
    one[0, 0] = 500
    tile = replace(sky.tile, image=ramp, uncert=ramp, weight=ramp, coverage=full, rejhigh=few, rejlow=one)
    maps = {m.name: m for m in colour_maps(tile, bottom_up=False)}
    assert {name: (m.below, m.above) for name, m in maps.items()} == {
        "Coverage": ("", ""),
        "Uncertainty": ("≤ 1.005", "≥ 1.995"),
        "Rejected above": ("", f"≥ {np.quantile(few / 10, 0.995):.2f}"),
        "Rejected below": ("", "≥ 1.00"),
    }


def test_a_scale_of_one_value_has_nothing_beyond(sky):
    flat = np.full((20, 20), 3.7, np.float32)
    none = np.zeros(flat.shape, np.uint16)
    tile = replace(
        sky.tile, image=flat, uncert=flat, weight=flat, coverage=none + 4, rejlow=none, rejhigh=none
    )
    assert {m.below + m.above for m in colour_maps(tile, bottom_up=False)} == {""}


def test_a_bottom_up_tile_is_turned_over_with_its_outlines(sky):
    upright, over = (next(colour_maps(sky.tile, turned)) for turned in (False, True))
    np.testing.assert_array_equal(pixels(over.data), pixels(upright.data)[::-1])
    for a, b in zip(outlines(sky.tile, False), outlines(sky.tile, True), strict=True):
        np.testing.assert_allclose(b.corners[:, 1], sky.image.shape[1] - a.corners[:, 1])


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_round_steps_lie_within_the_scale_and_are_few(low, width):
    high = low + width
    if high - low < 1e-9 * abs(low):
        return
    steps = round_steps(low, high)
    assert 1 <= len(steps) <= 6
    slack = 1e-6 * width + 1e-9 * abs(low)
    assert all(low - slack <= value <= high + slack for value, _ in steps)


def test_outlines_are_where_the_coverage_says(sky):
    """Every pixel with data lies within the outlines, all pixels well within them have data."""
    from PIL import ImageDraw

    def counted(margin):
        total = np.zeros(sky.image.shape[1:], int)
        for outline in outlines(sky.tile, bottom_up=False):
            one, middle = Image.new("1", total.shape[::-1]), outline.corners.mean(axis=0)
            out = outline.corners - middle
            moved = middle + out + margin * np.sign(out) - 0.5
            ImageDraw.Draw(one).polygon([tuple(corner) for corner in moved], fill=1)
            total += np.asarray(one)
        return total

    assert (counted(1) >= sky.coverage).all()
    assert (counted(-5) <= sky.coverage).all()
    assert counted(-5).max() == 4


def test_a_bent_map_bends_its_outline(sky):
    frame = sky.tile.frames[1]
    bend = frame.bend.copy()
    bend[6] = 9.0  # px of u² in x
    tile = replace(sky.tile, frames=(sky.tile.frames[0], replace(frame, bend=bend, model="poly2")))
    straight, bent = outlines(tile, bottom_up=False)
    assert len(straight.corners) == 4
    assert len(bent.corners) == 32
    flat = outlines(sky.tile, bottom_up=False)[1]
    assert np.abs(bent.corners[[0, 8, 16, 24]] - flat.corners).max() < 12


def test_charts_have_a_mark_for_every_frame_and_channel_and_tell_the_value(sky):
    frames = sky.tile.frames
    charts = {c.title: c.svg for c in frame_charts(sky.tile, "none of them")}
    assert set(charts) >= {"FWHM", "Residual", "Sky above the reference", "Scale", "Weight", "Rejected"}
    assert re.findall(r'data-frame="(\d)"', charts["FWHM"]) == ["0", "1", "2", "3"]
    assert re.findall(r'aria-label="FWHM ([\d.]+) px"', charts["FWHM"]) == [f"{f.fwhm:.2f}" for f in frames]
    assert len(re.findall("data-frame", charts["Scale"])) == 12
    assert "http" not in charts["FWHM"].replace("http://www.w3.org/", "")


def test_the_reference_is_known_by_its_name_whatever_the_header_makes_of_it(sky, tmp_path):
    name = "night 1/é%.fits"
    frames = (replace(sky.tile.frames[0], name=name), *sky.tile.frames[1:])
    told = rewritten(sky, tmp_path / "tile.fits", {"ZMT_REF": file_text(name)}, frames=frames)
    assert [row.kind for row in report_tile(told).table] == ["reference", "used", "used", "used"]


def test_what_no_frame_has_gets_no_chart_and_frames_that_were_left_out_stand_apart(sky):
    nothing = (math.nan,) * 3
    lost = replace(sky.tile.frames[0], used=False, rms=math.nan, scale=nothing, offset=nothing, nmatch=0)
    tile = replace(sky.tile, frames=(lost, lost))
    charts = {c.title: c.svg for c in frame_charts(tile, "")}
    assert {"FWHM", "Noise before scaling"} <= set(charts)
    assert not {"Residual", "Stars matched", "Scale", "Sky above the reference"} & set(charts)
    assert charts["FWHM"].count("#d9822b") == 2


@pytest.mark.parametrize(
    ("normalize", "sky_shown", "scale_shown"),
    [
        ("none", False, False),
        ("offset", True, False),
        ("scale", False, True),
        ("both", True, True),
        ("surface", True, True),
        (None, False, False),
    ],
)
def test_what_was_not_matched_gets_no_chart_and_a_line_says_why(sky, normalize, sky_shown, scale_shown):
    tile = replace(sky.tile, header=sky.tile.header.copy())
    if normalize is None:
        del tile.header["ZMT_NORM"]
    else:
        tile.header["ZMT_NORM"] = normalize
    titles = {chart.title for chart in frame_charts(tile, "")}
    assert ("Sky above the reference" in titles, "Scale" in titles) == (sky_shown, scale_shown)
    told = not_matched(tile)
    left_out = told.partition(":")[0]
    assert ("sky above the reference" not in left_out, "scale" not in left_out) == (sky_shown, scale_shown)
    assert told == "" or (normalize or "no ZMT_NORM") in told


def test_the_page_says_which_charts_are_left_out(sky, tmp_path):
    report = report_tile(rewritten(sky, tmp_path / "none.fits", {"ZMT_NORM": "none", "ZMT_SDEG": 0}))
    assert report.no_charts.startswith("No charts of sky above the reference and scale: ")
    assert report.no_charts in page_of([report])


def test_a_single_frame_gets_an_axis_with_its_value_in_the_middle(group, tmp_path):
    tile = build_tile(group[:1], Options())
    tile.write(tmp_path / "one.fits")
    report = report_tile(read_image(tmp_path / "one.fits"))
    charts = {chart.title: chart.svg for chart in report.charts}
    assert "Residual" not in charts
    labels = [float(text) for text in re.findall(r"<text[^>]*>([\d.]+)</text>", charts["FWHM"])]
    assert labels.pop(0) == 1  # the number of the frame
    assert min(labels) < tile.frames[0].fwhm < max(labels)
    assert [label for _, label in report.maps[0].ticks] == ["0", "1"]


def test_the_rejected_share_counts_samples_of_the_frame(sky):
    """The sum over frames is that over the planes."""
    size = sky.image.size
    samples = [f.footprint * size for f in sky.tile.frames]
    rejected = sum(rejected_share(f, size) * n for f, n in zip(sky.tile.frames, samples, strict=True))
    assert rejected == pytest.approx(sky.tile.rejlow.sum() + sky.tile.rejhigh.sum())
    assert math.isnan(rejected_share(replace(sky.tile.frames[0], footprint=0.0), size))


def test_the_sky_above_the_reference_is_what_was_taken_away(sky):
    frame = replace(sky.tile.frames[0], offset=(-12.0, 0.0, 3.0))
    assert sky_above(frame) == (12.0, 0.0, -3.0)
    assert math.copysign(1, sky_above(frame)[1]) == 1


@settings(deadline=None)
@given(choices())
@example(Options(kappa=(2.3456789, 3.0)))
@example(Options(bias="my bias.fits", dark="$d.fits", reference="it's.fits"))
def test_the_command_gives_the_same_options_again(chosen):
    words = shlex.split(command_of(chosen, "again it's.fits").replace(" \\\n  ", " "))
    assert words[:3] == ["zmtile", "build", "@frames.txt"]
    assert words[-2:] == ["--output", "again it's.fits"]
    context = build.make_context("build", words[2:], click.Context(cli))
    values = {field.name: context.params[field.name] for field in fields(Options)}
    assert stacking_options(context, values) == chosen


def test_numbers_in_the_command_are_short():
    told = command_of(Options(kappa=(2.3456789, 3.0), feather=100.0, fill=-0.1), "t.fits")
    assert "--kappa 2.3456789 3 " in told
    assert "--feather 100 " in told
    assert "--fill -0.1 " in told


def test_the_command_and_the_list_make_the_tile_again(path, sky, group, tmp_path):
    listed = tmp_path / "frames.txt"
    listed.write_text(
        "".join(f"{group[0].parent / name}\n" for name in input_list(sky.tile.frames).splitlines())
    )
    words = shlex.split(
        command_of(read_recipe(path).options, str(tmp_path / "again.fits")).replace("\\\n", "")
    )
    words[2] = f"@{listed}"
    assert CliRunner().invoke(cli, words[1:]).exit_code == 0
    again = read_image(tmp_path / "again.fits")
    np.testing.assert_array_equal(again.image, sky.image)


@pytest.mark.parametrize(
    ("masters", "told"),
    [
        ({}, None),
        (
            {"flat": "flat.fits"},
            "Of its flat a tile knows the file name, not the folder: put the file into",
        ),
        (
            {"dark": "d.fits", "flat": "f.fits"},
            "Of its dark and flat a tile knows the file names, not the fo",
        ),
        (
            {"bias": "b.fits", "dark": "d.fits", "flat": "none"},
            "Of its bias, dark and flat a tile knows the file names, not the folder: put the files into",
        ),
    ],
)
def test_the_page_says_where_to_put_the_masters_that_the_command_names(sky, tmp_path, masters, told):
    cards = {f"ZMT_{kind.upper()}": name for kind, name in masters.items()}
    proofs = {f"ZMT_{kind[0].upper()}SHA": "ab" * 8 for kind in masters}
    report = report_tile(rewritten(sky, tmp_path / "masters.fits", cards | proofs))
    text = page_of([report])
    assert all(f"--{kind} {name}" in report.command for kind, name in masters.items())
    assert told in text if told else "not the folder" not in text


def test_a_header_that_does_not_tell_every_option_says_so_in_place_of_the_command(sky, tmp_path):
    header = sky.tile.header.copy()
    del header["ZMT_GROW"]
    replace(sky.tile, header=header).write(tmp_path / "older.fits")
    report = report_tile(read_image(tmp_path / "older.fits"))
    assert report.command == ""
    assert report.no_command == "its header does not tell what --grow was (no ZMT_GROW)"
    assert report.no_command in page_of([report])


def named(sky, *names):
    return tuple(replace(sky.tile.frames[0], name=name) for name in names)


def test_a_name_that_a_list_would_take_for_something_else_is_written_as_a_path(sky):
    frames = named(sky, "#1.fits", "@2.fits", "a/3.fits", "\u30004.fits")
    assert input_list(frames) == "./#1.fits\n./@2.fits\na/3.fits\n./\u30004.fits\n"


ODD = st.sampled_from(
    [" ", "\u00a0", "\u3000", "\u200d", "\u2028", "\ufeff", "#", "@", "\n", "\r", "\t", "\u202e", "é"]
)


@settings(deadline=None)
@given(st.sets(files | st.lists(ODD, min_size=1, max_size=4).map("".join), min_size=1, max_size=5))
def test_build_reads_from_the_list_on_the_page_the_names_that_it_holds(sky, tmp_path_factory, chosen):
    folder = tmp_path_factory.mktemp("list")
    for name in chosen:
        (folder / name).touch()
    frames = named(sky, *chosen)
    told = {frame.name for row, frame in enumerate(frames) if row not in unlisted(frames)}
    assert told >= {name for name in chosen if name.isprintable() and name == name.rstrip()}
    listed = folder / "the list.txt"
    listed.write_text(shown(input_list(frames)), encoding="utf-8", newline="")
    assert {path.name for path in expand([f"@{listed}"])} == told


def test_blanks_of_any_width_and_joiners_are_shown_as_they_are(sky, tmp_path):
    names = ("M\u00a094.fits", "星\u3000野.fits", "a\u200db.fits")
    told = rewritten(sky, tmp_path / "names.fits", frames=(*named(sky, *names), sky.tile.frames[3]))
    text = page_of([report_tile(told)])
    assert "\n".join([*names, sky.tile.frames[3].name]) in text
    assert "\N{REPLACEMENT CHARACTER}" not in text


@pytest.mark.parametrize("char", ["\x07", "\t", "\x9f", "\udcff", "\u202e", "\u2066", "\u200f", "\u061c"])
def test_a_name_that_no_page_can_show_takes_the_list_and_the_command_away(sky, tmp_path, char):
    name = f"a{char}b.fits"
    frames = (sky.tile.frames[0], *named(sky, name), *sky.tile.frames[2:])
    header = {"ZMT_REF": file_text(name), "ZMT_ARUL": "by the user"}
    report = report_tile(rewritten(sky, tmp_path / "names.fits", header, frames=frames))
    assert (report.command, report.inputs) == ("", "")
    text = page_of([report])
    assert char not in text
    assert "a\N{REPLACEMENT CHARACTER}b.fits" in text
    assert "a file name in it holds characters that no page can show" in text
    assert "No frames.txt is shown: the name of frame 2 holds characters" in text


class Page(HTMLParser):
    """Collects the elements, with what each loads or refers to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.urls = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data") and v]


def test_text_from_headers_and_names_is_escaped_and_free_of_control_characters(sky, tmp_path):
    last = replace(sky.tile.frames[3], name=EVIL, used=False, reason=EVIL.replace("\x07", "?"))
    frames = (*sky.tile.frames[:3], last)
    evil = rewritten(sky, tmp_path / "evil <b>.fits", {"OBJECT": EVIL.replace("\x07", "")}, frames=frames)
    text = page_of([report_tile(evil)])
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "b" not in page.tags[: page.tags.index("figure")]
    assert "\x07" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_page_refers_to_nothing_outside_of_it(sky, path):
    one = report_tile(sky)
    page = Page(page_of([one, one]))
    assert page.urls
    assert all(url.startswith(("data:", "#")) for url in page.urls)
    assert page.tags.count("section") == 2


def test_a_page_of_200_frames_is_below_3_MB_whatever_the_sky(sky, tmp_path):
    """All but the pictures of the sky is weighed here; these have their budget."""
    rng = np.random.default_rng(0)
    bend = sky.tile.frames[1].bend + np.r_[np.zeros(6), rng.normal(0, 3, 14)]
    frames = [
        replace(
            sky.tile.frames[k % 4],
            name=f"a/folder/of/a/long/name/Light_M_94_10.0s_IRCUT_20250409-{k:06d}.fit",
            bend=bend,
            model="poly3",
            fwhm=3 + rng.normal(),
            scale=tuple(rng.normal(1, 0.1, 3)),
            offset=tuple(rng.normal(0, 100, 3)),
            used=k % 10 > 0,
            reason="" if k % 10 else "no match: 3 of 12 stars agree, and more words that say why it is so",
        )
        for k in range(200)
    ]
    noise = rng.integers(0, 20, sky.image.shape).astype(np.uint16)
    large = rewritten(sky, tmp_path / "200.fits", frames=tuple(frames), rejlow=noise, rejhigh=noise)
    report = report_tile(large)
    text = page_of([report])
    drawn = sum(len(picture.data) for picture in (*report.pictures, *report.maps))
    rest = len(text.encode()) - drawn
    assert text.count("<tr data-frame") == 200
    assert rest + BUDGET * 4 / 3 + 4 * 200_000 < 3_000_000


def test_a_map_of_pure_noise_is_below_200_kB(sky):
    noise = np.random.default_rng(0).integers(0, 999, (3, 560, 560)).astype(np.uint16)
    flat = np.full_like(noise, 999)
    planes = {"image": noise.astype(np.float32), "uncert": noise.astype(np.float32)}
    tile = replace(sky.tile, **planes, weight=planes["image"], coverage=flat, rejlow=noise, rejhigh=noise)
    assert max(len(m.data) for m in colour_maps(tile, False)) < 200_000


def test_a_report_is_written_whole_or_not_at_all(path, tmp_path, monkeypatch):
    import zmtile.report.tilereport

    target = tmp_path / "page.html"
    words = ["report", str(path), "-o", str(target)]
    assert CliRunner().invoke(cli, words).exit_code == 0
    whole = target.read_bytes()
    assert whole.endswith(b"</html>")
    assert CliRunner().invoke(cli, words).exit_code == 2
    monkeypatch.setattr(zmtile.report.tilereport, "sky_pictures", lambda sky: 1 / 0)
    assert CliRunner().invoke(cli, [*words, "--overwrite"]).exit_code == 70
    assert target.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["page.fits", "page", "missing/page.html"])
def test_a_target_that_cannot_be_is_refused_at_once(path, tmp_path, name, monkeypatch):
    import zmtile.looks.skyimage

    monkeypatch.setattr(zmtile.looks.skyimage, "read_image", lambda path: pytest.fail("too late"))
    result = CliRunner().invoke(cli, ["report", str(path), "-o", str(tmp_path / name)])
    assert result.exit_code == 2
    assert name in result.stderr


def test_a_page_never_replaces_its_tile(path, tmp_path):
    before = path.read_bytes()
    (tmp_path / "link.html").symlink_to(path)
    words = ["report", "missing.fits", str(path), "-o", str(tmp_path / "link.html"), "--overwrite"]
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, "one of the inputs" in result.stderr) == (2, True)
    assert path.read_bytes() == before


def test_images_of_other_programs_are_refused(tmp_path):
    fits.PrimaryHDU(np.ones((9, 9), np.float32)).writeto(tmp_path / "other.fits")
    with pytest.raises(UsageError, match="not a tile"):
        report_tile(read_image(tmp_path / "other.fits"))


def test_build_writes_the_report_of_its_tile(group, tmp_path):
    target, page = tmp_path / "tile.fits", tmp_path / "tile.html"
    words = ["build", *map(str, group), "-o", str(target), "--report", str(page), "--json"]
    dry = CliRunner().invoke(cli, [*words, "--dry-run"])
    assert json.loads(dry.stdout)["report"] == str(page)
    assert not page.exists()
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0
    assert "report" in json.loads(result.stdout)["seconds"]
    assert page.read_text() == page_of([report_tile(read_image(target))])


def test_build_refuses_a_report_that_is_no_page_before_anything_is_done(group, tmp_path):
    words = ["build", *map(str, group), "-o", str(tmp_path / "t.fits"), "--report", str(tmp_path / "t.pdf")]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "width"), [(4, 1), (12, 2), (12, 3)])
def test_every_bar_of_the_coverage_has_its_label(count, width):
    first = 10 ** (width - 1)
    parts = [{"from": first + 2 * k, "to": first + 2 * k + 1, "fraction": 1 / count} for k in range(count)]
    svg = coverage_chart(parts).svg
    for part in parts:
        assert f">{part['from']}–{part['to']}<" in svg
