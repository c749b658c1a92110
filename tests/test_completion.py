"""Shells complete commands, options, choices and FITS files: the machinery, and the shells themselves."""

import os
import shutil
import subprocess
import sys

import pytest

from zmtile.completion import fits_files
from zmtile.frames.inputs import SUFFIXES
from zmtile.options import REJECTIONS

FILES = (
    "light_1.fits",
    "light_2.FIT",
    "b.fts.gz",
    "notes.txt",
    ".hidden.fits",
    "my frames/a.fits",
    "sub/c.fz",
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values(incomplete):
    return [item.value for item in fits_files(incomplete)]


def test_fits_files_and_folders_are_offered(folder):
    assert values("") == ["b.fts.gz", "light_1.fits", "light_2.FIT", "my frames/", "sub/"]
    assert values("light_2") == ["light_2.FIT"]
    assert values("my frames/") == ["my frames/a.fits"]
    assert values(f"{folder}/b") == [f"{folder}/b.fts.gz"]
    assert values(".h") == [".hidden.fits"]
    assert values("nowhere/x") == []


def test_what_was_typed_stays(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert values("~/li") == ["~/light_1.fits", "~/light_2.FIT"]


def asked(shell, words, at):
    """What click answers to a shell's script."""
    env = {"_ZMTILE_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    done = subprocess.run(
        [sys.executable, "-m", "zmtile"], env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "at", "offered"),
    [
        ("zmtile bu", 1, ["plain,build"]),
        ("zmtile build --reject w", 3, ["plain,winsor", "plain,winsor-quantile"]),
        ("zmtile build --fla", 2, ["plain,--flat"]),
        ("zmtile build --flat l", 3, ["fits,light_1.fits", "fits,light_2.FIT"]),
        ("zmtile rebuild my", 2, ["fits,my frames"]),
        ("zmtile check -q light_1.fits l", 4, ["fits,light_1.fits", "fits,light_2.FIT"]),
        ("zmtile preview --curve a", 3, ["plain,asinh"]),
        ("zmtile config ", 2, ["plain,show"]),
    ],
)
def test_click_answers(words, at, offered):
    assert asked("bash", words, at) == offered


def test_every_choice_is_offered():
    assert asked("bash", "zmtile build --reject ", 3) == [f"plain,{name}" for name in REJECTIONS]


def test_completion_imports_nothing_heavy():
    code = (
        "import sys; from zmtile.cli import cli\n"
        "try: cli.main([])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'astropy', 'numba', 'rich', 'scipy', 'tomllib'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    env = {"_ZMTILE_COMPLETE": "bash_complete", "COMP_WORDS": "zmtile build l", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def shell(request, tmp_path_factory, monkeypatch):
    """Run a script in a shell, in which `zmtile` is this package."""
    name = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    place = tmp_path_factory.mktemp("bin")
    (place / "zmtile").write_text(f"#!/bin/sh\nexec '{sys.executable}' -m zmtile \"$@\"\n")
    (place / "zmtile").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")

    def run(script, *flags):
        done = subprocess.run(
            [name, *flags, "-c", script], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


# compopt works within a completion only.
BASH = """
eval "$(_ZMTILE_COMPLETE=bash_source zmtile)"
compopt() { asked="$2"; }
COMP_WORDS=(zmtile build %s)
COMP_CWORD=2
_zmtile_completion zmtile
printf '%%s\\n' "$asked" "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("shell", ["bash"], indirect=True)
def test_bash(shell):
    assert shell(BASH % "li").splitlines() == ["filenames", "light_1.fits", "light_2.FIT"]
    assert "my frames" in shell(BASH % r"'my\ f'").splitlines()
    assert "--flat" in shell(BASH % "--fl").splitlines()
    assert "complete -o nosort -F" in shell("_ZMTILE_COMPLETE=bash_source zmtile")


@pytest.mark.parametrize("shell", ["fish"], indirect=True)
def test_fish(shell):
    def offered(line):
        told = shell(f"_ZMTILE_COMPLETE=fish_source zmtile | source; complete -C '{line}'", "--no-config")
        return [line.split("\t")[0] for line in told.splitlines()]

    assert offered("zmtile build li") == ["light_1.fits", "light_2.FIT"]
    assert offered("zmtile build my") == ["my frames/"]
    assert offered("zmtile build --reject win") == ["winsor", "winsor-quantile"]
    assert offered("zmtile reb") == ["rebuild"]


# A shell inside of a shell, with a terminal between them; it waits for what it has to see.
ZSH = r"""
zmodload zsh/zpty
zpty inner zsh -f -i
zpty -w inner 'PS1=; TERM=dumb; autoload -Uz compinit; compinit -u -D'
zpty -w inner 'eval "$(_ZMTILE_COMPLETE=zsh_source zmtile)"; echo REA""DY'
zpty -r -m inner out '*READY*' || exit 1
"""
ZSH_TRY = r"""
zpty -n -w inner $'{typed}\t'
zpty -r -m inner out '*{seen}*' || exit 1
zpty -n -w inner $'\C-u'
"""


@pytest.mark.parametrize("shell", ["zsh"], indirect=True)
def test_zsh(shell):
    tries = {
        "zmtile reb": "rebuild ",
        "zmtile build b": "b.fts.gz ",
        "zmtile build my": r"my\\ frames/",
        "zmtile build --reject min": "minmax ",
    }
    shell(ZSH + "".join(ZSH_TRY.format(typed=typed, seen=seen) for typed, seen in tries.items()), "-f")
    source = shell("_ZMTILE_COMPLETE=zsh_source zmtile", "-f")
    assert all(suffix.lstrip(".") in source for suffix in SUFFIXES)


def test_the_scripts_have_their_branch_for_fits_files():
    for shell in ("bash", "zsh"):
        env = os.environ | {"_ZMTILE_COMPLETE": f"{shell}_source"}
        done = subprocess.run(
            [sys.executable, "-m", "zmtile"], env=env, capture_output=True, text=True, check=True
        )
        assert "fits" in done.stdout
