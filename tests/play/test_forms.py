"""Forms of samplers: every registered sampler can be edited with the fields of its schema."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from gptkit.core.registry import default_registry
from gptkit.inference.samplers import sampler_chain
from gptkit.play.forms import sampler_forms

FORMS = {form["name"]: form for form in sampler_forms()}


def test_every_sampler_has_a_form() -> None:
    assert list(FORMS) == sorted(default_registry().entries("sampler"))
    json.dumps(FORMS)
    for form in FORMS.values():
        assert form["summary"]
        assert all(field["description"] for field in form["fields"])


@pytest.mark.parametrize("name", FORMS)
def test_defaults_and_bounds_are_those_of_the_spec(name: str) -> None:
    cls = default_registry().component("sampler", name)
    fields = FORMS[name]["fields"]
    assert [field["name"] for field in fields] == [field for field in cls.model_fields if field != "name"]
    defaults = {field["name"]: field["default"] for field in fields if "default" in field}
    required = [field["name"] for field in fields if "default" not in field]
    if not required:
        (spec,) = sampler_chain({"name": name, **defaults})
        assert spec == cls()
    for field in fields:
        for bound, outside in (("minimum", -1), ("maximum", 1)):
            if bound in field and not required:
                with pytest.raises(ValidationError):
                    cls(**{field["name"]: field[bound] + outside})


def test_types_of_fields() -> None:
    types = {(form["name"], field["name"]): field["type"] for form in FORMS.values() for field in form["fields"]}
    assert types["top-k", "k"] == "integer"
    assert types["temperature", "value"] == "number"
    assert types["suppress-tokens", "tokens"] == "json"
    assert types["logit-bias", "bias"] == "json"
    window = next(field for field in FORMS["repetition-penalty"]["fields"] if field["name"] == "window")
    assert (window["type"], window["nullable"], window["minimum"]) == ("integer", True, 1)
