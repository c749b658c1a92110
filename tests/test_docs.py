"""The docs name what there is, and nothing else."""

import re
from pathlib import Path

import click
import make_man
import pytest

from zmtile.cli import cli
from zmtile.commands.build import build
from zmtile.jsonout import report_of
from zmtile.options import Options
from zmtile.pipeline import plan_tile
from zmtile.tiles.keywords import KEYWORDS
from zmtile.tiles.records import COLUMNS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    level, start = (
        re.search(rf"^(#+) {re.escape(title)}\n()", text, re.M).groups()[0],
        text.index(f"# {title}\n"),
    )
    body = text[start + len(title) + 3 :]
    end = re.search(rf"^#{{1,{len(level)}}} ", body, re.M)
    return body[: end.start()] if end else body


def rows(text: str) -> dict[str, str]:
    """Rows of the tables whose first cell is code, by that cell's first word."""
    found = re.findall(r"^\| (`[^|]*) \| (.*)$", text, re.M)
    names = [re.match(r"`([^` ]+)", cell)[1] for cell, _ in found]
    assert len(set(names)) == len(names), "a row is there twice"
    return dict(zip(names, (f"{cell} | {rest}" for cell, rest in found), strict=True))


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_keyword_has_a_row_and_every_row_a_keyword():
    assert set(rows(section(page("docs/tile-format.md"), "Header keywords"))) == {k.name for k in KEYWORDS}


def test_every_column_of_frames_has_a_row_in_the_order_of_the_table():
    documented = rows(section(page("docs/tile-format.md"), "FRAMES"))
    assert list(documented) == [column.name for column in COLUMNS]


def leaves(group: click.Group, before: str = "") -> dict[str, click.Command]:
    """The commands that do something, by their names."""
    found = {}
    for name, command in group.commands.items():
        found |= (
            leaves(command, f"{before}{name} ")
            if isinstance(command, click.Group)
            else {before + name: command}
        )
    return found


COMMANDS = leaves(cli)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_row_with_its_choices_and_default(name):
    command = COMMANDS[name]
    documented = rows(section(page("docs/cli.md"), "Options" if name == "build" else f"zmtile {name}"))
    parameters = command.get_params(click.Context(command, help_option_names=["-h", "--help"]))
    options = {max(p.opts, key=len): p for p in parameters if isinstance(p, click.Option)}
    assert set(documented) == set(options)
    for name, option in options.items():
        for alias in (*option.opts, *option.secondary_opts):
            assert f"`{alias}" in documented[name]
        if isinstance(option.type, click.Choice):
            assert f"| `{option.default}` |" in documented[name]
            assert all(f"`{choice}`" in documented[name] for choice in option.type.choices)


def test_the_manual_page_is_that_of_the_commands_as_they_are():
    assert make_man.PAGE.read_text(encoding="utf-8") == make_man.page(), "run `make man`"


def test_every_exit_code_of_the_help_is_documented():
    codes = set(re.findall(r"^  (\d+) +\w", build.epilog, re.M))
    assert codes
    assert codes == set(re.findall(r"^\| (\d+) \|", section(page("docs/cli.md"), "Exit codes"), re.M))
    assert all(re.search(rf"\b{code}\b", section(page("README.md"), "Use")) for code in codes)


def test_every_field_of_the_json_is_documented(group):
    report = report_of(plan_tile(group, Options()), None, Path("tile.fits"), {})
    text = section(page("docs/cli.md"), "JSON")
    named = set(re.findall(r"`(\w+)`", text))
    assert {*report, *report["frames"][0], *report["canvas"]} <= named


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_resolve(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text(encoding="utf-8")), target


def test_every_reference_of_a_docstring_is_listed():
    cited = {
        key for path in (ROOT / "zmtile").rglob("*.py") for key in re.findall(r"\[(\w+)\]_", path.read_text())
    }
    assert cited
    assert cited <= set(re.findall(r"^- \*\*\[(\w+)\]\*\*", page("docs/references.md"), re.M))


def test_every_module_is_on_the_map():
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "zmtile").rglob("*.py")}
    assert set(rows(section(page("CONTRIBUTING.md"), "Where things are"))) == modules


def test_the_readme_begins_with_the_two_commands():
    first = re.search(r"^```\w*\n(.*?)^```$", page("README.md"), re.M | re.S)[1]
    assert first.split("\n") == ["make demo", "make test", ""]
    targets = page("Makefile")
    assert re.search("^demo:", targets, re.M)
    assert re.search("^test:", targets, re.M)
