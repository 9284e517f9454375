"""Checkpoints: weights, optimizer state and counters in a directory that is written atomically.

::

    checkpoints/step-00000100/
      model.safetensors            parameters and persistent buffers to evaluate and generate with; tied ones once
      training-model.safetensors   the trained parameters and buffers, if they differ from these (weight averages)
      optimizer.safetensors        tensors of the optimizer
      callbacks.safetensors        tensors of the callbacks, if any
      state.json                   step; other state of optimizer, callbacks and loop; sizes and hashes of the files

Nothing is pickled: a checkpoint from an untrusted source is safe to open.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.checkpoint.contents import contents, metadata
from gptkit.checkpoint.entries import CALLBACKS, MODEL, OPTIMIZER, STATE, TRAINING_MODEL, own_files, remove_checkpoint
from gptkit.checkpoint.joint import JointFiles, Participants, PendingCheckpoint, not_written, raise_common
from gptkit.checkpoint.located import Located, locate
from gptkit.checkpoint.safetensors import cause, damaged, fill, read_tensors, remedy, save_tensors, stored_tensors, weights
from gptkit.checkpoint.states import unpack, unpack_optimizer, whole_tensors
from gptkit.core.atomic import reading, sync, write_text
from gptkit.core.errors import CheckpointError, FileError

__all__ = ["CheckpointStore", "load_weights", "read_callbacks", "read_state", "restore_optimizer"]

FORMAT = 1
_KINDS: Mapping[str, tuple[type, ...]] = {"step": (int,), "optimizer": (dict, type(None)), "training": (dict,)}
_NAME = re.compile(r"step-(\d{8,})")
_HIDDEN = re.compile(r"\.(step-\d{8,})\.(unfinished|replaced|pruned)")


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        directory: the directory of the checkpoints; created when the first is saved.
        keep: how many of the newest checkpoints are kept.
    """

    def __init__(self, directory: Path, keep: int = 2) -> None:
        self.directory = directory
        self.keep = keep

    def path(self, step: int) -> Path:
        """Return the directory of the checkpoint after `step` steps."""
        return self.directory / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Return the steps of the existing checkpoints, in order."""
        if not self.directory.is_dir():
            return []
        with reading(self.directory):
            matches = [_NAME.fullmatch(path.name) for path in self.directory.iterdir()]
        return sorted(int(match[1]) for match in matches if match and own_files(self.directory / match[0]))

    def own_files(self) -> list[Path]:
        """Return every file of the checkpoints that gptkit wrote; files of the user are not among these."""
        if not self.directory.is_dir() or self.directory.is_symlink():
            return []
        checkpoints = sorted(path for path in self.directory.iterdir() if _NAME.fullmatch(path.name))
        return [file for checkpoint in checkpoints for file in own_files(checkpoint)]

    def latest(self) -> Path | None:
        """Return the newest checkpoint, or None."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        training: Mapping[str, Any],
        *,
        callbacks: Mapping[str, Any] | None = None,
        evaluated: Mapping[str, Tensor] | None = None,
        write: bool = True,
    ) -> Path:
        """Write a checkpoint atomically, and remove the oldest ones.

        Collective where the model's tensors are sharded: every process calls it, and one writes.

        Args:
            step: number of completed steps.
            model, optimizer: the model and its optimizer.
            training: the state of the training loop, as plain data.
            callbacks: the callbacks' states by name; tensors allowed.
            evaluated: weights to evaluate and generate with, by name, if they differ from the trained ones.
            write: True in the process that writes.

        Raises:
            CheckpointError: it cannot be written (a full disk, for example); earlier ones are kept.
        """
        take = whole_tensors(model)
        files = {MODEL: weights(model, evaluated)}
        if evaluated is not None:
            files[TRAINING_MODEL] = weights(model)
        content, others = contents(step, model, optimizer, training, callbacks, take)
        files |= others

        def save(unfinished: Path) -> dict[str, Any]:
            for name, tensors in files.items():
                save_tensors(tensors, unfinished / name, metadata(name))
            return content

        return self._write(step, save) if write else self.path(step)

    def save_jointly(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        training: Mapping[str, Any],
        participants: Participants,
        *,
        callbacks: Mapping[str, Any] | None = None,
        evaluated: Mapping[str, Tensor] | None = None,
    ) -> PendingCheckpoint:
        """Begin a checkpoint that all processes write in the background, each its own parts; collective.

        No process gathers a tensor; the files are those of `save`. The previous one must have ended.

        Args:
            step, model, optimizer, training, callbacks, evaluated: as for `save`.
            participants: the processes.

        Raises:
            CheckpointError: the files cannot be created.
        """

        def take(name: str | None, tensor: Tensor) -> Located:
            return locate(model, name, tensor, participants)

        def located(replaced: Mapping[str, Tensor] | None = None) -> dict[str, Located]:
            return {name: take(name, tensor) for name, tensor in stored_tensors(model, replaced).items()}

        files = {MODEL: located(evaluated)}
        if evaluated is not None:
            files[TRAINING_MODEL] = located()
        content, others = contents(step, model, optimizer, training, callbacks, take)
        files |= others
        joint, path = JointFiles(files, {name: metadata(name) for name in files}), self.path(step)
        unfinished = self._unfinished(step)
        error: OSError | FileError | None = None
        try:
            if participants.is_main:
                self._begin(step)
                joint.create(unfinished)
        except (OSError, FileError) as raised:
            error = raised
        raise_common(participants, path, error, self._discard)
        write, commit = partial(joint.write, unfinished), partial(self._commit, step, content)
        return PendingCheckpoint(step, path, participants, write=write, commit=commit, discard=self._discard)

    def adopt(self, write_weights: Callable[[Path], None], state: Mapping[str, Any] | None = None) -> Path:
        """Write a checkpoint of step 0 from external weights, without the state of an optimizer.

        Args:
            write_weights: function that writes the weights to a path.
            state: additional entries of state.json.

        Raises:
            CheckpointError: it cannot be written.
        """

        def write(unfinished: Path) -> dict[str, Any]:
            write_weights(unfinished / MODEL)
            return {"step": 0, "training": {}, "optimizer": None, **(state or {})}

        return self._write(0, write)

    def _write(self, step: int, write: Callable[[Path], dict[str, Any]]) -> Path:
        try:
            self._begin(step)
            return self._commit(step, write(self._unfinished(step)))
        except (OSError, FileError) as error:
            self._discard()
            raise not_written(self.path(step), error) from error

    def _unfinished(self, step: int) -> Path:
        """Return the directory that a checkpoint is written to before it is committed."""
        return self.directory / f".{self.path(step).name}.unfinished"

    def _discard(self) -> None:
        """Remove what a failed save has written, which would fill the disk until the next one."""
        with contextlib.suppress(OSError):
            self.clean()

    def _begin(self, step: int) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.clean()
        self._unfinished(step).mkdir()

    def _commit(self, step: int, content: Mapping[str, Any]) -> Path:
        final, unfinished = self.path(step), self._unfinished(step)
        files = {path.name: _describe(path) for path in sorted(unfinished.iterdir())}
        state = {"format": FORMAT, "files": files, **content}
        write_text(unfinished / STATE, json.dumps(state, indent=1))
        for path in (*unfinished.iterdir(), unfinished):
            sync(path)
        if final.exists():
            # A rename cannot replace a directory that holds files.
            final.rename(self.directory / f".{final.name}.replaced")
        unfinished.rename(final)
        sync(self.directory)
        for old in self.steps()[: -self.keep]:
            # Renamed first, so that a partly removed one is never read as a checkpoint.
            self.path(old).rename(self.directory / f".{self.path(old).name}.pruned")
        self.clean()
        return final

    def clean(self) -> None:
        """Remove the remains of interrupted saves; files that gptkit did not write are kept."""
        if not self.directory.is_dir() or self.directory.is_symlink():
            return
        for path in sorted(self.directory.iterdir()):
            match = _HIDDEN.fullmatch(path.name)
            if match is None or path.is_symlink():
                continue
            whole, state = self.directory / match[1], match[2]
            if state == "unfinished":
                shutil.rmtree(path)
            elif state == "replaced" and not whole.exists():
                # Killed between the two renames: the old checkpoint is still valid.
                path.rename(whole)
            else:
                remove_checkpoint(path, whole)


