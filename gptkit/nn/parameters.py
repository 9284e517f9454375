"""How a component declares the treatment of its parameters by optimizers.

A module may have a method ``parameter_options() -> dict[str, ParameterOptions]`` that maps names of its parameters (dotted
for those of its children) to options. An outer module's declaration overrides an inner one's, option by option. By default,
weight decay applies to matrices, but not to biases and the weights of norms; matrices outside of embeddings, heads and
positions are hidden matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from gptkit.nn.embedding import Embedding
from gptkit.nn.head import Head
from gptkit.nn.position import Position
from gptkit.nn.stacked import StackedLinear

__all__ = ["ParameterOptions", "Resolved", "parameter_options"]


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
    """The options of one parameter, with defaults."""

    decay: bool
    hidden: bool
    rate: float


def parameter_options(model: nn.Module) -> dict[str, Resolved]:
    """Return the options of every trainable parameter by name, in the model's order.

    Raises:
        ValueError: a module declares options of a name that is not a parameter of it.
    """
    declared: dict[int, ParameterOptions] = {}
    outer, biases, stacks = set[int](), set[int](), set[int]()
    # named_modules iterates from the outermost module inwards.
    for module in model.modules():
        declare = getattr(module, "parameter_options", None)
        own = dict(module.named_parameters(remove_duplicate=False)) if declare is not None else {}
        for name, options in (declare() if declare is not None else {}).items():
            if name not in own:
                raise ValueError(f"{type(module).__name__}.parameter_options() names {name!r}, which is not its parameter")
            declared[id(own[name])] = _merged(declared.get(id(own[name]), ParameterOptions()), options)
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
        resolved[name] = Resolved(
            decay if options.decay is None else options.decay,
            hidden if options.hidden is None else options.hidden,
            1.0 if options.rate is None else options.rate,
        )
    return resolved


def _merged(outer: ParameterOptions, inner: ParameterOptions) -> ParameterOptions:
    return ParameterOptions(
        inner.decay if outer.decay is None else outer.decay,
        inner.hidden if outer.hidden is None else outer.hidden,
        inner.rate if outer.rate is None else outer.rate,
    )
