"""Refit: the last step of registration, from verified similarities to the chosen model on all stars.

A strongly distorted lens leaves the stars in the corners unmatched under a similarity. So pairing and
fitting are repeated, each time under the better map, and the set of stars grows outwards until it
stands still.

Frames that lie on the reference almost whole are fitted to it one by one and then held fixed. The
others, whose stars on the reference say nothing of most of the frame, are fitted together, on all
their overlaps with each other and with those that are fixed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zmtile.registration.choice import Sample, choose_model
from zmtile.registration.links import Link, link_up, rms_of, stars_of
from zmtile.registration.mapping import Bent, Map, apply, compose, invert, map_of
from zmtile.registration.models import SIMPLER, WIDTH, plain, uncertainty
from zmtile.registration.proof import stars_prove
from zmtile.registration.settle import settle
from zmtile.registration.starfield import Field, final_radius
from zmtile.registration.transform import IDENTITY, Matrix, Transform

__all__ = ["refit"]

log = logging.getLogger("zmtile")

# A frame is fitted to the reference alone if this much of it lies there.
WHOLE = 0.75
# Frames that another frame is tied to, and how much of it they must cover.
PARTNERS = 6
LEAST = 0.05
STARS_PER_PARAMETER = 2.0
# Of the stars that agree under the matrix alone, a richer model must keep as many.
KEEP = 0.95
# A map must be known to this everywhere in its frame, px. Centroids have systematic errors, px.
KNOWN, FLOOR = 0.5, 0.1
# Stars that span less of the frame's width or height do not speak for the rest of it.
SPAN = 0.6
# Where a lens is to be followed and the stars do not reach far, straight lines lead further astray than
# a similarity.
_SAFER = {"poly3": "poly2"}


def refit(
    fields: Sequence[Field], transforms: Sequence[Transform | None], reference: int, asked: str
) -> list[Transform | None]:
    """Fit a model on all stars of the registered frames.

    Parameters
    ----------
    fields, transforms : sequences of the same length
        Stars of every frame; its verified transform to the reference, without a bend.
    reference : int
    asked : {'auto', 'similarity', 'affine', 'homography', 'poly2', 'poly3'}

    Returns
    -------
    list of (Transform or None)
        A frame with too few stars for the model has a simpler one.
    """
    if asked == "similarity":
        return list(transforms)
    flat: dict[int, Matrix] = {k: t.matrix for k, t in enumerate(transforms) if t is not None}
    others = [k for k in flat if k != reference]
    whole = [k for k in others if _share(fields, flat, k, reference) >= WHOLE]
    partners = {k: [reference] if k in whole else _partners(fields, flat, k) for k in others}
    model = asked
    if asked == "auto":
        model = choose_model([_sample(fields, flat, k, near[0]) for k, near in partners.items() if near])
        log.info("transform: %s", model)
        if model == "similarity":
            return list(transforms)
    result = list(transforms)
    maps: dict[int, Map] = dict(flat)
    loose = [k for k in others if k not in whole]
    for group in [[k] for k in whole] + ([loose] if loose else []):
        ties = _anchored(fields, flat, group, {_tie(k, s) for k in group for s in partners[k]})
        models = dict.fromkeys(group, model)
        if asked == "auto" and model == "affine" and group[0] in whole:
            models = {k: model for k in group if _spread(fields, flat, k, reference) >= SPAN}
        for k, placed in _fit_group(fields, maps, models, ties).items():
            maps[k], result[k] = map_of(placed), placed
    return result


def _share(fields: Sequence[Field], maps: Mapping[int, Matrix], k: int, s: int) -> float:
    """Return the fraction of frame k that lies on frame s."""
    there = apply(compose(invert(maps[s]), maps[k]), _grid(fields[k]))
    return float(fields[s].contains(there).mean())


def _grid(field: Field) -> NDArray[np.float64]:
    """Return 17 × 17 points of a frame, those on its border included."""
    x, y = np.meshgrid(np.linspace(0, field.cols - 1, 17), np.linspace(0, field.rows - 1, 17))
    return np.column_stack([x.ravel(), y.ravel()])


def _spread(fields: Sequence[Field], maps: Mapping[int, Matrix], k: int, s: int) -> float:
    """Return the part of a frame's width or height, the smaller, that most stars shared with another span."""
    link = link_up(fields, maps, k, s, final_radius(fields[k], fields[s]))
    if not link.i.size:
        return 0.0
    low, high = np.quantile(link.pairs.here, [0.05, 0.95], axis=0)
    return float(((high - low) / [fields[k].cols, fields[k].rows]).min())


def _partners(fields: Sequence[Field], maps: Mapping[int, Matrix], k: int) -> list[int]:
    """Return the frames that cover most of a frame, best first."""
    centre = {s: apply(m, np.array([[fields[s].cols / 2, fields[s].rows / 2]]))[0] for s, m in maps.items()}
    near = sorted((s for s in maps if s != k), key=lambda s: (math.dist(centre[s], centre[k]), s))
    shares = {s: _share(fields, maps, k, s) for s in near[: 2 * PARTNERS]}
    return sorted((s for s in shares if shares[s] > LEAST), key=lambda s: (-shares[s], s))[:PARTNERS]


