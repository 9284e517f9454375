"""ZAYA1: tokens that skip the experts, padding, and the keys of its layers."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import families, read_model
from tests.support.parity import distance, logits_of, random_ids
from tests.support.tiny_models import VOCAB, ZAYA

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
ROPE = {"rope_theta": 5000.0, "rope_type": "default", "partial_rotary_factor": 0.5}


def pair(directory: Path, skips: float = 0.0, **options: Any) -> tuple[Any, Any]:
    """Return a model of transformers with random weights, and the run that gptkit imports.

    Args:
        skips: the bias with which the expert that is skipped is chosen.
    """
    torch.manual_seed(1)
    config = transformers.ZayaConfig(**{**ZAYA, **options})
    model = transformers.ZayaForCausalLM._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        for layer in model.model.layers:
            layer.self_attn.qk_norm.temp.add_(1)  # keys that are not near zero
            layer.mlp.gate.router_mlp.out_proj.weight.mul_(5)  # scores that depend on the token
            layer.mlp.gate.balancing_biases.normal_(std=0.05)[-1] = skips
    with redirect_stderr(io.StringIO()):
        model.save_pretrained(directory / "external")
    return model, gptkit.import_model(directory / "external", directory / "run", tokenizer="byte")


@torch.no_grad()
def test_tokens_that_skip_the_experts_have_equal_logits(tmp_path: Path) -> None:
    model, run = pair(tmp_path, skips=0.05)
    chosen: list[Tensor] = []
    for block in run.model.blocks:
        block.feedforward.router.register_forward_hook(lambda module, args, out: chosen.append(out[0]))
    ids = random_ids()
    own = run.model(ids).logits
    skipped = torch.cat(chosen) == ZAYA["num_experts"]
    assert 0.05 < skipped.float().mean() < 0.95
    assert distance(own, logits_of(model, ids)) < 1e-5


@torch.no_grad()
def test_tokens_are_routed_one_by_one(tmp_path: Path) -> None:
    """The logits of a text do not depend on the texts beside it, in either implementation."""
    model, run = pair(tmp_path)
    ids = torch.randint(VOCAB, (3, 20), generator=torch.Generator().manual_seed(2))
    for logits in (lambda rows: logits_of(model, rows), lambda rows: run.model(rows).logits):
        torch.testing.assert_close(logits(ids)[:1], logits(ids[:1]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_padding_changes_nothing_where_projections_have_biases(tmp_path: Path) -> None:
    """transformers convolves the biases of padding into the first tokens; gptkit's logits are those without padding."""
    model, run = pair(tmp_path, attention_bias=True)
    ids = random_ids()
    alone = logits_of(model, ids)
    assert distance(run.model(ids).logits, alone) < 1e-5
    padded = torch.cat((ids.new_zeros(len(ids), 3), ids), dim=1)
    mask = torch.ones_like(padded).index_fill(1, torch.arange(3), 0)
    assert distance(model(padded, attention_mask=mask).logits[:, 3:], alone) > 1e-4
    native = run.model(padded, left_padding_B=torch.full((len(ids),), 3)).logits
    assert distance(native[:, 3:], alone) < 1e-5


def read(**changes: Any) -> Any:
    family = next(each for each in families().values() if each.model_type == "zaya")
    config = transformers.ZayaConfig(**ZAYA).to_dict()
    return read_model(family, {**config, "architectures": [family.architecture], **changes})


def test_types_of_layers_have_their_window_and_position() -> None:
    sections = {"hybrid": ROPE, "hybrid_sliding": {"rope_theta": 300.0, "rope_type": "default"}}
    types = ["hybrid", "hybrid_sliding", "hybrid"]
    layers = read(layer_types=types, sliding_window=7, rope_parameters=sections).layer_specs()
    assert [layer.attention.sliding_window for layer in layers] == [None, 7, None]
    assert [(layer.position.base, layer.position.fraction) for layer in layers] == [(5000, 0.5), (300, 1), (5000, 0.5)]
    defaults = read(layer_types=types, sliding_window=7, rope_parameters=None).layer_specs()
    assert [(layer.position.base, layer.position.fraction) for layer in defaults] == [(5e6, 0.5), (1e4, 0.5), (5e6, 0.5)]


def test_rope_type_beside_the_types_of_layers_is_read() -> None:
    sections = {"hybrid": ROPE, "hybrid_sliding": ROPE}
    assert read(rope_parameters={**sections, "rope_type": "default"}) == read(rope_parameters=sections)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts_per_tok": 2}, "num_experts_per_tok is the number 2"),
        ({"layer_types": ["hybrid_sliding"] * 3}, "sliding_window is .*layers of the type hybrid_sliding require it"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types is .*it should name hybrid or hybrid_sliding"),
        ({"rope_parameters": {"hybrid_sliding": ROPE}}, "rope_parameters is .*it should have a mapping for hybrid"),
        ({"rope_parameters": {"hybrid": ROPE, "rope_type": "yarn"}}, "rope_type is the text 'yarn'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_other_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExternalModelError, match=message):
        read(**changes)
