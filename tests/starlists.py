"""Simulated pairs of star lists, for tests and bench/quality/registration.py."""

from __future__ import annotations

import math

import numpy as np

from zmtile.measure import Stars
from zmtile.starmatch import Field
from zmtile.transform import apply, corners

ROWS, COLS = 1080, 1920


def turn(degrees, x=0.0, y=0.0, scale=1.0):
    """Rotate about the middle of the frame, then shift."""
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    linear = np.array([[c, -s], [s, c]])
    middle = np.array([COLS / 2, ROWS / 2])
    return np.column_stack([linear, middle - linear @ middle + [x, y]])


def field(xy, flux, noise=0.05):
    order = np.argsort(-flux)
    error = np.full(len(flux), noise)
    return Field(Stars(*xy[order].T, flux[order], error, np.empty((1, 0), np.float32)), ROWS, COLS, 3.0)


def pair(seed, stars=100, matrix=None, spurious=0.2, lost=0.2, noise=0.05):
    """Two star lists of one sky: source = sky, target = sky through the matrix; with losses and ghosts."""
    rng = np.random.default_rng(seed)
    if matrix is None:
        matrix = turn(rng.uniform(-180, 180), *rng.uniform(-100, 100, 2), rng.uniform(0.99, 1.01))
    sky = rng.uniform(-800, 2720, (int(stars * 3520 * 3520 / (ROWS * COLS)), 2))
    flux = 10 ** rng.uniform(0, 2.5, len(sky))
    fields = []
    for points in (sky, apply(matrix, sky)):
        inside = (points >= 0).all(axis=1) & (points <= [COLS - 1, ROWS - 1]).all(axis=1)
        seen = inside & (rng.random(len(sky)) > lost)
        count = int(spurious * seen.sum())
        xy = np.concatenate(
            [points[seen] + rng.normal(0, noise, (seen.sum(), 2)), rng.uniform(0, [COLS, ROWS], (count, 2))]
        )
        light = np.concatenate(
            [flux[seen] * rng.normal(1, 0.05, seen.sum()), 10 ** rng.uniform(0, 2.5, count)]
        )
        fields.append(field(xy, light, noise))
    return *fields, matrix


def common(source, target, matrix):
    """Stars that are on both lists."""
    distance, _ = target.tree.query(apply(matrix, source.xy))
    return int((distance < 0.5).sum())


def corner_error(found, true, rows=ROWS, cols=COLS):
    """Largest distance between two transforms of the corners of a frame, px."""
    ends = corners(rows, cols)
    return np.hypot(*(apply(found, ends) - apply(true, ends)).T).max()
