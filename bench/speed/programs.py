"""The programs that are compared: zmtile, and those of the others that are installed."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from running import Program

__all__ = ["ALL_PLANES", "installed", "zmtile"]

ALL_PLANES = ("--framing", "union", "--planes", "all")
# Mosaics become colour images; what is none is used as it is.
_SIRIL = """requires 1.0.0
setcpu {threads}
cd "{group}"
{gather} light {debayer} "-out={work}"
cd "{work}"
register light
stack r_light rej 3 3 -norm=addscale -out=result
"""


def zmtile(threads: int, name: str = "zmtile", options: tuple[str, ...] = ()) -> Program:
    """Return `zmtile build` with options beside the defaults."""

    def command(group: Path, work: Path) -> list[str]:
        """Return the command line."""
        build = [sys.executable, "-m", "zmtile", "build", str(group), "-o", str(work / "tile.fits")]
        return [*build, "--threads", str(threads), "--quiet", *options]

    return Program(name, command, "tile.fits")


def _siril(executable: str, threads: int, mosaic: bool) -> Program:
    """Return Siril's way: colours, registration on stars, winsorised rejection at 3 sigma."""

    def command(group: Path, work: Path) -> list[str]:
        """Write the script and return the command line."""
        gather, debayer = ("convert", "-debayer") if mosaic else ("link", "")
        script = work / "stack.ssf"
        script.write_text(
            _SIRIL.format(threads=threads, group=group, work=work, gather=gather, debayer=debayer)
        )
        return [executable, "-d", str(work), "-s", str(script)]

    return Program("Siril: colours, register, winsor stack", command, "result.fit*")


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
        found.append(_siril(siril, threads, mosaic))
    if slow and all(importlib.util.find_spec(name) for name in ("astroalign", "ccdproc")):
        found.append(_python(mosaic))
    return found
