"""Configurations of Zamba and Zamba2: keys that derive from others, and models that transformers computes otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import families, read_model
from tests.support.tiny_models import ZAMBA, ZAMBA2


def read(name: str, **changes: Any) -> Any:
    return read_model(families()[name], {**(ZAMBA if name == "zamba" else ZAMBA2), "model_type": name, **changes})


def heads(model: Any) -> tuple[int, float]:
    """Return the size of the heads of the branch, and their scale."""
    attention = next(layer.block.attention for layer in model.layer_specs() if layer.block.name == "shared-branch")
    return attention.d_head, attention.scale


@pytest.mark.parametrize("name", ["zamba", "zamba2"])
def test_the_size_of_heads_is_a_key_or_derives_from_the_width(name: str) -> None:
    plain = {"use_shared_attention_adapter": False} if name == "zamba2" else {}
    assert heads(read(name, **plain)) == (16, 8**-0.5)
    for key in ("attention_head_dim", "head_dim"):
        assert heads(read(name, **plain, **{key: 10})) == (10, 5**-0.5)
    with pytest.raises(ExternalModelError, match="two names of one setting"):
        read(name, **plain, attention_head_dim=10, head_dim=12)


def test_zamba_has_its_usual_layers_without_a_list() -> None:
    model = read("zamba", layers_block_type=None, num_hidden_layers=9, attn_layer_period=3, attn_layer_offset=1)
    hybrid = [index for index, layer in enumerate(model.layer_specs()) if layer.block.name == "shared-branch"]
    assert hybrid == [2, 4, 7]


def test_zamba2_has_four_times_the_width_in_feed_forwards_without_a_key() -> None:
    for value in (None, 0):
        layer = read("zamba2", intermediate_size=value).layer_specs()[1]
        assert layer.block.feedforward.d_hidden == 4 * 48


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("zamba", {"tie_word_embeddings": False}, "shares no branch between layers"),
        ("zamba2", {"tie_word_embeddings": False}, "shares no branches between layers"),
        (
            "zamba",
            {"attention_hidden_size": 48},
            r"attention_hidden_size is the number 48: the branch reads 2 · hidden_size",
        ),
        ("zamba", {"layers_block_type": ["mamba"] * 5}, "a layer should be hybrid"),
        ("zamba", {"layers_block_type": ["hybrid"] * 4}, "for each of 5 layers"),
        ("zamba", {"n_mamba_heads": 5}, "96 features cannot be divided into 5 heads"),
        ("zamba2", {"attention_head_dim": 12}, "the adapters of transformers require 2 · hidden_size / num_attention_heads"),
        ("zamba2", {"num_key_value_heads": 2}, "require as many as num_attention_heads"),
    ],
)
def test_models_that_are_not_expressed_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExternalModelError, match=message):
        read(name, **changes)
