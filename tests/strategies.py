"""Shared hypothesis strategies."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

# Camera values: ADU with a fraction, some of them no data.
adu = st.integers(0, 4 * 65535).map(lambda v: np.float32(v / 4))
maybe_adu = st.one_of(adu, st.just(np.float32("nan")))


def stacks(max_frames=12, max_pixels=40):
    """(frames, pixels) float32 with NaN."""
    shapes = st.tuples(st.integers(1, max_frames), st.integers(1, max_pixels))
    return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=maybe_adu))
