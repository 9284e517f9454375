"""JSON Schema: valid, and consistent with validation."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field

from gptkit.core.errors import SpecError
from gptkit.files import validate_data
from gptkit.reflect.schema import json_schema
from tests.support.fake_plugins import Gate, Mixer, Norm, Plain, Whole, make, plugin, registry

REGISTRY = registry()
SCHEMA = json_schema(Whole, REGISTRY)
VALIDATOR = Draft202012Validator(SCHEMA)


def accepts(data: Any, validator: Draft202012Validator = VALIDATOR) -> bool:
    return validator.is_valid(data)


def valid(data: Any) -> bool:
    try:
        validate_data(data, Whole, REGISTRY)
    except SpecError:
        return False
    return True


def test_schema_is_valid_json():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert "x-kind" not in json.dumps(SCHEMA)


def test_every_reference_resolves():
    text = json.dumps(SCHEMA)
    references = {part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}
    assert references <= set(SCHEMA["$defs"])
    assert {"kind.norm", "kind.mixer"} <= references


@pytest.mark.parametrize(
    "data",
    [
        {"needed": 1, "norm": None},
        {"needed": 1},
        {"needed": 1, "norm": "plain"},
        {"needed": 1, "norm": {"name": "plain", "eps": 0.5}},
        {"needed": 1, "mixer": None},
        {"needed": 1, "mixer": {"name": "gate", "width": 1, "extra": None, "more": ["plain", {"name": "exact"}]}},
        {"needed": 1, "mixer": {"name": "gate", "width": 1, "inner": {"name": "gate", "width": 2, "norm": "exact"}}},
        {"needed": 1, "samplers": ["plain", {"name": "exact", "either": [1]}]},
        {"needed": 1, "part": {"size": 3, "norm": "exact"}},
    ],
)
def test_valid_specs_pass(data):
    assert valid(data)
    assert accepts(data)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"needed": "x"},
        {"needed": 1, "nothing": 2},
        {"needed": 1, "norm": "plian"},
        {"needed": 1, "norm": {"name": "plian"}},
        {"needed": 1, "norm": {"name": "plain", "epsi": 1}},
        {"needed": 1, "norm": {"name": "plain", "eps": 0}},
        {"needed": 1, "norm": {"name": "plain", "mode": "fats"}},
        # a field of one component under the name of another
        {"needed": 1, "norm": {"name": "plain", "steps": 1}},
        # a component of another kind
        {"needed": 1, "norm": "gate"},
        {"needed": 1, "mixer": {"name": "gate", "width": 1, "more": ["plain", {"name": "exact", "steps": 0}]}},
        {"needed": 1, "mixer": {"name": "gate", "width": 1, "inner": {"name": "gate", "width": "x"}}},
        {"needed": 1, "mixer": {"name": "gate"}},
        {"needed": 1, "part": {"size": 3, "norm": "x"}},
    ],
)
def test_invalid_specs_fail(data):
    assert not valid(data)
    assert not accepts(data)


SCALARS = st.one_of(st.none(), st.integers(-2, 12), st.just(0.5), st.sampled_from(["plain", "exact", "gate", "fast", "x"]))
COMPONENTS = st.recursive(
    SCALARS,
    lambda inner: st.fixed_dictionaries(
        {"name": st.sampled_from(["plain", "exact", "gate"])},
        optional={
            **dict.fromkeys(["eps", "mode", "steps", "offset", "width", "norm", "extra", "inner"], inner),
            "more": st.lists(inner, max_size=2),
            "sizes": st.lists(st.integers(0, 3), max_size=4),
        },
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries({"needed": SCALARS}, optional={"norm": COMPONENTS, "mixer": COMPONENTS}))
def test_valid_random_specs_pass_the_schema(data):
    if valid(data):
        assert accepts(data), data


def test_names_may_be_omitted_in_overrides():
    assert accepts({"extends": "base.yaml", "norm": {"eps": 1}})
    assert not accepts({"extends": "base.yaml", "norm": {"epsi": 1}})
    assert not accepts({"extends": 5})
    assert accepts({"$schema": "gptkit.schema.json", "needed": 1})


def test_schema_has_descriptions_and_defaults():
    kind = SCHEMA["$defs"]["kind.norm"]
    assert kind["description"] == "Kind for tests."
    assert kind["anyOf"][0]["enum"] == ["exact", "plain"]
    assert kind["anyOf"][0]["enumDescriptions"] == [
        "Component with fields of many types.",
        "Divide by the root mean square.",
    ]
    plain = SCHEMA["$defs"]["Plain"]
    assert plain["description"] == "Divide by the root mean square."
    assert plain["properties"]["name"] == {"const": "plain", "default": "plain", "type": "string"}
    assert plain["properties"]["eps"]["description"] == "Added to the mean square."
    assert SCHEMA["properties"]["norm"]["default"] == "plain"


def test_schema_contains_third_party_components():
    schema = json_schema(Whole, registry(plugin("third-party", [make("mine")])))
    assert schema["$defs"]["kind.norm"]["anyOf"][0]["enum"] == ["exact", "mine", "plain"]
    assert accepts({"needed": 1, "norm": {"name": "mine"}}, Draft202012Validator(schema))


def nested(value_type: type, component: str) -> type[Norm]:
    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        value: value_type  # type: ignore[valid-type]

    class Holder(Norm):
        name: Literal[component] = component  # type: ignore[valid-type]
        options: Options = Field(description="Options.")

    return Holder


def test_classes_of_equal_names_have_separate_definitions():
    schema = json_schema(Whole, registry(plugin("a", [nested(int, "one")]), plugin("b", [nested(str, "two")])))
    validator = Draft202012Validator(schema)
    assert accepts({"needed": 1, "norm": {"name": "one", "options": {"value": 1}}}, validator)
    assert accepts({"needed": 1, "norm": {"name": "two", "options": {"value": "x"}}}, validator)
    assert not accepts({"needed": 1, "norm": {"name": "one", "options": {"value": "x"}}}, validator)
    assert not accepts({"needed": 1, "norm": {"name": "two", "options": {"value": 1}}}, validator)


def test_component_without_a_schema_accepts_any_fields():
    class Strange(Norm):
        """Component with a default that JSON cannot represent."""

        model_config = ConfigDict(arbitrary_types_allowed=True)
        name: Literal["strange"] = "strange"
        thing: memoryview = Field(memoryview(b""), description="A thing.")

    schema = json_schema(Whole, registry(plugin("third-party", [Strange])))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert accepts({"needed": 1, "norm": {"name": "strange", "anything": 1}}, validator)
    assert not accepts({"needed": 1, "norm": {"name": "plain", "anything": 1}}, validator)


def test_default_that_json_cannot_represent_is_omitted(recwarn):
    class Odd(Norm):
        name: Literal["odd"] = "odd"
        value: float = Field(default_factory=lambda: 1.0, description="A value.")
        other: Any = Field(default=len, description="Anything.")

    schema = json_schema(Whole, registry(plugin("third-party", [Odd])))
    assert "default" not in schema["$defs"]["Odd"]["properties"]["other"]
    assert not recwarn.list


def test_kind_without_components_accepts_nothing():
    result = registry(disabled=["nobody"])
    result.entries("mixer")
    result._contents.components["mixer"].clear()
    validator = Draft202012Validator(json_schema(Whole, result))
    assert accepts({"needed": 1, "mixer": None}, validator)
    assert not accepts({"needed": 1, "mixer": "gate"}, validator)


def test_schema_of_a_single_component():
    # Without the registry, fields of a kind are marked and not described.
    assert Gate.model_json_schema()["properties"]["norm"]["anyOf"][0]["x-kind"] == "norm"
    assert Plain.model_json_schema()["properties"]["eps"]["exclusiveMinimum"] == 0
    assert issubclass(Gate, Mixer)
