"""Measure how far the frames of a chain drift, each of which overlaps its neighbours only.

    python bench/quality/chain.py

Frames of 1080 × 1920 px are rendered, of which each overlaps the next by 30 %, and planned as `zmtile build`
does. Printed is the largest error of each frame's transform at its corners, and beside it what the centroids
alone cause: the same for a chain of least squares on as many stars with errors as large as the residuals.
docs/accuracy.md holds the last table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

from zmtile import Options
from zmtile.pipeline import plan_tile
from zmtile.registration.transform import IDENTITY, apply, compose, corners, fit, invert

TRIALS = 300


def expected(spec: make_group.GroupSpec, stars: int, rms: float) -> NDArray[np.float64]:
    """Root mean square of the largest corner error of each frame, if nothing but centroids is wrong, px."""
    rng = np.random.default_rng(0)
    ends = corners(spec.rows, spec.cols)
    overlap = (spec.chain or 1.0) * spec.cols
    step, squares = np.array([spec.step, 0.0]), np.zeros(spec.frames)
    for _ in range(TRIALS):
        placed = IDENTITY
        for k in range(1, spec.frames):
            here = rng.uniform(0, [overlap, spec.rows], (stars, 2))
            placed = compose(
                placed, fit("similarity", here, here + step + rng.normal(0, rms / np.sqrt(2), here.shape))
            )
            squares[k] += np.hypot(*(apply(placed, ends) - ends - k * step).T).max() ** 2
    return np.sqrt(squares / TRIALS)


@click.command(context_settings={"show_default": True})
@click.option("--frames", default=6)
@click.option("--stars", default=800, help="In the area of a frame.")
@click.option("--chain", default=0.3, help="Overlap of neighbours.")
@click.option("--seed", "seeds", multiple=True, default=(1, 2, 3))
def main(frames: int, stars: int, chain: float, seeds: tuple[int, ...]) -> None:
    """Print the errors along chains."""
    for seed in seeds:
        spec = make_group.GroupSpec(
            frames=frames,
            rows=1080,
            cols=1920,
            stars=stars,
            seed=seed,
            chain=chain,
            rotation=2.0,
            dither=10.0,
        )
        with tempfile.TemporaryDirectory() as folder:
            paths = make_group.write_group(spec, Path(folder))
            plan = plan_tile(paths, Options(framing="union", reference=paths[0].name))
        truth, ends, errors = make_group.truth_of(spec), corners(spec.rows, spec.cols), []
        for k, record in enumerate(plan.records):
            true = compose(invert(truth.matrices[0]), truth.matrices[k])
            errors.append(np.hypot(*(apply(record.matrix, ends) - apply(true, ends)).T).max())
        used = sum(record.used for record in plan.records)
        first = plan.records[1]
        floor = expected(spec, first.nmatch, first.rms)
        print(f"seed {seed}: {used} of {frames} used, {first.nmatch} stars at first, rms {first.rms:.2f} px")
        print("  error  " + "  ".join(f"{e:.3f}" for e in errors))
        print("  floor  " + "  ".join(f"{e:.3f}" for e in floor), flush=True)


if __name__ == "__main__":
    main()
