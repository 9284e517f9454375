"""Initialization: the values of a parameter depend on the seed, its name and its shape only.

They are therefore the same on every device and with any number of layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext, ParameterInfo
from gptkit.kinds.initializer import InitializerSpec
from gptkit.nn.initial import Declared, declared, projections

__all__ = ["initialize"]


@torch.no_grad()
def initialize(
    model: nn.Module,
    scheme: InitializerSpec,
    context: BuildContext,
    seed: int,
    copy: Callable[[Tensor, Tensor], object] = Tensor.copy_,
) -> None:
    """Fill every parameter of the model in place.

    Args:
        copy: function that copies the values of a whole parameter into the model's, which may be a shard of it.
    """
    declarations, packed = declared(model), projections(model)
    for name, parameter in model.named_parameters():
        own_context = context.replace(parameter=_info(name, packed.get(name, {})))
        values = _values(declarations[name], scheme, own_context, parameter.shape, _generator(seed, name))
        if values.shape != parameter.shape:
            shapes = f"shape {tuple(values.shape)}, not {tuple(parameter.shape)}"
            raise GptkitError(
                f"the initialization of the parameter {name!r} returns {shapes}",
                hint="Return a tensor of the shape that the function in `initial` receives.",
            )
        copy(parameter, values)


def _info(name: str, packed: Mapping[str, tuple[slice, ...]]) -> ParameterInfo:
    first, _, rest = name.partition(".")
    index = rest.partition(".")[0]
    return ParameterInfo(name, int(index) if first == "blocks" and index.isdigit() else None, packed)


def _values(
    declaration: Declared, scheme: InitializerSpec, context: BuildContext, shape: torch.Size, generator: torch.Generator
) -> Tensor:
    initial = declaration.initial
    if callable(initial):
        values = initial(shape, generator)
    elif initial == "zeros":
        values = torch.zeros(shape)
    elif initial == "ones":
        values = torch.ones(shape)
    else:
        values = scheme.fill(initial, shape, generator, context)
    for factor in declaration.factors:
        factor.apply_(values)
    return values


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
