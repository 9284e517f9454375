"""Divisions for tensor parallelism: configurations that the defaults and examples of components do not cover."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from gptkit.components.block.attention_residuals import AttentionResidualsSpec
from gptkit.core.registry import default_registry
from gptkit.nn.tensor_parallel import PartForward, TensorParallel, undivided_reason, uneven
from gptkit.testing import run_checks
from gptkit.testing.division import sums_over_parts
from gptkit.testing.subject import Subject

HEADS = {"n_heads": 4, "d_head": 8}


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "multi-head", **HEADS, "qkv_bias": True, "output_bias": True, "sinks": True, "output_gate": True},
        {"name": "multi-head", **HEADS, "qk_norm": "rms", "qk_norm_width": "each-head"},
        {"name": "grouped-query", **HEADS, "n_kv_heads": 2, "output_gate": True, "gate_bias": True},
        {"name": "grouped-query", **HEADS, "n_kv_heads": 2, "qk_norm": "layer", "qk_norm_order": "after"},
        {"name": "grouped-query", **HEADS, "n_kv_heads": 2, "kv_conv": 3, "kv_conv_form": "dynamic", "token_sinks": True},
        {"name": "multi-head", **HEADS, "relative_width": 3, "relative_norm": "rms", "token_sinks": True, "sinks": True},
        {"name": "latent", "n_heads": 4, "kv_rank": 10, "q_rank": 7, "d_nope": 6, "d_rotary": 8, "d_value": 5, "bias": True},
        {"name": "latent", "n_heads": 4, "q_rank": 7, "query_latents": "both", "output_gate": True, "gate_input": "queries"},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_attention_sums_over_parts(fields: dict[str, Any]) -> None:
    spec = default_registry().component("attention", fields["name"]).model_validate(fields)
    (result,) = run_checks(spec, only=["sums-over-parts"])
    assert result.outcome == "passed", result.message


def test_inputs_of_keys_and_values_enter_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int] = []
    call = PartForward.__call__

    def counted(self: PartForward, x: Tensor, *rest: Any, **inputs: Any) -> Tensor:
        entered.append(len(inputs.get("kv_BTE", ())))
        return call(self, x, *rest, **inputs)

    monkeypatch.setattr(PartForward, "__call__", counted)
    sums_over_parts(Subject(AttentionResidualsSpec(kv_inputs=True)))
    assert 2 in entered


def _attention(fields: dict[str, Any], position: str, **changes: Any) -> TensorParallel:
    spec = default_registry().component("attention", fields["name"]).model_validate(fields)
    module = Subject(spec).make(position, device="meta", **changes).blocks[0].attention
    assert isinstance(module, TensorParallel)
    return module


def test_uneven_heads_are_named() -> None:
    module = _attention({"name": "grouped-query", **HEADS, "n_kv_heads": 1}, "rotary")
    assert undivided_reason(module) is None
    assert uneven(module.divisions(), 2) == "1 key heads"


@pytest.mark.parametrize(
    ("fields", "position", "changes", "reason"),
    [
        ({"name": "multi-head", **HEADS}, "alibi", {}, "does not declare"),
        ({"name": "multi-head", **HEADS, "qk_norm": "rms", "qk_norm_width": "full"}, "rotary", {}, "does not declare"),
        ({"name": "multi-head", **HEADS}, "rotary", {"linear": {"name": "low-rank", "rank": 2}}, "lora_a is not declared"),
    ],
)
def test_modules_that_need_the_whole_are_not_divided(
    fields: dict[str, Any], position: str, changes: dict[str, Any], reason: str
) -> None:
    actual = undivided_reason(_attention(fields, position, **changes))
    assert actual is not None
    assert reason in actual
