"""Rotary positions of released models that the classes' own configurations in tests do not have: against transformers."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from tests.support.parity import distance, kernel, logits_of, make, model_class, random_ids
from tests.support.tiny_models import MODELS

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

SHORT, LONG, TRAINED = [1.0, 1.1, 1.3, 1.7], [1.5, 2.0, 4.0, 9.0], 16
LONGROPE = {
    "type": "longrope",
    "short_factor": SHORT,
    "long_factor": LONG,
    "original_max_position_embeddings": TRAINED,
    "rope_theta": 10000.0,
}


def tiny(name: str, changes: dict[str, Any], directory: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Save a tiny model with other rotary positions, and import it as `directory`/run."""
    family, options = MODELS[name]
    monkeypatch.setitem(MODELS, "released", (family, deepcopy({**options, **changes})))
    model = make("released", directory / "external")
    gptkit.import_model(directory / "external", directory / "run", tokenizer="byte")
    return model


@pytest.mark.parametrize("name", ["minicpm3", "deepseek_v3"])
def test_latent_attention_with_longrope_comes_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = (SHORT * 2, LONG * 2)
    width = 2 * len(pairs[0])
    rope = {**LONGROPE, "short_factor": pairs[0], "long_factor": pairs[1]}
    changes = {"qk_rope_head_dim": width, "rope_parameters": rope, "max_position_embeddings": 64}
    model, ids = tiny(name, changes, tmp_path, monkeypatch), random_ids()
    expected = logits_of(model, ids)
    with torch.no_grad():
        assert distance(gptkit.load(tmp_path / "run").model(ids).logits, expected) < 5e-5
    gptkit.export_model(tmp_path / "run", tmp_path / "exported")
    again = model_class(model.config).from_pretrained(tmp_path / "exported", attn_implementation=kernel(name))
    assert distance(logits_of(again.eval(), ids), expected) < 1e-6


def test_phimoe_has_long_divisors_for_long_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rope = {**LONGROPE, "short_mscale": 1.25, "long_mscale": 1.25}
    changes = {"rope_parameters": rope, "max_position_embeddings": 64}
    model, ids = tiny("phimoe", changes, tmp_path, monkeypatch), random_ids()
    native = gptkit.load(tmp_path / "run").model
    with torch.no_grad():
        assert distance(native(ids[:, :TRAINED]).logits, logits_of(model, ids[:, :TRAINED])) < 5e-5
        long = native(ids).logits
    assert distance(long, logits_of(model, ids)) > 1e-2, "transformers has the short divisors for all texts"
    rotary = model.model.rotary_emb
    rotary.rope_init_fn = partial(rotary.rope_init_fn, seq_len=ids.shape[1])
    assert distance(long, logits_of(model, ids)) < 5e-5
