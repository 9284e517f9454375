"""How a component declares the treatment of its parameters by optimizers.

A module may have a method ``parameter_options() -> dict[str, ParameterOptions]`` that maps names of its parameters (dotted
for those of its children) to options. An outer module's declaration overrides an inner one's, option by option. By default,
weight decay applies to matrices, but not to biases and the weights of norms; matrices outside of embeddings, heads and
positions are hidden matrices. The groups of a spec's optimizer override the declarations of modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from gptkit.core.errors import TrainingError
from gptkit.core.patterns import matches, unmatched
from gptkit.kinds.optimizer import ParameterGroupSpec
from gptkit.nn.embedding import Embedding
from gptkit.nn.head import Head
from gptkit.nn.position import Position
from gptkit.nn.stacked import StackedLinear

__all__ = ["ParameterOptions", "Resolved", "group_of", "group_problems", "parameter_options"]


@dataclass(frozen=True)
class ParameterOptions:
    """Options of a parameter for optimizers; None selects the default, which depends on its shape and module.

    Attributes:
        decay: whether weight decay applies.
        hidden: whether it is a matrix, or a stack of matrices, between hidden features, whose updates Muon orthogonalizes.
        rate: factor of the learning rate.
    """

    decay: bool | None = None
    hidden: bool | None = None
    rate: float | None = None


@dataclass(frozen=True)
class Resolved:
    """The options of one parameter, with defaults.

    Attributes:
        decay: whether weight decay applies.
        hidden: whether it is a hidden matrix, or a stack of them.
        rate: factor of the learning rate.
        weight_decay: the weight decay of its group in the spec; None for the optimizer's.
        label: name of its group in the spec; None for parameters of no group.
    """

    decay: bool
    hidden: bool
    rate: float
    weight_decay: float | None = None
    label: str | None = None


def group_of(name: str, groups: Sequence[ParameterGroupSpec]) -> int | None:
    """Return the index of the first group that matches a parameter's name."""
    return next((index for index, group in enumerate(groups) if any(matches(name, each) for each in group.match)), None)


def group_problems(
    names: Sequence[str], trained: Sequence[str], groups: Sequence[ParameterGroupSpec]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the problems of groups, each with its path below `groups`.

    Args:
        names: names of the model's parameters.
        trained: names of those that are not frozen.
        groups: the groups of the optimizer.
    """
    used = {group_of(name, groups) for name in trained}
    for index, group in enumerate(groups):
        wrong = list(unmatched(names, group.match))
        yield from (((index, "match", position), message) for position, message in wrong)
        if not wrong and index not in used:
            frozen = not any(matches(name, pattern) for name in trained for pattern in group.match)
            why = "are frozen (training.freeze)" if frozen else "belong to earlier groups; move this one before them"
            yield (index, "match"), f"all parameters that {group.label!r} matches {why}"


def parameter_options(model: nn.Module, groups: Sequence[ParameterGroupSpec] = ()) -> dict[str, Resolved]:
    """Return the options of every trainable parameter by name, in the model's order.

    Args:
        model: the model.
        groups: the groups of the optimizer's spec.

    Raises:
        ValueError: a module declares options of a name that is not a parameter of it.
        TrainingError: a group has no parameters.
    """
    names = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    problems = list(group_problems(list(names), [name for name in names if names[name]], groups))
    if problems:
        raise TrainingError(f"training.optimizer.groups: {'; '.join(message for _, message in problems)}")
    declared: dict[int, ParameterOptions] = {}
    outer, biases, stacks = set[int](), set[int](), set[int]()
    # named_modules iterates from the outermost module inwards.
    for module in model.modules():
        declare = getattr(module, "parameter_options", None)
        declared_names = dict(module.named_parameters(remove_duplicate=False)) if declare is not None else {}
        for name, options in (declare() if declare is not None else {}).items():
            if name not in declared_names:
                raise ValueError(f"{type(module).__name__}.parameter_options() names {name!r}, which is not its parameter")
            key = id(declared_names[name])
            declared[key] = _merged(declared.get(key, ParameterOptions()), options)
        if isinstance(module, (Embedding, Head, Position, nn.Embedding)):
            outer |= {id(parameter) for parameter in module.parameters()}
        elif isinstance(module, StackedLinear):
            stacks.add(id(module.weight))
            biases |= {id(module.bias)} - {id(None)}
    resolved: dict[str, Resolved] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        key = id(parameter)
        options = declared.get(key, ParameterOptions())
        decay = parameter.ndim >= 2 and key not in biases
        hidden = key in stacks or (parameter.ndim == 2 and key not in outer | biases)
        index = group_of(name, groups)
        own = None if index is None else groups[index]
        if own is not None:
            options = _merged(ParameterOptions(hidden=own.hidden, rate=own.rate), options)
        resolved[name] = Resolved(
            decay if options.decay is None else options.decay,
            hidden if options.hidden is None else options.hidden,
            1.0 if options.rate is None else options.rate,
            None if own is None else own.weight_decay,
            None if own is None else own.label,
        )
    return resolved


def _merged(outer: ParameterOptions, inner: ParameterOptions) -> ParameterOptions:
    return ParameterOptions(
        inner.decay if outer.decay is None else outer.decay,
        inner.hidden if outer.hidden is None else outer.hidden,
        inner.rate if outer.rate is None else outer.rate,
    )
