"""Parameters, operations and cache of a component, measured in a model of one layer on the meta device.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast, get_origin

import torch
from pydantic import ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.core.spec import Spec
from gptkit.docs.sizes.polynomial import Point
from gptkit.model.gpt import GPT
from gptkit.model.tree import count
from gptkit.nn.attention.base import Attention
from gptkit.nn.block import Block
from gptkit.nn.cache.state import Stateful
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.router import Router
from gptkit.testing import ContractError, instances
from gptkit.testing.subject import Subject

__all__ = ["KINDS", "Measured", "Meter"]

KINDS = ("attention", "block", "embedding", "feedforward", "head", "linear", "norm", "position", "router")
"""Kinds whose components are measured."""

CACHE = torch.bfloat16
_D_MODEL, _VOCAB, _LENGTH = 512, 96, 64
_HEADS = {"name": "multi-head", "n_heads": 2, "d_head": 16}
_TYPES: Mapping[str, type[nn.Module]] = {
    "attention": Attention,
    "block": Block,
    "feedforward": FeedForward,
    "router": Router,
}
_INNER: Mapping[str, tuple[type[nn.Module], ...]] = {"block": (Attention, FeedForward), "head": (Block,)}
"""Parts that belong to other components, and are not counted."""


@dataclass(frozen=True)
class Measured:
    """Sizes of one component.

    Attributes:
        parameters: number of parameters.
        flops: floating-point operations of the products of a forward pass over T tokens, as `gptkit show` counts them.
        cache: bytes of its states for T tokens in bf16.
    """

    parameters: int
    flops: int
    cache: int

    def __sub__(self, other: Measured) -> Measured:
        return Measured(self.parameters - other.parameters, self.flops - other.flops, self.cache - other.cache)


class Meter:
    """A component in its first checked configuration, measured with any values of its integer fields and of the model's.

    Symbols of a point are the integer fields with their paths (``d_hidden``, ``expert.d_hidden``), and where the kind
    depends on them ``d_model``, ``vocab_size``, ``d_in``, ``d_out``, and T, the number of tokens, which is also the context
    length.

    Args:
        cls: the component.
        registry: where it and the components around it are looked up.
        derived: whether fields that are null by default, whose values derive from others, are symbols too.

    Raises:
        GptkitError: no configuration is valid.
    """

    def __init__(self, cls: type[Component], registry: Registry, *, derived: bool = True) -> None:
        specs = instances(cls, registry)
        if not specs:
            raise GptkitError("it has required fields and no `examples`")
        self._subject = Subject(specs[0], registry)
        self._kind = cls.kind
        self._derived = derived
        self._known: dict[tuple[tuple[str, int], ...], Measured | None] = {}

    @cached_property
    def base(self) -> dict[str, int]:
        """The smallest point: sizes of a small model, and the fields as they are resolved for it."""
        if self._kind == "linear":
            return {"d_in": 64, "d_out": 48, **_integers(self._subject.resolved if self._derived else self._subject.spec)}
        outside = {"d_model": _D_MODEL}
        if self._kind in ("embedding", "head"):
            outside["vocab_size"] = _VOCAB
        if self._kind == "router":
            outside["n_experts"] = 8
        if self._kind == "position":
            outside |= {"n_heads": 2, "d_head": 16}
        return {**outside, **self.fields(_D_MODEL, _LENGTH), "T": _LENGTH}

    def fields(self, d_model: int, length: int) -> dict[str, int]:
        """Return the integer fields, by path, as they are resolved for a model of this width and context length."""
        return _integers(self._resolved(d_model, length))

    def measure(self, point: Point) -> Measured | None:
        """Return the sizes at a point; None if the component cannot be built with these."""
        key = tuple(sorted(point.items()))
        if key not in self._known:
            try:
                self._known[key] = self._measured(point)
            except (GptkitError, ContractError, ValidationError, ValueError, RuntimeError):
                self._known[key] = None
        return self._known[key]

    def _resolved(self, d_model: int, length: int) -> Component:
        if not self._derived:
            return cast("Component", self._subject.spec)
        sizes = {"d_model": d_model, "T": length}
        if self._kind == "router":
            spec: Any = self._model_spec({**sizes, "n_experts": 8}, self._subject.spec)
            return cast("Component", spec.feedforward.router)
        spec = self._model_spec(sizes, self._subject.spec)
        return cast("Component", getattr(spec.layer_specs()[0], self._kind, None) or getattr(spec, self._kind))

    def _model_spec(self, point: Point, spec: Any) -> Any:
        return self._subject.read(self._layout(point, spec))

    def _layout(self, point: Point, spec: Any) -> dict[str, Any]:
        sizes = {"d_model": point["d_model"], "n_layers": 1, "context_length": point["T"], "attention": _HEADS}
        companion = "none" if self._kind in ("attention", "embedding") else "rotary"
        layout = {**self._subject.layout(companion), **sizes}
        if self._kind == "router":
            experts = {"name": "experts", "n_experts": point["n_experts"], "expert": {"name": "mlp", "d_hidden": 8}}
            return {**layout, "feedforward": {**experts, "router": spec}}
        if self._kind == "position":
            accepting = self._subject.layout()["attention"]
            heads = {"n_heads": point.get("n_heads", 2), "d_head": point.get("d_head", 16)}
            layout["attention"] = {**accepting, **heads} if "n_heads" in accepting else accepting
        return {**layout, self._kind: spec}

    def _spec(self, point: Point) -> Any:
        """Return the component's fields with the values of a point, as plain data."""
        if self._kind == "linear":
            resolved = self._subject.resolved if self._derived else self._subject.spec
        else:
            resolved = self._resolved(point["d_model"], point["T"])
        fields: dict[str, Any] = resolved.model_dump()
        for path in _integers(resolved):
            *outer, last = path.split(".")
            place = fields
            for key in outer:
                place = place[key]
            place[last] = point[path]
        return fields

    def _measured(self, point: Point) -> Measured:
        if self._kind == "linear":
            return self._linear(point)
        layout = self._layout(point, self._spec(point))
        whole = self._of_model(layout, point)
        if self._kind != "position":
            return whole
        return whole - self._of_model({**layout, "position": "none"}, point)

    def _of_model(self, layout: Mapping[str, Any], point: Point) -> Measured:
        model = GPT(self._subject.read(layout), point.get("vocab_size", _VOCAB), seed=None, device="meta").eval()
        modules = self._parts(model)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            flops = [_Counted(module, counter) for module in modules]
            inner = [_Counted(each, counter) for module in modules for each in self._excluded(module)]
            model(torch.zeros(1, point["T"], dtype=torch.long, device="meta"))
        parameters = count(nn.ModuleList(modules)) - sum(
            count(each) for module in modules for each in self._excluded(module)
        )
        if self._kind == "head":
            parameters -= sum(p.numel() for p in set(modules[0].parameters()) & set(model.embedding.parameters()))
        return Measured(
            parameters,
            sum(each.flops for each in flops) - sum(each.flops for each in inner),
            _cache(model, modules, self._excluded),
        )

    def _parts(self, model: GPT) -> list[nn.Module]:
        """Return the modules of the component in a model."""
        match self._kind:
            case "position":
                return [model]
            case "embedding":
                return [model.embedding]
            case "head":
                return [model.head]
            case "norm":
                return [model.final_norm]
        module = next((each for each in model.blocks.modules() if isinstance(each, _TYPES[self._kind])), None)
        if module is None:
            raise GptkitError("the model has no module of this kind")
        return [module]

    def _excluded(self, module: nn.Module) -> list[nn.Module]:
        """Return the parts of a module that belong to other components, the outermost ones."""
        types = _INNER.get(self._kind, ())
        return list(_outermost(module, types)) if types else []

    def _linear(self, point: Point) -> Measured:
        fields = self._spec(point)
        spec = type(self._subject.spec).model_validate(fields, context={"registry": self._subject.registry})
        with torch.device("meta"):
            module = spec.build(
                self._subject.context.replace(shared={}), d_in=point["d_in"], d_out=point["d_out"], bias=False
            )
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module.eval()(torch.zeros(1, point["d_in"], device="meta"))
        return Measured(count(module), counter.get_total_flops(), 0)


