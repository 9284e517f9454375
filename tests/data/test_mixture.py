"""Mixtures: shares of the sources, resumption at any step, validation of each source."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import gptkit
from gptkit.components.data.mixture import MixtureDataSpec
from gptkit.data import Windows, open_prepared, prepare
from gptkit.data.mixing import MixedWindows, Mixture
from gptkit.training.step import TrainingStep

SIZES = {"a": 60, "b": 25, "c": 40}


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Three directories; each letter occurs in one of them only."""
    for letter, number in SIZES.items():
        (tmp_path / letter).mkdir()
        for index in range(number):
            (tmp_path / letter / f"{index:03d}.txt").write_text(f"{letter}{index:03d}{letter}" * (2 + index % 5))
    return tmp_path


def mixture(**fields: Any) -> MixtureDataSpec:
    shares = fields.pop("shares", {"a": {"weight": 1}, "b": {"weight": 2}, "c": {"weight": 5}})
    sources = [{"name": name, "data": {"name": "text", "path": name}, **share} for name, share in shares.items()]
    return MixtureDataSpec.model_validate({"name": "mixture", "sources": sources, **fields})


def letters(windows: Any, steps: int, batch_size: int = 8) -> list[str]:
    """The source of every window, from its text."""
    result = []
    for step in range(steps):
        for row in windows.batch(step, batch_size, seed=3).inputs_BT.tolist():
            (letter,) = {chr(token) for token in row if chr(token) in SIZES} or {"?"}
            result.append(letter)
    return result


@pytest.mark.parametrize("order", ["random", "ordered", "packed"])
def test_windows_come_from_each_source_in_its_share(corpora: Path, make_bytes: Any, order: str) -> None:
    """An independent count: every source is recognized by its letter."""
    data = mixture(windows=order)
    windows = prepare(data, make_bytes(), corpora / "t", corpora).train_windows(data, 8)
    counts = Counter(letters(windows, 1024))
    for letter, weight in {"a": 1, "b": 2, "c": 5}.items():
        assert abs(counts[letter] - 8192 * weight / 8) <= 2
    assert letters(windows, 40) == letters(windows, 40)


def test_epochs_are_relative_to_the_tokens(corpora: Path, make_bytes: Any) -> None:
    data = mixture(shares={"a": {"epochs": 1}, "b": {"epochs": 3}, "c": {}}, validation=0, windows="ordered")
    prepared = prepare(data, make_bytes(), corpora / "t", corpora)
    sizes = Counter(chr(token) for token in prepared.train.tokens.tolist())
    own = {letter: sum(len(path.read_bytes()) + 1 for path in (corpora / letter).iterdir()) for letter in SIZES}
    assert all(sizes[letter] > 0 for letter in SIZES)
    total = own["a"] + 3 * own["b"] + own["c"]
    counts = Counter(letters(prepared.train_windows(data, 8), 512))
    for letter, epochs in {"a": 1, "b": 3, "c": 1}.items():
        assert abs(counts[letter] - 4096 * epochs * own[letter] / total) <= 1


