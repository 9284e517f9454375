"""Stop strings and incomplete characters at any token boundary."""

from __future__ import annotations

import itertools

import pytest

from gptkit.inference.text import RowText
from tests.support.fakes import Bytes


def cuts(data: bytes, n_cuts: int) -> list[list[bytes]]:
    """Yield every division of `data` into at most n_cuts + 1 tokens."""
    ways = set()
    for places in itertools.combinations_with_replacement(range(1, len(data)), n_cuts):
        edges = [0, *places, len(data)]
        ways.add(tuple(data[a:b] for a, b in itertools.pairwise(edges) if a != b))
    return [list(way) for way in ways]


def write(tokens: list[bytes], stop: tuple[str, ...]) -> tuple[list[str], bool]:
    tokenizer = Bytes(tokens)
    row = RowText(tokenizer, [], stop)
    pieces = []
    for token in range(256, 256 + len(tokens)):
        pieces.append(row.push(token))
        if row.stopped:
            break
    pieces.append(row.finish())
    assert "".join(pieces) == row.text
    return pieces, row.stopped


@pytest.mark.parametrize(
    ("text", "stop", "expected", "stopped"),
    [
        ("one. two", (". ",), "one", True),
        ("one.two", (". ",), "one.two", False),
        ("ends in a.", (". ",), "ends in a.", False),
        ("aab", ("ab",), "a", True),
        ("aaab", ("aab",), "a", True),
        ("xababac", ("abac",), "xab", True),
        ("xabcd", ("abcd", "bc"), "xa", True),
        ("xabc", ("bc", "abc"), "x", True),
        ("stop", ("stop",), "", True),
        ("été: ça", (": ",), "été", True),
        ("né ✓ fin", ("✓",), "né ", True),
        ("no stop ✓", (), "no stop ✓", False),
    ],
)
def test_text_does_not_depend_on_token_boundaries(text: str, stop: tuple[str, ...], expected: str, stopped: bool) -> None:
    for tokens in cuts(text.encode(), 3):
        pieces, has_stopped = write(tokens, stop)
        assert ("".join(pieces), has_stopped) == (expected, stopped), tokens


def test_only_prefixes_of_stop_strings_are_held_back() -> None:
    pieces, _ = write([b"go", b" o", b"n", b"e", b"n", b"d"], ("end",))
    assert pieces == ["go", " o", "n", "", "", "", ""]
    pieces, _ = write([b"go", b" e", b"n", b"ter"], ("end",))
    assert pieces == ["go", " ", "", "enter", ""]


def test_incomplete_characters_are_held_back() -> None:
    pieces, _ = write([b"a\xe2", b"\x9c", b"\x93", b"\xf0\x9f"], ())
    assert pieces == ["a", "", "✓", "", "�"]


def test_character_begun_by_the_prompt_is_completed() -> None:
    tokenizer = Bytes()
    row = RowText(tokenizer, list("nearly ✓".encode())[:-1], ())
    assert row.push(0x93) == "✓"


def test_stop_strings_exclude_the_prompt() -> None:
    row = RowText(Bytes(), list(b"the e"), ("end",))
    assert row.push(ord("n")) + row.push(ord("d")) + row.finish() == "nd"
    assert not row.stopped
