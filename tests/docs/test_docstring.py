from __future__ import annotations

import pytest

from gptkit.reflect.docstring import parse


def test_sections_are_separated() -> None:
    doc = parse("""Does one thing, e.g. This one. And another.

        More prose.

        Declared capabilities:
            bright: yes.

        Formula:
            a = b
              + c

            d = e

        Shapes:
            (B, T) -> (B, T)

        Paper: https://example.org/x

        Notes:
            A note.
        """)
    assert doc.summary == "Does one thing, e.g. This one."
    assert doc.body == "And another.\n\nMore prose.\n\nDeclared capabilities:\n    bright: yes."
    assert doc.sections == {
        "Formula": "a = b\n  + c\n\nd = e",
        "Shapes": "(B, T) -> (B, T)",
        "Paper": "https://example.org/x",
        "Notes": "A note.",
    }


@pytest.mark.parametrize("text", [None, "", "   \n  "])
def test_missing_docstring_is_empty(text: str | None) -> None:
    doc = parse(text)
    assert (doc.summary, doc.body, doc.sections) == ("", "", {})


def test_first_sentence_is_joined_to_one_line() -> None:
    assert parse("One\n    two.\n\n    Three.").summary == "One two."


def test_text_after_a_section_is_not_part_of_it() -> None:
    doc = parse("One.\n\nFormula:\n    a\n\nBack at the margin.")
    assert doc.sections["Formula"] == "a"
    assert doc.body == "Back at the margin."
