"""Ejected models compute what gptkit computes, in a process without gptkit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gptkit.kinds.written import NotWrittenError
from gptkit.model.gpt import GPT
from tests.support.compositions import BASE, GROUPED, SPECS
from tests.support.ejected import COARSE, Ejected, presets_written_and_refused, randomize, run_ejected, source_of
from tests.support.presets import small_preset


def check(name: str, result: Ejected) -> None:
    scale = max(1.0, float(result.expected.abs().max()))
    # The cached steps of a model whose frequencies change with the length are those of shorter texts.
    by_length = "length=int(positions_T[-1]) + 1" in result.source
    for computed in (result.logits,) if by_length else (result.logits, result.cached):
        difference = float((computed - result.expected).abs().max())
        if difference > 1e-5 * scale:
            rounding = result.rounding()
            message = f"{name}: logits differ by {difference:.1e}; gptkit's own rounding error is {rounding:.1e}"
            assert difference <= COARSE * rounding, message
    assert torch.equal(result.greedy, result.expected_greedy), name
    assert torch.equal(result.sampled, result.expected_greedy), name
    lines = result.source.splitlines()
    assert max(map(len, lines)) <= 100, max(lines, key=len)
    assert "import gptkit" not in result.source
    assert "$" not in result.source


@pytest.mark.slow
def test_compositions_equal_gptkit(tmp_path: Path) -> None:
    models = {name: randomize(GPT({**BASE, **spec}, 61)) for name, spec in SPECS.items()}
    for name, result in run_ejected(tmp_path, models).items():
        check(name, result)


@pytest.mark.slow
def test_presets_equal_gptkit(tmp_path: Path) -> None:
    models = {name: randomize(small_preset(name)) for name in presets_written_and_refused()[0]}
    for name, result in run_ejected(tmp_path, models).items():
        check(name, result)


def test_refusals_name_the_component_and_the_option() -> None:
    previous = {"attention": {"indexer": "previous", "window": 20}}
    hybrid = {
        "name": "hybrid",
        "attention": {**GROUPED, "reuse_kv": True},
        "recurrence": {"name": "lightning", "n_heads": 2},
    }
    shared = SPECS["shared-branches"]["layers"][0]["block"]
    embedded = {"name": "per-layer-embedding", "projection": True}
    for changes, message in (
        ({"attention": hybrid}, "layers 0 and 1 cannot be written out: they have one cache"),
        ({**SPECS["sparse-latent"], "layers": [{}, previous]}, "with indexer: previous and another window"),
        (
            {"linear": {"name": "low-rank", "projections": ["*.qkv"]}},
            r"'low-rank' cannot be written out with adapters of some",
        ),
        ({"block": {"name": "hierarchical", "block": shared}}, "several modules 'block', a part of which layers share"),
        ({"layers": [{}, {"block": embedded}]}, "of layer 1 projects its own input"),
        ({"block": {"name": "altup", "streams": 2, "block": embedded}}, "of layer 0 projects its own input"),
    ):
        with pytest.raises(NotWrittenError, match=message):
            source_of(GPT({**BASE, **changes}, 61, device="meta"))
