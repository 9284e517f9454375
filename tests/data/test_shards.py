"""Shards: equal for every number of processes and after interruptions, verified, and read as one sequence."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import itertools
import json
import lzma
import os
import random
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

from gptkit.components.data.jsonl import JsonLinesDataSpec
from gptkit.components.data.prepared import PreparedDataSpec
from gptkit.components.data.text import TextDataSpec
from gptkit.components.tokenizer.byte import ByteSpec
from gptkit.core.errors import DataError, FileError, TokenizerError
from gptkit.data import Windows, open_prepared, plan_split, prepare
from gptkit.data.journal import Journal, work_directory
from gptkit.data.ledger import Ledger
from gptkit.data.prepared import damaged_files, token_files
from gptkit.data.sharded import ShardedArray, rows
from gptkit.data.split import split_documents
from gptkit.kinds.data import DataSpec

HERE = Path()
Make = Callable[..., DataSpec]


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JsonLinesDataSpec:
    """About 300 conversations of questions and answers, and one document that is as long as all others."""
    monkeypatch.setattr("gptkit.data.preparation._BATCH", 3000)
    draw = random.Random(1)
    lines = [{"q": f"question {n} ", "text": "".join(draw.choices("abc é\n", k=draw.randrange(1, 90)))} for n in range(300)]
    lines.insert(100, {"q": "long? ", "text": "a long line\n" * 700})
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return JsonLinesDataSpec(path=(str(tmp_path / "lines.jsonl"),), prompt_field="q")


def make(data: DataSpec, directory: Path, workers: int | None = 1, **options: Any) -> Any:
    spec = ByteSpec()
    options = {"shard_tokens": 3000, "store": spec, **options}
    return prepare(data, spec.fit(iter(())), directory, HERE, workers=workers, **options)


def test_files_are_equal_for_any_number_of_processes(corpus: DataSpec, tmp_path: Path) -> None:
    whole = make(corpus, tmp_path / "one")
    assert len(whole.shards) > 4
    for workers in (2, 3):
        make(corpus, tmp_path / str(workers), workers)
        assert tree(tmp_path / "one") == tree(tmp_path / str(workers))
    assert damaged_files(whole) == []
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()


def test_shards_are_those_of_one_file(corpus: DataSpec, tmp_path: Path) -> None:
    """An independent count: documents encoded one by one."""
    prepared = make(corpus, tmp_path / "t")
    tokenizer = ByteSpec().fit(iter(()))
    for side, file in (("train", prepared.train), ("validation", prepared.validation)):
        own = [document for where, document in split_documents(corpus, HERE, plan_split(corpus, HERE)) if where == side]
        ids = [[*document.text.encode(), tokenizer.end_id] for document in own]
        masked = [[*([True] * len(document.text[: document.masked[0][1]].encode()))] for document in own]
        masked = [mask + [False] * (len(one) - len(mask)) for mask, one in zip(masked, ids, strict=True)]
        assert file.tokens.tolist() == list(itertools.chain(*ids))
        assert file.starts.tolist() == np.cumsum([0, *map(len, ids)])[:-1].tolist()
        assert file.masked.tolist() == list(itertools.chain(*masked))
        for shard in prepared.index.shards[side]:
            assert shard.documents <= prepared.index.counts(side).documents


KILLED = """
    import sys
    from pathlib import Path
    import gptkit.data.journal, gptkit.data.preparation as preparation
    from gptkit.components.data.jsonl import JsonLinesDataSpec
    from gptkit.components.tokenizer.byte import ByteSpec
    gptkit.data.journal._INTERVAL = 0.02
    preparation._BATCH = 3000
    spec = ByteSpec()
    data = JsonLinesDataSpec(path=(sys.argv[1],), prompt_field="q")
    import time
    print("start", flush=True)
    preparation.prepare(data, spec.fit(iter(())), Path(sys.argv[2]), Path(), workers=int(sys.argv[3]), shard_tokens=3000,
                        store=spec, progress=lambda at: time.sleep(0.05))
