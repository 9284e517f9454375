"""How a component of a kind is used: as a value in a spec file, inside another component, or by a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from gptkit.core.registry import Registry
from gptkit.core.spec import Spec
from gptkit.docs.places import inside_components, places
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.position import PositionSpec
from gptkit.model.spec import ModelSpec
from gptkit.reflect.describe import smallest

__all__ = ["Usage", "usage"]


@dataclass(frozen=True)
class Usage:
    """Use of the components of a kind.

    Attributes:
        path: keys in a spec file; None for the kind's name, empty if spec files do not contain the kind.
        listed: whether the value at `path` is a list.
        holder: the component at `path` that contains the component in its field `inside`; empty if it is the value itself.
        inside: the field of the holder.
        beside: additional keys next to the last one of `path` that a valid spec requires.
        commands: command lines that name the component, ``{name}``, for a kind that spec files do not contain.
    """

    path: Sequence[str] | None
    listed: bool = False
    holder: Mapping[str, Any] = field(default_factory=dict)
    inside: str = ""
    beside: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()


def usage(registry: Registry, kind: str, name: str, root: type[Spec] | None = None) -> Usage:
    """Return how a component is used.

    Args:
        registry: the registry of the components that may hold them.
        kind: the component's kind.
        name: its name.
        root: class of a whole spec file.
    """
    commands = tuple(getattr(registry.kinds()[kind].cls, "commands", ()))
    direct = places(root, kind) if root is not None else []
    if direct:
        return Usage(direct[0].path, direct[0].listed, beside=_beside(registry, kind, name))
    if root is not None and not commands:
        # The usual holder is of the declared kind, a default component of the model, or one that needs nothing beside it.
        usual = getattr(registry.kinds()[kind].cls, "holder", None)
        holders = sorted(
            inside_components(registry, kind),
            key=lambda each: (each[0] != usual, not _is_default(*each[:2]), bool(_beside(registry, *each[:2]))),
        )
        for outer, holder_name, inside in holders:
            spots = places(root, outer)
            if spots and "." not in inside:
                holder = smallest(registry.component(outer, holder_name), registry)
                return Usage(spots[0].path, spots[0].listed, holder, inside, _beside(registry, outer, holder_name))
    return Usage(None if root is None else (), commands=commands)


def _is_default(kind: str, name: str) -> bool:
    """Return whether a model has this component by default."""
    field = ModelSpec.model_fields.get(kind)
    return field is not None and field.get_default(call_default_factory=True) == name


def _beside(registry: Registry, kind: str, name: str) -> dict[str, Any]:
    """Return the position that an attention requires if it does not apply the default one."""
    if kind != "attention":
        return {}
    accepts = cast("type[AttentionSpec]", registry.component(kind, name)).accepts
    position = str(ModelSpec.model_fields["position"].get_default(call_default_factory=True))
    uses = cast("type[PositionSpec]", registry.component("position", position)).uses
    return {} if uses - {"embed"} <= accepts else {"position": "none"}
