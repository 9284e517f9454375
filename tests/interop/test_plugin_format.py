"""A format of a plugin, from the template: `gptkit import`, `export` and `drift` use it."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import gptkit
from gptkit.cli.main import app
from gptkit.cli.plugin_files import render
from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry
from gptkit.docs.pages import pages
from gptkit.interop.selection import detect_format, export_format, formats
from tests.support.gguf_models import DECODER, make_run
from tests.support.plugin_registry import registry_of


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Return a registry with the template's plugin, which is also the default one."""
    for path, text in render("plain-json", "format").items():
        target = tmp_path / "plugin" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "plugin"))
    result = registry_of(gptkit_plain_json=lambda: importlib.import_module("gptkit_plain_json.plugin"))
    monkeypatch.setattr("gptkit.core.registry.lookup._default", result)
    yield result
    for name in [name for name in importlib.sys.modules if name.startswith("gptkit_plain_json")]:  # type: ignore[attr-defined]
        del importlib.sys.modules[name]  # type: ignore[attr-defined]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path / "runs" / "tiny", {**DECODER, "n_layers": 1})


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, " ".join(result.output.split())


def test_cli_exports_and_imports_the_format(registry: Registry, run: Path, tmp_path: Path) -> None:
    code, output = invoke("export", str(run), "plain", "--to", "plain-json")
    assert code == 0, output
    assert "exported to plain" in output
    assert "the tokenizer is not exported" in output
    assert json.loads((tmp_path / "plain" / "plain-json.json").read_text())["model_type"] == "llama"
    code, output = invoke("import", "plain", "runs/back")
    assert code == 2
    assert "plain has no tokenizer" in output
    code, output = invoke("import", "plain", "runs/back", "--tokenizer", "byte")
    assert code == 0, output
    before, after = gptkit.load(run).model.state_dict(), gptkit.load("runs/back").model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert gptkit.load("runs/back").provenance["imported"]["format"] == "plain-json"


def test_drift_compares_with_the_format(registry: Registry, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    assert invoke("export", str(run), "plain", "--to", "plain-json")[0] == 0
    code, output = invoke("drift", str(run), "--against", "plain")
    assert code == 0, output
    assert "no module differs" in output
    weights = load_file("plain/weights.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    save_file({**weights, name: weights[name] + 0.3}, "plain/weights.safetensors")
    code, output = invoke("drift", str(run), "--against", "plain")
    assert code == 1
    assert "blocks.0.feedforward (gated) is the first to differ" in output


def test_messages_and_pages_list_the_format(registry: Registry, run: Path, tmp_path: Path) -> None:
    assert set(formats(registry)) == {"gguf", "hugging-face", "onnx", "plain-json", "torch-export"}
    code, output = invoke("export", str(run), "out", "--to", "plain-jsn")
    assert code == 2
    assert "did you mean 'plain-json'" in output
    (tmp_path / "empty").mkdir()
    code, output = invoke("import", "empty")
    assert code == 2
    assert "plain-json: it does not contain plain-json.json" in output
    assert "components/format/plain-json.md" in pages(registry, figures=False)


def test_an_ambiguous_path_needs_the_format(registry: Registry, run: Path, tmp_path: Path) -> None:
    invoke("export", str(run), "plain", "--to", "plain-json")
    shutil.copyfile("plain/plain-json.json", "plain/config.json")
    code, output = invoke("import", "plain", "runs/back", "--tokenizer", "byte")
    assert code == 2
    assert re.search("may be of several formats: hugging-face: it has a config.json; plain-json: .*--from", output)
    assert invoke("import", "plain", "runs/back", "--tokenizer", "byte", "--from", "plain-json")[0] == 0


def test_options_and_suffixes_of_the_format_are_used(run: Path, tmp_path: Path) -> None:
    assert invoke("export", str(run), "a.gguf")[0] == 0
    assert invoke("export", str(run), "b.gguf", "--set", "type=f16")[0] == 0
    assert (tmp_path / "b.gguf").stat().st_size < 0.8 * (tmp_path / "a.gguf").stat().st_size
    code, output = invoke("export", str(run), "c.gguf", "--type", "f8")
    assert code == 2
    assert "type" in output
    code, output = invoke("export", str(run), "c", "--to", "hugging-face", "--type", "f16")
    assert code == 2
    assert "no field 'type'" in output
    assert invoke("export", str(run), "--to", "gguf")[0] == 0
    assert (tmp_path / "exports" / "tiny.gguf").is_file()
    assert export_format(None, Path("x.GGUF")).component_name() == "gguf"


@pytest.mark.parametrize(
    ("name", "to", "message", "remedy"),
    [
        ("a.gguf", "torch-export", r"torch-export writes \.pt2 files", "As in: a.pt2"),
        ("a", "torch-export", r"torch-export writes \.pt2 files", "As in: a.pt2"),
        ("a.pt2", "gguf", r"gguf writes \.gguf files", "As in: a.gguf"),
        ("a.onnx", "hugging-face", r"hugging-face writes a directory, not a \.onnx file", "As in: a"),
    ],
)
def test_suffix_of_another_format_is_refused(
    run: Path, tmp_path: Path, name: str, to: str, message: str, remedy: str
) -> None:
    """A program of torch named .gguf is read by no program."""
    with pytest.raises(ExternalModelError, match=message) as refused:
        gptkit.export_model(run, tmp_path / name, to=to)
    assert refused.value.hint == remedy
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("foo.xyz", None), ("foo.guff", ".gguf"), ("foo.onx", ".onnx"), ("foo.bin", None), ("foo.pt3", ".pt2")],
)
def test_unknown_suffixes_are_refused(run: Path, tmp_path: Path, name: str, meant: str | None) -> None:
    with pytest.raises(ExternalModelError, match=f"no installed format writes {name[3:]} files") as refused:
        gptkit.export_model(run, tmp_path / name)
    hint = str(refused.value.hint)
    assert "suffixes: .gguf, .onnx, .pt2. " in hint
    assert "--to hugging-face" in hint
    assert hint.startswith(f"Did you mean {meant}?") == (meant is not None)
    assert not (tmp_path / name).exists()
    gptkit.export_model(run, tmp_path / name, to="hugging-face")
    assert (tmp_path / name / "config.json").is_file()


