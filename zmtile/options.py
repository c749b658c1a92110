"""What the user can choose: ``Options`` shape the pixels, ``Resources`` only how the work is done."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from typing import Any

from zmtile.dependence import refuse_idle
from zmtile.errors import UsageError
from zmtile.rules import MATCHED, parse_rule

__all__ = [
    "ALIGNMENTS",
    "BACKENDS",
    "CFA_WAYS",
    "COMBINES",
    "EXTRA_PLANES",
    "FRAMINGS",
    "KERNELS",
    "LEVELLED",
    "NORMALIZATIONS",
    "REJECTIONS",
    "SCALED",
    "SKY_DEGREES",
    "TRANSFORMS",
    "WEIGHTS",
    "Options",
    "Resources",
    "parse_size",
]

ALIGNMENTS = ("stars", "wcs")
TRANSFORMS = ("auto", "similarity", "affine", "homography", "poly2", "poly3")
FRAMINGS = ("reference", "union", "intersection")
NORMALIZATIONS = ("none", "offset", "scale", "both", "surface")
# Those of them that measure the flux scale of each frame.
SCALED = ("scale", "both", "surface")
# Those that match the level of the sky.
LEVELLED = ("offset", "both", "surface")
SKY_DEGREES = (1, 2)
WEIGHTS = ("none", "noise", "fwhm", "stars")
REJECTIONS = ("winsor", "winsor-quantile", "sigma", "mad", "linear-fit", "esd", "minmax", "auto", "none")
CFA_WAYS = ("demosaic", "direct")
COMBINES = ("mean", "median")
KERNELS = ("bilinear", "cubic", "lanczos3", "lanczos4")
EXTRA_PLANES = ("mask", "weight")
BACKENDS = ("cpu", "gpu", "auto")

GIB = 2**30
MAX_GROW = 32  # a block is worked on with a margin this wide


@dataclass(frozen=True)
class Options:
    """Every choice that shapes the pixels of a tile; all of them are written into its header.

    Parameters
    ----------
    reference : str, optional
        File name (or path) of the reference frame; chosen by star count, FWHM, roundness,
        centrality and the presence of a WCS when not given.
    bias, dark, flat : str, optional
        Paths of the masters of a calibration. Darks and flats still hold their bias.
    hot_pixels : bool
        Pixels that stand alone in most frames of a sensor are no data.
    align : {'stars', 'wcs'}
        Match stars, or use the WCS of the frames alone.
    transform : {'auto', 'similarity', 'affine', 'homography', 'poly2', 'poly3'}
        Model fitted on the matched stars; 'auto' chooses one for the group.
    framing : {'reference', 'union', 'intersection'}
        Extent of the tile.
    normalize : {'none', 'offset', 'scale', 'both', 'surface'}
        What is matched to the reference: the level of the sky, the star fluxes, or both; 'surface'
        matches the fluxes and the sky by a low-order surface for each frame and channel.
    sky_degree : {1, 2}, optional
        Degree of that surface: a plane, or one that bends. When not given, it bends if at least
        half of every frame lies on the reference.
    weight : {'none', 'noise', 'fwhm', 'stars'}
        Weights of the mean: equal; inverse variance of the frame after scaling; those that show
        faint stars best, by noise and FWHM; squared signal-to-noise of the matched stars.
    feather : float
        Frame pixels over which the weight of a frame falls to its edge; 0 for none.
    reject : {'winsor', 'winsor-quantile', 'sigma', 'mad', 'linear-fit', 'esd', 'minmax', 'auto', 'none'}
        Rejection of outliers; 'auto' chooses by the number of frames.
    kappa : (float, float)
        Bounds below and above the centre, in sigma.
    winsor_limits : (float, float)
        Fractions clipped below and above by 'winsor-quantile'.
    rewinsorize : bool
        'winsor-quantile' replaces an outlier by its bound instead of rejecting it.
    esd_outliers : float
        Largest fraction of the samples that 'esd' may reject, above 0 and up to 0.5.
    esd_alpha : float
        Significance of 'esd': how often it may reject something where there is no outlier.
    minmax : (int, int)
        Samples that 'minmax' drops below and above.
    grow : int
        Pixels around a region rejected in a frame, a trail for instance, that are rejected with it.
    combine : {'mean', 'median'}
        How the survivors are combined.
    min_coverage : int
        The image is NaN where fewer frames than this have data.
    fill : float, optional
        Written in place of NaN in the image plane of the file; NaN when not given. The command hands
        it to `Tile.write`.
    planes : tuple of {'mask', 'weight'}
        Planes on demand, beside those that every tile has. The command hands them to `Tile.write`.
    cfa : {'demosaic', 'direct'}
        How mosaic frames become colour: interpolated, or every sample in its own colour alone.
    kernel : {'bilinear', 'cubic', 'lanczos3', 'lanczos4'}
        Interpolation of the warp.
    clamp : bool
        Keep interpolation from undershooting the pixels under the kernel (dark rings).
    min_frames : int, optional
        Fewer registered frames than this is an error; 2, or 1 when only one frame is given.
    skip_unreadable : bool
        Leave unreadable files out, with a reason, instead of stopping.
    reject_frames : tuple of str
        Rules such as 'fwhm<1.5*median' that a frame must hold, or it is left out.

    Raises
    ------
    UsageError
        When a value makes no sense.
    """

    reference: str | None = None
    bias: str | None = None
    dark: str | None = None
    flat: str | None = None
    hot_pixels: bool = False
    align: str = "stars"
    transform: str = "auto"
    framing: str = "reference"
    normalize: str = "surface"
    sky_degree: int | None = None
    weight: str = "noise"
    feather: float = 0.0
    reject: str = "winsor"
    kappa: tuple[float, float] = (3.0, 3.0)
    winsor_limits: tuple[float, float] = (0.05, 0.05)
    rewinsorize: bool = False
    esd_outliers: float = 0.3
    esd_alpha: float = 0.05
    minmax: tuple[int, int] = (1, 1)
    grow: int = 0
    combine: str = "mean"
    min_coverage: int = 1
    fill: float | None = None
    planes: tuple[str, ...] = ("mask",)
    cfa: str = "demosaic"
    kernel: str = "cubic"
    clamp: bool = True
    min_frames: int | None = None
    skip_unreadable: bool = False
    reject_frames: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in {
            "align": ALIGNMENTS,
            "transform": TRANSFORMS,
            "framing": FRAMINGS,
            "normalize": NORMALIZATIONS,
            "weight": WEIGHTS,
            "reject": REJECTIONS,
            "combine": COMBINES,
            "cfa": CFA_WAYS,
            "kernel": KERNELS,
        }.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} is {getattr(self, name)!r}", f"Choose one of {', '.join(choices)}.")
        if unknown := set(self.planes) - set(EXTRA_PLANES):
            raise UsageError(
                f"no plane is called {', '.join(sorted(unknown))}",
                f"Planes on demand: {', '.join(EXTRA_PLANES)}.",
            )
        self._check_rejection()
        self._check_matching()
        if self.fill is not None and not abs(self.fill) < 3.4e38:  # float32
            raise UsageError(f"fill is {self.fill}", "Give a number, for instance 0; without it NaN stays.")
        if self.min_coverage < 1:
            raise UsageError(f"min coverage is {self.min_coverage}", "It is a number of frames, 1 or more.")
        if self.min_frames is not None and self.min_frames < 1:
            raise UsageError(f"min frames is {self.min_frames}", "It is a number of frames, 1 or more.")
        refuse_idle(self)
        self._check_rules()

    def _check_matching(self) -> None:
        """Refuse values of the matching that make no sense."""
        if self.sky_degree is not None and self.sky_degree not in SKY_DEGREES:
            raise UsageError(
                f"sky degree is {self.sky_degree}", "Give 1 for a plane, 2 for a surface that bends."
            )
        if not 0 <= self.feather < 1e6:
            raise UsageError(
                f"feather is {self.feather}", "Give a width in pixels, for instance 100; 0 is none."
            )

    def _check_rejection(self) -> None:
        """Refuse values of the rejection that make no sense."""
        if not all(math.isfinite(k) and k > 0 for k in self.kappa):
            raise UsageError(f"kappa is {self.kappa}", "Give two positive numbers, for instance 3 3.")
        low, high = self.winsor_limits
        if not (low >= 0 and high >= 0 and low + high < 1):
            raise UsageError(
                f"winsor limits are {low} and {high}",
                "Give two fractions, together below 1, for instance 0.05 0.05.",
            )
        if not 0 < self.esd_outliers <= 0.5:
            raise UsageError(
                f"the fraction of ESD outliers is {self.esd_outliers}",
                "Give a fraction up to 0.5, for instance 0.3.",
            )
        if not 0 < self.esd_alpha < 1:
            raise UsageError(
                f"the significance of ESD is {self.esd_alpha}", "Give a probability, for instance 0.05."
            )
        if min(self.minmax) < 0 or sum(self.minmax) < 1:
            raise UsageError(f"minmax is {self.minmax}", "Give two numbers of samples, for instance 1 1.")
        if not 0 <= self.grow <= MAX_GROW:
            raise UsageError(f"grow is {self.grow}", f"Give a number of pixels from 0 to {MAX_GROW}.")

    def _check_rules(self) -> None:
        """Refuse rules on frames that are none, or that ask for what is not measured."""
        for rule in map(parse_rule, self.reject_frames):
            if rule.quantity in MATCHED and self.normalize not in SCALED:
                raise UsageError(
                    f"--reject-frames {rule.text}: --normalize {self.normalize} measures no {rule.quantity}",
                    f"Choose --normalize {', '.join(SCALED)}, or another rule.",
                )
            if rule.quantity == "matched" and self.align == "wcs":
                raise UsageError(
                    f"--reject-frames {rule.text}: --align wcs matches no stars",
                    "Choose --align stars, or another rule.",
                )

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain values, in the order of their definition."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Resources:
    """How the work is done; nothing here changes a pixel.

    Parameters
    ----------
    threads : int, optional
        Worker threads; one for every usable core when not given.
    memory_limit : int, optional
        Bytes that the run may hold beyond the interpreter and its libraries. When not given:
        2 GiB, or what the planes of the tile need if that is more.
    backend : {'cpu', 'gpu', 'auto'}
        Where the second pass runs; 'auto' takes a GPU if there is one and the group is large enough.
    gpu_memory_limit : int, optional
        Bytes that the second pass may hold on a GPU; nine tenths of what is free when not given.
    """

    threads: int | None = None
    memory_limit: int | None = None
    backend: str = "cpu"
    gpu_memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(
                f"threads is {self.threads}", "Give 1 or more, or leave it out to use every core."
            )
        if self.memory_limit is not None and self.memory_limit < 1:
            raise UsageError(f"memory limit is {self.memory_limit} bytes", "Give a size such as 2GiB.")
        if self.backend not in BACKENDS:
            raise UsageError(f"backend is {self.backend!r}", f"Choose one of {', '.join(BACKENDS)}.")
        if self.gpu_memory_limit is not None and self.gpu_memory_limit < 1:
            raise UsageError(
                f"GPU memory limit is {self.gpu_memory_limit} bytes", "Give a size such as 8GiB."
            )

    @property
    def workers(self) -> int:
        """Number of worker threads."""
        return self.threads or len(os.sched_getaffinity(0))


def parse_size(text: str) -> int:
    """Return the bytes meant by a size such as ``2GiB``, ``512M`` or ``1.5GB``.

    Raises
    ------
    UsageError
        When the text is no size.
    """
    units = {"": 1, "b": 1}
    for power, letter in enumerate("kmgt", start=1):
        units |= {letter: 1024**power, f"{letter}ib": 1024**power, f"{letter}b": 1000**power}
    number = text.strip().lower().rstrip("bikmgt")
    try:
        size = float(number) * units[text.strip().lower()[len(number) :].strip()]
    except (ValueError, KeyError):
        raise UsageError(f"{text!r} is no size", "Write it like 2GiB or 512MiB.") from None
    if not (math.isfinite(size) and size >= 1):
        raise UsageError(f"{text!r} is no size", "Write it like 2GiB or 512MiB.")
    return int(size)
