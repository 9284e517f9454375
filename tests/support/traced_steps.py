"""Traced decode steps that torch computes operator by operator, in place of compiled ones."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import pytest
from torch import Tensor

from gptkit.inference.compiled.decoding import CompiledDecoding
from gptkit.inference.compiled.form import ONE_TOKEN, StepForm
from gptkit.inference.compiled.step import CompiledStep
from gptkit.inference.compiled.trace import trace
from gptkit.inference.compiled.worker import prepare
from gptkit.model.cache import Cache
from gptkit.model.gpt import GPT

__all__ = ["interpret_steps", "interpreted"]


def interpreted(model: GPT, form: StepForm = ONE_TOKEN) -> CompiledStep:
    """The step that is given to the compiler."""
    traced = trace(model, form)
    graph, sources = prepare(traced.program, traced.sources)
    return CompiledStep(model, form, sources, traced.constants, lambda inputs: graph(*inputs), {})


def interpret_steps(monkeypatch: pytest.MonkeyPatch) -> Counter[StepForm]:
    """Let every `CompiledDecoding` use interpreted steps, which are ready at once; return how often each form was used."""
    calls = Counter[StepForm]()
    steps: weakref.WeakKeyDictionary[CompiledDecoding, dict[StepForm, CompiledStep]] = weakref.WeakKeyDictionary()

    def ready(self: CompiledDecoding, form: StepForm) -> Any:
        own = steps.setdefault(self, {})
        if form not in own:
            own[form] = interpreted(self.model, form)

        def step(ids_BT: Tensor, cache: Cache) -> Tensor:
            calls[form] += 1
            return own[form](ids_BT, cache)

        return step

    monkeypatch.setattr(CompiledDecoding, "_ready", ready)
    return calls
