"""Warnings about valid specs with probably unintended values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from gptkit.core import walk
from gptkit.core.component import Component
from gptkit.kinds.linear import LinearSpec
from gptkit.model.spec import ModelSpec
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.config import TrainingSpec
from gptkit.training.stage_spec import timeline

if TYPE_CHECKING:
    from gptkit.data.index import Counts

__all__ = ["cautions", "validation_caution", "weights_caution"]

_TABLES = {
    ".jsonl": "set data.name to jsonl to read a field of each line",
    ".ndjson": "set data.name to jsonl to read a field of each line",
    ".json": "write its texts as JSON Lines and set data.name to jsonl to learn them alone",
    ".csv": "write its column of texts as JSON Lines and set data.name to jsonl to learn them alone",
    ".tsv": "write its column of texts as JSON Lines and set data.name to jsonl to learn them alone",
}
"""Remedies for files of records that are read as text, by suffix."""

_MIN_TARGETS = 32
_MAX_PROBED = 10_000
_NEARLY = 0.99


def cautions(spec: ExperimentSpec, base: Path | None = None) -> Iterator[str]:
    """Yield a sentence for each suspicious combination of values and for each missing requirement of the training.

    Args:
        spec: the spec.
        base: the base of its relative paths; None if the tokenizer exists already.

    Yields:
        Sentences that begin with the field's path.
    """
    missing = None if base is None else spec.tokenizer.missing(base)
    if missing is not None:
        yield f"tokenizer: {missing}"
    if spec.data.name == "text":
        for path in getattr(spec.data, "path", ()):
            suffix = PurePath(path).suffix.lower()
            if suffix in _TABLES:
                yield f"data.path: {path} is read as plain text, including its punctuation and keys; {_TABLES[suffix]}"
    yield from _unreached(spec.model)
    yield from _without_effect(spec)
    training = spec.training
    steps = training.steps
    probed = range(0, steps, max(1, steps // _MAX_PROBED))
    highest = max(training.schedule.factor(step, steps) for step in (*probed, steps - 1))
    warmup = getattr(training.schedule, "warmup_steps", 0)
    if warmup > steps and highest < _NEARLY:
        yield (
            f"training.schedule.warmup_steps: the warmup of {warmup:,} steps is longer than the training of {steps:,}; "
            f"the learning rate reaches {highest:.0%} of its peak. Lower warmup_steps, or raise training.steps"
        )
    yield from _unfinished(training)
    without_weights = weights_caution(spec)
    if without_weights is not None:
        yield without_weights


def weights_caution(spec: ExperimentSpec) -> str | None:
    """Return a sentence if adapters are trained beside frozen weights, and no weights to start from are named."""
    adapted = any(isinstance(part, LinearSpec) and part.merged() != part for part in spec.model.components())
    if not adapted or spec.training.init_from is not None or spec.training.freeze is not None:
        return None
    return (
        "model.linear: adapters are trained beside weights that keep their initial random values. Name weights to start "
        "from: --init SOURCE (training.init_from), or set training.freeze to [] to train all of them"
    )


def validation_caution(spec: ExperimentSpec, counts: Counts) -> str | None:
    """Return a sentence if the validation split has few targets: fewer than a data window, or than 32. None without tokens.

    Args:
        spec: the spec.
        counts: the sizes of the validation split.
    """
    n_targets = max(counts.tokens - 1 - counts.masked, 0)
    if not counts.tokens or n_targets >= max(spec.window, _MIN_TARGETS):
        return None
    return (
        f"data.validation: the validation split has only {n_targets:,} target{'' if n_targets == 1 else 's'}, so that its "
        "loss says little. Use more text, or raise data.validation"
    )


def _unreached(model: ModelSpec) -> Iterator[str]:
    """Yield a sentence if entries of the layer pattern begin after the last layer."""
    first = 0
    for index, entry in enumerate(model.layers or ()):
        if first >= model.n_layers:
            yield (
                f"model.layers.{index}: begins at layer {first}, and the model has {model.n_layers} layers, so that it has "
                "no effect. Raise n_layers, or remove the entry"
            )
            return
        first += entry.repeat


def _unfinished(training: TrainingSpec) -> Iterator[str]:
    """Yield a sentence for each warmup of a callback, and for the first stage, that the training ends before."""
    steps = training.steps
    for index, callback in enumerate(training.callbacks):
        warmup = callback.n_warmup_steps
        if warmup > steps:
            yield (
                f"training.callbacks.{index}: the warmup of {callback.name}, {warmup:,} steps, is longer than the training "
                f"of {steps:,}, which ends within it. Lower its steps, or raise training.steps"
            )
    for index, stage in enumerate(timeline(training.stages, steps)):
        if stage.begin >= steps or stage.end > steps:
            what = "is not reached" if stage.begin >= steps else "is not completed"
            planned = f"step {stage.begin + 1:,}" + ("" if stage.spec.steps is None else f" to {stage.end:,}")
            yield (
                f"training.stages.{index}: {what}: it is planned from {planned}, and the training has {steps:,} steps. "
                "Raise training.steps, or lower the steps of the stages"
            )
            return


def _without_effect(spec: ExperimentSpec) -> Iterator[str]:
    """Yield a sentence for each field that has no effect in any component, since another field is not set.

    The parts of a model that all layers override count as others do: a field has an effect if it has one in a layer.
    """
    first: dict[tuple[type[Component], str], str] = {}
    used: set[tuple[type[Component], str]] = set()
    for path, part in walk.components(spec):
        for name, other in part.only_with.items():
            if _is_default(part, name):
                continue
            if getattr(part, other):
                used.add((type(part), name))
            else:
                first.setdefault((type(part), name), ".".join(map(str, (*path, name))))
    for (cls, name), field in first.items():
        if (cls, name) not in used:
            yield f"{field}: has no effect without {cls.only_with[name]}. Set {cls.only_with[name]}, or remove {name}"


def _is_default(part: Component, name: str) -> bool:
    """Return whether a field has its default; a component does if it has the name of the default one."""
    value, default = getattr(part, name), type(part).model_fields[name].get_default(call_default_factory=True)
    named = getattr(default, "name", default)
    return value == default or (isinstance(value, Component) and value.name == named)
