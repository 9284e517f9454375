"""Matching of variants with the base, for every pair of built-in components."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptkit.core.errors import GptkitError
from gptkit.core.registry import default_registry
from gptkit.experiments import matching_time
from gptkit.experiments.matching import TOLERANCE, Matched, Sizes, match, measure_of, sizes
from gptkit.experiments.matching_time import match_time
from gptkit.experiments.request import ComparisonSpec, Match
from gptkit.experiments.variants import Draft, draft_variants
from gptkit.files import validate_data
from gptkit.runs.spec import ExperimentSpec

MODEL = {"d_model": 64, "n_layers": 2, "context_length": 32, "position": "none"}
VOCAB = 256
SMALL = {name: {"name": name, "index_heads": 2, "d_index": 32} for name in ("compressed", "sparse-latent")}
"""Components whose parts of fixed size, by default, are larger than the models here at any width."""


def drafts(tmp_path: Path, axis: str, values: list[Any], **model: Any) -> tuple[Draft, ...]:
    path = tmp_path / "base.yaml"
    path.write_text(repr({"model": {**MODEL, **model}, "tokenizer": "byte", "training": {"batch_size": 2, "device": "cpu"}}))
    request = validate_data({"base": str(path), "vary": {axis: values}}, ComparisonSpec)
    return draft_variants(request).variants


def value(draft: Draft, quantity: Match) -> float:
    measured: Sizes = sizes(draft.opened.spec.model, VOCAB)
    return {
        "parameters": measured.parameters,
        "flops": measured.flops_per_token,
        "cache": measured.cache_bytes_per_token,
    }[quantity]


def built_in(kind: str) -> list[str]:
    return [
        name
        for name in default_registry().names(kind)
        if default_registry().entry(kind, name).plugin.distribution == "gptkit"
    ]


def pairs(kind: str) -> Iterator[tuple[str, str, str]]:
    for one, other in itertools.permutations(built_in(kind), 2):
        yield kind, one, other


def check(tmp_path: Path, kind: str, one: str, other: str, quantity: Match, **model: Any) -> bool | None:
    """Match `other` with `one`; return whether it matches, None if a spec with it is invalid."""
    try:
        values = [SMALL.get(name, name) for name in (one, other)]
        base, variant = drafts(tmp_path, f"model.{kind}", values, **{**model, kind: values[0]})
    except GptkitError:
        return None
    assert one in SMALL or base.choices == {f"model.{kind}": one}
    measure = measure_of(quantity, lambda draft: VOCAB)
    target = value(base, quantity)
    assert measure(base) == target
    result = match(variant, target, quantity, measure)
    if not result.matches:
        assert result.text.startswith("not matched: ")
        assert result.changes == {}
        return False
    matched = variant.changed(result.changes) if result.changes else variant
    assert matched.opened.spec.model.n_layers == base.opened.spec.model.n_layers
    assert value(matched, quantity) == pytest.approx(target, rel=TOLERANCE)
    return True


@pytest.mark.parametrize("quantity", ["parameters", pytest.param("flops", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "one", "other"), [*pairs("feedforward"), *pairs("norm")])
def test_feedforwards_and_norms_match(tmp_path: Path, kind: str, one: str, other: str, quantity: Match) -> None:
    # Its only width is that of the model, so that numbers between two widths have no match, and a reason.
    matched = check(tmp_path, kind, one, other, quantity)
    assert matched is True or (other == "single-layer" and matched is False)


@pytest.mark.parametrize(
    ("one", "other"), [("multi-head", "latent"), ("latent", "grouped-query"), ("multi-head", "mamba2"), ("simple", "latent")]
)
def test_attentions_match_in_parameters(tmp_path: Path, one: str, other: str) -> None:
    assert check(tmp_path, "attention", one, other, "parameters") is True


def test_cache_matches_by_the_rank_of_latent_attention(tmp_path: Path) -> None:
    assert check(tmp_path, "attention", "multi-head", "latent", "cache") is True


def test_reason_is_given_where_the_cache_does_not_grow(tmp_path: Path) -> None:
    base, variant = drafts(tmp_path, "model.attention", ["multi-head", "mamba2"])
    result = match(variant, value(base, "cache"), "cache", measure_of("cache", lambda draft: VOCAB))
    assert (result.matches, result.changes) == (False, {})
    assert result.text == "not matched: it has no cache that grows with the text, whatever its width"


def test_closest_width_is_given_where_none_matches(tmp_path: Path) -> None:
    # The features of a head are given, so the cache does not depend on the width of the model.
    attention = {"name": "multi-head", "n_heads": 1, "d_head": 61}
    base, variant = drafts(tmp_path, "model.attention", [attention, {**attention, "d_head": 67}])
    result = match(variant, value(base, "cache"), "cache", measure_of("cache", lambda draft: VOCAB))
    assert not result.matches
    assert "the closest" in result.text
    assert "cache +9.84%" in result.text


def test_widths_of_nested_feedforwards_keep_their_ratio(tmp_path: Path) -> None:
    mlps = {"expert": {"name": "mlp", "d_hidden": 40}, "shared": {"name": "mlp", "d_hidden": 80}}
    experts = {"name": "experts", "n_experts": 3, **mlps}
    base, variant = drafts(tmp_path, "model.feedforward", ["mlp", experts])
    result = match(variant, value(base, "parameters"), "parameters", measure_of("parameters", lambda draft: VOCAB))
    assert result.matches
    small, large = (result.changes[f"model.feedforward.{name}.d_hidden"] for name in ("expert", "shared"))
    assert large == pytest.approx(2 * small, abs=1)


def test_expansion_of_the_file_is_replaced(tmp_path: Path) -> None:
    values = [{"name": "mlp", "expansion": 4.0}, {"name": "gated", "expansion": 4.0}]
    base, variant = drafts(tmp_path, "model.feedforward", values)
    result = match(variant, value(base, "parameters"), "parameters", measure_of("parameters", lambda draft: VOCAB))
    assert result.matches
    assert result.text.startswith("model.feedforward.d_hidden = ")
    assert "null" not in result.text


class Clock:
    """In place of a `StepTrial`: a step takes a fixed time, and one that grows with the hidden width."""

    per_width = 0.01

    def __init__(self, spec: ExperimentSpec, vocab_size: int) -> None:
        self._seconds = 1 + self.per_width * spec.model.feedforward.d_hidden  # type: ignore[attr-defined]

    def step(self) -> float:
        return self._seconds

    def close(self) -> None:
        pass


def by_time(tmp_path: Path, width: int, other: int) -> Matched:
    values = [{"name": "mlp", "d_hidden": each} for each in (width, other)]
    base, variant = drafts(tmp_path, "model.feedforward", values)
    return match_time(variant, base, VOCAB, VOCAB)


def test_time_is_matched_by_the_hidden_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching_time, "StepTrial", Clock)
    result = by_time(tmp_path, 100, 400)
    assert result.matches
    # (1 + 0.01 · w) / 2 is within 1 % of 1.
    assert 98 <= result.changes["model.feedforward.d_hidden"] <= 102
    assert "(measured)" in result.text
    assert by_time(tmp_path, 100, 101).text == "time +0.5% (measured) without a change"
    too_small = by_time(tmp_path, 10, 400)
    assert not too_small.matches
    assert not too_small.changes
    assert too_small.text.startswith("not matched: the time of the feed-forward is too small a part of a step")


def test_time_of_real_steps_is_measured(tmp_path: Path) -> None:
    assert "(measured)" in by_time(tmp_path, 64, 2048).text


ALL, SOME = "every pair", "pairs with one component"


@pytest.mark.parametrize(
    ("kind", "quantity", "which"),
    [
        *(pytest.param("position", quantity, ALL, marks=pytest.mark.slow) for quantity in ("parameters", "flops", "cache")),
        # Their parameters and operations: the fast tests above.
        *(pytest.param(kind, "cache", ALL, marks=pytest.mark.slow) for kind in ("attention", "norm", "feedforward")),
        # Hundreds of pairs, with one search for all.
        *(
            pytest.param("attention", quantity, which, marks=mark)
            for quantity, which, mark in (
                ("parameters", SOME, pytest.mark.slow),
                ("flops", SOME, pytest.mark.nightly),
                ("parameters", ALL, pytest.mark.nightly),
                ("flops", ALL, pytest.mark.nightly),
            )
        ),
    ],
)
def test_every_pair_matches_or_has_a_reason(tmp_path: Path, kind: str, quantity: Match, which: str) -> None:
    attention = {} if kind == "attention" else {"attention": {"name": "multi-head", "n_heads": 2}}
    chosen = [pair for pair in pairs(kind) if which == ALL or "multi-head" in pair]
    results = {pair: check(tmp_path, *pair, quantity, **attention) for pair in chosen}
    valid = [each for each in results.values() if each is not None]
    assert len(valid) >= 0.9 * len(results)
    if quantity != "cache":
        assert all(valid), [pair for pair, each in results.items() if each is False]
