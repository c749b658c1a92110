"""Measure what calibration takes out: a group under a real sensor, without masters and with them.

    python bench/quality/masters.py

The sensor of examples/make_masters.py has a bias of 500 ADU, a dark glow, vignetting of 44 % in the corners,
dust and dead pixels. docs/accuracy.md holds the last table.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group
import make_masters
from truth import fluxes, residual

from zmtile import Options, build_tile
from zmtile.tiles.tile import Tile


def unevenness(tile: Tile, spec: make_group.GroupSpec, truth: make_group.Truth) -> float:
    """Return how far the sky is from its true plane, %: half of the range of nine in ten cells of 32 px."""
    rows, cols = np.ogrid[: spec.rows, : spec.cols]
    spread = []
    for c, (level, slope_x, slope_y) in enumerate(truth.sky[0]):
        sky = level + slope_x * (cols - spec.centre[0]) + slope_y * (rows - spec.centre[1])
        ratio = (tile.image[c] - make_group.scene(spec, truth, c)) / sky
        high, wide = (n // 32 * 32 for n in ratio.shape)
        cells = ratio[:high, :wide].reshape(high // 32, 32, wide // 32, 32)
        medians = np.nanmedian(cells, axis=(1, 3))
        low, top = np.percentile(medians / np.median(medians), [5, 95])
        spread.append(50 * (top - low))
    return float(np.mean(spread))


@click.command()
@click.option("--frames", type=int, default=12, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
def main(frames: int, seed: int) -> None:
    """Print the figures without masters, with them, and of an ideal sensor."""
    spec = make_group.GroupSpec(frames=frames, seed=seed, rows=1080, cols=1920, stars=600)
    truth = make_group.truth_of(spec)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lights = make_group.write_group(spec, folder)
        sensor = make_masters.sensor_of(spec, truth.hot)
        raw = make_masters.write_raw(spec, sensor, truth.hot, lights, folder / "raw")
        paths = make_masters.write_masters(spec, sensor, folder / "masters")
        masters = {kind: str(path) for kind, path in paths.items()}
        plain = Options(reference=lights[0].name)
        for label, files, options in (
            ("ideal sensor", lights, plain),
            ("no masters", raw, plain),
            ("bias, dark, flat", raw, replace(plain, **masters)),
        ):
            tile = build_tile(files, options)
            ratio = fluxes(tile, truth, spec, 0)
            beyond = total = 0
            for c in range(tile.channels):
                pull, free = residual(tile, truth, spec, c)
                beyond += int((np.abs(pull[free]) > 6).sum())
                total += int(free.sum())
            print(
                f"{label:17} sky uneven by {unevenness(tile, spec, truth):.2f} %; star flux scatters by "
                f"{148.26 * np.median(np.abs(ratio / np.median(ratio) - 1)):.2f} % ({ratio.size}); "
                f"beyond 6 sigma {beyond / total:.1e}; NaN {np.isnan(tile.image).mean():.2e}"
            )


if __name__ == "__main__":
    main()
