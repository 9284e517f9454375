"""Starting a new run from weights that exist: `training.init_from`."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from gptkit.checkpoint.entries import MODEL
from gptkit.checkpoint.safetensors import fill, fill_matching
from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.errors import CheckpointError
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.runs.directory import RunDirectory
from gptkit.runs.opening import Opened
from gptkit.runs.run import load_tokenizer
from gptkit.training.config import InitFromSpec

__all__ = ["start_from", "tokenizer_of", "weights_file"]

_log = logging.getLogger("gptkit")
_LISTED = 8


def weights_file(init: InitFromSpec, base: Path) -> Path:
    """The safetensors file that `init` names.

    Args:
        init: what the spec says.
        base: the directory that a relative path counts from.

    Raises:
        CheckpointError: no weights are there.
    """
    path = base / Path(init.path).expanduser()
    run = RunDirectory(path)
    if run.holds_run:
        checkpoint = CheckpointStore(run.checkpoints).latest()
        if checkpoint is None:
            raise CheckpointError(f"training.init_from: {path} has no checkpoint yet", hint="Name a run that was trained.")
        return checkpoint / MODEL
    if (path / "config.json").is_file():
        raise CheckpointError(
            f"training.init_from: {path} is an external model", hint=f"Import it first: gptkit import {path} RUN."
        )
    file = path / MODEL if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise CheckpointError(
            f"training.init_from: {path} holds no weights",
            hint="Name a run directory or a file with a run's weights.",
        )
    return file


def tokenizer_of(init: InitFromSpec, opened: Opened) -> Tokenizer | None:
    """The tokenizer of the run that the weights are from; None where they are not from a run.

    Raises:
        CheckpointError: the spec has another tokenizer, whose ids mean other text to these weights.
    """
    weights_file(init, opened.base)
    run = RunDirectory(opened.base / Path(init.path).expanduser())
    if not run.holds_run:
        return None
    spec = run.read_spec()
    if spec.tokenizer == opened.spec.tokenizer:
        return load_tokenizer(spec, run)
    message = f"training.init_from: the tokenizer of {run.path} is not that of the spec, so its weights read other ids"
    if init.strict:
        raise CheckpointError(message, hint="Copy the section tokenizer from its spec.yaml, or set strict to false.")
    _log.warning("%s", message)
    return None


def start_from(model: nn.Module, init: InitFromSpec, base: Path) -> None:
    """Fill a new model with the weights that `init` names.

    Raises:
        CheckpointError: the weights are missing or damaged, or do not fit the model.
    """
    file = weights_file(init, base)
    if init.strict:
        fill(model, file)
        return
    initialised, unused = fill_matching(model, file)
    for names, what in ((initialised, "initialised, not loaded"), (unused, "in the file and not used")):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            _log.warning("training.init_from: %s: %s%s", what, ", ".join(names[:_LISTED]), more)
