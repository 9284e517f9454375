"""How a component declares the initialization of its parameters.

A module may have a method ``initial() -> dict[str, Initial]`` that maps names of its parameters (dotted for those of its
children) to their initialization. An outer module's declaration overrides an inner one's; `Scaled` multiplies it. A base
class declares the defaults of its parameters in an attribute `default_initial`, which subclasses with an `initial` of their
own keep. The defaults for modules of torch are `"weight"` for linear weights, `"embedding"` for embeddings, `"zeros"` for
biases and `"ones"` for norm weights.

A module whose parameters hold one or several projections may name them in a method
``projections() -> dict[str, dict[str, tuple[slice, ...]]]``: for each parameter the rows of each projection, named
`query`, `key`, `value`, `output`, `gate`, `up` or `down`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gptkit.core.errors import GptkitError

__all__ = ["Declared", "Initial", "Role", "Scaled", "consecutive", "declared", "projections", "scaled_projections"]


Role = Literal["weight", "output", "embedding", "zeros", "ones"]
"""`weight`: a projection; `output`: a projection that writes to the residual stream; `embedding`: a table of vectors."""


@dataclass(frozen=True)
class Scaled:
    """A multiple of the initialization that an inner module declares: β times what the initializer draws.

    Attributes:
        factor: β.
        rows: the rows that are multiplied, of a parameter (…, rows, features) or (rows,); all by default.
    """

    factor: float
    rows: tuple[slice, ...] = (slice(None),)

    def apply_(self, values: Tensor) -> None:
        """Multiply the rows in place."""
        for rows in self.rows:
            (values[rows] if values.dim() < 2 else values[..., rows, :]).mul_(self.factor)


Initial = Role | Callable[[torch.Size, torch.Generator], Tensor] | Scaled
"""A role, for which the model's initializer draws the values; a function of shape and generator that returns them; or a
multiple of an inner module's declaration."""


@dataclass(frozen=True)
class Declared:
    """The initialization of one parameter: its role or function, and the factors that outer modules apply to it."""

    initial: Role | Callable[[torch.Size, torch.Generator], Tensor]
    factors: tuple[Scaled, ...] = ()


def declared(model: nn.Module) -> dict[str, Declared]:
    """Return the declared initialization of each parameter of a model, by name.

    Raises:
        GptkitError: no module declares the initialization of a parameter.
    """
    names = {name for name, _ in model.named_parameters()}
    initials: dict[str, Role | Callable[[torch.Size, torch.Generator], Tensor]] = {}
    factors: dict[str, list[Scaled]] = {}
    for full, initial in _declarations(model):
        if full in initials:
            continue
        if isinstance(initial, Scaled):
            factors.setdefault(full, []).append(initial)
        else:
            initials[full] = initial
    missing = sorted(names - set(initials))
    if missing:
        owner = type(model.get_submodule(missing[0].rpartition(".")[0])).__name__
        short = missing[0].rpartition(".")[2]
        raise GptkitError(
            f"no module declares the initialization of the parameter {missing[0]!r} of {owner}",
            hint=f'Give {owner} a method: def initial(self): return {{"{short}": "ones"}}, or "zeros", "weight", "output", '
            '"embedding", or a function of shape and generator.',
        )
    return {name: Declared(initials[name], tuple(factors.get(name, ()))) for name in names}


def _declarations(model: nn.Module) -> Iterator[tuple[str, Initial]]:
    """Yield full names of parameters with declarations: outer modules first, defaults after those of their module."""
    # A parameter that several modules hold is listed under its first name only.
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for prefix, module in model.named_modules():
        declare = getattr(module, "initial", None)
        for name, initial in (declare() if declare is not None else {}).items():
            full = f"{prefix}.{name}" if prefix else name
            if full not in known:
                raise ValueError(f"{type(module).__name__}.initial() names {name!r}, which is not a parameter of it")
            yield full, initial
        for name, _ in module.named_parameters(recurse=False):
            default = _default(module, name)
            if default is not None:
                yield f"{prefix}.{name}" if prefix else name, default


def _default(module: nn.Module, name: str) -> Role | None:
    own: Mapping[str, Role] = getattr(module, "default_initial", {})
    if name in own:
        return own[name]
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return "zeros" if name == "bias" else "ones"
    if name == "bias" or name.endswith("_bias"):
        return "zeros"
    if isinstance(module, nn.Linear):
        return "weight"
    return None


def projections(module: nn.Module) -> dict[str, Mapping[str, tuple[slice, ...]]]:
    """Return the projections that a module's parameters hold, by the parameter's full name, as its children declare them."""
    result: dict[str, Mapping[str, tuple[slice, ...]]] = {}
    for prefix, inner in module.named_modules():
        declare = getattr(inner, "projections", None)
        for name, rows in (declare() if declare is not None else {}).items():
            result.setdefault(f"{prefix}.{name}" if prefix else name, rows)
    return result


def consecutive(names: Sequence[str], sizes: Sequence[int]) -> dict[str, tuple[slice, ...]]:
    """Return the rows of consecutive projections, for a method ``projections``; there may be more names than sizes."""
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return {name: (slice(end - size, end),) for name, size, end in zip(names, sizes, ends, strict=False)}


def scaled_projections(module: nn.Module, factor: float, *kinds: str) -> dict[str, Initial]:
    """Return declarations for an outer ``initial`` that multiply the initialization of some of a module's projections.

    Args:
        factor: β.
        kinds: names of projections: ``value``, ``output``.
    """
    chosen: dict[str, Initial] = {}
    for name, parts in projections(module).items():
        rows = tuple(part for kind in kinds for part in parts.get(kind, ()))
        if rows:
            chosen[name] = Scaled(factor, rows)
    return chosen
