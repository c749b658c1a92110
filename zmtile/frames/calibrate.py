"""Calibrate: what is taken out of the raw pixels of a frame before anything looks at them.

    calibrated = (raw - bias - dark · factor) / flat

and a pixel that the sensor cannot vouch for becomes NaN. It is done patch by patch, in both passes,
so that no calibrated copy of a frame is ever held.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Calibration", "Correction", "Master"]

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Master:
    """What is written down of a master.

    Attributes
    ----------
    name : str
        Its file name.
    sha256 : str
        Of the file's bytes.
    """

    name: str
    sha256: str


@dataclass(frozen=True, eq=False)
class Calibration:
    """The masters of a run, in the sensor's coordinates.

    Attributes
    ----------
    bias : (1 or 3, rows, cols) float32, optional
        ADU.
    dark : the same, optional
        ADU: the dark signal alone if it is to be scaled, else with the bias that the master holds.
    flat : the same, optional
        Response relative to the median of the pixel's colour; NaN where the sensor is dead.
    dark_exposure : float, optional
        Seconds of the dark, if it is scaled to the exposure of every frame; None if it is
        subtracted as it is.
    masters : dict of str to Master
        By kind: 'bias', 'dark', 'flat'; those that were given.
    """

    bias: Plane | None = None
    dark: Plane | None = None
    flat: Plane | None = None
    dark_exposure: float | None = None
    masters: dict[str, Master] = field(default_factory=dict)

    @property
    def hashes(self) -> tuple[str, str, str]:
        """SHA-256 of bias, dark and flat; '' for one that was not given."""
        none = Master("", "")
        bias, dark, flat = (self.masters.get(kind, none).sha256 for kind in ("bias", "dark", "flat"))
        return bias, dark, flat

    @property
    def nbytes(self) -> int:
        """Bytes that the masters hold."""
        return sum(plane.nbytes for plane in (self.bias, self.dark, self.flat) if plane is not None)

    def correction(self, exposure: float, bad: NDArray[np.int64] | None = None) -> Correction:
        """Return what is done to a frame of `exposure` seconds; `bad` are pixels that get no value."""
        factor = 1.0 if self.dark_exposure is None else exposure / self.dark_exposure
        return Correction(self, factor, np.empty(0, np.int64) if bad is None else bad)


@dataclass(frozen=True, eq=False)
class Correction:
    """What is done to the pixels of one frame.

    Attributes
    ----------
    calibration : Calibration
    dark_factor : float
        On the dark.
    bad : (n,) int64
        Pixels without a value, as row · cols + col, sorted.
    """

    calibration: Calibration = field(default_factory=Calibration)
    dark_factor: float = 1.0
    bad: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def apply(self, patch: Plane, row: int, col: int, frame_cols: int) -> None:
        """Correct a patch in place.

        Parameters
        ----------
        patch : (1 or 3, rows, cols) float32
            Raw ADU; lies inside the frame.
        row, col : int
            Frame pixel of ``patch[:, 0, 0]``.
        frame_cols : int
            Width of the frame.
        """
        _, rows, cols = patch.shape
        at = np.s_[:, row : row + rows, col : col + cols]
        masters = self.calibration
        if masters.bias is not None:
            patch -= masters.bias[at]
        if masters.dark is not None:
            dark = masters.dark[at]
            patch -= dark if self.dark_factor == 1.0 else np.float32(self.dark_factor) * dark
        if masters.flat is not None:
            patch /= masters.flat[at]
        if self.bad.size:
            first, last = np.searchsorted(self.bad, [row * frame_cols, (row + rows) * frame_cols])
            y, x = np.divmod(self.bad[first:last], frame_cols)
            inside = (x >= col) & (x < col + cols)
            patch[:, y[inside] - row, x[inside] - col] = np.nan
