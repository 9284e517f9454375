"""Frozen parameters: those that a training does not change.

They are selected by glob patterns of full names, in which ``*`` also matches dots. The name of a module stands for all of
its parameters. Patterns apply in order; one that begins with ``!`` makes the parameters that it matches trainable again::

    ["embedding", "blocks.[0-9].*"]     # the token embedding and the first ten blocks are frozen
    ["*", "!*norm*", "!head"]           # all but the norms and the head
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from gptkit.core.errors import TrainingError
from gptkit.core.patterns import matches, unmatched
from gptkit.nn.linear import AdaptedLinear
from gptkit.nn.stacked import StackedLinear

__all__ = ["adapted_modules", "adapter_names", "freeze", "freeze_problems", "frozen_names", "projection_names"]


def frozen_names(model: nn.Module, patterns: Sequence[str] | None) -> set[str]:
    """Return the names of the parameters that `patterns` freeze.

    Args:
        model: the model.
        patterns: as above; None freezes all parameters but those of adapters if the model has adapters, else none.
    """
    names = [name for name, _ in model.named_parameters()]
    if patterns is None:
        adapters = adapter_names(model)
        return set(names) - adapters if adapters else set()
    return _frozen(names, patterns)


def _frozen(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    frozen: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if matches(name, pattern.removeprefix("!"))}
        frozen = frozen - matched if pattern.startswith("!") else frozen | matched
    return frozen


def adapter_names(model: nn.Module) -> set[str]:
    """Return the names of the parameters that adapters add to a model's projections."""
    return {f"{prefix}.{name}" for prefix, module in adapted_modules(model) for name in module.adapter_parameters()}


def adapted_modules(model: nn.Module) -> list[tuple[str, AdaptedLinear]]:
    """Return the projections of a model that have adapters, by name."""
    modules = [(name, module) for name, module in model.named_modules() if isinstance(module, AdaptedLinear)]
    return [(name, module) for name, module in modules if module.adapter_parameters()]


def projection_names(model: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of a model's projections that can have adapters, and of the stacked projections of experts."""
    modules = list(model.named_modules())
    adapted = [name for name, module in modules if isinstance(module, AdaptedLinear)]
    return adapted, [name for name, module in modules if isinstance(module, StackedLinear)]


def freeze_problems(names: Iterable[str], patterns: Sequence[str]) -> Iterator[tuple[int | None, str]]:
    """Yield the problems of patterns: the index of the pattern (None for all of them together) and a message.

    Args:
        names: the names of the model's parameters.
        patterns: as in `frozen_names`.
    """
    names = list(names)
    wrong = list(unmatched(names, [pattern.removeprefix("!") for pattern in patterns]))
    yield from wrong
    if patterns and not wrong and len(_frozen(names, patterns)) == len(set(names)):
        yield None, "every parameter is frozen; add '!PATTERN' at the end to make some trainable"


def freeze(model: nn.Module, patterns: Sequence[str] | None) -> None:
    """Freeze parameters in place (`requires_grad`).

    Raises:
        TrainingError: a pattern matches no parameter, or all are frozen.
    """
    problems = list(freeze_problems((name for name, _ in model.named_parameters()), patterns or ()))
    if problems:
        raise TrainingError(f"training.freeze: {'; '.join(message for _, message in problems)}")
    frozen = frozen_names(model, patterns)
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
