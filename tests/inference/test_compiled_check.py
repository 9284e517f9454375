"""The check of a compiled step: a correct one passes in each precision, and a wrong one is refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.components.precision.bf16 import BF16Spec
from gptkit.components.precision.int4 import Int4Spec
from gptkit.components.precision.int8 import Int8Spec
from gptkit.inference.compiled.checking import check_step
from gptkit.inference.compiled.form import ONE_TOKEN, StepForm
from gptkit.inference.compiled.step import CompiledStep
from gptkit.inference.compiled.trace import state_of, trace
from gptkit.inference.compiled.worker import prepare
from gptkit.model.gpt import GPT
from gptkit.model.packing import apply_precision
from gptkit.nn.attention.backends import sdpa
from tests.support.decoded_models import TOKENIZER, decoded_model


def nightly(value: Any) -> Any:
    """Return a parameter that CI leaves to `make nightly`."""
    return pytest.param(value, marks=pytest.mark.nightly)


FORMS = [ONE_TOKEN, nightly(StepForm(many=True)), nightly(StepForm(width=8)), StepForm(many=True, width=4)]
"""Steps of one row or several, and of one token or several: the slow tests have neither and both."""
PRECISIONS: dict[str, Any] = {"fp32": None, "bf16": BF16Spec(), "int8": Int8Spec(), "int4": Int4Spec()}
Change = Callable[[list[str], list[Any]], None]


def model_in(precision: str, name: str = "rotary") -> GPT:
    model = decoded_model(name, 64, **({"n_layers": 4} if name == "rotary" else {}))  # layers that are exchanged
    if PRECISIONS[precision] is not None:
        apply_precision(model, PRECISIONS[precision])
    return model


@functools.cache
def prepared(precision: str, form: StepForm) -> tuple[GPT, Any, list[Any], dict[str, Tensor]]:
    return prepare_step(model_in(precision), form)


def prepare_step(model: GPT, form: StepForm) -> tuple[GPT, Any, list[Any], dict[str, Tensor]]:
    traced = trace(model, form)
    graph, sources = prepare(traced.program, traced.sources)
    return model, graph, [list(source) for source in sources], traced.constants


def step_of(
    step: Any, form: StepForm, *, rename: dict[str, str] | None = None, change: Change | None = None
) -> CompiledStep:
    """The step that is given to the compiler, with weights under other names, or changed inputs."""
    model, graph, sources, constants = step
    names = rename or {}
    weights = ("weight", "plain", "packed")
    sources = [[kind, names.get(rest[0], rest[0])] if kind in weights else [kind, *rest] for kind, *rest in sources]

    def run(inputs: list[Any]) -> Any:
        inputs = list(inputs)
        if change is not None:
            change([source[0] for source in sources], inputs)
        return graph(*inputs)

    return CompiledStep(model, form, sources, constants, run, {})


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16", nightly("int8"), "int4"])
def test_correct_step_passes(precision: str, form: StepForm) -> None:
    step = prepared(precision, form)
    check_step(step[0], step_of(step, form), form)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learned", "alibi", "window", "recurrent", "latent"])
@pytest.mark.parametrize("precision", ["fp32", nightly("bf16")])
def test_correct_step_of_other_caches_passes(precision: str, name: str) -> None:
    form = StepForm(many=True, width=8)
    step = prepare_step(model_in(precision, name), form)
    check_step(step[0], step_of(step, form), form)


def wrong_rows(kinds: list[str], inputs: list[Any]) -> None:
    """Rows are exchanged; a single row has another token."""
    at = kinds.index("ids")
    inputs[at] = inputs[at].flip(0) if len(inputs[at]) > 1 else (inputs[at] + 1).remainder(TOKENIZER.vocab_size)


def wrong_position(kinds: list[str], inputs: list[Any]) -> None:
    at = kinds.index("offset")
    inputs[at] = inputs[at] + 1


def wrong_padding(kinds: list[str], inputs: list[Any]) -> None:
    """Padding is attended."""
    at = kinds.index("left_padding")
    inputs[at] = torch.zeros_like(inputs[at])


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("wrong", [wrong_rows, wrong_position, wrong_padding])
def test_wrong_inputs_are_refused(wrong: Change, precision: str, form: StepForm) -> None:
    step = prepared(precision, form)
    with pytest.raises(RuntimeError, match="other numbers than the model"):
        check_step(step[0], step_of(step, form, change=wrong), form)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("first", [0, 2])
def test_exchanged_layers_are_refused(first: int, precision: str, form: StepForm) -> None:
    """The feed-forward of one layer is that of another; the last one changes the logits only."""
    step = prepared(precision, form)
    names = [name for name in state_of(step[0]) if name.startswith("blocks.3.feedforward.")]
    assert names
    pairs = {name: name.replace("blocks.3.", f"blocks.{first}.") for name in names}
    with pytest.raises(RuntimeError, match="other numbers than the model"):
        check_step(step[0], step_of(step, form, rename=pairs), form)


@pytest.mark.slow
@pytest.mark.parametrize("form", [ONE_TOKEN, StepForm(many=True, width=4)], ids=str)
@pytest.mark.parametrize("precision", ["fp32", nightly("bf16")])
def test_wrong_mask_of_one_layer_is_refused(precision: str, form: StepForm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries do not see the key of their own token, but a padding one."""
    correct, calls = sdpa.few_queries, list[Tensor]()

    def shifted(*tensors: Tensor, scale: float, term: Tensor | None) -> Tensor:
        assert term is not None
        calls.append(term)
        return correct(*tensors, scale=scale, term=term.roll(-1, -1) if len(calls) == 2 else term)

    monkeypatch.setattr(sdpa, "few_queries", shifted)
    step = prepare_step(model_in(precision), form)
    assert len(calls) == 4
    with pytest.raises(RuntimeError, match="other numbers than the model"):
        check_step(step[0], step_of(step, form), form)
