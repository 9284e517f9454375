"""Tensor parallelism: how the parameters of one module are divided over processes.

A module that declares its `divisions` computes a sum over its parts, such as the heads of an attention or the hidden
features of a feed-forward. Each process holds one part of the parameters and computes its summand for the whole input; the
sum over the processes is the output. The declaration is all that a component adds; communication is that of the training
(`gptkit.training.parallel.tensor`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gptkit.nn.part_group import PartGroup

__all__ = [
    "Divided",
    "Division",
    "PartForward",
    "TensorParallel",
    "TensorShard",
    "narrow",
    "tensor_shards",
    "total_norm",
    "undivided_reason",
    "uneven",
]


@dataclass(frozen=True)
class Divided:
    """A parameter of which every process holds a part.

    Attributes:
        dim: the dimension that is divided, counted from the end: -2 for the outputs of a weight (O, I), -1 for its inputs
            and for a bias.
        sections: the sections of the dimension, in order, each with its number of units (heads, features); all units have
            the same size. Every section is divided evenly, by consecutive units.
    """

    dim: int
    sections: Mapping[str, int]


Division = Divided | Literal["shared", "added"]
"""`shared`: every process applies the whole parameter to its part (a norm of each head). `added`: the parameter is added to
the output, once (the bias of the output projection)."""


class TensorParallel(nn.Module):
    """Base class of runtime modules whose output is a sum over parts of their parameters; by default not divided."""

    def divisions(self) -> Mapping[str, Division]:
        """Return the division of each parameter by its name in the module, for all of them; {} if it cannot be divided."""
        return {}

    def divide(self, count: int) -> None:
        """Change the numbers of heads to those of one of `count` equal parts; `narrow` has changed the parameters."""


@dataclass(frozen=True)
class TensorShard:
    """The part of a parameter that one process holds.

    Attributes:
        division: how the parameter is divided.
        shape: the shape of the whole parameter.
        count: the number of parts.
        index: the index of the part.
        group: the processes that hold the parts.
    """

    division: Divided
    shape: torch.Size
    count: int
    index: int
    group: PartGroup = field(repr=False)

    @property
    def part_shape(self) -> torch.Size:
        """The shape of the part."""
        sizes = list(self.shape)
        sizes[self.division.dim] //= self.count
        return torch.Size(sizes)

    def part(self, whole: Tensor) -> Tensor:
        """Return this process's part of a tensor of the whole shape; others are returned as they are."""
        if whole.shape != self.shape:
            return whole
        sections = torch.split(whole, self.sizes, self.division.dim)
        return torch.cat([each.chunk(self.count, self.division.dim)[self.index] for each in sections], self.division.dim)

    def whole(self, part: Tensor) -> Tensor:
        """Return the whole tensor of which each process has a part, in every process; collective."""
        if part.shape != self.part_shape:
            return part
        sizes = [size // self.count for size in self.sizes]
        pieces = [torch.split(each, sizes, self.division.dim) for each in self.group.gather(part)]
        return torch.cat([piece for section in zip(*pieces, strict=True) for piece in section], self.division.dim)

    @property
    def sizes(self) -> list[int]:
        """Sizes of the sections in the whole parameter."""
        units = self.division.sections.values()
        size = self.shape[self.division.dim] // sum(units)
        return [n * size for n in units]


def tensor_shards(model: nn.Module) -> Mapping[str, TensorShard]:
    """Return the divided parameters of a model by name; {} without tensor parallelism."""
    shards: Mapping[str, TensorShard] = getattr(model, "tensor_shards", {})
    return shards


def undivided_reason(module: TensorParallel) -> str | None:
    """Return why every process must hold a whole module; None if it can be divided."""
    declared = module.divisions()
    if not declared:
        return "it does not declare a division"
    missing = sorted({name for name, _ in module.named_parameters()} - set(declared))
    if missing:
        return f"the division of its parameter {missing[0]} is not declared"
    for name, inner in module.named_modules():
        prefix = f"{name}." if name else ""
        divided = any(
            isinstance(declared.get(f"{prefix}{own}"), Divided) for own, _ in inner.named_parameters(recurse=False)
        )
        if divided and isinstance(inner, nn.Linear) and type(inner) is not nn.Linear:
            return f"its projection {name} is a {type(inner).__name__}, not dense"
    return None


def uneven(declared: Mapping[str, Division], count: int) -> str | None:
    """Return what cannot be divided into equal parts: ``3 key heads``; None if everything can."""
    for division in declared.values():
        for section, units in division.sections.items() if isinstance(division, Divided) else ():
            if units % count:
                return f"{units} {section}"
    return None


def narrow(module: TensorParallel, count: int, index: int, group: PartGroup) -> dict[str, TensorShard]:
    """Replace the parameters of a module by one of `count` parts of them, in place; return the divided ones by name."""
    shards: dict[str, TensorShard] = {}
    for name, division in module.divisions().items():
        prefix, _, own = name.rpartition(".")
        owner = module.get_submodule(prefix)
        parameter = getattr(owner, own, None)
        if not isinstance(division, Divided) or parameter is None:
            continue
        shard = shards[name] = TensorShard(division, parameter.shape, count, index, group)
        setattr(owner, own, nn.Parameter(shard.part(parameter.detach()), parameter.requires_grad))
    module.divide(count)
    return shards


def _identity(x: Tensor) -> Tensor:
    return x


class PartForward:
    """Forward pass of one part of a divided module, in place of the module's `forward`.

    Args:
        module: the module, before `narrow`.
        count: number of parts.
        enter: applied to the input, to further ones (tuples of tensors, by keywords), and to shared parameters: the
            identity, whose gradient is the sum over the parts.
        leave: applied to the part's output: the sum over the parts.
    """

    def __init__(
        self,
        module: TensorParallel,
        count: int,
        enter: Callable[[Tensor], Tensor] = _identity,
        leave: Callable[[Tensor], Tensor] = _identity,
    ) -> None:
        self.count = count
        self.enter = enter
        self.leave = leave
        self._forward: Callable[..., Tensor] = module.forward
        self._changed = [
            (module.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], division)
            for name, division in module.divisions().items()
            if not isinstance(division, Divided)
        ]

    def __call__(self, x: Tensor, *rest: Any, **inputs: tuple[Tensor, ...]) -> Tensor:
        further = {name: tuple(self.enter(each) for each in tensors) for name, tensors in inputs.items()}
        with self._for_part():
            return self.leave(self._forward(self.enter(x), *rest, **further))

    @contextlib.contextmanager
    def _for_part(self) -> Iterator[None]:
        """Temporarily replace the parameters that are not divided."""
        kept = [(owner, name, division, owner._parameters.get(name)) for owner, name, division in self._changed]
        try:
            for owner, name, division, parameter in kept:
                if parameter is not None:
                    changed = self.enter(parameter) if division == "shared" else self._summand(parameter)
                    owner._parameters[name] = changed  # type: ignore[assignment]
            yield
        finally:
            for owner, name, _, parameter in kept:
                owner._parameters[name] = parameter

    def _summand(self, parameter: Tensor) -> Tensor:
        """Return a part of an added parameter, whose gradient is that of the whole in every process."""
        return parameter - (parameter * (1 - 1 / self.count)).detach()


def total_norm(tensors: Iterable[Tensor], divided: Iterable[Tensor], add: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Compute the norm over all tensors, of which some may be sharded or divided.

    Args:
        tensors: tensors that every process of tensor parallelism holds whole.
        divided: tensors of which it holds a part.
        add: sums over these processes; None without tensor parallelism.
    """
    norms = [_plain_norm(list(each)) for each in (tensors, divided)]
    if add is None:
        return norms[0]
    return (norms[0].square() + add(norms[1].square())).sqrt()


def _plain_norm(tensors: list[Tensor]) -> Tensor:
    norm = nn.utils.get_total_norm(tensors) if tensors else torch.zeros(())
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole
