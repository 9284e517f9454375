"""Numbers in notations that YAML reads as text."""

from __future__ import annotations

import pytest

from gptkit.files.numerals import numeral


@pytest.mark.parametrize(
    ("text", "whole", "written"),
    [
        ("1_000", True, "1000"),
        ("1 000 000", True, "1000000"),
        ("10'000", True, "10000"),
        ("2k", True, "2000"),
        ("1.5M", True, "1500000"),
        ("\N{ARABIC-INDIC DIGIT THREE}", True, "3"),
        ("\N{FULLWIDTH DIGIT FIVE}", True, "5"),
        ("10%", False, "0.1"),
        ("10 %", False, "0.1"),
        ("1/3", False, "0.333333333333"),
        ("\N{VULGAR FRACTION ONE HALF}", False, "0.5"),
        ("3e-4", False, "0.0003"),
        ("1.5", True, None),
        ("1/0", False, None),
        ("nan", False, None),
        ("-inf", False, None),
        ("1:30:00", True, None),
        ("", False, None),
        ("%", False, None),
        ("five", False, None),
    ],
)
def test_numbers_are_written_as_yaml_reads_them(text: str, whole: bool, written: str | None) -> None:
    assert numeral(text, whole=whole) == written
