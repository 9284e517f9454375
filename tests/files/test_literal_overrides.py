"""`--set` takes the values of string fields literally, and reads all others as YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptkit.core.errors import SpecError
from gptkit.runs.opening import open_spec

SPEC = {"name": "x", "model": {"d_model": 16, "n_layers": 1}, "data": {"name": "text", "path": ["a.txt", "b.txt"]}}


def opened(*overrides: str) -> object:
    return open_spec(SPEC, overrides).spec


@pytest.mark.parametrize(
    "text",
    ["Chapter #1", "*.txt", "@user", "Q: why", "1984", "null", "- item", "{braces", "[x] done", "a ", "%", "`", "&a", "!"],
)
def test_text_is_taken_literally(text: str, tmp_path: Path) -> None:
    assert opened(f"training.sample_prompt={text}").training.sample_prompt == text  # type: ignore[attr-defined]
    file = tmp_path / "x.yaml"
    file.write_text("model: {d_model: 16, n_layers: 1}\n")
    assert open_spec(file, [f"training.sample_prompt={text}"]).spec.training.sample_prompt == text


def test_paths_are_taken_literally() -> None:
    assert opened("data.path=*.txt").data.path == ("*.txt",)  # type: ignore[attr-defined]
    assert opened("data.path=a #1/[ab].txt").data.path == ("a #1/[ab].txt",)  # type: ignore[attr-defined]
    assert opened("data.path=[ab].txt").data.path == ("[ab].txt",)  # type: ignore[attr-defined]
    assert opened("data.path=[x.txt, y.txt]").data.path == ("x.txt", "y.txt")  # type: ignore[attr-defined]
    assert opened("data.path.1=*.md").data.path == ("a.txt", "*.md")  # type: ignore[attr-defined]


def test_quoted_text_is_read_as_yaml() -> None:
    assert opened(r'training.sample_prompt="one\ntwo"').training.sample_prompt == "one\ntwo"  # type: ignore[attr-defined]
    assert opened('training.sample_prompt="Yes," he said').training.sample_prompt == '"Yes," he said'  # type: ignore[attr-defined]


def test_optional_text_accepts_null() -> None:
    assert opened("data.separator=null").data.separator is None  # type: ignore[attr-defined]
    assert opened("data.separator=#").data.separator == "#"  # type: ignore[attr-defined]


def test_other_values_are_yaml() -> None:
    assert opened("training.steps=5 # few").training.steps == 5  # type: ignore[attr-defined]
    with pytest.raises(SpecError):
        opened("training.steps=*5")


def test_python_values_reach_texts_unchanged() -> None:
    spec = open_spec(SPEC, (), {"training.sample_prompt": 'a "b" # c'}).spec
    assert spec.training.sample_prompt == 'a "b" # c'


def test_title_of_a_list_entry_keeps_its_other_fields() -> None:
    sources = [{"name": "a", "data": {"name": "text", "path": "a"}}, {"name": "b", "data": {"name": "text", "path": "b"}}]
    spec = {**SPEC, "data": {"name": "mixture", "sources": sources}, "sampler": [{"name": "top-k", "k": 3}]}
    data = open_spec(spec, ["data.sources.1.name=books"]).spec.data
    assert [(source.name, source.data.path) for source in data.sources] == [("a", ("a",)), ("books", ("b",))]  # type: ignore[attr-defined]
    # The name of a component differs from a title: another one replaces the component.
    (sampler,) = open_spec(spec, ["sampler.0.name=min-p"]).spec.sampler
    assert sampler.name == "min-p"
