"""Content of an architecture diagram: the parts of a resolved spec in their order, with texts, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gptkit.core.component import Component
from gptkit.diagrams.facts import PHRASES, facts, number, parameters, title
from gptkit.diagrams.folding import described
from gptkit.diagrams.labels import labels
from gptkit.kinds.block import Step

if TYPE_CHECKING:
    from gptkit.kinds.sampler import SamplerSpec
    from gptkit.kinds.tokenizer import TokenizerSpec
    from gptkit.model.spec import LayerSpec, ModelSpec

__all__ = ["Box", "Counts", "LayerCounts", "LayerType", "Outline", "outline", "outline_model"]

_PARTS = ("position", "attention", "norm", "feedforward", "linear", "block")


@dataclass(frozen=True)
class LayerCounts:
    """Numbers of parameters of one layer: its attention, its feed-forward, one of its norms, and all of it."""

    attention: int
    feedforward: int
    norm: int
    whole: int


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters of a model's parts; each parameter is counted once, where its owner is."""

    embedding: int
    position: int
    layers: tuple[LayerCounts, ...]
    final_norm: int
    head: int
    shared: int
    total: int


@dataclass(frozen=True)
class Box:
    """A component: its role, which decides its color, its name, phrases about it, shapes inside, number of parameters."""

    role: str
    title: str
    facts: tuple[str, ...] = ()
    shapes: str = ""
    count: int | None = None


@dataclass(frozen=True)
class LayerType:
    """Layers with equal components.

    Attributes:
        label: what distinguishes it from the other types; empty if there is only one.
        title: name of the block.
        note: further phrases about the layer.
        times: number of layers.
        steps: the wiring of the block; None if it is not declared.
        factors: the factors of each step's branches and of its shortcut, as text; empty for 1.
        boxes: its parts by role: ``norm``, ``attention``, ``feedforward``.
        count: number of parameters of one layer.
    """

    label: str
    title: str
    note: str
    times: int
    steps: tuple[Step, ...] | None
    factors: tuple[tuple[str, str], ...]
    boxes: dict[str, Box]
    count: int | None = None


@dataclass(frozen=True)
class Outline:
    """A diagram's content.

    Attributes:
        title: name of the experiment.
        summary: sizes of the model, in a line.
        before: the boxes before the layers, and `position` the absolute position, which is added to the embedding.
        types: the types of layers; `sequence` has the type of each layer, `pattern` describes it.
        after: the boxes after the layers.
        shape: shape of the residual stream; `ids` that of the token ids; `logits` that of the logits.
    """

    title: str
    summary: str
    before: tuple[Box, ...]
    position: Box | None
    types: tuple[LayerType, ...]
    sequence: tuple[int, ...]
    pattern: str
    after: tuple[Box, ...]
    shape: str
    logits: str
    ids: str = "(B, T)"

    def text(self) -> str:
        """Return the content as sentences, for readers who do not see the diagram."""
        boxes = [*self.before, *([self.position] if self.position else [])]
        lines = [_sentence(box) for box in boxes]
        for kind in self.types:
            name = f"{kind.label} {kind.title}".strip()
            lines.append(f"{number(kind.times)} × {name}: " + "; ".join(_sentence(box) for box in kind.boxes.values()))
        lines += [f"Layers: {self.pattern}"] if self.pattern else []
        return ". ".join([self.summary, *lines, *(_sentence(box) for box in self.after)]) + "."


