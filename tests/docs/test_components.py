"""Every built-in component has a docstring and documented fields."""

from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML

from gptkit.components import plugin
from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.reflect.describe import ComponentDoc, describe

CLASSES = sorted((lazy.load() for lazy in plugin.gptkit_components()), key=lambda cls: (cls.kind, cls.component_name()))


@pytest.fixture(params=CLASSES, ids=lambda cls: f"{cls.kind} {cls.component_name()}")
def cls(request: pytest.FixtureRequest) -> type[Component]:
    result: type[Component] = request.param
    return result


@pytest.fixture
def doc(cls: type[Component], builtin: Registry) -> ComponentDoc:
    return describe(builtin.entry(cls.kind, cls.component_name()), builtin)


def test_components_have_one_sentence_and_documented_fields(doc: ComponentDoc) -> None:
    assert len(doc.summary) > 15
    assert doc.summary.endswith(".")
    assert len(doc.summary) < 130, "the first sentence is shown in tables; continue in a second one"
    undocumented = [field.name for field in doc.fields if len(field.description) < 5]
    assert not undocumented
    assert not doc.paper or "http" in doc.paper


def test_all_fields_are_documented(cls: type[Component], doc: ComponentDoc) -> None:
    assert {field.name for field in doc.fields if "." not in field.name} == set(cls.model_fields) - {"name"}


def test_snippets_are_valid_specs(cls: type[Component], doc: ComponentDoc, builtin: Registry) -> None:
    context = {"registry": builtin}
    short, full = (_load(text)[doc.kind] for text in (doc.snippet, doc.full_snippet))
    fields = {"name": short} if isinstance(short, str) else short
    assert cls.model_validate(fields, context=context) == cls.model_validate(full, context=context)
    assert set(full) == set(cls.model_fields)


def _load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)
