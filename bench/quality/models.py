"""Measure the models of `--transform` on groups whose true maps are known.

    python bench/quality/models.py
    python bench/quality/models.py --chain 5 --groups 1

Groups of star lists: undistorted, sheared (refraction), tilted (homography), and seen through a lens
with 0.2 and 1 % of barrel distortion; each with small dithers and turned by up to 60° with large shifts.
Or, with --chain, undistorted frames whose neighbours overlap by 30 %, framed as a union. For every
model: the largest error of any frame's map, and what 'auto' chose. docs/accuracy.md holds the last tables.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from astropy.io import fits

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

from zmtile import Options
from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats, SkyMesh, Stars
from zmtile.options import TRANSFORMS
from zmtile.progress import NullProgress
from zmtile.registration.mapping import apply, map_of
from zmtile.registration.register import register

SMALL = {"rotation": 4.0, "dither": 25.0}
LARGE = {"rotation": 60.0, "dither": 150.0}


def star_list(spec: make_group.GroupSpec, truth: make_group.Truth, k: int) -> FrameStats:
    """Detect nine stars of ten of frame `k`, with the errors of their centroids, and a few ghosts."""
    rng = np.random.default_rng([spec.seed, 100, k])
    xy = make_group.from_ideal(spec, truth, k, np.column_stack([truth.x, truth.y]))
    flux = truth.flux[-1] * rng.normal(1, 0.03, len(xy))
    with np.errstate(invalid="ignore"):
        inside = ((xy > 2) & (xy < np.array([spec.cols, spec.rows]) - 3)).all(axis=1)
    seen = inside & (rng.random(len(xy)) < 0.9)
    error = np.hypot(0.02, 0.2 * np.sqrt(2000.0 / np.maximum(flux, 500)))[seen]
    points = xy[seen] + rng.normal(0, 1, (seen.sum(), 2)) * error[:, None]
    ghosts = int(0.1 * len(points))
    points = np.concatenate([points, rng.uniform(0, [spec.cols, spec.rows], (ghosts, 2))])
    flux = np.concatenate([flux[seen], rng.uniform(1000, 3000, ghosts)])
    error = np.concatenate([error, np.full(ghosts, 0.2)])
    order = np.argsort(-flux)
    size = np.full(len(order), 2.0)
    stars = Stars(*points[order].T, flux[order], error[order], np.empty((1, 0), np.float32), size)
    mesh = np.full((1, 2, 2), 900.0, np.float32)
    return FrameStats(stars, 3.0, 0.95, np.array([45.0]), SkyMesh(64, mesh, mesh), 0, 1.0, "")


def sheared(truth: make_group.Truth, spec: make_group.GroupSpec, size: float) -> make_group.Truth:
    """Squeeze every frame but the first along a direction of its own, by up to `size`: refraction."""
    matrices = truth.matrices.copy()
    for k in range(1, spec.frames):
        rng = np.random.default_rng([spec.seed, 101, k])
        angle = rng.uniform(0, np.pi)
        along = np.array([np.cos(angle), np.sin(angle)])
        squeeze = np.eye(2) + size * rng.uniform(0.5, 1) * np.outer(along, along)
        linear = matrices[k][:, :2] @ squeeze
        moved = matrices[k][:, :2] @ spec.centre + matrices[k][:, 2]
        matrices[k] = np.column_stack([linear, moved - linear @ spec.centre])
    return replace(truth, matrices=matrices)


def measured(
    spec: make_group.GroupSpec, truth: make_group.Truth, model: str, framing: str = "reference"
) -> tuple[float, int, str]:
    """Largest error of all frames (px), frames used, and the richest model of any.

    Errors are those of a grid of points of each frame: where it lies on the reference, or with the
    framing 'union' everywhere.
    """
    frames = [
        Frame(Path(f"/{k:03d}.fits"), f"{k:03d}.fits", spec.rows, spec.cols, "mono", "", fits.Header())
        for k in range(spec.frames)
    ]
    stats = [star_list(spec, truth, k) for k in range(spec.frames)]
    options = Options(transform=model, reference="000.fits", framing=framing)
    found = register(frames, stats, options, NullProgress())
    x, y = np.meshgrid(np.linspace(0, spec.cols - 1, 33), np.linspace(0, spec.rows - 1, 33))
    points = np.column_stack([x.ravel(), y.ravel()])
    errors, models = [0.0], {"similarity"}
    for k, transform in enumerate(found.transforms):
        if transform is not None and k:
            true = make_group.to_reference(spec, truth, k, points)
            gap = np.hypot(*(apply(map_of(transform), points) - true).T)
            seen = ((true >= 0) & (true <= [spec.cols - 1, spec.rows - 1])).all(axis=1)
            errors.append(float(gap[seen].max() if framing == "reference" else gap.max()))
            models.add(transform.model)
    order = [m for m in TRANSFORMS if m in models]
    return max(errors), len(found.used), order[-1]


@click.command()
@click.option("--frames", default=8, show_default=True)
@click.option("--stars", default=400, show_default=True)
@click.option("--groups", default=3, show_default=True, help="Seeds.")
@click.option("--rows", default=1080, show_default=True)
@click.option("--cols", default=1920, show_default=True)
@click.option("--chain", type=int, multiple=True, help="Frames of a chain, in place of the other groups.")
def main(frames: int, stars: int, groups: int, rows: int, cols: int, chain: tuple[int, ...]) -> None:
    """Print the tables."""
    kinds = {
        "undistorted": ({}, 0.0),
        "sheared 1e-3": ({}, 1e-3),
        "tilted 0.2 %": ({"tilt": 0.002}, 0.0),
        "lens -0.2 %": ({"lens": -0.002}, 0.0),
        "lens -1 %": ({"lens": -0.01}, 0.0),
    }
    base = make_group.GroupSpec(frames=frames, rows=rows, cols=cols, stars=stars, cfa=None)
    for name, moves in () if chain else (("small", SMALL), ("large", LARGE)):
        for kind, (fields, shear) in kinds.items():
            row = []
            for model in TRANSFORMS:
                worst, fewest, chosen = 0.0, frames, set()
                for seed in range(1, groups + 1):
                    spec = replace(base, seed=seed, **moves, **fields)
                    truth = sheared(make_group.truth_of(spec), spec, shear)
                    error, used, richest = measured(spec, truth, model)
                    worst, fewest = max(worst, error), min(fewest, used)
                    chosen.add(richest)
                said = f" ({', '.join(sorted(chosen))})" if model == "auto" else ""
                row.append(f"{model} {worst:.3f}{said}" + (f" {fewest} used" if fewest < frames else ""))
            print(f"{name} moves, {kind}: " + "; ".join(row), flush=True)
    for count in chain:
        row = []
        for model in TRANSFORMS:
            worst, fewest, chosen = [], count, set()
            for seed in range(1, groups + 1):
                spec = replace(base, frames=count, chain=0.3, rotation=2.0, dither=10.0, seed=seed)
                error, used, richest = measured(spec, make_group.truth_of(spec), model, "union")
                worst.append(error)
                fewest = min(fewest, used)
                chosen.add(richest)
            said = f" ({', '.join(sorted(chosen))})" if model == "auto" else ""
            row.append(f"{model} {np.median(worst):.2f}, max {max(worst):.2f}{said}, {fewest} used")
        print(f"chain of {count}, undistorted: " + "; ".join(row), flush=True)


if __name__ == "__main__":
    main()
