"""Check that modules leave the tensors that they receive unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gptkit.model.gpt import GPT
from gptkit.nn.position import Position
from gptkit.testing.check import Checks, expect
from gptkit.testing.subject import Subject, token_ids

__all__ = ["checks"]

checks = Checks()

_HOOKS = ("embed", "prepare", "rotate", "bias", "content_bias", "value_bias")
"""Methods of positions that receive tensors."""


@checks.add(
    "leaves-input-alone", "The residual connection, the backward pass and other parts use the input again after the call."
)
@torch.no_grad()
def leaves_input_alone(subject: Subject) -> None:
    ids = token_ids(2, 12)
    for named, model in subject.models():
        with _watched(model) as changed:
            cache = model.new_cache(2)
            model(ids)
            model(ids[:, :7], cache=cache)
            model(ids[:, 7:8], cache=cache)
        expect(not changed, f"{named}, the input of {', '.join(changed)} was changed in place; compute a new tensor")


@contextmanager
def _watched(model: GPT) -> Iterator[dict[str, None]]:
    """Collect the names of the modules and methods that change a tensor that they receive, innermost first."""
    changed: dict[str, None] = {}
    open_calls: list[list[tuple[Tensor, int]]] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        open_calls.append(_versions((args, kwargs)))

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if _differ(open_calls.pop()) and not changed:  # the modules around it received the same tensor
            changed[type(module).__name__] = None

    handles = []
    positions = [module for module in model.modules() if isinstance(module, Position)]
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True))
    for position in positions:
        for name in _HOOKS:
            object.__setattr__(
                position, name, _watching(getattr(position, name), f"{type(position).__name__}.{name}", changed)
            )
    try:
        yield changed
    finally:
        for handle in handles:
            handle.remove()
        for position in positions:
            for name in _HOOKS:
                object.__delattr__(position, name)


def _watching(method: Callable[..., Any], name: str, changed: dict[str, None]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        before = _versions((args, kwargs))
        result = method(*args, **kwargs)
        if _differ(before) and not changed:
            changed[name] = None
        return result

    return call


def _versions(values: Any) -> list[tuple[Tensor, int]]:
    """Return the tensors in the arguments of a call, with torch's counts of their changes, which views share."""
    return [(leaf, leaf._version) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _differ(before: list[tuple[Tensor, int]]) -> bool:
    return any(tensor._version != version for tensor, version in before)
