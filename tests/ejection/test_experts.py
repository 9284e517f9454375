"""Experts are written out in the form in which the built mixture holds their weights: stacked, or each on its own."""

from __future__ import annotations

from typing import Any

import pytest

from gptkit.components.feedforward.written import experts as written_experts
from gptkit.core.component import Component
from gptkit.core.registry import default_registry
from gptkit.files import validate_data
from gptkit.model.spec import ModelSpec
from gptkit.testing import run_checks
from tests.support.ejected import is_written


def experts(expert: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "experts", "n_experts": 3, "expert": expert, **fields}


LEARNED: dict[str, Any] = {"name": "mlp", "activation": "xielu", "d_hidden": 12}
"""A feed-forward whose activation has parameters, as wide as the model."""
NORMED: dict[str, Any] = {"name": "gated", "activation": "xielu", "hidden_norm": "rms", "bias": True}
FORMS: dict[str, Any] = {
    "activation with parameters": experts(LEARNED),
    "activation with parameters and a bias": experts({"name": "gated", "activation": "xielu", "bias": True}),
    "narrower": experts(LEARNED, latent=7),
    "norm inside, narrower": experts(NORMED, latent=7),
    "one layer, narrower": experts({"name": "single-layer", "activation": "xielu"}, latent=7),
    "shared": experts(LEARNED, shared=LEARNED, router={"name": "softmax-top-k", "norm": "rms"}),
    "nested": experts(experts(LEARNED, output_norm="layer"), output_norm="rms"),
    "nested with norms, narrower": experts(experts("mlp", output_norm="layer", branch_norm="rms"), latent=7),
    "nested with a router's norm, narrower": experts(
        experts("mlp", router={"name": "softmax-top-k", "norm": "layer"}), latent=7
    ),
    "nested, narrower twice": experts(experts(LEARNED, latent=5, shared=NORMED, output_norm="layer"), latent=7),
    "nested twice, narrower each time": experts(experts(experts("gated", latent=3, output_norm="rms"), latent=5), latent=7),
}


@pytest.mark.parametrize("name", FORMS)
def test_experts_are_written_as_they_are_built(name: str) -> None:
    assert is_written(_model(FORMS[name]))


def test_experts_with_low_rank_projections_are_written_as_they_are_built() -> None:
    assert is_written(_model(experts(LEARNED), linear="low-rank"))


def test_conformance_kit_places_components_inside_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = default_registry().component("activation", "xielu")()
    assert _outcome(spec) == ("passed", "")
    monkeypatch.setattr(written_experts, "_is_stacked", lambda spec, context: True)
    outcome, message = _outcome(spec)
    assert outcome == "failed"
    assert "in experts 'mlp': the written file fails: RuntimeError" in message


def _outcome(spec: Component) -> tuple[str, str]:
    (result,) = run_checks(spec, only=["written-equals-built"])
    return result.outcome, result.message


def _model(feedforward: dict[str, Any], **parts: Any) -> ModelSpec:
    attention = {"name": "multi-head", "n_heads": 2}
    data = {"context_length": 8, "d_model": 12, "n_layers": 1, "attention": attention, "feedforward": feedforward, **parts}
    return validate_data(data, ModelSpec)
