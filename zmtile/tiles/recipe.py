"""The recipe of a tile: what its file tells of its making, without its pixels."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from zmtile.errors import UsageError
from zmtile.options import EXTRA_PLANES, Options
from zmtile.tiles.choices import options_of
from zmtile.tiles.records import FrameRecord, from_table
from zmtile.tiles.tile import open_tile

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["SOFTWARE", "Recipe", "read_recipe"]

# What computed the pixels: with other ones, the last digits may differ.
SOFTWARE = ("CREATOR", "ZMT_LIBS", "ZMT_CPU", "ZMT_BACK")


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a tile was made of, and how.

    Attributes
    ----------
    path : Path
        Of the tile.
    options : Options
        The reference is a name of FRAMES, the masters are names of files.
    frames : tuple of FrameRecord
        One for every input, those that were left out with their reason.
    header : fits.Header
        Of the primary HDU.
    """

    path: Path
    options: Options
    frames: tuple[FrameRecord, ...] = field(repr=False)
    header: fits.Header = field(repr=False)

    @property
    def software(self) -> dict[str, str]:
        """What computed the pixels, by keyword; '' where the header does not tell."""
        return {keyword: str(self.header.get(keyword, "")) for keyword in SOFTWARE}


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read how a tile was made; its pixels may be damaged.

    Raises
    ------
    UsageError
        When it is no tile, when its FRAMES table is damaged, or when its header does not tell all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is missing or wrong is said below
        header, frames, planes = _told(path)
    try:
        return Recipe(Path(path), options_of(header, planes), frames, header)
    except UsageError as error:
        raise UsageError(f"{path}: {error.what}", error.remedy) from None


def _told(path: str | os.PathLike[str]) -> tuple[fits.Header, tuple[FrameRecord, ...], list[str]]:
    """Return header, frames, and the planes that not every tile has."""
    with open_tile(path) as hdus:
        header, table = hdus[0].header.copy(), hdus["FRAMES"]
        if not table.verify_datasum():
            raise UsageError(
                f"{path}: its FRAMES table is damaged, so that nothing tells what it was made of",
                "Fetch the tile again from its source, or build it from its frames.",
            )
        frames = from_table(table.data)
        return header, frames, [plane for plane in EXTRA_PLANES if plane.upper() in hdus]