def outline(
    model: ModelSpec,
    *,
    name: str = "",
    tokenizer: TokenizerSpec | None = None,
    sampler: Sequence[SamplerSpec] | None = None,
    vocab_size: int | None = None,
    counts: Counts | None = None,
) -> Outline:
    """Return the content of a diagram.

    Args:
        model: a resolved model spec.
        name: the title.
        tokenizer: the tokenizer, if the diagram begins with one.
        sampler: the chain of samplers, if the diagram ends with one.
        vocab_size: number of token ids if the model does not set it; ``V`` is shown if it is not known.
        counts: the numbers of parameters; none are shown without them.
    """
    width = model.d_model
    size = model.vocab_size or vocab_size or (None if tokenizer is None else tokenizer.expected_vocab_size)
    vocabulary = number(size) if size else "V"
    before = [] if tokenizer is None else [_tokenizer(tokenizer, None if model.vocab_size else size)]
    embedding = _box("embedding", model.embedding, width, None if counts is None else counts.embedding)
    before.append(replace(embedding, shapes=f"{vocabulary} × {number(getattr(model.embedding, 'd_embedding', width))}"))
    absolute = "embed" in model.position.uses
    types, sequence = _types(model, counts)
    after = []
    if model.final_norm is not None:
        after.append(_box("norm", model.final_norm, 0, None if counts is None else counts.final_norm))
        after[0] = replace(after[0], title=f"final {after[0].title}")
    after.append(_box("head", model.head, width, None if counts is None else counts.head))
    if sampler is not None:
        chain = tuple(" ".join([link.name, *_of_link(link)]) for link in sampler)
        after.append(Box("sampler", "sampler", chain or ("from the model's distribution",)))
    sizes = [] if counts is None else [f"{parameters(counts.total)} parameters"]
    sizes += [f"{parameters(counts.shared)} of them shared by layers"] if counts is not None and counts.shared else []
    layers = "layer" if model.n_layers == 1 else "layers"
    sizes += [f"{number(model.n_layers)} {layers}", f"width {number(width)}", f"context {number(model.context_length)}"]
    return Outline(
        title=name,
        summary=" · ".join(sizes),
        before=tuple(before),
        position=_box("position", model.position, width, None if counts is None else counts.position) if absolute else None,
        types=types,
        sequence=sequence,
        pattern=described(sequence, [kind.label for kind in types]) if len(types) > 1 else "",
        after=tuple(after),
        shape=f"(B, T, {number(width)})",
        logits=f"(B, T, {vocabulary})",
    )


def outline_model(model: ModelSpec, counts: Counts | None = None) -> Outline:
    """Return the content of the diagram of a model alone."""
    return outline(model, name="model", counts=counts)


def _tokenizer(tokenizer: TokenizerSpec, size: int | None) -> Box:
    box = _box("tokenizer", tokenizer, 0)
    return box if size is None else replace(box, facts=(f"{number(size)} token ids", *box.facts))


def _of_link(link: SamplerSpec) -> list[str]:
    """Return the values of a sampler's numeric fields."""
    values = [getattr(link, name) for name in type(link).model_fields if name != "name"]
    return [number(value) for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)][:1]


def _box(role: str, component: Component, width: int, count: int | None = None) -> Box:
    return Box(role, title(component), tuple(facts(component, width)), count=count)


def _types(model: ModelSpec, counts: Counts | None) -> tuple[tuple[LayerType, ...], tuple[int, ...]]:
    layers: list[LayerSpec] = []
    sequence = []
    first = []
    for index, layer in enumerate(model.layer_specs()):
        for number_, known in enumerate(layers):
            if all(getattr(known, part) == getattr(layer, part) for part in _PARTS):
                sequence.append(number_)
                break
        else:
            sequence.append(len(layers))
            layers.append(layer)
            first.append(index)
    names = labels(layers)
    types = [
        _type(layer, names[at], sequence.count(at), model.d_model, None if counts is None else counts.layers[first[at]])
        for at, layer in enumerate(layers)
    ]
    return tuple(types), tuple(sequence)


