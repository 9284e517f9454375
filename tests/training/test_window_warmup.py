"""Callback `window-warmup`: every step is that of a model built with the step's window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

import gptkit
from gptkit.checkpoint.store import load_weights
from gptkit.components.callback.window_warmup import WindowWarmupSpec
from gptkit.core.errors import TrainingError
from gptkit.kinds.callback import Callback, Training
from gptkit.model.gpt import GPT

V, FULL = 31, 12
WARMUP = {"name": "window-warmup", "initial": 3, "steps": 8, "stages": 3}
WINDOWS = [3, 3, 3, 6, 6, 6, 9, 9, 12, 12]  # 3 + ⌊9 · ⌊3 · t / 8⌋ / 3⌋


def model(window: int = FULL, backend: str = "eager", **parts: Any) -> GPT:
    """Return a model with a windowed and a full layer, and a window that is smaller than the first one."""
    layers = [{"attention": {"window": window}}, {"attention": {"window": None}}, {"attention": {"window": 2}}]
    fields = {"d_model": 16, "n_layers": 3, "context_length": 24, "attention": {"name": "multi-head", "n_heads": 2}}
    return GPT({**fields, "layers": layers, "attention_backend": backend, **parts}, V)


def warmup(of: GPT) -> Callback:
    callback = WindowWarmupSpec.model_validate(WARMUP).build()
    callback.setup(Training(of, torch.optim.SGD(of.parameters()), 10, 0))
    return callback


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(V, (2, 21), generator=torch.Generator().manual_seed(step))
    return ids[:, :-1], ids[:, 1:]


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize("backend", ["eager", "sdpa", "flex"])
@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_step_equals_that_of_a_model_with_the_window(backend: str, position: str) -> None:
    widened = model(backend=backend, position=position).train()
    callback = warmup(widened)
    for step in (0, 2, 3, 6, 7, 8, 9):
        built = model(WINDOWS[step], backend, position=position).train()
        built.load_state_dict(widened.state_dict())
        callback.on_step_start(step)
        with torch.set_grad_enabled(backend != "flex"):  # which has no backward pass on the CPU
            losses = [each(*batch(step)).loss for each in (widened, built)]
        torch.testing.assert_close(losses[0], losses[1], atol=0, rtol=0)
        if backend == "flex":
            continue
        for loss in losses:
            loss.backward()
        for one, other in zip(widened.parameters(), built.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, atol=0, rtol=0)
            one.grad = None


def test_windows_differ_from_step_to_step() -> None:
    widened = model().train()
    callback, losses = warmup(widened), []
    for step in range(10):
        callback.on_step_start(step)
        losses.append(float(widened(*batch(0)).loss.detach()))
    expected = {window: losses[WINDOWS.index(window)] for window in set(WINDOWS)}
    assert losses == [expected[window] for window in WINDOWS]
    assert len(set(losses)) == 4


@torch.no_grad()
def test_evaluation_and_caches_use_the_declared_window() -> None:
    """Also in the middle of a training, and after it in training mode."""
    widened, built = model(), model().eval()
    callback, (ids, _) = warmup(widened), batch(0)
    callback.on_step_start(0)
    assert torch.equal(widened.eval()(ids).logits, built(ids).logits)
    cache = widened.new_cache(2)
    torch.testing.assert_close(widened(ids[:, :9], cache=cache).logits, built(ids).logits[:, :9])
    torch.testing.assert_close(widened(ids[:, 9:], cache=cache).logits, built(ids).logits[:, 9:])
    callback.on_end(10, None)
    assert torch.equal(widened.train()(ids).logits, built(ids).logits)


@pytest.mark.slow
def test_compiled_step_is_compiled_once_per_stage() -> None:
    torch.compiler.reset()
    counters.clear()
    widened = model(n_layers=1, layers=[{"attention": {"window": FULL}}]).train()
    callback = warmup(widened)
    compiled = torch.compile(widened, fullgraph=True, dynamic=False, backend="aot_eager")
    for step in range(10):
        callback.on_step_start(step)
        loss = compiled(*batch(step)).loss
        torch.testing.assert_close(loss, widened(*batch(step)).loss)
    assert counters["stats"]["unique_graphs"] == 4
    torch.compiler.reset()


def test_model_without_windows_is_rejected() -> None:
    with pytest.raises(TrainingError, match="no layer of the model has one"):
        warmup(model(layers=[{"attention": {"window": None}}]))


def spec(**training: Any) -> dict[str, Any]:
    attention = {"n_heads": 2, "window": FULL}
    return {
        "tokenizer": "byte",
        "model": {"d_model": 16, "n_layers": 1, "context_length": 16, "attention": attention},
        "training": {
            "steps": 10,
            "batch_size": 2,
            "log_every": 1,
            "evaluate_every": 20,
            "sample_every": 20,
            "checkpoint_every": 4,
            "device": "cpu",
            "schedule": "constant",
            "callbacks": [WARMUP],
            **training,
        },
    }


def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = gptkit.train(spec(), tmp_path / "whole", progress=False)
    gptkit.train(spec(steps=4), tmp_path / "run", progress=False)
    resumed = gptkit.resume(tmp_path / "run", ["training.steps=10"], progress=False)
    plain = gptkit.train(spec(callbacks=[]), tmp_path / "plain", progress=False)
    weights = [dict(run.model.state_dict()) for run in (whole, resumed, plain)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    built = gptkit.load(tmp_path / "whole", device="cpu")
    assert built.spec.model == plain.spec.model
    saved = gptkit.build(built.spec)
    load_weights(saved, tmp_path / "whole" / "checkpoints" / "step-00000010")
    assert all(attention.training_window is None for attention in whole.model.attentions())
    ids = torch.arange(14)[None]
    with torch.no_grad():
        assert torch.equal(whole.model.eval()(ids).logits, saved.eval()(ids).logits)