@given(
    weights=st.lists(st.floats(1e-6, 100), min_size=1, max_size=5),
    first=st.integers(0, 30_000),
    counts=st.lists(st.integers(1, 5000), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_draws_do_not_depend_on_the_batches(weights: list[float], first: int, counts: list[int], seed: int) -> None:
    shares = [weight / sum(weights) for weight in weights]
    tokens = np.arange(40, dtype=np.uint16)
    mixed = MixedWindows([Windows(tokens, 4) for _ in weights], shares)
    whole, _ = mixed.draw(0, first + sum(counts), seed)
    at = first
    for count in counts:
        sources, before = MixedWindows([Windows(tokens, 4) for _ in weights], shares).draw(at, count, seed)
        assert sources.tolist() == whole[at : at + count].tolist()
        assert before.tolist() == np.bincount(whole[:at], minlength=len(weights)).tolist()
        at += count


def test_ordered_windows_of_a_source_follow_each_other(corpora: Path, make_bytes: Any) -> None:
    data = mixture(windows="ordered", validation=0)
    prepared = prepare(data, make_bytes(), corpora / "t", corpora)
    windows = prepared.train_windows(data, 8)
    rows = [row for step in range(30) for row in windows.batch(step, 8, seed=1).inputs_BT.tolist()]
    (start, *_), tokens = prepared.index.parts, prepared.train.tokens.tolist()
    own = tokens[: start[0]]
    expected = [own[at : at + 8] for at in range(0, len(own) - 8, 8)]
    seen = [row for row in rows if ord("a") in row]
    assert len(seen) > 10
    assert seen == expected[: len(seen)]


def test_every_source_is_split_by_itself(corpora: Path, make_bytes: Any) -> None:
    data = mixture(validation=0.2)
    prepared = prepare(data, make_bytes(), corpora / "t", corpora, shard_tokens=100)
    parts = prepared.validation_parts(data)
    assert list(parts) == list(SIZES)
    for letter, part in parts.items():
        size = sum(len(path.read_bytes()) for path in (corpora / letter).iterdir())
        assert 0.15 * size < len(part.tokens) < 0.27 * size
        assert {chr(token) for token in part.tokens.tolist() if token < 256} & set(SIZES) == {letter}
        assert part.starts[0] == 0
    assert open_prepared(corpora / "t") == prepared
    # Other weights use the same tokens.
    other = mixture(shares={"a": {}, "b": {}, "c": {}}, validation=0.2)
    assert prepare(other, make_bytes(), corpora / "t", corpora, shard_tokens=100).fingerprint == prepared.fingerprint


def test_training_reports_the_loss_of_each_source(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(corpora)
    spec = {
        "tokenizer": {"name": "byte"},
        "model": {"d_model": 16, "n_layers": 1, "attention": {"name": "multi-head", "n_heads": 2}, "context_length": 16},
        "data": mixture(windows="ordered", document_mask=True).model_dump(mode="json"),
        "training": {
            "steps": 6,
            "batch_size": 4,
            "device": "cpu",
            "sample_tokens": 0,
            "evaluate_every": 3,
            "precision": "fp32",
        },
    }
    whole = gptkit.train(spec, "runs/whole", progress=False)
    lines = [json.loads(line) for line in Path("runs/whole/metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "validation_loss" in line)
    losses = [last[f"validation_loss/{name}"] for name in SIZES]
    assert min(losses) < last["validation_loss"] < max(losses)
    gptkit.train(spec, "runs/parts", ["training.steps=3"], progress=False)
    parts = gptkit.resume("runs/parts", ["training.steps=6"], progress=False)
    assert all(tensor.equal(parts.model.state_dict()[name]) for name, tensor in whole.model.state_dict().items())


MIXTURES = (
    Mixture(0, {"c": 1.0}),
    Mixture(24, {"a": 3.0, "b": 1.0, "c": 0.0}),
    Mixture(5000, None),
    Mixture(10_000, {"a": 1.0, "b": 1e-9}),
)


def test_sources_follow_the_mixtures_that_have_begun() -> None:
    tokens, own = np.arange(40, dtype=np.uint16), [0.5, 0.25, 0.25]
    mixed = MixedWindows([Windows(tokens, 4) for _ in own], own, list("abc"))
    ends = [*(mixture.first for mixture in MIXTURES[1:]), 30_000]
    whole: list[int] = []
    shares = ([0.0, 0.0, 1.0], [0.75, 0.25, 0.0], own, [1.0, 0.0, 0.0])
    for number, (mixture, end, expected) in enumerate(zip(MIXTURES, ends, shares, strict=True), 1):
        sources, before = mixed.draw(mixture.first, end - mixture.first, 7, MIXTURES[:number])
        assert before.tolist() == np.bincount(whole, minlength=3).tolist()
        counts = np.bincount(sources, minlength=3)
        assert np.abs(counts - (end - mixture.first) * np.array(expected)).max() <= 60
        assert all(count == 0 for count, share in zip(counts, expected, strict=True) if share == 0)
        whole += sources.tolist()
    # Another object, in batches of its own: as a resumed training does.
    again = MixedWindows([Windows(tokens, 4) for _ in own], own, list("abc"))
    for first in (24, 31, 5003, 9990, 10_001):
        begun = [mixture for mixture in MIXTURES if mixture.first <= first]
        sources, before = again.draw(first, 9 if first != 9990 else 10, 7, begun)
        assert sources.tolist() == whole[first : first + len(sources)]
        assert before.tolist() == np.bincount(whole[:first], minlength=3).tolist()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1.0, "x": 1.0}, r"names 'x', which is not a source of the data; "),
        ({"a": 1.0, "b": -1.0}, r"has the weight -1.0 of 'b'"),
        ({"a": float("nan")}, r"has the weight nan of 'a'"),
        ({"a": 0.0}, r"add up to 0"),
        ({}, r"add up to 0"),
        ({"a": 1.7e308, "b": 1.7e308}, r"add up to inf"),
    ],
)
def test_wrong_mixtures_of_callbacks_are_rejected(weights: dict[str, float], message: str) -> None:
    tokens = np.arange(40, dtype=np.uint16)
    mixed = MixedWindows([Windows(tokens, 4)] * 3, [0.5, 0.25, 0.25], list("abc"))
    with pytest.raises(gptkit.DataError, match=message) as caught:
        mixed.batch(0, 2, mixtures=[Mixture(0, weights)])
    assert "training.callbacks" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "order", ["random", pytest.param("ordered", marks=pytest.mark.slow), pytest.param("packed", marks=pytest.mark.slow)]
)
def test_stages_mix_the_sources_by_step(corpora: Path, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    monkeypatch.chdir(corpora)
    stages = [{"steps": 3}, {"steps": 3, "mixture": {"a": 1}}, {"mixture": {"b": 1, "c": 1}}]
    spec = {
        "tokenizer": {"name": "byte"},
        "model": {"d_model": 16, "n_layers": 1, "attention": {"name": "multi-head", "n_heads": 2}, "context_length": 8},
        "data": mixture(windows=order).model_dump(mode="json"),
        "training": {
            "steps": 9,
            "batch_size": 8,
            "device": "cpu",
            "sample_tokens": 0,
            "precision": "fp32",
            "schedule": "constant",
            "log_every": 1,
            "stages": stages,
        },
    }
    seen: list[set[str]] = []
    monkeypatch.setattr(TrainingStep, "__call__", recorded(TrainingStep.__call__, seen))
    whole = gptkit.train(spec, "runs/whole", progress=False)
    assert len(seen) == 9
    assert seen[3:6] == [{"a"}] * 3
    assert set().union(*seen[6:]) == {"b", "c"}
    # Interrupted before, at and after the changes; the next batch was read ahead.
    for number, interrupted in enumerate((2, 3, 5, 6, 8)):
        gptkit.train(spec, f"runs/{number}", [f"training.steps={interrupted}"], progress=False)
        parts = gptkit.resume(f"runs/{number}", ["training.steps=9"], progress=False)
        assert parts.metrics.points("loss")[-1] == whole.metrics.points("loss")[-1]
        assert all(tensor.equal(parts.model.state_dict()[name]) for name, tensor in whole.model.state_dict().items())


def recorded(call: Any, seen: list[set[str]]) -> Any:
    """Record the sources of each step's batch."""

    def step(self: TrainingStep, batch: Any, *rest: Any) -> Any:
        seen.append({chr(token) for token in batch[0].unique().tolist()} & set(SIZES))
        return call(self, batch, *rest)

    return step


@pytest.mark.parametrize(
    ("data", "weights", "path", "message"),
    [
        ("builtin", {"a": 1}, "training.stages.0.mixture", "data 'builtin' has no sources"),
        ("mixture", {"a": 1, "cc": 1}, "training.stages.0.mixture.cc", "did you mean 'c'"),
        ("mixture", {"a": 0}, "training.stages.0.mixture", "no source has a weight"),
        ("mixture", {"a": -1}, "training.stages.0.mixture.a", "at least 0"),
        ("mixture", {"a": 1.7e308, "b": 1.7e308}, "training.stages.0.mixture.a", "at most"),
    ],
)
def test_wrong_mixtures_of_stages_are_rejected(data: str, weights: dict[str, float], path: str, message: str) -> None:
    corpus = mixture().model_dump(mode="json") if data == "mixture" else data
    spec = {"model": {"d_model": 16, "n_layers": 1}, "data": corpus, "training": {"stages": [{"mixture": weights}]}}
    with pytest.raises(gptkit.SpecError) as caught:
        gptkit.open_spec(spec)
    assert path in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shares": {"a": {"weight": 1}, "b": {}}}, "all sources have weights, or none has"),
        ({"shares": {"a": {"weight": 1, "epochs": 1}}}, "either a weight or epochs"),
        ({"shares": {"a": {"weight": 0}}}, "greater than 0"),
        ({"shares": {"a": {"weight": 1.7e308}, "b": {"weight": 1.7e308}}}, "less than or equal to 1000000000000"),
        ({"shares": {"a": {"epochs": 1.7e308}, "b": {}}}, "less than or equal to 1000000000000"),
        ({"shares": {"a/b": {}}}, "pattern"),
        ({"shares": {}}, "at least 1"),
        ({"shares": {"a": {"data": {"name": "text", "path": "a", "windows": "packed"}}}}, "set it for the mixture instead"),
    ],
)
def test_wrong_mixtures_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        mixture(**changes)