def read_state(checkpoint: Path, *, verify: bool | Collection[str] = False, quantized: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint's state.json.

    Args:
        checkpoint: the checkpoint's directory.
        verify: also compare the checksums of all files, or of the given ones, which reads them completely.
        quantized: accept a checkpoint whose weights are stored in a precision, for inference only.

    Raises:
        CheckpointError: a file is missing or damaged; names it. Or the weights are stored in a precision.
        FileError: a file may not be read.
    """
    with reading(checkpoint / STATE):
        state = _read_state(checkpoint, verify)
    if "quantized" in state and not quantized:
        raise _only_for_inference(checkpoint, state["quantized"])
    return state


def _only_for_inference(checkpoint: Path, quantized: Any) -> CheckpointError:
    known = quantized if isinstance(quantized, Mapping) else {}
    precision, source = known.get("precision"), known.get("source")
    name = precision.get("name") if isinstance(precision, Mapping) else None
    origin = f", {source}" if isinstance(source, str) else ""
    return CheckpointError(
        f"the weights of {checkpoint.parent.parent} are stored in precision {name!r}, which is for inference only: "
        "they are generated with, evaluated and chatted with, but not trained, exported or used as initial weights",
        hint=f"Use the run that it was made from{origin}.",
    )


def _read_state(checkpoint: Path, verify: bool | Collection[str]) -> dict[str, Any]:
    file = checkpoint / STATE
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        result = state["format"]
        files = {name: (expected, int(expected["bytes"])) for name, expected in dict(state["files"]).items()}
        wrong = [key for key, kinds in _KINDS.items() if type(state[key]) not in kinds]
        if wrong or MODEL not in files:
            raise ValueError(f"{wrong[0]} is {state[wrong[0]]!r:.60}" if wrong else f"files has no {MODEL}")
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing", hint=remedy(checkpoint)) from None
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise damaged(file, cause(error)) from None
    if result != FORMAT:
        raise CheckpointError(
            f"{file} has format {result!r}, and this gptkit reads format {FORMAT}", hint="Install a newer gptkit."
        )
    for name, (expected, n_bytes) in files.items():
        path = checkpoint / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing", hint=remedy(checkpoint))
        if path.stat().st_size != n_bytes:
            raise damaged(path, f"it has {path.stat().st_size} bytes instead of {n_bytes}")
        with reading(path):
            changed = (verify if isinstance(verify, bool) else name in verify) and _describe(path) != expected
        if changed:
            raise damaged(path, "its content is not what was saved")
    assert isinstance(state, dict)
    return state


def read_callbacks(checkpoint: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the callbacks' states by name; `state` is the result of `read_state`."""
    packed = state.get("callbacks", {"dict": []})
    tensors = read_tensors(checkpoint / CALLBACKS) if CALLBACKS in state["files"] else {}
    try:
        states = unpack(packed, tensors)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise damaged(checkpoint / STATE, cause(error)) from None
    assert isinstance(states, dict)
    return states


def load_weights(model: nn.Module, checkpoint: Path, *, assign: bool = False, training: bool = False) -> None:
    """Fill a model with a checkpoint's weights.

    Args:
        model: the model, whose tensors may be sharded.
        checkpoint: the checkpoint's directory.
        assign: replace the model's tensors by memory-mapped ones of the file, for a model on the meta device.
        training: load the trained weights, not those to evaluate and generate with.

    Raises:
        CheckpointError: the file is missing or damaged, or does not fit the model.
    """
    other = checkpoint / TRAINING_MODEL
    fill(model, other if training and other.exists() else checkpoint / MODEL, assign=assign)


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, checkpoint: Path, state: Mapping[str, Any]
) -> None:
    """Restore an optimizer from a checkpoint; `state` is the result of `read_state`.

    Raises:
        CheckpointError: the file is missing or damaged, or does not fit the optimizer.
    """
    unpack_optimizer(optimizer, model, checkpoint / OPTIMIZER, state["optimizer"])


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
