"""Count wrong and missed transforms over thousands of simulated pairs of star lists, class by class.

    python bench/quality/registration.py --pairs 10000 --strangers 2000 --groups 20 --jobs 2

Pair number s is of class s mod 9 and follows from s alone. Centroids are off by 0.05 to 0.2 px per
coordinate, a fifth of the stars is lost in each list, fluxes scatter by 5 %, lists end at 2000
stars, frames are 1080 × 1920 px. Where a class says nothing else: 15 to 600 stars, a quarter of the
detections spurious on average, any rotation, shifts to half a frame, ± 1 % of scale.

A transform is *wrong* when a corner of the frame is off by more than 2 px. A pair is *solvable*
when at least five stars are on both lists (within 1 px under the true transform) and somebody who
knows the truth could tell them from chance: of all ways to lay two detections on two others, in
either parity, fewer than 1e-6 bring as many others home by accident, as near as the true stars lie
under the best transform. No search can do better without accepting accidents. Five stars among 20
detections are enough, five among 600 are not. Two plainer counts stand beside it: pairs with five
and with eight stars on both lists.

Strangers are pairs of different skies, every second one with the same hot pixels in both lists:
any transform is wrong. Groups are whole groups of frames through plan_tile, every second half
turned by a meridian flip, with a frame of another field in each.
"""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from scipy.stats import binom

sys.path[:0] = [str(Path(__file__).parents[2] / name) for name in ("examples", "tests")]
import make_group
from starlists import COLS, ROWS, corner_error, inside, pair, sparse_pair, turn

from zmtile import Options
from zmtile.pipeline import plan_tile
from zmtile.registration.sensor import set_aside
from zmtile.registration.starfield import pair_up
from zmtile.registration.starmatch import match_fields
from zmtile.registration.transform import Transform, apply, compose, fit, invert

WRONG = 2.0
LOG_LIMIT = -6.0
CLASSES = {
    "ordinary": "any field",
    "sparse": "5 to 14 stars in common, up to 15 detections more on each list",
    "crowded": "2000 to 5000 stars, fluxes scatter by 30 %",
    "spurious": "30 to 400 stars, half of the detections are spurious",
    "hot pixels": "20 to 300 stars, 1 to 4 times as many hot pixels; shifts of 3 to 300 px",
    "mirrored": "left and right exchanged",
    "scale": "pixel scales that differ by up to a factor of 2",
    "small overlap": "10 to 30 % of the frame, 60 to 600 stars",
    "meridian flip": "turned by 180 ± 2°",
}


def simulated(seed: int):  # type: ignore[no-untyped-def]
    """Draw one pair of star lists and its true matrix."""
    rng = np.random.default_rng([seed, 99])
    name = list(CLASSES)[seed % len(CLASSES)]
    stars = int(10 ** rng.uniform(np.log10(15), np.log10(600)))
    degrees, scale = rng.uniform(-180, 180), rng.uniform(0.99, 1.01)
    shift = rng.uniform(-1, 1, 2) * [900, 500]
    what = {"spurious": rng.uniform(0, 0.7), "noise": rng.uniform(0.05, 0.2)}
    if name == "sparse":
        matrix = turn(degrees, *(0.5 * shift), scale)
        return *sparse_pair(seed, rng.integers(5, 15), rng.integers(0, 16), matrix, what["noise"]), name
    if name == "crowded":
        stars, what["scatter"] = int(rng.uniform(2000, 5000)), 0.3
    elif name == "spurious":
        stars, what["spurious"] = int(rng.uniform(30, 400)), 1.0
    elif name == "hot pixels":
        stars = int(rng.uniform(20, 300))
        what |= {"hot": int(stars * rng.uniform(1, 4)), "spurious": rng.uniform(0, 0.2)}
        direction, far = rng.uniform(-math.pi, math.pi), 10 ** rng.uniform(np.log10(3), np.log10(300))
        shift = far * np.array([math.cos(direction), math.sin(direction)])
        degrees = rng.uniform(-0.3, 0.3) if rng.random() < 0.5 else degrees
    elif name == "scale":
        scale = 2 ** rng.uniform(-1, 1)
        shift = 0.5 * shift
    elif name == "small overlap":
        stars = int(rng.uniform(60, 600))
        degrees, left = rng.choice([0, 180]) + rng.uniform(-3, 3), 1 - rng.uniform(0.1, 0.3)
        along, across = [(COLS, ROWS), (ROWS, COLS)][int(rng.integers(2))]
        shift = np.array([left * along * rng.choice([-1, 1]), rng.uniform(-0.1, 0.1) * across])
        shift = shift if along == COLS else shift[::-1]
    elif name == "meridian flip":
        degrees = 180 + rng.uniform(-2, 2)
    matrix = turn(degrees, *shift, scale, mirrored=name == "mirrored")
    return *pair(seed, stars, matrix, **what), name


def strange(seed: int):  # type: ignore[no-untyped-def]
    """Draw two lists of different skies; with an odd seed, of one sensor with hot pixels."""
    rng = np.random.default_rng([seed, 98])
    stars = int(10 ** rng.uniform(np.log10(5), np.log10(2000)))
    hot = int(stars * rng.uniform(0.3, 4)) if seed % 2 else 0
    return pair(
        seed, stars, turn(0), rng.uniform(0, 0.5), noise=rng.uniform(0.05, 0.2), hot=hot, other=seed + 10**6
    )[:2]


