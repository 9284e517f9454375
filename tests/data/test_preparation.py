"""Token files: contents, reuse, and atomic creation."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptkit.components.data.text import TextDataSpec
from gptkit.core.atomic import atomic_directory
from gptkit.core.errors import DataError, FileError, TokenizerError
from gptkit.data import Prepared, Progress, open_prepared, plan_split, prepare
from gptkit.data.files import token_dtype
from gptkit.data.split import split_documents
from gptkit.kinds.data import DataSpec

HERE = Path()
Make = Callable[..., DataSpec]
TEXTS = [f"document number {number}\n" * (1 + number % 3) for number in range(40)]


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\\"), min_size=1, max_size=30),
        min_size=4,
        max_size=30,
        unique=True,
    ),
    start=st.sampled_from([None, 256, 257]),
    end=st.sampled_from([None, 256]),
    batch=st.integers(1, 400),
)
@settings(max_examples=60, deadline=None)
def test_files_contain_the_encoding_of_all_documents(
    tmp_path_factory: pytest.TempPathFactory,
    listed: Make,
    make_bytes: Any,
    texts: list[str],
    start: int | None,
    end: int | None,
    batch: int,
) -> None:
    data, tokenizer = listed(texts=texts, validation=0.4), make_bytes(start, end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gptkit.data.preparation._BATCH", batch)
        try:
            prepared = prepare(data, tokenizer, tmp_path_factory.mktemp("prepared") / "tokens", HERE)
        except DataError as error:
            if "too short to be split" in error.message or "too few to measure" in error.message:
                return
            raise
    for side, file, counts in (
        ("train", prepared.train, prepared.train_counts),
        ("validation", prepared.validation, prepared.validation_counts),
    ):
        own = [document.text for where, document in split_documents(data, HERE, plan_split(data, HERE)) if where == side]
        before = [] if start is None or start == end else [start]
        after = [] if end is None else [end]
        documents = [[*before, *text.encode(), *after] for text in own]
        assert file.tokens.tolist() == [token for document in documents for token in document]
        assert file.starts.tolist() == np.cumsum([0, *map(len, documents)])[:-1].tolist()
        assert counts.tokens == len(file.tokens)
        assert counts.documents == len(own)
        assert counts.characters == sum(map(len, own))
        assert counts.bytes == sum(len(text.encode()) for text in own)


def test_a_document_in_pieces_has_one_start_and_one_end(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    data = listed(texts=["ab\\", "cd\\", "", "ef"], validation=0)
    prepared = prepare(data, make_bytes(257, 256), tmp_path / "tokens", HERE)
    assert prepared.train.tokens.tolist() == [257, *b"abcd", 256, 257, *b"ef", 256]
    assert prepared.train.starts.tolist() == [0, 6]
    assert len(prepared.validation.tokens) == len(prepared.validation.starts) == 0


def test_empty_documents_are_omitted(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    prepared = prepare(listed(texts=["", "ab", "", "cd", ""], validation=0), make_bytes(end=None), tmp_path / "t", HERE)
    assert prepared.train.starts.tolist() == [0, 2]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(256, "<u2"), (65536, "<u2"), (65537, "<u4")])
def test_smallest_dtype_that_holds_every_id_is_used(
    listed: Make, make_bytes: Any, tmp_path: Path, vocab_size: int, dtype: str
) -> None:
    assert token_dtype(vocab_size).str == dtype
    prepared = prepare(listed(texts=TEXTS), make_bytes(end=vocab_size - 1, vocab_size=vocab_size), tmp_path / "t", HERE)
    assert prepared.train.tokens.dtype.str == dtype
    assert prepared.train.tokens[-1] == vocab_size - 1
    assert (tmp_path / "t/train-00000.bin").stat().st_size == prepared.train_counts.tokens * int(dtype[-1])


def test_id_outside_the_vocabulary_is_rejected(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"\) returned the id 300, but its vocabulary has 258"):
        prepare(listed(texts=TEXTS), make_bytes(end=300), tmp_path / "t", HERE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ids", "seen"),
    [(None, "None"), ([1.5, 2.0], "a list of float64"), (["a", "b"], "a list of str_"), ([[1]], "a list of int64")],
)
def test_result_of_encode_that_is_not_ids_is_rejected(
    listed: Make, make_bytes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: Any, seen: str
) -> None:
    tokenizer = make_bytes()
    for method in ("encode", "encode_array"):
        monkeypatch.setattr(type(tokenizer), method, lambda *_, **__: ids)
    monkeypatch.setattr(type(tokenizer), "encode_batch", lambda _, texts: [ids for _ in texts])
    with pytest.raises(TokenizerError, match=f"returned {seen}.*not token ids"):
        prepare(listed(texts=TEXTS), tokenizer, tmp_path / "t", HERE)


def test_preparation_is_cached_and_deterministic(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    data, tokenizer = listed(texts=TEXTS), make_bytes()
    first = prepare(data, tokenizer, tmp_path / "a", HERE)
    stat = (tmp_path / "a/train-00000.bin").stat()
    opened = len(type(data).opened)  # type: ignore[attr-defined]
    again = prepare(listed(texts=TEXTS, windows="ordered", stride=3, document_mask=True), make_bytes(), tmp_path / "a", HERE)
    assert again == first
    assert tokenizer.batches == 1
    assert len(type(data).opened) == opened  # type: ignore[attr-defined]
    assert (tmp_path / "a/train-00000.bin").stat() == stat
    prepare(data, tokenizer, tmp_path / "b", HERE)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_preparation_is_repeated_after_changes(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    variants: list[tuple[DataSpec, Any]] = [
        (listed(texts=TEXTS), make_bytes()),
        (listed(texts=[*TEXTS, "more"]), make_bytes()),
        (listed(texts=TEXTS, validation=0.2), make_bytes()),
        (listed(texts=TEXTS), make_bytes(end=257)),
        (listed(texts=TEXTS), make_bytes(start=257)),
        (listed(texts=TEXTS), make_bytes(vocab_size=300)),
    ]
    prints = [prepare(data, tokenizer, tmp_path / "t", HERE).fingerprint for data, tokenizer in variants]
    assert len(set(prints)) == len(variants)
    assert prepare(*variants[0], tmp_path / "t", HERE).fingerprint == prints[0]
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_tokenizer_state_is_part_of_the_fingerprint(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    class Other(make_bytes):  # type: ignore[misc]
        def save(self, directory: Path) -> None:
            (directory / "bytes.json").write_text(note)

    note = "one"
    first = prepare(listed(texts=TEXTS), Other(), tmp_path / "t", HERE).fingerprint
    note = "two"
    assert prepare(listed(texts=TEXTS), Other(), tmp_path / "t", HERE).fingerprint != first


def test_changed_file_is_detected(make_bytes: Any, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a line\n" * 100)
    data = TextDataSpec(path="x.txt")
    first = prepare(data, make_bytes(), tmp_path / "t", tmp_path)
    (tmp_path / "x.txt").write_text("A line\n" * 100)
    second = prepare(data, make_bytes(), tmp_path / "t", tmp_path)
    assert (bytes(first.train.tokens[:1].tolist()), bytes(second.train.tokens[:1].tolist())) == (b"A", b"A")
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("damage", ["cut", "missing", "no json", "no key", "other format"])
def test_damaged_files_are_prepared_again(listed: Make, make_bytes: Any, tmp_path: Path, damage: str) -> None:
    directory, data = tmp_path / "t", listed(texts=TEXTS)
    whole = prepare(data, make_bytes(), directory, HERE)
    meta = json.loads((directory / "meta.json").read_text())
    match damage:
        case "cut":
            (directory / "train-00000.bin").write_bytes((directory / "train-00000.bin").read_bytes()[:-2])
        case "missing":
            (directory / "validation-00000.bin").unlink()
        case "no json":
            (directory / "meta.json").write_text("{")
        case "no key":
            (directory / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if k != "train"}))
        case "other format":
            (directory / "meta.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(DataError, match=r"damaged|not found"):
        open_prepared(directory)
    assert prepare(data, make_bytes(), directory, HERE) == whole == open_prepared(directory)


def test_tokens_without_an_index_are_replaced_in_a_run_only(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    """Elsewhere, names alone do not show that gptkit wrote the files."""
    directory, data = tmp_path / "t", listed(texts=TEXTS)
    whole = prepare(data, make_bytes(), directory, HERE)
    (directory / "meta.json").unlink()
    files = sorted(directory.iterdir())
    with pytest.raises(DataError, match="contains files other than prepared tokens"):
        prepare(data, make_bytes(), directory, HERE)
    assert sorted(directory.iterdir()) == files
    assert prepare(data, make_bytes(), directory, HERE, of_run=True) == whole == open_prepared(directory)


def test_unrelated_directory_is_never_replaced(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="contains files other than"):
        prepare(listed(texts=TEXTS), make_bytes(), tmp_path, HERE)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_interruption_keeps_the_previous_files(
    listed: Make, make_bytes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    monkeypatch.setattr("gptkit.data.preparation._BATCH", 200)
    calls = 0

    def interrupt(progress: Progress) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise stop

    with pytest.raises(stop):
        prepare(listed(texts=TEXTS), make_bytes(), tmp_path / "t", HERE, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    prepare(listed(texts=TEXTS), make_bytes(), tmp_path / "t", HERE)
    old, calls = tree(tmp_path), 0
    with pytest.raises(stop):
        prepare(listed(texts=TEXTS[::-1]), make_bytes(), tmp_path / "t", HERE, progress=interrupt)
    assert tree(tmp_path) == old


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from gptkit.core.atomic import atomic_directory
        with atomic_directory(Path(sys.argv[1])) as new:
            (new / "train.bin").write_bytes(b"half")
            print("there", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "t")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    (left,) = tmp_path.iterdir()
    with atomic_directory(tmp_path / "t") as new:
        (new / "a").write_text("")
        assert left.exists()  # its process is still running
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with atomic_directory(tmp_path / "t") as new:
        assert not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_directory_of_a_concurrent_process_is_handled(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "t") as mine:
        (mine / "a").write_text("mine")
        with atomic_directory(tmp_path / "t") as reference:
            (reference / "a").write_text("reference")
    assert tree(tmp_path) == {"t/a": b"mine"}


def test_progress_reaches_the_total(listed: Make, make_bytes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.data.preparation._BATCH", 300)
    seen: list[Progress] = []
    prepared = prepare(listed(texts=TEXTS), make_bytes(), tmp_path / "t", HERE, progress=seen.append)
    total = sum(map(len, TEXTS))
    assert len(seen) > 3
    assert [step.done for step in seen] == sorted({step.done for step in seen} | {seen[0].done})[: len(seen)]
    assert all(step.total == total for step in seen)
    assert (seen[-1].done, seen[-1].tokens) == (total, prepared.train_counts.tokens + prepared.validation_counts.tokens)


def test_text_that_the_tokenizer_rejects_is_reported(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    texts = [*TEXTS[:7], "here is a € sign", *TEXTS[7:]]
    with pytest.raises(TokenizerError, match="text 7: no token for '€'\n  Take another"):
        prepare(listed(texts=texts), make_bytes(refuses="€"), tmp_path / "t", HERE)


def test_too_small_validation_split_is_an_error(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    data = listed(texts=["a document", "b"], validation=0.1)
    with pytest.raises(DataError, match=r"validation split has 1 tokens.*\n.*higher than 0\.1, or to 0"):
        prepare(data, make_bytes(end=None), tmp_path / "t", HERE)
    assert list(tmp_path.iterdir()) == []


def test_memory_stays_bounded(make_bytes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches for the tokenizer are bounded by the size of a piece."""
    (tmp_path / "x.txt").write_text("some line of text\n" * 50_000)
    monkeypatch.setattr("gptkit.components.data.text.read_documents.__defaults__", (None, 20_000))
    monkeypatch.setattr("gptkit.data.preparation._BATCH", 30_000)
    largest = 0

    class Watching(make_bytes):  # type: ignore[misc]
        def encode_batch(self, texts: list[str]) -> list[list[int]]:
            nonlocal largest
            largest = max(largest, sum(map(len, texts)))
            return super().encode_batch(texts)  # type: ignore[no-any-return]

    prepared = prepare(TextDataSpec(path="x.txt"), Watching(), tmp_path / "t", tmp_path)
    assert 20_000 < largest <= 50_000
    assert prepared.train_counts.documents == prepared.validation_counts.documents == 1
    assert prepared.train_counts.characters + prepared.validation_counts.characters == 18 * 50_000


