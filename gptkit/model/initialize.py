"""Starting values: a parameter's numbers depend on the seed, its name and its shape only.

So they are the same on any device, with any number of layers, and however the model was built.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from gptkit.core.errors import GptkitError
from gptkit.kinds.context import BuildContext
from gptkit.kinds.initializer import InitializerSpec
from gptkit.nn.initial import Initial

__all__ = ["initialize", "roles"]


def roles(model: nn.Module) -> dict[str, Initial]:
    """How each parameter starts, by its name: the outermost module that speaks for it is heard."""
    names = {name for name, _ in model.named_parameters()}
    found: dict[str, Initial] = {}
    # named_modules goes from the outside in.
    for prefix, module in model.named_modules():
        declare = getattr(module, "initial", None)
        for name, start in (declare() if declare is not None else {}).items():
            full = f"{prefix}.{name}" if prefix else name
            if full not in names and not _exists(model, full):
                raise ValueError(f"{type(module).__name__}.initial() names {name!r}, which is no parameter of it")
            found.setdefault(full, start)
        for name, _ in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            default = _default(module, name)
            if default is not None and full not in found:
                found[full] = default
    missing = sorted(names - set(found))
    if missing:
        owner = type(model.get_submodule(missing[0].rpartition(".")[0])).__name__
        short = missing[0].rpartition(".")[2]
        raise GptkitError(
            f"nobody says how the parameter {missing[0]!r} of {owner} starts",
            hint=f'Give {owner} a method: def initial(self): return {{"{short}": "ones"}}, or "zeros", "weight", "output", '
            '"embedding", or a function of shape and generator.',
        )
    return {name: found[name] for name in names}


def _exists(model: nn.Module, name: str) -> bool:
    # A shared or tied parameter is listed under its first name only.
    return any(name == other for other, _ in model.named_parameters(remove_duplicate=False))


def _default(module: nn.Module, name: str) -> Initial | None:
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return "zeros" if name == "bias" else "ones"
    if name == "bias" or name.endswith("_bias"):
        return "zeros"
    if isinstance(module, nn.Linear):
        return "weight"
    return None


@torch.no_grad()
def initialize(model: nn.Module, scheme: InitializerSpec, context: BuildContext, seed: int) -> None:
    """Fill every parameter of the model in place."""
    starts = roles(model)
    for name, parameter in model.named_parameters():
        parameter.copy_(_values(starts[name], scheme, context, parameter.shape, _generator(seed, name)))


def _values(
    start: Initial, scheme: InitializerSpec, context: BuildContext, shape: torch.Size, generator: torch.Generator
) -> Tensor:
    if callable(start):
        return start(shape, generator)
    if start == "zeros":
        return torch.zeros(shape)
    if start == "ones":
        return torch.ones(shape)
    return scheme.fill(start, shape, generator, context)


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
