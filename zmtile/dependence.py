"""Which options do nothing beside the others: passed over, or refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zmtile.errors import UsageError

if TYPE_CHECKING:
    from zmtile.options import Options

__all__ = ["DEPENDS", "USED_BY", "idle", "refuse_idle"]

# Options of the rejection, and the methods that look at them.
USED_BY = {
    "kappa": ("winsor", "winsor-quantile", "sigma", "mad", "linear-fit", "auto"),
    "winsor_limits": ("winsor-quantile",),
    "rewinsorize": ("winsor-quantile",),
    "esd_outliers": ("esd", "auto"),
    "esd_alpha": ("esd", "auto"),
    "minmax": ("minmax",),
    "grow": ("winsor", "winsor-quantile", "sigma", "mad", "linear-fit", "esd", "auto"),
}


# Options that only some values of another one look at.
DEPENDS = (
    *((name, "reject", methods) for name, methods in USED_BY.items()),
    ("grow", "rewinsorize", (False,)),
    ("grow", "cfa", ("demosaic",)),
    ("kernel", "cfa", ("demosaic",)),
    ("clamp", "cfa", ("demosaic",)),
    ("sky_degree", "normalize", ("surface",)),
    ("weight", "combine", ("mean",)),
    ("feather", "combine", ("mean",)),
)


def idle(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    """Return which of the values, not at their defaults, do nothing beside the others, and why not.

    Parameters
    ----------
    values, defaults : mapping
        Of every field of `Options`.

    Returns
    -------
    dict of str to str
        From the field to the option that has no use for it: ``{'kappa': '--reject none'}``.
    """
    found: dict[str, str] = {}
    for name, chooser, allowed in DEPENDS:
        working = defaults[chooser] if chooser in found else values[chooser]
        if values[name] != defaults[name] and working not in allowed:
            told = f" {working}" if isinstance(working, str) else ""
            found.setdefault(name, f"--{chooser.replace('_', '-')}{told}")
    return found


def refuse_idle(options: Options) -> None:
    """Refuse options that are not at their defaults and do nothing beside the others, or work against them.

    Raises
    ------
    UsageError
    """
    given = {name for name, value in options.as_dict().items() if value != getattr(type(options), name)}
    for name, methods in USED_BY.items():
        if name in given and options.reject not in methods:
            raise UsageError(
                f"--{name.replace('_', '-')} does nothing with --reject {options.reject}",
                f"Leave it out, or add --reject {' or '.join(methods)}.",
            )
    if "grow" in given and options.rewinsorize:
        raise UsageError("--grow takes samples away, --rewinsorize keeps them all", "Leave one of them out.")
    if "grow" in given and options.cfa == "direct":
        raise UsageError(
            "--grow needs samples side by side, --cfa direct leaves gaps between them",
            "Leave one of them out.",
        )
    if options.cfa == "direct" and given & {"kernel", "clamp"}:
        raise UsageError(
            "--cfa direct interpolates nothing, so that --kernel and --no-clamp do nothing with it",
            "Leave them out, or add --cfa demosaic.",
        )
    if "sky_degree" in given and options.normalize != "surface":
        raise UsageError(
            f"--sky-degree belongs to surfaces, not to --normalize {options.normalize}",
            "Add --normalize surface, or leave it out.",
        )
    if "weight" in given and options.combine == "median" and options.weight != "none":
        raise UsageError(
            f"--weight {options.weight} does nothing with --combine median",
            "Leave it out, or add --combine mean.",
        )
    if "feather" in given and options.combine == "median":
        raise UsageError(
            "--feather does nothing with --combine median: it has no weights",
            "Leave it out, or add --combine mean.",
        )
