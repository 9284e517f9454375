"""Sizes of a model before allocation: it is built and run on the meta device."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from gptkit.core.errors import CapacityError
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.model.tree import count
from gptkit.nn.block import outermost_blocks
from gptkit.nn.freezing import freeze as freeze_parameters
from gptkit.nn.recompute import Recompute

__all__ = ["Plan", "available_memory", "human_bytes", "human_count", "plan", "refuse_unless_fits"]


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
        training_bytes: weights, gradients and two optimizer moments of those that are trained, and activations.
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
    model: GPT | None = None,
) -> Plan:
    """Compute the sizes of a spec's model, without allocating it.

    Args:
        batch_size: rows of a training step (a micro-batch).
        window: tokens of each row; the context length by default.
        freeze: patterns of frozen parameters, as in `gptkit.nn.freezing`.
        dtype: the dtype of weights and cache.
        recompute: activation checkpointing of the training step.
        model: the spec's model on the meta device, if it was built already; its parameters are frozen as `freeze` says.
    """
    model = GPT(spec, vocab_size, device="meta", dtype=dtype) if model is None else model
    length = spec.context_length
    ids = torch.zeros(1, length, dtype=torch.long, device="meta")
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    flops = counter.get_total_flops() / length
    parameters = count(model)
    weight_bytes = sum(p.numel() for p in model.parameters()) * dtype.itemsize
    freeze_parameters(model, freeze)
    trained = count(model, trained=True)
    activations = _saved_bytes(model.train(), batch_size, window or length, recompute)
    return Plan(
        parameters=parameters,
        trained_parameters=trained,
        embedding_parameters=model.embedding.table_VE.numel(),
        flops_per_token=flops,
        training_flops_per_token=3 * flops,
        weight_bytes=weight_bytes,
        cache_bytes_per_token=sum(module.state_bytes_per_token(dtype) for module in model.stateful),
        cache_bytes=model.new_cache(1).bytes,
        activation_bytes=activations,
        training_bytes=weight_bytes + 3 * 4 * trained + activations,
    )


def _saved_bytes(model: GPT, batch_size: int, length: int, recompute: Recompute) -> int:
    """Return the bytes that autograd keeps between forward and backward, without weights.

    With recomputation, the input of every block is kept, and the activations of one block at a time.
    """
    seen = {id(parameter) for parameter in model.parameters()}
    held: list[Tensor] = []
    saved: Counter[int] = Counter()  # by block, -1 outside of them
    running = [-1]

    def pack(tensor: Tensor) -> Tensor:
        root = tensor if tensor._base is None else tensor._base
        if id(root) not in seen:
            seen.add(id(root))
            saved[running[0]] += root.numel() * root.element_size()
            held.append(root)  # keeps its id from being used again
        return tensor

    def enter(index: int) -> Callable[..., None]:
        return lambda *_: running.__setitem__(0, index)

    hooks: list[RemovableHandle] = []
    blocks = list(outermost_blocks(model))
    for index, block in enumerate(blocks):
        hooks += [block.register_forward_pre_hook(enter(index)), block.register_forward_hook(enter(-1))]
    ids = torch.zeros(batch_size, length, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _FusedAttention():
        model(ids, ids)
    for hook in hooks:
        hook.remove()
    if recompute == "none":
        return sum(saved.values())
    outside = saved.pop(-1, 0)
    inputs = len(blocks) * batch_size * length * model.spec.d_model * next(model.parameters()).element_size()
    return outside + inputs + max(saved.values(), default=0)


class _FusedAttention(TorchFunctionMode):
    """Mode in which fused attention keeps the same tensors on the meta device as its kernels: inputs and output only."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            mask = kwargs.get("attn_mask")
            if not kwargs.get("dropout_p") and (mask is None or not mask.requires_grad):
                return _Kept.apply(*args[:3])  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


class _Kept(torch.autograd.Function):
    """Attention of the correct shape that keeps its inputs and its output."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k, v, _ = ctx.saved_tensors
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)


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
