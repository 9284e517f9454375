"""A run to look at: its metrics, plots, and its representation in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gptkit.core import html
from gptkit.core.errors import RequirementError
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.model.plan import human_count
from gptkit.model.tree import count
from gptkit.runs.attention_maps import AttentionMaps, attention_maps
from gptkit.runs.directory import RunDirectory
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Views"]

_LOSSES = (("training loss", "loss"), ("validation loss", "validation_loss"))


class Views:
    """The part of `Run` that shows it."""

    directory: Path
    spec: ExperimentSpec
    model: GPT
    tokenizer: Tokenizer
    step: int

    @property
    def metrics(self) -> Metrics:
        """The metrics of the training, by column; read again at each access, so that a running training can be followed.

        ::

            pandas.DataFrame(run.metrics).plot("step", "loss")
        """
        return Metrics.read(RunDirectory(self.directory).metrics)

    def plot(self) -> Figure:
        """Plot training and validation loss.

        Returns:
            A matplotlib figure, which a notebook shows; ``run.plot().savefig("loss.svg")`` writes a file.

        Raises:
            RequirementError: matplotlib is not installed.
        """
        try:
            from gptkit.training.plot import loss_figure
        except ImportError as error:
            raise RequirementError(f"a plot needs matplotlib: {error}", hint="Run: pip install matplotlib") from None
        metrics = self.metrics
        figure: Figure = loss_figure(metrics.points("loss"), metrics.points("validation_loss"), title=self.spec.name)
        return figure

    def attention(self, text: str) -> AttentionMaps:
        """The attention weights of a text, to look at: tokens × tokens, by layer and head.

        ::

            maps = run.attention("The cat sat on the mat")
            maps                        # in a notebook: one small map for each layer and head
            maps.html(layer=3, head=0)  # one map, with its tokens; maps.figure(3, 0) is a matplotlib figure

        Args:
            text: a text that fits the context. The tokenizer's start token precedes it where there is one.

        Raises:
            GptkitError: no layer of the model has attention weights.
            StateError: the text is longer than the context.
        """
        return attention_maps(self.model, self.tokenizer, text)

    def _repr_html_(self) -> str:
        """The run in a notebook."""
        metrics = self.metrics
        model = self.spec.model
        rows = [
            ["directory", str(self.directory)],
            ["step", f"{self.step:,} of {self.spec.training.steps:,}"],
            ["model", f"{human_count(count(self.model))} parameters, {model.n_layers} layers, width {model.d_model:,}"],
            ["context", f"{model.context_length:,} tokens"],
            ["tokenizer", f"{self.spec.tokenizer.name}, {self.tokenizer.vocab_size:,} ids"],
        ]
        for label, name in _LOSSES:
            last, best = metrics.last(name), metrics.best(name)
            if last is not None and best is not None:
                rows.append([label, f"{last[1]:.4f} (lowest {best[1]:.4f} at step {best[0]:,})"])
        return html.heading(self.spec.name, "run") + html.table(rows) + html.details("spec", html.code(repr(self.spec)))
