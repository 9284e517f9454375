"""Callbacks: what changes over the steps of a small training.

The training has a model whose loss is noisy and has a spike, so that callbacks that read losses have something to do.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

import torch
from torch import nn

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure, Panel
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import named, subjects
from gptkit.kinds.callback import CallbackSpec, StepPlan, Training
from gptkit.kinds.tracker import TrainingStart
from gptkit.model.gpt import GPT
from gptkit.nn.attention.base import Attention

__all__ = ["draw"]

STEPS, BATCH, LENGTH = 300, 64, 256
SPIKE = 200
EVERY = 10
"""Steps between two validations."""
PLATEAU = 100
"""The validation loss does not fall after this step, for callbacks that react to that."""

Points = list[tuple[float, float]]


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return a panel for each thing that the callback changes, in the first configuration that changes one."""
    for subject in subjects(cls, registry):
        panels = _panels(cast("CallbackSpec", subject.spec), registry)
        if panels:
            configured = named(subject) or "with its defaults"
            caption = (
                f"A small training of {STEPS} steps with the callback, {configured}. Its loss has noise, and a spike at "
                f"step {SPIKE}; its validation loss does not fall after step {PLATEAU}."
            )
            return Figure(panels[:2], caption)
    raise GptkitError("no configuration changes a training or measures anything", hint="Give it `examples` that do.")


class _Records:
    """Values of each step."""

    def __init__(self) -> None:
        self.rate: Points = []
        self.batch: Points = []
        self.length: Points = []
        self.window: Points = []
        self.trained: Points = []
        self.provided: Points = []
        self.losses: Points = []
        self.skipped: Points = []
        self.ended: Points = []
        self.measured: dict[str, Points] = {}


def _panels(spec: CallbackSpec, registry: Registry) -> list[Panel]:
    records = _train(spec, registry)
    panels: list[Panel] = []
    for points, name in (
        (records.rate, "learning rate"),
        (records.batch, "batch size"),
        (records.length, "tokens of a data window"),
        (records.window, "attention window"),
    ):
        if len({value for _, value in points}) > 1:
            described = f"From {points[0][1]:g} to {points[-1][1]:g}."
            panels.append(Plot(f"{name} over steps", "step", name, [Series(points)], described))
    if records.provided:
        series = [Series(records.trained, "trained", 0), Series(records.provided, "evaluated", 1)]
        panels.append(
            Plot("one weight over steps", "step", "weight", series, "The evaluated weight follows the trained one.")
        )
    if records.skipped:
        series = [Series(records.losses, "loss", 0), Series(records.skipped, "skipped step", 2, "points")]
        panels.append(Plot("loss over steps", "step", "loss", series, f"{len(records.skipped)} steps are skipped."))
    if records.ended:
        series = [Series(records.losses, "loss", 0), Series(records.ended, "end", 2, "points")]
        described = f"The training ends after {records.ended[0][0]:g} of {STEPS} steps."
        panels.append(Plot("loss over steps", "step", "loss", series, described))
    if records.measured:
        chosen = list(records.measured.items())[:3]
        series = [Series(points, name, index + 1) for index, (name, points) in enumerate(chosen)]
        panels.append(Plot("measured values", "step", "", series, f"{len(records.measured)} values are recorded."))
    return panels


def _train(spec: CallbackSpec, registry: Registry) -> _Records:
    """Run the calls of a training, in the order of the contract."""
    generator = torch.Generator().manual_seed(0)
    model = GPT(
        {
            "d_model": 16,
            "n_layers": 1,
            "context_length": LENGTH,
            "position": "rotary",
            "attention": {"n_heads": 2, "window": 128},
        },
        16,
        seed=0,
    ).train()
    probe = next(parameter for parameter in model.parameters() if parameter.dim() > 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.004)
    callback, records = spec.build(), _Records()
    callback.setup(Training(model, optimizer, STEPS, 0))
    callback.on_start(TrainingStart(Path(tempfile.gettempdir()), 0, STEPS, {}))
    ids = torch.randint(16, (2, 17), generator=generator)
    lowest = 0.0
    for step in range(STEPS):
        if callback.ends(step):
            records.ended.append((step, records.losses[-1][1]))
            break
        plan = callback.plan(step, StepPlan(1.0, BATCH, LENGTH))
        records.rate.append((step, plan.rate))
        records.batch.append((step, plan.batch_size))
        records.length.append((step, plan.length))
        callback.on_step_start(step)
        attention = next(module for module in model.modules() if isinstance(module, Attention))
        records.window.append((step, attention.current_window or LENGTH))
        optimizer.zero_grad()
        noise = torch.randn((), generator=generator) * 0.1
        logits = model(ids[:, :-1]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()) * (1 + noise + 2.0 * (step == SPIKE))
        loss.backward()  # type: ignore[no-untyped-call]
        callback.on_gradients(step)
        norm = float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
        records.losses.append((step, float(loss.detach())))
        if callback.accepts(step, float(loss.detach()), norm):
            optimizer.step()
        else:
            records.skipped.append((step, float(loss.detach())))
        callback.on_step(step + 1)
        lowest = float((loss / (1 + noise)).detach()) if step <= PLATEAU else lowest
        validated = {} if (step + 1) % EVERY else {"validation_loss": lowest}
        callback.on_metrics(step + 1, {"loss": float(loss.detach()), **validated})
        for name, value in callback.measure(step + 1).items():
            records.measured.setdefault(name, []).append((step, value))
        weights = callback.evaluation_weights()
        if weights is not None:
            name = next(name for name, parameter in model.named_parameters() if parameter is probe)
            records.trained.append((step, float(probe.detach().flatten()[0])))
            records.provided.append((step, float(weights[name].flatten()[0])))
    callback.on_end(STEPS, None)
    return records
