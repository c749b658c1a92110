"""The sensor's own pattern: detections that stay on it while the sky moves.

Hot pixels that survive detection sit at the same place in every frame. Where they outnumber the
stars, the best match of two frames is no motion at all. So what repeats at one place of the sensor
is set aside before anything is matched; unless it is the sky that is at rest, as in frames without
dither. Their shapes tell which: stars are as broad as the seeing makes them, hot pixels are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.measure import Stars
from zmtile.kernels.stars import count_repeats
from zmtile.registration.starfield import Field
from zmtile.registration.transform import Matrix, apply, corners

__all__ = ["largest_motion", "set_aside", "sky_at_rest"]

# One place of the sensor, px: centroids of faint hot pixels scatter.
SAME_PLACE = 0.7
# Only what is this many times as certain has a vote on whether the sky is at rest: under a sky that drifts
# slowly the bright stars repeat, and the faint ones, of which there are more, scatter.
SIGMAS = 3.0
# Frames that are asked whether they show a detection as well, spread over the group.
WITNESSES = 32
# One in seven of a part that holds the stars is a star; what is narrower than this fraction of it is none.
STAR_QUANTILE, NARROW = 0.85, 0.8


def largest_motion(matrix: Matrix, rows: int, cols: int) -> float:
    """Return how far a transform moves the corners of a sensor, px at most."""
    ends = corners(rows, cols)
    return float(np.hypot(*(apply(matrix, ends) - ends).T).max())


def sky_at_rest(stars: Stars, repeats: NDArray[np.bool_]) -> bool:
    """Tell from the shapes whether what `repeats` at the same place of the sensor is the sky.

    The sky is at rest when most detections as broad as stars repeat. Cosmic rays are narrow and do
    not, hot pixels are narrow and do: neither counts. The stars are among what repeats if the sky is
    at rest, and among the others if it moves; wherever they are, that part is the broader one.
    """
    widths = [
        np.quantile(part, STAR_QUANTILE) for part in (stars.size[repeats], stars.size[~repeats]) if part.size
    ]
    broad = stars.size > NARROW * max(widths)
    return bool(2 * np.count_nonzero(broad & repeats) >= np.count_nonzero(broad))


def set_aside(fields: Sequence[Field]) -> list[Field]:
    """Return the fields without what most frames of their size show at the same place.

    A field that shows the sky at rest, and one whose sensor is alone, stays as it is.
    """
    moving = list(fields)
    for shape in sorted({(f.rows, f.cols) for f in fields}):
        same = [k for k, f in enumerate(fields) if (f.rows, f.cols) == shape and len(f.stars)]
        places = np.unique(np.linspace(0, len(same) - 1, min(len(same), WITNESSES)).astype(int))
        witnesses = [same[i] for i in places]
        for k in same:
            others = [w for w in witnesses if w != k]
            seen = np.zeros(len(fields[k].stars), np.int64)
            for w in others:
                count_repeats(fields[k].places, fields[w].places, SAME_PLACE, seen)
            fixed = np.empty(seen.size, bool)
            fixed[fields[k].order] = 2 * seen > len(others)
            if others and fixed.any():
                votes = _votes(fields[k].stars)
                if not sky_at_rest(_without(fields[k].stars, ~votes), fixed[votes]):
                    moving[k] = replace(fields[k], stars=_without(fields[k].stars, fixed))
    return moving


def _votes(stars: Stars) -> NDArray[np.bool_]:
    """Return the detections that can be told to repeat; all, where none is as certain."""
    certain: NDArray[np.bool_] = stars.error <= SAME_PLACE / SIGMAS
    return certain if certain.any() else np.ones(len(stars), bool)


def _without(stars: Stars, fixed: NDArray[np.bool_]) -> Stars:
    keep = ~fixed
    photometry = stars.channel_flux[:, keep[: stars.channel_flux.shape[1]]]
    return Stars(
        stars.x[keep], stars.y[keep], stars.flux[keep], stars.error[keep], photometry, stars.size[keep]
    )
