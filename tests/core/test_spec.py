"""Open tagged union: fields of a kind accept any registered component at any depth, with error locations."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest
from pydantic import Field, ValidationError

from gptkit.core.component import Component
from gptkit.core.errors import Problem, RegistryError, SpecError
from gptkit.core.spec import Spec, describe, fail, shortened, validation_error
from gptkit.files import validate_data
from gptkit.model.spec import ModelSpec
from gptkit.runs.spec import ExperimentSpec
from tests.support.fake_plugins import Exact, Gate, Mixer, Norm, Part, Plain, Whole, make, plugin, registry

CONTEXT = {"registry": registry(plugin("third-party", [make("mine")]))}


def whole(**fields):
    return Whole.model_validate({"needed": 1, **fields}, context=CONTEXT)


def errors(**fields):
    with pytest.raises(ValidationError) as caught:
        whole(**fields)
    return [(error["loc"], error["msg"]) for error in caught.value.errors()]


def test_name_is_equivalent_to_a_mapping_with_it():
    assert whole(norm="exact").norm == whole(norm={"name": "exact"}).norm == Exact()


def test_default_name_becomes_the_component():
    assert whole().norm == Plain()
    assert whole().mixer is None
    assert isinstance(whole().part, Part)


def test_components_nest_in_components_and_lists():
    mixer = whole(
        mixer={"name": "gate", "width": 1, "more": ["exact", {"name": "mine"}], "inner": {"name": "gate", "width": 2}}
    )
    assert [norm.name for norm in mixer.mixer.more] == ["exact", "mine"]
    assert mixer.mixer.inner == Gate(width=2, norm=Plain())


def test_component_instance_is_accepted_unchanged():
    norm = Exact(steps=3)
    assert whole(norm=norm).norm is norm


def test_component_of_another_kind_is_rejected():
    assert errors(norm=Gate(width=1, norm=Plain())) == [
        (("norm",), "expected a norm: a name, or a mapping with a 'name', not a Gate")
    ]


def test_errors_have_complete_locations_at_any_depth():
    result = errors(
        mixer={"name": "gate", "width": "x", "more": ["plain", {"name": "exact", "steps": 0}], "inner": {"name": "gaet"}},
        samplers=["plain", "exct"],
    )
    assert [location for location, _ in result] == [
        ("mixer", "width"),
        ("mixer", "more", 1, "steps"),
        ("mixer", "inner", "name"),
        ("samplers", 1),
    ]
    assert result[3][1].startswith("unknown norm 'exct'; did you mean 'exact'?")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "expected a norm: a name, or a mapping with a 'name', not the number 5"),
        (True, "expected a norm: a name, or a mapping with a 'name', not the truth value true"),
        (["plain"], "expected a norm: a name, or a mapping with a 'name', not a list"),
        ({"name": None, "eps": 1}, "norm has no 'name'; choose one of: exact, mine, plain"),
        ({"name": 5}, "norm 'name' is not a text; choose one of: exact, mine, plain"),
    ],
)
def test_values_that_are_not_components_are_rejected(value, message):
    assert errors(norm=value) == [(("norm",), message)]


def test_braces_in_a_name_are_literal():
    assert errors(norm="{message}")[0][1].startswith("unknown norm '{message}'; registered")


def test_name_clash_is_an_error_of_the_field():
    context = {"registry": registry(plugin("one", [make("both")]), plugin("two", [make("both")]))}
    with pytest.raises(ValidationError, match=r"'both' is provided by one==1\.0 and two==1\.0"):
        Whole.model_validate({"needed": 1, "norm": "both"}, context=context)


def test_input_mapping_is_not_changed():
    given = {"name": "simple", "epsilon": 0.5}
    with pytest.warns(DeprecationWarning, match="is now called"):
        whole(norm=given)
    assert given == {"name": "simple", "epsilon": 0.5}


def test_spec_round_trips_through_json():
    spec = whole(mixer={"name": "gate", "width": 1, "extra": {"name": "exact", "sizes": [1, 2]}}, samplers=["mine"])
    dumped = spec.model_dump(mode="json")
    assert dumped["norm"] == {"name": "plain", "eps": 1e-5, "mode": "fast"}
    assert dumped["mixer"]["extra"]["sizes"] == [1, 2]
    assert Whole.model_validate(dumped, context=CONTEXT) == spec
    assert Whole.model_validate_json(spec.model_dump_json(), context=CONTEXT) == spec


def test_specs_are_frozen_and_reject_unknown_keys_and_infinity():
    with pytest.raises(ValidationError, match="frozen"):
        Plain().eps = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Plain(epsi=1)
    with pytest.raises(ValidationError, match="finite"):
        Exact(offset=float("inf"))
    assert hash(Plain(eps=0.5)) == hash(Plain(eps=0.5))


def test_replace_validates_again():
    assert Plain(mode="slow").replace(eps=0.5) == Plain(mode="slow", eps=0.5)
    with pytest.raises(ValidationError, match="greater than 0"):
        Plain().replace(eps=-1)


def test_replaced_part_keeps_other_components():
    spec = whole(mixer={"name": "gate", "width": 1})
    changed = spec.replace(norm=Exact())
    assert changed.mixer is spec.mixer
    assert changed.norm == Exact()


def test_kinds_are_distinguished_from_components():
    assert Norm.is_kind()
    assert not Plain.is_kind()
    assert Plain.component_name() == "plain"

    class Two(Norm):
        name: Literal["a", "b"] = "a"

    for cls in (Two, Norm):
        with pytest.raises(RegistryError, match="does not define a name"):
            cls.component_name()


def test_subclass_of_a_component_is_a_separate_component():
    class Finer(Plain):
        """Component that inherits the fields of another."""

        name: Literal["finer"] = "finer"

    result = registry(plugin("third-party", [Finer]))
    spec = Whole.model_validate({"needed": 1, "norm": {"name": "finer", "eps": 0.5}}, context={"registry": result})
    assert type(spec.norm) is Finer


def test_failures_are_merged_at_their_paths():
    class Odd(Mixer):
        name: Literal["odd"] = "odd"
        fields_: ClassVar[int] = 0
        width: int = Field(1, description="A width.")

        def model_post_init(self, context):
            if self.width % 2:
                raise validation_error(
                    [Problem(("width",), "must be even"), Problem((), "is odd {not} a template")], self.width
                )

    result = registry(plugin("third-party", [Odd]))
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({"needed": 1, "mixer": {"name": "odd", "width": 3}}, context={"registry": result})
    assert [(error["loc"], error["msg"]) for error in caught.value.errors()] == [
        (("mixer", "width"), "must be even"),
        (("mixer",), "is odd {not} a template"),
    ]


def test_fail_raises_a_single_problem():
    with pytest.raises(ValidationError) as caught:
        fail("no", ("a", 0))
    assert caught.value.errors()[0]["loc"] == ("a", 0)


def test_values_in_messages_are_short():
    assert describe("x" * 1000) == f"the text '{'x' * 59}…'"
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "ab…"
    assert [describe(value) for value in (None, False, 1.5, (), {})] == [
        "nothing",
        "the truth value false",
        "the number 1.5",
        "a list",
        "a mapping",
    ]


def test_default_registry_is_used_if_none_is_given():
    class Own(Spec):
        norm: Norm

    with pytest.raises(ValidationError, match="unknown norm 'no-such-thing'"):
        Own.model_validate({"norm": "no-such-thing"})
    assert issubclass(Norm, Component)


@pytest.mark.parametrize(("field", "wrong"), [("n_layers", True), ("n_layers", "4"), ("d_model", False)])
def test_booleans_and_strings_are_not_numbers(field: str, wrong: object) -> None:
    with pytest.raises(SpecError, match=f"{field}: expected a whole number"):
        validate_data({field: wrong}, ModelSpec)


def test_integral_float_is_an_integer() -> None:
    assert validate_data({"d_model": 1e2}, ModelSpec).d_model == 100


def test_mapping_without_a_name_overrides_the_default_component() -> None:
    made = validate_data(
        {
            "tokenizer": {"vocab_size": 300},
            "model": {"head": {"tied": True}, "embedding": {"dropout": 0.1}, "attention": {"n_heads": 2}},
            "data": {"validation": 0.2},
            "training": {"optimizer": {"learning_rate": 0.1}, "schedule": {"warmup_steps": 3}},
        },
        ExperimentSpec,
    ).plain()
    assert (made["tokenizer"]["name"], made["tokenizer"]["vocab_size"]) == ("bpe", 300)
    assert (made["model"]["head"]["name"], made["model"]["head"]["tied"]) == ("linear", True)
    assert (made["training"]["optimizer"]["name"], made["training"]["optimizer"]["learning_rate"]) == ("adamw", 0.1)
    assert made["data"]["validation"] == 0.2
    assert made["training"]["schedule"]["warmup_steps"] == 3
    # Without a default component, there is nothing to override.
    with pytest.raises(SpecError, match="qk_norm: norm has no 'name'"):
        validate_data({"attention": {"qk_norm": {"eps": 1e-6}}}, ModelSpec)
