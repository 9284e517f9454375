"""Diagrams of specs as files, for `gptkit show` and `gptkit diff`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gptkit.cli import console

if TYPE_CHECKING:
    from gptkit.cli.subject import Subject
    from gptkit.diagrams.outline import Outline
    from gptkit.model.gpt import GPT

__all__ = ["check_target", "spec_page", "subject_outline", "write"]

STDOUT = "-"


def check_target(target: str | None, suffix: str) -> None:
    """Check that a file may be written, before it is computed; ``-`` is the standard output.

    Raises:
        GptkitError: the suffix differs, the directory does not exist, or the file exists and was not written by gptkit.
    """
    if target is not None and target != STDOUT:
        from gptkit.diagrams.drawing import MARK
        from gptkit.pages.report import GENERATOR, check_report

        check_report(target, (suffix,), MARK if suffix == ".svg" else GENERATOR)


def write(target: str, text: Callable[[], str]) -> None:
    """Write a text to a file that `check_target` accepted, or to the standard output."""
    if target == STDOUT:
        console.out(text().rstrip("\n"))
        return
    from gptkit.core.atomic import write_text

    path = Path(target).expanduser()
    write_text(path, text())
    console.note(f"{path} written")


def subject_outline(subject: Subject, vocab_size: int | None, model: GPT | None) -> Outline:
    """Return the content of the diagram of a spec or run, with numbers of parameters if its model could be built."""
    from gptkit.runs.spec import spec_outline

    counts = None
    if model is not None:
        from gptkit.model.parts import count_parts

        counts = count_parts(model)
    return spec_outline(subject.spec, vocab_size, counts)


def spec_page(
    subject: Subject, outline: Outline, settings: Sequence[Sequence[str]], sizes: Sequence[Sequence[str]], layers: str
) -> str:
    """Return a page about a spec: its diagram, settings, layers, sizes and text.

    Args:
        subject: the spec or run.
        outline: the content of its diagram.
        settings: names and values.
        sizes: names, values and remarks.
        layers: the label of all layers of each type, in the order of the diagram, and their parts, as an HTML table.
    """
    from gptkit.core.yaml import dump_yaml
    from gptkit.diagrams.drawing import svg
    from gptkit.pages.static import figure, folded, section, static_page, table

    def sections() -> Iterator[str]:
        if sizes:
            yield section("Sizes", table(sizes))
        yield section("Settings", table(settings))
        yield section("Layers", layers)
        yield folded("Resolved spec", dump_yaml(subject.spec.plain()).rstrip("\n"))

    return static_page(subject.spec.name, outline.summary, [figure(svg(outline, header=False))], sections())
