"""Work of a training step: operations, memory traffic, and the tensors kept for the backward pass.

The forward pass runs on the meta device, with the casts of autocast where the precision is bf16, so this holds for every
component, including those of plugins.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.model.gpt import GPT
from gptkit.model.work_modes import DIVIDED, Counting, Fused, Operation, Place, component_of
from gptkit.nn.block import outermost_blocks
from gptkit.nn.recompute import Recompute

__all__ = ["DIVIDED", "Operation", "Saved", "Work", "component_of", "kept_bytes", "peak_bytes", "training_work"]


@dataclass(frozen=True)
class Saved:
    """Bytes that autograd keeps from forward to backward, without parameters.

    Attributes:
        by_block: bytes by block, -1 outside of blocks.
        divided: the part of these that tensor parallelism divides.
        inputs: bytes of one block's input.
    """

    by_block: dict[int, int]
    divided: dict[int, int]
    inputs: int


@dataclass(frozen=True)
class Work:
    """Work of one part of a training step's batch.

    Attributes:
        operations: those of the forward pass.
        saved: what is kept for the backward pass.
        gradients: bytes of the gradients by block, those of trained parameters only.
        divided_gradients: the part of these that tensor parallelism divides.
        loss_bytes: memory of the loss: a chunk of logits, and the head's weight in the precision of its products.
        tied_bytes: gradient of the embedding's table, if the head has it too and it is trained; else 0.
    """

    operations: tuple[Operation, ...]
    saved: Saved
    gradients: dict[int, int]
    divided_gradients: dict[int, int]
    loss_bytes: int
    tied_bytes: int = 0


def training_work(
    model: GPT, batch_size: int, length: int, precision: torch.dtype = torch.float32, *, cuda: bool = False
) -> Work:
    """Return the work of a training step on `batch_size` windows of `length` tokens.

    Args:
        model: a model on the meta device, frozen as in its training; it is in training mode afterwards.
        batch_size: rows of the part.
        length: tokens of each row.
        precision: dtype of the matrix products.
        cuda: whether the kernels are those of CUDA, where fused attention has dropout too.
    """
    place = Place()
    saved: Counter[int] = Counter()
    divided: Counter[int] = Counter()
    seen = {id(parameter) for parameter in model.parameters()}
    held: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        root = tensor if tensor._base is None else tensor._base
        if id(root) not in seen:
            seen.add(id(root))
            size = root.numel() * root.element_size()
            saved[place.block] += size
            if place.divided:
                divided[place.block] += size
            held.append(root)  # keeps its id from being used again
        return tensor

    ids_BT = torch.zeros(batch_size, length, dtype=torch.long, device="meta")
    counter = Counting(place, precision)
    recompute, model.recompute = model.recompute, "none"
    model.train()
    try:
        with (
            _placed(model, place),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            counter,
            Fused(counter, precision, cuda),
        ):
            model(ids_BT, ids_BT)
    finally:
        model.recompute = recompute
    inputs = batch_size * length * model.spec.d_model * next(model.parameters()).element_size()
    gradients, divided_gradients = _gradients(model)
    table = model.embedding.table_VE
    return Work(
        tuple(counter.operations),
        Saved(dict(saved), dict(divided), inputs),
        dict(gradients),
        dict(divided_gradients),
        counter.loss_bytes,
        table.numel() * table.element_size() if model.head.tied_weights and table.requires_grad else 0,
    )


def kept_bytes(work: Work, recompute: Recompute = "none") -> int:
    """Return the memory that a training step keeps from forward to backward.

    With recomputation, the input of every block is kept, and the activations of one block at a time.
    """
    blocks = [size for block, size in work.saved.by_block.items() if block >= 0]
    if recompute == "none":
        return sum(work.saved.by_block.values())
    return work.saved.by_block.get(-1, 0) + len(blocks) * work.saved.inputs + max(blocks, default=0)


def peak_bytes(work: Work, recompute: Recompute = "none", *, accumulates: bool = False, tensor: int = 1) -> int:
    """Return the peak memory of activations and gradients together in one part of a step.

    Blocks run backwards: the activations of a block are freed while its gradients are allocated.

    Args:
        work: the work of one part.
        recompute: activation checkpointing.
        accumulates: whether gradients of earlier parts of the batch are kept.
        tensor: number of processes that attentions and feed-forwards are divided over.
    """

    def share(total: dict[int, int], divided: dict[int, int], block: int) -> int:
        part = divided.get(block, 0)
        return total.get(block, 0) - part + part // tensor

    n_blocks = max((block for block in (*work.saved.by_block, *work.gradients)), default=-1) + 1
    saved = [share(work.saved.by_block, work.saved.divided, block) for block in range(-1, n_blocks)]
    gradients = [share(work.gradients, work.divided_gradients, block) for block in range(-1, n_blocks)]
    in_flight: Counter[int] = Counter()
    for operation in work.operations:
        if not operation.whole:
            size = operation.bytes // (tensor if operation.component in DIVIDED else 1)
            in_flight[operation.block] = max(in_flight[operation.block], size)
    outside, *of_blocks = saved
    of_gradients = gradients[1:]
    kept = [work.saved.inputs] * n_blocks if recompute == "blocks" else of_blocks
    peak = outside + sum(kept) + work.loss_bytes
    for block in reversed(range(n_blocks)):
        again = of_blocks[block] if recompute == "blocks" else 0
        peak = max(peak, outside + sum(kept[: block + 1]) + again + sum(of_gradients[block:]) + in_flight[block])
    # At the end all gradients exist, that of a tied table a second time until it is added to the head's.
    peak = max(peak, sum(gradients) + work.tied_bytes)
    return peak + (sum(gradients) if accumulates else 0)


@contextlib.contextmanager
def _placed(model: GPT, place: Place) -> Iterator[None]:
    """Keep track of the running block and component by hooks."""
    with contextlib.ExitStack() as stack:

        def hook(module: nn.Module, before: Callable[..., None], after: Callable[..., None]) -> None:
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)

        for index, block in enumerate(outermost_blocks(model)):

            def enter(*_: Any, index: int = index) -> None:
                place.block = index

            def leave(*_: Any) -> None:
                place.block = -1

            hook(block, enter, leave)
        for name, module in model.named_modules():
            component = component_of(name, module)
            if component is not None:

                def begin(*_: Any, component: str = component) -> None:
                    place.components.append(component)

                def end(*_: Any) -> None:
                    place.components.pop()

                hook(module, begin, end)
        yield


def _gradients(model: GPT) -> tuple[Counter[int], Counter[int]]:
    """Return the bytes of the gradients by block, and those in modules that tensor parallelism divides."""
    total: Counter[int] = Counter()
    divided: Counter[int] = Counter()
    blocks = {id(module): index for index, block in enumerate(outermost_blocks(model)) for module in block.modules()}
    inside: dict[int, bool] = defaultdict(bool)
    for name, module in model.named_modules():
        if component_of(name, module) in DIVIDED:
            inside.update({id(each): True for each in module.modules()})
    seen: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                size = parameter.numel() * parameter.element_size()
                total[blocks.get(id(module), -1)] += size
                if inside[id(module)]:
                    divided[blocks.get(id(module), -1)] += size
    return total, divided
