"""`ModelSpec`: a GPT composed of components, with a pattern of layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from pydantic import Field, ModelWrapValidatorHandler, ValidationInfo, model_validator

from gptkit.core import walk
from gptkit.core.component import Component, component, optional_component
from gptkit.core.errors import Problem
from gptkit.core.failing import INTENTIONAL, failure
from gptkit.core.registry import Registry
from gptkit.core.resolution import in_context, problems, resolve
from gptkit.core.spec import Spec, validation_error
from gptkit.core.walk import Path
from gptkit.files import merge
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.attention_backend import AttentionBackendSpec
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.head import HeadSpec
from gptkit.kinds.initializer import InitializerSpec
from gptkit.kinds.linear import LinearSpec
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.position import PositionSpec
from gptkit.model.between_layers import problems_between_layers

__all__ = ["LayerSpec", "ModelSpec"]

PARTS = ("position", "attention", "norm", "feedforward", "linear", "block")
"""Components of a layer, which an entry of `layers` may override."""

WHOLE_PARTS = ("embedding", "final_norm", "attention_backend", "head", "initializer")
"""Components outside of layers."""

# Default parts; overrides of layers are merged with these, too.
_DEFAULTS = {
    "position": "rotary",
    "attention": "multi-head",
    "norm": "rms",
    "feedforward": "gated",
    "linear": "dense",
    "block": "pre-norm",
}


class LayerSpec(Spec):
    """One entry of the layer pattern: the components of `repeat` consecutive layers. What it omits is that of the model."""

    repeat: int = Field(1, ge=1, le=10_000, description="Number of consecutive layers that this entry describes.")
    position: PositionSpec = component(_DEFAULTS["position"], description="Relative position of these layers.")
    attention: AttentionSpec = component(_DEFAULTS["attention"], description="Attention of these layers.")
    norm: NormSpec = component(_DEFAULTS["norm"], description="Norms of these layers.")
    feedforward: FeedForwardSpec = component(_DEFAULTS["feedforward"], description="Feed-forward of these layers.")
    linear: LinearSpec = component(_DEFAULTS["linear"], description="Linear projections of these layers.")
    block: BlockSpec = component(_DEFAULTS["block"], description="Arrangement of the parts of these layers.")
    attention_backend: AttentionBackendSpec | None = optional_component(
        description="Implementation of the softmax attention of these layers; the model's attention_backend by default."
    )

    def parts(self, index: int) -> LayerParts:
        """Return the components of the layer `index` for its build context."""
        return LayerParts(
            index, self.position, self.attention, self.norm, self.feedforward, self.linear, self.attention_backend
        )


class ModelSpec(Spec):
    """GPT model. Parts given here apply to every layer; entries of `layers` override them by layer."""

    context_length: int = Field(256, ge=1, description="Maximum sequence length in tokens.")
    d_model: int = Field(256, ge=1, description="Width of the residual stream (the embedding dimension).")
    n_layers: int = Field(6, ge=1, le=10_000, description="Number of blocks; by default the number that `layers` describes.")
    vocab_size: int | None = Field(
        None, ge=1, description="Number of token ids; that of the tokenizer by default, more to pad it to a round size."
    )
    embedding: EmbeddingSpec = component("token", description="Token embedding.")
    position: PositionSpec = component(_DEFAULTS["position"], description="Position encoding.")
    attention: AttentionSpec = component(_DEFAULTS["attention"], description="Attention.")
    norm: NormSpec = component(_DEFAULTS["norm"], description="Norms of the blocks.")
    feedforward: FeedForwardSpec = component(_DEFAULTS["feedforward"], description="Feed-forward.")
    linear: LinearSpec = component(_DEFAULTS["linear"], description="Linear projections of the blocks.")
    block: BlockSpec = component(_DEFAULTS["block"], description="Arrangement of attention, feed-forward and norms.")
    layers: tuple[LayerSpec, ...] | None = Field(
        None,
        description="Pattern of layers, whose entries override the parts above; repeated up to n_layers.",
    )
    final_norm: NormSpec | None = Field(
        None, description="Norm before the head; by default `norm` if the last block's output is not normalized. null: none."
    )
    attention_backend: AttentionBackendSpec = component(
        "auto", description="Implementation of softmax attention; `auto` selects one for each layer."
    )
    head: HeadSpec = component("linear", description="Output head: logits and loss.")
    initializer: InitializerSpec = component("normal", description="Initialization of weights.")

    @model_validator(mode="wrap")
    @classmethod
    def _resolve(cls, value: Any, handler: ModelWrapValidatorHandler[ModelSpec], info: ValidationInfo) -> ModelSpec:
        if isinstance(value, ModelSpec) or not isinstance(value, Mapping):
            return handler(value)
        data = dict(value)
        entries = data.get("layers")
        if isinstance(entries, Sequence) and not isinstance(entries, str):
            data["layers"] = [_layer(data, entry) for entry in entries]
            if "n_layers" not in data:
                data["n_layers"] = max(1, sum(_repeat(entry) for entry in entries))
        registry = (info.context or {}).get("registry")
        spec = handler(data)._resolved(registry, derive_final_norm="final_norm" not in data)
        listed = enumerate(entries if isinstance(entries, Sequence) else ())
        given = {(index, part) for index, entry in listed if isinstance(entry, Mapping) for part in PARTS if part in entry}
        problems = list(spec._problems(registry, given))
        if problems:
            raise validation_error(problems, value)
        return spec

    def context(
        self, vocab_size: int = 0, layer: LayerParts | None = None, registry: Registry | None = None
    ) -> BuildContext:
        """Return the build context of this model's components."""
        return BuildContext(
            d_model=self.d_model,
            context_length=self.context_length,
            n_layers=self.n_layers,
            vocab_size=self.vocab_size or vocab_size,
            position=self.position,
            attention_backend=self.attention_backend,
            layer=layer,
            registry=registry,
        )

    def head_parts(self) -> LayerParts:
        """Parts of the head's layer context: those of the model, with the index after the last layer."""
        return self._uniform().parts(self.n_layers)

    def layer_specs(self) -> list[LayerSpec]:
        """Return the components of each of the n_layers layers: the pattern, repeated and truncated."""
        entries, n = self.layers or (self._uniform(),), self.n_layers
        pattern = [entry for entry in entries for _ in range(min(entry.repeat, n))]
        return [pattern[index % len(pattern)] for index in range(n)]

    def components(self) -> Iterator[Component]:
        """Yield every component in use, including nested ones."""
        seen: set[int] = set()
        for _, used in walk.components(self):
            if id(used) not in seen:  # layers repeat the model's parts
                seen.add(id(used))
                yield used

    def _repr_html_(self) -> str:
        """The architecture and the spec in a notebook."""
        from gptkit.diagrams.notebook import notebook
        from gptkit.diagrams.outline import outline_model

        return notebook(outline_model(self), repr(self))

    def _uniform(self) -> LayerSpec:
        return LayerSpec.model_construct(repeat=self.n_layers, **{part: getattr(self, part) for part in PARTS})

    def _resolved(self, registry: Registry | None, derive_final_norm: bool) -> ModelSpec:
        """Return the spec with all values that depend on other parts.

        Args:
            derive_final_norm: derive `final_norm` from the last block instead of the field.
        """
        entry = self._uniform()
        changes: dict[str, Any] = _resolve_layer(entry, self.context(layer=entry.parts(0), registry=registry), ())
        if self.layers is not None:
            layers = []
            for index, layer in enumerate(self.layers):
                context = self.context(layer=layer.parts(index), registry=registry)
                layers.append(layer.model_copy(update=_resolve_layer(layer, context, ("layers", index))))
            changes["layers"] = tuple(layers)
        spec = self.model_copy(update=changes)
        if derive_final_norm and spec.layer_specs()[-1].block.final_norm:
            spec = spec.model_copy(update={"final_norm": self.norm})
        return spec.model_copy(
            update={
                part: resolve(getattr(spec, part), context, (part,))
                for part, context in spec._whole_parts(registry)
                if getattr(spec, part) is not None
            }
        )

    def _whole_parts(self, registry: Registry | None) -> list[tuple[str, BuildContext]]:
        """Return the parts outside of layers, each with its build context."""
        context = self.context(registry=registry)
        head = self.context(layer=self.head_parts(), registry=registry)
        return [(part, head if part == "head" else context) for part in WHOLE_PARTS]

    def _problems(self, registry: Registry | None, given: Set[tuple[int, str]] = frozenset()) -> Iterator[Problem]:
        """Yield errors in combinations of components, each reported once, at the field to change.

        Args:
            registry: where components are looked up.
            given: the parts that entries of `layers` set themselves, with the number of the entry.
        """
        uniform = self._uniform()
        entries = list(enumerate(self.layers)) if self.layers is not None else [(0, uniform)]
        if self.layers is not None and any(isinstance(part, BlockSpec) for _, part in walk.components(self.head)):
            entries.append((self.n_layers, uniform))  # the head's blocks, whose parts all layers may override
        seen: set[Problem] = set()
        for index, layer in entries:
            of_head = self.layers is not None and layer is uniform
            context = self.context(layer=layer.parts(index), registry=registry)
            for part in (*PARTS, "attention_backend"):
                spec = getattr(layer, part)
                if spec is None:  # the model's backend
                    continue
                inherited = part in PARTS and (index, part) not in given and spec == getattr(self, part)
                place = (part,) if inherited else ("layers", index, part)
                reported = [*problems(spec, context), *_nested_attention_problems(spec, context)]
                if part == "position":
                    reported += _position_problems(layer, self, index)
                if part == "attention":
                    of_backend = _backend_problem(layer, context)
                    if of_backend is not None:
                        own = layer.attention_backend is not None
                        of_backend = of_backend.below(*(("layers", index) if own else ()), "attention_backend")
                    if of_backend is not None and of_backend not in seen:
                        seen.add(of_backend)
                        yield of_backend
                for problem in reported:
                    located = problem.below(*place)
                    if located not in seen:
                        seen.add(located)
                        yield located if not of_head else _of_head(located, self.head)
        for part, context in self._whole_parts(registry):
            spec = getattr(self, part)
            if spec is not None:
                for problem in [*problems(spec, context), *_nested_attention_problems(spec, context)]:
                    yield problem.below(part)
        yield from problems_between_layers(self, registry, given)
        yield from _length_problems(self.position, self.context_length, self.context(registry=registry))


