"""The memory limit: what the second pass needs, and how it stays below."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import threading
from collections.abc import Sequence

from zmtile.errors import UsageError
from zmtile.frames.calibrate import Correction
from zmtile.frames.frame import Frame
from zmtile.frames.pixels import Pixels, open_pixels
from zmtile.options import GIB, Resources
from zmtile.stacking.canvas import Canvas

__all__ = [
    "BLOCK_COLS",
    "MIN_BLOCK_PIXELS",
    "Shelf",
    "give_back",
    "memory_limit",
    "memory_needed",
    "open_file_limit",
    "plane_bytes",
    "sample_bytes",
]

BLOCK_COLS = 256
MIN_BLOCK_PIXELS = 1024
# Bytes of a pixel and channel in the planes: image, uncertainty; coverage and two rejected; the weights.
_PLANE_BYTES, _WEIGHT_BYTES = 2 * 4 + 3 * 2, 4


def memory_needed(
    frames: Sequence[Frame],
    canvas: Canvas,
    resources: Resources,
    depth: int,
    halo: int = 0,
    masters: int = 0,
    weight: bool = True,
) -> int:
    """Return the bytes that the second pass will hold at least.

    `depth` are the floats of a frame in a pixel of a block, `halo` is the margin around it, `masters`
    are the bytes of the calibration, `weight` tells whether the tile has a plane of the weights.
    """
    channels = frames[0].channels
    planes = plane_bytes(canvas, channels, weight)
    pixels = (MIN_BLOCK_PIXELS // BLOCK_COLS + 2 * halo) * (BLOCK_COLS + 2 * halo)
    block = pixels * sample_bytes(len(frames), depth, halo)
    return masters + planes + resources.workers * (block + _patch_bytes(pixels, channels))


def sample_bytes(frames: int, depth: int, halo: int) -> int:
    """Return the bytes of one pixel's samples while a block is worked on."""
    # With growth, one channel at a time: five masks, and twice the samples that are combined again.
    return 4 * frames * depth + (13 * frames if halo else 0)


def plane_bytes(canvas: Canvas, channels: int, weight: bool = True) -> int:
    """Return the bytes of all planes of a tile, with or without that of the weights."""
    return canvas.rows * canvas.cols * channels * (_PLANE_BYTES + weight * _WEIGHT_BYTES)


def _patch_bytes(pixels: int, channels: int) -> int:
    # A block's patch is at most twice as large when turned by 45°; stored, raw, demosaiced, margins.
    return 4 * (channels + 3) * (2 * pixels + 64 * 128)


def memory_limit(
    frames: Sequence[Frame],
    canvas: Canvas,
    resources: Resources,
    depth: int,
    halo: int = 0,
    masters: int = 0,
    weight: bool = True,
) -> int:
    """Return the limit in bytes; 2 GiB, or what is needed, when the user gave none.

    Raises
    ------
    UsageError
        When the user's limit is below what the tile needs.
    """
    need = memory_needed(frames, canvas, resources, depth, halo, masters, weight)
    if resources.memory_limit is None:
        return max(2 * GIB, need + need // 4)
    if resources.memory_limit < need:
        raise UsageError(
            f"the tile of {canvas.rows}×{canvas.cols} pixels needs {need / 2**20:.0f} MiB, "
            f"--memory-limit allows {resources.memory_limit / 2**20:.0f} MiB",
            "Raise the limit, use fewer --threads, or choose a smaller --framing.",
        )
    return resources.memory_limit


class Shelf:
    """Frames that stay open: as many as the limits on files and unpacked bytes allow."""

    def __init__(self, files: int, unpacked_bytes: int) -> None:
        self._files, self._bytes = files, unpacked_bytes
        self._open: dict[int, Pixels] = {}
        self._lock = threading.Lock()

    def get(self, index: int, frame: Frame, correction: Correction) -> Pixels:
        """Return the pixels of frame number `index`, opened if need be."""
        pixels = self._open.get(index)
        if pixels is not None:
            return pixels
        with self._lock:
            pixels = self._open.get(index)
            if pixels is not None:
                return pixels
            # Inside the lock: two threads must not unpack one file at the same time.
            pixels = open_pixels(frame, correction)
            # Frames are asked for in turns; what is kept stays, or every turn would miss them all.
            held = sum(p.nbytes for p in self._open.values())
            if len(self._open) < self._files and held + pixels.nbytes <= self._bytes:
                self._open[index] = pixels
            return pixels


def give_back() -> None:
    """Hand memory that is free back to the system, where the C library can: it keeps what stages have freed.

    After the matching of 400 frames that is 100 MB, on which the second pass would come on top.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def open_file_limit(count: int) -> int:
    """Allow as many open files as the frames need, and return how many frames may be open."""
    spare = 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + spare
    if soft != resource.RLIM_INFINITY and soft < wanted:
        goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
            soft = goal
    return count if soft == resource.RLIM_INFINITY else max(min(count, soft - spare), 8)
