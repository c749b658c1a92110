"""Growth of rejected regions: the wings of a trail are too faint to be rejected, but lie beside what was."""

from __future__ import annotations

from typing import Any

from zmtile.kernels import kernel

__all__ = ["REACH", "grow_region", "mark_extremes"]

# A region is where at least NEED of the samples of a frame within REACH pixels either way, that is of
# (2 · REACH + 1)², were rejected. docs/accuracy.md tells how often noise makes one.
REACH = 2
NEED = 8


@kernel
def mark_extremes(samples: Any, counts: Any, sign: float, mask: Any) -> None:
    """Mark the rejected samples of each pixel: of the highest (sign 1) or lowest (−1), the number counted.

    Parameters
    ----------
    samples : (frames, pixels) float32
    counts : (pixels,) uint16
        Samples rejected at that end. Equal samples share their fate, so it is clear which they are.
    sign : float32
    mask : (frames, pixels) bool
        Written: True for them, elsewhere unchanged.
    """
    for pixel in range(samples.shape[1]):
        for _ in range(counts[pixel]):
            worst = -1
            for k in range(samples.shape[0]):
                x = sign * samples[k, pixel]
                if x == x and not mask[k, pixel] and (worst < 0 or x > sign * samples[worst, pixel]):
                    worst = k
            mask[worst, pixel] = True


@kernel
def grow_region(mask: Any, radius: int, grown: Any) -> None:
    """Mark what lies within a radius of the regions of a frame's rejected samples.

    Parameters
    ----------
    mask : (rows, cols) bool
        Rejected samples.
    radius : int
        Pixels, as the crow flies.
    grown : (rows, cols) bool
        Written: True there, the region itself included; elsewhere unchanged.
    """
    rows, cols = mask.shape
    for row in range(rows):
        for col in range(cols):
            if not mask[row, col]:
                continue
            found = 0
            for r in range(max(row - REACH, 0), min(row + REACH + 1, rows)):
                for c in range(max(col - REACH, 0), min(col + REACH + 1, cols)):
                    found += mask[r, c]
            if found < NEED:
                continue
            for r in range(max(row - radius, 0), min(row + radius + 1, rows)):
                for c in range(max(col - radius, 0), min(col + radius + 1, cols)):
                    if (r - row) * (r - row) + (c - col) * (c - col) <= radius * radius:
                        grown[r, c] = True
