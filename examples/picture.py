"""Make a picture of a tile beside its coverage, to look at after `make demo`.

python examples/picture.py TILE.fits picture.png
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from zmtile import read_tile

NO_DATA = (0.10, 0.10, 0.16)


def stretch(
    image: NDArray[np.float32], low: float = -3.0, high: float = 40.0, soft: float = 6.0
) -> NDArray[np.float64]:
    """Return (rows, cols, 3) in 0 … 1: asinh from `low` to `high` sigma of each channel's sky.

    Parameters
    ----------
    image : (rows, cols) or (3, rows, cols) float32
        NaN where there is no data; shown as a dark blue that no sky has.
    low, high, soft : float
        Black and white in sigma; where the asinh turns from linear to logarithmic.
    """
    planes = np.broadcast_to(image, (3, *image.shape[-2:])).astype(np.float64)
    sky = np.nanmedian(planes, axis=(1, 2), keepdims=True)
    sigma = 1.4826 * np.nanmedian(np.abs(planes - sky), axis=(1, 2), keepdims=True)
    scaled = np.arcsinh((planes - sky - low * sigma) / (soft * sigma)) / np.arcsinh((high - low) / soft)
    shown: NDArray[np.float64] = np.moveaxis(np.clip(scaled, 0, 1), 0, -1)
    shown[~np.isfinite(planes).all(axis=0)] = NO_DATA
    return shown


@click.command(help=(__doc__ or "").splitlines()[0])
@click.argument("tile", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
def main(tile: Path, output: Path) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    master = read_tile(tile)
    coverage = master.coverage[1] if master.coverage.ndim == 3 else master.coverage
    rows, cols = coverage.shape
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 1 + 6 * rows / cols), layout="constrained")
    left.imshow(stretch(master.image), interpolation="antialiased")
    left.set_title(f"{tile.name}: asinh, -3 to 40 sigma")
    shown = right.imshow(coverage, cmap="viridis", interpolation="nearest")
    right.set_title("coverage")
    figure.colorbar(shown, ax=right, label="frames", shrink=0.8)
    for axes in (left, right):
        axes.set_axis_off()
    figure.savefig(output, dpi=110)
    click.echo(f"{output}: {cols} × {rows} px of sky")


if __name__ == "__main__":
    main()
