"""Models with components of third parties, which have no templates, exported with generated code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptkit.core.errors import ExternalModelError
from gptkit.files import validate_data
from gptkit.interop.formats.hugging_face.writing import write_directory
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from tests.support.compositions import BASE, GROUPED, HEADS
from tests.support.ejected import randomize
from tests.support.hugging_face import load_in_transformers, native
from tests.support.small_plugins import small_registry

ODD = {"name": "layer", "shift": False}
"""A norm that no family has with these attentions."""
MULTI = {"name": "multi-head", **HEADS}
SPECS: dict[str, dict[str, Any]] = {
    "parts": {
        "norm": "small-length",
        "feedforward": {"name": "mlp", "activation": "small-bump"},
        "linear": "small-centered",
        "attention": GROUPED,
        "position": "rotary",
    },
    "decay": {"position": "small-decay", "attention": GROUPED},
    "turn": {"position": "small-turn", "attention": GROUPED},
    "wave": {"position": "small-wave", "attention": MULTI},
    "attention": {"position": "rotary", "attention": {"name": "small-attention", "window": 6}},
    "attention-alibi": {"position": "alibi", "attention": "small-attention", "layers": [{}, {"attention": MULTI}]},
    "attention-shaw": {"position": "shaw", "attention": "small-attention"},
    "attention-turn": {"position": "small-turn", "attention": "small-attention"},
    "feedforward": {"feedforward": "small-feedforward", "attention": GROUPED, "position": "rotary"},
    "token-bias": {"feedforward": "small-token-bias", "attention": GROUPED, "position": "rotary"},
    "router": {
        "attention": MULTI,
        "feedforward": {
            "name": "experts",
            "n_experts": 4,
            "router": "small-router",
            "expert": {"name": "small-feedforward", "activation": "gelu"},
        },
    },
    "block": {
        "block": "small-block",
        "norm": ODD,
        "attention": GROUPED,
        "layers": [{}, {"feedforward": "small-token-bias"}, {"block": "pre-norm"}],
        "n_layers": 3,
    },
    "embedding": {
        "embedding": "small-embedding",
        "head": {"name": "linear", "tied": True},
        "attention": {"name": "small-attention"},
        "position": "none",
    },
}


def model_of(changes: dict[str, Any]) -> GPT:
    return randomize(GPT(validate_data({**BASE, "norm": ODD, **changes}, ModelSpec, small_registry()), 61))


@pytest.mark.slow
def test_small_components_equal_gptkit_in_transformers(tmp_path: Path) -> None:
    for result in load_in_transformers(tmp_path, {name: model_of(changes) for name, changes in SPECS.items()}).values():
        result.check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "small-head"}, "head 'small-head' cannot be written for transformers, whose models have a linear head"),
        (
            {"feedforward": {"name": "small-feedforward", "mapped": True}},
            "feedforward 'small-feedforward' cannot be written out: ProductSpec does not define `written`, and its module "
            "has an attribute 'sizes' of type dict",
        ),
    ],
)
def test_what_cannot_be_copied_is_refused_by_name(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExternalModelError) as raised:
        write_directory(native(model_of({"attention": GROUPED, **changes})), tmp_path / "out")
    assert message in raised.value.message
    assert not (tmp_path / "out").exists()
