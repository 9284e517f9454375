"""Configurations that rotate a part of each head, in families that say so in several ways: against transformers."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.core.errors import GptkitError
from tests.support.parity import distance, kernel, logits_of, make, model_class, random_ids
from tests.support.tiny_models import MODELS

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

DEFAULT = {"rope_type": "default", "rope_theta": 5000.0}
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "factor": ("minimax_m2", {"rotary_dim": None, "rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.25}}),
    "factor-before-rotary-dim": ("minimax_m2", {"rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.25}}),
    "rotary-dim-with-parameters": ("minimax_m2", {"rope_parameters": DEFAULT}),
    "rotary-dim-with-scaling": ("minimax_m2", {"rope_parameters": LINEAR}),
    "factor-of-each-type": (
        "mimo_v2_flash",
        {
            "rope_parameters": {
                "full_attention": {**DEFAULT, "partial_rotary_factor": 0.5},
                "sliding_attention": {**LINEAR, "partial_rotary_factor": 0.334},
            }
        },
    ),
    "default-of-each-kind": ("mimo_v2_flash", {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": DEFAULT}}),
    "m3": ("minimax_m3", {"rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.34}}),
}


@pytest.mark.parametrize("case", CASES)
def test_rotated_part_is_that_of_transformers(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, changes = CASES[case]
    family, options = MODELS[name]
    monkeypatch.setitem(MODELS, case, (family, deepcopy({**options, **changes})))
    model, ids = make(case, tmp_path / "external"), random_ids()
    expected = logits_of(model, ids)
    run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    with torch.no_grad():
        assert distance(run.model(ids).logits, expected) < 5e-5
    gptkit.export_model(tmp_path / "run", tmp_path / "exported")
    again = model_class(model.config).from_pretrained(tmp_path / "exported", attn_implementation=kernel(case))
    assert distance(logits_of(again.eval(), ids), expected) < 1e-6


@pytest.mark.parametrize("changes", [{"rotary_dim": 4}, {"rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.4}}])
def test_minimax_with_a_part_is_refused_since_transformers_rotates_whole_heads(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, options = MODELS["minimax"]
    for case, more in (("whole", {"rope_parameters": DEFAULT}), ("part", {"rope_parameters": DEFAULT, **changes})):
        monkeypatch.setitem(MODELS, case, (family, deepcopy({**options, **more})))
    ids = random_ids()
    whole, part = (logits_of(make(case, tmp_path / case), ids) for case in ("whole", "part"))
    assert torch.equal(whole, part)
    with pytest.raises(GptkitError, match="transformers rotates whole heads"):
        gptkit.import_model(tmp_path / "part", tmp_path / "run", tokenizer="byte")
