"""The tile: its planes, its provenance, and the file that holds them."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import UsageError, parser_said
from zmtile.options import EXTRA_PLANES
from zmtile.tiles.fitsfile import STRUCTURAL, Packed, write_float_image, write_packed, write_table
from zmtile.tiles.headertext import HeaderText
from zmtile.tiles.keywords import set_card
from zmtile.tiles.records import FrameRecord, from_table, to_columns
from zmtile.tiles.rice import compressed
from zmtile.tiles.target import check_target, new_file

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["FrameRecord", "Tile", "check_target", "open_tile", "read_tile", "unweighed"]

_MENDED = "`zmtile rebuild` makes it again from its frames; or fetch a whole copy from its source."
# Where FRAMES is lost as well, nothing tells what the tile was made of.
_LOST = "Build it again from its frames, or fetch a whole copy from its source."


class _Header:
    """A field: a header as it is written, which is one of astropy's as soon as somebody looks at it."""

    def __get__(self, tile: Tile | None, kind: type[Tile]) -> fits.Header:
        if tile is None:
            raise AttributeError("header")
        held: fits.Header | HeaderText = vars(tile)["header"]
        if isinstance(held, HeaderText):
            held = vars(tile)["header"] = held.for_reading
        return held

    def __set__(self, tile: Tile, header: fits.Header | HeaderText) -> None:
        if header is self:  # what a dataclass takes for the default
            raise TypeError("a tile is made with a header")
        vars(tile)["header"] = header


@dataclass(frozen=True, eq=False)
class Tile:
    """A master tile in memory.

    All planes have one shape, (rows, cols) for mono and (3, rows, cols) for colour.

    Attributes
    ----------
    image : float32
        Combined value, ADU of the reference; NaN where there is no data.
    uncert : float32
        Its standard error, ADU.
    weight : float32
        Sum of the weights of the samples that survived; NaN throughout where it is not known.
    coverage : uint16
        Frames with data, before rejection.
    rejlow, rejhigh : uint16
        Samples rejected below and above.
    frames : tuple of FrameRecord
        One for every input, those left out with their reason.
    header : fits.Header
        Of the primary HDU, without the keywords that describe the array itself.
    """

    image: NDArray[np.float32]
    uncert: NDArray[np.float32]
    weight: NDArray[np.float32]
    coverage: NDArray[np.uint16]
    rejlow: NDArray[np.uint16]
    rejhigh: NDArray[np.uint16]
    frames: tuple[FrameRecord, ...] = field(repr=False)
    header: _Header = field(default=_Header(), repr=False)

    def __post_init__(self) -> None:
        """Refuse planes that do not belong together."""
        planes = (self.image, self.uncert, self.weight, self.coverage, self.rejlow, self.rejhigh)
        if {plane.shape for plane in planes} != {self.shape} or self.shape[:-2] not in ((), (3,)):
            raise ValueError(f"planes of a tile have one shape, here they have {[p.shape for p in planes]}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, cols) or (3, rows, cols)."""
        return self.image.shape

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self.image.ndim == 2 else 3

    @property
    def alpha(self) -> NDArray[np.uint8]:
        """(rows, cols): 255 where all channels have data, 0 elsewhere."""
        first, *others = self.image.reshape(-1, *self.shape[-2:])
        inside = np.isfinite(first)
        for channel in others:
            inside &= np.isfinite(channel)
        alpha: NDArray[np.uint8] = inside.view(np.uint8)
        alpha *= np.uint8(255)
        return alpha

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Of the image's shape: 1 where it has no data, 0 elsewhere."""
        inside = np.isfinite(self.image)
        return np.logical_not(inside, out=inside).view(np.uint8)

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        fill: float | None = None,
        planes: Sequence[str] = ("mask",),
        workers: int = 1,
        last: bool = False,
    ) -> Path:
        """Write the tile; the same tile gives the same bytes.

        Parameters
        ----------
        path : path
            Appears complete or not at all, whatever happens.
        overwrite : bool
            Replace an existing file.
        fill : float, optional
            Written in place of NaN in the image, for programs that cannot read NaN; ZMT_FILL tells
            of it, and `read_tile` undoes it.
        planes : sequence of {'mask', 'weight'}
            Planes beside those that every tile has. astropy's ``CCDData.read`` finds 'mask'.
        workers : int
            Threads that compress planes beside the one that writes; without influence on the bytes.
        last : bool
            Nobody looks at the planes any more: each is let go as soon as the file has no more need of
            it, so that the system has its memory for the pages of the file. It is 0 throughout then.

        Returns
        -------
        Path
            The path as given.

        Raises
        ------
        TargetError
            When it cannot be written there; nothing is left behind.
        UsageError
            For planes that do not exist and a fill that is no number.
        """
        if unknown := set(planes) - set(EXTRA_PLANES):
            raise UsageError(
                f"no plane is called {', '.join(sorted(unknown))}",
                f"Planes on demand: {', '.join(EXTRA_PLANES)}.",
            )
        if fill is not None and not math.isfinite(fill):
            raise UsageError(f"fill is {fill}", "Give a number such as 0, or leave it out to keep NaN.")
        header = HeaderText.of(vars(self)["header"])
        header.drop("ZMT_FILL")
        if fill is not None:
            set_card(header, "ZMT_FILL", float(fill))
        spread = _named("UNCERT", "standard error of the image", "adu")
        spread.put("UTYPE", "StdDevUncertainty", "kind of uncertainty, for CCDData")
        flags = ("alpha", "mask") if "mask" in planes else ("alpha",)
        with new_file(path, overwrite) as file, ThreadPoolExecutor(workers) as pool:
            # Compression releases the GIL: it goes on beside what is written. What takes longest goes first.
            names = ("rejlow", "rejhigh", "coverage", *flags)
            packed = {name: pool.submit(self._compressed, name) for name in names}
            if last:
                wait([packed[name] for name in names[:3]])
                self._let_go("rejlow", "rejhigh", "coverage")
            write_float_image(file, self.image, header, fill)
            if last:
                wait(packed.values())
                self._let_go("image")
            write_packed(file, packed["coverage"].result())
            write_float_image(file, self.uncert, spread, None)
            if last:
                self._let_go("uncert")
            for name in ("rejlow", "rejhigh", *flags):
                write_packed(file, packed[name].result())
            if "weight" in planes:
                write_float_image(file, self.weight, _named("WEIGHT", "sum of the surviving weights"), None)
            write_table(file, to_columns(self.frames, self.channels), "FRAMES", "one row for each input")
        return Path(path)

    def _let_go(self, *names: str) -> None:
        for name in names:
            plane = getattr(self, name)
            object.__setattr__(self, name, np.broadcast_to(plane.dtype.type(0), plane.shape))

    def _compressed(self, name: str) -> Packed:
        return compressed(getattr(self, name), name.upper())


