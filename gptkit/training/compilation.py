"""Faster forms of a model for the time of its training: compiled block by block, and with products in fp8."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import nn

from gptkit.model.gpt import GPT
from gptkit.training.config import TrainingSpec
from gptkit.training.fp8 import compute_in_fp8, leave_fp8

__all__ = ["accelerate", "eager", "release"]


def accelerate(model: nn.Module, forward: nn.Module, spec: TrainingSpec, device: torch.device) -> nn.Module:
    """Change a model in place as the training section says, until `release`; return the callable model.

    Args:
        model: the model.
        forward: the callable model, possibly wrapped for data parallelism.
        spec: the training section: its precision, and whether to compile.
        device: the model's device.

    Raises:
        TrainingError: device or model cannot be trained in this precision.
    """
    if spec.precision == "fp8":
        compute_in_fp8(model, device)
    return _compile(model, forward) if spec.compile else forward


def _compile(model: nn.Module, forward: nn.Module) -> nn.Module:
    """Compile a model in place and return the callable model.

    Blocks of one architecture share their compiled code, so a deep model compiles as fast as a shallow one, and hooks
    between blocks (which gather shards) stay outside. A model without blocks is compiled as a whole.

    Args:
        model: the model.
        forward: the callable model, possibly wrapped for data parallelism.
    """
    if not isinstance(model, GPT):
        return cast("nn.Module", torch.compile(forward))
    for block in model.blocks:
        block.compile()
    return forward


def eager(compiled: bool) -> AbstractContextManager[Any]:
    """Return a context without compiled code, for calls with varying shapes."""
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


def release(model: nn.Module) -> None:
    """Undo `accelerate`."""
    for module in model.modules():
        module._compiled_call_impl = None
    leave_fp8(model)
