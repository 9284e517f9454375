"""Callbacks with one error each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gptkit.components.callback.batch_warmup import BatchWarmup, BatchWarmupSpec
from gptkit.components.callback.ema import EMASpec
from gptkit.components.callback.length_warmup import LengthWarmup, LengthWarmupSpec
from gptkit.components.callback.modules.ema import EMA
from gptkit.components.callback.modules.skip_spikes import SkipSpikes
from gptkit.components.callback.modules.window_warmup import WindowWarmup
from gptkit.components.callback.skip_spikes import SkipSpikesSpec
from gptkit.components.callback.window_warmup import WindowWarmupSpec
from gptkit.kinds.callback import Callback, StepPlan, Training
from tests.mutants.mutant import ANYTHING, Mutant, become


class ForgetsUpdates(Mutant, EMASpec):
    """State without the number of updates, on which the decay depends."""

    class Runtime(EMA):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "updates": 0}

    name: Literal["forgets-updates"] = "forgets-updates"
    caught_by = "state-restores"

    def build(self) -> Callback:
        return self.Runtime(self.decay, warmup=self.warmup, every=self.every)


class StoresTheModel(Mutant, EMASpec):
    """State with an object that cannot be stored."""

    class Runtime(EMA):
        def setup(self, training: Training) -> None:
            super().setup(training)
            self.model = training.model

        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "model": self.model}

    name: Literal["stores-the-model"] = "stores-the-model"
    caught_by = "state-restores"

    def build(self) -> Callback:
        return self.Runtime(self.decay, warmup=self.warmup, every=self.every)


class ForgetsSteps(Mutant, SkipSpikesSpec):
    """Skip every third step, with a counter that is not in the state."""

    class Runtime(SkipSpikes):
        calls = 0

        def accepts(self, step: int, loss: float, norm: float) -> bool:
            self.calls += 1
            return self.calls % 3 != 0

    name: Literal["forgets-steps"] = "forgets-steps"
    caught_by = "state-restores"

    def build(self) -> Callback:
        return self.Runtime(self)


class WholeModel(Mutant, EMASpec):
    """Provide the model's tensors instead of copies."""

    class Runtime(EMA):
        def evaluation_weights(self) -> Mapping[str, Tensor]:
            return self._parameters

    name: Literal["whole-model"] = "whole-model"
    caught_by = "weights-fit"

    def build(self) -> Callback:
        return self.Runtime(self.decay, warmup=self.warmup, every=self.every)


class DrawsNumbers(Mutant, EMASpec):
    """Draw from the global generator."""

    class Runtime(EMA):
        def on_step(self, step: int) -> None:
            torch.rand(())
            super().on_step(step)

    name: Literal["draws-numbers"] = "draws-numbers"
    caught_by = "leaves-random-numbers"

    def build(self) -> Callback:
        return self.Runtime(self.decay, warmup=self.warmup, every=self.every)


class StartsEmpty(Mutant, BatchWarmupSpec):
    """Plan an empty first batch."""

    class Runtime(BatchWarmup):
        def plan(self, step: int, plan: StepPlan) -> StepPlan:
            return plan.replace(batch_size=0) if step == 0 else super().plan(step, plan)

    name: Literal["starts-empty"] = "starts-empty"
    caught_by = "plans-are-valid"

    def build(self) -> Callback:
        return self.Runtime(self)


class DrawsNothing(Mutant, BatchWarmupSpec):
    """Plan a mixture in which no source is drawn."""

    class Runtime(BatchWarmup):
        def plan(self, step: int, plan: StepPlan) -> StepPlan:
            return super().plan(step, plan).replace(mixture={"a": 0.0})

    name: Literal["draws-nothing"] = "draws-nothing"
    caught_by = "plans-are-valid"

    def build(self) -> Callback:
        return self.Runtime(self)


class CountsPlans(Mutant, LengthWarmupSpec):
    """Plan that depends on the number of calls."""

    class Runtime(LengthWarmup):
        asked = 0

        def plan(self, step: int, plan: StepPlan) -> StepPlan:
            self.asked += 1
            return plan.replace(length=min(plan.length, self.asked))

    name: Literal["counts-plans"] = "counts-plans"
    caught_by = "plans-are-valid"
    also = ("state-restores",)

    def build(self) -> Callback:
        return self.Runtime(self)


