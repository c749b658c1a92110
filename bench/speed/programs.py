"""The programs that are compared: zmtile, and those of the others that are installed."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from running import Program

__all__ = ["ALL_PLANES", "installed", "zmtile"]

ALL_PLANES = ("--framing", "union", "--planes", "all")
_SIRIL = """requires 1.0.0
setcpu {threads}
cd "{group}"
{gather} "-out={work}"
cd "{work}"
{prepare}register {frames}
stack r_{frames} rej 3 3 -norm=addscale -out=result
"""
# Name, how frames are gathered and prepared, and what they are called then. Mosaics become colour images,
# in the 16 bits of the frames or, as in the scripts that come with Siril, in 32; others are used as they are.
_SIRIL_MONO = (("Siril: register, winsor stack", "link light", "", "light"),)
_SIRIL_MOSAIC = (
    ("Siril, 16 bits: colours, register, winsor stack", "convert light -debayer", "", "light"),
    (
        "Siril, 32 bits: the same",
        "convert light",
        "preprocess light -cfa -debayer\n",
        "pp_light",
    ),
)


def zmtile(threads: int, name: str = "zmtile", options: tuple[str, ...] = ()) -> Program:
    """Return `zmtile build` with options beside the defaults."""

    def command(group: Path, work: Path) -> list[str]:
        """Return the command line."""
        build = [sys.executable, "-m", "zmtile", "build", str(group), "-o", str(work / "tile.fits")]
        return [*build, "--threads", str(threads), "--quiet", *options]

    return Program(name, command, "tile.fits")


def _siril(executable: str, threads: int, name: str, gather: str, prepare: str, frames: str) -> Program:
    """Return Siril's way: colours, registration on stars, winsorised rejection at 3 sigma."""

    def command(group: Path, work: Path) -> list[str]:
        """Write the script and return the command line."""
        script = work / "stack.ssf"
        script.write_text(
            _SIRIL.format(
                threads=threads, group=group, work=work, gather=gather, prepare=prepare, frames=frames
            )
        )
        return [executable, "-d", str(work), "-s", str(script)]

    return Program(name, command, "result.fit*")


def _python(mosaic: bool) -> Program:
    """Return the way of astropy, astroalign and ccdproc, on grey images."""

    def command(group: Path, work: Path) -> list[str]:
        """Return the command line."""
        script = str(Path(__file__).with_name("ccdproc_stack.py"))
        return [sys.executable, script, str(group), str(work / "result.fits"), *["--mosaic"] * mosaic]

    return Program("astroalign + ccdproc: grey, sigma clip", command, "result.fits")


def installed(threads: int, mosaic: bool, slow: bool) -> list[Program]:
    """Return zmtile and its peers.

    Parameters
    ----------
    threads : int
    mosaic : bool
        The frames are mosaics.
    slow : bool
        Those, too, that take several times as long.
    """
    found = [zmtile(threads)]
    siril = shutil.which("siril-cli")
    if siril:
        ways = _SIRIL_MOSAIC if mosaic else _SIRIL_MONO
        found += [_siril(siril, threads, *way) for way in ways]
    if slow and all(importlib.util.find_spec(name) for name in ("astroalign", "ccdproc")):
        found.append(_python(mosaic))
    return found
