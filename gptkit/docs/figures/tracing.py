"""What a module computes from its parts, recorded from a forward pass: calls of its children, and the operations between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gptkit.model.tree import module_title

__all__ = ["Step", "parts_of", "trace"]

_OPERATIONS = {
    **dict.fromkeys(("add", "__add__", "__radd__", "__iadd__", "add_"), "+"),
    **dict.fromkeys(("sub", "__sub__"), "−"),
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "mul_"), "×"),
    **dict.fromkeys(("tanh", "sigmoid", "softmax", "silu", "gelu", "relu", "exp", "softplus"), ""),
    **dict.fromkeys(("matmul", "__matmul__", "bmm", "einsum"), "·"),
    "linear": "W · x",
    "cat": "concatenate",
    "embedding": "look up",
    "cross_entropy": "cross-entropy",
}
"""Operations that are steps of their own, and their symbols; others (views, casts, indices) belong to the step before."""


@dataclass(frozen=True)
class Step:
    """One step of a computation.

    Attributes:
        name: a child's name, or the symbol of an operation.
        what: the child's class with its sizes; empty for an operation.
        shape: the shape of the result.
        sources: indices of the steps whose results it reads; -1 for the module's input.
        parameters: number of parameters of the child.
    """

    name: str
    what: str
    shape: tuple[int, ...]
    sources: tuple[int, ...]
    parameters: int = 0


class _Recorder(TorchFunctionMode):
    """Record the operations between the calls of children."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.inside = 0
        self._origin: dict[int, tuple[int, ...]] = {}
        self._kept: list[Tensor] = []

    def begin(self, *inputs: Tensor) -> None:
        for tensor in inputs:
            self.mark(tensor, (-1,))

    def mark(self, tensor: Tensor, sources: tuple[int, ...]) -> None:
        self._origin[id(tensor)] = sources
        self._kept.append(tensor)  # so that no other tensor gets its id

    def sources(self, values: Any) -> tuple[int, ...]:
        origins = {source for tensor in _tensors(values) for source in self._origin.get(id(tensor), ())}
        return tuple(sorted(origins))

    def add(self, step: Step, results: Any) -> None:
        self.steps.append(step)
        for tensor in _tensors(results):
            self.mark(tensor, (len(self.steps) - 1,))

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.inside or result is None:
            return result
        sources = self.sources((args, kwargs or {}))
        if not sources:
            return result
        name = getattr(func, "__name__", "")
        first = next(_tensors(result), None)
        if name not in _OPERATIONS or first is None:
            for tensor in _tensors(result):
                self.mark(tensor, sources)
            return result
        self.add(Step(_OPERATIONS[name] or name, "", tuple(first.shape), sources), result)
        return result


@torch.no_grad()
def trace(module: nn.Module, run: Callable[[nn.Module], Any], inputs: Sequence[Tensor]) -> list[Step]:
    """Return the steps of one forward pass of a module, in their order.

    Args:
        module: the module; its children are single steps.
        run: calls the module with the inputs.
        inputs: the tensors whose use is followed.
    """
    recorder = _Recorder()
    handles = []
    for name, child in parts_of(module):

        def before(child: nn.Module, args: Any) -> None:
            recorder.inside += 1

        def after(child: nn.Module, args: Any, result: Any, name: str = name) -> Any:
            recorder.inside -= 1
            if recorder.inside or isinstance(child, nn.Identity):
                return None
            # A new object, so that a child that returns its input is not taken for the input.
            own = result.view_as(result) if isinstance(result, Tensor) else result
            first = next(_tensors(own), None)
            sources = recorder.sources(args)
            if first is not None and sources:
                count = sum(parameter.numel() for parameter in child.parameters())
                recorder.add(Step(name, module_title(child), tuple(first.shape), sources, count), own)
            return own

        handles += [child.register_forward_pre_hook(before), child.register_forward_hook(after)]
    recorder.begin(*inputs)
    try:
        with recorder:
            run(module)
    finally:
        for handle in handles:
            handle.remove()
    return recorder.steps


def parts_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children, those in lists of modules, and modules of the model that it shares with other layers, by name."""
    shared = [(name, value) for name, value in vars(module).items() if isinstance(value, nn.Module)]
    for name, child in (*module.named_children(), *shared):
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            for inner, part in child.named_children():
                yield f"{name}.{inner}", part
        else:
            yield name, child


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
