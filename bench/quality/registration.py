"""Count wrong and missed transforms over thousands of simulated pairs of star lists.

    python bench/quality/registration.py --pairs 2000 --groups 20

Pairs: fields of 15 to 600 stars, any rotation, shifts to half a frame, 1 % of scale, a fifth of
the stars lost and up to half of the detections spurious, centroids of 0.05 to 0.2 px. A transform
is wrong when a corner of the frame is off by more than 2 px; a pair is solvable when at least eight
stars are on both lists. astroalign alone (unseeded, as it comes) runs on the same pairs.
Groups: whole groups of frames through plan_tile, with a frame of another field in each.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2] / name) for name in ("examples", "tests")]
import make_group
from starlists import common, corner_error, pair, turn

from zmtile import Options
from zmtile.pipeline import plan_tile
from zmtile.starmatch import match_fields
from zmtile.transform import compose, invert

WRONG = 2.0
SOLVABLE = 8


def simulated(seed: int):  # type: ignore[no-untyped-def]
    """Draw one pair of star lists and its true matrix."""
    rng = np.random.default_rng([seed, 99])
    matrix = turn(
        rng.uniform(-180, 180), rng.uniform(-900, 900), rng.uniform(-500, 500), rng.uniform(0.99, 1.01)
    )
    return pair(
        seed,
        int(10 ** rng.uniform(np.log10(15), np.log10(600))),
        matrix,
        spurious=rng.uniform(0, 1),
        lost=0.2,
        noise=rng.uniform(0.05, 0.2),
    )


def astroalign_alone(source, target):  # type: ignore[no-untyped-def]
    """Return what astroalign finds on the brightest 100 stars, or None."""
    import astroalign

    try:
        found, _ = astroalign.find_transform(source.xy[:100], target.xy[:100], max_control_points=100)
    except Exception:
        return None
    return np.asarray(found.params)[:2]


@click.command()
@click.option("--pairs", type=int, default=2000, show_default=True)
@click.option("--groups", type=int, default=0, show_default=True)
@click.option("--peer/--no-peer", default=False, help="Run astroalign alone on the first 200 pairs.")
def main(pairs: int, groups: int, peer: bool) -> None:
    """Print the counts."""
    tally = {"solved": 0, "wrong": 0, "missed": 0, "unsolvable": 0}
    alone = {"solved": 0, "wrong": 0, "missed": 0}
    start = time.perf_counter()
    spent = 0.0
    for seed in range(pairs):
        source, target, matrix = simulated(seed)
        begin = time.perf_counter()
        found = match_fields(source, target)
        spent += time.perf_counter() - begin
        if found is not None and corner_error(found.matrix, matrix) > WRONG:
            tally["wrong"] += 1
            print(f"  wrong: seed {seed}, {corner_error(found.matrix, matrix):.1f} px, {found.nmatch} stars")
        elif found is not None:
            tally["solved"] += 1
        elif common(source, target, matrix) >= SOLVABLE:
            tally["missed"] += 1
            print(f"  missed: seed {seed}, {common(source, target, matrix)} common stars")
        else:
            tally["unsolvable"] += 1
        if peer and seed < 200 and common(source, target, matrix) >= SOLVABLE:
            other = astroalign_alone(source, target)
            key = "missed" if other is None else "wrong" if corner_error(other, matrix) > WRONG else "solved"
            alone[key] += 1
    print(f"pairs: {pairs}: {tally}; {1000 * spent / max(pairs, 1):.1f} ms a pair")
    if peer:
        print(f"astroalign alone, first 200 pairs: {alone}")
    for seed in range(groups):
        group_check(seed)
    print(f"{time.perf_counter() - start:.0f} s in all")


def group_check(seed: int) -> None:
    """Register a group of 8 frames and one stranger; print what is wrong or missing."""
    rng = np.random.default_rng([seed, 7])
    spec = make_group.GroupSpec(
        frames=8,
        rows=540,
        cols=960,
        stars=int(rng.integers(40, 400)),
        seed=seed,
        rotation=float(rng.uniform(0, 180)),
        flip=bool(seed % 2),
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = make_group.write_group(spec, Path(folder))
        stranger = dataclasses.replace(spec, seed=seed + 500, frames=1)
        other = make_group.write_group(stranger, Path(folder) / "other")[0]
        plan = plan_tile([*paths, other], Options())
    truth = make_group.truth_of(spec)
    records = {r.name: r for r in plan.records}
    home = next(k for k, p in enumerate(paths) if p.name == plan.reference)
    worst, used = 0.0, 0
    for k, path in enumerate(paths):
        record = records[path.name]
        if record.used:
            used += 1
            true = compose(invert(truth.matrices[home]), truth.matrices[k])
            worst = max(worst, corner_error(record.matrix, true, spec.rows, spec.cols))
    stranger_used = "used" if records["other/" + other.name].used else "left out"
    print(f"group {seed}: {used} of {len(paths)} used, worst corner {worst:.3f} px, stranger {stranger_used}")


if __name__ == "__main__":
    main()
