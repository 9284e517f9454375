"""Randomly damaged corpora, tokens, tokenizers, conversations and experiments: one error that names the file, or a result.

The number of files of each kind is `GPTKIT_DAMAGED_FILES`: 10 by default, and 100 in the slow test. Runs and spec files:
`tests/runs/test_damaged_checkpoints.py`; external models: `tests/interop/test_damaged_files.py`.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import json
import lzma
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Core
from tokenizers import decoders, models, normalizers, pre_tokenizers

from gptkit.cli.messages import read_messages
from gptkit.components.data.jsonl import JsonLinesDataSpec
from gptkit.components.data.text import TextDataSpec
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.components.tokenizer.byte import ByteSpec
from gptkit.components.tokenizer.hugging_face import HuggingFaceSpec
from gptkit.data import open_prepared, prepare
from gptkit.data.journal import Journal, work_directory
from gptkit.data.prepared import Prepared, damaged_files
from gptkit.experiments.matching import Matched
from gptkit.experiments.planning import _read_matches, _write_matches
from gptkit.experiments.request import read_request
from gptkit.experiments.results import MATCHES, SEARCH, read_experiment, write_experiment, write_trial
from gptkit.experiments.search import _State
from gptkit.experiments.search_spec import SearchSpec
from gptkit.files import dump_yaml, validate_data
from gptkit.kinds.data import DataSpec
from gptkit.runs.drift import measure_drift
from gptkit.runs.exporting import export_model
from gptkit.text.chat import chat_ids
from gptkit.training.metrics import Metrics
from tests.support.chat_run import CHAT_TEMPLATE
from tests.support.damage import COUNTS, read_damaged
from tests.support.experiments import experiment
from tests.support.gguf_models import DECODER, make_run

PROSE = "The cat sat on the mat, and the other cat's 12 hats sat on the other mats. Über é 中\n"
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello?"},
    {"role": "assistant", "content": "Hello, you."},
]
counts = pytest.mark.parametrize("count", COUNTS)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files are written, and none must outlive a power failure."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def zstd(data: bytes) -> bytes:
    module = pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
    compressed: bytes = module.compress(data)
    return compressed


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


@counts
@pytest.mark.parametrize(
    ("form", "suffix"),
    [("text", ""), ("prompts", ""), ("conversations", ""), *(("lines", suffix) for suffix in COMPRESSORS)],
)
def test_damaged_corpora_are_read_or_refused(form: str, suffix: str, tmp_path: Path, count: int) -> None:
    lines = {
        "text": [PROSE] * 40,
        "lines": [json.dumps({"text": PROSE * (number % 3)}) + "\n" for number in range(40)],
        "prompts": [json.dumps({"question": "Who?", "answer": PROSE}) + "\n"] * 40,
        "conversations": [json.dumps({"messages": CONVERSATION}) + "\n"] * 20,
    }[form]
    file = tmp_path / f"corpus{'.txt' if form == 'text' else '.jsonl'}{suffix}"
    file.write_bytes(COMPRESSORS[suffix]("".join(lines).encode()))
    path = (file.name,)
    spec: DataSpec = {
        "text": TextDataSpec(path=path),
        "lines": JsonLinesDataSpec(path=path),
        "prompts": JsonLinesDataSpec(path=path, field="answer", prompt_field="question"),
        "conversations": JsonLinesDataSpec(path=path, messages_field="messages"),
    }[form]

    def read() -> None:
        spec.fingerprint(tmp_path)
        for document in spec.documents(tmp_path):
            document.text.encode()

    read()
    assert read_damaged(file, count, read) or count < 100


def prepared(directory: Path, **options: Any) -> Prepared:
    """Prepare a corpus whose prompts are masked, in several shards."""
    lines = [json.dumps({"question": f"Who is {number}? ", "text": PROSE * (1 + number % 3)}) for number in range(30)]
    (directory / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = JsonLinesDataSpec(path=("corpus.jsonl",), prompt_field="question")
    tokenizer = ByteSpec().fit(iter(()))
    target = directory / "tokens"
    return prepare(data, tokenizer, target, directory, workers=1, shard_tokens=3000, store=ByteSpec(), **options)


@counts
@pytest.mark.parametrize("name", ["meta.json", "train-00000.bin", "train-00000.documents.bin", "train-00000.mask.bin"])
def test_damaged_tokens_are_read_or_refused(name: str, tmp_path: Path, count: int) -> None:
    prepared(tmp_path)
    data = TextDataSpec(path=("corpus.jsonl",), document_mask=True)
    choices = [data, data.replace(windows="ordered"), data.replace(windows="packed", document_mask=False)]

    def read() -> None:
        tokens = open_prepared(tmp_path / "tokens")
        for spec in choices:
            windows = tokens.train_windows(spec, 32)
            for step in range(2):
                assert windows.batch(step, 3, seed=0).inputs_BT.shape == (3, 32)
        damaged_files(tokens)

    read()
    refused = read_damaged(tmp_path / "tokens" / name, count, read, blamed=(str(tmp_path / "tokens"),))
    assert refused or count < 100


@counts
@pytest.mark.parametrize("name", [Journal.NAME, Journal.SPLIT])
def test_preparations_continue_after_damage_with_equal_tokens(
    name: str, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an interrupted preparation has left is continued if it is sound, and made again otherwise."""
    monkeypatch.setattr("gptkit.data.journal._INTERVAL", 0.0)
    monkeypatch.setattr("gptkit.data.preparation._BATCH", 600)
    whole = {shard.name: shard for shard in prepared(tmp_path).shards}
    shutil.rmtree(tmp_path / "tokens")

    def stop(progress: Any) -> None:
        if progress.done > progress.total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, progress=stop)
    work = work_directory(tmp_path / "tokens")
    shutil.copytree(work, tmp_path / "kept")

    def read() -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", work)
        assert {shard.name: shard for shard in prepared(tmp_path).shards} == whole
        shutil.rmtree(tmp_path / "tokens")

    read()
    assert not read_damaged(tmp_path / "kept" / name, count, read)