def _of_head(problem: Problem, head: HeadSpec) -> Problem:
    """Return the problem of a part that only the head's blocks use."""
    note = f" (blocks of head {head.name!r} consist of the model's parts, which the layers override)"
    return replace(problem, message=problem.message + note)


def _length_problems(position: PositionSpec, context_length: int, context: BuildContext) -> Iterator[Problem]:
    try:
        limit = position.max_positions(context)
        short = limit is not None and limit < context_length
    except INTENTIONAL:
        raise
    except Exception as error:
        yield Problem(("position",), failure(position, "max_positions", error, context.registry))
        return
    if short:
        yield Problem(
            ("position",),
            f"position {position.name!r} has {limit} positions (its max_positions), "
            f"fewer than the context length {context_length}; increase them, or lower context_length to {limit}",
        )


def _position_problems(layer: LayerSpec, model: ModelSpec, index: int) -> Iterator[Problem]:
    position = layer.position
    refusal = _refusal(position, layer.attention)
    numbers = [str(number) for number, each in enumerate(model.layer_specs()) if each is layer] if model.layers else []
    if refusal is not None and numbers and len(model.layers or ()) > 1:
        which = ", ".join(numbers[:4]) + (", …" if len(numbers) > 4 else "")
        refusal = refusal.partition("; ")[0] + f" (layer{'s' if len(numbers) > 1 else ''} {which})"
        refusal += f"; set position: none in layers.{index}, or choose another position or attention"
    if refusal is not None:
        yield Problem((), refusal)
    if "embed" in position.uses and position != model.position:
        yield Problem(
            (),
            f"position {position.name!r} is absolute: it is added to the embeddings, so it cannot be set for a layer; "
            "set model.position",
        )


