"""Rejection beyond median ± kappa·sigma until none goes, with Huber's winsorised sigma or the plain SD."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import inlined, kernel
from zmtile.kernels.lanes import (
    HALF,
    INF,
    LANES,
    ONE,
    TWO,
    ZERO,
    aligned,
    bits_of,
    choose,
    count_lanes,
    every,
    first_bit,
    highest,
    lowest,
    plus_product,
    put_lanes,
    root,
    take_lanes,
)
from zmtile.kernels.ranks import ends, middle

__all__ = ["reject_sigma"]

# Huber's winsorisation: clip at 1.5 sigma; the SD of a Gaussian so clipped is 1/1.134 of its own.
CLIP = np.float32(1.5)
GROW = np.float32(1.134)
TOLERANCE = np.float32(5e-4)
MAX_ROUNDS = np.float32(49.0)
_THREE = np.float32(3.0)
# Lanes of a group that may be left over when it is given up.
_FEW = LANES // 2
_ALL = 2**LANES - 1

# Rows of a search below its samples: the lanes' variables.
_CENTRE, _PER_N, _PER_DOF, _LOW, _HIGH, _SIGMA, _TURN, _LOWEST, _HIGHEST = range(9)
_ROWS = 9


@inlined
def _add_clipped(tile: Any, row: int, centre: Any, low: Any, high: Any, total: Any, square: Any) -> Any:
    """Return two sums and a row's samples about their centre, clipped on both sides, and their squares."""
    d = take_lanes(tile, row * LANES) - centre
    d = choose(d < low, low, d)
    d = choose(d > high, high, d)
    return total + d, plus_product(square, d, d)


@inlined
def _spread(tile: Any, n: int, below: int, above: int, centre: Any, low: Any, high: Any) -> Any:
    """Return the sums of the lanes' samples about their centre, clipped to [low, high], and of the squares.

    Rows that do not count hold the centre, so they add nothing. Differences from a median within a
    factor of two are exact in float32, and a sample further out dominates the sum anyway. Rows are sorted:
    what lies before row `below` is no higher than the centre, and what lies from `above` on no lower, so that
    it need be clipped on one side only. Even and odd rows are added up apart, as each sum waits for the one
    before it, 3 cycles or 4. Loops have no steps, and the last row has a loop: else numba's references to the
    tile are not seen to be needless, and to count them took a sixth of the search.
    """
    even, even_square, odd, odd_square = every(ZERO), every(ZERO), every(ZERO), every(ZERO)
    pairs = n >> 1
    end = min((above + 1) >> 1, pairs)
    begin = min(below >> 1, end)
    for k in range(begin):
        d = take_lanes(tile, 2 * k * LANES) - centre
        d = choose(d < low, low, d)
        even += d
        even_square = plus_product(even_square, d, d)
        d = take_lanes(tile, (2 * k + 1) * LANES) - centre
        d = choose(d < low, low, d)
        odd += d
        odd_square = plus_product(odd_square, d, d)
    for k in range(begin, end):
        even, even_square = _add_clipped(tile, 2 * k, centre, low, high, even, even_square)
        odd, odd_square = _add_clipped(tile, 2 * k + 1, centre, low, high, odd, odd_square)
    for k in range(end, pairs):
        d = take_lanes(tile, 2 * k * LANES) - centre
        d = choose(d > high, high, d)
        even += d
        even_square = plus_product(even_square, d, d)
        d = take_lanes(tile, (2 * k + 1) * LANES) - centre
        d = choose(d > high, high, d)
        odd += d
        odd_square = plus_product(odd_square, d, d)
    for i in range(2 * pairs, n):
        even, even_square = _add_clipped(tile, i, centre, low, high, even, even_square)
    return even + odd, even_square + odd_square


@kernel
def _shares(number: Any) -> Any:
    """Return 1 / n and 1 / (n - 1): to divide by them in every turn took a twentieth of the rejection."""
    return ONE / number, ONE / (number - ONE)


