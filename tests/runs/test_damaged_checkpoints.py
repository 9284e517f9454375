"""Randomly damaged files of runs, and spec files: one error that can be corrected, or a result, never a traceback.

The number of files of each kind is `GPTKIT_DAMAGED_FILES`: 10 by default, and 50 in the slow test. External models:
`tests/interop/test_damaged_files.py`.
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
from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.errors import GptkitError
from gptkit.files import dump_yaml
from tests.support.command_line import SPEC, write_project
from tests.support.damage import COUNTS, bounded, damaged, forge

TRAINING = """\
steps: 4
  checkpoint_every: 2
  trackers: [csv]
  callbacks: [ema]
"""
LOADED = ("spec.yaml", "provenance.json", "tokenizer/*", "state.json", "model.safetensors", "forged model.safetensors")
RESUMED = (
    "spec.yaml",
    "provenance.json",
    "state.json",
    "forged optimizer.safetensors",
    "forged callbacks.safetensors",
    "forged training-model.safetensors",
)


def trained(directory: Path, text: str) -> Path:
    write_project(directory)
    (directory / "mini.yaml").write_text(text)
    gptkit.train(directory / "mini.yaml", directory / "run", progress=False)
    return directory / "run"


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of runs are written, and none must outlive a power failure."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = SPEC.replace("steps: 3\n", TRAINING).replace("tokenizer: byte", "tokenizer: {name: bpe, vocab_size: 270}")
    return trained(tmp_path_factory.mktemp("sound"), text)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = SPEC.replace("  n_layers: 1\n", "  n_layers: 1\n  linear: {name: low-rank, rank: 2}\n")
    return trained(tmp_path_factory.mktemp("adapted"), text)


@pytest.fixture(scope="module")
def quantized(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gptkit.quantize_run(sound, tmp_path_factory.mktemp("quantized") / "run", "int4")


def file_of(run: Path, kind: str, chance: random.Random) -> Path:
    """Return a file of a kind: a pattern of paths in the run or in its newest checkpoint."""
    checkpoint = CheckpointStore(run / "checkpoints").latest()
    assert checkpoint is not None
    pattern = kind.removeprefix("forged ")
    files = sorted([*run.glob(pattern), *checkpoint.glob(pattern)])
    return chance.choice(files)


def damage(run: Path, kind: str, count: int, action: Callable[[Path], object], *, changes: bool = False) -> None:
    """Damage a file so many times, and read the run.

    Args:
        run: the run.
        kind: the file; "forged" if the checksums in state.json are those of the damaged file.
        count: how many times.
        action: reads the run.
        changes: the action changes the run, which is copied for it.
    """
    chance, refused = random.Random(kind), 0
    for number in range(count):
        used = Path(shutil.copytree(run, run.with_name("copy"))) if changes else run
        file = file_of(used, kind, chance)
        kept = {path: path.read_bytes() for path in {file, file.with_name("state.json")} if path.is_file()}
        file.write_bytes(damaged(kept[file], chance))
        if kind.startswith("forged"):
            forge(file.parent)
        try:
            with bounded():
                action(used)
        except GptkitError as error:
            refused += 1
            # A forged value may be a number that only shows when the model computes with it.
            computed = kind.startswith("forged") and "The weights may be damaged" in str(error)
            assert file.name in str(error) or str(used) in str(error) or computed, str(error)
        except BaseException as error:
            error.add_note(f"damaged file {number} of {kind!r}: {file.name}")
            raise
        finally:
            if changes:
                shutil.rmtree(used)
            else:
                for path, data in kept.items():
                    path.write_bytes(data)
    assert refused or count < 50, "no damage was found"


@torch.no_grad()
def load(run: Path) -> None:
    model = gptkit.load(run).model
    logits = model(torch.tensor([[0, 1]]) % model.vocab_size).logits
    assert logits.shape == (1, 2, model.vocab_size)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", LOADED)
def test_damaged_runs_are_loaded_or_refused(sound: Path, kind: str, count: int) -> None:
    damage(sound, kind, count, load)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["state.json", "forged model.safetensors"])
def test_damaged_quantized_runs_are_loaded_or_refused(quantized: Path, kind: str, count: int) -> None:
    damage(quantized, kind, count, load)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", RESUMED)
def test_damaged_runs_are_resumed_or_refused(sound: Path, kind: str, count: int) -> None:
    def resume(run: Path) -> None:
        gptkit.resume(run, progress=False, **{"training.steps": 5})

    damage(sound, kind, count, resume, changes=True)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["spec.yaml", "state.json", "forged model.safetensors"])
def test_damaged_adapters_are_exported_or_refused(adapted: Path, tmp_path: Path, kind: str, count: int) -> None:
    def export(run: Path) -> None:
        target = tmp_path / "out"
        try:
            gptkit.export_model(run, target, to="hugging-face")
        finally:
            shutil.rmtree(target, ignore_errors=True)
            assert not list(tmp_path.iterdir())

    damage(adapted, kind, count, export)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("suffix", [".yaml", ".toml", ".json"])
def test_damaged_spec_files_are_read_or_refused(tmp_path: Path, suffix: str, count: int) -> None:
    """Every section of a spec, in each language."""
    path, chance, refused = tmp_path / f"spec{suffix}", random.Random(suffix), 0
    path.write_text(SPECS[suffix], encoding="utf-8")
    gptkit.open_spec(path)
    data = path.read_bytes()
    for number in range(count):
        path.write_bytes(damaged(data, chance))
        try:
            with bounded():
                gptkit.open_spec(path)
        except GptkitError as error:
            refused += 1
            assert path.name in str(error), str(error)
        except BaseException as error:
            error.add_note(f"damaged file {number} of {suffix!r}")
            raise
    assert refused or count < 50


WHOLE = {
    "gptkit": 1,
    "name": "whole",
    "tokenizer": {"name": "bpe", "vocab_size": 300},
    "model": {
        "context_length": 32,
        "d_model": 64,
        "n_layers": 4,
        "norm": {"name": "rms", "eps": 1e-6},
        "position": {"name": "rotary", "base": 10000.0, "scaling": {"name": "linear", "factor": 2.0}},
        "attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2},
        "layers": [{"repeat": 3, "attention": {"window": 16}}, {"feedforward": {"name": "experts", "n_experts": 4}}],
        "head": {"name": "linear", "tied": True},
    },
    "data": {"name": "text", "path": "corpus.txt"},
    "training": {"steps": 30, "batch_size": 2, "optimizer": {"name": "adamw", "eps": 1e-6}, "callbacks": ["ema"]},
    "sampler": [{"name": "temperature", "value": 0.7}, "top-k"],
}
"""A spec with components at several depths."""


def _toml(data: dict[str, object]) -> str:
    return "\n".join(f"{key} = {_inline(value)}" for key, value in data.items()) + "\n"


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)


SPECS = {".yaml": dump_yaml(WHOLE), ".toml": _toml(WHOLE), ".json": json.dumps(WHOLE, indent=1)}


def test_weights_that_do_not_fit_the_spec_are_not_exported(sound: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    text = (run / "spec.yaml").read_text(encoding="utf-8")
    assert "n_layers: 1\n" in text
    (run / "spec.yaml").write_text(text.replace("n_layers: 1\n", "n_layers: 2\n"), encoding="utf-8")
    with pytest.raises(GptkitError, match=r"does not fit the model: it lacks blocks\.1\."):
        gptkit.export_model(run, tmp_path / "out", to="hugging-face")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_optimizer_state_of_another_form_is_refused(sound: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    checkpoint = CheckpointStore(run / "checkpoints").latest()
    assert checkpoint is not None
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    assert state["optimizer"]["state"]
    state["optimizer"]["state"] = []
    (checkpoint / "state.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(GptkitError, match="does not fit the optimizer"):
        gptkit.resume(run, progress=False, **{"training.steps": 5})
