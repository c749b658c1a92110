"""Check: whether an image is what it says, and free of what zmtile exists to prevent."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from zmtile.errors import UsageError
from zmtile.looks.skyimage import SkyImage, read_image
from zmtile.looks.steps import Step, find_steps
from zmtile.tiles.tile import Tile

__all__ = ["MAX_STEP", "Finding", "check_image", "check_limit", "checksums"]

# Sigma of a pixel where coverage is full. An eye finds a straight line of half a sigma in a hard stretch.
MAX_STEP = 0.5
# What is asked of every image beside its checksums.
QUESTIONS = ("no data is NaN", "no filler", "luminance steps", "colour steps", "coordinates", "exposures")
# A share of equal values that no sky has. The largest value of all may repeat if it is so many sigma above
# the sky: there, stars saturate.
MAX_EQUAL = 0.002
SATURATED = 50.0
# A number is filler if it stands in so many times the pixels of any number near it.
STANDS_OUT = 2.0


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes
    ----------
    name : str
    passed : bool or None
        None when the question cannot be asked of this image.
    detail : str
        What was found.
    value : float or None
        The number behind it, where there is one.
    """

    name: str
    passed: bool | None
    detail: str
    value: float | None = None


def check_image(path: str | os.PathLike[str], max_step: float = MAX_STEP) -> tuple[Finding, ...]:
    """Check a tile, or an image of another program.

    Parameters
    ----------
    path : path
    max_step : float
        Largest step of the sky that passes, in sigma of a pixel where coverage is full.

    Returns
    -------
    tuple of Finding
        The same questions in the same order for every image.

    Raises
    ------
    UsageError
        When the file cannot be read, or the limit makes no sense.
    """
    check_limit(max_step)
    sums = checksums(path)
    try:
        sky = read_image(path, damaged=True)
    except UsageError as error:
        if sums.passed is not False:
            raise
        why = f"not readable: {error.what.removeprefix(f'{path}: ')}"
        return (sums, *(Finding(name, None, why) for name in QUESTIONS))
    return (
        sums,
        _no_data(sky),
        _filler(sky.image),
        *_steps(sky, max_step),
        _coordinates(sky),
        _exposures(sky.tile),
    )


def check_limit(max_step: float) -> None:
    """Refuse a largest step that is no positive number of sigma."""
    if not (math.isfinite(max_step) and max_step > 0):
        raise UsageError(f"the largest step is {max_step}", "Give a positive number of sigma, such as 0.5.")


def checksums(path: str | os.PathLike[str]) -> Finding:
    """Compare the checksums of every HDU that has them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Compressed images as the tables that they are stored as: these carry the checksums.
        try:
            with fits.open(
                path, memmap=False, checksum=True, lazy_load_hdus=False, disable_image_compression=True
            ) as hdus:
                known = sum("DATASUM" in hdu.header for hdu in hdus)
                own = str(hdus[0].header.get("PROGRAM", "")).strip() == "zmtile"
        except Exception:  # a damaged file fails anywhere in the parser; what is wrong, the reader says
            return Finding("checksums", None, "they cannot be read")
    wrong = [str(w.message).strip() for w in caught if "verification failed" in str(w.message)]
    if not known:
        return Finding("checksums", None, "the file has none")
    if wrong:
        # Without its table of frames, a tile is beyond that.
        helps = own and not any("FRAMES" in text for text in wrong)
        detail = wrong[0] + (" `zmtile rebuild` makes the tile again." if helps else "")
        return Finding("checksums", False, detail)
    return Finding("checksums", True, f"{known} extensions agree")


def _no_data(sky: SkyImage) -> Finding:
    """Find out whether NaN stands exactly where COVERAGE tells of no data."""
    name = "no data is NaN"
    if sky.coverage is None:
        empty = float((~np.isfinite(sky.image)).mean())
        return Finding(name, None, f"no coverage plane; {empty:.1%} of the image is NaN")
    least = max(1, int(sky.header.get("ZMT_MINC", 1)))
    wrong = int((np.isfinite(sky.image) != (sky.coverage >= least)).sum())
    detail = f"{wrong:,} pixels contradict COVERAGE" if wrong else "as COVERAGE has it"
    return Finding(name, wrong == 0, detail, float(wrong))


def _filler(image: NDArray[np.float32]) -> Finding:
    """Find one number in very many pixels: what was put where there was no data."""
    worst, value = 0.0, math.nan
    for plane in image:
        share, number = _repeated(plane[np.isfinite(plane)])
        if share > worst:
            worst, value = share, number
    detail = f"{worst:.2%} of the pixels are {value:g}" if worst > MAX_EQUAL else "no number repeats"
    return Finding("no filler", worst <= MAX_EQUAL, detail, worst)


def _repeated(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the share of the number that repeats most, beyond what its neighbours do, and the number.

    Whole numbers repeat by themselves, but so do those near them: a number counts by how far it
    stands above all others within a sigma of the sky. Where the noise is below the step from one
    number to the next, nothing can be told.
    """
    if not values.size:
        return 0.0, math.nan
    numbers, counts = np.unique(values, return_counts=True)
    middle = float(np.median(values))
    spread = float(np.std(values[np.abs(values - middle) <= np.quantile(np.abs(values - middle), 0.9)]))
    if numbers.size > 1 and spread > 0 and numbers[-1] > middle + SATURATED * spread:
        counts[-1] = 0  # stars saturate
    if numbers.size > 1 and spread < float(np.median(np.diff(numbers))):
        return 0.0, math.nan
    for most in np.argsort(-counts, kind="stable")[:8]:
        share = counts[most] / values.size
        if share <= MAX_EQUAL:
            break
        near = np.abs(numbers - numbers[most]) <= spread
        near[most] = False
        beside = int(counts[near].max(initial=0))
        if counts[most] > STANDS_OUT * beside:
            return float(counts[most] - beside) / values.size, float(numbers[most])
    return 0.0, math.nan


