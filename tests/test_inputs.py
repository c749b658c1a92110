"""From what the user typed to the list of files."""

import logging
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmtile.errors import UsageError
from zmtile.frames.inputs import Named, expand, name_files, natural_key


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files of many names, which is also the working folder."""
    for name in ("f1.fits", "f2.FIT", "f10.fits.gz", "f3.fts.fz", "notes.txt", "deep/f4.fits"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(paths):
    return [p.name for p in paths]


LIGHTS = ["f1.fits", "f2.FIT", "f3.fts.fz", "f10.fits.gz"]


def test_numbers_in_names_count_as_numbers():
    assert sorted(["b1", "a10", "a9", "a", "10", "9"], key=natural_key) == ["9", "10", "a", "a9", "a10", "b1"]


@given(st.lists(st.text(alphabet="ab019/_-. é٣²", max_size=8), unique=True))
def test_natural_order_is_a_total_order(words):
    once = sorted(words, key=natural_key)
    random.Random(0).shuffle(words)
    assert sorted(words, key=natural_key) == once


def test_a_folder_gives_its_fits_files_in_natural_order(folder):
    assert names(expand([folder])) == LIGHTS
    assert all(p.is_absolute() for p in expand(["."]))


def test_files_patterns_folders_and_lists_mix(folder):
    (folder / "lists").mkdir()
    text = "# what was good\r\n\n ../f1.fits \n../deep\n../f1*.fits.gz\n@more.txt\n"
    (folder / "lists" / "list.txt").write_text("\ufeff" + text, encoding="utf-8")
    (folder / "lists" / "more.txt").write_text(f"{folder}/f2.FIT\n")
    assert names(expand(["@lists/list.txt"])) == ["f4.fits", "f1.fits", "f2.FIT", "f10.fits.gz"]
    assert names(expand(["f1.fits", "deep", "f3*"])) == ["f4.fits", "f1.fits", "f3.fts.fz"]
    assert names(expand(["**/f*.fits"])) == ["f4.fits", "f1.fits"]


def test_patterns_in_a_list_work_below_a_folder_with_brackets(folder):
    odd = folder / "night [1]"
    odd.mkdir()
    (odd / "a1.fits").touch()
    (odd / "list.txt").write_text("a*.fits\n")
    assert names(expand([f"@{odd}/list.txt"])) == ["a1.fits"]
    assert names(expand([f"{odd}/a1.fits"])) == ["a1.fits"]


def test_a_file_that_exists_is_itself_whatever_its_name_looks_like(folder):
    for name in ("@odd.fits", "f[1].fits", "all*.fits"):
        (folder / name).touch()
        assert names(expand([name])) == [name]


def test_the_order_of_the_arguments_has_no_influence(folder):
    arguments = ["deep", "f10.fits.gz", "f2.FIT", "f1.fits"]
    assert expand(arguments) == expand(arguments[::-1])


def test_a_file_named_twice_is_listed_once_and_said_so(folder, caplog):
    (folder / "link.fits").symlink_to("f1.fits")
    with caplog.at_level(logging.WARNING, "zmtile"):
        assert names(expand(["f1.fits", "./f1.fits", "link.fits", "f2.FIT"])) == ["f1.fits", "f2.FIT"]
    (message,) = caplog.messages
    assert "f1.fits" in message
    assert "used once" in message


def test_a_tile_beside_its_frames_is_passed_over(folder, caplog):
    tile = folder / "master_tile_M94_IRCUT.fits"
    tile.touch()
    assert names(expand([folder])) == LIGHTS
    assert names(expand(["*.fits"])) == ["f1.fits"]
    assert not caplog.messages
    with caplog.at_level(logging.WARNING, "zmtile"):  # as the shell expands *.fits
        assert names(expand(["f1.fits", tile])) == ["f1.fits"]
    assert tile.name in caplog.text
    assert names(expand([tile])) == [tile.name]  # the reader will say what is wrong with it


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("missing.fits", "missing.fits: no such file"),
        ("x*.fits", "no file matches"),
        ("empty", "no FITS file in this folder"),
        ("", "empty"),
        ("@missing.txt", "missing.txt: the list cannot be read"),
        ("@binary.txt", "binary.txt: the list cannot be read"),
        ("@itself.txt", "names itself"),
        ("@wrong.txt", "gone.fits: no such file"),
        ("n" * 5000, "cannot be looked at"),
        ("@", "cannot be read"),
    ],
)
def test_what_names_nothing_is_an_error(folder, argument, message):
    (folder / "empty").mkdir()
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    (folder / "itself.txt").write_text("f1.fits\n@other.txt\n")
    (folder / "other.txt").write_text("@itself.txt\n")
    (folder / "wrong.txt").write_text("f1.fits\ngone.fits\n")
    with pytest.raises(UsageError, match=message) as caught:
        expand(["f1.fits", argument])
    assert caught.value.remedy


def test_a_folder_that_may_not_be_read_is_an_error(folder):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (folder / "deep").chmod(0)
    try:
        for argument in ("deep", "deep/f4.fits"):
            with pytest.raises(UsageError, match="deep"):
                expand([argument])
    finally:
        (folder / "deep").chmod(0o700)


def test_names_are_what_tells_the_paths_apart(folder):
    (folder / "n2").mkdir()
    (folder / "n2" / "f4.fits").write_text("another")
    files = name_files(["n2", "deep"])
    assert list(files) == [folder / "deep/f4.fits", folder / "n2/f4.fits"]
    assert files.names == ("deep/f4.fits", "n2/f4.fits")
    assert name_files(["deep/f4.fits"]).names == ("f4.fits",)
    assert name_files([]) == Named((), ())


def test_files_that_have_names_keep_them_and_their_order():
    files = Named((Path("/b/2.fits"), Path("/a/1.fits")), ("first.fits", "second.fits"))
    assert name_files(files) is files
    assert files[::-1] == (Path("/a/1.fits"), Path("/b/2.fits"))
