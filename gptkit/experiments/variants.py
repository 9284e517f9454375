"""The variants of an experiment before matching: every combination of values, validated."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gptkit.core.errors import GptkitError, SpecError
from gptkit.experiments.request import LEARNING_RATE, ComparisonSpec
from gptkit.reflect.snippets import flow
from gptkit.runs.opening import Opened, open_spec
from gptkit.runs.spec import ExperimentSpec

__all__ = ["Draft", "Drafts", "draft_variants", "hash_of", "plain_spec", "point_label", "spec_hash"]

SPEC_AXIS, POINT_AXIS = "spec", "setting"
_LISTED = 8


@dataclass(frozen=True)
class Draft:
    """A variant before matching.

    Attributes:
        source: the spec file.
        changes: the changed fields by dotted path.
        choices: the value of each axis as text.
        size: label of the size.
        learning_rate: the learning rate, if several are compared.
        opened: the validated spec.
        notes: what was changed to make the budget equal.
        is_base: whether its choices are those of the base.
    """

    source: str
    changes: Mapping[str, Any]
    choices: Mapping[str, str]
    size: str | None
    learning_rate: float | None
    opened: Opened
    notes: tuple[str, ...] = ()
    is_base: bool = False

    @property
    def label(self) -> str:
        """What distinguishes it from the other variants."""
        short = _short_names(self.choices)
        parts = [
            value if path in (SPEC_AXIS, POINT_AXIS) else f"{short[path]}={value}" for path, value in self.choices.items()
        ]
        parts += [] if self.learning_rate is None else [f"lr={flow(self.learning_rate)}"]
        parts += [] if self.size is None else [self.size]
        return ", ".join(parts) or "base"

    def changed(self, changes: Mapping[str, Any]) -> Draft:
        """Return the draft with further changes.

        Raises:
            SpecError: the result is invalid.
        """
        merged = {**self.changes, **changes}
        opened = open_spec(self.source, changes=merged)
        return replace(self, changes=merged, opened=opened)


@dataclass(frozen=True)
class Drafts:
    """The variants before matching.

    Attributes:
        variants: the valid ones, the base first.
        axes: the labels of the values, by path, that of the base first.
        invalid: the reason, by the label of each invalid variant.
    """

    variants: tuple[Draft, ...]
    axes: Mapping[str, tuple[str, ...]]
    invalid: Mapping[str, str]


def draft_variants(request: ComparisonSpec) -> Drafts:
    """Return the variants of a request.

    Raises:
        GptkitError: variants are invalid and may not be skipped, or two are equal; names them.
    """
    drafts: list[Draft] = []
    invalid: dict[str, str] = {}
    for source, choices, changes, size, rate in _combinations(request):
        empty = Draft(source, changes, choices, size, rate, _UNOPENED)
        try:
            drafts.append(replace(empty, opened=open_spec(source, changes=changes)))
        except GptkitError as error:
            invalid[empty.label] = _reason(error)
    if not drafts or (invalid and not request.skip_invalid):
        if not drafts and len(set(invalid.values())) == 1:
            _require_valid_base(request, next(iter(invalid.values())))
        raise _refusal(invalid, len(drafts))
    _require_distinct(drafts)
    base = _base_choices(request, drafts)
    drafts = [replace(draft, is_base=draft.choices == base) for draft in drafts]
    drafts.sort(key=lambda draft: not draft.is_base)
    axes = {path: tuple(dict.fromkeys(draft.choices[path] for draft in drafts)) for path in drafts[0].choices}
    return Drafts(tuple(_with_equal_budget(drafts, request)), axes, invalid)


def spec_hash(draft: Draft) -> str:
    """Return the SHA-256 of a variant's resolved spec with seed 0, without its name."""
    return hash_of(plain_spec(draft.opened.spec))


def hash_of(plain: Mapping[str, Any]) -> str:
    """Return the SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def plain_spec(spec: ExperimentSpec) -> dict[str, Any]:
    """Return a variant's resolved spec as plain data, with seed 0 and without a name of its own."""
    data = spec.plain()
    return {**data, "name": "variant", "training": {**data["training"], "seed": 0}}


_UNOPENED: Any = None