def test_data_windows_and_validation_follow_the_spec(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    data = listed(texts=TEXTS, windows="ordered", stride=5, document_mask=True)
    prepared = prepare(data, make_bytes(), tmp_path / "t", HERE)
    windows = prepared.train_windows(data, 16)
    assert windows.starts(0, 3).tolist() == [0, 5, 10]
    assert windows.batch(0, 3).documents_BT is not None
    plain = data.replace(document_mask=False, windows="random")
    assert prepared.train_windows(plain, 16).batch(0, 3).documents_BT is None
    batches = list(prepared.validation_batches(data, 16, 4))
    targets = [token for batch in batches for token in batch.targets_BT.flatten().tolist()]
    assert targets == prepared.validation.tokens[1:].tolist()
    assert all(batch.documents_BT is not None for batch in batches)
    with pytest.raises(DataError, match=rf"training split .* has {prepared.train_counts.tokens} tokens"):
        prepared.train_windows(data, 100_000)


def test_validation_may_be_shorter_than_a_window(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    data = listed(texts=TEXTS, document_mask=True)
    prepared = prepare(data, make_bytes(), tmp_path / "t", HERE)
    (batch,) = prepared.validation_batches(data, 100_000, 4, 10)
    assert batch.inputs_BT.tolist() == [prepared.validation.tokens[:-1].tolist()]
    assert batch.documents_BT is not None
    assert batch.documents_BT.max() == prepared.validation_counts.documents - 1
    nothing = listed(texts=TEXTS, validation=0)
    assert list(prepare(nothing, make_bytes(), tmp_path / "u", HERE).validation_batches(nothing, 8, 4)) == []


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """After a kill at any moment, the opened files are the complete old or new ones."""
    script = """
        import sys
        from pathlib import Path
        from gptkit.core.atomic import atomic_directory
        print("start", flush=True)
        number = 0
        while True:
            number += 1
            with atomic_directory(Path(sys.argv[1])) as new:
                for name in "abc":
                    (new / name).write_text(str(number))
    """
    for delay in (0.02, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "t")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if (tmp_path / "t").exists():
            result = [path.read_text() for path in (tmp_path / "t").iterdir()]
            assert len(result) == 3
            assert len(set(result)) == 1
    with atomic_directory(tmp_path / "t"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_prepared_stores_its_directory(listed: Make, make_bytes: Any, tmp_path: Path) -> None:
    prepared = prepare(listed(texts=TEXTS), make_bytes(), tmp_path / "deep/er/t", HERE)
    assert isinstance(prepared, Prepared)
    assert open_prepared(tmp_path / "deep/er/t") == prepared
    with pytest.raises(DataError, match="prepared tokens not found"):
        open_prepared(tmp_path / "other")


@pytest.mark.parametrize("name", ["train.bin", "meta.json"])
def test_tokens_of_another_program_are_not_replaced(listed: Make, make_bytes: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match="contains files other than prepared tokens"):
        prepare(listed(texts=TEXTS), make_bytes(), tmp_path, HERE)
    assert tree(tmp_path) == {name: b"{}"}


def test_full_disk_is_reported_with_the_file(listed: Make, make_bytes: Any, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"train-00000\.bin cannot be written: No space left on device"):
        prepare(listed(texts=TEXTS), make_bytes(), tmp_path / "t", HERE)
    assert tree(tmp_path) == {}


def test_component_without_a_fingerprint_is_named(
    listed: Make, make_bytes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the tokens would be called damaged, which they are not."""
    data = listed(texts=TEXTS)
    monkeypatch.setattr(type(data), "fingerprint", lambda self, base: None)
    with pytest.raises(DataError, match=r"data 'listed': .*\.Listed\.fingerprint returned NoneType, not str"):
        prepare(data, make_bytes(), tmp_path / "t", HERE)
