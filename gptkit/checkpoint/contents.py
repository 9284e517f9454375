"""What a checkpoint holds besides weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from gptkit.checkpoint.entries import CALLBACKS, MODEL, OPTIMIZER, TRAINING_MODEL
from gptkit.checkpoint.states import Take, pack, pack_optimizer

__all__ = ["contents", "metadata"]

T = TypeVar("T")


def contents(
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    training: Mapping[str, Any],
    callbacks: Mapping[str, Any] | None,
    take: Take[T],
) -> tuple[dict[str, Any], dict[str, dict[str, T]]]:
    """Return the content of state.json, and the tensors of the files other than weights."""
    files: dict[str, dict[str, T]] = {}
    packed, files[OPTIMIZER] = pack_optimizer(model, optimizer, take)
    names = dict(model.named_parameters())
    kept, tensors = pack(dict(callbacks or {}), "callbacks", "the training", names, take)
    if tensors:
        files[CALLBACKS] = tensors
    return {"step": step, "training": dict(training), "optimizer": packed, "callbacks": kept}, files


def metadata(name: str) -> dict[str, str] | None:
    """Return the metadata of one of a checkpoint's files."""
    # A single entry: the library writes several in any order, and equal weights should give equal files.
    return {"format": "pt"} if name in (MODEL, TRAINING_MODEL) else None