def _tie(k: int, s: int) -> tuple[int, int]:
    return min(k, s), max(k, s)


def _anchored(
    fields: Sequence[Field], maps: Mapping[int, Matrix], group: Sequence[int], ties: set[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the ties, with more where frames are tied to each other only: their widest one outwards."""
    held = set(maps) - set(group)
    while held != set(maps):
        grown = held | {k for tie in ties if held & set(tie) for k in tie}
        if grown == held:
            shares = {(k, s): _share(fields, maps, k, s) for k in set(maps) - held for s in held}
            widest = max(sorted(shares), key=lambda tie: shares[tie])
            ties = ties | {_tie(*widest)}
            grown = held | set(widest)
        held = grown
    return sorted(ties)


def _sample(fields: Sequence[Field], maps: Mapping[int, Matrix], k: int, s: int) -> Sample:
    """Return the stars that a frame has in common with another, gathered under the richest model."""
    between = compose(invert(maps[s]), maps[k])
    assert isinstance(between, np.ndarray)
    shape = (fields[k].rows, fields[k].cols)
    links = settle(fields, {k: plain(between, *shape), s: IDENTITY}, {k: "poly3"}, [(k, s)])[1]
    pairs = links[0].pairs
    return Sample(shape, pairs.here, pairs.there, pairs.weight, s, links[0].j)


def _fit_group(
    fields: Sequence[Field], maps: Mapping[int, Map], models: dict[int, str], ties: Sequence[tuple[int, int]]
) -> dict[int, Transform]:
    """Fit frames on the stars of their ties.

    A model that a frame's stars do not bear is replaced by the next simpler one; frames that come to a
    similarity stay where they are.
    """
    alone = len(models) == 1
    start: dict[int, Map] = dict(maps)
    for k in models:
        matrix = maps[k]
        assert isinstance(matrix, np.ndarray)
        start[k] = plain(matrix, fields[k].rows, fields[k].cols)
    before = _agreeing(fields, start, ties)
    while models:
        now, links = settle(fields, start, models, ties)
        after = _agreeing(fields, now, ties)
        simpler = {}
        for k, model in models.items():
            bent = now[k]
            assert isinstance(bent, Bent)
            if (
                stars_of(links, k) < STARS_PER_PARAMETER * WIDTH[model]
                or not bent.sound
                or after[k] < KEEP * before[k]
            ):
                simpler[k] = SIMPLER[model]
            elif not _known(fields[k], model, bent, links, k):
                simpler[k] = _SAFER.get(model, "similarity") if alone else SIMPLER[model]
            elif not _proven(fields, now, links, k):
                simpler[k] = SIMPLER[model]
        if not simpler:
            break
        for k in simpler:
            log.debug("frame %d: its stars do not bear the model %s", k, models[k])
        models = {k: m for k, m in (models | simpler).items() if m != "similarity"}
    result = {}
    for k, model in models.items():
        every = np.concatenate([link.residual for link in links if k in (link.pairs.a, link.pairs.b)])
        bent = now[k]
        assert isinstance(bent, Bent)
        bend = bent.bend if bent.bend[4:].any() else None
        result[k] = Transform(bent.matrix, stars_of(links, k), rms_of(every), bend, model)
    return result


def _known(field: Field, model: str, bent: Bent, links: Sequence[Link], k: int) -> bool:
    """Tell whether a map is certain in all of its frame, also where no star is near.

    The partners are taken as certain, and the residuals for errors if they are larger.
    """
    own = [link for link in links if k in (link.pairs.a, link.pairs.b)]
    stars = np.concatenate([p.here if p.a == k else p.there for p in (link.pairs for link in own)])
    variance = np.concatenate(
        [np.maximum(1.0 / link.pairs.weight, max(rms_of(link.residual) ** 2 / 2, FLOOR**2)) for link in own]
    )
    return bool(uncertainty(model, bent, stars, variance, _grid(field)).max() <= KNOWN)


def _proven(fields: Sequence[Field], maps: Mapping[int, Map], links: Sequence[Link], k: int) -> bool:
    """Tell whether the stars that a frame shares with any of its partners prove its map."""
    return any(
        stars_prove(
            fields[a],
            fields[b],
            compose(invert(maps[b]), maps[a]),
            link.i.size,
            rms_of(link.residual),
        )
        for link in links
        for a, b in [(link.pairs.a, link.pairs.b)]
        if k in (a, b)
    )


def _agreeing(
    fields: Sequence[Field], maps: Mapping[int, Map], ties: Sequence[tuple[int, int]]
) -> dict[int, int]:
    """Return how many stars of each frame lie on stars of the frames that it is tied to."""
    count = dict.fromkeys(maps, 0)
    for a, b in ties:
        found = link_up(fields, maps, a, b, final_radius(fields[a], fields[b])).i.size
        count[a] += found
        count[b] += found
    return count
