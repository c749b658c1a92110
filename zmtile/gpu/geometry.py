"""What the kernels know of the frames: one record for each, as `struct Geometry` in cuda/geometry.cuh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels.tables import kernel_table
from zmtile.stacking.warp import Source

__all__ = ["GEOMETRY", "RULE", "geometry_of"]

GEOMETRY = np.dtype(
    [
        ("matrix", np.float64, 6),
        ("back", np.float64, 6),
        ("bend", np.float64, 20),
        ("origin", np.float64, 2),
        ("middle", np.float64, 2),
        ("half", np.float64),
        ("surface", np.float64, (3, 6)),
        ("scale", np.float32, 3),
        ("bent", np.int32),
        ("direct", np.int32),
        ("clamp", np.int32),
        ("taps", np.int32),
        ("steps", np.int32),
        ("codes", np.int32, (2, 2)),
        ("rows", np.int32),
        ("cols", np.int32),
    ],
    align=True,
)
# `struct Rejection` in cuda/stack.cuh.
RULE = np.dtype(
    [
        ("klow", np.float32),
        ("khigh", np.float32),
        ("low", np.float64),
        ("high", np.float64),
        ("clamp", np.int32),
        ("use_median", np.int32),
    ],
    align=True,
)


def geometry_of(sources: Sequence[Source]) -> NDArray[Any]:
    """Return the records of the frames, in their order."""
    records = np.zeros(len(sources), GEOMETRY)
    for record, source in zip(records, sources, strict=True):
        bent, table = source.bent, kernel_table(source.kernel, source.span)
        record["matrix"] = (source.inverse if bent is None else bent.matrix).ravel()
        if bent is not None:
            record["back"], record["bend"] = bent.back.ravel(), bent.bend
        record["origin"], record["middle"], record["half"] = source.origin, source.middle, source.half
        record["surface"][: len(source.surface)] = source.surface
        record["scale"][: len(source.scale)] = source.scale
        record["bent"], record["direct"], record["clamp"] = bent is not None, source.direct, source.clamp
        record["taps"], record["steps"] = table.shape[1], len(table) - 1
        record["codes"] = source.codes
        record["rows"], record["cols"] = source.frame.rows, source.frame.cols
    return records
