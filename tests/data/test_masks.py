"""Documents with masked parts: masked tokens, files, and data windows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptkit.components.data.jsonl import JsonLinesDataSpec
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.components.tokenizer.byte import ByteSpec
from gptkit.components.tokenizer.char import CharSpec
from gptkit.components.tokenizer.word import WordSpec
from gptkit.core.errors import DataError, TokenizerError
from gptkit.data import GPTDataset, Prepared, Windows, open_prepared, plan_split, prepare
from gptkit.data.encoding import Encoder
from gptkit.data.prepared import token_files
from gptkit.data.split import split_documents
from gptkit.kinds.data import DataSpec, Document
from gptkit.kinds.tokenizer import Tokenizer

HERE = Path()
TEXT = "Is naïve 日本語 hard 🙂? No, naïve readers read 日本語 all day; naïve writers too.\n"
Spans = tuple[tuple[int, int], ...]


class Masked(DataSpec):
    """Corpus in which the parts in square brackets are masked; a text that ends in a backslash is continued by the next."""

    name: Literal["masked"] = "masked"
    texts: tuple[str, ...] = ()

    def documents(self, base: Path) -> Iterator[Document]:
        for number, text in enumerate(self.texts):
            plain, spans, ends = "", [], not text.endswith("\\")
            for part in text.removesuffix("\\").replace("[", "|[").replace("]", "|").split("|"):
                if part.startswith("["):
                    spans.append((len(plain), len(plain) + len(part) - 1))
                plain += part.removeprefix("[")
            yield Document(plain, f"text {number}", ends, tuple(spans))

    def fingerprint(self, base: Path) -> str:
        return hashlib.sha256(repr(self.texts).encode()).hexdigest()


def tokenizers() -> dict[str, Tokenizer]:
    return {
        "byte": ByteSpec().fit(iter(())),
        "char": CharSpec(unknown="bytes").fit(iter(["Is nave hrd?No,"])),
        "bpe": BpeSpec(vocab_size=330).fit(iter([TEXT * 20])),
    }


TOKENIZERS = tokenizers()


def expected(tokenizer: Tokenizer, document: Document) -> list[bool]:
    """Byte by byte: a token is masked if each of its bytes belongs to a masked character."""
    of_byte = [
        any(start <= index < end for start, end in document.masked)
        for index, character in enumerate(document.text)
        for _ in character.encode()
    ]
    result, at = [], 0
    for token in tokenizer.encode(document.text):
        size = len(tokenizer.token_bytes(token))
        result.append(all(of_byte[at : at + size]))
        at += size
    assert at == len(of_byte)
    return result


@st.composite
def spans(draw: st.DrawFn) -> Spans:
    borders = sorted(draw(st.sets(st.integers(0, len(TEXT)), max_size=8)))
    return tuple(zip(borders[::2], borders[1::2], strict=False))


@pytest.mark.parametrize("name", TOKENIZERS)
@given(masked=spans())
@settings(max_examples=60, deadline=None)
def test_a_token_is_masked_if_all_of_its_bytes_are(name: str, masked: Spans) -> None:
    tokenizer, document = TOKENIZERS[name], Document(TEXT, "x", masked=masked)
    ((ids, result),) = Encoder(tokenizer)([document])
    assert ids == tokenizer.encode(TEXT)
    assert (result is None) == (not masked)
    if result is not None:
        assert result.tolist() == expected(tokenizer, document)


def test_bpe_tokens_may_cross_the_mask_boundary() -> None:
    tokenizer = TOKENIZERS["bpe"]
    ids = tokenizer.encode(TEXT)
    (at, token) = next((at, token) for at, token in enumerate(ids) if len(tokenizer.token_bytes(token).decode()) > 2)
    before = len(tokenizer.decode(ids[:at]))
    inside, whole = before + 1, before + len(tokenizer.decode([token]))
    for end, masked in ((inside, at), (whole, at + 1)):
        ((_, result),) = Encoder(tokenizer)([Document(TEXT, "x", masked=((0, end),))])
        assert result is not None
        assert result.tolist() == [True] * masked + [False] * (len(ids) - masked)


def test_the_leading_space_belongs_to_the_first_word(make_bytes: Any) -> None:
    class Spaced(make_bytes):  # type: ignore[misc]
        leading = b" "

        def encode(self, text: str, **_: Any) -> list[int]:
            return [32, *text.encode()]

    for masked, result in ((((0, 2),), [1, 1, 1, 0]), (((1, 3),), [0, 0, 1, 1])):
        ((ids, results),) = Encoder(Spaced())([Document("abc", "x", masked=masked)])
        assert results is not None
        assert (ids, results.tolist()) == ([32, 97, 98, 99], result)


def test_other_tokenizers_encode_the_parts_separately() -> None:
    tokenizer = WordSpec(whitespace="drop", lowercase=True, fallback="unknown").fit(iter(["who is it ? a bat"]))
    ((ids, masked),) = Encoder(tokenizer)([Document("Who is it? A BAT unseen", "x", masked=((0, 10), (13, 16)))])
    parts = ["Who is it?", " A ", "BAT", " unseen"]
    assert ids == [token for part in parts for token in tokenizer.encode(part)]
    assert masked is not None
    assert masked.tolist() == [bool(number % 2 == 0) for number, part in enumerate(parts) for _ in tokenizer.encode(part)]


def test_surrogates_are_masked_like_other_characters(make_bytes: Any) -> None:
    class Real(make_bytes):  # type: ignore[misc]
        def encode(self, text: str, **_: Any) -> list[int]:
            return list(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode())

    for text in ("ab\ud83dcd", "ab\ud83d\ude42cd"):
        end = text.index("c")
        ((ids, masked),) = Encoder(Real())([Document(text, "x", masked=((0, end),))])
        assert masked is not None
        assert (len(ids), masked.tolist()) == (len(masked), [True] * (len(ids) - 2) + [False] * 2)


@pytest.mark.parametrize("masked", [((1, 1),), ((2, 1),), ((-1, 2),), ((0, 6),), ((0, 3), (2, 4)), ((3, 4), (0, 1))])
def test_malformed_spans_are_an_error(masked: Spans) -> None:
    with pytest.raises(DataError, match=r"here: the masked span \(.*\n.*sorted and not overlapping"):
        Document("12345", "here", masked=masked)
    assert Document("12345", "here", masked=((0, 2), (2, 5))).masked


def test_mask_file_marks_the_tokens_of_every_piece(make_bytes: Any, tmp_path: Path) -> None:
    data = Masked(texts=("plain", "[ab]c\\", "d[e\\", "f]\\".replace("f]", "[f]"), "g", "[h]i"), validation=0)
    prepared = prepare(data, make_bytes(257, 256), tmp_path / "t", HERE)
    tokens = [257, *b"plain", 256, 257, *b"abcdefg", 256, 257, *b"hi", 256]
    assert prepared.train.tokens.tolist() == tokens
    assert prepared.train.starts.tolist() == [0, 7, 16]
    assert prepared.train.masked is not None
    masked = [token for token, is_masked in zip(tokens, prepared.train.masked, strict=True) if is_masked]
    assert bytes(masked) == b"abefh"
    assert prepared.train_counts.masked == 5
    assert prepared.validation.masked is None
    assert {path.name for path in token_files(tmp_path / "t")} == {path.name for path in (tmp_path / "t").iterdir()}
    assert prepare(data, make_bytes(257, 256), tmp_path / "t", HERE) == prepared == open_prepared(tmp_path / "t")


def test_mask_is_split_with_its_document(make_bytes: Any, tmp_path: Path) -> None:
    data = Masked(texts=(f"{'a' * 30}[{'b' * 40}]{'c' * 30}",), validation=0.5)
    (_, first), (_, second) = split_documents(data, HERE, plan_split(data, HERE))
    assert first.masked == ((30, len(first.text)),)
    assert second.masked == ((0, 70 - len(first.text)),)
    prepared = prepare(data, make_bytes(), tmp_path / "t", HERE)
    for side in (prepared.train, prepared.validation):
        assert side.masked is not None
        assert side.masked.tolist() == (side.tokens == ord("b")).tolist()


def test_documents_without_mask_give_no_mask_file(listed: Any, make_bytes: Any, tmp_path: Path) -> None:
    texts = [f"text number {number}" for number in range(20)]
    plain = prepare(listed(texts=texts), make_bytes(), tmp_path / "plain", HERE)
    masked = prepare(Masked(texts=tuple(f"[text] {text[5:]}" for text in texts)), make_bytes(), tmp_path / "masked", HERE)
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert names == {
        "meta.json",
        *(f"{side}-00000{end}" for side in ("train", "validation") for end in (".bin", ".documents.bin")),
    }
    for name in names - {"meta.json"}:
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "masked" / name).read_bytes()
    assert plain.train_counts.masked == 0
    assert masked.train_counts.masked + masked.validation_counts.masked == 4 * 20


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_damaged_mask_is_prepared_again(make_bytes: Any, tmp_path: Path, damage: str) -> None:
    data = Masked(texts=("[ab]cd", "ef"), validation=0)
    whole = prepare(data, make_bytes(), tmp_path / "t", HERE)
    path = tmp_path / "t/train-00000.mask.bin"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"damaged|not found"):
        open_prepared(tmp_path / "t")
    assert prepare(data, make_bytes(), tmp_path / "t", HERE) == whole
    assert path.read_bytes() == content


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_earlier_formats_are_reused(listed: Any, make_bytes: Any, tmp_path: Path, version: int) -> None:
    texts = ["one", "two", "three"]
    data = listed(texts=texts, validation=0.3) if version == 1 else Masked(texts=("[ab]cd", "e[f]", "gh"), validation=0.3)
    now = prepare(data, make_bytes(), tmp_path / "now", HERE)
    in_single_files(now, tmp_path / "t", version)
    before = contents(tmp_path / "t")
    old = open_prepared(tmp_path / "t")
    assert prepare(data, make_bytes(), tmp_path / "t", HERE) == old
    assert contents(tmp_path / "t") == before
    assert (old.train_counts, old.validation_counts) == (now.train_counts, now.validation_counts)
    for one, other in ((old.train, now.train), (old.validation, now.validation)):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.starts.tolist() == other.starts.tolist()
        assert (one.masked is None) == (other.masked is None)
        assert one.masked is None or one.masked.tolist() == other.masked.tolist()  # type: ignore[union-attr]
    assert {path.name for path in token_files(tmp_path / "t")} == set(before)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def in_single_files(prepared: Prepared, directory: Path, version: int) -> None:
    """Write tokens as the formats 1 and 2 had them: one file for each side."""
    directory.mkdir()
    meta = json.loads((prepared.directory / "meta.json").read_text()) | {"format": version}
    for side, file in (("train", prepared.train), ("validation", prepared.validation)):
        del meta[side]["shards"]
        if version == 1:
            del meta[side]["masked"]
        np.asarray(file.tokens).tofile(directory / f"{side}.bin")
        np.save(directory / f"{side}.documents.npy", file.starts)
        if file.masked is not None:
            np.asarray(file.masked).tofile(directory / f"{side}.mask.bin")
    del meta["corpus"], meta["tokenizer_spec"]
    (directory / "meta.json").write_text(json.dumps(meta))


def test_corpus_that_is_fully_masked_is_an_error(make_bytes: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all but 1 of the 5 tokens of the train split are masked"):
        prepare(Masked(texts=("[abcd]",), validation=0), make_bytes(), tmp_path / "t", HERE)
    assert list(tmp_path.iterdir()) == []


def test_part_that_the_tokenizer_rejects_is_reported(make_bytes: Any, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="text 1: no token for '€'"):
        prepare(Masked(texts=("[ab]cd", "[a]€"), validation=0), make_bytes(refuses="€"), tmp_path / "t", HERE)


@pytest.mark.parametrize("order", ["random", "ordered"])
def test_masked_tokens_are_inputs_but_not_targets(order: Any) -> None:
    tokens, masked = np.arange(50, dtype=np.uint16), np.arange(50) % 7 < 3
    plain = Windows(tokens, 8, order=order, stride=3)
    windows = Windows(tokens, 8, order=order, stride=3, masked=masked)
    for step in range(5):
        one, other = plain.batch(step, 4), windows.batch(step, 4)
        assert torch.equal(one.inputs_BT, other.inputs_BT)
        assert torch.equal(other.targets_BT, torch.where(one.targets_BT % 7 < 3, -100, one.targets_BT))
    inputs, targets = windows[1]
    assert (inputs.tolist(), targets.tolist()) == (list(range(3, 11)), [4, 5, 6, -100, -100, -100, 10, 11])
    dataset = GPTDataset.from_tokens(tokens, 8, 3, masked=masked)
    assert torch.equal(dataset[1][1], targets)


def test_every_validation_target_is_masked_or_occurs_once(make_bytes: Any, tmp_path: Path) -> None:
    data = Masked(texts=tuple(f"[question {number}] answer {number}" for number in range(60)), validation=0.3)
    prepared = prepare(data, make_bytes(), tmp_path / "t", HERE)
    held = prepared.validation
    assert held.masked is not None
    result = [token for batch in prepared.validation_batches(data, 16, 3) for token in batch.targets_BT.flatten().tolist()]
    assert result == np.where(held.masked, -100, held.tokens.astype(np.int64))[1:].tolist()
    windows = prepared.train_windows(data, 16)
    assert windows.masked is prepared.train.masked


LINES = [
    {"q": "2 + 2?", "a": "4"},
    {"q": "naïve 日本?", "a": "語"},
    {"q": "", "a": "no prompt"},
    {"q": "nothing?", "a": " "},
]


def test_jsonl_masks_prompts(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    data = JsonLinesDataSpec(path="x.jsonl", field="a", prompt_field="q", prompt_end=" = ")
    result = [(document.text, document.masked) for document in data.documents(tmp_path)]
    assert result == [("2 + 2? = 4", ((0, 9),)), ("naïve 日本? = 語", ((0, 12),)), (" = no prompt", ((0, 3),))]
    bare = data.replace(prompt_end="")
    assert [d.masked for d in bare.documents(tmp_path)] == [((0, 6),), ((0, 9),), ()]
    trained = data.replace(mask_prompt=False)
    assert [(d.text, d.masked) for d in trained.documents(tmp_path)] == [(text, ()) for text, _ in result]
    prints = {each.fingerprint(tmp_path) for each in (data, bare, trained, JsonLinesDataSpec(path="x.jsonl", field="a"))}
    assert len(prints) == 4


def test_jsonl_line_without_the_prompt_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"q": "2 + 2?", "a": "4"}\n{"a": "5"}\n{"q": null, "a": "6"}\n')
    data = JsonLinesDataSpec(path="x.jsonl", field="a", prompt_field="q")
    with pytest.raises(DataError, match=r"x\.jsonl:2: no field 'q'; there is 'a'"):
        list(data.documents(tmp_path))
    assert len(list(data.replace(skip_bad_lines=True).documents(tmp_path))) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt_end": ":"}, "it ends a prompt, but no prompt is named; set `prompt_field` too"),
        ({"mask_prompt": False}, "it concerns prompts, but no prompt is named; set `prompt_field` or `messages_field` too"),
        ({"prompt_field": "text"}, "prompt and text are the same field"),
    ],
)
def test_jsonl_rejects_prompt_settings_without_effect(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JsonLinesDataSpec(**fields)


def test_conversation_without_a_chat_template_has_a_remedy_for_training() -> None:
    messages = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    with pytest.raises(TokenizerError, match="x:1: the tokenizer has no chat template") as caught:
        list(Encoder(ByteSpec().fit(iter(())))([Document("a\nb", "x:1", messages=messages)]))
    assert "data.prompt_field" in (caught.value.hint or "")
