"""Stack a group of light frames into one master tile; no data stays NaN.

The public names are loaded on first use, so that ``import zmtile`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from zmtile.errors import FrameError, TargetError, TooFewFrames, UsageError, ZmtileError
    from zmtile.options import Options, Resources
    from zmtile.pipeline import build_tile
    from zmtile.stacking.clip import ClipResult, winsorized_sigma_clip
    from zmtile.tiles.tile import Tile, read_tile

__all__ = [
    "ClipResult",
    "FrameError",
    "Options",
    "Resources",
    "TargetError",
    "Tile",
    "TooFewFrames",
    "UsageError",
    "ZmtileError",
    "build_tile",
    "read_tile",
    "winsorized_sigma_clip",
]

_HOMES = {
    "stacking.clip": ("ClipResult", "winsorized_sigma_clip"),
    "errors": ("FrameError", "TargetError", "TooFewFrames", "UsageError", "ZmtileError"),
    "options": ("Options", "Resources"),
    "pipeline": ("build_tile",),
    "tiles.tile": ("Tile", "read_tile"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"zmtile.{home}"), name)
    raise AttributeError(f"module 'zmtile' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
