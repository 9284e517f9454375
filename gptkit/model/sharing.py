"""Ownership of shared modules: they belong to the model, and layers refer to them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import nn

__all__ = ["own_shared"]


def own_shared(model: nn.Module, shared: Mapping[Hashable, Any]) -> nn.ModuleDict:
    """Move the shared modules that hold parameters or buffers from the layers that registered them to the model.

    Each layer keeps its attribute as a plain reference, so that sharding, state dicts and activation checkpointing have
    one owner of every parameter.

    Args:
        shared: the objects of `BuildContext.share` by key; a key is a tuple that begins with the component's name.

    Returns:
        The modules by name: ``t5-bias``, and ``t5-bias-2`` for a second module of the same component.
    """
    owned = nn.ModuleDict()
    names: dict[int, str] = {}
    for key, value in shared.items():
        if isinstance(value, nn.Module) and (any(True for _ in value.parameters()) or any(True for _ in value.buffers())):
            base = str(key[0] if isinstance(key, tuple) else key).replace(".", "-")
            name, count = base, 1
            while name in owned:
                count += 1
                name = f"{base}-{count}"
            owned[name] = value
            names[id(value)] = name
    for holder in list(model.modules()):
        for attribute, child in list(holder._modules.items()):
            if id(child) in names and not isinstance(holder, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
                del holder._modules[attribute]
                holder.__dict__[attribute] = child  # nn.Module.__setattr__ would register it again
    return owned
