"""Check of the division for tensor parallelism, simulated in one process."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gptkit.model.gpt import GPT
from gptkit.nn.part_group import PartGroup
from gptkit.nn.tensor_parallel import Divided, PartForward, TensorParallel, TensorShard, narrow, undivided_reason, uneven
from gptkit.nn.vocabulary import divide_vocabulary
from gptkit.testing.check import Checks, expect, same, skip
from gptkit.testing.parts import in_parts
from gptkit.testing.subject import Subject, stirred, token_ids

__all__ = ["checks", "vocabulary_checks"]

checks = Checks()
vocabulary_checks = Checks()

COUNT = 2


@checks.add(
    "sums-over-parts", "Tensor parallelism computes a module as a sum over parts, so a wrong division trains another model."
)
def sums_over_parts(subject: Subject) -> None:
    divided = False
    for companion in subject.companions():
        _expect_sizes(subject.model(companion), subject.kind)
        whole, parted = (copy.deepcopy(subject.model(companion)) for _ in range(2))
        sums = {name: _Sum(module) for name, module in _divisible(parted, subject.kind).items()}
        divided = divided or bool(sums)
        for name, both in sums.items():
            parted.get_submodule(name).forward = both
        ids_BT = token_ids(2, 12)
        losses = [_backward(model, ids_BT) for model in (whole, parted)]
        same(losses[1], losses[0], f"the sum over {COUNT} parts gives another loss")
        gradients = {name: parameter.grad for name, parameter in parted.named_parameters()}
        for name, both in sums.items():
            gradients |= {f"{name}.{own}": gradient for own, gradient in both.gradients().items()}
        for name, parameter in whole.named_parameters():
            gradient = gradients.get(name)
            if parameter.grad is not None:
                actual = torch.zeros_like(parameter) if gradient is None else gradient
                same(actual, parameter.grad, f"computed as a sum over {COUNT} parts, the gradient of {name} differs")
    if not divided:
        modules = _declaring(subject.model(), subject.kind).values()
        reasons = [reason for module in modules if (reason := undivided_reason(module)) is not None]
        skip(reasons[0] if reasons else "it declares no division for tensor parallelism, or has no even parts")


def _expect_sizes(model: GPT, kind: str) -> None:
    """Require that declared divisions fit the sizes of their parameters."""
    for module in _declaring(model, kind).values():
        parameters = dict(module.named_parameters())
        for name, division in module.divisions().items():
            if name not in parameters or not isinstance(division, Divided):
                continue
            shape, units = tuple(parameters[name].shape), sum(division.sections.values())
            fits = -len(shape) <= division.dim < 0 and units > 0 and shape[division.dim] % units == 0
            sections = ", ".join(f"{count} {section}" for section, count in division.sections.items())
            where = f"divisions of {type(module).__name__} divides dimension {division.dim} of {name}, {shape}"
            expect(fits, f"{where}, into {sections}; the sizes do not fit")


def _declaring(model: GPT, kind: str) -> dict[str, TensorParallel]:
    """Return the modules of a component's kind that declare a division, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if f".{kind}" in f".{name}" and isinstance(module, TensorParallel) and module.divisions()
    }


def _divisible(model: GPT, kind: str) -> dict[str, TensorParallel]:
    result: dict[str, TensorParallel] = {}
    for name, module in _declaring(model, kind).items():
        inside = any(name.startswith(f"{outer}.") for outer in result)
        if not inside and undivided_reason(module) is None and uneven(module.divisions(), COUNT) is None:
            result[name] = module
    return result


def _backward(model: GPT, ids_BT: Tensor) -> Tensor:
    loss: Tensor = model(ids_BT[:, :-1], ids_BT[:, 1:]).loss
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


class _Parts:
    """The parts of a module in one process, in place of a group of processes."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []

    def gather(self, part: Tensor) -> list[Tensor]:
        return self.parts

    def add(self, x: Tensor) -> Tensor:
        return _added(self.parts)


class _Sum:
    """Forward pass of a module as the sum of those of its parts."""

    def __init__(self, module: TensorParallel) -> None:
        self.divisions = dict(module.divisions())
        self.group = _Parts()
        self.shards: list[dict[str, TensorShard]] = []
        self.parts: list[nn.Module] = []
        self.forwards: list[PartForward] = []
        for index in range(COUNT):
            part = copy.deepcopy(module)
            self.forwards.append(PartForward(part, COUNT))
            self.shards.append(narrow(part, COUNT, index, self.group))
            self.parts.append(part)

    def __call__(self, x: Tensor, *rest: Any, **inputs: tuple[Tensor, ...]) -> Tensor:
        return _added([forward(x, *rest, **inputs) for forward in self.forwards])

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of the whole parameters."""
        parameters = [dict(part.named_parameters()) for part in self.parts]
        result: dict[str, Tensor] = {}
        for name, division in self.divisions.items():
            gradients = [own[name].grad for own in parameters if name in own]
            self.group.parts = [gradient for gradient in gradients if gradient is not None]
            if not self.group.parts:
                continue
            if isinstance(division, Divided):
                result[name] = self.shards[0][name].whole(self.group.parts[0])
            else:
                # Every part has the whole gradient of an added parameter.
                result[name] = self.group.parts[0] if division == "added" else self.group.add(self.group.parts[0])
        return result


def _added(tensors: Sequence[Tensor]) -> Tensor:
    total: Tensor = functools.reduce(torch.add, tensors)
    return total


_EVEN = 30
"""A vocabulary with equal parts."""


@vocabulary_checks.add(
    "divides-by-token", "Tensor parallelism divides tables by token ids, so a wrong division trains another model."
)
def divides_by_token(subject: Subject) -> None:
    ids_BT = token_ids(2, 12)
    whole = stirred(subject.make(vocab_size=_EVEN)).double().train(subject.kind == "head")
    copies = [copy.deepcopy(whole) for _ in range(COUNT)]
    loss, logits_BTV = _backward(whole, ids_BT), _logits(whole, ids_BT)

    def compute(index: int, group: PartGroup) -> tuple[Tensor, Tensor, dict[str, TensorShard]]:
        shards, _ = divide_vocabulary(copies[index], COUNT, index, group)
        return _backward(copies[index], ids_BT), _logits(copies[index], ids_BT), shards

    parts = in_parts(COUNT, compute)
    shards = parts[0][2]
    if not shards:
        skip("it has no table of token ids that is divided")
    for own_loss, own_logits_BTV, _ in parts:
        same(own_loss, loss, f"with the table in {COUNT} parts, the loss differs")
        same(own_logits_BTV, logits_BTV, f"with the table in {COUNT} parts, the logits differ")
    gradients = [{name: parameter.grad for name, parameter in model.named_parameters()} for model in copies]
    for name, parameter in whole.named_parameters():
        if parameter.grad is None:
            continue
        held = [torch.zeros(()) if each[name] is None else each[name] for each in gradients]
        held = [torch.cat(held, shards[name].division.dim)] if name in shards else held
        for gradient in held:
            assert gradient is not None
            same(gradient, parameter.grad, f"with the table in {COUNT} parts, the gradient of {name} differs")


@torch.no_grad()
def _logits(model: GPT, ids_BT: Tensor) -> Tensor:
    logits_BTV: Tensor = model(ids_BT).logits
    return logits_BTV
