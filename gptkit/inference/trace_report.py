"""The trace of a generated text as a report: JSON, and an interactive page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptkit.core import html
from gptkit.inference.result import Finish
from gptkit.inference.trace import TokenTrace
from gptkit.pages.page import page
from gptkit.pages.report import json_report, write_report
from gptkit.pages.tokens import label

__all__ = ["Trace", "save_traces", "traces_data", "traces_html"]


@dataclass(frozen=True)
class Trace(Sequence[TokenTrace]):
    """Why each token of a generated text was drawn: a sequence of `TokenTrace`.

    ::

        (result,) = gptkit.generate(run.model, run.tokenizer, "Once", sampler=[{"name": "top-k", "k": 40}], trace=True)
        result.trace[0].steps[0].n_after        # 40
        result.trace.save("why.html")           # or why.json

    Attributes:
        prompt: the text of each token of the prompt.
        tokens: the traces. If a token ended the text, it is the last one here, and no part of the text.
        seed: the seed of the generation.
        finish: the finish reason.
    """

    prompt: tuple[str, ...] = field(repr=False)
    tokens: tuple[TokenTrace, ...] = field(repr=False)
    seed: int
    finish: Finish

    def __getitem__(self, index: Any) -> Any:
        return self.tokens[index]

    def __len__(self) -> int:
        return len(self.tokens)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "seed": self.seed,
            "finish": self.finish,
            "prompt": list(self.prompt),
            "tokens": [token.as_dict() for token in self.tokens],
        }

    def html(self) -> str:
        """Return an interactive page, one file that loads nothing."""
        return traces_html([self])

    def save(self, path: str | Path) -> Path:
        """Write the page (``.html``) or the data (``.json``).

        Raises:
            GptkitError: the file exists and was not written by gptkit, or has another suffix.
            FileError: the file cannot be written.
        """
        return save_traces(path, [self])

    def _repr_html_(self) -> str:
        """The tokens with their probabilities and what the chain left, for a notebook."""
        rows = [
            [
                label(token.text),
                f"{token.probability:.2%}",
                f"{token.drawn_with:.2%}",
                f"{token.entropy:.2f}",
                " → ".join(f"{step.name} {step.n_after:,}" for step in token.steps) or "no sampler",
            ]
            for token in self.tokens
        ]
        hint = '<div style="opacity:.65">The interactive page: <code>trace.save("why.html")</code></div>'
        columns = ["token", "model", "drawn with", "entropy in bits", "tokens left"]
        return html.heading("Trace", f"seed {self.seed}") + html.table(rows, columns) + hint


def traces_data(traces: Sequence[Trace], model: str = "") -> dict[str, Any]:
    """Return the report of several texts as plain data; `model` is the model's name."""
    return json_report("trace", {"model": model, "texts": [trace.as_dict() for trace in traces]})


def traces_html(traces: Sequence[Trace], model: str = "") -> str:
    """Return the page of several texts; `model` is the model's name."""
    title = f"{model}: trace" if model else "Trace of a generation"
    return page(title, ["common.js", "chain.js", "trace.js"], traces_data(traces, model))


def save_traces(path: str | Path, traces: Sequence[Trace], model: str = "") -> Path:
    """Write the report of several texts as ``.html`` or ``.json``; the errors are those of `Trace.save`."""
    return write_report(path, html=lambda: traces_html(traces, model), data=lambda: traces_data(traces, model))
