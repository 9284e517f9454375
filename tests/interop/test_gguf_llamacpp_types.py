"""llama.cpp and gptkit generate equal tokens with the same file, for each architecture and each quantized type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.interop.formats.gguf.blocks import BLOCKS
from gptkit.interop.formats.gguf.container import GgufFile
from gptkit.runs.exporting import export_model
from tests.support.gguf_families import CONFIGS, NAMES, family_of, wide_model_of
from tests.support.gguf_models import DECODER, GROUPED, make_run
from tests.support.llama_server import PROMPTS, served, written

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed")

WIDE = {
    **DECODER,
    "d_model": 256,
    "n_layers": 2,
    "attention": {**GROUPED, "d_head": 64},
    "feedforward": {"name": "gated", "d_hidden": 512},
}
QUANTIZED = ("q8_0", "q4_0", "q4_k", "q6_k")
CLEAR = 0.5
"""Margin of a choice in standard deviations of the logits, above which both programs must make it."""
CLEAR_WITH_EXPERTS = 1.5
"""The margin where rounded activations may choose another expert, as in routers with nearly equal scores."""
RECURRENT = "qwen3next"
"""Its recurrence and its experts carry rounded activations on. In f32 and bf16 its choices are gptkit's, and in q8_0 the
largest gap, 0.76 standard deviations, is 0.35 once gptkit rounds the inputs of its projections as llama.cpp does. Only the
mean gap is compared."""


def gaps(ask: Any, back: gptkit.Run, prompts: list[str], count: int) -> tuple[list[float], float]:
    """Return how far each token of llama.cpp is from gptkit's most likely one, and the standard deviation of the logits.

    llama.cpp rounds the activations too (to bf16, or to blocks of 8 bits), which changes close choices. So its own tokens
    are the text that gptkit continues.
    """
    result: list[float] = []
    spreads = []
    for prompt in prompts:
        ids = list(prompt.encode())
        tokens = written(ask, ids, count)
        with torch.no_grad():
            logits_TV = back.model(torch.tensor([[*ids, *tokens]])).logits[0]
        logits_TV[:, back.tokenizer.end_id] = -torch.inf
        spreads.append(float(logits_TV[:, :256].std(dim=-1).mean()))
        for index, token in enumerate(tokens):
            logits_V = logits_TV[len(ids) - 1 + index]
            result.append(float(logits_V.max() - logits_V[token]))
    return result, min(spreads)


def check(file: Path, directory: Path, *, count: int, clear: float | None) -> None:
    """Compare choices; without `clear`, only their mean."""
    back = gptkit.import_model(file, directory)
    back.model.float()
    with served(file) as ask:
        result, spread = gaps(ask, back, PROMPTS, count)
    # A token of another model would be 2.8 standard deviations from the best, the mean of the largest of 256 random numbers.
    if clear is None:
        assert sum(result) / len(result) < 0.5 * spread, (result, spread)
        return
    assert max(result) < clear * spread, (result, spread)
    assert sum(gap == 0 for gap in result) > 0.6 * len(result)


@pytest.mark.parametrize("type", ["bf16", *QUANTIZED])
def test_types_equal_llama_cpp(tmp_path: Path, type: Any) -> None:
    file = export_model(make_run(tmp_path / "run", WIDE), tmp_path / "model.gguf", to={"name": "gguf", "type": type})
    check(file, tmp_path / "back", count=10, clear=CLEAR)


@pytest.mark.parametrize("name", NAMES)
def test_quantized_families_equal_llama_cpp(tmp_path: Path, name: str) -> None:
    """Each quantized type, k-quants included; matrices whose rows are not whole blocks have other types in the file."""
    # With small weights, a rounded activation has a small effect on later layers, and on the choice of experts.
    run = make_run(tmp_path / "run", wide_model_of(name), scale=0.25)
    family = family_of(name).component_name()
    clear = CLEAR_WITH_EXPERTS if any("expert" in key for key in CONFIGS[name][1]) else CLEAR
    kinds = ("bf16", *QUANTIZED) if name == RECURRENT else QUANTIZED
    for kind in kinds:
        file = export_model(run, tmp_path / f"{kind}.gguf", to={"name": "gguf", "type": kind}, family=family)
        if kind in QUANTIZED:
            assert sum(tensor.type == BLOCKS[kind].number for tensor in GgufFile(file).tensors.values()) > 3
        check(file, tmp_path / f"back-{kind}", count=6, clear=None if name == RECURRENT and kind in QUANTIZED else clear)