def _named(name: str, meaning: str, unit: str = "") -> HeaderText:
    header = HeaderText([("EXTNAME", name, meaning)])
    if unit:
        header.put("BUNIT", unit, "unit of the pixels")
    return header


def unweighed(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the weight of a tile that has none: NaN throughout, one number in memory."""
    return np.broadcast_to(np.float32(np.nan), image.shape)


def read_tile(path: str | os.PathLike[str], damaged: bool = False) -> Tile:
    """Read a tile that zmtile wrote.

    Parameters
    ----------
    path : path
    damaged : bool
        Let wrong checksums pass, for those who tell of them otherwise.

    Returns
    -------
    Tile
        NaN where there is no data, also when the file has a fill. A weight that is not in the file
        is NaN throughout.

    Raises
    ------
    UsageError
        When it is no tile of zmtile, or damaged.
    """
    from astropy.utils.exceptions import AstropyUserWarning

    # The checksums of headers are let pass: plate solvers add their cards without renewing them.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_tile(path, checksum=True, lazy_load_hdus=False) as hdus:
            tile = _assembled(hdus)
    for warning in caught:
        text = str(warning.message)
        wrong = "truncated" in text or ("Datasum" in text and not damaged)
        if issubclass(warning.category, AstropyUserWarning) and wrong:
            raise UsageError(
                f"{path}: the tile is damaged ({text.strip()})", _LOST if "FRAMES" in text else _MENDED
            )
    return tile


@contextlib.contextmanager
def open_tile(path: str | os.PathLike[str], **how: Any) -> Iterator[Any]:
    """Open the file of a tile; `how` goes to astropy.

    Yields
    ------
    astropy.io.fits.HDUList
        With all the planes that every tile has.

    Raises
    ------
    UsageError
        When it is no tile of zmtile, or so damaged that it cannot be read; also while it is read.
    """
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False, **how) as hdus:
            _check_kind(path, hdus)
            yield hdus
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", "Check the folder and the spelling.") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: this is a folder", "Name a tile in it.") from None
    except PermissionError:
        raise UsageError(f"{path}: no permission to read it", "Check the file's mode and owner.") from None
    except Exception as error:  # a damaged file fails anywhere in the parser
        raise UsageError(f"{path}: not a tile, or a damaged one ({parser_said(error)})", _LOST) from None


def _check_kind(path: str | os.PathLike[str], hdus: Any) -> None:
    if str(hdus[0].header.get("PROGRAM", "")).strip() != "zmtile":
        raise UsageError(f"{path}: not a tile of zmtile", "Give a file that `zmtile build` wrote.")
    wanted = ("COVERAGE", "UNCERT", "REJLOW", "REJHIGH", "FRAMES")
    if missing := [name for name in wanted if name not in hdus]:
        remedy = _LOST if "FRAMES" in missing else _MENDED
        raise UsageError(f"{path}: the tile is damaged (it has no {', '.join(missing)})", remedy)


def _assembled(hdus: Any) -> Tile:
    """Return the tile, with NaN where the file has its fill."""

    def plane(name: str | int, dtype: type) -> NDArray[Any]:
        return np.array(hdus[name].data, dtype)  # in the byte order of this machine

    header = hdus[0].header.copy()
    for key in [key for key in header if STRUCTURAL.match(key)]:
        del header[key]
    image, coverage = plane(0, np.float32), plane("COVERAGE", np.uint16)
    if "ZMT_FILL" in header:
        del header["ZMT_FILL"]
        if "MASK" in hdus:
            image[plane("MASK", np.uint8) > 0] = np.nan
        else:
            image[coverage < max(1, int(header.get("ZMT_MINC", 1)))] = np.nan
    return Tile(
        image=image,
        uncert=plane("UNCERT", np.float32),
        weight=plane("WEIGHT", np.float32) if "WEIGHT" in hdus else unweighed(image),
        coverage=coverage,
        rejlow=plane("REJLOW", np.uint16),
        rejhigh=plane("REJHIGH", np.uint16),
        frames=from_table(hdus["FRAMES"].data),
        header=header,
    )
