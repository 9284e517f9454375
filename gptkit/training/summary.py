"""Summary of a training: its losses, tokens, time, operations, and how well the machine was used."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gptkit.core.atomic import write_text
from gptkit.kinds.callback import Callback
from gptkit.training.metrics import Metrics

__all__ = ["Summary", "SummaryFile", "summarize"]

_log = logging.getLogger("gptkit")


@dataclass(frozen=True)
class Summary:
    """Summary of a training. Numbers that were not recorded are None.

    Attributes:
        steps: number of completed steps.
        tokens: number of tokens trained on, with repetitions.
        seconds: time of the training steps, without validation, samples and checkpoints.
        tokens_per_second: tokens / seconds.
        loss: the training loss as recorded last, in nats per token.
        best_validation_loss: the lowest validation loss, in nats per token.
        best_step: the step with that loss.
        validation_bits_per_byte: bits per byte at that step.
        flops: floating-point operations: those of the model for a full data window, times the tokens.
        flops_per_second: flops / seconds.
        product_rate: the machine's rate of large matrix products in the training's precision, in operations per second.
        utilization: flops_per_second / product_rate.
    """

    steps: int
    tokens: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    loss: float | None = None
    best_validation_loss: float | None = None
    best_step: int | None = None
    validation_bits_per_byte: float | None = None
    flops: float | None = None
    flops_per_second: float | None = None
    product_rate: float | None = None
    utilization: float | None = None

    def lines(self) -> list[str]:
        """Return the summary as lines of text."""
        lines = []
        if self.best_validation_loss is not None:
            bits = self.validation_bits_per_byte
            more = "" if bits is None else f" ({bits:.3f} bits per byte)"
            lines.append(f"lowest validation loss {self.best_validation_loss:.4f} at step {self.best_step}{more}")
        if self.tokens is not None and self.seconds is not None and self.tokens_per_second is not None:
            speed = f"{self.tokens_per_second:,.0f} tokens/s"
            lines.append(f"{self.tokens:,} tokens in {_duration(self.seconds)}, {speed}")
        if self.flops is not None and self.flops_per_second is not None:
            used = f"{self.flops:.2e} FLOPs, {self.flops_per_second / 1e9:,.0f} GFLOP/s"
            if self.utilization is not None and self.product_rate is not None:
                used += f": {self.utilization:.0%} of the {self.product_rate / 1e9:,.0f} GFLOP/s of a large matrix product"
            lines.append(used)
        return lines


def summarize(
    metrics: Metrics, steps: int, *, flops_per_token: float | None = None, product_rate: float | None = None
) -> Summary:
    """Return the summary of a training's metrics.

    Args:
        metrics: the metrics.
        steps: number of completed steps.
        flops_per_token: operations of a training step per token.
        product_rate: result of `gptkit.training.rate.product_rate`.
    """
    best, last = metrics.best("validation_loss"), metrics.last("loss")
    bits = dict(metrics.points("validation_bits_per_byte"))
    tokens, seconds = _time(metrics)
    flops = None if flops_per_token is None or not tokens else flops_per_token * tokens
    per_second = flops / seconds if flops is not None and seconds else None
    return Summary(
        steps,
        tokens or None,
        seconds or None,
        tokens / seconds if seconds else None,
        None if last is None else last[1],
        None if best is None else best[1],
        None if best is None else best[0],
        None if best is None else bits.get(best[0]),
        flops,
        per_second,
        product_rate,
        per_second / product_rate if per_second is not None and product_rate else None,
    )


def _time(metrics: Metrics) -> tuple[int, float]:
    """Return the number of tokens and the seconds of steps: a line has the tokens so far, and the speed since the last."""
    speeds, before, seconds = dict(metrics.points("tokens_per_second")), 0.0, 0.0
    for step, tokens in metrics.points("tokens"):
        if speeds.get(step):
            seconds += (tokens - before) / speeds[step]
        before = tokens
    return int(before), seconds


class SummaryFile(Callback):
    """File with the summary of a training, written at its end, also after Ctrl-C.

    Args:
        metrics: the run's metrics.jsonl.
        file: the JSON file.
        flops_per_token: returns the operations of a training step per token.
        product_rate: returns the machine's rate of matrix products.
    """

    def __init__(
        self, metrics: Path, file: Path, *, flops_per_token: Callable[[], float], product_rate: Callable[[], float]
    ) -> None:
        self._metrics, self._file = metrics, file
        self._flops, self._rate = flops_per_token, product_rate
        self.summary: Summary | None = None

    def on_end(self, step: int, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, KeyboardInterrupt):
            return
        # The training is complete and saved: a summary that fails must not turn it into an error.
        try:
            metrics = Metrics.read(self._metrics)
            self.summary = summarize(metrics, step, flops_per_token=self._flops(), product_rate=self._rate())
            write_text(self._file, json.dumps(dataclasses.asdict(self.summary), indent=1) + "\n")
        except Exception as failure:
            _log.warning("the summary cannot be written to %s: %s: %s", self._file, type(failure).__name__, failure)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
