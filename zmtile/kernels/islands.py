"""Objects of an image: what is above a threshold, and how it is taken apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel

__all__ = ["bright_pixels", "take_apart"]

# Pixels that are looked at together: most hold none that is bright.
_RUN = 256


@kernel
def bright_pixels(light: Any, mesh: Any, cell: int, limit: float, at: Any, value: Any, cut: Any) -> int:
    """Subtract the background from an image, and list the pixels that are bright once it is smoothed.

    It is smoothed with the weights 1 2 1 both ways. Outside of the image and where it is NaN, there is sky.

    Parameters
    ----------
    light : (rows, cols) float32
        Written: less the background, zero where it was NaN.
    mesh : (cell rows, cell cols) float32
        Background at the middle of square cells, two at least both ways; linear in between.
    cell : int
        Side of a cell, px.
    limit : float
        Bright is what is above it.
    at : (n,) int64
        Written: row · cols + col of the bright pixels, ascending; the first n of them.
    value : (n,) float32
        Written: their smoothed values.
    cut : (n,) uint8
        Written: 1 where the pixel touches the edge of the image or of its data.

    Returns
    -------
    int
        How many pixels are bright, also where that is more than n.
    """
    rows, cols = light.shape
    lines = np.zeros((3, cols + 2), np.float32)  # the last three rows without NaN, with a margin
    down, smooth = np.empty(cols + 2, np.float32), np.empty(cols, np.float32)
    nodes = np.empty(mesh.shape[1], np.float32)
    count = missing = 0
    for y in range(1, rows + 1):
        for fresh in range(0 if y == 1 else y, y + 1):
            if fresh < rows:
                _level(light[fresh], fresh, mesh, cell, nodes)
                missing += _filled(light[fresh], lines[fresh % 3, 1 : cols + 1])
            else:
                lines[fresh % 3] = np.float32(0.0)
        before, middle, after = lines[(y + 1) % 3], lines[(y + 2) % 3], lines[y % 3]
        for x in range(cols + 2):
            down[x] = (before[x] + after[x]) + np.float32(2.0) * middle[x]
        line = light[y - 1]
        for first in range(0, cols, _RUN):
            last = min(first + _RUN, cols)
            if _smoothed(down[first : last + 2], smooth[first:last], limit) == 0:
                continue
            for x in range(first, last):
                if smooth[x] > limit and line[x] == line[x]:
                    if count < at.size:
                        at[count] = (y - 1) * cols + x
                        value[count] = smooth[x]
                        cut[count] = _touches(light, y - 1, x)
                    count += 1
    if missing:
        for y in range(rows):
            _filled(light[y], light[y])
    return count


@kernel
def _filled(line: Any, out: Any) -> Any:
    """Write a row with zeros in place of NaN; return how many there are."""
    missing = np.int32(0)
    for x in range(line.size):
        value = line[x]
        missing += np.int32(0) if value == value else np.int32(1)
        out[x] = value if value == value else np.float32(0.0)
    return missing


@kernel
def _smoothed(down: Any, out: Any, limit: float) -> Any:
    """Write the sums of three neighbours, weighted 1 2 1, over 16; return how many are above a limit."""
    bright = np.int32(0)
    for x in range(out.size):
        value = np.float32(1 / 16) * ((down[x] + down[x + 2]) + np.float32(2.0) * down[x + 1])
        out[x] = value
        bright += np.int32(1) if value > limit else np.int32(0)
    return bright


@kernel
def _level(line: Any, y: int, mesh: Any, cell: int, nodes: Any) -> None:
    """Subtract the background from a row: linear between the middles of cells, and on to their edge."""
    cell_rows, cell_cols = mesh.shape
    place = (y + 0.5) / cell - 0.5
    i = min(max(int(place), 0), cell_rows - 2)
    t = np.float32(min(max(place - i, -0.5), 1.5))
    for j in range(cell_cols):
        nodes[j] = mesh[i, j] + t * (mesh[i + 1, j] - mesh[i, j])
    half = cell >> 1
    for j in range(cell_cols - 1):
        first = 0 if j == 0 else j * cell + half
        last = line.size if j == cell_cols - 2 else (j + 1) * cell + half
        slope = (nodes[j + 1] - nodes[j]) / np.float32(cell)
        _subtract_ramp(line[first:last], nodes[j], slope, first - j * cell - 0.5 * (cell - 1), 1.5 * cell)


@kernel
def _subtract_ramp(line: Any, start: float, slope: float, first: float, end: float) -> None:
    """Subtract a straight line from pixels that begin at `first` of it; from `end` on it is level."""
    away, most = np.float32(first), np.float32(end)
    for x in range(line.size):
        line[x] -= start + slope * min(away + np.float32(x), most)


@kernel
def _touches(light: Any, y: int, x: int) -> int:
    """Tell whether a pixel lies beside the edge of an image or of its data."""
    rows, cols = light.shape
    if y == 0 or x == 0 or y == rows - 1 or x == cols - 1:
        return 1
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            if light[y + dy, x + dx] != light[y + dy, x + dx]:
                return 1
    return 0


@kernel
def _root(parent: Any, p: int) -> int:
    """Return the root of a tree, and shorten the way to it."""
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


@kernel
def _link(at: Any, cols: int, links: Any) -> None:
    """Write the eight neighbours of each listed pixel, as places in the list; -1 where there is none."""
    links[:] = -1
    above = 0
    for p in range(at.size):
        if p > 0 and at[p - 1] == at[p] - 1 and at[p] % cols != 0:
            links[p, 3], links[p - 1, 4] = p - 1, p
        while at[above] < at[p] - cols - 1:
            above += 1
        q = above
        while at[q] <= at[p] - cols + 1:
            step = at[q] - at[p] + cols
            if abs(at[q] % cols - at[p] % cols) <= 1:
                links[p, 1 + step], links[q, 6 - step] = q, p
            q += 1


@kernel
def take_apart(
    at: Any, value: Any, order: Any, cols: int, least: int, share: float, depth: float, owner: Any
) -> None:
    """Tell which of the bright pixels belong together: connected regions, taken apart at their peaks.

    From the brightest pixel down, each joins the peak next to it. Where two peaks meet, both stay objects if
    each has, above the level at which they meet, at least `least` pixels, more than `share` of the
    light of the whole region, and a height of more than `depth`. That is the rule by which SExtractor
    takes objects apart [Bertin1996]_, but at every level instead of a few. A peak that does not meet it
    belongs to the other one.

    Parameters
    ----------
    at : (n,) int64
        The bright pixels, row · cols + col, ascending.
    value : (n,) float32
        Their values.
    order : (n,) int64
        Their places in the list, brightest first.
    cols : int
        Columns of the image.
    least, share, depth : int, float, float
    owner : (n,) int64
        Written: the place in the list of the peak that each pixel belongs to.
    """
    n = at.size
    links = np.empty((n, 8), np.int32)
    _link(at, cols, links)
    tree, total = np.arange(n), np.zeros(n)
    for p in range(n):
        for k in range(4):
            if links[p, k] >= 0:
                tree[_root(tree, p)] = _root(tree, links[p, k])
    for p in range(n):
        total[_root(tree, p)] += value[p]
    demanded = np.empty(n)
    for p in range(n):
        demanded[p] = share * total[_root(tree, p)]
    # From here on a tree is what has been joined so far, and its root holds what is known of it.
    tree[:] = -1
    peak, count, flux, several = np.arange(n), np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.bool_)
    for p in order:
        top = best = tree[p] = owner[p] = p
        for k in range(8):
            q = links[p, k]
            if q >= 0 and tree[q] >= 0 and value[q] >= value[best]:
                best = q
        if best != p:
            owner[p] = best
            top = tree[p] = _root(tree, best)
        count[top] += 1
        flux[top] += value[p]
        for k in range(8):
            q = links[p, k]
            if q < 0 or tree[q] < 0:
                continue
            other = _root(tree, q)
            if other == top:
                continue
            stand = 0
            for r in (top, other):
                above = count[r] >= least and flux[r] - value[p] * count[r] > demanded[p]
                if several[r] or (above and value[peak[r]] - value[p] > depth):
                    stand += 1 if r == top else 2
            lower = value[peak[top]] < value[peak[other]]
            if stand == 2 or (stand == 0 and lower):
                owner[peak[top]] = _root(owner, q)
            elif stand < 2:
                owner[peak[other]] = _root(owner, p)
            if stand == 2 or (stand != 1 and lower):
                peak[top] = peak[other]
            several[top] = several[top] or several[other] or stand == 3
            count[top] += count[other]
            flux[top] += flux[other]
            tree[other] = top
    for p in range(n):
        owner[p] = _root(owner, p)