class ProvidesZeros(Mutant, EMASpec):
    """Provide weights before the first update."""

    class Runtime(EMA):
        def evaluation_weights(self) -> Mapping[str, Tensor]:
            return {name: tensor * (self.updates > 3) for name, tensor in self._averages.items()}

    name: Literal["provides-zeros"] = "provides-zeros"
    caught_by = "weights-fit"

    def build(self) -> Callback:
        return self.Runtime(self.decay, warmup=self.warmup, every=self.every)


class RecordsTensors(Mutant, EMASpec):
    """Record tensors, which cannot be stored in a table."""

    class Runtime(EMA):
        def measure(self, step: int) -> Mapping[str, float]:
            return {f"norm/{name}": tensor.norm() for name, tensor in self._averages.items()}  # type: ignore[misc]

    name: Literal["records-tensors"] = "records-tensors"
    caught_by = "records-numbers"

    def build(self) -> Callback:
        return self.Runtime(self.decay, warmup=self.warmup, every=self.every)


class CountsSteps(Mutant, WindowWarmupSpec):
    """Widen the window with the steps since the start of the program, not of the training."""

    class Runtime(WindowWarmup):
        taken = 0

        def on_step_start(self, step: int) -> None:
            super().on_step_start(self.taken)
            self.taken += 1

        def measure(self, step: int) -> Mapping[str, float]:
            return super().measure(self.taken)

    name: Literal["counts-steps"] = "counts-steps"
    caught_by = "state-restores"

    def build(self) -> Callback:
        return self.Runtime(WindowWarmupSpec(initial=2, steps=4))


class MisspellsAMethod(Mutant, BatchWarmupSpec):
    """Hook with a name that nothing calls."""

    class Runtime(BatchWarmup):
        def on_metric(self, step: int, metrics: Mapping[str, float]) -> None:
            self.seen = step

    name: Literal["misspells-a-method"] = "misspells-a-method"  # type: ignore[assignment]
    caught_by = "known-methods"

    def build(self) -> Callback:
        return become(super().build(), self.Runtime)  # type: ignore[no-any-return]


class WrongCallback(Mutant, EMASpec):
    """Base of the callbacks below."""

    runtime: ClassVar[type[Callback]] = Callback
    twin_class = EMASpec

    def build(self) -> Callback:
        return self.runtime()


class NeedsALoss(WrongCallback):
    """Read the training loss, which the first validation does not have."""

    class Runtime(Callback):
        def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
            assert metrics["loss"] >= 0

    name: Literal["needs-a-loss"] = "needs-a-loss"
    runtime = Runtime
    caught_by = "takes-partial-metrics"


class ChangesMetrics(WrongCallback):
    """Add a metric to those that other callbacks receive."""

    class Runtime(Callback):
        def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
            metrics["seen/steps"] = step  # type: ignore[index]

    name: Literal["changes-metrics"] = "changes-metrics"
    runtime = Runtime
    caught_by = "takes-partial-metrics"
    also = ANYTHING


class LeavesEvaluation(WrongCallback):
    """Leave the model in evaluation mode."""

    class Runtime(Callback):
        def setup(self, training: Training) -> None:
            self.model = training.model

        def on_step(self, step: int) -> None:
            self.model.eval()

    name: Literal["leaves-evaluation"] = "leaves-evaluation"
    runtime = Runtime
    caught_by = "leaves-the-model"


class OneForAll(WrongCallback):
    """Return the same callback for all trainings."""

    name: Literal["one-for-all"] = "one-for-all"
    only: ClassVar[Callback] = Callback()
    caught_by = "own-instance"

    def build(self) -> Callback:
        return self.only


class ForgetsItsPatience(WrongCallback):
    """End the training after three validations without a lower loss, which are not in the state."""

    class Runtime(Callback):
        lowest, waited = float("inf"), 0

        def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
            loss = metrics.get("validation_loss", self.lowest)
            self.lowest, self.waited = min(loss, self.lowest), 0 if loss < self.lowest else self.waited + 1

        def ends(self, step: int) -> bool:
            return self.waited >= 3

    name: Literal["forgets-its-patience"] = "forgets-its-patience"
    runtime = Runtime
    caught_by = "state-restores"