class _Counted:
    """Operations within the calls of a module."""

    def __init__(self, module: nn.Module, counter: FlopCounterMode) -> None:
        self.flops = 0
        self._counter = counter
        self._begun: list[int] = []
        module.register_forward_pre_hook(lambda *_: self._begun.append(counter.get_total_flops()))
        module.register_forward_hook(self._end)

    def _end(self, *_: Any) -> None:
        begun = self._begun.pop()
        if not self._begun:  # not a call within a call
            self.flops += self._counter.get_total_flops() - begun


def _cache(model: GPT, modules: list[nn.Module], parts: Any) -> int:
    """Return the bytes of the states of some modules for the whole context."""
    excluded = {id(inner) for module in modules for each in parts(module) for inner in each.modules()}
    own = {id(each) for module in modules for each in module.modules() if isinstance(each, Stateful)} - excluded
    states = model.new_cache(1, dtype=CACHE).states.by_call_site()
    return sum(state.bytes for (index, _), state in states.items() if state is not None and id(model.stateful[index]) in own)


def _outermost(module: nn.Module, types: tuple[type[nn.Module], ...]) -> Any:
    for child in module.children():
        if isinstance(child, types):
            yield child
        else:
            yield from _outermost(child, types)


def _integers(spec: Spec, path: str = "") -> dict[str, int]:
    """Return the integer fields of a spec and of those inside it, by path; 0 is something absent, a choice no size."""
    result: dict[str, int] = {}
    for name, info in type(spec).model_fields.items():
        value = getattr(spec, name)
        if isinstance(value, Spec):
            result |= _integers(value, f"{path}{name}.")
        elif isinstance(value, int) and not isinstance(value, bool) and value and get_origin(info.annotation) is not Literal:
            result[f"{path}{name}"] = value
    return result