def core(kind: str) -> Core:
    """Return a small tokenizer of each model that a tokenizer.json can have."""
    if kind == "bpe":
        return Core.from_str(BpeSpec(vocab_size=300).fit(iter([PROSE * 20])).to_tokenizer_json())
    words = [f"▁{word}" for word in sorted({*PROSE.split(), *PROSE})]
    vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
    result = {
        "word-level": lambda: Core(models.WordLevel(vocabulary, unk_token="<unk>")),
        "word-piece": lambda: Core(models.WordPiece(vocabulary, unk_token="<unk>")),
        "unigram": lambda: Core(models.Unigram([("<unk>", 0.0), *((word, -1.5) for word in words)], unk_id=0)),
    }[kind]()
    if kind == "unigram":
        result.normalizer = normalizers.NFKC()
    result.pre_tokenizer, result.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    result.add_special_tokens(["<s>", "</s>"])
    return result


@counts
@pytest.mark.parametrize("kind", ["bpe", "word-level", "word-piece", "unigram"])
def test_damaged_tokenizers_are_read_or_refused(kind: str, tmp_path: Path, count: int) -> None:
    core(kind).save(str(tmp_path / "tokenizer.json"))
    read = tokenizer_reader(tmp_path)
    read()
    assert read_damaged(tmp_path / "tokenizer.json", count, read, blamed=("a text cannot be encoded",)) or count < 100


def tokenizer_reader(directory: Path) -> Callable[[], None]:
    """Return a function that reads the tokenizer of a directory, uses it, and saves and loads it again."""

    (directory / "saved").mkdir()

    def read() -> None:
        spec = HuggingFaceSpec(path=str(directory))
        tokenizer = spec.fit(iter(()))
        ids = tokenizer.encode(PROSE)
        text = tokenizer.decode(ids)
        assert tokenizer.decode(tokenizer.encode_batch([PROSE])[0]) == text
        tokenizer.save(directory / "saved")
        assert spec.load(directory / "saved").encode(PROSE) == ids
        if tokenizer.chat_template is not None:
            chat_ids(tokenizer, CONVERSATION[1:])

    return read


@counts
@pytest.mark.parametrize("name", ["special_tokens_map.json", "tokenizer_config.json", "chat_template.jinja"])
def test_damaged_files_beside_a_tokenizer_are_read_or_refused(name: str, tmp_path: Path, count: int) -> None:
    pytest.importorskip("jinja2")
    core("unigram").save(str(tmp_path / "tokenizer.json"))
    config = {"bos_token": {"content": "<s>", "special": True}, "eos_token": "</s>", "add_bos_token": True}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        (tmp_path / file).write_text(json.dumps({**config, "chat_template": CHAT_TEMPLATE}), encoding="utf-8")
    if name == "chat_template.jinja":
        (tmp_path / name).write_text(CHAT_TEMPLATE, encoding="utf-8")
    read = tokenizer_reader(tmp_path)
    read()
    refused = read_damaged(tmp_path / name, count, read, blamed=("tokenizer.json", "the chat template"))
    assert refused or count < 100


