"""Rejection of models that cannot fit, and relative paths of a spec file."""

from __future__ import annotations

from pathlib import Path

import pytest

import gptkit
from gptkit.core.errors import CapacityError
from gptkit.kinds.tokenizer import TokenizerSpec
from gptkit.model import plan
from gptkit.runs import sizes
from gptkit.runs.corpus import fit_tokenizer
from gptkit.runs.opening import open_spec

WIDE = {"gptkit": 1, "tokenizer": "byte", "model": {"d_model": 20480, "n_layers": 200, "vocab_size": 300}}


def test_model_that_cannot_fit_is_rejected_before_allocation() -> None:
    with pytest.raises(CapacityError, match=r"a model of 1\.\d+ T parameters needs about .* TB, but cpu has .* free"):
        gptkit.build(WIDE)


def test_training_requires_four_times_the_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = {"tokenizer": "byte", "model": {"d_model": 64, "n_layers": 1, "context_length": 16}, "training": {"steps": 1}}
    size = sum(p.numel() for p in gptkit.build(spec).parameters()) * 4
    monkeypatch.setattr(sizes, "available_memory", lambda device: 1 << 40)  # a step is refused by a test of its own
    monkeypatch.setattr(plan, "available_memory", lambda device="cpu": 3 * size)
    gptkit.build(spec)
    with pytest.raises(CapacityError, match="training a model of"):
        gptkit.train(spec, tmp_path / "run")


def test_tokenizer_file_is_relative_to_the_spec_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.Fuse()
    (tmp_path / "specs").mkdir()
    made.save(str(tmp_path / "specs" / "tokenizer.json"))
    file = tmp_path / "specs" / "mine.yaml"
    file.write_text("tokenizer: {name: hugging-face, path: tokenizer.json}\nmodel: {d_model: 16}\n")
    monkeypatch.chdir(tmp_path)
    seen: list[Path] = []

    def fit(self: TokenizerSpec, texts: object, *, base: Path = Path()) -> object:
        seen.append(base / self.path)  # type: ignore[attr-defined]
        return object()

    opened = open_spec(file)
    monkeypatch.setattr(type(opened.spec.tokenizer), "fit", fit)
    fit_tokenizer(opened)
    assert [path.resolve() for path in seen] == [(tmp_path / "specs" / "tokenizer.json").resolve()]
    assert seen[0].is_file()