@kernel
def _settle(
    total: Any,
    square: Any,
    per_n: Any,
    per_dof: Any,
    low: Any,
    high: Any,
    old: Any,
    turn: Any,
    rounds: float,
    alive: Any,
) -> Any:
    """Return the next bounds and sigma of every lane from its sums, and which have converged.

    `per_n` and `per_dof` are 1 / n and 1 / (n - 1).

    The first turn, before which sigma is 0, gives the plain SD. If that is 0, too, no turn changes it. The
    copy is clipped again and again: its bounds only close. Lanes that are not alive keep their sigma.

    From turn `rounds` on all lanes are done, whatever their numbers: the search must end. Squares of samples
    within bounds can add up to infinity, and then sigma and its change are infinite or NaN, which no
    comparison settles. So the change counts as 0 there, and that is within any tolerance: sigma is never
    NaN, as a spread that is NaN counts as 0.

    Conditions are not joined: to be, they are packed into bytes with AVX2, and unpacked again, which took as
    long as ten rows.
    """
    spread = (square - total * (total * per_n)) * per_dof
    sigma = root(choose(spread > ZERO, spread, ZERO))
    sigma = choose(turn > ZERO, GROW * sigma, sigma)
    sigma = choose(alive > ZERO, sigma, old)
    up, down = sigma - old, old - sigma
    change = choose(up > down, up, down)
    done = choose(turn >= rounds, ZERO, change) <= TOLERANCE * old
    below, above = -CLIP * sigma, CLIP * sigma
    low = choose(below > low, below, low)
    high = choose(above < high, above, high)
    return low, high, sigma, done


@kernel
def _cover(queue: Any, top: int, row: int, centre: Any, outside: Any, tile: Any) -> None:
    """Copy a row of a queue to the tile, the centre in place of what counts for nothing.

    Not from the tile to itself, which would be a store of some lanes only: see `lowest`.
    """
    x = take_lanes(queue, (top + row) * LANES)
    put_lanes(tile, row * LANES, choose((x < INF) & ~outside, x, centre))


@kernel
def _shut(queue: Any, top: int, n: int, first: Any, last: Any, centre: Any, lanes: Any, tile: Any) -> None:
    """Set the rows outside first … last - 1 of some lanes to the centre, where they count for nothing.

    A row may lie before the first one of a lane and after the last one of another.
    """
    row = 0
    while count_lanes(lanes & (first > np.float32(row))) > 0:
        outside = (first > np.float32(row)) | (last <= np.float32(row))
        _cover(queue, top, row, centre, lanes & outside, tile)
        row += 1
    row = n - 1
    while count_lanes(lanes & (last <= np.float32(row))) > 0:
        outside = (first > np.float32(row)) | (last <= np.float32(row))
        _cover(queue, top, row, centre, lanes & outside, tile)
        row -= 1


