"""Check that modules keep no tensors of a text in their attributes.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gptkit.core.errors import GptkitError
from gptkit.model.gpt import GPT
from gptkit.testing.check import Checks, expect, skip
from gptkit.testing.subject import Subject, token_ids

__all__ = ["checks"]

checks = Checks()

_Attribute = tuple[str, str]
"""Name of a module in the model, and of its attribute."""

_TORCHS_OWN = frozenset(vars(nn.Module()))


@checks.add(
    "keeps-no-text",
    "Sequences are decoded together, reordered and undone, which a tensor in an attribute does not follow.",
    prerequisite=True,
)
@torch.no_grad()
def keeps_no_text(subject: Subject) -> None:
    try:
        model = subject.make()
    except GptkitError:
        skip("it cannot be built; another check reports the error")
    modules = dict(model.named_modules())
    for training in (False, True):
        model.train(training)
        # A table depends on positions and sizes only, so it is the same after another text of the same size.
        held, held_after = (_held_after(model, modules, seed) for seed in (0, 1))
        for (path, attribute), tensors in held.items():
            if not _equal(tensors, held_after.get((path, attribute), tensors)):
                _report(modules[path], attribute)


def _held_after(model: GPT, modules: Mapping[str, nn.Module], seed: int) -> dict[_Attribute, list[Tensor]]:
    """Return what modules hold after a text in two pieces, with a cache in evaluation."""
    ids_BT, cache = token_ids(2, 12, seed), None if model.training else model.new_cache(2)
    try:
        model(ids_BT[:, :9], cache=cache)
        model(ids_BT[:, 9:], cache=cache)
    except Exception:
        skip("it does not run; another check reports the error")
    return _held(modules)


def _held(modules: Mapping[str, nn.Module]) -> dict[_Attribute, list[Tensor]]:
    """Return copies of the tensors in attributes of modules, except parameters, buffers and modules."""
    result = {}
    for path, module in modules.items():
        for attribute, value in vars(module).items():
            if attribute in _TORCHS_OWN:
                continue
            # A tensor on the meta device is reported by the check `builds-on-meta`.
            leaves = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.device.type != "meta"]
            tensors = [leaf.detach().clone() for leaf in leaves]
            if tensors:
                result[path, attribute] = tensors
    return result


def _equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(
        one.shape == other.shape and torch.equal(one, other) for one, other in zip(some, others, strict=True)
    )


def _report(module: nn.Module, attribute: str) -> None:
    seen = f"the attribute {attribute!r} of {type(module).__name__} holds a tensor that depends on the text"
    remedy = "keep the state of a sequence in forward.state(self), and pass values to other modules by forward.publish"
    expect(False, f"{seen}; {remedy}")