def _type(layer: LayerSpec, label: str, times: int, width: int, count: LayerCounts | None) -> LayerType:
    block = layer.block
    declared = block.steps()
    steps = None if declared is None else tuple(step for step, _ in declared)
    notes = []
    if steps is None or _own_parts(steps) or block.wiring != steps:
        notes += facts(block)
    elif getattr(block, "dropout", 0):
        notes.append(f"dropout {number(block.dropout)}")  # type: ignore[attr-defined]
    if layer.linear.name != "dense":
        inner = ", ".join(facts(layer.linear))
        notes.append(f"linear: {layer.linear.name}{f' ({inner})' if inner else ''}")
    phrases = _unrotated(layer, facts(layer.attention))
    attention = Box("attention", title(layer.attention), (*phrases, *_relative(layer)), _heads(layer.attention))
    hidden = getattr(layer.feedforward, "d_hidden", None)
    shapes = f"{number(width)} → {number(hidden)} → {number(width)}" if isinstance(hidden, int) else ""
    phrases = [phrase for phrase in facts(layer.feedforward) if not (shapes and phrase.startswith("hidden width"))]
    feedforward = Box("feedforward", title(layer.feedforward), tuple(phrases), shapes)
    norm = Box("norm", title(layer.norm), tuple(facts(layer.norm)))
    if count is not None:
        attention, feedforward = replace(attention, count=count.attention), replace(feedforward, count=count.feedforward)
        norm = replace(norm, count=count.norm)
    factors = tuple((_factor(by, step.factor), _factor(by, step.shortcut_factor)) for step, by in declared or ())
    return LayerType(
        label=label,
        title=title(block),
        note=" · ".join(notes),
        times=times,
        steps=steps,
        factors=factors,
        boxes={box.role: box for box in (norm, attention, feedforward)},
        count=None if count is None else count.whole,
    )


def _unrotated(layer: LayerSpec, phrases: Sequence[str]) -> list[str]:
    """Return the phrases of an attention, with other words for the features that the layer's position does not rotate."""
    size = getattr(layer.attention, "d_rotary", None)
    if not isinstance(size, int) or "rotate" in layer.position.uses:
        return list(phrases)
    rotated = PHRASES["d_rotary"].format(number(size))
    return [f"{number(size)} features of a shared key" if phrase == rotated else phrase for phrase in phrases]


def _relative(layer: LayerSpec) -> list[str]:
    """Return a phrase about the layer's relative position."""
    uses = layer.position.uses - {"embed"}
    if not uses:
        return ["no position"] if layer.position.name == "none" and layer.attention.accepts else []
    inner = ", ".join(facts(layer.position))
    return [f"position: {layer.position.name}{f' ({inner})' if inner else ''}"]


def _own_parts(steps: Sequence[Step]) -> bool:
    """Return whether a block has parts of its own, so that its fields describe what is drawn."""
    known = {"norm", "attention", "feedforward"}
    return any(part not in known for step in steps for branch in (step.before, *step.branches) for part in branch)


def _heads(attention: Component) -> str:
    n_heads, d_head = getattr(attention, "n_heads", None), getattr(attention, "d_head", None)
    if n_heads is None or d_head is None:
        return ""
    d_state = getattr(attention, "d_state", None)
    if d_state is not None:  # keys write to the state, and queries read it
        n_groups = getattr(attention, "n_groups", n_heads)
        return _tensors({"q": (n_groups, d_state), "k": (n_groups, d_state), "v": (n_heads, d_head)})
    n_kv_heads = getattr(attention, "n_kv_heads", n_heads)
    d_value = getattr(attention, "d_value", None) or d_head
    return _tensors({"q": (n_heads, d_head), "k": (n_kv_heads, d_head), "v": (n_kv_heads, d_value)})


def _tensors(shapes: Mapping[str, tuple[int, int]]) -> str:
    """Return tensors (B, heads, T, features) by name, those of one shape together."""
    names: dict[tuple[int, int], list[str]] = {}
    for name, shape in shapes.items():
        names.setdefault(shape, []).append(name)
    return " · ".join(f"{', '.join(same)}: (B, {heads}, T, {size})" for (heads, size), same in names.items())


def _factor(block: Component, field: str) -> str:
    value = getattr(block, field, 1) if field else 1
    return "" if value in (1, None) else f"× {number(value)}"


def _sentence(box: Box) -> str:
    return ", ".join([box.title, *box.facts])