def _backend_problem(layer: LayerSpec, context: BuildContext) -> Problem | None:
    """Return the limitation of the selected attention backend for a layer."""
    backend = context.backend
    assert backend is not None
    try:
        features = layer.attention.score_features(context)
        chosen = None if features is None else backend.choice(features)[0]
        limitation = None if features is None or chosen is None else chosen.limitation(features)
    except INTENTIONAL:
        raise
    except Exception as error:
        return Problem((), failure(layer.attention, "score_features", error, context.registry))
    if chosen is None or limitation is None:
        return None
    return Problem(
        (),
        f"attention backend {chosen.name!r} cannot compute {limitation}, which attention {layer.attention.name!r} with "
        f"position {layer.position.name!r} has; set attention_backend: auto, or choose another attention or position",
    )


def _nested_attention_problems(spec: Component, context: BuildContext) -> Iterator[Problem]:
    """Yield problems of attentions inside a component that do not accept the position of their context."""
    for path, inner, inner_context in in_context(spec, context):
        if path and isinstance(inner, AttentionSpec) and inner_context.layer is not None:
            refusal = _refusal(inner_context.layer.position, inner)
            if refusal is not None:
                yield Problem(path, refusal)


def _refusal(position: PositionSpec, attention: AttentionSpec) -> str | None:
    missing = sorted(position.uses - {"embed"} - attention.accepts)
    if not missing:
        return None
    effects = {
        "rotate": "rotates queries and keys",
        "bias": "adds a bias to the scores",
        "rotated_width": "changes the width of queries and keys",
        "content_bias": "adds a term to the scores that depends on the queries",
        "value_bias": "adds a term to the values",
    }
    return (
        f"position {position.name!r} {' and '.join(effects.get(hook, hook) for hook in missing)}, which attention "
        f"{attention.name!r} does not accept; choose another position (all support none) or another attention"
    )


def _resolve_layer(layer: LayerSpec, context: BuildContext, place: Path) -> dict[str, Any]:
    backend = layer.attention_backend
    own = {} if backend is None else {"attention_backend": resolve(backend, context, (*place, "attention_backend"))}
    return {**{part: resolve(getattr(layer, part), context, (*place, part)) for part in PARTS}, **own}


def _layer(model: Mapping[str, Any], entry: Any) -> Any:
    """Return an entry of `layers` merged with the model's parts."""
    if not isinstance(entry, Mapping):
        return entry
    layer = dict(entry)
    for part in PARTS:
        base = model.get(part, _DEFAULTS[part])
        if not isinstance(layer.get(part), Component):  # a component given as an object replaces the model's
            layer[part] = merge(base, layer[part]) if part in layer else base
    return layer


def _repeat(entry: Any) -> int:
    repeat = entry.get("repeat", 1) if isinstance(entry, Mapping) else 1
    return repeat if isinstance(repeat, int) else 1
