"""The check that a component computes on the device of its input.

The model is called on the meta device, as accelerators may be missing; every operation on tensors of two devices is an error
there, as it is on an accelerator.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gptkit.testing.check import Checks, ContractError, skip
from gptkit.testing.subject import Subject

__all__ = ["checks"]

checks = Checks()

_COPIES = frozenset({"_to_copy", "copy_"})
_INDEXED = frozenset({"index", "index_put", "index_put_", "_unsafe_index"})
"""Operations whose indices may be on the CPU."""


class _OneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that raises `ContractError` for an operation on tensors of the meta device and of another one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        given = (args[0], args[2:]) if name in _INDEXED else (args, kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        other = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor) and _is_elsewhere(leaf)]
        if other and name not in _COPIES and any(tensor.device.type == "meta" for tensor in tensors):
            shape, device = tuple(other[0].shape), other[0].device
            raise ContractError(
                f"a tensor of shape {shape} is on the device {device} where others are on that of the model, in the "
                f"operation {name!r}{_location()}; create it with device=x.device"
            )
        return func(*args, **(kwargs or {}))


def _is_elsewhere(tensor: Tensor) -> bool:
    return tensor.device.type != "meta" and tensor.dim() > 0  # a number may be on the CPU


def _location() -> str:
    """Return the innermost line outside of torch, as a parenthesis."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] != "torch":
            return f" ({module}, line {frame.f_lineno})"
        frame = frame.f_back
    return ""


@checks.add("one-device", "On a GPU, an operation on tensors of two devices is an error; tests on a CPU do not show it.")
@torch.no_grad()
def one_device(subject: Subject) -> None:
    ids = torch.zeros(2, 12, dtype=torch.long, device="meta")
    for companion in subject.companions():
        model = subject.make(companion, device="meta").eval()
        try:
            with _OneDevice():  # type: ignore[no-untyped-call]
                model(ids, ids)
                cache = model.new_cache(2)
                model(ids, cache=cache)
                model(ids[:, :1], cache=cache)
        except ContractError:
            raise
        except (NotImplementedError, RuntimeError) as error:
            skip(f"it cannot be called on the meta device: {str(error).strip().partition(chr(10))[0]}")
