"""Compiling a model for training with torch.compile, block by block."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import nn

from gptkit.model.gpt import GPT

__all__ = ["compile_model", "eager", "release"]


def compile_model(model: nn.Module, forward: nn.Module) -> nn.Module:
    """Compile a model in place and return it as it is to be called.

    Blocks of one architecture share their compiled code, so a deep model compiles as fast as a shallow one, and hooks
    between blocks (which gather shards) stay outside. A model without blocks is compiled as a whole.

    Args:
        model: the model.
        forward: the model as it is called, wrapped for data parallelism or not.
    """
    if not isinstance(model, GPT):
        return cast("nn.Module", torch.compile(forward))
    for block in model.blocks:
        block.compile()
    return forward


def eager(compiled: bool) -> AbstractContextManager[Any]:
    """A context without compiled code, for calls of ever new shapes."""
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


def release(model: nn.Module) -> None:
    """Return a model that was compiled in place to eager execution."""
    for module in model.modules():
        module._compiled_call_impl = None