@pytest.mark.parametrize("name", ["gpt", "gpt-0.6B", "llama-3.1-8b", "gpt.v2", "gpt.2026", "there.old"])
def test_names_of_directories_may_have_dots(tmp_path: Path, name: str) -> None:
    (tmp_path / "there.old").mkdir()
    assert export_format(None, tmp_path / name).component_name() == "hugging-face"


def test_directory_with_one_gguf_file_is_imported(run: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    gptkit.export_model(run, tmp_path / "model" / "a.gguf")
    assert gptkit.import_model(tmp_path / "model", tmp_path / "runs" / "back").spec.model.n_layers == 1
    gptkit.export_model(run, tmp_path / "model" / "b.gguf")
    with pytest.raises(ExternalModelError, match="gguf: it holds 2 GGUF files; give one of them"):
        detect_format(tmp_path / "model")


def test_existing_files_are_never_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tokenizer.json").write_text("mine")
    (tmp_path / "out.gguf").write_text("mine")
    for name, reason in (("out", "has tokenizer.json, which the export"), ("out.gguf", "already exists")):
        with pytest.raises(ExternalModelError, match=reason):
            gptkit.export_model(run, tmp_path / name)
    with pytest.raises(ExternalModelError, match="out is a directory, but gguf writes a file"):
        gptkit.export_model(run, tmp_path / "out", to="gguf")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tokenizer.json"]
    assert (tmp_path / "out" / "tokenizer.json").read_text() == (tmp_path / "out.gguf").read_text() == "mine"
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "README.md").write_text("mine")
    gptkit.export_model(run, tmp_path / "clone")
    assert {"README.md", "config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "clone").iterdir()}
    with pytest.raises(ExternalModelError, match="already holds a model"):
        gptkit.export_model(run, tmp_path / "clone")


def test_generation_defaults_round_trip(run: Path, tmp_path: Path) -> None:
    gptkit.export_model(run, tmp_path / "model")
    defaults = {"eos_token_id": [256, 3], "temperature": 0.6, "top_p": 0.9}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(defaults))
    gptkit.import_model(tmp_path / "model", tmp_path / "runs" / "back")
    gptkit.export_model(tmp_path / "runs" / "back", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text()) == defaults
