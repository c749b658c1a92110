"""The page of a report in a real browser: no errors, no requests, and it does what is clicked."""

import os
import shutil
from dataclasses import replace

import pytest
from playwright.sync_api import sync_playwright

from zmtile import Options, build_tile
from zmtile.looks.skyimage import read_image
from zmtile.report.page import write_report
from zmtile.report.tilereport import report_tile

EVIL = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium (Debian: apt install chromium)")


@pytest.fixture(scope="module")
def file(group, tmp_path_factory):
    """Two tiles, one of which lacks a frame whose name and reason are code."""
    folder = tmp_path_factory.mktemp("page")
    tile = build_tile(group, Options(framing="union"))
    tile.write(folder / "one.fits")
    frames = list(tile.frames)
    frames[3] = replace(frames[3], used=False, name=f"10{EVIL}", reason=EVIL)
    frames[0] = replace(frames[0], name="9.fits")
    tile = replace(tile, frames=tuple(frames), header=tile.header.copy())
    tile.header["OBJECT"] = "<script>alert(1)</script>"
    tile.write(folder / "two.fits")
    reports = [report_tile(read_image(folder / name)) for name in ("two.fits", "one.fits")]
    return write_report(reports, folder / "page.html")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        # Root, as in many containers, has no sandbox.
        browser = playwright.chromium.launch(executable_path=BROWSER, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, file):
    """Open the page at a size; at the end it must have said nothing and asked for nothing."""
    contexts, said, asked = [], [], []

    def opener(width=1280, height=800, **how):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **how))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        return page

    yield opener
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}


def names(page):
    return page.locator("#tile-1 .sortable tbody .name").all_text_contents()


def test_no_text_from_a_header_becomes_code(opened):
    page = opened()
    assert page.title() == "2 master tiles"
    assert page.locator("script").count() == 1
    assert page.locator("#tile-1 .sortable img").count() == 0
    assert EVIL in page.locator("#tile-1 .why").last.text_content()


def test_a_click_on_a_column_sorts_by_it_and_a_second_one_turns_it(opened):
    page = opened()
    before = names(page)
    assert before[0] == "9.fits"
    page.get_by_role("button", name="FWHM px").first.click()
    cells = page.locator("#tile-1 .sortable tbody tr td:nth-child(8)")
    values = [float(text) for text in cells.all_text_contents()]
    assert values == sorted(values)
    page.get_by_role("button", name="FWHM px").first.click()
    assert [float(text) for text in cells.all_text_contents()] == values[::-1]
    header = page.locator("#tile-1 th", has_text="FWHM px")
    assert header.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="frame", exact=True).first.click()
    assert names(page) == [before[0], before[3], *before[1:3]]  # 9 before 10, both before light


def test_what_is_not_known_stays_last_whichever_way(opened):
    page = opened()
    for _ in range(2):
        page.get_by_role("button", name="covers").first.click()
        last = page.locator("#tile-1 .sortable tbody tr").last
        assert "left-out" in last.get_attribute("class")


def test_the_frames_left_out_can_be_shown_alone(opened):
    page = opened()
    page.get_by_label("only the 1 left out").check()
    assert page.locator("#tile-1 tr[data-frame]:visible").count() == 1
    page.get_by_label("only the 1 left out").uncheck()
    assert page.locator("#tile-1 tr[data-frame]:visible").count() == 4


def test_stretch_and_colours_choose_one_picture_of_their_tile(opened):
    page = opened()
    shown = page.locator("#tile-1 .canvas img:visible")
    assert shown.get_attribute("data-colours") == "linked"
    page.locator("#tile-1").get_by_text("asinh", exact=True).click()
    page.locator("#tile-1").get_by_text("blue", exact=True).first.click()
    assert (shown.get_attribute("data-curve"), shown.get_attribute("data-colours")) == ("asinh", "blue")
    assert page.evaluate("document.querySelector('#tile-1 .canvas img:not([hidden])').naturalWidth") > 400
    assert page.locator("#tile-2 .canvas img:visible").get_attribute("data-curve") == "stf"


def test_footprints_are_drawn_on_demand(opened):
    page = opened()
    outlines = page.locator("#tile-1 .outline")
    assert outlines.count() == 3  # of the frames used
    assert not outlines.first.is_visible()
    page.locator("#tile-1").get_by_role("checkbox", name="footprints").check()
    assert outlines.first.is_visible()


def test_a_frame_under_the_mouse_is_told_and_lit_wherever_it_is(opened):
    page = opened()
    mark = page.locator("#tile-1 .chart [data-frame='1']").first
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = page.locator(".tip").text_content()
    assert names(page)[1] in told
    assert mark.get_attribute("aria-label") in told
    assert "lit" in page.locator("#tile-1 tr[data-frame='1']").get_attribute("class")
    assert page.locator("#tile-1 .outline.lit").count() == 1
    assert page.locator("#tile-2 .lit").count() == 0
    page.mouse.move(2, 2)
    assert page.locator("#tile-1 .lit").count() == 0
    assert not page.locator(".tip").is_visible()


def test_a_click_keeps_a_frame_lit(opened):
    page = opened()
    row = page.locator("#tile-1 tr[data-frame='2']")
    row.click()
    page.mouse.move(2, 2)
    assert page.locator("#tile-1 .outline.lit").get_attribute("data-frame") == "2"
    row.click()
    page.mouse.move(2, 2)
    assert page.locator("#tile-1 .lit").count() == 0


def paper(page):
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_system_is_until_the_button_says_otherwise(opened, scheme):
    page = opened(color_scheme=scheme)
    assert (paper(page) > 384) == (scheme == "light")
    page.get_by_role("button", name="Light or dark").click()
    assert (paper(page) > 384) == (scheme == "dark")
    page.emulate_media(media="print")
    assert paper(page) == 3 * 255


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_but_the_table_is_wider_than_the_screen(opened, width):
    page = opened(width=width, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#tile-1 .stage").bounding_box()["width"] <= width


def test_a_finger_need_not_hit_a_mark(opened):
    page = opened(width=360, has_touch=True)
    mark = page.locator("#tile-1 .chart [data-frame='1']").first
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] + 6, box["y"] - 6)
    assert mark.get_attribute("aria-label") in page.locator(".tip").text_content()


def test_it_prints(opened, tmp_path):
    page = opened()
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
