"""Which processor does the second pass: the CPU, or a GPU that is asked for or worth its start."""

from __future__ import annotations

import logging

from zmtile.errors import UsageError
from zmtile.gpu.device import Device, open_device
from zmtile.options import Resources

__all__ = ["ENOUGH_SAMPLES", "chosen_device"]

log = logging.getLogger("zmtile")

# Samples from which 'auto' looks for a GPU. To import CuPy, to start CUDA and to compile takes seconds, in
# which two cores stack some 2e8 samples. An estimate: it was not yet measured on a GPU.
ENOUGH_SAMPLES = 300_000_000


def chosen_device(resources: Resources, samples: int) -> Device | None:
    """Return the GPU that shall make the planes, or None for the CPU.

    Parameters
    ----------
    resources : Resources
    samples : int
        Frames · channels · pixels of the tile.

    Raises
    ------
    UsageError
        When the back end is 'gpu' and no GPU can be used.
    """
    if resources.backend == "cpu":
        return None
    if resources.backend == "auto" and samples < ENOUGH_SAMPLES:
        log.info("back end: cpu (%d million samples are too few to gain on a GPU)", samples // 1_000_000)
        return None
    try:
        device = open_device()
    except UsageError as error:
        if resources.backend == "gpu":
            raise
        log.info("back end: cpu (%s)", error.what)
        return None
    log.info("back end: gpu (%s)", device.facts.name)
    return device
