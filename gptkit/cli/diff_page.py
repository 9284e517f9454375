"""Page of `gptkit diff --html`: two diagrams side by side, and tables of what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gptkit.cli.drawn import subject_outline

if TYPE_CHECKING:
    from gptkit.cli.subject import Subject
    from gptkit.diagrams.outline import Outline

__all__ = ["diff_page"]

Rows = Sequence[Sequence[str]]


def diff_page(one: Subject, other: Subject, changes: Rows, sizes: Rows, training: Rows) -> str:
    """Return a page about two specs, in which the boxes that differ are marked.

    Args:
        one: the left subject.
        other: the right subject.
        changes: path, left and right value of every difference of the resolved specs.
        sizes: name, left value, right value and their ratio.
        training: the same for the metrics of runs.
    """
    from gptkit.diagrams.difference import changed_boxes
    from gptkit.diagrams.drawing import svg
    from gptkit.pages.static import figure, section, static_page, table

    labels = [one.label, other.label]
    outlines = [_outline(subject) for subject in (one, other)]
    marked = changed_boxes(*outlines)
    # The name is above the diagram.
    named = [replace(content, title=label) for content, label in zip(outlines, labels, strict=True)]
    figures = [figure(svg(content, changed=keys)) for content, keys in zip(named, marked, strict=True)]

    def sections() -> Iterator[str]:
        if changes:
            yield section("Differences of the resolved specs", table(changes, ["", *labels]))
        for title, rows in (("Sizes", sizes), ("Training", training)):
            if rows:
                yield section(title, table(rows, ["", *labels, "ratio"]))

    count = len(changes)
    remark = (
        "no differences" if not count else f"{count} difference{'s' if count > 1 else ''}; parts that differ are outlined"
    )
    return static_page(f"{labels[0]} and {labels[1]}", remark, figures, sections())


def _outline(subject: Subject) -> Outline:
    vocab_size = subject.vocab_size(fit=True)
    return subject_outline(subject, vocab_size, None if vocab_size is None else subject.model(vocab_size))
