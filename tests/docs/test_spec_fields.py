"""The reference of the fields of spec files, on its page and on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from gptkit.core.component import Component
from gptkit.core.registry import default_registry
from gptkit.docs import site, spec_fields
from gptkit.experiments.request import ComparisonSpec
from gptkit.model.spec import LayerSpec, ModelSpec
from gptkit.reflect.sections import ROOT, sections
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.config import TrainingSpec
from gptkit.training.stage_spec import StageSpec
from tests.support.command_line import Call, caller

CLASSES = {"model": ModelSpec, "model.layers": LayerSpec, "training": TrainingSpec, "training.stages": StageSpec}


@pytest.fixture
def call() -> Call:
    return caller()


def test_sections_are_those_that_the_json_schema_nests() -> None:
    schema = ExperimentSpec.model_json_schema()
    known = {section.cls.__name__ for section in sections(ExperimentSpec).values()}
    components = {cls.__name__ for cls in _subclasses(Component)}
    # A block has the name of a section's class.
    assert set(schema["$defs"]) - (components - known) == known - {"ExperimentSpec"}


def _subclasses(cls: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


def test_the_page_lists_every_field_with_its_default() -> None:
    page = spec_fields.page(default_registry())
    parts = dict(zip(re.findall(r"\{ #([\w-]+) \}", page), re.split(r"\{ #[\w-]+ \}", page)[1:], strict=True))
    for name, section in sections(ExperimentSpec).items():
        for field in section.cls.model_fields:
            assert f"`{field}`\n:   " in parts[name.replace(".", "-")], (name, field)
    for field in ComparisonSpec.model_fields:
        assert f"`{field}`\n:   " in parts["comparison"]
    assert "`int`; ≥ 1 · default `16`" in parts["training"].split("`batch_size`")[1].splitlines()[1]
    assert "[optimizer](components/optimizer/index.md)" in parts["training"]
    assert "](../" not in page


def test_the_site_has_the_page_and_links_it() -> None:
    docs = site.source() / "docs"
    assert spec_fields.PAGE in (docs.parent / "mkdocs.yml").read_text(encoding="utf-8")
    for page, target in (("training.md", "spec-fields.md#training"), ("spec-files.md", "spec-fields.md")):
        assert f"]({target})" in (docs / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CLASSES)
def test_the_command_lists_the_fields_of_a_section(call: Call, name: str) -> None:
    output = call("components", name).stdout
    assert re.findall(r"^  (\w+): ", output, re.MULTILINE) == list(CLASSES[name].model_fields)


def test_the_command_names_the_sections(call: Call) -> None:
    assert f"gptkit components {ROOT}" in call("components").stderr
    assert "gptkit components model | training" in call("components", ROOT).stderr
    failed = " ".join(call("components", "trainig", code=2).stderr.split())
    assert "unknown kind 'trainig'; did you mean 'training'?" in failed
    assert "Sections of spec files: spec, model," in failed
    assert "has no contract" in call("components", "training", "--contract", code=2).stderr
