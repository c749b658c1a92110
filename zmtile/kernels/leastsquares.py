"""Solution of normal equations: small and dense, and of many frames of which pairs are tied."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zmtile.kernels import brief, kernel

__all__ = ["conjugate_gradients", "solve_positive"]


@kernel
def solve_positive(normal: Any, right: Any, size: int) -> None:
    """Solve for every `right` (sides, size) in place, by Cholesky, of which only the lower half is read."""
    for j in range(size):
        for i in range(j, size):
            total = normal[i, j]
            for k in range(j):
                total -= normal[i, k] * normal[j, k]
            normal[i, j] = math.sqrt(total) if i == j else total / normal[j, j]
    for c in range(right.shape[0]):
        for i in range(size):
            total = right[c, i]
            for k in range(i):
                total -= normal[i, k] * right[c, k]
            right[c, i] = total / normal[i, i]
        for i in range(size - 1, -1, -1):
            total = right[c, i]
            for k in range(i + 1, size):
                total -= normal[k, i] * right[c, k]
            right[c, i] = total / normal[i, i]


@kernel
def _product(own: Any, ends: Any, block: Any, free: Any, x: Any, out: Any) -> None:
    """Multiply the normal matrix, of the free frames, by x (frames, terms)."""
    terms = x.shape[1]
    out[:] = 0.0
    for k in range(x.shape[0]):
        if free[k]:
            for i in range(terms):
                for j in range(terms):
                    out[k, i] += own[k, i, j] * x[k, j]
    for p in range(ends.shape[0]):
        a, b = ends[p, 0], ends[p, 1]
        if free[a] and free[b]:
            for i in range(terms):
                for j in range(terms):
                    out[a, i] -= block[p, i, j] * x[b, j]
                    out[b, i] -= block[p, i, j] * x[a, j]


@kernel
def _steer(inverse: Any, x: Any, out: Any) -> None:
    """Multiply x (frames, terms) by the inverse of each frame's own block."""
    for k in range(x.shape[0]):
        for i in range(x.shape[1]):
            total = 0.0
            for j in range(x.shape[1]):
                total += inverse[k, i, j] * x[k, j]
            out[k, i] = total


@kernel
def _dot(x: Any, y: Any) -> float:
    total = 0.0
    for k in range(x.shape[0]):
        for i in range(x.shape[1]):
            total += x[k, i] * y[k, i]
    return total


@kernel
def _step(x: Any, stride: float, way: Any, out: Any) -> None:
    for k in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[k, i] = x[k, i] + stride * way[k, i]


@brief
def conjugate_gradients(
    ends: Any,
    block: Any,
    pull: Any,
    own: Any,
    free: Any,
    tolerance: float,
    solution: Any,
) -> None:
    """Solve for the unknowns of the free frames; those of the others are 0.

    Preconditioned by each frame's own block ([Hestenes1952]_). Most frames are tied to the
    reference, so a handful of turns is enough, and fewer from a start that is near.

    Parameters
    ----------
    ends : (pairs, 2) int64
        The frames a and b of each.
    block : (pairs, terms, terms) float64
        A pair says block · (x_a - x_b) = pull.
    pull : (pairs, terms) float64
    own : (frames, terms, terms) float64
        What is known of a frame beside that; the sums over its pairs are added to it.
    free : (frames,) bool
        Those that are solved for: pairs lead to each of them from one whose unknowns are 0.
    tolerance : float
        Of the residual, relative.
    solution : (frames, terms) float64
        The start, and what becomes of it.
    """
    frames, terms = solution.shape
    right, steered = np.empty((frames, terms)), np.empty((frames, terms))
    product, way = np.empty((frames, terms)), np.empty((frames, terms))
    residual = np.empty((frames, terms))
    right[:] = 0.0
    for p in range(ends.shape[0]):
        a, b = ends[p, 0], ends[p, 1]
        for i in range(terms):
            right[a, i] += pull[p, i]
            right[b, i] -= pull[p, i]
            for j in range(terms):
                own[a, i, j] += block[p, i, j]
                own[b, i, j] += block[p, i, j]
    inverse, root = np.empty((frames, terms, terms)), np.empty((terms, terms))
    inverse[:] = 0.0
    for k in range(frames):
        for i in range(terms):
            for j in range(terms):
                root[i, j] = own[k, i, j]
            inverse[k, i, i] = 1.0
            if not free[k]:
                solution[k, i] = right[k, i] = inverse[k, i, i] = 0.0
        if free[k]:
            solve_positive(root, inverse[k], terms)
    _steer(inverse, right, steered)
    goal = tolerance * tolerance * _dot(right, steered)
    _product(own, ends, block, free, solution, product)
    _step(right, -1.0, product, residual)
    _steer(inverse, residual, steered)
    _step(steered, 0.0, steered, way)
    last = _dot(residual, steered)
    for _ in range(20 * frames * terms):  # exact arithmetic needs one for each unknown at most
        if not last > goal:
            break
        _product(own, ends, block, free, way, product)
        stride = last / _dot(way, product)
        _step(solution, stride, way, solution)
        _step(residual, -stride, product, residual)
        _steer(inverse, residual, steered)
        now = _dot(residual, steered)
        _step(steered, now / last, way, way)
        last = now