def _combinations(request: ComparisonSpec) -> Iterator[tuple[str, dict[str, str], dict[str, Any], str | None, float | None]]:
    """Yield source, choices, changes, size and learning rate of every variant."""
    choices: list[tuple[str, dict[str, str], dict[str, Any]]] = []
    if request.specs:
        labels = _file_labels(request.specs)
        choices = [(source, {SPEC_AXIS: label}, {}) for source, label in zip(request.specs, labels, strict=True)]
    elif request.points:
        assert request.base is not None
        choices = [(request.base, {POINT_AXIS: point_label(point)}, dict(point)) for point in request.points]
    else:
        assert request.base is not None
        for values in itertools.product(*request.vary.values()):
            changes = dict(zip(request.vary, values, strict=True))
            choices.append((request.base, {path: flow(value) for path, value in changes.items()}, changes))
    sizes: list[tuple[str | None, Mapping[str, Any]]] = [*request.sizes.items()] or [(None, {})]
    rates: list[float | None] = [*request.learning_rates] or [None]
    for (size, of_size), (source, chosen, changes), rate in itertools.product(sizes, choices, rates):
        of_rate = {} if rate is None else {LEARNING_RATE: rate}
        yield source, chosen, {**request.set, **of_size, **changes, **of_rate}, size, rate


def point_label(point: Mapping[str, Any]) -> str:
    """Return the label of a setting: ``learning_rate=0.003, norm=rms``; ``base`` without changes."""
    values = {path: flow(value) for path, value in point.items()}
    short = _short_names(values)
    return ", ".join(f"{short[path]}={value}" for path, value in values.items()) or "base"


def _file_labels(paths: tuple[str, ...]) -> list[str]:
    """Return the stems of the files, or the paths if two are equal."""
    stems = [Path(path).stem for path in paths]
    return stems if len(set(stems)) == len(stems) else list(paths)


def _short_names(choices: Mapping[str, str]) -> dict[str, str]:
    """Return the last part of each path, or the path if two end alike."""
    last = [path.rpartition(".")[2] for path in choices]
    return {path: name if last.count(name) == 1 else path for path, name in zip(choices, last, strict=True)}


def _reason(error: GptkitError) -> str:
    """Return why a variant is invalid, without the overrides that it consists of, which its label shows."""
    if not isinstance(error, SpecError):
        return error.message
    own = [replace(each, source=None) if (each.source or "").startswith("--set") else each for each in error.problems]
    return "; ".join(map(str, own))


def _require_valid_base(request: ComparisonSpec, reason: str) -> None:
    """Raise the error of the base if it is why all variants are invalid: its file is missing, for example."""
    if request.base is None:
        return
    try:
        open_spec(request.base, changes=request.set)
    except GptkitError as error:
        if _reason(error) == reason:
            raise


def _refusal(invalid: Mapping[str, str], n_valid: int) -> GptkitError:
    reasons = list(dict.fromkeys(invalid.values()))
    if len(reasons) == 1 and not n_valid:
        return GptkitError(f"all {len(invalid)} variants are invalid: {reasons[0]}", hint="Change --vary or the spec.")
    lines = [f"{label}: {reason}" for label, reason in invalid.items()]
    more = f"\n… and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    return GptkitError(
        f"{len(invalid)} of {len(invalid) + n_valid} variants are invalid:\n" + "\n".join(lines[:_LISTED]) + more,
        hint="Remove these values from --vary, or train the others: --skip-invalid." if n_valid else "Change --vary.",
    )


def _require_distinct(drafts: list[Draft]) -> None:
    seen: dict[str, Draft] = {}
    for draft in drafts:
        other = seen.setdefault(spec_hash(draft), draft)
        if other is not draft:
            raise GptkitError(
                f"the variants {other.label!r} and {draft.label!r} are the same spec", hint="Remove one of the two values."
            )


def _base_choices(request: ComparisonSpec, drafts: list[Draft]) -> Mapping[str, str]:
    """Return the choices of the base: those that do not change the spec file, else the first ones."""
    if request.base is None or not request.vary:
        return drafts[0].choices
    unvaried: dict[tuple[str | None, float | None], str] = {}
    for draft in drafts:
        at = (draft.size, draft.learning_rate)
        if at not in unvaried:
            changes = {path: value for path, value in draft.changes.items() if path not in request.vary}
            unvaried[at] = spec_hash(replace(draft, opened=open_spec(request.base, changes=changes)))
        if unvaried[at] == spec_hash(draft):
            return draft.choices
    return drafts[0].choices


def _with_equal_budget(drafts: list[Draft], request: ComparisonSpec) -> Iterator[Draft]:
    """Yield the variants; where the tokens of a step differ, with as many steps as make the number of tokens equal."""
    budgets: dict[str | None, int] = {}
    for draft in drafts:
        training = draft.opened.spec.training
        per_step = training.batch_size * draft.opened.spec.window
        budget = budgets.setdefault(draft.size, training.steps * per_step)
        if training.steps * per_step == budget or training.stages or "training.steps" in request.vary:
            yield draft
            continue
        steps = max(1, round(budget / per_step))
        yield replace(
            draft.changed({"training.steps": steps}), notes=(f"training.steps = {steps}, for {budget:,} tokens as the base",)
        )
