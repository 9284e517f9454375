"""The decode step of a model as one graph, whose inputs are all of its tensors.

Shapes: B batch, T tokens of each row (the width), S keys in view, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gptkit.core.errors import StateError
from gptkit.inference.compiled.form import StepForm
from gptkit.inference.compiled.layout import TracedCache, View, dynamic_dimensions, leaves, tensors_of, views
from gptkit.inference.compiled.packing import name_products
from gptkit.model.gpt import GPT

__all__ = ["Traced", "state_of", "trace"]

_CAPACITY = 160
"""Capacity of the cache that is traced. Every size is a symbol; the numbers only have to differ from one another."""


@dataclass(frozen=True)
class Traced:
    """A traced decode step.

    Attributes:
        program: the graph (`torch.export.ExportedProgram`), which holds no weights.
        sources: where each input comes from, in the order of the graph's inputs: ``("weight", name)``,
            ``("constant", name)``, ``("ids",)``, ``("left_padding",)``, ``("offset",)``, ``("mark", window)``,
            ``("used", window)``, ``("state", leaf, tensor)``.
        constants: tensors that are neither parameters nor buffers, by name.
    """

    program: Any
    sources: list[tuple[Any, ...]]
    constants: dict[str, Tensor]


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a model by name, each once."""
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def trace(model: GPT, form: StepForm) -> Traced:
    """Trace a decode step of a model, for any capacity and any number of tokens held.

    Args:
        model: the model, in evaluation mode.
        form: number of rows and of their tokens.

    Raises:
        Exception: whatever the model's components raise where they cannot be traced.
    """
    many, n_rows = form.many, 3 if form.many else 1
    capacity = min(_CAPACITY, model.context_length)
    device = model.device
    with torch.no_grad():
        cache = model.new_cache(n_rows, capacity=capacity, keep_hidden=form.keeps_hidden)
        # Tables and states that exist after the first call only are part of the graph's inputs.
        n_read = max(1, min(2, capacity - form.width))
        model(torch.zeros(n_rows, n_read, dtype=torch.long, device=device), cache=cache, last_only=True)
        states = leaves(cache)
        now = views(states, form.width)
        marks = [_mark(view, device) for view in now.values()]
        inputs: tuple[Any, ...] = (
            state_of(model),
            torch.zeros(n_rows, form.width, dtype=torch.long, device=device),
            torch.zeros(n_rows, dtype=torch.long, device=device),
            _scalar(cache.length, device),
            marks,
            [tensors_of(leaf) for leaf in states],
        )
        auto = torch.export.Dim.AUTO
        rows = {0: auto} if many else {}
        shapes: tuple[Any, ...] = (
            {name: {} for name in inputs[0]},
            dict(rows),
            dict(rows),
            {},
            [({0: auto}, {}) for _ in marks],
            dynamic_dimensions(states, many=many),
        )
        step = _DecodeStep(model, cache, list(now))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(step, inputs, dynamic_shapes=shapes, strict=False)
    name_products(program)
    sources = list(_sources(inputs, list(now)))
    _check_symbols(program, sources, many=many)
    constants = {name: value for name, value in program.constants.items() if isinstance(value, Tensor)}
    return Traced(program, sources, constants)


class _DecodeStep(nn.Module):
    def __init__(self, model: GPT, cache: Any, windows: list[int | None]) -> None:
        super().__init__()
        # In tuples: what is traced owns no tensor.
        self._model, self._cache, self._windows = (model,), (cache,), windows

    def forward(
        self,
        state: dict[str, Tensor],
        ids_BT: Tensor,
        left_padding_B: Tensor,
        offset: Tensor,
        marks: list[tuple[Tensor, Tensor]],
        tensors: list[list[Tensor]],
    ) -> Tensor:
        given = dict(zip(self._windows, marks, strict=True))
        cache = TracedCache(self._cache[0], offset, left_padding_B, given, tensors)
        output = functional_call(self._model[0], state, (ids_BT,), {"cache": cache, "last_only": ids_BT.shape[1] == 1})
        logits_BTV: Tensor = output.logits.float()
        return logits_BTV


def _mark(view: View, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.zeros(view.n_keys, dtype=torch.uint8, device=device), _scalar(view.used, device)


def _scalar(value: int, device: torch.device) -> Tensor:
    return torch.tensor(value, device=device)


def _sources(inputs: tuple[Any, ...], windows: list[int | None]) -> Iterator[tuple[Any, ...]]:
    """The meaning of each of the inputs, in the order in which export flattens them."""
    state, _, _, _, _, tensors = inputs
    yield from (("weight", name) for name in state)
    yield from (("ids",), ("left_padding",), ("offset",))
    for window in windows:
        yield from (("mark", window), ("used", window))
    for leaf, own in enumerate(tensors):
        yield from (("state", leaf, index) for index in range(len(own)))


def _check_symbols(program: Any, sources: list[tuple[Any, ...]], *, many: bool) -> None:
    """Check that no size that varies was specialized to the traced number."""
    from torch.fx.experimental.symbolic_shapes import free_symbols

    names = program.graph_signature.user_inputs
    known = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for name, source in zip(names, sources, strict=True):
        shape = known[name].meta["val"].shape
        varies = [0] if source[0] == "mark" or (many and source[0] in ("ids", "left_padding")) else []
        if not all(free_symbols(shape[dim]) for dim in varies):
            raise StateError(f"a component computes with a fixed size of {source[0]!r}")
