"""Checks of callbacks: restoring of state, valid plans, and absence of side effects."""

from __future__ import annotations

import copy
import json
import math
import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gptkit.checkpoint.sharding import own_memory
from gptkit.checkpoint.states import pack, unpack
from gptkit.core.errors import CheckpointError
from gptkit.kinds.callback import Callback, StepPlan, Training
from gptkit.kinds.tracker import TrainingStart
from gptkit.testing.check import Checks, expect
from gptkit.testing.subject import Subject

__all__ = ["checks"]

checks = Checks()

_STEPS, _BATCH, _LENGTH = 8, 4, 16


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(11, 8, generator=generator))
        self.bias = nn.Parameter(torch.randn(8, generator=generator))

    def loss(self, step: int) -> Tensor:
        return (self.table - 0.1 * step).square().mean() + (self.bias + 0.1 * step).square().mean()


class _Session:
    """Small training with one callback, which can be saved and restored at any step."""

    def __init__(self, subject: Subject, directory: Path) -> None:
        self.net = _Net()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        self.callback: Callback = subject.spec.build()
        self.directory = directory
        self.step = 0
        self.recorded: list[Any] = []
        """What `measure` returned after each step."""
        self.accepted: list[bool] = []
        """What `accepts` returned in each step."""
        self.ended: list[bool] = []
        """What `ends` returned before each step."""
        self.provided: list[dict[str, Tensor]] = []
        """The weights to evaluate with after each step."""

    def start(self, state: dict[str, Any] | None = None) -> None:
        self.callback.setup(Training(self.net, self.optimizer, _STEPS, 0))
        if state is not None:
            self.callback.load_state_dict(state)
        self.callback.on_start(TrainingStart(self.directory, self.step, _STEPS, {}))

    def run(self, until: int) -> Iterator[StepPlan]:
        while self.step < until:
            ended = self.callback.ends(self.step)
            expect(isinstance(ended, bool), f"ends returned {ended!r}, not a bool")
            self.ended.append(ended)
            plan = self.callback.plan(self.step, StepPlan(1.0, _BATCH, _LENGTH))
            yield plan
            self.optimizer.param_groups[0]["lr"] = 0.1 * plan.rate
            self.callback.on_step_start(self.step)
            self.optimizer.zero_grad()
            loss = self.net.loss(self.step)
            loss.backward()  # type: ignore[no-untyped-call]
            self.callback.on_gradients(self.step)
            norm = float(nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None]))
            accepted = self.callback.accepts(self.step, float(loss.detach()), norm)
            expect(isinstance(accepted, bool), f"accepts returned {accepted!r}, not a bool")
            if accepted:
                self.optimizer.step()
            self.step += 1
            self.callback.on_step(self.step)
            self.accepted.append(accepted)
            self.recorded.append(self.callback.measure(self.step))
            self.provided.append(self.evaluated())
            # The validation loss rises and falls, for callbacks that react to it.
            metrics = {"loss": float(loss.detach()), "validation_loss": abs(math.sin(self.step)), "learning_rate": 0.1}
            self.callback.on_metrics(self.step, MappingProxyType(metrics))
            self.callback.on_sample(self.step, "Once upon a time.\n")

    def evaluated(self) -> dict[str, Tensor]:
        weights = self.callback.evaluation_weights()
        return {} if weights is None else {name: tensor.detach().clone() for name, tensor in weights.items()}


def _session(subject: Subject) -> _Session:
    session = _Session(subject, Path(tempfile.gettempdir()))
    expect(
        isinstance(session.callback, Callback),
        f"build returned a {type(session.callback).__name__}, not a gptkit.kinds.callback.Callback",
    )
    return session


@checks.add("state-restores", "A resumed training continues from the state dict only, with bit-identical results.")
def state_restores(subject: Subject) -> None:
    for stop in (0, 3, 5):
        whole = _session(subject)
        whole.start()
        list(whole.run(stop))
        try:
            packed, tensors = pack(
                whole.callback.state_dict(), "state", "the callback", (), lambda _, tensor: own_memory(tensor)
            )
        except CheckpointError as error:
            expect(False, f"the state cannot be stored: {error.message}")
        packed, tensors = json.loads(json.dumps(packed)), {name: tensor.clone() for name, tensor in tensors.items()}
        resumed = _session(subject)
        resumed.net.load_state_dict(copy.deepcopy(whole.net.state_dict()))
        resumed.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
        resumed.step = stop
        resumed.start(unpack(packed, tensors))
        whole.recorded.clear()
        whole.accepted.clear()
        whole.ended.clear()
        plans = list(whole.run(_STEPS)), list(resumed.run(_STEPS))
        expect(plans[0] == plans[1], f"resumed after step {stop}, it plans other steps: {plans[1]}, not {plans[0]}")
        accepted = whole.accepted == resumed.accepted
        expect(accepted, f"resumed after step {stop}, it accepts {resumed.accepted}, not {whole.accepted}")
        ended = whole.ended == resumed.ended
        expect(ended, f"resumed after step {stop}, `ends` returns {resumed.ended}, not {whole.ended}")
        recorded = whole.recorded == resumed.recorded
        expect(recorded, f"resumed after step {stop}, it records {resumed.recorded}, not {whole.recorded}")
        for name, parameter in whole.net.named_parameters():
            alike = torch.equal(parameter, resumed.net.get_parameter(name))
            expect(alike, f"resumed after step {stop}, training ends with another {name}")
        evaluated = whole.evaluated(), resumed.evaluated()
        expect(evaluated[0].keys() == evaluated[1].keys(), f"resumed after step {stop}, it provides other weights")
        for name, tensor in evaluated[0].items():
            alike = torch.equal(tensor, evaluated[1][name])
            expect(alike, f"resumed after step {stop}, it provides another {name} to evaluate with")


