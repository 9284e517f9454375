"""Positions: what each hook does to a score, over the distance of two tokens.

Shapes: B batch, H heads, T queries, S keys, D head size, E model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure, Panel
from gptkit.docs.figures.heat import Heat
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import first
from gptkit.kinds.position import HeadShape
from gptkit.nn.position import Position
from gptkit.testing.subject import D_HEAD, Subject, stirred

__all__ = ["draw"]

FAR = 48
HEADS = HeadShape(n_heads=4, n_kv_heads=4, d_head=D_HEAD)


@torch.no_grad()
def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return a panel for each hook that the position uses."""
    subject = first(cls, registry)
    uses = subject.resolved.uses
    panels: list[Panel] = []
    if "embed" in uses:
        panels += _embedding(subject)
    if uses - {"embed"}:
        position = cast("Position", _stirred(subject, subject.fresh(heads=HEADS)).eval())
        if "rotate" in uses and subject.resolved.depends_on_position:
            panels.append(_growth(position))
        panels += _relative(position, uses)
    if not panels:
        points = [(float(distance), 0.0) for distance in range(FAR + 1)]
        described = "The term is 0 at every distance: nothing is added."
        plot = Plot("term added to the score", "distance in tokens", "term", [Series(points)], described, y_range=(-1, 1))
        return Figure([plot], "The position has no hook: two tokens have the same score at every distance.")
    return Figure(panels, _caption(subject))


def _stirred(subject: Subject, module: Any) -> Any:
    """Return a module whose parameters are random, as they would be after some training; their initial values may be 0."""
    return stirred(module) if any(True for _ in module.parameters()) else module


def _caption(subject: Subject) -> str:
    uses = sorted(subject.resolved.uses)
    drawn = f"Hooks: {', '.join(uses)}. Computed by the module for {FAR} distances"
    built = subject.resolved.build_embedding(subject.context) if "embed" in uses else subject.fresh(heads=HEADS)
    trained = any(True for _ in built.parameters())
    return drawn + (", with random values for what a training learns." if trained else ".")


def _embedding(subject: Subject) -> Iterator[Panel]:
    module = subject.started(cast("Position", subject.resolved.build_embedding(subject.context)))
    limit = subject.resolved.max_positions(subject.context) or FAR
    n_tokens, width = min(limit, FAR), subject.context.d_model
    added_TE = cast("Position", module.eval()).embed(torch.zeros(1, n_tokens, width), torch.arange(n_tokens))[0]
    described = f"{n_tokens} vectors of {width} features; the largest magnitude is {added_TE.abs().max():.2f}."
    yield Heat("vector added at each position", "position", "feature", added_TE.T.tolist(), described, square=False)
    middle = n_tokens // 2
    unit_TE = torch.nn.functional.normalize(added_TE, dim=-1)
    similarity = (unit_TE @ unit_TE[middle]).tolist()
    points = [(float(index - middle), value) for index, value in enumerate(similarity)]
    described = f"The cosine is {similarity[middle + 1]:.2f} at distance 1."
    yield Plot("similarity of two positions", "distance in tokens", "cosine", [Series(points)], described)


def _relative(position: Position, uses: frozenset[str]) -> Iterator[Panel]:
    places = torch.arange(FAR + 1)
    if "rotate" in uses:
        yield from _rotation(position, places)
    generator = torch.Generator().manual_seed(0)
    q_BHTD, k_BHSD = torch.randn(2, 1, HEADS.n_heads, 1, D_HEAD, generator=generator)
    if "bias" in uses:
        bias_BHTS = position.bias(places[-1:], places)
        assert bias_BHTS is not None
        yield _by_distance("bias added to the score", bias_BHTS[0, :, 0])
    if "content_bias" in uses:
        keys = k_BHSD.expand(-1, -1, FAR + 1, -1)
        content_BHTS = position.content_bias(q_BHTD.expand(-1, -1, FAR + 1, -1), keys, places, places)
        assert content_BHTS is not None
        yield _by_distance("content term of one query, equal keys", content_BHTS[0, :, -1])
    if "value_bias" in uses:
        weights_BHTS = torch.eye(FAR + 1)[None, None].expand(1, HEADS.n_heads, -1, -1)
        value_BHTD = position.value_bias(weights_BHTS, places[-1:].expand(FAR + 1), places)
        assert value_BHTD is not None
        rows = value_BHTD[0, 0].flip(0).T.tolist()
        described = "One column per distance: the vector that is added to the value of a token at that distance."
        yield Heat("vector added to a value", "distance in tokens", "feature", rows, described, square=False)


def _growth(position: Position) -> Plot:
    """The size of a rotated query at each position, for positions that change it."""
    places = torch.arange(0, 65_536, 1024)
    q_BHTD = torch.ones(1, HEADS.n_heads, len(places), D_HEAD) / D_HEAD**0.5
    rotated, _ = position.rotate(q_BHTD, q_BHTD, position.prepare(places))
    sizes = rotated[0, 0].norm(dim=-1).tolist()
    points = [(float(place), size) for place, size in zip(places.tolist(), sizes, strict=True)]
    described = f"The factor is {sizes[0]:.2f} at position 0 and {sizes[-1]:.2f} at position {places[-1]:,}."
    return Plot("factor of a query", "position", "factor", [Series(points)], described)


def _by_distance(title: str, term_HS: Tensor) -> Plot:
    """Return a line per head; the last key is the query itself."""
    series = [
        Series([(float(FAR - key), value) for key, value in reversed(list(enumerate(row)))], f"head {head + 1}", head + 1)
        for head, row in enumerate(term_HS.tolist())
    ]
    described = f"At the largest distance, the heads add {', '.join(f'{row[0]:.2f}' for row in term_HS.tolist())}."
    return Plot(title, "distance in tokens", "term", series, described)


def _rotation(position: Position, places: Tensor) -> Iterator[Panel]:
    """The score of a rotated query and equal keys at each distance, as a sum over features."""
    q_BHTD = torch.eye(D_HEAD)[None, :, None].expand(1, D_HEAD, FAR + 1, D_HEAD)
    prepared = position.prepare(places)
    q_turned, k_turned = position.rotate(q_BHTD, q_BHTD, prepared)
    terms_DS = (q_turned[0, :, -1:] * k_turned[0]).sum(-1).flip(-1)
    ones = torch.ones(1, HEADS.n_heads, FAR + 1, D_HEAD) / D_HEAD**0.5
    q_same, k_same = position.rotate(ones, ones, prepared)
    score_S = (q_same[0, 0, -1:] * k_same[0, 0]).sum(-1).flip(-1).tolist()
    described = f"The score is {score_S[0]:.2f} at distance 0, and {score_S[-1]:.2f} at distance {FAR}."
    points = [(float(distance), value) for distance, value in enumerate(score_S)]
    yield Plot("score of equal queries and keys", "distance in tokens", "score", [Series(points)], described)
    described = "A row per feature of a head: fast pairs change sign within a few tokens, slow ones hardly change."
    yield Heat("the same for each feature", "distance in tokens", "feature", terms_DS.tolist(), described, square=False)
