"""Views of a run: metrics, plots, attention weights, and its representation in a notebook."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from gptkit.core import html
from gptkit.core.errors import RequirementError
from gptkit.diagrams.drawing import svg
from gptkit.inspection.attention import MOST_WEIGHTS, AttentionMaps, attention_maps
from gptkit.inspection.inspect import MOST_TOKENS, Inspection, inspect_ids
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.model.parts import count_parts
from gptkit.model.plan import human_count
from gptkit.model.tree import count
from gptkit.runs.directory import RunDirectory
from gptkit.runs.prompts import prompt_ids
from gptkit.runs.spec import ExperimentSpec, spec_outline
from gptkit.training.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Views"]

_LOSSES = (("training loss", "loss"), ("validation loss", "validation_loss"))


class Views:
    """Base class of `Run` with its views."""

    directory: Path
    spec: ExperimentSpec
    model: GPT
    tokenizer: Tokenizer
    step: int

    @property
    def metrics(self) -> Metrics:
        """The metrics of the training, by column; read at each access, so that a running training can be monitored.

        ::

            pandas.DataFrame(run.metrics).plot("step", "loss")
        """
        return Metrics.read(RunDirectory(self.directory).metrics)

    def plot(self) -> Figure:
        """Plot training and validation loss.

        Returns:
            A matplotlib figure, which a notebook displays; ``run.plot().savefig("loss.svg")`` writes a file.

        Raises:
            RequirementError: matplotlib is not installed.
        """
        try:
            from gptkit.training.plot import loss_figure
        except ImportError as error:
            raise RequirementError(f"a plot requires matplotlib: {error}", hint="Run: pip install matplotlib") from None
        metrics = self.metrics
        figure: Figure = loss_figure(metrics.points("loss"), metrics.points("validation_loss"), title=self.spec.name)
        return figure

    def attention(self, text: str) -> AttentionMaps:
        """Return the attention weights of a text as maps, tokens × tokens, by layer and head.

        ::

            maps = run.attention("The cat sat on the mat")
            maps                        # in a notebook: one small map for each layer and head
            maps.html(layer=3, head=0)  # one map, with its tokens; maps.figure(3, 0) is a matplotlib figure

        Args:
            text: a text that fits the context; the tokenizer's start token, if it has one, is added.

        Raises:
            GptkitError: no layer of the model has attention weights.
            StateError: the text is longer than the context.
        """
        return attention_maps(self.model, self.tokenizer, prompt_ids(self.tokenizer, text))

    def inspect(
        self,
        text: str,
        *,
        top: int = 5,
        attention: bool = True,
        layers: Collection[int] | None = None,
        most_tokens: int = MOST_TOKENS,
        most_weights: int = MOST_WEIGHTS,
    ) -> Inspection:
        """Inspect a text: the surprise of each token, the prediction of every layer (logit lens), attention weights.

        ::

            view = run.inspect("The cat sat on the mat")
            view.bits_per_byte
            view.lens.at(3, -1)          # the prediction from the output of layer 2, after the last token
            view.save("cat.html")        # an interactive page in one file

        Args:
            text: the text. The tokenizer's start token precedes it where there is one.
            top: number of tokens kept of each prediction.
            attention: compute attention weights.
            layers: layers whose attention weights are kept; all by default.
            most_tokens: number of tokens up to which a text is accepted.
            most_weights: number of attention weights that may be kept.

        Raises:
            GptkitError: the text is longer than the context or `most_tokens`, a layer does not exist, or there are more
                attention weights than `most_weights`.
        """
        return inspect_ids(
            self.model,
            self.tokenizer,
            prompt_ids(self.tokenizer, text),
            name=self.spec.name,
            top=top,
            attention=attention,
            layers=layers,
            most_tokens=most_tokens,
            most_weights=most_weights,
        )

    def _repr_html_(self) -> str:
        """Return the run as HTML for a notebook."""
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
        drawn = svg(spec_outline(self.spec, self.tokenizer.vocab_size, count_parts(self.model)), header=False)
        folded = html.details("architecture", drawn) + html.details("spec", html.code(repr(self.spec)))
        return html.heading(self.spec.name, "run") + html.table(rows) + folded
