"""Keys of configurations that are null, which is not what a missing key means to the classes of transformers."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import families, read_model
from gptkit.kinds.external_config import ExternalConfig
from tests.support.tiny_models import MODELS

transformers = pytest.importorskip("transformers")


def read(name: str, changes: dict[str, Any], reference: bool) -> Any:
    """Read a tiny model with changed keys: as the class of transformers writes it, or what it is given."""
    kind, options = MODELS[name]
    made = getattr(transformers, f"{kind}Config")
    data = {**deepcopy(options), **changes} if not reference else json.loads(json.dumps(made(**options).to_dict()))
    family = next(each for each in families().values() if each.model_type == made.model_type)
    return read_model(family, {**data, **changes, "model_type": made.model_type})


def test_null_is_false_and_a_missing_key_the_default() -> None:
    config = ExternalConfig({"a": None, "b": True, "wide": None})
    assert [config.flag(key, True) for key in ("a", "b", "c")] == [False, True, True]
    assert [config.is_null(key) for key in ("a", "b", "c")] == [True, False, False]
    config.use_names({"width": "wide"})
    assert config.is_null("width")
    config.close()


@pytest.mark.parametrize(
    ("name", "key", "field"),
    [
        ("falcon_h1-norm", "mamba_norm_before_gate", "attention.recurrence.norm"),
        ("bamba", "mamba_conv_bias", "attention.conv_bias"),
        ("mistral4", "norm_topk_prob", "feedforward.router.renormalize"),
        ("mistral4", "rope_interleave", "position.layout"),
        ("deepseek_v3", "norm_topk_prob", "feedforward.router.renormalize"),
        ("kimi_linear", "moe_renormalize", "feedforward.router.renormalize"),
        ("youtu", "rope_interleave", "position.layout"),
    ],
)
def test_null_flags_are_false(name: str, key: str, field: str) -> None:
    true, null, false = (read(name, {key: value}, reference=True) for value in (True, None, False))
    assert null == false, field
    assert null != true, field


@pytest.mark.parametrize("name", ["ernie4_5", "internlm3", "iquestcoder", "seed_oss"])
def test_heads_of_null_features_divide_the_width(name: str) -> None:
    assert {layer.attention.d_head for layer in read(name, {"head_dim": None}, reference=False).layer_specs()} == {8}


def test_null_scales_of_minicpm3_are_one() -> None:
    model = read("minicpm3", {"scale_depth": None, "dim_model_base": None}, reference=False)
    assert model.layer_specs()[0].block.residual_scale == 1
    assert model.head.scale == 1


def test_a_null_window_is_refused() -> None:
    with pytest.raises(ExternalModelError, match=r"local_attention is .*: layers have a sliding window"):
        read("modernbert_decoder", {"local_attention": None}, reference=False)
