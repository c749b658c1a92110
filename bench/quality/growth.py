"""Measure what `--grow` does: bias beside trails, and good samples lost where there are none.

    python bench/quality/growth.py

The same group is rendered with a trail in every frame and without any; frames, noise and registration are
otherwise the same, so the difference of the tiles is what the trails leave. docs/accuracy.md holds the table.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

from zmtile import Options, build_tile
from zmtile.registration.transform import apply, invert

BANDS = ((0.0, 2.0), (2.0, 4.0), (4.0, 6.0), (6.0, 10.0))  # px beyond the samples rejected without growth


def beyond_trail(spec: make_group.GroupSpec, truth: make_group.Truth, k: int) -> NDArray[np.float64]:
    """Distance in px of every reference pixel from where frame k's trail is above 3 sigma."""
    alone = replace(spec, cosmic_rays=0)
    bright = make_group.artefacts(alone, k) > 3 * spec.noise
    if not bright.any():
        return np.full(bright.shape, np.inf)
    away = distance_transform_edt(~bright)
    y, x = np.mgrid[: spec.rows, : spec.cols]
    # Home is frame 0, whose pixels are the reference's.
    fx, fy = np.rint(apply(invert(truth.matrices[k]), np.column_stack([x.ravel(), y.ravel()]))).astype(int).T
    seen = (fx >= 0) & (fy >= 0) & (fx < spec.cols) & (fy < spec.rows)
    distance = np.full(x.size, np.inf)
    distance[seen] = away[fy[seen], fx[seen]]
    return distance.reshape(x.shape)


@click.command()
@click.option("--frames", "counts", type=int, multiple=True, default=(8, 20), show_default=True)
@click.option("--radius", "radii", type=int, multiple=True, default=(0, 2, 4, 6), show_default=True)
@click.option("--rows", type=int, default=540, show_default=True)
@click.option("--cols", type=int, default=960, show_default=True)
def main(counts: tuple[int, ...], radii: tuple[int, ...], rows: int, cols: int) -> None:
    """Print bias beside trails by distance, and the samples that growth takes from frames without."""
    for count in counts:
        spec = make_group.GroupSpec(
            frames=count, rows=rows, cols=cols, trails=1.0, cosmic_rays=0, hot_pixels=0.0
        )
        truth = make_group.truth_of(spec)
        distance = np.minimum.reduce([beyond_trail(spec, truth, k) for k in range(count)])
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            lights = make_group.write_group(spec, Path(one))
            clean = make_group.write_group(replace(spec, trails=0.0), Path(two))
            home = lights[0].name
            plain = build_tile(clean, Options(reference=home))
            print(f"\n{count} frames; bias in sigma of a tile pixel by distance from a trail's 3 sigma, px\n")
            print("| `--grow` | " + " | ".join(f"{a:.0f} to {b:.0f}" for a, b in BANDS), end=" | ")
            print("taken from frames without trails |\n" + "|---" * (len(BANDS) + 2) + "|")
            for radius in radii:
                options = Options(reference=home, grow=radius)
                tile, without = build_tile(lights, options), build_tile(clean, options)
                cells = []
                for near, far in BANDS:
                    band = (distance > near) & (distance <= far)
                    left = ((tile.image - plain.image) / plain.uncert)[:, band]
                    cells.append(f"{np.nanmean(left):+.3f}")
                taken = (without.rejhigh.sum(dtype=int) - plain.rejhigh.sum(dtype=int)) / plain.coverage.sum(
                    dtype=int
                )
                print(f"| {radius} | " + " | ".join(cells) + f" | {taken:.1e} |", flush=True)


if __name__ == "__main__":
    main()
