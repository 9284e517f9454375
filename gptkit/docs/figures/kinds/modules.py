"""Blocks, feed-forwards, heads and embeddings: the wiring of their parts, recorded from a forward pass.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure
from gptkit.docs.figures.repeats import Repeat, folded
from gptkit.docs.figures.subjects import first
from gptkit.docs.figures.tracing import Step, parts_of, trace
from gptkit.docs.figures.wiring import Box, Wiring
from gptkit.model.gpt import GPT
from gptkit.nn.block import Block
from gptkit.nn.embedding import Embedding
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.nn.head import Head
from gptkit.testing.subject import token_ids

__all__ = ["draw"]

B, T = 1, 7
_ROLES: dict[str, type[nn.Module]] = {"block": Block, "feedforward": FeedForward, "head": Head, "embedding": Embedding}
MOST = 22
"""Maximum number of boxes; in larger modules, operations between children are not shown."""


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return the wiring of the component in a tiny model."""
    subject = first(cls, registry)
    model = subject.make().eval()
    module = next(each for each in model.modules() if isinstance(each, _ROLES[subject.kind]))
    traced: list[list[Step]] = []
    _watch(module, lambda inputs, run: traced.append(trace(module, run, inputs)))(model)
    steps = traced[0]
    shown, repeats = _boxes(steps, subject.kind)
    parts = [module, *(part for _, part in parts_of(module))]
    count = sum(parameter.numel() for parameter in {each for part in parts for each in part.parameters()})
    caption = (
        f"Steps of one forward pass of {type(module).__name__}, recorded in a model with d_model "
        f"{model.spec.d_model}: {count:,} parameters. B rows, T tokens."
    )
    described = "; ".join(f"{box.name} reads {', '.join(shown[source].name for source in box.sources)}" for box in shown[1:])
    if repeats:
        caption += " The steps beside a bracket are repeated with the same weights, each time from the previous results."
    for repeat in repeats:
        described += f"; {shown[repeat.first].name} to {shown[repeat.last].name} repeated {repeat.times} times"
    return Figure([Wiring("wiring", shown, described, repeats)], caption)


def _watch(
    module: nn.Module, record: Callable[[Sequence[Tensor], Callable[[nn.Module], object]], None]
) -> Callable[[GPT], None]:
    """Return a function that runs a model and traces the first call of one of its modules."""

    def run(model: GPT) -> None:
        calls: list[tuple[tuple[object, ...], dict[str, object]]] = []

        def hook(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            if not calls:
                calls.append((args, kwargs))
                tensors = [each for each in args if isinstance(each, Tensor)][:1]
                handle.remove()
                # On a fork of the context, since the call itself follows, and values are published and carried once.
                own = [each.fork(tensors[0]) if isinstance(each, Forward) else each for each in args]
                record(tensors, lambda traced: traced.forward(*own, **kwargs))

        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        with torch.no_grad():
            model(token_ids(B, T))

    return run


def _boxes(steps: Sequence[Step], kind: str) -> tuple[list[Box], tuple[Repeat, ...]]:
    """Return boxes: the input, the steps that lead to the last one, and the output; and the repeats of boxes."""
    reached = _reached(steps)
    steps, repeats = folded(reached)
    if len(steps) > MOST:
        steps, repeats = folded(_without_operations(reached))
    entry = "token ids" if kind == "embedding" else "x"
    exit_ = {"head": "logits", "block": "x"}.get(kind, "y")
    boxes = [Box(entry, end=True)]
    for step in steps:
        below = " · ".join(part for part in (step.what, _shape(step.shape)) if part) if step.what else ""
        boxes.append(Box(step.name, below, tuple(source + 1 for source in step.sources)))
    boxes.append(Box(exit_, sources=(len(boxes) - 1,), end=True))
    return boxes, tuple(replace(repeat, first=repeat.first + 1, last=repeat.last + 1) for repeat in repeats)


def _reached(steps: Sequence[Step]) -> list[Step]:
    """Return the steps whose results the last one depends on."""
    needed = {len(steps) - 1}
    for index in range(len(steps) - 1, -1, -1):
        if index in needed:
            needed |= set(steps[index].sources)
    return _kept(steps, [index in needed for index in range(len(steps))])


def _without_operations(steps: Sequence[Step]) -> list[Step]:
    return _kept(steps, [bool(step.what) or index == len(steps) - 1 for index, step in enumerate(steps)])


def _kept(steps: Sequence[Step], keep: Sequence[bool]) -> list[Step]:
    """Return some of the steps, each reading what the removed ones between them read."""
    result: list[Step] = []
    place: dict[int, tuple[int, ...]] = {-1: (-1,)}
    for index, (step, kept) in enumerate(zip(steps, keep, strict=True)):
        sources = tuple(sorted({at for source in step.sources for at in place[source]}))
        if kept:
            result.append(Step(step.name, step.what, step.shape, sources, step.parameters))
        place[index] = (len(result) - 1,) if kept else sources
    return result


def _shape(shape: tuple[int, ...]) -> str:
    if len(shape) >= 2 and shape[0] == B and shape[1] == T:
        return f"(B, T, {', '.join(map(str, shape[2:]))})"
    if shape and shape[0] % (B * T) == 0:
        rows = "B·T" if shape[0] == B * T else f"{shape[0] // (B * T)}·B·T"
        return f"({', '.join([rows, *map(str, shape[1:])])})"
    return f"({', '.join(map(str, shape))})"
