from __future__ import annotations

import pytest

from gptkit.reflect import prose


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("plain text", "plain text"),
        ("``a`` and `b`", "`a` and `b`"),
        ("d_model / n_heads", "`d_model` / `n_heads`"),
        ("a * b * c", r"a \* b \* c"),
        ("a <tag> | [x]", r"a &lt;tag\> \| \[x\]"),
        ("see https://example.org/a_b.", "see [example.org/a\\_b](https://example.org/a_b)."),
        ("`https://example.org`", "`https://example.org`"),
    ],
)
def test_inline_markup_is_converted(text: str, markdown: str) -> None:
    assert prose.inline(text) == markdown


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("https://arxiv.org/abs/2104.09864", "[arXiv 2104.09864](https://arxiv.org/abs/2104.09864)"),
        ("RoFormer, https://arxiv.org/abs/2104.09864", "[RoFormer](https://arxiv.org/abs/2104.09864)"),
        (
            "One (https://arxiv.org/abs/1.2), Two https://example.org/two",
            "[One](https://arxiv.org/abs/1.2), [Two](https://example.org/two)",
        ),
        ("A book without an address", "A book without an address"),
    ],
)
def test_papers_become_short_links(text: str, markdown: str) -> None:
    assert prose.paper(text) == markdown


def test_sections_become_lists_and_examples_code() -> None:
    text = """First
    line.

    Must hold:
        one thing: is so,
            and continues;
        another is.

    Like this::

        a:
          b
    """
    assert prose.prose(text) == (
        "First line.\n\n**Must hold:**\n\n- **one thing**: is so, and continues;\n- another is.\n\nLike this:\n\n"
        "```text\na:\n  b\n```"
    )


def test_fence_is_longer_than_fences_inside() -> None:
    assert prose.code("a\n```\nb") == "````text\na\n```\nb\n````"
