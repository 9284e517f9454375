"""From whatever a caller hands in (a path, a name, data, a spec) to a checked `ExperimentSpec`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gptkit.core.registry import Registry, default_registry
from gptkit.files import read, validate, validate_data
from gptkit.files.nodes import lift
from gptkit.files.overrides import apply_override
from gptkit.files.tracing import trace
from gptkit.presets.catalog import shipped
from gptkit.runs.spec import ExperimentSpec

__all__ = ["Opened", "SpecLike", "open_spec"]

SpecLike = ExperimentSpec | Mapping[str, Any] | str | Path
"""A spec, its plain data, a spec file, or the name of a spec that comes with gptkit."""


@dataclass(frozen=True)
class Opened:
    """A spec and the directory that its relative paths count from."""

    spec: ExperimentSpec
    base: Path


def open_spec(
    spec: SpecLike,
    overrides: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    *,
    registry: Registry | None = None,
) -> Opened:
    """The checked spec.

    Args:
        spec: what to open.
        overrides: ``"model.position=alibi"`` and the like, as on the command line.
        changes: the same with Python values, ``{"model.position": "alibi"}``.
        registry: where components are looked up; by default what is installed.

    Raises:
        SpecError: the spec is invalid; lists every error, with its location in a file.
    """
    texts = [*overrides, *(f"{path}={json.dumps(value, default=_plain)}" for path, value in (changes or {}).items())]
    known = registry or default_registry()

    def types_at(data: Any, path: Sequence[str | int]) -> Sequence[Any]:
        return trace(ExperimentSpec, data, path, known).types

    if isinstance(spec, (str, Path)):
        source = read(spec, texts, shipped=shipped(registry), types_at=types_at)
        # What a shipped spec names counts from where the user is, as nobody keeps data beside it.
        base = source.path.parent if Path(spec).exists() else Path()
        return Opened(validate(source, ExperimentSpec, registry), base.absolute())
    if isinstance(spec, ExperimentSpec) and not texts:
        return Opened(spec, Path.cwd())
    root = lift(_plain(spec) if isinstance(spec, ExperimentSpec) else json.loads(json.dumps(spec, default=_plain)))
    for text in texts:
        root = apply_override(root, text, types_at)
    return Opened(validate_data(root.plain(), ExperimentSpec, registry), Path.cwd())


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a spec cannot hold a {type(value).__name__}")
