"""Optimizers, schedules and trackers with one error each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from gptkit.components.optimizer.ademamix import AdEMAMixSpec
from gptkit.components.optimizer.groups import decay_groups, trainable
from gptkit.components.optimizer.modules.schedule_free import ScheduleFreeAdamW
from gptkit.components.optimizer.schedule_free import ScheduleFreeSpec
from gptkit.components.optimizer.sgd import SGDSpec
from gptkit.components.optimizer.soap import SOAPSpec
from gptkit.components.schedule.cosine import CosineSpec
from gptkit.components.tracker.csv import CSVSpec, CSVTracker
from gptkit.kinds.tracker import Tracker, TrainingStart
from tests.mutants.mutant import Mutant, become


class MatricesOnly(Mutant, SGDSpec):
    """Exclude norm weights and biases."""

    name: Literal["matrices-only"] = "matrices-only"
    caught_by = "holds-every-weight"
    also = ("reduces-loss", "obeys-groups", "every-shape")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            decay_groups(
                [each for each in trainable(model, self.groups) if each.parameter.ndim > 1], self.learning_rate, 0.0
            )
        )


class FrozenToo(Mutant, SGDSpec):
    """Include frozen weights."""

    name: Literal["frozen-too"] = "frozen-too"
    caught_by = "holds-every-weight"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        return torch.optim.SGD([*groups(self, model), *([{"params": frozen}] if frozen else [])], lr=self.learning_rate)


class ForgetsTheBasis(Mutant, SOAPSpec):
    """Omit the eigenvectors from the state dict."""

    name: Literal["forgets-the-basis"] = "forgets-the-basis"
    caught_by = "state-resumes"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        def without(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
            kept = {
                index: {key: value for key, value in entry.items() if not key.endswith("_basis")}
                for index, entry in state["state"].items()
            }
            return {**state, "state": kept}

        optimizer = super().build(model)
        optimizer.register_state_dict_post_hook(without)
        return optimizer


class ForgetsTheSteps(Mutant, AdEMAMixSpec):
    """Omit the numbers of updates, on which the warmups depend, from the state dict."""

    name: Literal["forgets-the-steps"] = "forgets-the-steps"
    caught_by = "state-resumes"
    beta3_warmup_steps: int = Field(20, description="Number of steps of the warmup.")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        def without(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
            return {**state, "state": {index: {**entry, "step": 0} for index, entry in state["state"].items()}}

        optimizer = super().build(model)
        optimizer.register_state_dict_post_hook(without)
        return optimizer


class EvaluatesTheTrained(Mutant, ScheduleFreeSpec):
    """Return weights to evaluate with for matrices only."""

    class Optimizer(ScheduleFreeAdamW):
        def evaluation_weights(self) -> dict[torch.Tensor, torch.Tensor]:
            return {parameter: x for parameter, x in super().evaluation_weights().items() if parameter.ndim > 1}

    name: Literal["evaluates-the-trained"] = "evaluates-the-trained"
    caught_by = "evaluates-averages"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return become(super().build(model), self.Optimizer)


def groups(spec: SGDSpec, model: nn.Module) -> list[dict[str, Any]]:
    return decay_groups(trainable(model, spec.groups), spec.learning_rate, 0.0)


class OneGroup(Mutant, SGDSpec):
    """Ignore the groups of the spec."""

    name: Literal["one-group"] = "one-group"
    caught_by = "obeys-groups"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=self.learning_rate)


class Ascends(Mutant, SGDSpec):
    """Ascend the gradient."""

    name: Literal["ascends"] = "ascends"
    caught_by = "reduces-loss"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups(self, model), lr=self.learning_rate, maximize=True)


class StepsOutside(Mutant, SGDSpec):
    """Momentum that is not in the state dict."""

    class Optimizer(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            moments = self.__dict__.setdefault("moments", {})
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in (each for each in group["params"] if each.grad is not None):
                        moment = moments.setdefault(parameter, torch.zeros_like(parameter))
                        moment.mul_(0.9).add_(parameter.grad)
                        parameter.sub_(group["lr"] * moment)

    name: Literal["steps-outside"] = "steps-outside"
    caught_by = "state-resumes"
    also = ("decays-groups",)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return self.Optimizer(groups(self, model), lr=self.learning_rate)


class StoresAnObject(Mutant, SGDSpec):
    """Parameter groups with an object that cannot be stored."""

    name: Literal["stores-an-object"] = "stores-an-object"
    caught_by = "state-resumes"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([{**group, "path": Path("here")} for group in groups(self, model)], lr=self.learning_rate)


class HasItsOwnRate(Mutant, SGDSpec):
    """Use the peak rate, ignoring the schedule."""

    class Optimizer(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in (each for each in group["params"] if each.grad is not None):
                        parameter.sub_(1e-3 * parameter.grad)

    name: Literal["has-its-own-rate"] = "has-its-own-rate"
    caught_by = "obeys-the-rate"
    also = ("decays-groups", "follows-the-rate")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return self.Optimizer(groups(self, model), lr=self.learning_rate)


class DecaysAlways(Mutant, SGDSpec):
    """Apply weight decay independent of the schedule."""

    class Optimizer(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.mul_(0.9999)
            return super().step(closure)

    name: Literal["decays-always"] = "decays-always"
    caught_by = "obeys-the-rate"
    also = ("skips-missing-gradients",)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return self.Optimizer(groups(self, model), lr=self.learning_rate)


class Signs(torch.optim.Optimizer):
    """Step by the sign of the gradient, with weight decay."""

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.update(parameter, group)

    def update(self, parameter: Any, group: dict[str, Any]) -> None:
        if parameter.grad is not None:
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * parameter.grad.sign())


class WrongSigns(Mutant, SGDSpec):
    """Base of the optimizers below."""

    optimizer: ClassVar[type[Signs]] = Signs
    twin_class = SGDSpec

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return self.optimizer(decay_groups(trainable(model, self.groups), self.learning_rate, 0.1), {})


class RequiresGradients(WrongSigns):
    """Read the gradient of a parameter that has none."""

    class Optimizer(Signs):
        def update(self, parameter: Any, group: dict[str, Any]) -> None:
            parameter.sub_(group["lr"] * parameter.grad.sign())

    name: Literal["requires-gradients"] = "requires-gradients"
    optimizer = Optimizer
    caught_by = "skips-missing-gradients"
    also = ("decays-groups",)


class DecaysWithoutGradient(WrongSigns):
    """Apply weight decay to a parameter without a gradient."""

    class Optimizer(Signs):
        def update(self, parameter: Any, group: dict[str, Any]) -> None:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            super().update(parameter, group)

    name: Literal["decays-without-gradient"] = "decays-without-gradient"
    optimizer = Optimizer
    caught_by = "skips-missing-gradients"


class NoScalars(WrongSigns):
    """Update vectors and matrices, but no scalars and stacks."""

    class Optimizer(Signs):
        def update(self, parameter: Any, group: dict[str, Any]) -> None:
            if parameter.grad is not None:
                super().update(parameter, group)
                parameter.sub_(0 * torch.eye(len(parameter), parameter.shape[-1])[0])

    name: Literal["no-scalars"] = "no-scalars"
    optimizer = Optimizer
    caught_by = "every-shape"


class OwnDecay(WrongSigns):
    """Ignore the weight decay of a group."""

    class Optimizer(Signs):
        def update(self, parameter: Any, group: dict[str, Any]) -> None:
            super().update(parameter, {**group, "weight_decay": 0.1})

    name: Literal["own-decay"] = "own-decay"
    optimizer = Optimizer
    caught_by = "decays-groups"


class CountsItsSteps(WrongSigns):
    """Average the weights every ten steps, which are counted in an attribute."""

    class Optimizer(Signs):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            self.steps: int = getattr(self, "steps", 0) + 1
            for parameter in (each for group in self.param_groups for each in group["params"]):
                slow = self.state[parameter].setdefault("slow", parameter.detach().clone())
                if self.steps % 10 == 0:
                    parameter.data.copy_(slow.lerp_(parameter.detach(), 0.5))

    name: Literal["counts-its-steps"] = "counts-its-steps"
    optimizer = Optimizer
    caught_by = "state-resumes"


class KeepsThePeakRate(WrongSigns):
    """Use the peak rate unless the schedule is at zero."""

    class Optimizer(Signs):
        def update(self, parameter: Any, group: dict[str, Any]) -> None:
            super().update(parameter, {**group, "lr": self.defaults["lr"] if group["lr"] else 0.0})

    name: Literal["keeps-the-peak-rate"] = "keeps-the-peak-rate"
    caught_by = "follows-the-rate"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = decay_groups(trainable(model, self.groups), self.learning_rate, 0.1)
        return self.Optimizer(groups, {"lr": self.learning_rate})


class DividesByTheNorm(WrongSigns):
    """Divide gradients by their norm, which may be zero."""

    class Optimizer(Signs):
        def update(self, parameter: Any, group: dict[str, Any]) -> None:
            if parameter.grad is not None:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(group["lr"] * parameter.grad / parameter.grad.norm())

    name: Literal["divides-by-the-norm"] = "divides-by-the-norm"
    optimizer = Optimizer
    caught_by = "zero-gradients"


class ScalesGradients(WrongSigns):
    """Scale gradients in place."""

    class Optimizer(Signs):
        def step(self, closure: Any = None) -> Any:
            for parameter in (each for group in self.param_groups for each in group["params"]):
                if parameter.grad is not None:
                    parameter.grad.mul_(0.5)
            super().step(closure)

    name: Literal["scales-gradients"] = "scales-gradients"
    optimizer = Optimizer
    caught_by = "keeps-gradients"


class Overshoots(Mutant, CosineSpec):
    """Exceed the peak rate during the warmup."""

    name: Literal["overshoots"] = "overshoots"
    caught_by = "within-bounds"

    def factor(self, step: int, steps: int) -> float:
        return 1.25 if step == 3 else super().factor(step, steps)


class FallsBelowZero(Mutant, CosineSpec):
    """Return a negative cosine."""

    name: Literal["falls-below-zero"] = "falls-below-zero"
    caught_by = "within-bounds"

    def factor(self, step: int, steps: int) -> float:
        return math.cos(math.pi * step / steps)


class HalvesEveryCall(Mutant, CosineSpec):
    """Factor that halves at every call."""

    asked: ClassVar[list[int]] = []
    name: Literal["halves-every-call"] = "halves-every-call"
    caught_by = "pure"

    def factor(self, step: int, steps: int) -> float:
        self.asked.append(step)
        return 0.5 + 0.5 / len(self.asked)


class FixedColumns(Mutant, CSVSpec):
    """Fail at a new metric."""

    class Runtime(CSVTracker):
        def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
            if len(self.columns) > 1 and not set(metrics) <= set(self.columns):
                raise ValueError("unknown column")
            super().on_metrics(step, metrics)

    name: Literal["fixed-columns"] = "fixed-columns"
    caught_by = "tracks"
    also = ("resumes", "stays-in-its-run")

    def build(self) -> Tracker:
        return self.Runtime(Path(self.file))


class StartsOnce(Mutant, CSVSpec):
    """Fail in a directory that was tracked before."""

    class Runtime(CSVTracker):
        def on_start(self, start: TrainingStart) -> None:
            (start.directory / "started").touch(exist_ok=False)
            super().on_start(start)

    name: Literal["starts-once"] = "starts-once"
    caught_by = "resumes"

    def build(self) -> Tracker:
        return self.Runtime(Path(self.file))


class OneForAll(Mutant, CSVSpec):
    """Share one tracker between all trainings."""

    trackers: ClassVar[list[Tracker]] = []
    file: str = Field("all.csv", description="The table's path.")
    name: Literal["one-for-all"] = "one-for-all"
    caught_by = "stays-in-its-run"
    also = ("resumes",)

    @classmethod
    def forget(cls) -> None:
        cls.trackers.clear()

    def build(self) -> Tracker:
        if not self.trackers:
            self.trackers.append(super().build())
        return self.trackers[0]