def _steps(sky: SkyImage, limit: float) -> Iterator[Finding]:
    """Look for steps of the sky, in luminance and in colour."""
    steps = find_steps(sky)
    kinds = (("luminance steps", ("L",)), ("colour steps", ("R-G", "B-G")))
    for name, planes in kinds:
        here = [step for step in steps if step.plane in planes]
        if not here:
            mono = "R-G" in planes and len(sky.image) == 1
            why = "mono" if mono else "no line has enough sky on both sides"
            yield Finding(name, None, why)
            continue
        certain = [step for step in here if step.certain]
        if certain:
            worst = certain[0]
            yield Finding(name, abs(worst.jump) <= limit, told(worst), abs(worst.jump))
        else:
            detail = f"none above the noise ({len(here)} lines, largest {told(here[0])})"
            yield Finding(name, True, detail, 0.0)


def told(step: Step) -> str:
    """Return a step in words."""
    return f"{step.plane} {step.jump:+.2f} ± {step.error:.2f} sigma, {step.side}, {step.line}"


def _coordinates(sky: SkyImage) -> Finding:
    """Find out whether the WCS, where there is one, is whole and sane."""
    name, header = "coordinates", sky.header
    if "CTYPE1" not in header:
        return Finding(name, None, "the header has none")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(header, naxis=2)
            middle = wcs.all_pix2world([[sky.image.shape[2] / 2, sky.image.shape[1] / 2]], 0)
            scale = math.sqrt(abs(float(np.linalg.det(wcs.pixel_scale_matrix)))) * 3600
    except Exception as error:  # wcslib has many ways to refuse a header
        return Finding(name, False, f"broken: {(str(error).splitlines() or ['?'])[0]}")
    missing = [f"CD{i}_{j}" for i in (1, 2) for j in (1, 2) if f"CD{i}_{j}" not in header]
    if sky.tile is not None and missing:
        return Finding(name, False, f"{', '.join(missing)} are missing")
    sane = bool(np.isfinite(middle).all()) and 0.001 < scale < 3600
    return Finding(name, sane, f'centre {middle[0][0]:.4f} {middle[0][1]:+.4f} deg, {scale:.3f}" a pixel')


def _exposures(tile: Tile | None) -> Finding:
    """Compare the header's sums with the FRAMES table."""
    name = "exposures"
    if tile is None:
        return Finding(name, None, "not a tile of zmtile")
    used = [frame for frame in tile.frames if frame.used]
    if int(tile.header.get("NCOMBINE", -1)) != len(used):
        return Finding(
            name, False, f"NCOMBINE is {tile.header.get('NCOMBINE')}, FRAMES has {len(used)} frames used"
        )
    total = math.fsum(frame.exposure for frame in used)
    if not math.isfinite(total):
        return Finding(name, None, "not known of every frame")
    stated = float(tile.header.get("LIVETIME", math.nan))
    right = math.isclose(stated, total, rel_tol=1e-6, abs_tol=1e-5)
    return Finding(
        name, right, f"{len(used)} frames, {total:g} s" + ("" if right else f"; LIVETIME {stated:g} s")
    )
