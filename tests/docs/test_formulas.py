"""Typeset formulas: of every component that has one, valid MathML, and errors that name the component."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.docs.formulas import typeset
from gptkit.docs.pages import pages

pytest.importorskip("latex2mathml", reason="latex2mathml comes with the extra `docs`")

TEXT_ONLY = {"tokenizer tiktoken", "sampler llama.cpp"}
"""Components whose section Formula is a list: of vocabularies, and of samplers."""


def test_every_formula_is_typeset(builtin: Registry) -> None:
    result = pages(builtin, figures=False)
    for kind in builtin.kinds():
        for name, entry in builtin.entries(kind).items():
            page = result[f"components/{kind}/{name}.md"]
            if "\n## Formula\n" in page and f"{kind} {name}" not in TEXT_ONLY:
                assert '<div class="formula">' in page, f"{kind} {name} declares no `formula`"
            if entry.cls.__dict__.get("formula"):
                assert "\n## Formula\n" in page


def test_lines_and_gaps_are_separate_formulas() -> None:
    html = typeset(r"a = b \qquad c = \frac{1}{2}" + "\n" + r"d = 3", "norm example")
    lines = html.splitlines()
    assert lines[0] == '<div class="formula">'
    assert [line.count("<math") for line in lines] == [0, 2, 1, 0]
    for line in lines[1:-1]:
        ElementTree.fromstring(line)


def test_a_line_continues_after_a_gap_and_after_a_row() -> None:
    html = typeset("f = \\begin{cases} 1 & x > 0 \\\\\n    0 & x \\le 0 \\end{cases} \\qquad\n    x = y", "norm example")
    assert [line.count("<math") for line in html.splitlines()] == [0, 2, 0]


@pytest.mark.parametrize(
    ("latex", "reason"), [(r"\begin{cases} [t", "is not valid"), (r"x = \sofmax(y)", r"unknown command, \\sofmax")]
)
def test_invalid_formulas_name_the_component(latex: str, reason: str) -> None:
    with pytest.raises(GptkitError, match=rf"the formula of norm example.*{reason}"):
        typeset(latex, "norm example")


def test_without_a_formula_the_text_is_shown(with_plugins: Registry) -> None:
    page = pages(with_plugins, figures=False)["components/norm/halving.md"]
    assert "## Formula\n\n```text\ny = x / 2\n```" in page
