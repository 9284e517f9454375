"""Check whether a run can be resumed with a spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from gptkit.checkpoint.store import CheckpointStore, read_state
from gptkit.core.commands import command
from gptkit.core.diff import differences
from gptkit.core.errors import CheckpointError, SpecError
from gptkit.core.registry import Registry
from gptkit.core.spec import shortened
from gptkit.core.walk import Path
from gptkit.files import validate_data
from gptkit.runs.directory import RunDirectory
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.machine import conditions, deviation
from gptkit.training.precision import pick_device
from gptkit.training.resume import refused_changes

__all__ = ["notes_of_changes", "recorded_spec", "require_same"]

_ALWAYS_RECORDED = ("device", "threads", "torch")
"""Conditions in every checkpoint that has conditions."""

_LISTED = 6
"""Maximum number of differences in a message; others are counted."""


def recorded_spec(run_directory: RunDirectory, registry: Registry | None = None) -> ExperimentSpec:
    """Return the spec that a run was last trained with: the copy in provenance, independent of edits of spec.yaml.

    Raises:
        CheckpointError: the copy is invalid; names the file.
    """
    recorded = run_directory.read_provenance().get("spec")
    if not isinstance(recorded, dict):
        # A run of an earlier version.
        return run_directory.read_spec(registry)
    try:
        return validate_data(recorded, ExperimentSpec, registry)
    except SpecError as error:
        raise CheckpointError(
            f"{run_directory.provenance} has an invalid spec: {error.message}",
            hint="Restore the file; or train with init_from, with the run's weights.",
        ) from None


def notes_of_changes(
    recorded: ExperimentSpec,
    asked: ExperimentSpec,
    run_directory: RunDirectory,
    *,
    own: bool,
    registry: Registry | None = None,
) -> Iterator[str]:
    """Yield what differs from the training so far in a run that is resumed.

    Weights that were imported or saved have no training that could differ.

    Args:
        recorded: the spec that the run was last trained with.
        asked: the spec to continue with.
        run_directory: the run directory.
        own: whether the run is resumed with its own spec.yaml, whose edits since the training are listed.
        registry: where components are looked up; by default what is installed.

    Yields:
        Sentences with the changes: ``… continues with changed values: training.steps: 5 → 9``.
    """
    edits = _changes(recorded.plain(), run_directory.read_spec(registry).plain()) if own else []
    if edits:
        yield f"{run_directory.spec} was edited since the training; changes used: {'; '.join(edits)}"
    if not _has_training(run_directory):
        return
    changes = _changes(recorded.plain()["training"], asked.plain()["training"], ("training",))
    others = [change for change in changes if change not in edits]
    if others:
        yield f"{run_directory.path} continues with changed values: {'; '.join(others)}"
    different = _changed_conditions(run_directory, pick_device(asked.training.device))
    if different is not None:
        yield f"{run_directory.path} {different}"


def require_same(run: ExperimentSpec, asked: ExperimentSpec, run_directory: RunDirectory) -> None:
    """Raise an error if a run cannot be resumed with the requested spec.

    Args:
        run: the run's spec.
        asked: the spec to continue with.
        run_directory: the run directory.

    Raises:
        CheckpointError: they differ in fields that a resumed run cannot change; lists the differences.
    """
    refused, new_run = refused_changes(run, asked), command("gptkit train SPEC NEW_RUN --init", run_directory.path)
    steps = CheckpointStore(run_directory.checkpoints).steps()
    if steps and not _has_training(run_directory):
        # Imported or saved weights have no training to resume, so every spec is accepted.
        refused = [change for change in refused if change.path.startswith(("model.", "tokenizer."))]
    if refused:
        listed = [
            f"  {change.path}: {_brief(change.old)} in the run, {_brief(change.new)} requested; {change.reason}"
            for change in refused[:_LISTED]
        ]
        more = [f"  and {len(refused) - _LISTED} more"] if len(refused) > _LISTED else []
        raise CheckpointError(
            "\n".join(
                [f"{run_directory.path} was started with another spec, and a resumed run cannot change:", *listed, *more]
            ),
            hint=f"Resume it without these changes. Or start a new run from its weights, with these changes: {new_run} "
            "(training.init_from); or from scratch: in another directory, or in its place with --overwrite "
            "(overwrite=True).",
        )
    if steps and asked.training.steps < steps[-1]:
        raise CheckpointError(
            f"{run_directory.path} has reached step {steps[-1]}, and training.steps is {asked.training.steps}",
            hint=f"Raise training.steps, load the run, or start a new run from its weights: {new_run}.",
        )


def _changed_conditions(run_directory: RunDirectory, device: torch.device) -> str | None:
    """Return how the conditions of the training differ from those of the newest checkpoint; None if they do not.

    Conditions that an earlier version did not record are not compared.
    """
    checkpoint = CheckpointStore(run_directory.checkpoints).latest()
    recorded = None if checkpoint is None else read_state(checkpoint)["training"].get("conditions")
    current = conditions(device)
    if not isinstance(recorded, dict) or any(type(recorded.get(key)) is not type(current[key]) for key in _ALWAYS_RECORDED):
        return None
    processes = recorded.get("processes")
    return deviation(recorded if isinstance(processes, int) else {**recorded, "processes": current["processes"]}, current)


def _has_training(run_directory: RunDirectory) -> bool:
    """Return whether the newest checkpoint has the state of a training; False without a checkpoint."""
    checkpoint = CheckpointStore(run_directory.checkpoints).latest()
    return checkpoint is not None and read_state(checkpoint)["optimizer"] is not None


def _changes(old: Any, new: Any, path: Path = ()) -> list[str]:
    return [f"{each.dotted}: {_brief(each.left)} → {_brief(each.right)}" for each in differences(old, new, path)]


def _brief(value: Any) -> str:
    return shortened(repr(value), 30)
