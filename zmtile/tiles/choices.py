"""Options in the header, both ways: one table says how each is written, and how it is read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

from zmtile.errors import UsageError
from zmtile.options import Options
from zmtile.tiles.keywords import file_text

__all__ = ["CHOICES", "Choice", "choices_told", "options_of"]

Header = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """How the header tells of an option.

    Attributes
    ----------
    field : str
        Of `Options`.
    keywords : tuple of str
    told : callable
        From the options to the values of these keywords.
    meant : callable
        From a header to the value of the field.
    """

    field: str
    keywords: tuple[str, ...]
    told: Callable[[Options], tuple[Any, ...]]
    meant: Callable[[Header], Any]


def _as_it_is(field: str, keyword: str) -> Choice:
    kind = type(getattr(Options, field))
    return Choice(field, (keyword,), lambda o: (kind(getattr(o, field)),), lambda h: _read(kind, h[keyword]))


def _low_and_high(field: str, *keywords: str) -> Choice:
    kind = type(getattr(Options, field)[0])
    return Choice(
        field,
        keywords,
        lambda o: tuple(kind(value) for value in getattr(o, field)),
        lambda h: tuple(_read(kind, h[keyword]) for keyword in keywords),
    )


def _or_zero(field: str, keyword: str) -> Choice:
    """Write 0 for a number that is not given."""
    return Choice(field, (keyword,), lambda o: (getattr(o, field) or 0,), lambda h: int(h[keyword]) or None)


def _master(kind: str) -> Choice:
    """Only the name of its file is told, not where it lies: `zmtile.tiles.sources` finds it by its hash."""
    keyword, proof = f"ZMT_{kind.upper()}", f"ZMT_{kind[0].upper()}SHA"

    def told(options: Options) -> tuple[str]:
        path = getattr(options, kind)
        return (file_text(PurePath(path).name) if path else "none",)

    def meant(header: Header) -> str | None:
        name = _name(header[keyword])
        return name if proof in header else None  # a file may be called none

    return Choice(kind, (keyword,), told, meant)


def _read(kind: type, value: Any) -> Any:
    """Return a value of a card, which must be of this kind; a whole float is read as int by some programs."""
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, (kind, int)):
        raise ValueError(value)
    return kind(value)


def _name(text: str) -> str:
    return unquote(text, errors="surrogateescape")


# Without demosaicing nothing is interpolated: the header says so, and the options have their defaults.
_DIRECT = "direct"

CHOICES = (
    Choice(
        "reference",
        ("ZMT_ARUL",),
        lambda o: ("automatic" if o.reference is None else "by the user",),
        lambda h: _name(h["ZMT_REF"]) if h["ZMT_ARUL"] == "by the user" else None,
    ),
    _master("bias"),
    _master("dark"),
    _master("flat"),
    _as_it_is("hot_pixels", "ZMT_HOT"),
    _as_it_is("align", "ZMT_ALGN"),
    _as_it_is("transform", "ZMT_XFRM"),
    _as_it_is("framing", "ZMT_FRAM"),
    _as_it_is("cfa", "ZMT_CFA"),
    Choice(
        "kernel",
        ("ZMT_KERN",),
        lambda o: ("nearest" if o.cfa == _DIRECT else o.kernel,),
        lambda h: Options.kernel if h["ZMT_CFA"] == _DIRECT else _read(str, h["ZMT_KERN"]),
    ),
    Choice(
        "clamp",
        ("ZMT_CLMP",),
        lambda o: (o.clamp and o.cfa != _DIRECT,),
        lambda h: Options.clamp if h["ZMT_CFA"] == _DIRECT else _read(bool, h["ZMT_CLMP"]),
    ),
    _as_it_is("normalize", "ZMT_NORM"),
    _or_zero("sky_degree", "ZMT_SDEG"),
    _as_it_is("weight", "ZMT_WGHT"),
    _as_it_is("feather", "ZMT_FEAT"),
    _as_it_is("reject", "ZMT_REJ"),
    _low_and_high("kappa", "ZMT_KLOW", "ZMT_KHI"),
    _low_and_high("winsor_limits", "ZMT_WLOW", "ZMT_WHI"),
    _as_it_is("rewinsorize", "ZMT_RWIN"),
    _as_it_is("esd_outliers", "ZMT_ESDF"),
    _as_it_is("esd_alpha", "ZMT_ESDA"),
    _low_and_high("minmax", "ZMT_MMLO", "ZMT_MMHI"),
    _as_it_is("grow", "ZMT_GROW"),
    _as_it_is("combine", "ZMT_COMB"),
    _as_it_is("min_coverage", "ZMT_MINC"),
    _or_zero("min_frames", "ZMT_MINF"),
    _as_it_is("skip_unreadable", "ZMT_SKIP"),
    Choice(
        "reject_frames",
        ("ZMT_RFRM",),
        lambda o: (", ".join(o.reject_frames) or "none",),
        lambda h: () if h["ZMT_RFRM"] == "none" else tuple(r.strip() for r in h["ZMT_RFRM"].split(",")),
    ),
)


def choices_told(options: Options) -> dict[str, Any]:
    """Return every option as keywords; `fill` is written with the file, and `planes` are its extensions."""
    return {
        keyword: value
        for choice in CHOICES
        for keyword, value in zip(choice.keywords, choice.told(options), strict=True)
    }


def options_of(header: Header, planes: Sequence[str]) -> Options:
    """Return the options that a tile was made with, as its header tells them.

    What was left to the program is told as it was chosen: 'auto' of the rejection as its method, the
    degree of the sky surfaces as a number. The reference is its name in FRAMES, a master the name of
    its file.

    Parameters
    ----------
    header : mapping
        Primary header of a tile.
    planes : sequence of str
        Planes on demand that the file has.

    Raises
    ------
    UsageError
        When the header does not tell of an option, or tells what makes no sense.
    """
    values: dict[str, Any] = {"fill": header.get("ZMT_FILL"), "planes": tuple(planes)}
    for choice in CHOICES:
        try:
            values[choice.field] = choice.meant(header)
        except (KeyError, TypeError, ValueError, AttributeError):
            told = ", ".join(f"{k} = {header[k]!r}" if k in header else f"no {k}" for k in choice.keywords)
            option = choice.field.replace("_", "-")
            raise UsageError(
                f"its header does not tell what --{option} was ({told})",
                f"{header.get('CREATOR', 'Another version')} made it: use that version.",
            ) from None
    return Options(**values)
