"""The definitions as plain, slow, obviously right float64 code: one column of samples at a time."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats


def finite(column):
    return np.sort(np.array([x for x in column if not math.isnan(x)], dtype=np.float64))


def winsorized_sigma(x):
    """Huber: clip a copy at median ± 1.5 sigma, sigma = 1.134 SD of the copy, until it stands still."""
    centre = np.median(x)
    sigma = np.std(x, ddof=1)
    copy = x.copy()
    for _ in range(49):
        copy = np.clip(copy, centre - 1.5 * sigma, centre + 1.5 * sigma)
        new = 1.134 * np.std(copy, ddof=1)
        settled = abs(new - sigma) <= 5e-4 * sigma
        sigma = new
        if settled:
            break
    return sigma


def iterate(x, klow, khigh, sigma_of):
    while len(x) >= 3:
        centre, sigma = np.median(x), sigma_of(x)
        kept = x[(x >= centre - klow * sigma) & (x <= centre + khigh * sigma)]
        if len(kept) in (0, len(x)):  # a kappa below 1 can refuse them all; then none goes
            break
        x = kept
    return x


def winsor(column, klow=3.0, khigh=3.0):
    return iterate(finite(column), klow, khigh, winsorized_sigma)


def sigma(column, klow=3.0, khigh=3.0):
    return iterate(finite(column), klow, khigh, lambda x: np.std(x, ddof=1))


def quantile_bounds(column, qlow, qhigh, klow=3.0, khigh=3.0):
    x = finite(column)
    if len(x) < 3:
        return -math.inf, math.inf
    copy = np.clip(x, np.nanquantile(x, qlow), np.nanquantile(x, 1 - qhigh))
    centre, spread = np.median(copy), np.std(copy, ddof=1)
    return centre - klow * spread, centre + khigh * spread


def winsor_quantile(column, qlow=0.05, qhigh=0.05, klow=3.0, khigh=3.0):
    low, high = quantile_bounds(column, qlow, qhigh, klow, khigh)
    kept = np.array([x for x in finite(column) if low <= x <= high])
    return kept if len(kept) else finite(column)


def mad(column, klow=3.0, khigh=3.0):
    return iterate(finite(column), klow, khigh, lambda x: 1.4826 * np.median(np.abs(x - np.median(x))))


def linear_fit(column, klow=3.0, khigh=3.0):
    """A straight line over rank; from either end, samples beyond kappa mean absolute deviations go."""
    x = finite(column)
    while len(x) >= 3:
        rank = np.arange(len(x))
        middle = np.median(x)  # float64 loses nothing to the level of the sky
        residual = x - middle - np.polyval(np.polyfit(rank, x - middle, 1), rank)
        sigma = max(np.abs(residual).mean(), 1e-6 * (x[-1] - x[0]))
        first = np.flatnonzero(residual >= -klow * sigma)[0]
        last = np.flatnonzero(residual <= khigh * sigma)[-1]
        kept = x[first : last + 1]
        if len(kept) in (0, len(x)):
            break
        x = kept
    return x


def esd(column, fraction=0.3, alpha=0.05):
    """Generalised ESD as Rosner gives it: the last test that rejects decides how many go."""
    x = finite(column)
    n = len(x)
    if n < 3:
        return x
    left, kept = x, x
    for i in range(1, min(int(fraction * n), n - 2) + 1):
        away = np.abs(left - left.mean())
        spread = left.std(ddof=1)
        # Of two that are equally far, the higher goes.
        worst = len(left) - 1 if away[-1] >= away[0] else 0
        p = 1 - alpha / (2 * (n - i + 1))
        t = stats.t.ppf(p, n - i - 1)
        critical = (n - i) * t / math.sqrt((n - i - 1 + t * t) * (n - i + 1))
        left, distance = np.delete(left, worst), away[worst]
        if distance > critical * spread:
            kept = left
    return x[(x >= kept[0]) & (x <= kept[-1])]  # a sample equal to a survivor survives


def minmax(column, low=1, high=1):
    x = finite(column)
    if len(x) < 3 or len(x) <= low + high:
        return x
    return x[(x >= x[low]) & (x <= x[len(x) - 1 - high])]


def interpolate(image, x, y, weights_of, taps):
    """Value of an image at one place, NaN unless every pixel under the kernel is there."""
    ix, iy = math.floor(x), math.floor(y)
    first_x, first_y = ix - (taps // 2 - 1), iy - (taps // 2 - 1)
    if first_x < 0 or first_y < 0 or first_x + taps > image.shape[1] or first_y + taps > image.shape[0]:
        return math.nan
    under = image[first_y : first_y + taps, first_x : first_x + taps].astype(np.float64)
    if np.isnan(under).any():
        return math.nan
    return float(weights_of(y - iy) @ under @ weights_of(x - ix))


def kernel_weights(name, t):
    """Weights of the pixels under a kernel for a place t right of the middle one, by their formulas."""
    taps = {"bilinear": 2, "cubic": 4, "lanczos3": 6, "lanczos4": 8}[name]
    distance = [abs(i - t) for i in range(1 - taps // 2, taps // 2 + 1)]

    def weight(d):
        if name == "bilinear":
            return max(0.0, 1 - d)
        if name == "cubic":
            if d <= 1:
                return 1.5 * d**3 - 2.5 * d**2 + 1
            return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0
        half = taps / 2
        if d == 0:
            return 1.0
        return (
            math.sin(math.pi * d) * math.sin(math.pi * d / half) * half / (math.pi * d) ** 2
            if d < half
            else 0.0
        )

    values = np.array([weight(d) for d in distance])
    return values / values.sum()


def wide_weights(name, t, span, places=200):
    """Weights of the pixels for a place t, as means over the places within span / 2 of it.

    The middle pair of taps are the pixels to the left and right of t.
    """
    half = {"bilinear": 1, "cubic": 2, "lanczos3": 3, "lanczos4": 4}[name] + math.ceil(span / 2)
    total = np.zeros(2 * half)
    for k in range(places):
        place = t + span * ((k + 0.5) / places - 0.5)
        weights = kernel_weights(name, place - math.floor(place))
        first = math.floor(place) + 1 - len(weights) // 2 - (1 - half)
        total[first : first + len(weights)] += weights / places
    return total


# Weights of a 5 × 5 patch, times 8, as printed by Malvar, He and Cutler: green where another colour was
# measured; a colour at a green pixel whose row, or column, holds it; red at blue and blue at red. Behind
# each, the share that is taken of its difference from the mean of the nearest samples.
GREEN = [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]
IN_ROW = [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
OPPOSITE = [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]


def demosaic(mosaic, cfa):
    """Gradient-corrected where all of the 5 × 5 filter is there, else the mean of the nearest samples.

    Without one of those, the colour is not there.
    """
    rows, cols = mosaic.shape
    letters = np.array(list(cfa)).reshape(2, 2)[np.arange(rows)[:, None] % 2, np.arange(cols) % 2]
    wide = np.full((rows + 4, cols + 4), np.nan)
    wide[2:-2, 2:-2] = mosaic
    named = np.array(list(cfa)).reshape(2, 2)[np.arange(rows + 4)[:, None] % 2, np.arange(cols + 4) % 2]
    out = np.full((3, rows, cols), np.nan)
    for y, x in np.ndindex(rows, cols):
        patch, colours = wide[y : y + 5, x : x + 5], named[y : y + 5, x : x + 5]
        for c, letter in enumerate("RGB"):
            if letters[y, x] == letter:
                out[c, y, x] = mosaic[y, x]
                continue
            if letter == "G":
                weights, share = np.array(GREEN), 3 / 4
            elif letters[y, x] == "G":
                weights, share = np.array(IN_ROW), 1 / 3
                weights = weights if colours[2, 1] == letter else weights.T
            else:
                weights, share = np.array(OPPOSITE), 1 / 3
            seen = weights != 0
            nearest = seen & (colours == letter) & (weights > 0)
            full = (weights[seen] * patch[seen]).sum() / 8
            mean = patch[nearest].mean()
            out[c, y, x] = mean + share * (full - mean) if np.isfinite(full) else mean
    return out


def bent_point(matrix, bend, x, y):
    """Move a frame pixel by a matrix and its bend, as docs/conventions.md defines it."""
    xc, yc, hx, hy, g, h = bend[:6]
    u = min(max((x - xc) / hx, -1), 1)
    v = min(max((y - yc) / hy, -1), 1)
    terms = (u * u, u * v, v * v, u**3, u * u * v, u * v * v, v**3)
    moved = []
    for row, weights in zip(matrix, (bend[6:13], bend[13:20]), strict=True):
        line = row[0] * hx * u + row[1] * hy * v
        value = row[0] * x + row[1] * y + row[2] + line * (1 / (1 + g * u + h * v) - 1)
        for weight, term in zip(weights, terms, strict=True):
            value += weight * term
        moved.append(value)
    return moved


def calibrated(raw, bias, dark, flat, factor, cfa, dead=0.1):
    """(raw - bias - (dark - bias) · factor) / flat, of a mosaic; masters with their bias, or None."""
    raw = raw.astype(np.float64)
    zero = np.zeros_like(raw)
    pedestal = zero if bias is None else bias
    thermal = zero if dark is None else (dark - pedestal) * factor
    response = np.ones_like(raw)
    if flat is not None:
        lit = flat - pedestal
        for letter in set(cfa):
            own = np.array(
                [
                    [cfa[2 * (y % 2) + x % 2] == letter for x in range(raw.shape[1])]
                    for y in range(raw.shape[0])
                ]
            )
            response[own] = lit[own] / np.nanmedian(lit[own])
        response[~(response >= dead)] = math.nan
    return (raw - pedestal - thermal) / response


def stands_out(plane, y, x):
    """A pixel less the median of its colour around it; 1.4826 times the upper median of their distances."""
    rows, cols = plane.shape
    near = [
        float(plane[y + dy, x + dx])
        for dy in (-2, 0, 2)
        for dx in (-2, 0, 2)
        if (dy or dx) and 0 <= y + dy < rows and 0 <= x + dx < cols and not math.isnan(plane[y + dy, x + dx])
    ]
    if len(near) < 3:
        return math.nan, math.nan
    middle = np.median(near)
    return float(plane[y, x]) - middle, 1.4826 * sorted(abs(v - middle) for v in near)[len(near) // 2]


def lone_pixels(plane, noise, kappa, share):
    """Pixels that stand out from their own colour while those around them, less the highest, do not."""
    rows, cols = plane.shape
    found = []
    for y in range(rows):
        for x in range(cols):
            excess, spread = stands_out(plane, y, x)
            if not abs(excess) > kappa * max(noise[y, x], 0.7 * spread):
                continue
            around = [
                math.copysign(1, excess) * stands_out(plane, y + dy, x + dx)[0]
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
                if (dy or dx) and 0 <= y + dy < rows and 0 <= x + dx < cols
            ]
            around = sorted(v for v in around if not math.isnan(v))
            if len(around) > 1 and np.mean(around[:-1]) < share * abs(excess):
                found.append(y * cols + x)
    return found


def grow(high, left, radius):
    """What growth takes away: (frames, rows, cols) of samples lost above, and of those left → those taken."""
    taken = np.zeros_like(high)
    y, x = np.mgrid[: high.shape[1], : high.shape[2]]
    for k, row, col in zip(*np.nonzero(high), strict=True):
        around = high[k, max(row - 2, 0) : row + 3, max(col - 2, 0) : col + 3]
        if around.sum() >= 8:
            taken[k] |= (y - row) ** 2 + (x - col) ** 2 <= radius**2
    taken &= left
    return taken & (left & ~taken).any(axis=0)


def mean_uncertainty(x, weights, variances, reached):
    """Standard error of a weighted mean: of the noises that are known up to a factor, and of that factor.

    `reached` are two factors for so few samples: for a scatter that knows nothing of the mean's error,
    and for one that holds all of it.
    """
    known = (weights**2 * variances).sum() / weights.sum() ** 2
    best = np.average(x, weights=1 / variances)
    factor = ((x - best) ** 2 / variances).sum() / (len(x) - 1)
    least = 1 / (1 / variances).sum()  # of the best mean
    apart = math.sqrt(least / known)
    free, bound = (float(f) for f in reached)
    z = apart * (free / bound - bound / free) / 2
    return math.sqrt(known * factor) * bound * (z + math.sqrt(z * z + 1))
