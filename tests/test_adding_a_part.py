"""A built-in part is added by its own files and a name in README.md; no other file lists the built-in parts.

docs/architecture.md ("Adding a part") states the files that are touched.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest
import torch

import gptkit
from gptkit.cli.plugin_files import render
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry
from gptkit.docs.pages import pages
from gptkit.interop.selection import detect_format, export_format
from gptkit.model.gpt import GPT
from gptkit.reflect.schema import json_schema
from gptkit.runs.spec import ExperimentSpec
from gptkit.testing import run_checks
from tests.support.gguf_models import DECODER, make_run
from tests.support.plugin_registry import registry_of

ATTENTION = '''
"""`every-other` attention."""

from dataclasses import dataclass
from typing import Literal

from gptkit.components.attention.multi_head import MultiHeadSpec
from gptkit.nn.attention.pattern import MaskPattern


@dataclass(frozen=True)
class EveryOther(MaskPattern):
    """Tokens at even distances."""

    def allows(self, query, key):
        return (query - key) % 2 == 0


class EveryOtherSpec(MultiHeadSpec):
    """Attention to every other token."""

    name: Literal["every-other"] = "every-other"

    def mask_pattern(self):
        return EveryOther()
'''
CALLBACK = '''
"""Callback `step-number`."""

from typing import Literal

from gptkit.kinds.callback import Callback, CallbackSpec


class StepNumberSpec(CallbackSpec):
    """Records the number of the step."""

    name: Literal["step-number"] = "step-number"

    def build(self):
        return StepNumber()


class StepNumber(Callback):
    def measure(self, step):
        return {"step/number": step}
'''
# The template of a format, which writes a file of its own and reads it, with a suffix.
FORMAT = render("renamed", "format")["gptkit_renamed/renamed.py"].replace(
    'name: Literal["renamed"] = "renamed"', 'suffixes = (".renamed",)\n\n    name: Literal["renamed"] = "renamed"'
)
FILES = {
    "gptkit.components.attention": ("every_other.py", ATTENTION),
    "gptkit.components.callback": ("step_number.py", CALLBACK),
    "gptkit.interop.formats": ("renamed/format.py", FORMAT),
}
FINDERS = ("gptkit.components.plugin", "gptkit.interop.plugin")
PARTS = {("attention", "every-other"), ("callback", "step-number"), ("format", "renamed")}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Return the registry of gptkit with three additional files."""
    before = set(sys.modules)
    # A default registry that is created here would keep the additional files for other tests.
    monkeypatch.setattr("gptkit.core.registry.lookup._default", None)
    for package, (name, source) in FILES.items():
        file = tmp_path / package.replace(".", "/") / name
        file.parent.mkdir(parents=True)
        file.write_text(source, encoding="utf-8")
        if "/" in name:
            (file.parent / "__init__.py").touch()
        module = importlib.import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(tmp_path / package.replace(".", "/"))])
    for finder in FINDERS:
        module = importlib.import_module(finder)
        # The same function, in a package that consists of the new files.
        elsewhere = {**vars(module), "__file__": str(tmp_path / f"{finder.replace('.', '/')}.py")}
        more = FunctionType(module.gptkit_components.__code__, elsewhere)
        components = [*module.gptkit_components(), *more()]
        monkeypatch.setattr(module, "gptkit_components", hookimpl(lambda components=components: list(components)))
    yield registry_of()
    for name in set(sys.modules) - before:
        if any(name.startswith(f"{package}.") for package in FILES):
            del sys.modules[name]


def test_a_new_file_is_a_part_wherever_parts_are_listed(registry: Registry, tmp_path: Path) -> None:
    assert all(registry.entry(kind, name).plugin.built_in for kind, name in PARTS)
    written, schema = pages(registry, figures=False), str(json_schema(ExperimentSpec, registry))
    for kind, name in PARTS:
        assert f"components/{kind}/{name}.md" in written
        assert kind == "format" or f"'{name}'" in schema
    assert export_format(None, tmp_path / "b.renamed", registry).component_name() == "renamed"


@torch.no_grad()
def test_a_new_format_reads_what_it_writes(registry: Registry, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", DECODER)
    path = gptkit.export_model(run, tmp_path / "b.renamed", registry=registry)
    assert {file.name for file in path.iterdir()} == {"renamed.json", "weights.safetensors"}
    assert detect_format(path, registry=registry).component_name() == "renamed"
    for other in ("hugging-face", "gguf"):
        assert registry.component("format", other)(name=other).detect(path).score < 1
    native = gptkit.load(run)
    back = gptkit.import_model(path, tmp_path / "back", tokenizer="byte", registry=registry)
    assert back.provenance["imported"]["format"] == "renamed"
    before, after = dict(native.model.named_parameters()), dict(back.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    ids = torch.arange(30)[None]
    assert torch.equal(back.model(ids).logits, native.model(ids).logits)


def test_readme_is_the_only_file_that_lists_parts_by_hand(registry: Registry) -> None:
    root = Path(__file__).resolve().parents[1]
    rows = re.findall(r"^\| ([a-z-]+) \| (`.*`) \|$", (root / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {(kind, name) for kind, names in rows for name in re.findall(r"`([^`]+)`", names)}
    kinds = {kind for kind, _ in listed}
    built_in = {
        (kind, name) for kind in kinds for name in registry.names(kind) if registry.entry(kind, name).plugin.built_in
    }
    assert built_in - listed == PARTS


@torch.no_grad()
def test_a_new_part_works_without_another_change(registry: Registry) -> None:
    from gptkit.files import validate_data
    from gptkit.model.spec import ModelSpec

    spec = validate_data(
        {"d_model": 32, "n_layers": 1, "attention": {"name": "every-other", "n_heads": 2}}, ModelSpec, registry
    )
    model, ids = GPT(spec, 11).eval(), torch.arange(10)[None]
    changed = ids.clone()
    changed[0, 4] = 9
    differs = (model(ids).logits != model(changed).logits).any(-1)[0]
    assert differs.tolist() == [False] * 4 + [True, False, True, False, True, False]
    checked = ("applies-positions", "cached-equals-full", "documents-keep-apart", "backends-agree", "score-features")
    assert all(result.ok for result in run_checks(spec.attention, only=checked, registry=registry))


def test_new_callback_works_without_another_change(registry: Registry) -> None:
    callback = registry.component("callback", "step-number")(name="step-number")
    assert not [result.message for result in run_checks(callback, registry=registry) if not result.ok]
