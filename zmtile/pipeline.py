"""The way of the data: paths → frames → stats → transforms → photometry → canvas → planes → tile."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import GpuError, UsageError
from zmtile.options import EXTRA_PLANES, Options, Resources
from zmtile.planning import Plan, plan_tile
from zmtile.progress import Progress
from zmtile.registration.bentwcs import carried_over
from zmtile.registration.wcs import frame_wcs
from zmtile.stacking.planes import Planes
from zmtile.stacking.stack import stack_frames
from zmtile.tiles.header import tile_header
from zmtile.tiles.provenance import tallied
from zmtile.tiles.tile import Tile, unweighed

if TYPE_CHECKING:
    from astropy.io import fits

    from zmtile.gpu.device import Device

__all__ = ["Plan", "build_tile", "plan_tile", "stack_plan"]

log = logging.getLogger("zmtile")

Sample = TypeVar("Sample", bound=np.generic)


def build_tile(
    paths: Sequence[str | os.PathLike[str]],
    options: Options | None = None,
    resources: Resources | None = None,
    progress: Progress | None = None,
) -> Tile:
    """Build a master tile from a group of light frames.

    Parameters
    ----------
    paths : sequence of str or path
        Files, folders, glob patterns, ``@list.txt``; their order has no influence.
    options : Options, optional
        Choices that shape the pixels.
    resources : Resources, optional
        Threads and memory.
    progress : Progress, optional
        Told of every stage and step.

    Returns
    -------
    Tile
        In memory, with all its planes; `Tile.write` saves it.

    Raises
    ------
    UsageError, FrameError
        For options that contradict each other and input that cannot be read.
    TooFewFrames
        When too few frames can be used.
    GpuError
        When the GPU fails.

    Examples
    --------
    >>> from zmtile import Options, build_tile
    >>> tile = build_tile(["group/"], Options(framing="union"))  # doctest: +SKIP
    >>> tile.write("master_tile_M94.fits")  # doctest: +SKIP
    """
    resources = resources or Resources()
    options = replace(options or Options(), planes=EXTRA_PLANES)
    return stack_plan(plan_tile(paths, options, resources, progress), resources, progress)


def stack_plan(plan: Plan, resources: Resources | None = None, progress: Progress | None = None) -> Tile:
    """Do the second pass of a plan: warp, stack, and put the tile together.

    Its weight is NaN throughout, and takes no memory, where it is none of the plan's planes on demand.
    """
    reference = plan.frames[plan.reference_index]
    resources = resources or Resources()
    device = _device_for(plan, resources)
    try:
        planes = _stacked(plan, resources, progress, device)
    except (GpuError, UsageError) as error:
        if device is None or resources.backend != "auto":
            raise
        log.info("back end: cpu (%s)", error.what)
        device = None
        planes = _stacked(plan, resources, progress, device)
    calibration = plan.corrections[0].calibration
    records = tallied(plan.records, planes, plan.canvas)
    image = _squeezed(planes.image)
    header = tile_header(
        reference,
        plan.frames,
        options=plan.options,
        canvas_origin=(plan.canvas.x0, plan.canvas.y0),
        shape=image.shape,
        n_inputs=len(records),
        wcs_cards=_wcs_cards(plan),
        models=[t.model for t in plan.transforms],
        sky_degree=plan.photometry[0].sky_degree,
        hashes=[r.sha256 for r in records if r.used],
        calibration=calibration,
        gpu=device.facts if device else None,
    )
    log.debug("MT_COVERAGE: propagate_mask=True")
    return Tile(
        image,
        _squeezed(planes.uncert),
        unweighed(image) if planes.weight is None else _squeezed(planes.weight),
        _squeezed(planes.coverage),
        _squeezed(planes.rejlow),
        _squeezed(planes.rejhigh),
        records,
        header,
    )


def _stacked(plan: Plan, resources: Resources, progress: Progress | None, device: Device | None) -> Planes:
    return stack_frames(
        plan.frames,
        plan.corrections,
        plan.maps,
        plan.photometry,
        plan.canvas,
        plan.frames[plan.reference_index],
        plan.options,
        resources,
        progress,
        device,
    )


def _device_for(plan: Plan, resources: Resources) -> Device | None:
    """Return the GPU for the second pass, if there shall be one."""
    if resources.backend == "cpu":
        return None
    from zmtile.gpu.choose import chosen_device

    pixels = plan.canvas.rows * plan.canvas.cols
    return chosen_device(resources, len(plan.frames) * plan.frames[0].channels * pixels)


def _squeezed(plane: NDArray[Sample]) -> NDArray[Sample]:
    """Return (rows, cols) for one channel, (3, rows, cols) for three."""
    return plane[0] if len(plane) == 1 else plane


def _wcs_cards(plan: Plan) -> fits.Header | None:
    """Return the tile's WCS cards: of the reference, or else of the best registered frame that has one.

    A frame without a bend goes first: its coordinates are carried over exactly.
    """
    order = sorted(
        (k for k, frame in enumerate(plan.frames) if frame.has_wcs),
        key=lambda k: (
            k != plan.reference_index,
            plan.transforms[k].bend is not None,
            plan.transforms[k].rms,
            k,
        ),
    )
    for k in order:
        wcs = frame_wcs(plan.frames[k])
        if wcs is not None:
            return carried_over(plan.frames[k], wcs, plan.maps[k], (plan.canvas.x0, plan.canvas.y0))
    return None