@checks.add("plans-are-valid", "A plan outside the data window or with a rate that is not finite ends the training.")
def plans_are_valid(subject: Subject) -> None:
    session = _session(subject)
    session.start()
    for step, plan in enumerate(session.run(_STEPS)):
        expect(isinstance(plan, StepPlan), f"the plan of step {step} is a {type(plan).__name__}")
        expect(plan.batch_size >= 1, f"the plan of step {step} has a batch of {plan.batch_size} windows")
        expect(
            1 <= plan.length <= _LENGTH, f"the plan of step {step} uses {plan.length} of the {_LENGTH} tokens of a window"
        )
        expect(math.isfinite(plan.rate) and plan.rate >= 0, f"the plan of step {step} has the rate {plan.rate}")
        weights = [] if plan.mixture is None else list(plan.mixture.values())
        expect(
            plan.mixture is None or (all(0 <= weight < math.inf for weight in weights) and any(weights)),
            f"the plan of step {step} has the mixture {plan.mixture}; weights are finite, not negative, and one is above 0",
        )
        again = session.callback.plan(step, StepPlan(1.0, _BATCH, _LENGTH))
        expect(again == plan, f"asked again for step {step}, it plans {again}, not {plan}")


@checks.add("leaves-random-numbers", "Callbacks that draw from global generators change later random numbers of other code.")
def leaves_random_numbers(subject: Subject) -> None:
    session = _session(subject)
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    session.start()
    list(session.run(_STEPS))
    session.callback.state_dict()
    session.callback.evaluation_weights()
    session.callback.on_end(_STEPS, None)
    expect(torch.equal(before[0], torch.get_rng_state()), "it draws from torch's global generator")
    expect(before[1] == random.getstate(), "it draws from Python's global generator")
    expect(before[2] == repr(np.random.get_state()), "it draws from numpy's global generator")


@checks.add("takes-partial-metrics", "The first validation has no training loss, and most steps have no validation.")
def takes_partial_metrics(subject: Subject) -> None:
    session = _session(subject)
    session.start()
    cases = ({"validation_loss": 3.0, "validation_perplexity": 20.1}, {"loss": 2.9, "learning_rate": 0.1})
    for step, metrics in enumerate(cases):
        try:
            session.callback.on_metrics(step, MappingProxyType(metrics))
        except KeyError as error:
            seen = f"on_metrics raises a KeyError for {error} where the metrics are {', '.join(metrics)}"
            expect(False, f"{seen}; read a metric only if it is among them")


@checks.add(
    "leaves-the-model", "A model left in evaluation mode trains without dropout, and frozen weights stay as they are."
)
def leaves_the_model(subject: Subject) -> None:
    session = _session(subject)
    session.net.train()
    session.start()
    for _ in session.run(3):
        expect(session.net.training, "it leaves the model in evaluation mode; call model.train() again")
        frozen = [name for name, parameter in session.net.named_parameters() if not parameter.requires_grad]
        expect(not frozen, f"it sets requires_grad of {', '.join(frozen)} to False; use training.freeze, or set it again")
        expect(torch.is_grad_enabled(), "it switches the recording of gradients off; use `with torch.no_grad()`")


@checks.add("own-instance", "Several trainings may run in one program, so each needs a callback of its own.")
def own_instance(subject: Subject) -> None:
    first, second = subject.spec.build(), subject.spec.build()
    expect(first is not second, "build returns the same callback twice, so that a training begins with another one's state")


@checks.add("weights-fit", "Weights to evaluate with temporarily replace the model's, so they must be separate tensors.")
def weights_fit(subject: Subject) -> None:
    session = _session(subject)
    session.start()
    list(session.run(_STEPS))
    weights = session.callback.evaluation_weights()
    own = dict(session.net.named_parameters())
    for name, tensor in (weights or {}).items():
        expect(name in own, f"it provides {name!r}, which is not a parameter of the model")
        expect(tensor.shape == own[name].shape, f"{name} has the shape {tuple(tensor.shape)}, not {tuple(own[name].shape)}")
        expect(tensor.data_ptr() != own[name].data_ptr(), f"the {name} it provides is the model's own tensor")
        expect(bool(tensor.isfinite().all()), f"the {name} it provides is not finite")
    for step, provided in enumerate(session.provided, start=1):
        empty = sorted(name for name, tensor in provided.items() if not tensor.any())
        expect(not empty, f"after step {step} it provides {', '.join(empty)} full of zeros, not None")


@checks.add("records-numbers", "Metrics go into tables and plots, which take finite numbers under fixed names.")
def records_numbers(subject: Subject) -> None:
    session = _session(subject)
    session.start()
    list(session.run(_STEPS))
    for step, metrics in enumerate(session.recorded, start=1):
        expect(isinstance(metrics, Mapping), f"after step {step}, metrics returned a {type(metrics).__name__}")
        for name, value in metrics.items():
            expect(isinstance(name, str) and "/" in name, f"it records {name!r}, whose name has no slash")
            number = isinstance(value, (int, float)) and math.isfinite(value)
            expect(number, f"after step {step}, {name} is {value!r}, not a finite number")
