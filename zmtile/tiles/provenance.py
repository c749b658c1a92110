"""Provenance: what is written down of every input, those that were left out included."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.calibrate import Correction
from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats
from zmtile.kernels.bend import BEND
from zmtile.matching.match import Photometry
from zmtile.registration.mapping import flat_bend
from zmtile.registration.register import Registration
from zmtile.registration.selection import Failure
from zmtile.registration.transform import Transform
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.planes import Planes
from zmtile.tiles.records import FrameRecord

__all__ = ["records_of", "tallied"]

# In the order of `zmtile.matching.skysurface.surface_terms`.
SKY_FIELDS = ("offset", "slope_x", "slope_y", "curve_xx", "curve_xy", "curve_yy")


def records_of(
    frames: Sequence[Frame],
    corrections: Sequence[Correction],
    stats: Sequence[FrameStats],
    registration: Registration,
    photometry: dict[int, Photometry],
    unreadable: Sequence[tuple[str, str]],
    failures: Mapping[int, Failure],
) -> tuple[FrameRecord, ...]:
    """Write down what is known of every input: in the order of their names, unreadable ones last."""
    channels = frames[0].channels
    unknown = (math.nan,) * channels
    records = []
    for k, (frame, stat) in enumerate(zip(frames, stats, strict=True)):
        transform, light = registration.transforms[k], photometry.get(k)
        records.append(
            FrameRecord(
                name=frame.name,
                sha256=stat.sha256,
                used=transform is not None,
                reason=registration.reasons[k],
                rule=failures[k].rule if k in failures else "",
                date=frame.date,
                exposure=frame.exposure,
                nstars=len(stat.stars),
                nmatch=transform.nmatch if transform else 0,
                rms=transform.rms if transform else math.nan,
                matrix=transform.matrix if transform else np.full((2, 3), math.nan),
                model=transform.model if transform else "",
                bend=_bend(frame, transform),
                fwhm=stat.fwhm,
                noise=tuple(float(v) for v in stat.noise),
                scale=tuple(float(v) for v in light.scale) if light else unknown,
                **_sky(light, channels),
                weight=tuple(float(v) for v in light.weight) if light else unknown,
                nhot=corrections[k].bad.size,
                nrejlow=0,
                nrejhigh=0,
                footprint=0.0,
            )
        )
    records += [
        FrameRecord(
            name=name,
            sha256="",
            used=False,
            reason=reason,
            rule="",
            date=None,
            exposure=math.nan,
            nstars=0,
            nmatch=0,
            rms=math.nan,
            matrix=np.full((2, 3), math.nan),
            model="",
            bend=np.full(BEND, math.nan),
            fwhm=math.nan,
            noise=unknown,
            scale=unknown,
            **_sky(None, channels),
            weight=unknown,
            nhot=0,
            nrejlow=0,
            nrejhigh=0,
            footprint=0.0,
        )
        for name, reason in unreadable
    ]
    return tuple(records)


def _sky(light: Photometry | None, channels: int) -> dict[str, tuple[float, ...]]:
    """Return the coefficients of a sky surface by the records' fields; 0 for those that it has not."""
    known = np.full((channels, len(SKY_FIELDS)), 0.0 if light else math.nan)
    if light:
        known[:, : light.surface.shape[1]] = light.surface
    return {field: tuple(values) for field, values in zip(SKY_FIELDS, known.T.tolist(), strict=True)}


def _bend(frame: Frame, transform: Transform | None) -> NDArray[np.float64]:
    """Return a frame's bend; of one without, its units and zeros."""
    if transform is None:
        return np.full(BEND, math.nan)
    return flat_bend(frame.rows, frame.cols) if transform.bend is None else transform.bend


def tallied(records: Sequence[FrameRecord], planes: Planes, canvas: Canvas) -> tuple[FrameRecord, ...]:
    """Return the records with what the stack counted for each frame."""
    size = canvas.rows * canvas.cols
    counts = iter(planes.tally)
    told = []
    for record in records:
        if record.used:
            tally = next(counts)
            record = replace(
                record,
                nrejlow=int(tally[:, 1].sum()),
                nrejhigh=int(tally[:, 2].sum()),
                footprint=float(tally[:, 0].mean() / size),
            )
        told.append(record)
    return tuple(told)
