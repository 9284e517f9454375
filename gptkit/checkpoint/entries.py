"""The files of one checkpoint, and their removal beside files that gptkit did not write."""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["CALLBACKS", "MODEL", "OPTIMIZER", "STATE", "TRAINING_MODEL", "own_files", "remove_checkpoint"]

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
TRAINING_MODEL, CALLBACKS = "training-model.safetensors", "callbacks.safetensors"
_FILES = (STATE, OPTIMIZER, CALLBACKS, TRAINING_MODEL, MODEL)


def own_files(directory: Path) -> list[Path]:
    """Return the files of a checkpoint's directory that gptkit wrote."""
    if directory.is_symlink():
        return []
    return [directory / name for name in _FILES if (directory / name).is_file()]


def remove_checkpoint(path: Path, whole: Path) -> None:
    """Remove the files of a checkpoint; other files are moved to the directory `whole`."""
    for file in own_files(path):
        file.unlink()
    others = list(path.iterdir())
    if others and not whole.exists():
        path.rename(whole)
        return
    for other in others:
        if not (whole / other.name).exists():
            other.rename(whole / other.name)
    with contextlib.suppress(OSError):
        path.rmdir()
