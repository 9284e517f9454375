"""Sizes of a model before allocation: it is built and run on the meta device."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from gptkit.core.errors import CapacityError
from gptkit.kinds.optimizer import OptimizerSpec
from gptkit.model.cache_size import cache_bytes_per_token, whole_cache
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.model.tree import count
from gptkit.model.work import kept_bytes, peak_bytes, training_work
from gptkit.nn.freezing import freeze as freeze_parameters
from gptkit.nn.recompute import Recompute

__all__ = [
    "Plan",
    "available_memory",
    "flops_per_token",
    "human_bytes",
    "human_count",
    "plan",
    "refuse_unless_fits",
    "state_bytes",
]


@dataclass(frozen=True)
class Plan:
    """Sizes of a model.

    Attributes:
        parameters: number of parameters, tied and shared ones counted once.
        trained_parameters: number of trained parameters.
        embedding_parameters: number of parameters of the token embedding, which need no arithmetic.
        flops_per_token: floating-point operations of a forward pass over a full context, divided by its tokens.
        training_flops_per_token: the same with the backward pass, counted as twice the forward.
        weight_bytes: memory of the weights.
        cache_bytes_per_token: memory of one more token of a row when decoding; caches with windows stop growing.
        cache_bytes: memory of one row's cache at full context length.
        activation_bytes: memory that a training step keeps for its backward pass, for the requested batch.
        training_bytes: peak of a training step: weights, the optimizer's state, activations and gradients.
    """

    parameters: int
    trained_parameters: int
    embedding_parameters: int
    flops_per_token: float
    training_flops_per_token: float
    weight_bytes: int
    cache_bytes_per_token: float
    cache_bytes: int
    activation_bytes: int
    training_bytes: int


def plan(
    spec: ModelSpec,
    vocab_size: int | None = None,
    *,
    batch_size: int = 1,
    window: int | None = None,
    freeze: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float32,
    recompute: Recompute = "none",
    precision: torch.dtype = torch.float32,
    optimizer: OptimizerSpec | None = None,
    accumulates: bool = False,
    model: GPT | None = None,
) -> Plan:
    """Compute the sizes of a spec's model, without allocating it.

    Args:
        batch_size: rows of a training step (a micro-batch).
        window: tokens of each row; the context length by default.
        freeze: patterns of frozen parameters, as in `gptkit.nn.freezing`.
        dtype: the dtype of weights and cache.
        recompute: activation checkpointing of the training step.
        precision: dtype of the training's matrix products.
        optimizer: the training's optimizer; None for one with two moments.
        accumulates: whether gradients of several parts of a batch are accumulated.
        model: the spec's model on the meta device, if it was built already; its parameters are frozen as `freeze` says.
    """
    model = GPT(spec, vocab_size, device="meta", dtype=dtype) if model is None else model
    length = spec.context_length
    flops = flops_per_token(model, length)
    parameters = count(model)
    weight_bytes = sum(p.numel() for p in model.parameters()) * dtype.itemsize
    freeze_parameters(model, freeze)
    trained = count(model, trained=True)
    work = training_work(model, batch_size, window or length, precision)
    state = 2 * 4 * trained if optimizer is None else state_bytes(optimizer, model)
    return Plan(
        parameters=parameters,
        trained_parameters=trained,
        embedding_parameters=model.embedding.table_VE.numel(),
        flops_per_token=flops,
        training_flops_per_token=3 * flops,
        weight_bytes=weight_bytes,
        cache_bytes_per_token=cache_bytes_per_token(model, dtype),
        cache_bytes=whole_cache(model).bytes,
        activation_bytes=kept_bytes(work, recompute),
        training_bytes=weight_bytes + state + peak_bytes(work, recompute, accumulates=accumulates),
    )


def flops_per_token(model: GPT, length: int) -> float:
    """Return the floating-point operations of a forward pass over `length` tokens, divided by their number.

    A training step takes three times as many, since the backward pass computes two products for each one.

    Args:
        model: a model on the meta device; it is in evaluation mode afterwards.
        length: number of tokens.
    """
    ids = torch.zeros(1, length, dtype=torch.long, device="meta")
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    return float(counter.get_total_flops() / length)


def state_bytes(optimizer: OptimizerSpec, model: GPT) -> int:
    """Return the memory of an optimizer's state, from a step on the meta device.

    Args:
        optimizer: the optimizer.
        model: a model on the meta device, frozen as in its training.
    """
    built = optimizer.build(model)
    parameters = [parameter for group in built.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    built.step()
    built.zero_grad(set_to_none=True)
    tensors = tree_leaves(list(built.state.values()))
    return sum(each.numel() * each.element_size() for each in tensors if isinstance(each, Tensor) and each.ndim)


def available_memory(device: torch.device | str = "cpu") -> int:
    """Return the number of bytes that can still be allocated on a device."""
    device = torch.device(device)
    if device.type == "meta":
        return sys.maxsize
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def refuse_unless_fits(needed: int, purpose: str, device: torch.device | str = "cpu", hint: str = "") -> None:
    """Raise a `CapacityError` with the numbers and `hint` if `needed` bytes exceed the available memory."""
    available = available_memory(device)
    if needed > available:
        raise CapacityError(
            f"{purpose} needs about {human_bytes(needed)}, but {torch.device(device)} has {human_bytes(available)} free",
            hint=hint or "Make the model, its context length or the batch smaller.",
        )


def human_bytes(size: float) -> str:
    """Format a size in powers of 1000: ``1.5 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def human_count(number: float) -> str:
    """Format a number with a unit prefix: ``124.4 M``."""
    for unit in ("", " k", " M", " G", " T"):
        if abs(number) < 1000:
            return f"{number:.4g}{unit}"
        number /= 1000
    return f"{number:.4g} P"
