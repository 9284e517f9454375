"""`CompiledStep`: a compiled decode step, bound to the weights of a model.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptkit.inference.compiled.layout import leaves, tensors_of, views
from gptkit.inference.compiled.packing import packed
from gptkit.inference.compiled.trace import state_of
from gptkit.model.cache import Cache
from gptkit.model.gpt import GPT

__all__ = ["CompiledStep"]


class CompiledStep:
    """A decode step as one function of tensors, which reads and writes those of an ordinary cache.

    Args:
        model: the model whose weights it uses.
        sources: where each input comes from, as in `Traced.sources`, and ``("packed", name)`` or ``("plain", name)`` for a
            weight in another form, which is made once, here.
        constants: the constants of the graph, by name.
        run: the function, from the inputs to the logits in a list.
        forms: weights in another form that another step of the same model has made, by form and name; extended.
    """

    def __init__(
        self,
        model: GPT,
        sources: Sequence[Sequence[Any]],
        constants: Mapping[str, Tensor],
        run: Callable[[list[Any]], Sequence[Tensor]],
        forms: dict[tuple[str, str], Tensor],
    ) -> None:
        self._device, self._run = model.device, run
        self._fixed: list[Tensor | None] = [None] * len(sources)
        self._varying: list[tuple[int, tuple[Any, ...]]] = []
        state = state_of(model)
        for index, (kind, *which) in enumerate(sources):
            if kind == "weight":
                self._fixed[index] = state[which[0]]
            elif kind in ("packed", "plain"):
                key = (kind, which[0])
                if key not in forms:
                    with torch.no_grad():
                        forms[key] = packed(state[which[0]]) if kind == "packed" else state[which[0]].to_dense()
                self._fixed[index] = forms[key]
            elif kind == "constant":
                self._fixed[index] = constants[which[0]]
            else:
                self._varying.append((index, (kind, *which)))
        self._mark = torch.zeros(0, dtype=torch.uint8, device=self._device)

    @classmethod
    def load(cls, model: GPT, directory: Path, forms: dict[tuple[str, str], Tensor]) -> CompiledStep:
        """Load a compiled step.

        Args:
            directory: has ``step.so``, ``inputs.json`` and ``constants.safetensors``.
            model, forms: as for the class.
        """
        from safetensors.torch import load_file

        sources = json.loads((directory / "inputs.json").read_text(encoding="utf-8"))
        constants = load_file(directory / "constants.safetensors", device=str(model.device))
        return cls(model, sources, constants, _runner(directory / "step.so", model.device), forms)

    def __call__(self, ids_B1: Tensor, cache: Cache) -> Tensor:
        """Process one token of each row, and add it to the cache; return the logits after it, (B, V) fp32.

        Raises:
            StateError: the cache is full.
        """
        cache.begin(ids_B1)
        ids_B1 = ids_B1.contiguous()  # the compiled code was traced with contiguous ids
        states = leaves(cache)
        for leaf in states:
            leaf.reserve(1)
        now = views(states)
        padding_B = cache.left_padding_B
        if padding_B is None:
            padding_B = torch.zeros(cache.batch, dtype=torch.long, device=self._device)
        given: dict[tuple[Any, ...], Tensor] = {
            ("ids",): ids_B1,
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
        (logits_BV,) = self._run(inputs)
        for leaf in states:
            leaf.advance(1)
        cache.advance(1)
        for index, _ in self._varying:
            inputs[index] = None  # the tensors belong to the cache
        return logits_BV


def _runner(library: Path, device: torch.device) -> Any:
    if device.type == "cuda":
        return torch._C._aoti.AOTIModelContainerRunnerCuda(str(library), 1, str(device)).run
    return torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 1).run
