"""The split by document."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptkit.components.data.builtin import BuiltinDataSpec
from gptkit.components.data.text import TextDataSpec
from gptkit.core.errors import DataError
from gptkit.data import corpus_texts, plan_split
from gptkit.data.split import split_documents
from gptkit.kinds.data import DataSpec, Document

HERE = Path()
Make = Callable[..., DataSpec]


def sides(data: DataSpec) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {"train": [], "validation": []}
    held = {"train": "", "validation": ""}
    for side, document in split_documents(data, HERE, plan_split(data, HERE)):
        held[side] += document.text
        if document.ends:
            result[side].append(held[side])
            held[side] = ""
    assert held == {"train": "", "validation": ""}
    return result


def size(texts: list[str]) -> int:
    return sum(map(len, texts))


@given(
    texts=st.lists(st.text(alphabet="abc\n", min_size=1, max_size=40), min_size=1, max_size=60),
    validation=st.floats(0.01, 0.9),
)
@settings(max_examples=200, deadline=None)
def test_every_document_is_on_exactly_one_side(listed: Make, texts: list[str], validation: float) -> None:
    data = listed(texts=texts, validation=validation)
    if max(map(len, texts)) == 1 and len(set(texts)) == 1:
        with pytest.raises(DataError, match="too short to split"):
            plan_split(data, HERE)
        return
    try:
        result = sides(data)
    except DataError as error:
        if "too short" in error.message and max(map(len, texts)) == 1:
            return
        raise
    assert result["train"]
    assert result["validation"]
    assert size(result["train"]) + size(result["validation"]) == size(texts)
    if len(result["train"]) + len(result["validation"]) == len(texts):  # no document was split
        assert sorted(result["train"] + result["validation"]) == sorted(texts)
        assert not set(result["train"]) & set(result["validation"])


@given(
    lengths=st.lists(st.integers(1, 300), min_size=50, max_size=200),
    validation=st.floats(0.05, 0.5),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_validation_share_is_approximated(listed: Make, lengths: list[int], validation: float, seed: int) -> None:
    texts = [f"{seed} {number} ".ljust(length, "x") for number, length in enumerate(lengths)]
    result = sides(listed(texts=texts, validation=validation))
    total = size(texts)
    assert abs(size(result["validation"]) - validation * total) <= 160  # half of the longest document at most


def test_split_depends_on_the_text_not_on_the_order(listed: Make) -> None:
    texts = [f"document {number}\n" * (1 + number % 5) for number in range(100)]
    forwards = sides(listed(texts=texts))
    backwards = sides(listed(texts=texts[::-1]))
    assert set(forwards["validation"]) == set(backwards["validation"])
    numbers = [texts.index(text) for text in forwards["validation"]]
    assert min(numbers) < 35
    assert max(numbers) > 65  # distributed over the corpus, not only at its end


def test_documents_keep_their_order(listed: Make) -> None:
    texts = [f"document {number}" for number in range(50)]
    result = sides(listed(texts=texts))
    assert result["train"] == [text for text in texts if text in set(result["train"])]


def test_copies_of_a_document_are_on_one_side(listed: Make) -> None:
    texts = [f"document {number % 20}" for number in range(200)]
    result = sides(listed(texts=texts, validation=0.2))
    assert len(result["validation"]) == 40
    assert not set(result["train"]) & set(result["validation"])


def test_single_document_is_split_at_a_line(listed: Make) -> None:
    text = "".join(f"line {number}\n" for number in range(1000))
    result = sides(listed(texts=[text], validation=0.1))
    assert result["train"][0] + result["validation"][0] == text
    assert result["train"][0].endswith("\n")
    assert 0.09 < len(result["validation"][0]) / len(text) < 0.16


def test_longest_document_is_split_if_whole_documents_are_too_long(listed: Make) -> None:
    texts = ["a" * 1000, "b" * 1200, "c" * 900]
    result = sides(listed(texts=texts, validation=0.1))
    assert result["validation"] == ["b" * 310]
    assert result["train"] == ["a" * 1000, "b" * 890, "c" * 900]


def test_pieces_of_a_document_are_split_as_one(listed: Make) -> None:
    whole = [f"document {number} and more" for number in range(40)]
    pieced = [part for text in whole for part in (text[:5] + "\\", text[5:9] + "\\", text[9:])]
    assert sides(listed(texts=whole)) == sides(listed(texts=pieced))
    long = "x" * 100
    for pieces in ([long], [long[:50] + "\\", long[50:]], [long[:90] + "\\", long[90:]], [long[:95] + "\\", long[95:]]):
        assert sides(listed(texts=pieces, validation=0.1)) == {"train": ["x" * 90], "validation": ["x" * 10]}


def test_all_copies_of_a_single_text_are_split(listed: Make) -> None:
    assert sides(listed(texts=["x" * 100] * 3, validation=0.1)) == {"train": ["x" * 90] * 3, "validation": ["x" * 10] * 3}


def test_at_least_one_document_is_for_training(listed: Make) -> None:
    result = sides(listed(texts=["a" * 10, "b" * 10], validation=0.9))
    assert sorted(result["train"] + result["validation"]) == ["a" * 10, "b" * 10]


def test_validation_can_be_disabled(listed: Make) -> None:
    assert sides(listed(texts=["a", "b"], validation=0)) == {"train": ["a", "b"], "validation": []}


def test_empty_corpus_is_an_error(listed: Make) -> None:
    for texts in ([], [""]):
        with pytest.raises(DataError, match="the corpus is empty: data 'listed' returned no text"):
            plan_split(listed(texts=texts), HERE)


@pytest.mark.parametrize("after", [["a", "bb"], ["a", "bb", "c", "dd"], ["a", "b", "c"]])
def test_corpus_that_changes_while_it_is_read_is_an_error(listed: Make, after: list[str]) -> None:
    split = plan_split(listed(texts=["a", "bb", "c"]), HERE)
    with pytest.raises(DataError, match="changed while it was read"):
        list(split_documents(listed(texts=after), HERE, split))


def test_tokenizer_is_trained_on_training_texts_only(listed: Make) -> None:
    data = listed(texts=[f"document {number}" for number in range(50)], validation=0.3)
    assert list(corpus_texts(data, HERE)) == sides(data)["train"]
    split = plan_split(data, HERE)
    opened: list[Any] = type(data).opened  # type: ignore[attr-defined]
    before = len(opened)
    assert list(corpus_texts(data, HERE, split)) == sides(data)["train"]
    assert len(opened) == before + 1 + 2  # read once for the texts and twice by `sides`


def test_builtin_corpus_is_split_near_its_share() -> None:
    result = sides(BuiltinDataSpec())
    assert 0.08 < size(result["validation"]) / (size(result["train"]) + size(result["validation"])) < 0.12
    assert len(result["validation"]) > 3


def test_split_holds_one_piece_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The split reads pieces one at a time, on demand."""
    (tmp_path / "x.txt").write_text("some line of text\n" * 20_000)
    data = TextDataSpec(path="x.txt")
    monkeypatch.setattr("gptkit.components.data.text.read_documents.__defaults__", (None, 30_000))
    pieces = list(split_documents(data, tmp_path, plan_split(data, tmp_path)))
    assert len(pieces) > 10
    assert "".join(document.text for _, document in pieces) == "some line of text\n" * 20_000
    assert [side for side, _ in pieces] == sorted(side for side, _ in pieces)
    assert max(len(document.text) for _, document in pieces) <= 30_000


@pytest.mark.parametrize(
    ("documents", "what"),
    [
        (None, "returned NoneType, not documents"),
        (["a text"], "yielded str, not a Document"),
        ([Document(b"a text", "x")], "yielded a Document whose text is bytes, not str"),  # type: ignore[arg-type]
    ],
)
def test_component_that_returns_no_documents_is_named(
    listed: Make, monkeypatch: pytest.MonkeyPatch, documents: Any, what: str
) -> None:
    data = listed(texts=["a"])
    monkeypatch.setattr(type(data), "documents", lambda self, base: documents)
    with pytest.raises(DataError, match=rf"data 'listed': .*\.Listed\.documents {what}"):
        plan_split(data, HERE)
