"""`CompiledStep`: a compiled decode step, bound to the weights of a model.

Shapes: B batch, T tokens of each row, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.inference.compiled.form import StepForm
from gptkit.inference.compiled.graphs import GraphedRun, capture_on_cuda
from gptkit.inference.compiled.layout import leaves, tensors_of, views
from gptkit.inference.compiled.packing import packed
from gptkit.inference.compiled.trace import state_of
from gptkit.model.cache import Cache
from gptkit.model.gpt import GPT

__all__ = ["CompiledStep"]

_PER_STEP = ("ids", "left_padding", "offset", "used")
"""Kinds of inputs that are other tensors in each step."""


class CompiledStep:
    """A decode step as one function of tensors, which reads and writes those of an ordinary cache.

    Args:
        model: the model whose weights it uses.
        form: the form that it was traced for.
        sources: where each input comes from, as in `Traced.sources`, and ``("packed", name)`` or ``("plain", name)`` for a
            weight in another form, which is made once, here.
        constants: the constants of the graph, by name.
        run: the function, from the inputs to the logits in a list.
        packed_weights: weights in another form that another step of the same model has made, by form and name; extended.
    """

    def __init__(
        self,
        model: GPT,
        form: StepForm,
        sources: Sequence[Sequence[Any]],
        constants: Mapping[str, Tensor],
        run: Callable[[list[Any]], Sequence[Tensor]],
        packed_weights: dict[tuple[str, str], Tensor],
    ) -> None:
        self._device, self._width, self._run = model.device, form.width, run
        self._fixed: list[Tensor | None] = [None] * len(sources)
        self._varying: list[tuple[int, tuple[Any, ...]]] = []
        state = state_of(model)
        for index, (kind, *which) in enumerate(sources):
            if kind == "weight":
                self._fixed[index] = state[which[0]]
            elif kind in ("packed", "plain"):
                key = (kind, which[0])
                if key not in packed_weights:
                    with torch.no_grad():
                        weight = state[which[0]]
                        packed_weights[key] = packed(weight) if kind == "packed" else weight.to_dense()
                self._fixed[index] = packed_weights[key]
            elif kind == "constant":
                self._fixed[index] = constants[which[0]]
            else:
                self._varying.append((index, (kind, *which)))
        self._mark = torch.zeros(0, dtype=torch.uint8, device=self._device)

    @classmethod
    def load(
        cls, model: GPT, directory: Path, form: StepForm, packed_weights: dict[tuple[str, str], Tensor]
    ) -> CompiledStep:
        """Load a compiled step.

        Args:
            directory: has ``step.so``, ``inputs.json`` and ``constants.safetensors``.
            model, form, packed_weights: as for the class.
        """
        from safetensors.torch import load_file

        sources = json.loads((directory / "inputs.json").read_text(encoding="utf-8"))
        constants = load_file(directory / "constants.safetensors", device=str(model.device))
        copied = [index for index, source in enumerate(sources) if source[0] in _PER_STEP]
        run = _runner(directory / "step.so", model.device, copied)
        return cls(model, form, sources, constants, run, packed_weights)

    def __call__(self, ids_BT: Tensor, cache: Cache) -> Tensor:
        """Process tokens of each row, and add them to the cache; return the logits after each, (B, T, V) fp32.

        Fewer tokens than the step's width are filled up. What is computed for the others is not counted, so later steps
        write over it; only a recurrent state would contain it (`has_room`).

        Raises:
            StateError: the cache is full.
        """
        n_tokens = ids_BT.shape[1]
        cache.begin(ids_BT)
        ids_BT = F.pad(ids_BT, (0, self._width - n_tokens)).contiguous()  # it was traced with contiguous ids
        states = leaves(cache)
        for leaf in states:
            leaf.reserve(self._width)
        now = views(states, self._width)
        padding_B = cache.left_padding_B
        if padding_B is None:
            padding_B = torch.zeros(cache.batch, dtype=torch.long, device=self._device)
        given: dict[tuple[Any, ...], Tensor] = {
            ("ids",): ids_BT,
            ("left_padding",): padding_B,
            ("offset",): torch.tensor(cache.length, device=self._device),
        }
        for window, view in now.items():
            if self._mark.shape[0] < view.n_keys:
                self._mark = self._mark.new_zeros(2 * view.n_keys)
            given["mark", window] = self._mark[: view.n_keys]
            given["used", window] = torch.tensor(view.used, device=self._device)
        for index, leaf in enumerate(states):
            for place, tensor in enumerate(tensors_of(leaf)):
                given["state", index, place] = tensor
        inputs = self._fixed
        for index, source in self._varying:
            inputs[index] = given[source]
        (logits_BTV,) = self._run(inputs)
        for leaf in states:
            leaf.advance(n_tokens)
        cache.advance(n_tokens)
        for index, _ in self._varying:
            inputs[index] = None  # the tensors belong to the cache
        return logits_BTV[:, :n_tokens]


def _runner(library: Path, device: torch.device, copied: Sequence[int]) -> Any:
    if device.type == "cuda":
        # Without the synchronization between threads, which cannot be captured; one thread computes the steps of a model.
        single: Any = torch._C._aoti.AOTIModelContainerRunnerCuda
        runner = single(str(library), 1, str(device), "", True)
        return GraphedRun(runner.run, copied, capture_on_cuda)
    return torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1).run
