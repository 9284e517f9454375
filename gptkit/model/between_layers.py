"""Errors of layers that depend on earlier ones: what they read exists, and is computed once in a forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gptkit.core import walk
from gptkit.core.errors import Problem
from gptkit.core.failing import INTENTIONAL, failure, reported
from gptkit.core.registry import Registry
from gptkit.core.resolution import in_context
from gptkit.core.walk import Path
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import LayerParts

if TYPE_CHECKING:
    from gptkit.model.spec import LayerSpec, ModelSpec

__all__ = ["problems_between_layers"]


@dataclass(frozen=True)
class _Use:
    """An attention of a layer, nested ones included.

    Attributes:
        parts: the layer's parts with this attention, and with its number in the order of the model as the index.
        layer: index of the layer; n_layers for the blocks of the head.
        place: path of the attention in the spec.
        repeating: name of the layer's block that computes its attention several times; None if it computes it once.
    """

    parts: LayerParts
    layer: int
    place: Path
    repeating: str | None


def problems_between_layers(
    model: ModelSpec, registry: Registry | None, given: Set[tuple[int, str]] = frozenset()
) -> Iterator[Problem]:
    """Yield the errors of attentions that read what earlier layers compute, each at the field of the one that reads.

    Args:
        model: the resolved spec.
        registry: where components are looked up.
        given: the parts that entries of `layers` set themselves, with the number of the entry.
    """
    uses = _uses(model, registry, given)
    layers = [use.parts for use in uses]
    repeated = any(use.repeating is not None for use in uses)
    seen: set[Path] = set()
    for use in uses:
        attention, method = use.parts.attention, "layer_problems"
        try:
            own_problems = reported(attention.layer_problems(use.parts.index, layers))
            method = "kv_source"
            if repeated:
                own_problems += _repeated(use, uses, attention.kv_source(use.parts.index, layers))
        except INTENTIONAL:
            raise
        except Exception as error:
            own_problems = [Problem((), failure(attention, method, error, registry))]
        for problem in own_problems:
            located = problem.below(*use.place)
            if located.path not in seen:  # layers of one entry share the field
                seen.add(located.path)
                yield located


def _repeated(use: _Use, uses: Sequence[_Use], source: int | None) -> Iterator[Problem]:
    """Yield the error of an attention whose source is computed several times in a forward pass, and publishes it once."""
    if source is None or uses[source].repeating is None:
        return
    read = uses[source]
    field = use.parts.attention.kv_source_field
    path = () if field is None else (field,)
    remedy = "choose another block there" if field is None else f"remove {field}, or choose another block there"
    whose = "its own layer" if read.layer == use.layer else f"layer {read.layer}"
    yield Problem(
        path, f"reads the keys and values of {whose}, whose block {read.repeating!r} computes them several times; {remedy}"
    )


def _uses(model: ModelSpec, registry: Registry | None, given: Set[tuple[int, str]]) -> list[_Use]:
    """Return the attentions of the model in their order; those of a block that repeats its attention twice."""
    uses: list[_Use] = []
    blocks_of_head = [part for _, part in walk.components(model.head) if isinstance(part, BlockSpec)]
    for index, entry, layer in _layers(model):
        inherited = (entry, "attention") not in given and layer.attention == model.attention
        place: Path = ("attention",) if inherited else ("layers", entry, "attention")
        _add(uses, model, layer, layer.parts(index), [layer.block], place, registry)
    if blocks_of_head:
        _add(uses, model, model, model.head_parts(), blocks_of_head, ("attention",), registry)
    return uses


def _layers(model: ModelSpec) -> Iterator[tuple[int, int, LayerSpec]]:
    """Yield index, entry and parts of the layers of two periods of the pattern, and of at most two equal ones in a row.

    The other layers read what one of these reads.
    """
    entries = model.layers or ()
    numbers = [number for number, entry in enumerate(entries) for _ in range(min(entry.repeat, model.n_layers))] or [0]
    run = 0
    for index, layer in enumerate(model.layer_specs()[: max(2, 2 * len(numbers))]):
        number = numbers[index % len(numbers)]
        run = run + 1 if index and numbers[(index - 1) % len(numbers)] == number else 0
        if run < 2:
            yield index, number, layer


def _add(
    uses: list[_Use],
    model: ModelSpec,
    layer: LayerSpec | ModelSpec,
    parts: LayerParts,
    blocks: Sequence[BlockSpec],
    place: Path,
    registry: Registry | None,
) -> None:
    nested = [part for block in blocks for _, part in walk.components(block) if isinstance(part, BlockSpec)]
    repeating = next((block.name for block in nested if block.repeats_attention), None)
    for _ in range(1 if repeating is None else 2):
        for path, inner, context in in_context(layer.attention, model.context(layer=parts, registry=registry)):
            if isinstance(inner, AttentionSpec) and context.layer is not None:
                own = dataclasses.replace(context.layer, attention=inner, index=len(uses))
                uses.append(_Use(own, parts.index, (*place, *path), repeating))
