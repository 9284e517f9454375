"""Whether a run can be continued with a spec."""

from __future__ import annotations

from typing import Any

from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.errors import CheckpointError
from gptkit.core.spec import shortened
from gptkit.runs.folder import RunFolder
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.resume import refused_changes

__all__ = ["require_same"]

_LISTED = 6
"""More differences than this are only counted."""


def require_same(run: ExperimentSpec, asked: ExperimentSpec, there: RunFolder) -> None:
    """Raise where a run cannot be continued with the spec that is requested.

    Args:
        run: the run's spec.
        asked: the spec to continue with.
        there: the run directory.

    Raises:
        CheckpointError: they differ in what a resumed run cannot change; lists the differences.
    """
    refused = refused_changes(run, asked)
    steps = CheckpointStore(there.checkpoints).steps()
    if "imported" in there.read_provenance() and steps[-1:] == [0]:
        # Weights that were imported have no training behind them, which another one could contradict.
        refused = [change for change in refused if change.path.startswith(("model.", "tokenizer."))]
    if refused:
        listed = [
            f"  {change.path}: {_brief(change.old)} in the run, {_brief(change.new)} requested; {change.reason}"
            for change in refused[:_LISTED]
        ]
        more = [f"  and {len(refused) - _LISTED} more"] if len(refused) > _LISTED else []
        raise CheckpointError(
            "\n".join([f"{there.path} was started with another spec, and a resumed run cannot change:", *listed, *more]),
            hint="Resume it without these changes, or start a new run: in another directory, or in its place with "
            "--overwrite (overwrite=True).",
        )
    if steps and asked.training.steps < steps[-1]:
        raise CheckpointError(
            f"{there.path} has reached step {steps[-1]}, and training.steps is {asked.training.steps}",
            hint="Ask for more steps, or load the run as it is.",
        )


def _brief(value: Any) -> str:
    return shortened(repr(value), 30)
