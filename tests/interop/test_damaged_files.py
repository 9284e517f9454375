"""Randomly damaged files of every kind: a located error or a run that works, never a traceback, and nothing left behind.

The number of files of each kind is `GPTKIT_DAMAGED_FILES`: 10 by default, and 50 in the slow test. Runs and spec files:
`tests/runs/test_damaged_checkpoints.py`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gptkit
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.core.errors import GptkitError
from gptkit.runs.exporting import export_model
from tests.support.damage import COUNT, SLOW, bounded, damaged
from tests.support.gguf_models import DECODER, make_pieces, make_run

TINY = {**DECODER, "n_layers": 1, "d_model": 32, "feedforward": {"name": "gated", "d_hidden": 32}}
PROSE = ["The cat sat on the mat, and the other cat's 12 hats sat on the other mats. " * 20]
WIDE = {**TINY, "d_model": 256, "feedforward": {"name": "gated", "d_hidden": 256}}
"""The sizes that matrices of k-quants need: rows of whole blocks of 256."""
GGUF_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k")
DIRECTORY_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of runs are written, and none must outlive a power failure."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a directory as transformers saves it (also with an index), and a GGUF file of each type."""
    base = tmp_path_factory.mktemp("models")
    spec = BpeSpec(vocab_size=300)
    run = make_run(base / "run", TINY, spec.model_dump(mode="json"), spec.fit(iter(PROSE)))
    directory = export_model(run, base / "directory")
    (directory / "generation_config.json").write_text(json.dumps({"temperature": 0.7, "top_k": 20, "eos_token_id": 1}))
    sharded = Path(shutil.copytree(directory, base / "sharded"))
    (sharded / "model.safetensors").rename(sharded / "model-00001-of-00001.safetensors")
    from gptkit.interop.tensor_files import TensorFiles

    names = TensorFiles(directory).entries
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    wide = make_run(base / "wide", WIDE, spec.model_dump(mode="json"), spec.fit(iter(PROSE)))
    for each in GGUF_TYPES:
        export_model(wide if each.endswith("_k") else run, base / f"{each}.gguf", to={"name": "gguf", "type": each})
    return base


def take(path: Path, run: Path, blamed: str) -> bool:
    """Import a path; return whether it was accepted. A rejection must name the file or directory."""
    try:
        result = gptkit.import_model(path, run)
    except GptkitError as error:
        assert blamed in str(error) or path.name in str(error) or "describes" in str(error), str(error)
        assert not run.exists()
        accepted = False
    else:
        with torch.no_grad():
            logits = result.model(torch.tensor([[0, 1]]) % result.model.vocab_size).logits
        assert logits.shape == (1, 2, result.model.vocab_size)
        shutil.rmtree(run)
        accepted = True
    left = [entry.name for entry in run.parent.iterdir() if entry != path]
    assert not left, f"left behind: {left}"
    return accepted


def damage(make: Callable[[], tuple[Path, Path]], directory: Path, count: int, seed: str) -> None:
    """Damage a file so many times, and import the model."""
    chance = random.Random(seed)
    refused = 0
    for number in range(count):
        path, file = make()
        data = file.read_bytes()
        changed = damaged(data, chance)
        file.write_bytes(changed)
        try:
            with bounded():
                refused += not take(path, directory / "run", file.name)
        except BaseException as error:
            error.add_note(f"damaged file {number} of {seed!r}: {file.name}")
            raise
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    assert refused or count < 50, "no damage was found"


@pytest.mark.parametrize("count", [COUNT, pytest.param(SLOW, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", DIRECTORY_FILES)
def test_damaged_directories(models: Path, tmp_path: Path, name: str, count: int) -> None:
    source = models / ("sharded" if name.endswith("index.json") else "directory")

    def make() -> tuple[Path, Path]:
        copy = Path(shutil.copytree(source, tmp_path / "external"))
        return copy, copy / name

    damage(make, tmp_path, count, name)


@pytest.mark.parametrize("count", [COUNT, pytest.param(SLOW, marks=pytest.mark.slow)])
@pytest.mark.parametrize("type", GGUF_TYPES)
def test_damaged_gguf_files(models: Path, tmp_path: Path, type: str, count: int) -> None:
    def make() -> tuple[Path, Path]:
        copy = Path(shutil.copy(models / f"{type}.gguf", tmp_path / "external.gguf"))
        return copy, copy

    damage(make, tmp_path, max(5, count // len(GGUF_TYPES)), type)


@pytest.mark.parametrize("count", [COUNT, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_damaged_sentencepiece_vocabularies(tmp_path: Path, count: int) -> None:
    source = make_pieces(tmp_path)
    data, directory = source.read_bytes(), tmp_path / "imports"
    directory.mkdir()

    def make() -> tuple[Path, Path]:
        copy = directory / "external.gguf"
        copy.write_bytes(data)
        return copy, copy

    damage(make, directory, count, "pieces")


@pytest.mark.parametrize("count", [COUNT, pytest.param(SLOW, marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_programs_are_never_loaded(tmp_path: Path, suffix: str, count: int) -> None:
    """Programs are refused by their suffix and first bytes, damaged or not: loading one executes what it contains."""
    sound = {".pt2": b"PK\x03\x04", ".onnx": b"\x08\x0a"}[suffix] + bytes(range(200))
    path, chance = tmp_path / f"a{suffix}", random.Random(0)
    for _ in range(count):
        path.write_bytes(damaged(sound, chance))
        with pytest.raises(GptkitError, match="which gptkit writes but does not read"):
            gptkit.import_model(path, tmp_path / "run")
        assert not (tmp_path / "run").exists()
