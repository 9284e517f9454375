"""Recording of what a module is built of: nested components and projections, by the modules that they returned."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gptkit.core.component import Component
from gptkit.kinds.context import LayerParts
from gptkit.kinds.written import WritingContext

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Built", "Projection", "Recorder", "watched"]


@dataclass(frozen=True)
class Built:
    """A nested component that was built.

    Attributes:
        module: the module that it returned, kept alive, since modules are looked up by identity.
        spec: the component.
        context: its build context, for writing it out.
        where: the other arguments of `build`.
    """

    module: Any
    spec: Component
    context: WritingContext
    where: Mapping[str, Any]


@dataclass(frozen=True)
class Projection:
    """A projection that `BuildContext.linear` returned."""

    module: nn.Linear
    d_in: int
    d_out: int
    bias: bool
    context: WritingContext


@dataclass
class Recorder:
    """What was built while a component was: `components` and `projections`, by the identity of their modules."""

    components: dict[int, Built] = field(default_factory=dict)
    projections: dict[int, Projection] = field(default_factory=dict)


def watched(spec: Component, context: WritingContext, recorder: Recorder) -> tuple[Any, WritingContext]:
    """Return a component and a build context whose nested components record what they build."""
    changes = {
        name: _watched(value, recorder)
        for name in type(spec).model_fields
        if _holds_components(value := getattr(spec, name))
    }
    copy = spec.model_copy(update=changes)
    layer = context.layer
    if layer is not None:
        parts = ("position", "attention", "norm", "feedforward")
        inside: dict[str, Any] = {part: _Watched(getattr(layer, part), recorder) for part in parts}
        layer = dataclasses.replace(layer, **inside)
    values = {each.name: getattr(context, each.name) for each in dataclasses.fields(WritingContext)}
    position = None if context.position is None else _Watched(context.position, recorder)
    return copy, _RecordingContext(**{**values, "layer": layer, "position": position}, recorder=recorder)


@dataclass(frozen=True)
class _RecordingContext(WritingContext):
    """A build context that records projections."""

    recorder: Recorder = field(default_factory=Recorder, repr=False, compare=False)

    def linear(self, d_in: int, d_out: int, *, bias: bool = True) -> nn.Linear:
        made = super().linear(d_in, d_out, bias=bias)
        self.recorder.projections[id(made)] = Projection(made, d_in, d_out, bias, _plain(self))
        return made


class _Watched:
    """A nested component: everything is that of the component, but `build` is recorded."""

    def __init__(self, spec: Component, recorder: Recorder) -> None:
        self._spec, self._recorder = spec, recorder

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._spec)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._spec, name)

    def __eq__(self, other: object) -> bool:
        return self._spec == (other._spec if type(other) is _Watched else other)

    def __hash__(self) -> int:
        return hash(self._spec)

    def build(self, context: Any, **where: Any) -> Any:
        return self._recorded("build", context, where)

    def build_embedding(self, context: Any, **where: Any) -> Any:
        return self._recorded("build_embedding", context, where)

    def _recorded(self, method: str, context: Any, where: dict[str, Any]) -> Any:
        module = getattr(self._spec, method)(context, **where)
        if module is not None and id(module) not in self._recorder.components:
            self._recorder.components[id(module)] = Built(module, self._spec, _plain(context), where)
        return module


def _holds_components(value: Any) -> bool:
    return isinstance(value, Component) or (isinstance(value, (list, tuple)) and any(map(_holds_components, value)))


def _watched(value: Any, recorder: Recorder) -> Any:
    if isinstance(value, Component):
        return _Watched(value, recorder)
    if isinstance(value, (list, tuple)):
        return type(value)(_watched(each, recorder) for each in value)
    return value


def _plain(context: WritingContext) -> WritingContext:
    """Return a context with the components themselves."""

    def component(value: Any) -> Any:
        return value._spec if type(value) is _Watched else value

    layer = context.layer
    if layer is not None:
        values = {each.name: component(getattr(layer, each.name)) for each in dataclasses.fields(LayerParts)}
        layer = LayerParts(**values)
    values = {each.name: getattr(context, each.name) for each in dataclasses.fields(WritingContext)}
    return WritingContext(**{**values, "layer": layer, "position": component(context.position)})
