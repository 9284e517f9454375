"""Runtime part of `training.stages`."""

from __future__ import annotations

from collections.abc import Mapping

from gptkit.core.errors import TrainingError
from gptkit.kinds.callback import Callback, StepPlan, Training
from gptkit.nn.attention.base import Attention
from gptkit.nn.loss_weights import loss_weight_problems, loss_weights
from gptkit.training.config import TrainingSpec
from gptkit.training.stage_spec import Stage, timeline

__all__ = ["Stages"]


class Stages(Callback):
    """Callback that plans each step as the stage it belongs to. Without a state: everything is a function of the step.

    Args:
        spec: the training section.
    """

    def __init__(self, spec: TrainingSpec) -> None:
        self._stages = timeline(spec.stages, spec.steps)
        self._attentions: list[Attention] = []
        self._weights: dict[str, list[dict[str, float]]] = {}
        self._original: dict[str, list[float]] = {}

    def at(self, step: int) -> int:
        """Return the index of the stage of a step, counted from 0."""
        return next((index for index, stage in enumerate(self._stages) if step < stage.end), len(self._stages) - 1)

    def setup(self, training: Training) -> None:
        """Find what the stages change.

        Raises:
            TrainingError: the model has no attention window, or no term of the loss, that a stage changes.
        """
        specs = [stage.spec for stage in self._stages]
        for index, name, message in loss_weight_problems(training.model, [spec.losses for spec in specs]):
            raise TrainingError(f"training.stages.{index}.losses.{name}: {message}")
        changed = {name for spec in specs for name in spec.losses}
        self._weights = {name: held for name, held in loss_weights(training.model).items() if name in changed}
        self._original = {name: [weights[name] for weights in held] for name, held in self._weights.items()}
        if any(spec.attention_window is not None for spec in specs):
            attentions = [module for module in training.model.modules() if isinstance(module, Attention)]
            self._attentions = [attention for attention in attentions if attention.window is not None]
            if not self._attentions:
                raise TrainingError(
                    "training.stages sets an attention_window, but no layer of the model has a sliding window",
                    hint="Set model.attention.window to the largest one, or remove attention_window from the stages.",
                )

    def plan(self, step: int, plan: StepPlan) -> StepPlan:
        stage = self._stages[self.at(step)]
        spec = stage.spec
        factor = plan.rate if spec.schedule is None else _scheduled(stage, step)
        return plan.replace(
            rate=factor * spec.rate,
            batch_size=plan.batch_size if spec.batch_size is None else spec.batch_size,
            length=plan.length if spec.window is None else spec.window,
            mixture=plan.mixture if spec.mixture is None else spec.mixture,
        )

    def on_step_start(self, step: int) -> None:
        spec = self._stages[self.at(step)].spec
        for attention in self._attentions:
            assert attention.window is not None
            smaller = spec.attention_window is not None and spec.attention_window < attention.window
            attention.training_window = spec.attention_window if smaller else None
        for name, held in self._weights.items():
            for weights, original in zip(held, self._original[name], strict=True):
                weights[name] = spec.losses.get(name, original)

    def measure(self, step: int) -> Mapping[str, float]:
        """Return the number of the stage of the last step, counted from 1."""
        return {"stage/number": float(self.at(step - 1) + 1)}

    def on_end(self, step: int, error: BaseException | None) -> None:
        for attention in self._attentions:
            attention.training_window = None
        for name, held in self._weights.items():
            for weights, original in zip(held, self._original[name], strict=True):
                weights[name] = original


def _scheduled(stage: Stage, step: int) -> float:
    assert stage.spec.schedule is not None
    return stage.spec.schedule.factor(step - stage.begin, stage.end - stage.begin)
