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
from tests.support.gguf_families import TRAINED, family_of, wide_model_of
from tests.support.gguf_models import DECODER, GROUPED, make_run
from tests.support.llama_server import PROMPTS, greedy, served, written
from tests.support.memorized import LENGTH, continuations, memorize

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


@pytest.mark.parametrize("type", ["bf16", *QUANTIZED])
def test_random_weights(tmp_path: Path, type: Any) -> None:
    """Choices between nearly equal logits may differ, and no others do."""
    file = export_model(make_run(tmp_path / "run", WIDE), tmp_path / "model.gguf", to={"name": "gguf", "type": type})
    back = gptkit.import_model(file, tmp_path / "back")
    back.model.float()
    with served(file) as ask:
        result, spread = gaps(ask, back, PROMPTS, 10)
    # A token of another model would be 2.8 standard deviations from the best, the mean of the largest of 256 random numbers.
    assert max(result) < CLEAR * spread, (result, spread)
    assert sum(gap == 0 for gap in result) > 0.6 * len(result)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_memorized_tokens(tmp_path: Path, name: str) -> None:
    """Each quantized type, k-quants included; matrices whose rows are not whole blocks have other types in the file."""
    # With small weights, a rounded activation has a small effect on later layers, and on the choice of experts.
    run = make_run(tmp_path / "run", wide_model_of(name), scale=0.25, train=memorize)
    family = family_of(name).component_name()
    prompts = [list(prompt.encode()) for prompt in PROMPTS]
    for kind in ("bf16", *QUANTIZED):
        file = export_model(run, tmp_path / f"{kind}.gguf", to={"name": "gguf", "type": kind}, family=family)
        if kind in QUANTIZED:
            assert sum(tensor.type == BLOCKS[kind].number for tensor in GgufFile(file).tensors.values()) > 3
        back = gptkit.import_model(file, tmp_path / f"back-{kind}")
        back.model.float()
        native = [greedy(back, ids, LENGTH)[0] for ids in prompts]
        with served(file) as ask:
            assert [written(ask, ids, LENGTH) for ids in prompts] == native, kind
        assert native == continuations(), kind
