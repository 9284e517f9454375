"""`ModelSpec`: layer patterns, resolution, and errors in combinations of components."""

from __future__ import annotations

from typing import Any

import pytest

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec


def spec(**fields: Any) -> ModelSpec:
    return validate_data({"d_model": 32, "n_layers": 4, "context_length": 16, **fields}, ModelSpec)


def problems(**fields: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        spec(**fields)
    return [f"{problem.dotted}: {problem.message}" for problem in caught.value.problems]


def test_layers_override_and_are_repeated_to_length() -> None:
    made = spec(
        n_layers=7,
        attention={"name": "multi-head", "n_heads": 4},
        layers=[{"repeat": 2, "attention": {"window": 5}}, {"position": "none", "attention": "simple"}],
    )
    attention: list[Any] = [layer.attention for layer in made.layer_specs()]
    assert [a.name for a in attention] == ["multi-head", "multi-head", "simple"] * 2 + ["multi-head"]
    assert [getattr(a, "window", None) for a in attention] == [5, 5, None, 5, 5, None, 5]
    assert attention[0].n_heads == 4
    assert [layer.position.name for layer in made.layer_specs()][:3] == ["rotary", "rotary", "none"]


def test_n_layers_defaults_to_the_length_of_the_pattern() -> None:
    made = validate_data({"layers": [{"repeat": 5}, {"attention": "simple"}]}, ModelSpec)
    assert made.n_layers == 6
    assert made.layer_specs()[5].attention.name == "simple"


def test_resolved_spec_is_complete_and_round_trips() -> None:
    made = spec(layers=[{"attention": {"name": "grouped-query", "window": 4}}, {}])
    plain = made.model_dump(mode="json")
    assert plain["attention"]["n_heads"] == 1
    assert plain["attention"]["d_head"] == 32
    assert plain["layers"][0]["attention"]["n_kv_heads"] == 1
    assert plain["final_norm"]["name"] == "rms"
    assert validate_data(plain, ModelSpec) == made
    assert validate_data(plain, ModelSpec).model_dump(mode="json") == plain


def test_final_norm_follows_the_block_by_default() -> None:
    assert spec().final_norm is not None
    assert spec(block="post-norm").final_norm is None
    assert spec(final_norm=None).final_norm is None
    assert spec(block="post-norm", final_norm="layer").final_norm is not None


def test_position_that_the_attention_does_not_accept_is_rejected() -> None:
    (message,) = problems(attention="simple", position="shaw")
    assert message.startswith("position: position 'shaw' adds a term to the scores that depends on the queries")
    assert "attention 'simple' does not accept" in message


def test_heads_that_cannot_be_split_or_rotated_are_rejected() -> None:
    (message,) = problems(attention={"name": "multi-head", "n_heads": 5})
    assert message.startswith("attention.n_heads: d_model 32 cannot be split into 5 heads")
    (message,) = problems(attention={"name": "multi-head", "n_heads": 4, "d_head": 3})
    assert "features are rotated in pairs, but the head size 3 gives 3" in message
    (message,) = problems(attention={"name": "grouped-query", "n_heads": 4, "n_kv_heads": 3})
    assert message.startswith("attention.n_kv_heads: n_heads 4 is not a multiple of n_kv_heads 3")


def test_error_in_one_layer_is_located_and_one_in_all_layers_is_reported_once() -> None:
    (message,) = problems(attention={"name": "multi-head", "n_heads": 4}, layers=[{}, {"attention": {"n_heads": 3}}])
    assert message.startswith("layers.1.attention.n_heads: ")
    (message,) = problems(attention={"name": "multi-head", "n_heads": 3}, layers=[{}, {"norm": "layer"}])
    assert message.startswith("attention.n_heads: ")


def test_unknown_field_in_all_layers_is_reported_once() -> None:
    attention = {"name": "multi-head", "n_heads": 4, "n_kv_heads": 2}
    (message,) = problems(attention=attention, layers=[{"repeat": 3}, {"norm": "layer"}])
    assert message.startswith("attention.n_kv_heads: attention 'multi-head' has no field 'n_kv_heads'")
    assert "set attention.name too" in message


def test_absolute_position_of_a_layer_is_rejected() -> None:
    (message,) = problems(layers=[{}, {"position": "learned"}])
    assert message.startswith("layers.1.position: position 'learned' is absolute")
    assert spec(position="learned", layers=[{}, {"attention": "simple"}]).layer_specs()[1].position.name == "learned"


def test_table_shorter_than_the_context_is_rejected() -> None:
    (message,) = problems(position={"name": "learned", "size": 8})
    assert "has 8 positions (its max_positions), fewer than the context length 16" in message


def test_components_lists_used_and_nested_components() -> None:
    made = spec(
        attention={"name": "multi-head", "n_heads": 4, "qk_norm": "layer"}, position={"name": "rotary", "scaling": "yarn"}
    )
    names = {(result.kind, result.name) for result in made.components()}
    assert {("norm", "layer"), ("norm", "rms"), ("rotary-scaling", "yarn"), ("attention", "multi-head")} <= names


def test_part_without_a_name_overrides_the_default() -> None:
    made: Any = spec(attention={"n_heads": 4, "window": 3})
    assert (made.attention.name, made.attention.n_heads, made.attention.window) == ("multi-head", 4, 3)
    (message,) = problems(attention={"n_head": 4})
    assert message.startswith("attention.n_head: ")


def test_layer_can_override_the_attention_backend() -> None:
    made = spec(
        attention_backend="sdpa",
        attention={"name": "multi-head", "n_heads": 2},
        layers=[{}, {"attention_backend": "eager", "attention": {"softcap": 5.0}}],
    )
    assert [entry.attention_backend and entry.attention_backend.name for entry in made.layers or ()] == [None, "eager"]
    model = GPT(made, 31)
    assert [attention.backend_name for attention in model.attentions()] == ["sdpa", "eager"] * 2  # type: ignore[attr-defined]
    assert validate_data(made.model_dump(mode="json"), ModelSpec) == made


def test_backend_that_cannot_compute_its_layer_is_located() -> None:
    capped = {"attention": {"name": "multi-head", "n_heads": 2, "softcap": 5.0}}
    (of_layer,) = problems(layers=[{}, {**capped, "attention_backend": "sdpa"}])
    assert of_layer.startswith("layers.1.attention_backend: attention backend 'sdpa' cannot compute a softcap")
    (of_model,) = problems(layers=[{}, capped], attention_backend="sdpa")
    assert of_model.startswith("attention_backend: attention backend 'sdpa' cannot compute a softcap")
    assert spec(layers=[{}, {**capped, "attention_backend": "auto"}], attention_backend="sdpa")


def test_number_of_repetitions_is_bounded() -> None:
    message = "layers.0.repeat: must be at most 10000, got 99999999999"
    assert message in problems(n_layers=2, layers=[{"repeat": 99_999_999_999}])
    made = spec(n_layers=2, layers=[{"repeat": 10_000, "norm": "layer"}] * 200)
    assert [layer.norm.name for layer in made.layer_specs()] == ["layer", "layer"]