@kernel
def _search_together(
    queue: Any,
    group: int,
    counts: Any,
    klow: float,
    khigh: float,
    rounds: float,
    below: int,
    above: int,
    first: Any,
    last: Any,
    tile: Any,
) -> Any:
    """Search sigma in all lanes of a group at once, until it is settled in most of them.

    Returns, as bits, the lanes in which it goes on: not settled, or samples were lost. `tile` then holds
    them as the belt needs them.
    """
    n = queue.shape[1]
    top, start = group * n, group * LANES
    count = take_lanes(counts, start)
    enough = count >= _THREE
    centre = choose(enough, middle(queue, top, n, count), ZERO)
    per_n, per_dof = _shares(choose(enough, count, TWO))
    for i in range(n):
        x = take_lanes(queue, (top + i) * LANES)
        put_lanes(tile, i * LANES, choose(x < INF, x, centre))
    low, high, sigma = every(-INF), every(INF), every(ZERO)
    turn, alive = every(ZERO), choose(enough, ONE, ZERO)
    many = True
    while many:
        total, square = _spread(tile, n, below, above, centre, low, high)
        low, high, sigma, done = _settle(total, square, per_n, per_dof, low, high, sigma, turn, rounds, alive)
        turn += ONE
        alive = choose(done, ZERO, ONE)
        many = count_lanes(done) < LANES - _FEW
    left = alive > ZERO
    done = enough & ~left
    lower, upper = centre - klow * sigma, centre + khigh * sigma
    a, b = every(ZERO), count
    for i in range(n):
        lost = done & (take_lanes(queue, (top + i) * LANES) < lower)
        if count_lanes(lost) == 0:
            break
        a = choose(lost, a + ONE, a)
    for i in range(n - 1, -1, -1):
        x = take_lanes(queue, (top + i) * LANES)
        lost = done & (x > upper) & (a < b)
        if count_lanes(lost) == 0:
            break
        b = choose(lost & (x < INF), b - ONE, b)
    some = a < b  # a kappa below 1 can refuse them all; then none goes
    a, b = choose(some, a, ZERO), choose(some, b, count)
    put_lanes(first, start, a)
    put_lanes(last, start, b)
    again = done & (b - a < count) & (b - a >= _THREE)
    centre = choose(again, middle(queue, top, n, a + b), centre)
    _shut(queue, top, n, a, b, centre, again, tile)
    bottom, peak = ends(queue, top, n, a, b)
    put_lanes(tile, (n + _CENTRE) * LANES, centre)
    per_n_again, per_dof_again = _shares(b - a)
    put_lanes(tile, (n + _PER_N) * LANES, choose(again, per_n_again, per_n))
    put_lanes(tile, (n + _PER_DOF) * LANES, choose(again, per_dof_again, per_dof))
    put_lanes(tile, (n + _LOW) * LANES, choose(again, -INF, low))
    put_lanes(tile, (n + _HIGH) * LANES, choose(again, INF, high))
    put_lanes(tile, (n + _SIGMA) * LANES, choose(again, ZERO, sigma))
    put_lanes(tile, (n + _TURN) * LANES, choose(again, ZERO, turn))
    put_lanes(tile, (n + _LOWEST) * LANES, bottom)
    put_lanes(tile, (n + _HIGHEST) * LANES, peak)
    return bits_of(left | again)


@kernel
def _turn(belt: Any, n: int, below: int, above: int, klow: float, khigh: float, rounds: float) -> Any:
    """Take a turn in every lane of the belt; return, as bits, who has settled without a loss and with one."""
    centre, sigma = take_lanes(belt, (n + _CENTRE) * LANES), take_lanes(belt, (n + _SIGMA) * LANES)
    low, high = take_lanes(belt, (n + _LOW) * LANES), take_lanes(belt, (n + _HIGH) * LANES)
    per_n, per_dof = take_lanes(belt, (n + _PER_N) * LANES), take_lanes(belt, (n + _PER_DOF) * LANES)
    turn = take_lanes(belt, (n + _TURN) * LANES)
    total, square = _spread(belt, n, below, above, centre, low, high)
    low, high, sigma, done = _settle(
        total, square, per_n, per_dof, low, high, sigma, turn, rounds, every(ONE)
    )
    put_lanes(belt, (n + _LOW) * LANES, low)
    put_lanes(belt, (n + _HIGH) * LANES, high)
    put_lanes(belt, (n + _SIGMA) * LANES, sigma)
    put_lanes(belt, (n + _TURN) * LANES, turn + ONE)
    lower, upper = centre - klow * sigma, centre + khigh * sigma
    lost = take_lanes(belt, (n + _LOWEST) * LANES) < lower
    lost = lost | (take_lanes(belt, (n + _HIGHEST) * LANES) > upper)
    return bits_of(done & ~lost), bits_of(done & lost)


@kernel
def _middles(counts: Any, groups: int, n: int, scratch: Any) -> Any:
    """Return where the medians of a queue's pixels lie: before a first row, nothing is above any of them.

    The second one: from there on nothing is below any.
    """
    least, most = every(np.float32(n)), every(ZERO)
    for group in range(groups):
        count = take_lanes(counts, group * LANES)
        least = lowest(least, choose(count >= _THREE, count, np.float32(n)))
        most = highest(most, count)
    put_lanes(scratch, 0, least)
    put_lanes(scratch, LANES, most)
    below, above = n, 0
    for lane in range(LANES):
        below = min(below, (int(scratch[lane]) + 1) >> 1)
        above = max(above, int(scratch[LANES + lane]) >> 1)
    return below, above


