"""Training progress in a terminal: a bar with loss, speed and remaining time, and samples."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import nn

from gptkit.core.commands import quoted
from gptkit.core.diagnostics import Diagnostics
from gptkit.kinds.callback import Callback, Training
from gptkit.kinds.tracker import TrainingStart
from gptkit.model.tree import count
from gptkit.training.summary import SummaryFile

__all__ = ["ConsoleProgress"]

_INTERVAL = 30.0
"""Seconds between two printed steps without a progress bar."""

_FEW = 4
"""Number of distinct parameters that are listed by name."""

_COMPILING = "compiling the model in the first step …"


class ConsoleProgress(Callback):
    """Print a line for each validation and the samples of text; in a terminal also a live progress bar.

    Args:
        console: the console; by default stderr, whose failures are ignored.
        resume_command: the command that resumes the run, with `{directory}` for the run directory.

    Attributes:
        summary: the summary to print at the end; it is called before.
    """

    def __init__(self, console: Console | None = None, resume_command: str = "gptkit train --resume {directory}") -> None:
        self.console = console or Console(file=cast("IO[str]", Diagnostics()))
        self.summary: SummaryFile | None = None
        self._resume_command = resume_command
        self._shown: dict[str, str] = {}
        self._progress: Progress | None = None
        self._start: TrainingStart | None = None
        self._saved: Path | None = None
        self._printed_at = time.monotonic()

    def setup(self, training: Training) -> None:
        parameters, trained = count(training.model), count(training.model, trained=True)
        if trained < parameters:
            share = f"trains {trained:,} of {parameters:,} parameters ({trained / parameters:.2%})"
            self.console.print(f"{share}; {_untrained(training.model)}", highlight=False)

    def on_start(self, start: TrainingStart) -> None:
        self._start = start
        compiles = bool(start.spec.get("training", {}).get("compile"))
        if not self.console.is_terminal:
            if compiles:
                self.console.print(_COMPILING)
            self._printed_at = time.monotonic()
            return
        # The bar uses the remaining width, so that everything fits into 60 columns.
        self._progress = Progress(
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.console,
            transient=True,
            expand=True,
        )
        self._progress.add_task("training", total=start.steps, completed=start.step, numbers=_COMPILING if compiles else "")
        self._progress.start()

    def on_step(self, step: int) -> None:
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=step)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        if "loss" in metrics:
            self._shown["loss"] = f"loss {metrics['loss']:.3f}"
        if "validation_loss" in metrics:
            self._shown["validation"] = f"validation {metrics['validation_loss']:.3f}"
        if "tokens_per_second" in metrics:
            self._shown["speed"] = f"{_short(metrics['tokens_per_second'])} tokens/s"
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], numbers=self._numbers("loss", "speed"))
        waited = self._progress is None and time.monotonic() - self._printed_at > _INTERVAL
        if "validation_loss" in metrics or (waited and "loss" in metrics):
            total = self._start.steps if self._start is not None else "?"
            names = ("loss", "validation", "speed") if "validation_loss" in metrics else ("loss", "speed")
            self.console.print(f"step {step}/{total}  {self._numbers(*names)}", highlight=False)
            self._printed_at = time.monotonic()

    def _numbers(self, *names: str) -> str:
        return "  ".join(self._shown[name] for name in names if name in self._shown)

    def on_sample(self, step: int, text: str) -> None:
        title = f"step {step}"
        self.console.print(Panel(Text(_printable(text)), title=title, title_align="left", border_style="dim"))

    def on_checkpoint(self, step: int, directory: Path) -> None:
        self._saved = directory

    def on_end(self, step: int, error: BaseException | None) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if self._start is None:
            return
        steps, directory = self._start.steps, self._start.directory
        if error is None:
            what = f"{steps} steps" if step >= steps else f"after step {step} of {steps}, ended by a callback,"
            self.console.print(f"[bold green]done[/] {what} in {escape(str(directory))}", highlight=False, soft_wrap=True)
        elif isinstance(error, KeyboardInterrupt):
            what = f"saved in {self._saved}" if self._saved is not None else "nothing new to save"
            command = self._resume_command.format(directory=quoted(directory))
            self.console.print(
                f"[bold yellow]stopped[/] after step {step} of {steps}, {escape(what)}", highlight=False, soft_wrap=True
            )
            self.console.print(f"continue with: [bold]{escape(command)}[/]", highlight=False, soft_wrap=True)
        if error is None and self.summary is not None and self.summary.summary is not None:
            for line in self.summary.summary.lines():
                self.console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


def _short(number: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"


def _printable(text: str) -> str:
    """Return generated text without control characters, which must not be printed to a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def _untrained(model: nn.Module) -> str:
    """Return which parameters are not trained: by name where there are few, such as constants of components."""
    names = [name.split(".") for name, parameter in model.named_parameters() if not parameter.requires_grad]
    known = dict.fromkeys(".".join([part for part in name if not part.isdigit()][-2:]) for name in names)
    return f"not trained: {', '.join(known)}" if len(known) <= _FEW else "the others are frozen"
