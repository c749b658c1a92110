"""Steps: jumps of the sky where the coverage of an image changes.

A number in place of missing data, or a sky that was not matched, shows as a band along the
footprints of the frames: the sky is higher or lower beyond a line. Here every such line is asked
for a jump. The star-free sky on both sides of it is fitted by a small plane in every block of the
image, so that gradients and nebulae do not count, plus one jump at the line; for each side of the
image apart: what is too high on the left is often too low on the right. What the same fit finds on
parallel lines further inside, where nothing changes, tells how much of a jump the sky makes by
itself.

The lines are those where COVERAGE falls below a number of frames. An image of another program has
no such plane; then all straight lines near its edges are tried that a frame turned by up to 10
degrees could have left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.looks.skyimage import SkyImage

__all__ = ["SIDES", "Step", "find_steps"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIDES = ("left", "right", "top", "bottom")
# All is measured on means of BIN × BIN pixels.
BIN = 4
# Lines: where the coverage falls below these fractions of its maximum ...
FRACTIONS = (0.9, 0.75, 0.5, 0.25, 0.1)
# ... or straight ones at these depths (px) and angles (degrees) along every side.
DEPTHS = range(8, 140, 4)
ANGLES = range(-10, 11, 2)
# Half width of the strip around a line, px: enough for a line that dithering has spread.
WIDTH = 32
# Blocks with a plane of their own: bins a side.
BLOCK = 4 * WIDTH // BIN
# Bins that a strip must have on either side, and a block in all.
MIN_BINS = 125
MIN_IN_BLOCK = 10
# Parallel lines on which nothing changes.
PLACEBOS = 8
# Pixels beyond this many local sigma are stars, and so are those near them.
STAR_SIGMA = 4.0
STAR_REACH = 5
MESH = 32


@dataclass(frozen=True)
class Step:
    """A jump of the sky across a line.

    Attributes
    ----------
    plane : str
        'L' (mean of the channels), or for colour images 'R-G' or 'B-G'.
    side : str
        One of `SIDES`: where the line faces the edge of the image.
    line : str
        Which line it is.
    jump, error : float
        Outside less inside, and its standard error, in sigma of a pixel.
    floor : float
        Jumps (root mean square) that the same fit finds where nothing changes, in the same unit;
        NaN where it was not needed, since the jump is within its error.
    """

    plane: str
    side: str
    line: str
    jump: float
    error: float
    floor: float

    @property
    def certain(self) -> bool:
        """Whether the jump stands out from noise, and from what the sky does elsewhere."""
        return abs(self.jump) > 3.0 * self.error and abs(self.jump) > 3.0 * self.floor


def find_steps(sky: SkyImage) -> list[Step]:
    """Measure the jumps of an image's sky.

    Parameters
    ----------
    sky : SkyImage

    Returns
    -------
    list of Step
        For each plane, side and line where there is enough sky; the largest first.
    """
    finite = np.asarray(np.isfinite(sky.image).all(axis=0))
    if not finite.any() or min(finite.shape) < 4 * BIN:
        return []
    good = finite & ~_stars(sky.image.mean(axis=0), finite)
    planes = [
        (name, _binned(plane, good) / sigma)
        for name, plane in _sights(sky.image)
        if (sigma := _sigma(plane, good)) > 0
    ]
    lines = _edge_lines(finite.shape) if sky.coverage is None else _coverage_lines(sky.coverage, finite)
    steps: list[Step] = []
    for side, line, distance in lines:
        for name, plane in planes:
            jump = _jump(plane, distance)
            if jump is not None:
                floor = _floor(plane, distance) if abs(jump[0]) > 3.0 * jump[1] else math.nan
                steps.append(Step(name, side, line, *jump, floor))
    return sorted(steps, key=lambda s: -abs(s.jump))


def _sights(image: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield luminance and colours."""
    yield "L", image.mean(axis=0)
    if len(image) == 3:
        yield "R-G", image[0] - image[1]
        yield "B-G", image[2] - image[1]


def _stars(light: NDArray[np.float32], finite: Mask) -> Mask:
    """Tell which pixels hold star light: far above a local background, or near such pixels."""
    import sep
    from scipy.ndimage import binary_dilation, uniform_filter

    flat = np.ascontiguousarray(np.where(finite, light, 0), np.float32)
    background = sep.Background(flat, mask=~finite, bw=MESH, bh=MESH)
    bright = finite & (flat - background.back() > STAR_SIGMA * background.rms())
    # Lone pixels of noise are no stars: of 9 pixels, a star lights more than one.
    bright &= uniform_filter(bright.astype(np.float32), 3) > 1.5 / 9
    around = np.hypot(*np.mgrid[-STAR_REACH : STAR_REACH + 1, -STAR_REACH : STAR_REACH + 1]) <= STAR_REACH
    near: Mask = binary_dilation(bright, around)
    return near


def _sigma(plane: NDArray[np.float32], good: Mask) -> float:
    """Sigma of a pixel, from differences of pixels too far apart to share interpolated samples."""
    both = good[:, 4:] & good[:, :-4]
    steps = (plane[:, 4:] - plane[:, :-4])[both]
    if steps.size < 100:
        return math.nan
    away = np.abs(steps.astype(np.float64))
    sigma = 1.4826 * float(np.median(away))
    # Whole numbers may be too coarse for a median: most neighbours of a quiet sky are equal.
    inside = away[away <= max(3.0 * sigma, float(np.quantile(away, 0.97)))]
    return max(sigma, math.sqrt(float(np.mean(inside**2)))) / math.sqrt(2)