@kernel
def reject_sigma(
    queue: Any, groups: int, counts: Any, klow: float, khigh: float, winsor: bool, first: Any, last: Any
) -> None:
    """Find the survivors of each pixel of a queue: rejection beyond median ± kappa·sigma until none goes.

    At first the lanes of a group go on together. Half of the pixels need 4 turns, but the slowest of
    32 needs 20. So those left over, and those that lost a sample, go to a belt: as soon as one of
    its lanes is free, it takes the next pixel. What is done lane by lane has no branches where it can do
    without: which pixel goes on cannot be foreseen, and a branch taken wrongly costs as much as two rows.

    Parameters
    ----------
    queue : (..., n, LANES) float32
        Sorted samples, +inf where there is none.
    groups : int
        Groups of the queue that are filled.
    counts : (groups · LANES,) float32
        Samples of each pixel.
    klow, khigh : float32
        Bounds in sigma.
    winsor : bool
        Huber's winsorised sigma instead of the plain SD.
    first, last : (groups · LANES,) float32
        Written: survivors are rows first … last - 1.
    """
    n = queue.shape[1]
    tile, belt = aligned((n + _ROWS) * LANES), aligned((n + _ROWS) * LANES)
    belt[:] = ZERO
    rounds = MAX_ROUNDS if winsor else ZERO  # the plain SD is that of the first turn
    below, above = _middles(counts, groups, n, tile)
    pixel = np.zeros(LANES, np.int64)  # in each lane of the belt
    free = _ALL
    for group in range(groups + 1):  # beyond the last one, the belt is emptied
        waiting = 0
        if group < groups:
            waiting = _search_together(
                queue, group, counts, klow, khigh, rounds, below, above, first, last, tile
            )
        while True:
            while free != 0 and waiting != 0:
                lane, column = first_bit(free), first_bit(waiting)
                free &= free - 1
                waiting &= waiting - 1
                at = group * LANES + column
                pixel[lane] = at
                both = int(first[at] + last[at])
                below, above = min(below, (both + 1) >> 1), max(above, both >> 1)
                for i in range(n + _ROWS):
                    belt[i * LANES + lane] = tile[i * LANES + column]
            if free == _ALL or (waiting == 0 and group < groups):
                break
            done, lost = _turn(belt, n, below, above, klow, khigh, rounds)
            lost &= ~free
            free |= done
            while lost != 0:
                lane = first_bit(lost)
                lost &= lost - 1
                at = pixel[lane]
                a, b = int(first[at]), int(last[at])
                sigma = belt[(n + _SIGMA) * LANES + lane]
                lower = belt[(n + _CENTRE) * LANES + lane] - klow * sigma
                upper = belt[(n + _CENTRE) * LANES + lane] + khigh * sigma
                while a < b and belt[a * LANES + lane] < lower:
                    a += 1
                while b > a and belt[(b - 1) * LANES + lane] > upper:
                    b -= 1
                if a < b:  # a kappa below 1 can refuse them all; then none goes
                    first[at], last[at] = np.float32(a), np.float32(b)
                if b - a < 3:
                    free |= 1 << lane
                    continue
                below, above = min(below, (a + b + 1) >> 1), max(above, (a + b) >> 1)
                lower = belt[((a + b - 1) >> 1) * LANES + lane]
                upper = belt[((a + b) >> 1) * LANES + lane]
                centre = lower + HALF * (upper - lower)
                for i in range(a):
                    belt[i * LANES + lane] = centre
                for i in range(b, n):
                    belt[i * LANES + lane] = centre
                belt[(n + _CENTRE) * LANES + lane] = centre
                number = np.float32(b - a)
                belt[(n + _PER_N) * LANES + lane] = ONE / number
                belt[(n + _PER_DOF) * LANES + lane] = ONE / (number - ONE)
                belt[(n + _LOW) * LANES + lane] = -INF
                belt[(n + _HIGH) * LANES + lane] = INF
                belt[(n + _SIGMA) * LANES + lane] = ZERO
                belt[(n + _TURN) * LANES + lane] = ZERO
                belt[(n + _LOWEST) * LANES + lane] = belt[a * LANES + lane]
                belt[(n + _HIGHEST) * LANES + lane] = belt[(b - 1) * LANES + lane]
