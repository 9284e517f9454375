"""What watches a training: the loop tells observers what happened and knows nothing else about them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gptkit.kinds.tracker import Tracker, TrainingStart

__all__ = ["FromPlugins", "Isolated", "Observer", "Observers"]

_log = logging.getLogger("gptkit")


class Observer(Tracker):
    """A tracker from our own house: also told of every step, and kept in the checkpoints."""

    def on_step(self, step: int) -> None:
        """After each step, `step` being the number done so far. Must be cheap: nothing has been waited for."""

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """As a tracker's; nothing by default."""

    def state(self) -> Any:
        """What a resumed training must know, as plain data; None for nothing."""
        return None

    def restore(self, state: Any) -> None:
        """Go back to what `state` returned when the checkpoint was saved. Comes before `on_start`."""


class Observers:
    """Tells all of them, in their order."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._all = tuple(observers)

    def on_start(self, start: TrainingStart) -> None:
        for observer in self._all:
            observer.on_start(start)

    def on_step(self, step: int) -> None:
        for observer in self._all:
            observer.on_step(step)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        for observer in self._all:
            observer.on_metrics(step, metrics)

    def on_sample(self, step: int, text: str) -> None:
        for observer in self._all:
            observer.on_sample(step, text)

    def on_checkpoint(self, step: int, folder: Path) -> None:
        for observer in self._all:
            observer.on_checkpoint(step, folder)

    def on_end(self, step: int, error: BaseException | None) -> None:
        for observer in self._all:
            observer.on_end(step, error)

    def state(self) -> dict[str, Any]:
        kept = {type(observer).__name__: observer.state() for observer in self._all}
        return {name: state for name, state in kept.items() if state is not None}

    def restore(self, state: Mapping[str, Any]) -> None:
        for observer in self._all:
            if type(observer).__name__ in state:
                observer.restore(state[type(observer).__name__])


class FromPlugins(Observer):
    """The trackers that plugins bring to every training through the hook `gptkit_trackers`.

    Args:
        ask: gives, for a training that starts, each plugin's name and what its hook returned.
    """

    def __init__(self, ask: Callable[[TrainingStart], Iterable[tuple[str, Any]]]) -> None:
        self._ask = ask
        self._watching = Observers(())

    def on_start(self, start: TrainingStart) -> None:
        found: list[Observer] = []
        for name, returned in self._ask(start):
            if not isinstance(returned, (list, tuple)) or not all(isinstance(item, Tracker) for item in returned):
                _log.warning("%s: gptkit_trackers returned %r where a list of trackers belongs", name, returned)
                continue
            found += [Isolated(partial(_itself, tracker), f"{type(tracker).__name__} of {name}") for tracker in returned]
        self._watching = Observers(found)
        self._watching.on_start(start)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._watching.on_metrics(step, metrics)

    def on_sample(self, step: int, text: str) -> None:
        self._watching.on_sample(step, text)

    def on_checkpoint(self, step: int, folder: Path) -> None:
        self._watching.on_checkpoint(step, folder)

    def on_end(self, step: int, error: BaseException | None) -> None:
        self._watching.on_end(step, error)


def _itself(tracker: Tracker) -> Tracker:
    return tracker


class Isolated(Observer):
    """A tracker whose exceptions are reported once and end nothing but the tracker.

    Args:
        make: gives the tracker; called when the training starts.
        name: what to call it in the report.
    """

    def __init__(self, make: Callable[[], Tracker], name: str) -> None:
        self._make = make
        self._tracker: Tracker | None = None
        self._name = name

    def _call(self, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._tracker = None
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _log.warning("tracker %r failed and is left out from here on: %s", self._name, text)
        _log.debug("its traceback", exc_info=error)

    def on_start(self, start: TrainingStart) -> None:
        try:
            self._tracker = self._make()
        except Exception as error:
            self._give_up(error)
        self._call(lambda tracker: tracker.on_start(start))

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        # A copy: what one tracker does to it must not reach the next.
        self._call(lambda tracker: tracker.on_metrics(step, dict(metrics)))

    def on_sample(self, step: int, text: str) -> None:
        self._call(lambda tracker: tracker.on_sample(step, text))

    def on_checkpoint(self, step: int, folder: Path) -> None:
        self._call(lambda tracker: tracker.on_checkpoint(step, folder))

    def on_end(self, step: int, error: BaseException | None) -> None:
        self._call(lambda tracker: tracker.on_end(step, error))
