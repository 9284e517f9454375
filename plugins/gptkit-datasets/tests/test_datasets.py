"""Tests of local corpora read through datasets, and of the Hub with fakes."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gptkit_datasets import rows
from gptkit_datasets.spec import DatasetsSpec

import gptkit
from gptkit.core.errors import DataError
from gptkit.kinds.data import DataSpec
from gptkit.testing import parametrize_checks


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def data(**fields: Any) -> DataSpec:
    spec = gptkit.default_registry().component("data", "datasets").model_validate({"name": "datasets", **fields})
    assert isinstance(spec, DataSpec)
    return spec


def parquet(path: Path, texts: list[str | None], **columns: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": pa.array(texts, pa.string()), **columns}), path, row_group_size=2)


def read(spec: DataSpec, base: Path) -> list[tuple[str, str]]:
    return [(document.source, document.text) for document in spec.documents(base)]


@pytest.mark.parametrize("streaming", [True, False])
def test_parquet_rows_are_documents_in_their_order(tmp_path: Path, streaming: bool) -> None:
    parquet(tmp_path / "data" / "b.parquet", ["four"])
    parquet(tmp_path / "data" / "a.parquet", ["one, naïve 猫\n", None, " ", "two", "three"], id=[1, 2, 3, 4, 5])
    spec = data(streaming=streaming)
    assert read(spec, tmp_path) == [
        ("data/a.parquet: row 1", "one, naïve 猫\n"),
        ("data/a.parquet: row 4", "two"),
        ("data/a.parquet: row 5", "three"),
        ("data/b.parquet: row 1", "four"),
    ]
    assert all(document.ends for document in spec.documents(tmp_path))


def test_json_lines_json_csv_and_gzip_are_read(tmp_path: Path) -> None:
    rows = [{"text": "one", "n": 1}, {"text": "two", "n": 2}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "c.csv").write_text('text,n\n"one",1\ntwo,2\n')
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("a.jsonl", "b.json", "c.csv", "d.jsonl.gz"):
        assert [text for _, text in read(data(files=name), tmp_path)] == ["one", "two"], name


def test_saved_data_sets_are_read(tmp_path: Path) -> None:
    import datasets

    one = datasets.Dataset.from_dict({"text": ["one", "two"]})
    one.save_to_disk(str(tmp_path / "plain"))
    datasets.DatasetDict({"train": one, "test": datasets.Dataset.from_dict({"text": ["two"]})}).save_to_disk(
        str(tmp_path / "several")
    )
    assert [text for _, text in read(data(files="plain"), tmp_path)] == ["one", "two"]
    assert [text for _, text in read(data(files="several", split="test"), tmp_path)] == ["two"]
    with pytest.raises(DataError, match="no split 'dev'; splits: 'train', 'test'"):
        read(data(files="several", split="dev"), tmp_path)


def test_template_and_limit_are_applied(tmp_path: Path) -> None:
    parquet(tmp_path / "qa.parquet", ["q1", None, "q3"], answer=["a{text}", None, None])
    spec = data(files="qa.parquet", template="Q: {text}\nA: {answer}\n")
    assert [text for _, text in read(spec, tmp_path)] == ["Q: q1\nA: a{text}\n", "Q: q3\nA: \n"]
    assert [text for _, text in read(data(files="qa.parquet", field="text", limit=1), tmp_path)] == ["q1"]


def test_globs_lists_and_names_with_pattern_characters_are_read(tmp_path: Path) -> None:
    parquet(tmp_path / "x" / "part[1].parquet", ["bracket"])
    parquet(tmp_path / "x" / "part1.parquet", ["plain"])
    parquet(tmp_path / "y" / ".hidden.parquet", ["hidden"])
    parquet(tmp_path / "y" / "deep" / "z.parquet", ["deep"])
    (tmp_path / "y" / "notes.txt").write_text("not read")
    assert [text for _, text in read(data(files="x/part[[]1].parquet"), tmp_path)] == ["bracket"]
    assert [text for _, text in read(data(files="x/*.parquet"), tmp_path)] == ["plain", "bracket"]
    assert [text for _, text in read(data(files=["y", "x", "y/deep/z.parquet"]), tmp_path)] == ["deep", "plain", "bracket"]


def test_fingerprint_changes_with_content_and_options(tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "a.parquet", ["one"])
    first = data().fingerprint(tmp_path)
    assert data().fingerprint(tmp_path) == first
    others = {data(field="other").fingerprint(tmp_path), data(limit=3).fingerprint(tmp_path)}
    parquet(tmp_path / "data" / "a.parquet", ["two"])
    others.add(data().fingerprint(tmp_path))
    assert len(others | {first}) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"files": "missing.parquet"}, "file or directory not found"),
        ({"files": "none/*.parquet"}, "no file with a suffix of"),
        ({"files": "notes.txt"}, "unsupported format"),
        ({"files": "a.parquet", "field": "body"}, "a.parquet: row 1: no column 'body'; columns: 'text', 'n'"),
        ({"files": "a.parquet", "field": "n"}, "column 'n' holds int, not text"),
        ({"files": "broken.parquet"}, "broken.parquet cannot be read: .*Parquet"),
        ({"files": "broken.jsonl"}, "broken.jsonl cannot be read: .*JSON"),
    ],
)
def test_errors_name_the_source(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    parquet(tmp_path / "a.parquet", ["one"], n=[1])
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 this is none")
    (tmp_path / "broken.jsonl").write_text('{"text": "one"}\n{"text": \n')
    with pytest.raises(DataError, match=message):
        read(data(**fields), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"files": "a", "repository": "b/c"}, "either `files` or a `repository`"),
        ({"subset": "x"}, "applies to a `repository` only"),
        ({"template": "no column"}, "must contain a column in braces"),
    ],
)
def test_contradictions_are_rejected_when_the_spec_is_read(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    (tmp_path / "gpt.json").write_text(json.dumps({"model": {}, "data": {"name": "datasets", **fields}}))
    with pytest.raises(gptkit.SpecError, match=message):
        gptkit.open_spec(tmp_path / "gpt.json")


def test_hub_receives_the_options_of_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    asked: list[Any] = []

    def load(*args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        return iter([{"story": "one"}, {"story": "two"}, {"story": "three"}])

    class Info:
        sha = "c" * 40

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, **how: asked.append((name, how)) or Info())
    spec = data(repository="some/stories", subset="en", split="test", revision="v2", field="story", limit=2)
    assert read(spec, tmp_path) == [("some/stories: row 1", "one"), ("some/stories: row 2", "two")]
    by_name = spec.fingerprint(tmp_path)
    assert asked == [
        (("some/stories", "en"), {"split": "test", "revision": "v2", "streaming": True}),
        ("some/stories", {"revision": "v2", "timeout": 20}),
    ]
    # A commit needs no request to the Hub.
    by_commit = data(repository="some/stories", subset="en", split="test", revision="c" * 40, field="story", limit=2)
    assert by_commit.fingerprint(tmp_path) == by_name
    assert len(asked) == 2


def test_unreachable_hub_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    import huggingface_hub

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    spec = data(repository="some/stories")
    with pytest.raises(DataError, match=r"some/stories cannot be read: no route\n  Check the names"):
        read(spec, tmp_path)
    with pytest.raises(DataError, match="Set `revision` to a commit"):
        spec.fingerprint(tmp_path)
    assert rows.hub_commit


def test_training_reads_the_corpus(tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "a.parquet", [f"story {i}: once upon a time there was a text. " * 3 for i in range(20)])
    (tmp_path / "gpt.yaml").write_text(
        """
        tokenizer: byte
        model: {d_model: 8, n_layers: 1, context_length: 16, attention: {name: multi-head, n_heads: 1}}
        data: {name: datasets, document_mask: true}
        training: {steps: 2, batch_size: 2}
        """
    )
    run = gptkit.train(str(tmp_path / "gpt.yaml"), str(tmp_path / "run"))
    assert len(run.generate("story", max_new_tokens=3)) <= 3


@parametrize_checks(DatasetsSpec)
def test_conformance(spec: Any, check: Any) -> None:
    check(spec)


def test_parquet_is_prepared_in_processes(tmp_path: Path) -> None:
    texts = [f"row {number} " * (1 + number % 7) for number in range(50)]
    parquet(tmp_path / "x.parquet", [*texts, None], other=list(range(51)))
    model = "{d_model: 16, n_layers: 1, context_length: 16}"
    (tmp_path / "s.yaml").write_text(f"tokenizer: byte\nmodel: {model}\ndata: {{name: datasets, files: x.parquet}}\n")
    for workers in ("1", "2"):
        command = [sys.executable, "-m", "gptkit", "data", "prepare", "s.yaml", "--out", workers, "--workers", workers]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    names = [path.name for path in (tmp_path / "1").iterdir() if path.is_file()]
    assert all((tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes() for name in names)
    meta = json.loads((tmp_path / "1/meta.json").read_text())
    assert sum(meta[side]["documents"] for side in ("train", "validation")) == 50
    assert sum(meta[side]["bytes"] for side in ("train", "validation")) == sum(map(len, texts))
