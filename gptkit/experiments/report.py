"""Report of an experiment: a page, Markdown with figures, and tables of all numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptkit.core.atomic import reading, write_text, writing
from gptkit.core.errors import GptkitError
from gptkit.experiments.report_data import report_data
from gptkit.experiments.report_markdown import GENERATOR, markdown
from gptkit.experiments.results import Experiment
from gptkit.experiments.tables import tables, write_tables
from gptkit.pages.page import page
from gptkit.pages.report import check_report

__all__ = ["REPORT", "open_report", "report_page", "write_report"]

REPORT = "report.html"
"""Name of the page in an experiment's directory."""

_MARK = ".gptkit"
"""Name of an empty file in a directory of figures and tables, by which gptkit recognizes it as its own."""


def write_report(experiment: Experiment, directory: Path) -> Path:
    """Write the report of an experiment; equal results give equal files.

    It consists of ``report.html``, ``report.md``, and a directory ``report`` with the figures of the Markdown and the tables
    (`gptkit.experiments.tables`). Previous ones are replaced.

    Args:
        experiment: the experiment; trials may be missing.
        directory: its directory.

    Returns:
        The page.

    Raises:
        GptkitError: a file with the name of the report was not written by gptkit.
        FileError: a file cannot be written.
    """
    from gptkit.experiments.report_figures import write_figures

    target, text, files = open_report(directory, REPORT, GENERATOR)
    data = report_data(experiment)
    write_tables(tables(experiment), files)
    figures = write_figures(data, files)
    write_text(text, markdown(data, {name: f"{files.name}/{path.name}" for name, path in figures.items()}))
    write_text(target, report_page(data))
    return target


def report_page(data: dict[str, Any]) -> str:
    """Return the page: one file that needs no network.

    Args:
        data: the content, of `report_data`.
    """
    return page(f"{data['name']}: comparison", ["common.js", "chart.js", "experiment.js"], data)


def open_report(directory: Path, page: str, generator: str) -> tuple[Path, Path, Path]:
    """Return the files of a report, of which the existing ones are gptkit's: they may be replaced.

    Args:
        directory: where the report is written.
        page: the name of the page, ``NAME.html``.
        generator: the first line of the Markdown file.

    Returns:
        The page, the Markdown file ``NAME.md``, and the directory ``NAME`` of figures and tables, which is created.

    Raises:
        GptkitError: one of them was not written by gptkit.
        FileError: the directory cannot be created.
    """
    target = check_report(directory / page)
    text, files = target.with_suffix(".md"), target.with_suffix("")
    own = True
    if text.is_file():
        with reading(text), text.open(encoding="utf-8", errors="replace") as stream:
            own = stream.readline().rstrip("\n") == generator
    elif text.exists():
        own = False
    if not own:
        raise _refused(text)
    mark = files / _MARK
    if files.exists() and not mark.is_file() and (not files.is_dir() or any(files.iterdir())):
        raise _refused(files)
    with writing(files):
        files.mkdir(exist_ok=True)
    write_text(mark, "")
    return target, text, files


def _refused(path: Path) -> GptkitError:
    return GptkitError(f"{path} exists and was not written by gptkit", hint="Rename it, or choose another directory.")