def solvable(source, target, matrix) -> tuple[int, bool]:  # type: ignore[no-untyped-def]
    """Count the common stars, and tell whether they could be told from chance."""
    i, j = pair_up(source, target, matrix, 1.0)
    if i.size < 5:
        return i.size, False
    parity = np.diag([np.sign(np.linalg.det(matrix[:, :2])), 1.0])
    here, there = source.xy[i] @ parity, target.xy[j]
    distance = np.sort(np.hypot(*(apply(fit("similarity", here, there), here) - there).T))
    meeting = int(inside(apply(matrix, source.xy)).sum())
    ours, theirs = len(source.stars), len(target.stars)
    tests = ours * (ours - 1) * theirs * (theirs - 1)
    chance = np.minimum(1.0, theirs / (ROWS * COLS) * math.pi * distance**2)
    alarms = binom.logsf(np.arange(i.size) - 2, meeting - 2, chance)[2:].min() / math.log(10)
    return i.size, bool(math.log10(tests) + alarms < LOG_LIMIT)


class Result(NamedTuple):
    """What became of one pair."""

    name: str
    outcome: str
    shared: int
    solvable: bool
    seconds: float
    remark: str


def try_pair(seed: int, find=match_fields) -> Result:  # type: ignore[no-untyped-def]
    """Match one pair."""
    source, target, matrix, name = simulated(seed)
    start = time.perf_counter()
    found = find(*set_aside([source, target]))
    spent = time.perf_counter() - start
    shared, fair = solvable(source, target, matrix)
    if found is None:
        outcome, remark = "missed", f"of {len(source.stars)} and {len(target.stars)}" if fair else ""
    else:
        error = corner_error(found.matrix, matrix)
        outcome, remark = ("wrong", f"off by {error:.1f} px") if error > WRONG else ("solved", "")
    if remark:
        remark = f"  {outcome}: {name}, seed {seed}, {shared} common stars, {remark}"
    return Result(name, outcome, shared, fair, spent, remark)


def try_peer(seed: int) -> Result:
    """Match one pair by astroalign alone, on the brightest 100 detections."""
    return try_pair(seed, astroalign_alone)


def astroalign_alone(source, target):  # type: ignore[no-untyped-def]
    """Return what astroalign finds, or None."""
    import astroalign

    try:
        found, _ = astroalign.find_transform(source.xy[:100], target.xy[:100], max_control_points=100)
    except Exception:  # its own and numpy's errors alike when there is nothing to find
        return None
    return Transform(np.asarray(found.params)[:2], 0, 0.0)


def try_strangers(seed: int) -> tuple[int, bool, float]:
    """Match two different skies; return the seed, whether a transform was found, seconds."""
    start = time.perf_counter()
    found = match_fields(*set_aside(strange(seed)))
    return seed, found is not None, time.perf_counter() - start


@click.command()
@click.option("--pairs", type=int, default=900, show_default=True)
@click.option("--strangers", type=int, default=0, show_default=True)
@click.option("--groups", type=int, default=0, show_default=True)
@click.option("--peer", type=int, default=0, show_default=True, help="Pairs for astroalign alone.")
@click.option("--jobs", type=int, default=1, show_default=True)
def main(pairs: int, strangers: int, groups: int, peer: int, jobs: int) -> None:
    """Print the counts."""
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        results = []
        for result in pool.imap(try_pair, range(pairs), chunksize=20):
            results.append(result)
            if result.remark:
                print(result.remark, flush=True)
        if results:
            report(results)
        if peer:
            print("astroalign alone:")
            report(pool.map(try_peer, range(peer), chunksize=20))
        tally, spent = Counter[tuple[str, str]](), 0.0
        for seed, found, seconds in pool.imap(try_strangers, range(strangers), chunksize=20):
            spent += seconds
            tally["one sensor" if seed % 2 else "unrelated", "matched" if found else "refused"] += 1
            if found:
                print(f"  strangers matched: seed {seed}", flush=True)
    if strangers:
        print(f"strangers: {dict(tally)}, {1000 * spent / strangers:.0f} ms a pair")
    for seed in range(groups):
        group_check(seed)
    print(f"{time.perf_counter() - start:.0f} s in all")


def report(results: list[Result]) -> None:
    """Print a table of all classes."""
    print(f"{'class':15} pairs solved wrong | solvable missed | >= 5 solved | >= 8 solved |  ms")
    for name in [*CLASSES, "all"]:
        rows = [r for r in results if name in (r.name, "all")]
        fair = [r for r in rows if r.solvable]
        five, eight = ([r for r in rows if r.shared >= least] for least in (5, 8))
        print(
            f"{name:15} {len(rows):5} {_count(rows, 'solved'):6} {_count(rows, 'wrong'):5} |"
            f" {len(fair):8} {_count(fair, 'missed'):6} |"
            f" {len(five):4} {_count(five, 'solved'):6} | {len(eight):4} {_count(eight, 'solved'):6} |"
            f" {1000 * np.mean([r.seconds for r in rows]):3.0f}"
        )


def _count(rows: list[Result], outcome: str) -> int:
    return sum(r.outcome == outcome for r in rows)


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
