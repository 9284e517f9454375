"""Conversion of paths, names, data and specs to a validated `ExperimentSpec`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gptkit.core.errors import GptkitError, Problem, SpecError
from gptkit.core.registry import Registry, default_registry
from gptkit.files import read, validate, validate_data
from gptkit.files.nodes import Node, Place, lift, merge_roots
from gptkit.files.overrides import apply_override, apply_overrides
from gptkit.files.tracing import trace
from gptkit.presets.catalog import shipped
from gptkit.runs.plain import plain
from gptkit.runs.spec import ExperimentSpec

__all__ = ["Opened", "SpecLike", "open_spec"]

_INIT_FROM = "training.init_from"

SpecLike = ExperimentSpec | Mapping[str, Any] | str | Path
"""A spec, its plain data, a spec file, or the name of a spec that comes with gptkit."""


@dataclass(frozen=True)
class Opened:
    """A spec and the base directory of its relative paths.

    Attributes:
        spec: the spec.
        base: the base directory.
        prepared: a directory of prepared tokens, in addition to `prepared` in the base directory.
    """

    spec: ExperimentSpec
    base: Path
    prepared: Path | None = None


def open_spec(
    spec: SpecLike,
    overrides: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    *,
    registry: Registry | None = None,
) -> Opened:
    """Return the validated spec.

    Args:
        spec: a path, a name, plain data, or a spec.
        overrides: ``"model.position=alibi"`` and the like, as on the command line. None may undo an earlier one.
        changes: the same with Python values, ``{"model.position": "alibi"}``; they follow the overrides.
        registry: where components are looked up; by default what is installed.

    Raises:
        SpecError: the spec is invalid; lists every error, with its location in a file.
    """
    # A value inside of another one follows it, in whichever order the mapping has them.
    outer_first = sorted((changes or {}).items(), key=lambda item: item[0].count("."))
    further = [f"{path}={json.dumps(plain(value, tuple(path.split('.'))))}" for path, value in outer_first]
    texts = [*overrides, *further]
    known = registry or default_registry()

    def types_at(data: Any, path: Sequence[str | int]) -> Sequence[Any]:
        return trace(ExperimentSpec, data, path, known).types

    def changed(root: Node, *, training: bool) -> Node:
        root = apply_overrides(root, [text for text in overrides if text.startswith("training") == training], types_at)
        for text in further:
            if text.startswith("training") == training:
                root = apply_override(root, text, types_at)
        return root

    def completed(root: Node, base: Path) -> Node:
        # The section with initial weights is read first: other overrides change parts of the source's spec.
        return changed(_with_source(changed(root, training=True), base, registry), training=False)

    if isinstance(spec, (str, Path)):
        source = read(spec, shipped=shipped(registry))
        # Paths of a shipped spec are relative to the working directory.
        base = (source.path.parent if Path(spec).exists() else Path()).absolute()
        source = replace(source, root=completed(source.root, base), overridden=tuple(texts))
        return Opened(validate(source, ExperimentSpec, registry), base)
    if isinstance(spec, ExperimentSpec) and not texts:
        return Opened(spec, Path.cwd())
    data = json.loads(json.dumps(plain(spec)))
    if not isinstance(data, dict):
        what = f"a spec is a mapping of keys such as 'model' and 'training', not of the type {type(spec).__name__!r}"
        raise SpecError([Problem((), f"{what}; pass a dict, the path of a spec file, or the name of a preset")])
    root = lift(data)
    root = completed(root, Path.cwd())
    return Opened(validate_data(root.plain(), ExperimentSpec, registry), Path.cwd())


def _with_source(root: Node, base: Path, registry: Registry | None) -> Node:
    """Return the spec, completed by that of its initial weights (`training.init_from`).

    A `model` without `d_model` overrides parts of the source's model; a missing sampler or tokenizer is that of the source.
    A spec that sets model and tokenizer is not changed, and its source is not read.

    Raises:
        SpecError: the source cannot be read.
    """
    training = root.child("training")
    init = None if training is None else training.child("init_from")
    path = None if init is None else init.child("path") or init
    if path is None or not isinstance(path.value, str) or not isinstance(root.value, dict):
        return root
    model, tokenizer = root.child("model"), root.child("tokenizer")
    whole = model is not None and (model.child("d_model") is not None or not isinstance(model.value, (dict, type(None))))
    if whole and tokenizer is not None:
        return root
    from gptkit.runs.sources import open_source

    try:
        sections = open_source(base / Path(path.value).expanduser(), registry).sections()
    except GptkitError as error:
        message = error.message.removeprefix(f"{_INIT_FROM}: ") + (f". {error.hint}" if error.hint else "")
        raise SpecError([Problem(tuple(_INIT_FROM.split(".")), message, *path.place)]) from error
    own = {key: node for key, node in root.value.items() if not (key == "model" and node.value is None)}
    inherited = [*([] if whole else ["model", "sampler"]), *([] if tokenizer is not None else ["tokenizer"])]
    place = Place(path.value)
    taken = {key: lift(sections[key], place) for key in inherited if key in sections and (key == "model" or key not in own)}
    return merge_roots(root.below(taken), root.below(own)) if taken else root
