"""Tokenizers of runs."""

from __future__ import annotations

from gptkit.core.errors import CheckpointError
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.runs.directory import RunDirectory
from gptkit.runs.spec import ExperimentSpec

__all__ = ["load_tokenizer"]


def load_tokenizer(spec: ExperimentSpec, directory: RunDirectory) -> Tokenizer:
    """Load the tokenizer of a run.

    Raises:
        CheckpointError: its directory is missing.
    """
    if not directory.tokenizer.is_dir():
        raise CheckpointError(
            f"{directory.tokenizer} is missing", hint="Restore it; the model cannot be used without its tokenizer."
        )
    return spec.tokenizer.load(directory.tokenizer)
