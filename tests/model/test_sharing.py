"""Every parameter is registered once, for sharding, state dicts and optimizers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from gptkit.model.gpt import GPT
from gptkit.testing.subject import Subject
from tests.support.model_parts import ELSEWHERE, OTHERS, REGISTRY, plugin_components
from tests.support.pairs import V, component, ids, variants
from tests.support.recomputation import model

PARTS: list[Any] = [
    *({"position": position} for position in variants("position")),
    *({"attention": attention} for attention in variants("attention")),
    *OTHERS,
    {"head": {"name": "linear", "tied": True}},
    {"head": {"name": "multi-token", "depth": 2, "head": {"name": "linear", "tied": True}}},
]


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_parameter_is_registered_once(parts: dict[str, Any]) -> None:
    if isinstance(parts.get("attention"), dict):
        uses = component("position", {"name": "rotary"}).uses
        if not uses <= component("attention", parts["attention"]).accepts:
            parts = {**parts, "position": "none"}
    assert_registered_once(model(**parts))


@pytest.mark.parametrize(("cls", "fields"), plugin_components())
def test_a_parameter_of_a_plugins_component_is_registered_once(cls: Any, fields: dict[str, Any]) -> None:
    if cls.kind in ELSEWHERE:
        pytest.skip("it has no module in a model")
    spec = cls.model_validate({"name": cls.component_name(), **fields}, context={"registry": REGISTRY})
    assert_registered_once(Subject(spec, REGISTRY).make())


def assert_registered_once(built: GPT) -> None:
    once = [name for name, _ in built.named_parameters()]
    assert [name for name, _ in built.named_parameters(remove_duplicate=False)] == once
    assert sorted(built.state_dict()) == sorted(
        once + [name for name, _ in built.named_buffers() if name in built.state_dict()]
    )


def test_shared_table_belongs_to_the_model_and_is_used_by_all_layers() -> None:
    built = GPT({"d_model": 32, "n_layers": 3, "attention": {"name": "multi-head", "n_heads": 2}, "position": "t5-bias"}, V)
    assert "shared.t5-bias.table.weight" in built.state_dict()
    assert not any("position" in name for name in built.state_dict())
    for copied in (built, copy.deepcopy(built)):
        before = copied(ids(1, 9)).logits
        table: Any = copied.shared["t5-bias"]
        assert all(block.attention.position is table for block in copied.blocks)  # type: ignore[union-attr]
        with torch.no_grad():
            table.table.weight.add_(torch.randn(table.table.weight.shape))
        assert not torch.allclose(copied(ids(1, 9)).logits, before)
    doubled: Any = built.double().blocks[2]
    assert doubled.attention.position.table.weight.dtype == torch.float64


def test_two_shared_tables_of_one_component_have_two_names() -> None:
    layers = [{"position": {"name": "t5-bias", "n_buckets": 8}}, {"position": {"name": "t5-bias", "n_buckets": 16}}]
    built = GPT({"d_model": 32, "n_layers": 4, "attention": {"name": "multi-head", "n_heads": 2}, "layers": layers}, V)
    assert set(built.shared) == {"t5-bias", "t5-bias-2"}
