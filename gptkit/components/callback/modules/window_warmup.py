"""Runtime of callback `window-warmup`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gptkit.core.errors import TrainingError
from gptkit.kinds.callback import Callback, Training
from gptkit.nn.attention.base import Attention

if TYPE_CHECKING:
    from gptkit.components.callback.window_warmup import WindowWarmupSpec

__all__ = ["WindowWarmup"]


class WindowWarmup(Callback):
    """Runtime part of `WindowWarmupSpec`. Without a state: windows are a function of the step."""

    def __init__(self, spec: WindowWarmupSpec) -> None:
        self.spec = spec
        self._attentions: list[Attention] = []

    def setup(self, training: Training) -> None:
        """Find the layers with a window.

        Raises:
            TrainingError: the model has attentions, but none with a window.
        """
        attentions = [module for module in training.model.modules() if isinstance(module, Attention)]
        self._attentions = [attention for attention in attentions if attention.window is not None]
        if attentions and not self._attentions:
            raise TrainingError(
                "callback 'window-warmup' changes attention windows, but no layer of the model has one",
                hint="Set model.attention.window, or remove the callback from training.callbacks.",
            )

    def on_step_start(self, step: int) -> None:
        for attention in self._attentions:
            assert attention.window is not None
            window = self.spec.window(step, attention.window)
            attention.training_window = None if window == attention.window else window

    def measure(self, step: int) -> Mapping[str, float]:
        """Return the share of the warmup that was complete in the last step."""
        return {"window_warmup/share": self.spec.share(step - 1)}

    def on_end(self, step: int, error: BaseException | None) -> None:
        for attention in self._attentions:
            attention.training_window = None
