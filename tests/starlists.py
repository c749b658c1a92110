"""Simulated pairs of star lists, for tests and bench/quality/registration.py."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree

from zmtile.frames.detect import MAX_STARS
from zmtile.frames.measure import Stars
from zmtile.registration.starfield import Field
from zmtile.registration.transform import IDENTITY, apply, corners, invert

ROWS, COLS = 1080, 1920


def turn(degrees, x=0.0, y=0.0, scale=1.0, mirrored=False):
    """Rotate about the middle of the frame, then shift; a mirror image first turns left into right."""
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    linear = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    middle = np.array([COLS / 2, ROWS / 2])
    return np.column_stack([linear, middle - linear @ middle + [x, y]])


# Half-light radii of stars, cosmic rays and hot pixels, mean and scatter, px: as measured on frames of
# examples/make_group.py.
STAR, GHOST, HOT = (1.7, 0.15), (1.1, 0.25), (0.85, 0.12)


def field(xy, flux, noise=0.05, size=None):
    order = np.argsort(-flux)[:MAX_STARS]
    error = np.full(len(order), noise)
    size = np.full(len(flux), STAR[0]) if size is None else size
    stars = Stars(*xy[order].T, flux[order], error, np.empty((1, 0), np.float32), size[order])
    return Field(stars, ROWS, COLS, 3.0)


def inside(points):
    return (points >= 0).all(axis=1) & (points <= [COLS - 1, ROWS - 1]).all(axis=1)


def light(rng, count):
    return 10 ** rng.uniform(0, 2.5, count)


def sizes(rng, stars, hot, ghosts):
    return np.concatenate([rng.normal(*STAR, stars), rng.normal(*HOT, hot), rng.normal(*GHOST, ghosts)])


def pair(seed, stars=100, matrix=None, spurious=0.2, lost=0.2, noise=0.05, scatter=0.05, hot=0, other=None):
    """Two star lists of one sky: source = sky, target = sky through the matrix; with losses and ghosts.

    `stars` is for an area as large as a frame, `spurious` a fraction of the stars seen, `hot` a
    number of detections that are at the same place in both lists. With `other`, another seed, the
    target shows another sky.
    """
    rng = np.random.default_rng(seed)
    if matrix is None:
        matrix = turn(rng.uniform(-180, 180), *rng.uniform(-100, 100, 2), rng.uniform(0.99, 1.01))
    ends = np.concatenate([corners(ROWS, COLS), apply(invert(matrix), corners(ROWS, COLS))])
    low, high = ends.min(axis=0) - 5, ends.max(axis=0) + 5
    sky = rng.uniform(low, high, (int(stars * np.prod(high - low) / (ROWS * COLS)), 2))
    flux = light(rng, len(sky))
    pattern, heat = rng.uniform(0, [COLS, ROWS], (hot, 2)), light(rng, hot)
    fields = []
    for frame, way in enumerate((IDENTITY, matrix)):
        if other is not None and frame == 1:
            sky = np.random.default_rng(other).uniform(low, high, sky.shape)
        points = apply(way, sky)
        seen = inside(points) & (rng.random(len(sky)) > lost)
        ghosts = int(spurious * seen.sum())
        xy = np.concatenate([points[seen], pattern])
        xy += rng.normal(0, noise, xy.shape)
        brightness = np.concatenate([flux[seen], heat])
        brightness = brightness * np.exp(rng.normal(0, scatter, len(brightness)))
        fields.append(
            field(
                np.concatenate([xy, rng.uniform(0, [COLS, ROWS], (ghosts, 2))]),
                np.concatenate([brightness, light(rng, ghosts)]),
                noise,
                np.concatenate(
                    [rng.normal(*STAR, seen.sum()), rng.normal(*HOT, hot), rng.normal(*GHOST, ghosts)]
                ),
            )
        )
    return *fields, matrix


def sparse_pair(seed, shared, extra, matrix, noise=0.05):
    """Two lists that have exactly `shared` stars in common, and `extra` of their own each."""
    rng = np.random.default_rng(seed)
    sky = rng.uniform(0, [COLS, ROWS], (200 * shared, 2))
    sky = sky[inside(apply(matrix, sky))][:shared]
    flux = light(rng, len(sky))
    fields = []
    for way in (IDENTITY, matrix):
        xy = apply(way, sky) + rng.normal(0, noise, sky.shape)
        brightness = flux * np.exp(rng.normal(0, 0.05, len(sky)))
        fields.append(
            field(
                np.concatenate([xy, rng.uniform(0, [COLS, ROWS], (extra, 2))]),
                np.concatenate([brightness, light(rng, extra)]),
                noise,
            )
        )
    return *fields, matrix


def common(source, target, matrix):
    """Stars that are on both lists."""
    distance, _ = cKDTree(target.xy).query(apply(matrix, source.xy))
    return int((distance < 0.5).sum())


def corner_error(found, true, rows=ROWS, cols=COLS):
    """Largest distance between two transforms of the corners of a frame, px."""
    ends = corners(rows, cols)
    return np.hypot(*(apply(found, ends) - apply(true, ends)).T).max()
