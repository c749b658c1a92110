"""Stack a group the way of astropy's affiliated packages: astroalign, then ccdproc with sigma clipping.

    python bench/speed/ccdproc_stack.py GROUP result.fits --mosaic

Grey images at full size: of a mosaic the mean of every 2 × 2 pixels. peers.py measures it.
"""

from __future__ import annotations

from pathlib import Path

import astroalign
import ccdproc
import click
import numpy as np
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData
from numpy.typing import NDArray


def grey(path: Path, mosaic: bool) -> NDArray[np.float32]:
    """Return a frame as a grey image."""
    image = fits.getdata(path).astype(np.float32)
    if mosaic:
        image = 0.25 * (image[:-1, :-1] + image[1:, :-1] + image[:-1, 1:] + image[1:, 1:])
    return np.asarray(image)


@click.command()
@click.argument("group", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("result", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--mosaic", is_flag=True, help="The frames are mosaics.")
def main(group: Path, result: Path, mosaic: bool) -> None:
    """Align the frames of GROUP on the first and write their clipped mean to RESULT."""
    paths = sorted(group.glob("*.fits"))
    first = grey(paths[0], mosaic)
    stack = [CCDData(first, unit=units.adu)]
    for path in paths[1:]:
        moved, nothing = astroalign.register(grey(path, mosaic), first)
        stack.append(CCDData(moved, unit=units.adu, mask=nothing))
    combiner = ccdproc.Combiner(stack, dtype=np.float32)
    combiner.sigma_clipping(low_thresh=3, high_thresh=3, func=np.ma.median)
    combiner.average_combine().write(result)


if __name__ == "__main__":
    main()
