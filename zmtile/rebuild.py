"""The way back: from a tile to its recipe, to its inputs, and to the tile once more."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zmtile.errors import UsageError
from zmtile.frames.inputs import SUFFIXES, Named
from zmtile.options import Options, Resources
from zmtile.pipeline import plan_tile, stack_plan
from zmtile.progress import NullProgress, Progress
from zmtile.tiles.recipe import Recipe, read_recipe
from zmtile.tiles.sources import Source, check_sources, find_sources
from zmtile.tiles.tile import Tile

__all__ = ["Ingredients", "default_target", "gather", "rebuild_tile", "told_apart"]

log = logging.getLogger("zmtile")


@dataclass(frozen=True, eq=False)
class Ingredients:
    """All that it takes to make a tile again.

    Attributes
    ----------
    recipe : Recipe
    sources : tuple of Source
        Every frame and master, all found.
    """

    recipe: Recipe
    sources: tuple[Source, ...] = field(repr=False)

    @property
    def paths(self) -> dict[tuple[str, str], Path]:
        """Where the inputs are now, by their kind and name."""
        return {(s.kind, s.name): s.path for s in self.sources if s.path is not None}

    @property
    def frames(self) -> Named:
        """The frames, under the names and in the order that they had."""
        paths = {name: path for (kind, name), path in self.paths.items() if kind == "frame"}
        return Named(tuple(paths.values()), tuple(paths))

    @property
    def options(self) -> Options:
        """The options, with the paths of the masters and of the reference.

        Raises
        ------
        UsageError
            When the reference is none of the frames.
        """
        told, paths = self.recipe.options, self.paths
        known: dict[str, Any] = {kind: str(path) for (kind, _), path in paths.items() if kind != "frame"}
        if told.reference is not None:
            if ("frame", told.reference) not in paths:
                raise UsageError(
                    f"{self.recipe.path}: its reference, {told.reference}, is none of its frames",
                    "The header was changed; build the tile from its frames.",
                )
            known["reference"] = str(paths["frame", told.reference])  # another file may bear its name now
        return replace(told, **known)

    @property
    def files(self) -> list[Path]:
        """Every file that is read."""
        return list(self.paths.values())


def gather(
    tile: str | os.PathLike[str],
    inputs: Sequence[str | os.PathLike[str]] = (),
    progress: Progress | None = None,
) -> Ingredients:
    """Read a tile's recipe and find what it was made of.

    Parameters
    ----------
    tile : path
        Its pixels may be damaged.
    inputs : sequence of str or path
        Where the inputs are now: files, folders with all that lies below them, patterns, lists.
    progress : Progress, optional

    Raises
    ------
    UsageError
        When the file tells no recipe, or an argument names nothing.
    InputsChanged
        When an input is missing or changed.
    """
    recipe = read_recipe(tile)
    for frame in recipe.frames:
        if not frame.sha256:
            log.info("%s could not be read (%s): it has no part in the tile", frame.name, frame.reason)
    sources = find_sources(recipe, inputs, progress or NullProgress())
    check_sources(recipe, sources)
    return Ingredients(recipe, sources)


def rebuild_tile(
    ingredients: Ingredients, resources: Resources | None = None, progress: Progress | None = None
) -> Tile:
    """Make a tile again.

    Raises
    ------
    ZmtileError
        As `zmtile.pipeline.build_tile`.
    """
    plan = plan_tile(ingredients.frames, ingredients.options, resources, progress)
    return stack_plan(plan, resources, progress)


def told_apart(recipe: Recipe, tile: Tile) -> Iterator[str]:
    """Yield what is not as it was when the tile was made, beside its pixels: what may explain these."""
    now = {
        **{keyword: str(tile.header[keyword]) for keyword in recipe.software},
        "ZMT_REF": str(tile.header["ZMT_REF"]),
    }
    then = recipe.software | {"ZMT_REF": str(recipe.header.get("ZMT_REF", ""))}
    for keyword, value in now.items():
        if value != then[keyword]:
            yield f"{keyword} was {then[keyword] or 'not told'}, now it is {value}"
    before = {frame.name: frame for frame in recipe.frames}
    for frame in tile.frames:
        if frame.used != before[frame.name].used:
            yield (
                f"{frame.name} was left out ({before[frame.name].reason}), now it is used"
                if frame.used
                else f"{frame.name} was used, now it is left out ({frame.reason})"
            )


def default_target(tile: Path) -> Path:
    """Return where a tile goes that is made again: beside the other one."""
    suffix = next((s for s in SUFFIXES if tile.name.lower().endswith(s)), "")
    return tile.with_name(f"{tile.name[: len(tile.name) - len(suffix)]}_rebuilt.fits")
