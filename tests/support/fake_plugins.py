"""In-memory plugins, for tests of registry, spec files and schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import Component, component, optional_component
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry
from gptkit.core.spec import Spec

__all__ = ["Exact", "FakeEntryPoint", "Gate", "Mixer", "Norm", "Plain", "Whole", "make", "plugin", "registry"]


@dataclass
class FakeDistribution:
    name: str
    version: str


@dataclass
class FakeEntryPoint:
    name: str
    value: str
    dist: FakeDistribution
    load: Callable[[], Any]


def plugin(
    distribution: str,
    components: Any = None,
    kinds: Any = None,
    *,
    version: str = "1.0",
    name: str | None = None,
    load: Callable[[], Any] | None = None,
) -> FakeEntryPoint:
    """Return an entry point whose module returns these classes, or the result of a callable."""
    module = ModuleType(f"fake_{distribution.replace('-', '_')}")
    if components is not None:
        module.gptkit_components = hookimpl(_returning(components, "gptkit_components"))
    if kinds is not None:
        module.gptkit_kinds = hookimpl(_returning(kinds, "gptkit_kinds"))
    dist = FakeDistribution(distribution, version)
    return FakeEntryPoint(name or distribution, module.__name__, dist, load or (lambda: module))


def _returning(value: Any, name: str) -> Callable[[], Any]:
    def hook() -> Any:
        return value() if callable(value) and not isinstance(value, type) else value

    hook.__name__ = name
    return hook


class Norm(Component):
    """Kind for tests. It has a second sentence."""

    kind: ClassVar[str] = "norm"


class Mixer(Component):
    """Another kind, which contains norms."""

    kind: ClassVar[str] = "mixer"


class Plain(Norm):
    """Divide by the root mean square. And more.

    Formula:
        y = x
    """

    name: Literal["plain"] = "plain"
    aliases: ClassVar[tuple[str, ...]] = ("simple",)
    renamed_fields: ClassVar[dict[str, str]] = {"epsilon": "eps"}
    eps: float = Field(1e-5, gt=0, description="Added to the mean square.")
    mode: Literal["fast", "slow"] = Field("fast", description="How.")


class Exact(Norm):
    """Component with fields of many types."""

    name: Literal["exact"] = "exact"
    offset: float = Field(0.0, description="A number.")
    steps: int = Field(1, ge=1, lt=10, description="A whole number.")
    sizes: tuple[int, ...] = Field((), max_length=3, description="A list.")
    either: int | list[int] | None = Field(None, description="A union.")
    bias: bool = Field(False, description="A truth value.")
    label: str = Field("x", min_length=1, pattern="^[a-z]+$", description="A text.")
    labels: tuple[str, ...] = Field((), description="Texts.")


class Gate(Mixer):
    """Component with norms, one of them optional."""

    name: Literal["gate"] = "gate"
    width: int = Field(description="How wide it is.")
    norm: Norm = component("plain", description="A norm.")
    extra: Norm | None = optional_component(description="Another norm.")
    more: tuple[Norm, ...] = Field((), description="Any number of norms.")
    inner: Mixer | None = optional_component(description="A mixer inside.")


class Part(Spec):
    size: int = Field(1, description="A size.")
    norm: Norm = component("plain", description="A norm.")


class Whole(Spec):
    """Spec of a complete file."""

    name: str = Field("untitled", description="Title.")
    requires: tuple[str, ...] = Field((), description="Requirements.")
    norm: Norm = component("plain", description="A norm.")
    mixer: Mixer | None = optional_component(description="A mixer.")
    samplers: list[Norm] = Field([], description="A chain.")
    part: Part = Field({}, description="A part.")
    needed: int = Field(description="Must be there.")


def make(name: str, kind: type[Component] = Norm, **attributes: Any) -> type[Component]:
    """Define a component of that name, and return it."""
    annotations = {"name": Literal[name]}
    body = {
        "__annotations__": annotations,
        "name": name,
        "__module__": __name__,
        "__doc__": f"Component {name}.",
        **attributes,
    }
    return type(f"Made_{name.replace('-', '_')}", (kind,), body)


def registry(*entry_points: FakeEntryPoint, disabled: Iterable[str] | None = ()) -> Registry:
    """Return a registry of the kinds and components of the tests, and of further plugins."""
    own = plugin("gptkit", [Plain, Exact, Gate], [Norm, Mixer], version="0.1.0")
    return Registry([*entry_points, own], disabled)