"""


def written(target: Path) -> int:
    """Return the number of jobs in the journal of a preparation; 0 without one."""
    journal = work_directory(target) / Journal.NAME
    try:
        return int(json.loads(journal.read_text())["jobs"])
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_killed_at_any_moment_and_repeated(corpus: JsonLinesDataSpec, tmp_path: Path) -> None:
    make(corpus, tmp_path / "whole")
    draw, continued = random.Random(2), 0
    target = tmp_path / "killed"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), corpus.path[0], str(target)]
    for kill in range(5):
        process = subprocess.Popen([*command, str(1 + kill % 2)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        end = time.monotonic() + 30
        while kill and not written(target) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)  # the first one is killed at any moment, the others have something to lose
        time.sleep(draw.uniform(0.0, 0.1))
        process.kill()
        process.wait()
        process.stdout.close()
        assert not target.exists() or tree(target) == tree(tmp_path / "whole")
        continued += written(target) > 0
    subprocess.run([*command, "2"], check=True, capture_output=True)
    assert tree(target) == tree(tmp_path / "whole")
    assert continued
    assert not work_directory(target).exists()


def test_interruption_between_any_two_steps_is_continued(
    corpus: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops after each replaced or removed file and each journal, as a kill there would, without any clean-up."""
    make(corpus, tmp_path / "whole")
    monkeypatch.setattr("gptkit.data.journal._INTERVAL", 0.0)
    monkeypatch.setattr("gptkit.data.preparation._remove_unless_continued", lambda work: None)
    steps = 0

    class Killed(BaseException):
        pass

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            result = function(*arguments, **options)
            steps += 1
            if steps == limit:
                raise Killed
            return result

        return call

    monkeypatch.setattr(
        "gptkit.data.journal.write_text", counted(__import__("gptkit.core.atomic", fromlist=["x"]).write_text)
    )
    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    limit, tries = 3, 0
    while True:
        steps, tries = 0, tries + 1
        try:
            make(corpus, tmp_path / "parts")
        except Killed:
            limit += 1
            assert tries < 200
        else:
            break
    assert tries > 10
    monkeypatch.undo()
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_journal_of_another_corpus_is_not_continued(corpus: JsonLinesDataSpec, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("gptkit.data.journal._INTERVAL", 0.0)

    def stop(progress: Any) -> None:
        if progress.done > 10_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(corpus, tmp_path / "t", progress=stop)
    assert (work_directory(tmp_path / "t") / Journal.NAME).exists()
    other = corpus.replace(mask_prompt=False)
    make(other, tmp_path / "t")
    make(other, tmp_path / "u")
    assert tree(tmp_path / "t") == tree(tmp_path / "u")


def test_two_processes_do_not_write_the_same_tokens(corpus: DataSpec, tmp_path: Path) -> None:
    def again(progress: Any) -> None:
        with pytest.raises(Exception, match=r"another process .* is writing into"):
            make(corpus, tmp_path / "t")

    make(corpus, tmp_path / "t", progress=again)
    assert damaged_files(open_prepared(tmp_path / "t")) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_rejected_text_is_reported_by_every_process(tmp_path: Path, workers: int) -> None:
    from gptkit.components.tokenizer.char import CharSpec

    (tmp_path / "x.txt").write_text("ab\n" * 1000 + "€")
    tokenizer = CharSpec(unknown="error").fit(iter(["ab\n"]))
    with pytest.raises(TokenizerError, match=r"x\.txt"):
        prepare(TextDataSpec(path=("x.txt",), validation=0), tokenizer, tmp_path / "t", tmp_path, workers=workers)
    assert not work_directory(tmp_path / "t").exists()


def test_worker_that_ends_is_reported(corpus: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.data.worker.portable", lambda tokenizer: b"")
    monkeypatch.setattr("gptkit.data.preparation.portable", lambda tokenizer: b"")
    started: list[Any] = []
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        started.append(popen([command[0], "-c", "import sys; sys.exit(9)"], **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(DataError, match="a process that tokenizes ended with code 9"):
        make(corpus, tmp_path / "t", 2)
    assert all(process.poll() is not None for process in started)


def test_corpus_that_changes_meanwhile_is_reported(corpus: JsonLinesDataSpec, tmp_path: Path) -> None:
    path = Path(corpus.path[0])

    def change(progress: Any) -> None:
        path.write_text(path.read_text().replace("question", "Question"))

    with pytest.raises(DataError, match="the corpus changed while it was read"):
        make(corpus, tmp_path / "t", progress=change)
    assert not (tmp_path / "t").exists()


def test_full_disk_keeps_what_is_written(corpus: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.data.journal._INTERVAL", 0.0)
    sync, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 40:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FileError, match="cannot be written: No space left on device"):
            make(corpus, tmp_path / "t")
    assert json.loads((work_directory(tmp_path / "t") / Journal.NAME).read_text())["jobs"] > 1
    make(corpus, tmp_path / "t")
    make(corpus, tmp_path / "u")
    assert tree(tmp_path / "t") == tree(tmp_path / "u")


@pytest.mark.parametrize("seed", range(12))
def test_damage_is_found(corpus: DataSpec, tmp_path: Path, seed: int) -> None:
    """One byte of any file, changed, added or removed, is reported on opening or by the checksums, with the file."""
    prepared = make(corpus, tmp_path / "t")
    draw = random.Random(seed)
    path = draw.choice([tmp_path / "t" / name for shard in prepared.shards for name in shard.files])
    content = bytearray(path.read_bytes())
    match seed % 3:
        case 0:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        case 1:
            del content[draw.randrange(len(content))]
        case 2:
            content.insert(draw.randrange(len(content)), 7)
    path.write_bytes(content)
    try:
        damaged = damaged_files(open_prepared(tmp_path / "t"))
    except DataError as error:
        assert path.name in error.message
    else:
        assert [name for name, _ in damaged] == [path.name]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_index_is_an_error_or_equal(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any change of the index either raises a `DataError` or describes existing files."""
    directory = tmp_path_factory.getbasetemp() / "index"
    if not directory.exists():
        (directory.parent / "x.txt").write_text("some text\n" * 50)
        make(TextDataSpec(path=(str(directory.parent / "x.txt"),)), directory)
        (directory.parent / "meta.json").write_bytes((directory / "meta.json").read_bytes())
    meta = json.loads((directory.parent / "meta.json").read_text())
    junk = st.sampled_from([None, -1, 1.5, True, "", "x", "../x", [], {}, 10**30, [1], {"name": "/etc/passwd"}])
    where: Any = meta
    while True:
        key = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        if not isinstance(where[key], dict | list) or not where[key] or data.draw(st.booleans()):
            break
        where = where[key]
    if data.draw(st.booleans()):
        where[key] = data.draw(junk)
    else:
        del where[key]
    (directory / "meta.json").write_text(json.dumps(meta))
    try:
        prepared = open_prepared(directory)
    except DataError:
        pass
    else:
        assert len(prepared.train.tokens) == prepared.train_counts.tokens
        assert all((directory / name).resolve().parent == directory.resolve() for s in prepared.shards for name in s.files)
    for path in token_files(directory):
        assert directory in path.parents


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'"x"', b"\xff\xfe", b"[" * 100_000, b"null", b'{"format": 3}'])
def test_other_content_of_the_index_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "meta.json").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        open_prepared(tmp_path)
    assert token_files(tmp_path) == []


@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(any),
    length=st.integers(1, 9),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_sharded_array_reads_like_one_array(lengths: list[int], length: int, data: st.DataObject) -> None:
    whole = np.arange(sum(lengths), dtype=np.uint16)
    sharded = ShardedArray(np.split(whole, np.cumsum(lengths)[:-1]))
    assert len(sharded) == len(whole)
    assert sharded.tolist() == whole.tolist()
    first, last = data.draw(st.integers(-12, 40)), data.draw(st.integers(-12, 40))
    assert sharded[first:last].tolist() == whole[first:last].tolist()
    index = data.draw(st.integers(-len(whole), len(whole) - 1))
    assert sharded[index] == whole[index]
    with pytest.raises(IndexError):
        sharded[len(whole)]
    if length <= len(whole):
        starts = np.array(data.draw(st.lists(st.integers(0, len(whole) - length), min_size=1, max_size=5)), np.int64)
        assert rows(sharded, starts, length).tolist() == rows(whole, starts, length).tolist()


def test_batches_do_not_depend_on_the_shards(corpus: DataSpec, tmp_path: Path) -> None:
    many, one = make(corpus, tmp_path / "many"), make(corpus, tmp_path / "one", shard_tokens=1 << 40)
    assert (len(one.shards), len(many.shards) > 4) == (2, True)
    for changes in ({}, {"windows": "ordered", "shuffle": True, "document_mask": True}):
        data = corpus.replace(**changes)
        first, second = many.train_windows(data, 37), one.train_windows(data, 37)
        assert isinstance(first, Windows)
        for step in range(30):
            for a, b in zip(first.batch(step, 5, seed=3), second.batch(step, 5, seed=3), strict=True):
                assert (a is None and b is None) or a.equal(b)  # type: ignore[union-attr]
        pairs = zip(many.validation_batches(data, 37, 4), one.validation_batches(data, 37, 4), strict=True)
        assert all(a.inputs_BT.equal(b.inputs_BT) and a.targets_BT.equal(b.targets_BT) for a, b in pairs)


def test_prepared_tokens_are_a_corpus(corpus: DataSpec, tmp_path: Path) -> None:
    own = make(corpus, tmp_path / "own")
    data = PreparedDataSpec(path=str(tmp_path / "own"))
    used = make(data, tmp_path / "run/data")
    assert used == own
    assert open_prepared(tmp_path / "run/data") == own
    assert [path.name for path in (tmp_path / "run/data").iterdir()] == ["meta.json"]
    assert token_files(tmp_path / "run/data") == [tmp_path / "run/data/meta.json"]
    texts = [document.text for document in corpus.documents(HERE)]
    assert sorted(document.text for document in data.documents(HERE)) == sorted(texts)
    with pytest.raises(DataError, match=r"prepared with another tokenizer .*\n.*Set tokenizer: \{\"name\": \"byte\""):
        prepare(data, ByteSpec(end_token=None).fit(iter(())), tmp_path / "other", HERE)
    (tmp_path / "own/meta.json").unlink()
    with pytest.raises(DataError, match=r"refers to tokens elsewhere: .*own: prepared tokens not found"):
        open_prepared(tmp_path / "run/data")


def test_reference_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(json.dumps({"format": 3, "directory": str(tmp_path), "fingerprint": "x"}))
    with pytest.raises(DataError, match="refers to other tokens"):
        open_prepared(tmp_path)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_files_have_equal_documents(tmp_path: Path, suffix: str) -> None:
    if suffix == ".zst":
        zstd = pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
        compress = zstd.compress
    else:
        compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix]
    text = "a line of text\n" * 3000 + "é"
    (tmp_path / f"x.txt{suffix}").write_bytes(compress(text.encode()))
    (tmp_path / f"x.jsonl{suffix}").write_bytes(compress(json.dumps({"text": text}).encode()))
    for data in (TextDataSpec(path=(".",)), JsonLinesDataSpec(path=(".",))):
        assert "".join(document.text for document in data.documents(tmp_path)) == text
    whole = (tmp_path / f"x.txt{suffix}").read_bytes()
    for damaged, match in ((whole[: len(whole) // 2], "stops before its end|not a whole"), (b"plain text", "not a whole")):
        (tmp_path / f"x.txt{suffix}").write_bytes(damaged)
        with pytest.raises(DataError, match=match):
            list(TextDataSpec(path=(".",)).documents(tmp_path))


@given(st.lists(st.tuples(st.sampled_from(range(9)), st.integers(0, 30)), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_ledger_in_chunks_equals_arrays(entries: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch, Ledger() as ledger:
        patch.setattr("gptkit.data.ledger._CHUNK", 7)
        digests = [hashlib.blake2b(bytes([key]), digest_size=8).digest() for key, _ in entries]
        for digest, (_, length) in zip(digests, entries, strict=True):
            ledger.add(digest, length)
        numbers = [int.from_bytes(digest, "big") for digest in digests]
        assert [number for chunk, _ in ledger.chunks() for number in chunk.tolist()] == numbers
        sizes, counts = ledger.histogram()
        assert (sizes.sum(), counts.sum()) == (sum(length for _, length in entries), len(entries))
        unique, totals = ledger.groups(0, 1 << 16)
        expected = dict.fromkeys(sorted(numbers), 0)
        for number, (_, length) in zip(numbers, entries, strict=True):
            expected[number] += length
        assert dict(zip(unique.tolist(), totals.tolist(), strict=True)) == expected
        longest, length, copies = ledger.longest()
        top = max(length for _, length in entries)
        assert length == top
        assert int(longest) == min(n for n, (_, size) in zip(numbers, entries, strict=True) if size == top)
        assert copies == numbers.count(int(longest))
        chosen = np.uint64(numbers[0])
        assert ledger.sides(lambda part: part == chosen, 2).tolist() == [2 * (n == numbers[0]) for n in numbers]


# -- files of the user ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["notes.txt", "meta.json", "tokenizer/notes.txt", "train-00000.bin"])
def test_files_of_the_user_where_tokens_are_prepared_are_kept(corpus: DataSpec, tmp_path: Path, name: str) -> None:
    file = work_directory(tmp_path / "t") / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(DataError, match=r"was not written by gptkit|is damaged|not found"):
        make(corpus, tmp_path / "t")
    assert file.read_text() == "mine"
    assert not (tmp_path / "t").exists()


def test_file_added_to_an_interrupted_preparation_is_kept(corpus: DataSpec, tmp_path: Path) -> None:
    work = work_directory(tmp_path / "t")
    work.mkdir()
    (work / Journal.LOCK).touch()
    (work / Journal.NAME).write_text("{}")
    (work / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt is in the place where .* is prepared, and was not written by gptkit"):
        make(corpus, tmp_path / "t")
    assert (work / "notes.txt").read_text() == "mine"
    (work / "notes.txt").unlink()
    assert make(corpus, tmp_path / "t").train_counts.tokens > 0


def test_linked_work_directory_is_not_followed(corpus: DataSpec, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lock").touch()
    (tmp_path / "mine" / "split.bin").write_text("mine")
    work_directory(tmp_path / "t").symlink_to(tmp_path / "mine")
    with pytest.raises(DataError, match="was not written by gptkit"):
        make(corpus, tmp_path / "t")
    assert (tmp_path / "mine" / "split.bin").read_text() == "mine"


def test_file_beside_the_stored_tokenizer_is_kept(corpus: JsonLinesDataSpec, tmp_path: Path) -> None:
    make(corpus, tmp_path / "t")
    (tmp_path / "t" / "tokenizer" / "notes.txt").write_text("mine")
    other = corpus.replace(validation=0.3)
    with pytest.raises(DataError, match="contains files other than prepared tokens"):
        make(other, tmp_path / "t")
    assert (tmp_path / "t" / "tokenizer" / "notes.txt").read_text() == "mine"
    (tmp_path / "t" / "tokenizer" / "notes.txt").unlink()
    assert make(other, tmp_path / "t").index.data["validation"] == 0.3


def test_remains_of_a_killed_replacement_do_not_block_the_next(corpus: JsonLinesDataSpec, tmp_path: Path) -> None:
    make(corpus, tmp_path / "t")
    beside = tmp_path / f"{work_directory(tmp_path / 't').name}-old0"
    beside.mkdir()
    (beside / "notes.txt").write_text("mine")
    make(corpus.replace(validation=0.3), tmp_path / "t")
    assert (beside / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["..", "../notes.txt", "", "a/b"])
def test_index_cannot_name_files_outside_of_the_tokenizer(corpus: DataSpec, tmp_path: Path, name: str) -> None:
    make(corpus, tmp_path / "t")
    meta = tmp_path / "t" / "meta.json"
    content = json.loads(meta.read_text())
    content["tokenizer_files"] = [name]
    meta.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no valid name"):
        open_prepared(tmp_path / "t")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_temporary_directory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.data.ledger._CHUNK", 2)
    full = Path("/dev/full").open("r+b")  # noqa: SIM115  # closed by the ledger
    monkeypatch.setattr("tempfile.TemporaryFile", lambda prefix: full)
    monkeypatch.setattr("tempfile.tempdir", "/full")
    with Ledger() as ledger:
        ledger.add(bytes(8), 1)
        with pytest.raises(FileError, match=r"^/full/gptkit-split cannot be written: No space left"):
            ledger.add(bytes(8), 1)
