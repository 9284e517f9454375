"""Hybrids: models without layers of one kind, and combinations of keys that gptkit does not have."""

from __future__ import annotations

from typing import Any

import pytest

from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import families, pair, read_model
from gptkit.model.gpt import GPT
from tests.support.tiny_models import MODELS

transformers = pytest.importorskip("transformers")


def read(name: str, **changes: Any) -> Any:
    """Read a tiny model with changed keys, all others explicit, and pair its tensors."""
    kind, options = MODELS[name]
    family = next(each for each in families().values() if each.model_type == name)
    model = read_model(family, {**getattr(transformers, f"{kind}Config")(**options).to_dict(), **changes})
    assert pair(family, GPT(model, device="meta"))
    return model


@pytest.mark.parametrize("name", ["kimi_linear", "bailing_hybrid"])
@pytest.mark.parametrize("kind", ["linear_attention", "full_attention"])
def test_hybrids_with_layers_of_one_kind_are_read(name: str, kind: str) -> None:
    layers = read(name, layer_types=[kind] * 4).layer_specs()
    assert len({layer.attention.name for layer in layers}) == 1


def test_biases_of_one_projection_of_mamba_are_refused() -> None:
    options = MODELS["falcon_h1"][1]
    assert "projectors_bias" not in options
    with pytest.raises(ExternalModelError, match=r"gptkit has biases in both projections of Mamba-2 \(mamba_proj_bias\)"):
        read_model(families()["falcon-h1"], {**options, "model_type": "falcon_h1", "mamba_proj_bias": True})
