"""Combination of callbacks, and adapters that run trackers as callbacks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from gptkit.core.errors import TrainingError
from gptkit.kinds.callback import Callback, StepPlan, Training
from gptkit.kinds.tracker import Tracker, TrainingStart

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Callbacks", "PluginTrackers", "TrackerCallback"]

_log = logging.getLogger("gptkit")


def _bool(callback: Callback, method: str, answer: object) -> bool:
    if not isinstance(answer, (bool, np.bool_)):
        raise TrainingError(
            f"callback {type(callback).__name__}: {method} returned {answer!r}, not a bool",
            hint="Return True or False; a method without a return statement returns None.",
        )
    return bool(answer)


class Callbacks(Callback):
    """Combination of several callbacks, called in order."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._all = tuple(callbacks)
        self._names = frozenset[str]()

    def setup(self, training: Training) -> None:
        self._names = frozenset(name for name, _ in training.model.named_parameters())
        for callback in self._all:
            callback.setup(training)

    def state_dict(self) -> dict[str, Any]:
        """Return the states by name; callbacks without a state have no entry."""
        states = {name: callback.state_dict() for name, callback in self._named()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, callback in self._named():
            if name in state:
                callback.load_state_dict(state[name])

    def _named(self) -> Iterable[tuple[str, Callback]]:
        seen: dict[str, int] = {}
        for callback in self._all:
            name = type(callback).__name__
            seen[name] = seen.get(name, 0) + 1
            yield name if seen[name] == 1 else f"{name} {seen[name]}", callback

    def on_start(self, start: TrainingStart) -> None:
        for callback in self._all:
            callback.on_start(start)

    def plan(self, step: int, plan: StepPlan) -> StepPlan:
        """Return the plan of all callbacks.

        Raises:
            TrainingError: a callback returned something else.
        """
        for callback in self._all:
            plan = callback.plan(step, plan)
            if not isinstance(plan, StepPlan):
                raise TrainingError(
                    f"callback {type(callback).__name__}: plan returned {plan!r}, not a StepPlan",
                    hint="Return the plan that it receives, or plan.replace(…).",
                )
        return plan

    def on_step_start(self, step: int) -> None:
        for callback in self._all:
            callback.on_step_start(step)

    def on_gradients(self, step: int) -> None:
        for callback in self._all:
            callback.on_gradients(step)

    @property
    def decide(self) -> bool:
        """Whether a callback decides about updates (`Callback.accepts`)."""
        return any(type(callback).accepts is not Callback.accepts for callback in self._all)

    def accepts(self, step: int, loss: float, norm: float) -> bool:
        # Every one is asked, for its state.
        answers = [_bool(callback, "accepts", callback.accepts(step, loss, norm)) for callback in self._all]
        return all(answers)

    @property
    def may_end(self) -> bool:
        """Whether a callback may end the training before its last step (`Callback.ends`)."""
        return any(type(callback).ends is not Callback.ends for callback in self._all)

    def ends(self, step: int) -> bool:
        answers = [_bool(callback, "ends", callback.ends(step)) for callback in self._all]
        return any(answers)

    def on_step(self, step: int) -> None:
        for callback in self._all:
            callback.on_step(step)

    def measure(self, step: int) -> Mapping[str, float]:
        """Return the metrics of all callbacks.

        Raises:
            TrainingError: two callbacks use the same name, or a name has no slash.
        """
        merged: dict[str, float] = {}
        for callback in self._all:
            for name, value in callback.measure(step).items():
                if name in merged or "/" not in name:
                    what = "which another one records too" if name in merged else "whose name has no slash"
                    raise TrainingError(
                        f"callback {type(callback).__name__} records the metric {name!r}, {what}",
                        hint="Remove it from training.callbacks, or name its metric like gradient_norm/embedding.",
                    )
                merged[name] = float(value)
        return merged

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        for callback in self._all:
            callback.on_metrics(step, MappingProxyType(dict(metrics)))

    def on_sample(self, step: int, text: str) -> None:
        for callback in self._all:
            callback.on_sample(step, text)

    def on_checkpoint(self, step: int, directory: Path) -> None:
        for callback in self._all:
            callback.on_checkpoint(step, directory)

    def on_end(self, step: int, error: BaseException | None) -> None:
        for callback in self._all:
            callback.on_end(step, error)

    def evaluation_weights(self) -> Mapping[str, Tensor] | None:
        """Return the weights of the callback that provides some.

        Raises:
            TrainingError: several callbacks provide weights, or one provides weights that are not the model's.
        """
        provided = [(type(callback).__name__, callback.evaluation_weights()) for callback in self._all]
        providers = [(name, weights) for name, weights in provided if weights is not None]
        if len(providers) > 1:
            names = ", ".join(name for name, _ in providers)
            raise TrainingError(
                f"several callbacks provide the weights to evaluate with: {names}", hint="Keep one in training.callbacks."
            )
        for name, weights in providers:
            unknown = sorted(weights.keys() - self._names)
            if unknown:
                raise TrainingError(
                    f"callback {name}: evaluation_weights returned {unknown[0]!r}, which is not a parameter of the model",
                    hint="Return weights by the names of model.named_parameters().",
                )
        return providers[0][1] if providers else None


class TrackerCallback(Callback):
    """Callback that runs a tracker; an exception is reported once and disables only the tracker, whose `on_end` receives it.

    Args:
        make: returns the tracker; called when the training starts.
        name: the tracker's name in the report.
    """

    def __init__(self, make: Callable[[], Tracker], name: str) -> None:
        self._make = make
        self._tracker: Tracker | None = None
        self._name = name

    @classmethod
    def of(cls, tracker: Tracker, name: str | None = None) -> TrackerCallback:
        """Return the callback of an existing tracker."""
        return cls(partial(_identity, tracker), name or type(tracker).__name__)

    def _call(self, step: int, call: Callable[[Tracker], None], *, ends: bool = False) -> None:
        tracker = self._tracker
        if tracker is None:
            return
        try:
            call(tracker)
        except Exception as error:
            self._disable(error)
            if not ends:
                # So that it can close what it opened. Another error, or the same one, says nothing new.
                with contextlib.suppress(Exception):
                    tracker.on_end(step, error)

    def _disable(self, error: Exception) -> None:
        self._tracker = None
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _log.warning("tracker %r failed and is disabled for the rest of the training: %s", self._name, text)
        _log.debug("its traceback", exc_info=error)

    def on_start(self, start: TrainingStart) -> None:
        try:
            self._tracker = self._make()
        except Exception as error:
            self._disable(error)
        self._call(start.step, lambda tracker: tracker.on_start(start))

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        # A copy, so that changes by one tracker do not affect the next.
        self._call(step, lambda tracker: tracker.on_metrics(step, dict(metrics)))

    def on_sample(self, step: int, text: str) -> None:
        self._call(step, lambda tracker: tracker.on_sample(step, text))

    def on_checkpoint(self, step: int, directory: Path) -> None:
        self._call(step, lambda tracker: tracker.on_checkpoint(step, directory))

    def on_end(self, step: int, error: BaseException | None) -> None:
        self._call(step, lambda tracker: tracker.on_end(step, error), ends=True)


class PluginTrackers(Callback):
    """Trackers that plugins add to every training through the hook `gptkit_trackers`.

    Args:
        ask: function that returns each plugin's name and the result of its hook for a training.
    """

    def __init__(self, ask: Callable[[TrainingStart], Iterable[tuple[str, Any]]]) -> None:
        self._ask = ask
        self._trackers = Callbacks(())

    def on_start(self, start: TrainingStart) -> None:
        trackers: list[Callback] = []
        for name, returned in self._ask(start):
            if not isinstance(returned, (list, tuple)) or not all(isinstance(item, Tracker) for item in returned):
                _log.warning("%s: gptkit_trackers returned %r, which is not a list of trackers", name, returned)
                continue
            trackers += [TrackerCallback.of(tracker, f"{type(tracker).__name__} of {name}") for tracker in returned]
        self._trackers = Callbacks(trackers)
        self._trackers.on_start(start)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._trackers.on_metrics(step, metrics)

    def on_sample(self, step: int, text: str) -> None:
        self._trackers.on_sample(step, text)

    def on_checkpoint(self, step: int, directory: Path) -> None:
        self._trackers.on_checkpoint(step, directory)

    def on_end(self, step: int, error: BaseException | None) -> None:
        self._trackers.on_end(step, error)


def _identity(tracker: Tracker) -> Tracker:
    return tracker
