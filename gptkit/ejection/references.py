"""Modules that layers share: they belong to the model, and layers refer to them, as in the built model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gptkit.model.spec import ModelSpec

if TYPE_CHECKING:
    from gptkit.model.gpt import GPT

__all__ = ["REFER", "Referenced", "reference_statements", "referenced_modules"]


@dataclass(frozen=True)
class Referenced:
    """A module that layers share.

    Attributes:
        name: its name in the model's `shared`.
        holders: the modules that refer to it, as paths from `blocks`, each with the attribute.
        packs: whether it has packed projections of queries, keys and values, or of a gate and an up-projection.
    """

    name: str
    holders: tuple[tuple[str, str], ...]
    packs: bool


def referenced_modules(spec: ModelSpec, vocab_size: int) -> list[Referenced]:
    """Return the modules that the layers of a model share."""
    from gptkit.model.gpt import GPT

    model: GPT = GPT(spec, vocab_size, device="meta")
    result = []
    for name, module in model.shared.named_children():
        holders = [
            (path, attribute)
            for path, holder in model.blocks.named_modules()
            for attribute, value in vars(holder).items()
            if value is module
        ]
        leaves = {each.rpartition(".")[0].rpartition(".")[2] for each, _ in module.named_parameters()}
        result.append(Referenced(name, tuple(holders), bool(leaves & {"qkv", "gate_up"})))
    return [shared for shared in result if shared.holders]


def reference_statements(shared: Sequence[Referenced]) -> list[str]:
    """Return the statements by which the model owns shared modules; they call `refer`."""
    if not shared:
        return []
    owned = ", ".join(f'"{each.name}": {_expression(*each.holders[0])}' for each in shared)
    lines = [
        "# Modules that layers share belong to the model, and layers refer to them.",
        f"self.shared = nn.ModuleDict({{{owned}}})",
    ]
    for each in shared:
        value = f'self.shared["{each.name}"]'
        rests: dict[tuple[str, str], list[int]] = {}
        for path, attribute in each.holders:
            layer, _, rest = path.partition(".")
            rests.setdefault((rest, attribute), []).append(int(layer))
        for (rest, attribute), layers in rests.items():
            numbers = f"({layers[0]},)" if len(layers) == 1 else str(tuple(layers))
            if layers == list(range(layers[0], layers[-1] + 1)):
                numbers = f"range({layers[0]}, {layers[-1] + 1})" if layers[0] else f"range({layers[-1] + 1})"
            lines += [f"for layer in {numbers}:", f'    refer(self.blocks[layer]{_inside(rest)}, "{attribute}", {value})']
    return lines


def _expression(path: str, attribute: str) -> str:
    layer, _, rest = path.partition(".")
    return f"self.blocks[{layer}]{_inside(rest)}.{attribute}"


def _inside(path: str) -> str:
    """Return the expression of a module inside another, after that of the other: ``.low[0].attention``."""
    return "".join(f"[{name}]" if name.isdigit() else f".{name}" for name in path.split(".") if name)


REFER = '''
def refer(holder: nn.Module, name: str, shared: nn.Module) -> None:
    """Replace a module by one that the model owns, whose weights are those of the model alone."""
    delattr(holder, name)
    holder.__dict__[name] = shared
'''
"""The function that the statements call."""
