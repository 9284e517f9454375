"""Compilation of models for training with torch.compile, block by block."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import nn

from gptkit.model.gpt import GPT

__all__ = ["compile_model", "eager", "release"]


def compile_model(model: nn.Module, forward: nn.Module) -> nn.Module:
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
    """Restore eager execution of a model that was compiled in place."""
    for module in model.modules():
        module._compiled_call_impl = None