def _binned(plane: NDArray[np.float32], good: Mask) -> Floats:
    """Means of the good pixels of each bin; NaN where fewer than half are good."""
    rows, cols = (n // BIN * BIN for n in plane.shape)
    shape = (rows // BIN, BIN, cols // BIN, BIN)
    usable = good[:rows, :cols].reshape(shape)
    number = usable.sum(axis=(1, 3))
    total = np.where(usable, plane[:rows, :cols].reshape(shape), 0).sum(axis=(1, 3), dtype=np.float64)
    return np.where(number >= BIN * BIN / 2, total / np.maximum(number, 1), np.nan)


def _coverage_lines(coverage: NDArray[np.uint16], finite: Mask) -> Iterator[tuple[str, str, Floats]]:
    """Yield side, name and distance (px, positive outside; NaN on the other sides) of lines of COVERAGE."""
    least = coverage.min(axis=0)
    for threshold in sorted({math.ceil(f * int(least.max())) for f in FRACTIONS} - {0, 1}, reverse=True):
        inside = least >= threshold
        if inside.any() and (finite & ~inside).any():
            everywhere = np.ones_like(inside)
            distance = _binned(_depth(~inside) - _depth(inside), everywhere)
            facing = _facing(distance)
            for number, side in enumerate(SIDES):
                yield side, f"coverage below {threshold}", np.where(facing == number, distance, np.nan)


def _depth(inside: Mask) -> NDArray[np.float32]:
    """Distance of the pixels of a region to its border; the edge of the image is none."""
    from scipy.ndimage import distance_transform_edt

    away: NDArray[np.float32] = distance_transform_edt(inside).astype(np.float32)
    return away


def _facing(distance: Floats) -> NDArray[np.int8]:
    """Return the number of the side that each bin's nearest piece of the line faces."""
    from scipy.ndimage import uniform_filter

    down, right = np.gradient(uniform_filter(distance, 3))
    vertical = np.abs(down) > np.abs(right)
    return np.where(vertical, np.where(down < 0, 2, 3), np.where(right < 0, 0, 1)).astype(np.int8)


def _edge_lines(shape: tuple[int, ...]) -> Iterator[tuple[str, str, Floats]]:
    """Yield side, name and distance of straight lines along the edges."""
    rows, cols = shape
    y, x = (BIN * (np.indices((rows // BIN, cols // BIN), np.float64) + 0.5)) - np.array(
        [rows / 2, cols / 2]
    ).reshape(2, 1, 1)
    for side in SIDES:
        # How far a bin lies inside of the middle of this side, and along it.
        inward, along = {
            "left": (cols / 2 + x, y),
            "right": (cols / 2 - x, y),
            "top": (rows / 2 + y, x),
            "bottom": (rows / 2 - y, x),
        }[side]
        for angle in ANGLES:
            slope = math.radians(angle)
            depth = inward * math.cos(slope) + along * math.sin(slope)
            for at in DEPTHS:
                yield side, f"{at} px from the edge at {angle:+d} deg", at - depth


def _floor(plane: Floats, distance: Floats) -> float:
    """Root mean square of the jumps on lines further inside."""
    shifts = [2 * (k + 0.5) * WIDTH for k in range(1, PLACEBOS + 1)]
    found = [jump[0] for shift in shifts if (jump := _jump(plane, distance + shift)) is not None]
    return math.sqrt(sum(jump**2 for jump in found) / len(found)) if found else 0.0


def _jump(plane: Floats, distance: Floats) -> tuple[float, float] | None:
    """Fit one jump at distance 0, and a plane for each block of the image, on what lies within `WIDTH`.

    The planes are eliminated block by block (Schur complement), which leaves of the jump's
    indicator only what no plane can imitate.

    Returns
    -------
    (float, float) or None
        Jump (outside less inside) and its standard error; None with too little sky.
    """
    near = (np.abs(distance) < WIDTH) & np.isfinite(plane)
    outside = distance[near] > 0
    if min(np.count_nonzero(outside), np.count_nonzero(~outside)) < MIN_BINS:
        return None
    block, place = np.divmod(np.argwhere(near), BLOCK)
    _, block_of = np.unique(block[:, 0] * distance.shape[1] + block[:, 1], return_inverse=True)
    u, v = (place / BLOCK - 0.5).T
    # Columns: the plane's three terms, the indicator, the value. Their products, summed by block.
    columns = [np.ones(u.size), u, v, outside.astype(np.float64), plane[near]]
    sums = np.empty((int(block_of.max()) + 1, 5, 5))
    for i, first in enumerate(columns):
        for j, second in enumerate(columns[: i + 1]):
            sums[:, i, j] = sums[:, j, i] = np.bincount(block_of, first * second)
    sums = sums[sums[:, 0, 0] >= MIN_IN_BLOCK]
    bins = float(sums[:, 0, 0].sum())
    terms, rest = sums[:, :3, :3] + 1e-9 * np.eye(3), sums[:, :3, 3:]
    left = (sums[:, 3:, 3:] - rest.transpose(0, 2, 1) @ np.linalg.solve(terms, rest)).sum(axis=0)
    if not left[0, 0] > 1e-3 * bins:
        return None
    jump = float(left[0, 1] / left[0, 0])
    spread = max(float(left[1, 1] - jump * left[0, 1]), 0.0) / max(bins - 3 * len(sums) - 1, 1.0)
    # Neighbouring bins share a few interpolated samples, and faint stars.
    return jump, 1.5 * math.sqrt(spread / float(left[0, 0]))