@counts
def test_damaged_conversations_are_read_or_refused(tmp_path: Path, count: int) -> None:
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(CONVERSATION, indent=1), encoding="utf-8")
    tokenizer = ByteSpec().fit(iter(()))

    def read() -> None:
        system, messages = read_messages(file)
        for text in [system or "", *(message["content"] for message in messages)]:
            tokenizer.encode(text)

    read()
    assert read_damaged(file, count, read) or count < 100


@counts
@pytest.mark.parametrize("name", ["experiment.json", "trials/000000000001-1.json"])
def test_damaged_experiments_are_read_or_refused(name: str, tmp_path: Path, count: int) -> None:
    axes = {"model.norm": ["rms", "layer"], "model.position": ["rotary", "alibi"]}
    made = experiment(axes, lambda choices, seed, *_: 2.0 + 0.1 * seed + len(choices["model.norm"]), curves=True)
    write_experiment(made, tmp_path)
    for trial in made.trials:
        write_trial(trial, tmp_path)

    def read() -> None:
        assert read_experiment(tmp_path) == made, "the damage was not noticed"

    read()
    assert read_damaged(tmp_path / name, count, read) or count < 100


@counts
@pytest.mark.parametrize("name", [SEARCH, MATCHES])
def test_damaged_states_of_experiments_are_read_or_refused(name: str, tmp_path: Path, count: int) -> None:
    ranges = {"model.d_model": {"low": 16, "high": 64, "step": 16}, "model.norm": {"values": ["layer", "rms"]}}
    spec = validate_data({"base": "mini.yaml", "ranges": ranges, "trials": 5}, SearchSpec)
    points = [{"model.d_model": 32, "model.norm": "rms"}, {"model.d_model": 16, "model.norm": "layer"}]
    known = {"a" * 64: Matched({"model.feedforward.d_hidden": 40}, "d_hidden = 40: parameters +0.2 %", True)}
    _State.open(tmp_path, spec, 2).add(points)
    _write_matches(tmp_path / MATCHES, known)

    def read() -> None:
        assert _State.open(tmp_path, spec, 1).points == [{}, *points]
        assert _read_matches(tmp_path / MATCHES) == known

    read()
    assert read_damaged(tmp_path / name, count, read) or count < 100


@counts
def test_damaged_files_of_comparisons_are_read_or_refused(tmp_path: Path, count: int) -> None:
    request = {
        "question": "Do positions matter?",
        "base": "mini.yaml",
        "vary": {"model.position": ["none", "learned"], "model.feedforward": ["gated", {"name": "mlp", "d_hidden": 8}]},
        "set": {"training.steps": 2},
        "seeds": [0, 3],
        "match": "parameters",
        "sizes": {"small": {"model.d_model": 32}},
    }
    file = tmp_path / "comparison.yaml"
    file.write_text(dump_yaml(request), encoding="utf-8")
    assert read_request(file).seeds == (0, 3)
    assert read_damaged(file, count, lambda: read_request(file)) or count < 100


@counts
def test_damaged_metrics_are_read_without_their_damaged_lines(tmp_path: Path, count: int) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 3.0 - step / 100, "tokens": 64 * step}) for step in range(1, 40)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def read() -> None:
        metrics = Metrics.read(file)
        for name in metrics:
            metrics.last(name), metrics.best(name)
        assert len(metrics.get("step", [])) <= 40

    read()
    assert not read_damaged(file, count, read)


@counts
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_models_are_compared_or_refused(name: str, tmp_path: Path, count: int) -> None:
    """`gptkit drift` of a run with a damaged external model."""
    pytest.importorskip("transformers")
    importlib.import_module("transformers").logging.set_verbosity_error()
    spec = BpeSpec(vocab_size=300)
    run = make_run(tmp_path / "run", {**DECODER, "n_layers": 1}, spec.model_dump(mode="json"), spec.fit(iter([PROSE * 20])))
    directory = export_model(run, tmp_path / "external")

    def read() -> None:
        measure_drift(run, directory, n_tokens=8)

    read()
    assert read_damaged(directory / name, count, read, blamed=(str(directory),)) or count < 100
