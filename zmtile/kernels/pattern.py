"""Search for the similarity that lays one list of stars on another: over pairs, triangles, shifts."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import brief, kernel
from zmtile.kernels.order import median

__all__ = ["best_of_pairs", "best_of_triangles", "best_shift"]


@kernel
def _hits(
    a: float,
    b: float,
    tx: float,
    ty: float,
    ax: Any,
    ay: Any,
    star_map: Any,
    origin_x: float,
    origin_y: float,
    step: float,
    asked: Any,
) -> int:
    """Count which of the source stars `asked` land on a star of the target's map.

    Hypotheses that bring fewer than two of the first 30 home are given up early.
    """
    columns, rows = star_map.shape
    hits = 0
    for number, s in enumerate(asked):
        if number == 30 and hits < 2:
            break
        u = (a * ax[s] - b * ay[s] + tx - origin_x) / step
        v = (b * ax[s] + a * ay[s] + ty - origin_y) / step
        if 0.0 <= u < columns and 0.0 <= v < rows:
            hits += star_map[int(u), int(v)]
    return hits


@kernel
def _enter(hits: int, a: float, b: float, tx: float, ty: float, found: Any, score: Any) -> None:
    """Put a hypothesis into the list of the best, if it belongs there."""
    place = score.size - 1
    if hits <= score[place] or hits < 4:
        return
    while place > 0 and score[place - 1] < hits:
        score[place] = score[place - 1]
        for i in range(4):  # a slice would take a second more to compile
            found[place, i] = found[place - 1, i]
        place -= 1
    score[place] = hits
    found[place, 0] = a
    found[place, 1] = b
    found[place, 2] = tx
    found[place, 3] = ty


@kernel
def best_of_pairs(
    ax: Any,
    ay: Any,
    bx: Any,
    by: Any,
    star_map: Any,
    origin_x: float,
    origin_y: float,
    step: float,
    found: Any,
    score: Any,
    first: Any,
    second: Any,
    length: Any,
    shortest: float,
    spread: float,
) -> None:
    """Lay every pair of source stars on every pair of target stars and keep the best hypotheses.

    Parameters
    ----------
    ax, ay, bx, by : (stars,) float64
        Source and target, brightest first.
    star_map : (columns, rows) bool
        Cells of `step` px from (origin_x, origin_y) that have a star within reach.
    found : (kept, 4) float64
        Written: a, b, tx, ty of [a -b tx; b a ty], best first.
    score : (kept,) int64
        Written: source stars that land on a star; 0 for places left empty.
    first, second : (pairs,) int64
        Target pairs, ordered by length.
    length : (pairs,) float64
        Logarithm of their length.
    shortest : float
        Source pairs below this length, px, say too little of the angle.
    spread : float
        Largest difference of the logarithms of two pairs' lengths.
    """
    count = ax.size
    everyone = np.arange(count)
    score[:] = 0
    for i in range(count):
        for j in range(i + 1, count):
            dx, dy = ax[j] - ax[i], ay[j] - ay[i]
            square = dx * dx + dy * dy
            if square < shortest * shortest:
                continue
            middle = 0.5 * np.log(square)
            low = np.searchsorted(length, middle - spread)
            high = np.searchsorted(length, middle + spread)
            for pair in range(low, high):
                k, m = first[pair], second[pair]
                ex, ey = bx[m] - bx[k], by[m] - by[k]
                a = (ex * dx + ey * dy) / square
                b = (ey * dx - ex * dy) / square
                tx = bx[k] - a * ax[i] + b * ay[i]
                ty = by[k] - b * ax[i] - a * ay[i]
                hits = _hits(a, b, tx, ty, ax, ay, star_map, origin_x, origin_y, step, everyone)
                _enter(hits, a, b, tx, ty, found, score)


@kernel
def best_of_triangles(
    ax: Any,
    ay: Any,
    bx: Any,
    by: Any,
    star_map: Any,
    origin_x: float,
    origin_y: float,
    step: float,
    found: Any,
    score: Any,
    here: Any,
    here_shape: Any,
    there: Any,
    there_shape: Any,
    near: Any,
    blur: float,
    spread: float,
) -> None:
    """Lay every source triangle on every target triangle of its shape and keep the best hypotheses.

    Parameters
    ----------
    ax, ay, bx, by, star_map, origin_x, origin_y, step, found, score
        As in `best_of_pairs`.
    here, there : (triangles, 2) int64
        Ends of the longest sides.
    here_shape, there_shape : (triangles, 3) float64
        The third corner, along the longest side and across, in units of its length; the logarithm
        of that length. Target triangles are ordered by the first of these.
    near : (stars, asked) int64
        Neighbours of every source star, itself included. Only those around the triangle are asked
        whether they land on a star: a small triangle says nothing of places far away.
    blur : float
        How far a corner may be off, px.
    spread : float
        Largest difference of the logarithms of two triangles' sizes.
    """
    score[:] = 0
    along = there_shape[:, 0]
    for s in range(here.shape[0]):
        u, v, size = here_shape[s]
        i, j = here[s]
        dx, dy = ax[j] - ax[i], ay[j] - ay[i]
        square = dx * dx + dy * dy
        reach = blur / np.sqrt(square)
        low = np.searchsorted(along, u - reach)
        high = np.searchsorted(along, u + reach)
        for t in range(low, high):
            if abs(there_shape[t, 1] - v) > reach or abs(there_shape[t, 2] - size) > spread:
                continue
            k, m = there[t]
            ex, ey = bx[m] - bx[k], by[m] - by[k]
            a = (ex * dx + ey * dy) / square
            b = (ey * dx - ex * dy) / square
            # About the middle of the side, so that neither end is favoured.
            tx = 0.5 * (bx[k] + bx[m] - a * (ax[i] + ax[j]) + b * (ay[i] + ay[j]))
            ty = 0.5 * (by[k] + by[m] - b * (ax[i] + ax[j]) - a * (ay[i] + ay[j]))
            hits = _hits(a, b, tx, ty, ax, ay, star_map, origin_x, origin_y, step, near[i])
            _enter(hits, a, b, tx, ty, found, score)


@brief
def best_shift(here: Any, there: Any, size: float, cell: float, shift: Any) -> int:
    """Let the differences between all points of two lists vote for a shift; return the votes of the best.

    Parameters
    ----------
    here, there : (n, 2), (m, 2) float64
    size : float
        Differences beyond it are no votes, px: they would only make the table large.
    cell : float
        Side of a bin, px. The fullest 3 × 3 bins win.
    shift : (2,) float64
        Written, where there are votes: the median of those that won.
    """
    count = 0
    bins = np.empty((here.shape[0] * there.shape[0], 2), np.int64)
    difference = np.empty((here.shape[0] * there.shape[0], 2))
    for s in range(here.shape[0]):
        for t in range(there.shape[0]):
            dx, dy = there[t, 0] - here[s, 0], there[t, 1] - here[s, 1]
            if abs(dx) <= size and abs(dy) <= size:
                difference[count, 0], difference[count, 1] = dx, dy
                bins[count, 0], bins[count, 1] = np.floor(dx / cell), np.floor(dy / cell)
                count += 1
    if count == 0:
        return 0
    low_x, low_y, high_x, high_y = bins[0, 0], bins[0, 1], bins[0, 0], bins[0, 1]
    for n in range(1, count):
        low_x, high_x = min(low_x, bins[n, 0]), max(high_x, bins[n, 0])
        low_y, high_y = min(low_y, bins[n, 1]), max(high_y, bins[n, 1])
    columns, rows = high_x - low_x + 3, high_y - low_y + 3
    votes = np.zeros(columns * rows, np.int32)
    best = most = 0
    for n in range(count):
        for i in range(bins[n, 0] - low_x, bins[n, 0] - low_x + 3):
            for j in range(bins[n, 1] - low_y, bins[n, 1] - low_y + 3):
                place = i * rows + j
                votes[place] += 1
                if votes[place] > most or (votes[place] == most and place < best):
                    best, most = place, votes[place]
    x, y = np.empty(most), np.empty(most)
    won = 0
    for n in range(count):
        i, j = bins[n, 0] - low_x - best // rows, bins[n, 1] - low_y - best % rows
        if -2 <= i <= 0 and -2 <= j <= 0:
            x[won], y[won] = difference[n, 0], difference[n, 1]
            won += 1
    shift[0], shift[1] = median(x, won), median(y, won)
    return won
