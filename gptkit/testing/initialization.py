"""The check that a component's constructor gives its parameters no values that are lost."""

from __future__ import annotations

import inspect
import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gptkit.nn import stacked
from gptkit.testing.check import Checks, expect
from gptkit.testing.subject import VOCAB, Subject

__all__ = ["checks"]

checks = Checks()

_STACKED = (inspect.getsourcefile(stacked) or "").replace("\\", "/")
_EMPTY = frozenset({"empty", "empty_like", "empty_strided", "new_empty"})


class _Constructors(TorchFunctionMode):
    """Mode that fills empty tensors with NaN, suppresses torch's initialization, and records in-place writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        target = kwargs["tensor"] if "tensor" in kwargs else args[0] if args else None
        written = [target] if isinstance(target, Tensor) and _writes(func, name) else []
        if written and _in_torchs_own_initialization():
            return target
        result = func(*args, **kwargs)
        self.written += written
        if name in _EMPTY and isinstance(result, Tensor) and result.is_floating_point():
            result.fill_(torch.nan)
        return result


def _writes(func: Any, name: str) -> bool:
    """Return whether a function changes its first argument in place."""
    if getattr(func, "__module__", None) == "torch.nn.init" or name == "__setitem__" or func == Tensor.data.__set__:  # type: ignore[attr-defined]
        return True
    return name != "requires_grad_" and name.endswith("_") and (not name.endswith("__") or name.startswith("__i"))


def _in_torchs_own_initialization() -> bool:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename.replace("\\", "/")
        torchs = "/torch/nn/modules/" in file or file == _STACKED  # which does as torch's linear layers do
        if torchs and frame.f_code.co_name in ("reset_parameters", "_reset_parameters"):
            return True
        frame = frame.f_back
    return False


def _constructed(subject: Subject) -> nn.Module:
    """The tiny model's parts as their constructors leave them, by the names that they have in a model."""
    spec = subject.model_spec
    context = spec.context(VOCAB)
    embedding = spec.embedding.build(context)
    layers = enumerate(spec.layer_specs())
    blocks = [layer.block.build(context.replace(layer=layer.parts(index))) for index, layer in layers]
    norm = nn.Identity() if spec.final_norm is None else spec.final_norm.build(context, dim=spec.d_model)
    head = spec.head.build(context.replace(layer=spec.head_parts()), embedding=embedding)
    return nn.ModuleDict({"embedding": embedding, "blocks": nn.ModuleList(blocks), "final_norm": norm, "head": head})


@checks.add(
    "keeps-no-constructed-values", "Modules are built without memory, so what a constructor writes to a parameter is lost."
)
@torch.no_grad()
def keeps_no_constructed_values(subject: Subject) -> None:
    with _Constructors() as seen:
        constructed = _constructed(subject)
    written = {tensor.untyped_storage().data_ptr() for tensor in seen.written}
    declared = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in constructed.named_modules()
        for name in (module.initial() if hasattr(module, "initial") else {})
    }
    initialized = dict(subject.make().named_parameters(remove_duplicate=False))
    for name, parameter in constructed.named_parameters():
        in_place = parameter.untyped_storage().data_ptr() in written
        # A parameter that `initial` declares may be constructed from anything: a placeholder of its shape.
        # One that layers share may have the name of another layer.
        if (name in declared and not in_place) or name not in initialized:
            continue
        given = ~parameter.isnan()
        lost = given & (parameter != initialized[name])
        how = "writes values to" if in_place else "gives values to"
        expect(not lost.any(), f"the constructor {how} the parameter {name!r}, which are lost; declare them in `initial`")
