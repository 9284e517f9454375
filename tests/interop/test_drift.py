"""`gptkit drift`: no difference between equal models, and the changed part between different ones."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import gptkit
from gptkit.cli.main import app
from gptkit.core.errors import ExternalModelError, RequirementError
from gptkit.runs.drift import Drift, measure_drift
from tests.support.parity import make

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

Models = dict[str, tuple[Path, Path]]
# Norms before and after branches, parallel branches that are added in place, experts, latent and linear attention, norms
# that the next layer has there, blocks within blocks.
NESTED = {"gemma4": True, "gemma3n": False}
"""Blocks within blocks, and whether what the outer ones return is compared; of several streams, it is not."""
CARRYING = ("inkling2_text",)
"""Blocks that carry values, of which programs return different ones; what they return is not compared."""
PLAIN = (
    *("llama", "gemma2", "falcon-40b", "bloom", "opt-350m", "deepseek_v3", "qwen3_next", "mixtral"),
    *("minimax", "inkling_text", "inkling2_text"),
)
KINDS = (*PLAIN, *NESTED)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The directory and the run of a tiny model of each kind."""
    made: Models = {}
    for name in KINDS:
        directory = tmp_path_factory.mktemp(name)
        make(name, directory / "external")
        gptkit.import_model(directory / "external", directory / "run", tokenizer="byte")
        made[name] = directory / "external", directory / "run"
    return made


def tampered(run: Path, tmp_path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """Copy the run, change one tensor in its file, and return it."""
    shutil.copytree(run, tmp_path / "tampered")
    (file,) = (tmp_path / "tampered" / "checkpoints").glob("*/model.safetensors")
    tensors = {key: tensor.clone() for key, tensor in load_file(file).items()}
    tensors[name] = change(tensors[name])
    save_file(tensors, file, {"format": "pt", "aliases": "{}"})
    state = json.loads((file.parent / "state.json").read_text())
    state["files"][file.name] = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (file.parent / "state.json").write_text(json.dumps(state))
    return tmp_path / "tampered"


def first(result: Drift) -> str:
    assert result.first is not None
    return result.first.part


@pytest.mark.parametrize("name", KINDS)
def test_run_equals_its_imported_model(models: Models, name: str) -> None:
    external, run = models[name]
    result = measure_drift(run, external, n_tokens=40)
    assert result.first is None
    assert max(reading.distance for reading in result.readings) < 1e-4
    parts = [reading.part for reading in result.readings]
    assert parts[0] == "embedding"
    assert parts[-1] == "logits"
    inner = "block." if name in NESTED else ""
    assert {f"blocks.{i}.{inner}{part}" for i in (0, 2) for part in ("attention", "feedforward")} <= set(parts)
    compared = name not in CARRYING and NESTED.get(name, True)
    assert ({"blocks.0", "blocks.2"} <= set(parts)) == compared


@pytest.mark.parametrize(
    ("name", "tensor", "part"),
    [
        ("llama", "embedding.table.weight", "embedding"),
        ("llama", "blocks.1.attention_norm.weight", "blocks.1.attention_norm"),
        ("llama", "blocks.1.attention.qkv.weight", "blocks.1.attention"),
        ("llama", "blocks.2.feedforward_norm.weight", "blocks.2.feedforward_norm"),
        ("llama", "blocks.0.feedforward.down.weight", "blocks.0.feedforward"),
        ("llama", "final_norm.weight", "final_norm"),
        ("llama", "head.weight", "logits"),
        ("gemma2", "blocks.1.feedforward_output_norm.weight", "blocks.1.feedforward_output_norm"),
        ("falcon-40b", "blocks.1.attention.output.weight", "blocks.1.attention"),
        ("bloom", "blocks.2.feedforward.up.bias", "blocks.2.feedforward"),
        ("opt-350m", "blocks.1.attention_norm.bias", "blocks.1.attention_norm"),
        ("deepseek_v3", "blocks.2.attention.kv_latent_norm.weight", "blocks.2.attention"),
        ("qwen3_next", "blocks.1.attention.decay_bias", "blocks.1.attention"),
        ("mixtral", "blocks.1.feedforward.router.scores.weight", "blocks.1.feedforward"),
        ("inkling_text", "blocks.0.feedforward.hidden_norm.weight", "blocks.0.feedforward"),
        ("inkling_text", "blocks.1.feedforward.output_norm.weight", "blocks.1.feedforward"),
        ("inkling_text", "blocks.1.attention.v_conv.weight", "blocks.1.attention"),
        ("inkling_text", "blocks.2.attention.relative.table", "blocks.2.attention"),
        ("inkling_text", "blocks.1.attention_conv.weight", "blocks.1.attention_conv"),
        ("inkling2_text", "blocks.0.attention.q_norm.weight", "blocks.0.attention"),
        ("inkling2_text", "blocks.1.attention.v_conv.dynamic.weight", "blocks.1.attention"),
        ("inkling2_text", "blocks.2.attention_conv.weight", "blocks.2.attention_conv"),
        ("inkling2_text", "blocks.1.feedforward.router.selection_bias", "blocks.1.feedforward"),
        ("minimax", "embedding.norm.weight", "embedding"),
        ("minimax", "blocks.1.attention.gate.weight", "blocks.1.attention"),
        ("minimax", "blocks.1.feedforward_norm.weight", "blocks.1.feedforward_norm"),
    ],
)
def test_part_with_a_changed_weight_is_named(models: Models, tmp_path: Path, name: str, tensor: str, part: str) -> None:
    external, run = models[name]
    result = measure_drift(tampered(run, tmp_path, tensor, lambda old: 0.3 - old), external, n_tokens=40)
    assert first(result) == part
    assert result.tensors == (tensor,)
    assert result.differences == ()


def test_adapters_are_compared_as_merged(models: Models, tmp_path: Path) -> None:
    external, run = models["llama"]
    source = gptkit.load(run)
    spec = {**source.spec.model.model_dump(), "linear": {"name": "low-rank", "rank": 2}, "layers": None}
    adapted = gptkit.GPT(spec, source.model.vocab_size)
    adapted.load_state_dict(source.model.state_dict(), strict=False)
    gptkit.save_run(tmp_path / "untrained", adapted, source.tokenizer)
    assert measure_drift(tmp_path / "untrained", external, n_tokens=40).first is None
    with torch.no_grad():
        adapted.get_parameter("blocks.1.attention.output.lora_b").normal_()
    gptkit.save_run(tmp_path / "trained", adapted, source.tokenizer)
    result = measure_drift(tmp_path / "trained", external, n_tokens=40)
    assert first(result) == "blocks.1.attention"
    assert result.tensors == ("blocks.1.attention.output.weight",)
    assert result.differences == ()


def test_attentions_side_by_side_are_compared(tmp_path: Path) -> None:
    make("falcon_h1", tmp_path / "external")
    gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    result = measure_drift(tmp_path / "run", tmp_path / "external", n_tokens=40)
    assert result.first is None
    parts = {reading.part for reading in result.readings}
    assert {"blocks.1.attention.attention", "blocks.1.attention.recurrence", "blocks.1.feedforward", "blocks.1"} <= parts


def test_differing_spec_field_is_named(models: Models, tmp_path: Path) -> None:
    external, run = models["llama"]
    shutil.copytree(run, tmp_path / "run")
    spec = tmp_path / "run" / "spec.yaml"
    text = spec.read_text()
    assert text.count("base: 5000.0") == 1
    spec.write_text(text.replace("base: 5000.0", "base: 90.0"))
    result = measure_drift(tmp_path / "run", external, n_tokens=40)
    assert first(result) == "blocks.0.attention"
    assert result.tensors == ()
    assert any("base" in text and "90" in text for text in result.differences)


def test_nan_is_a_difference(models: Models, tmp_path: Path) -> None:
    external, run = models["llama"]
    broken = tampered(run, tmp_path, "blocks.1.feedforward.down.weight", lambda old: old * float("nan"))
    assert first(measure_drift(broken, external)) == "blocks.1.feedforward"


def test_models_that_cannot_be_compared_are_rejected(models: Models, tmp_path: Path) -> None:
    external, _ = models["qwen3_next"]
    _, run = models["llama"]
    with pytest.raises(ExternalModelError, match="5 layers, the run 3"):
        measure_drift(run, external)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ExternalModelError, match="transformers cannot load it"):
        measure_drift(run, tmp_path)
    with pytest.raises(ExternalModelError, match="hugging-face: it is a file; give the directory"):
        measure_drift(run, tmp_path / "config.json")
    with pytest.raises(ExternalModelError, match="directory not found"):
        measure_drift(run, tmp_path / "absent")


def test_missing_transformers_is_reported_with_the_command(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(RequirementError, match="the comparison needs transformers"):
        measure_drift(models["llama"][1], models["llama"][0])


def test_drift_command(models: Models, tmp_path: Path) -> None:
    external, run = models["llama"]
    same = CliRunner().invoke(app, ["drift", str(run), "--against", str(external)])
    assert same.exit_code == 0, same.output
    assert "no module differs" in same.output
    changed = tampered(run, tmp_path, "blocks.1.attention.qkv.weight", lambda old: old + 0.3)
    other = CliRunner().invoke(app, ["drift", str(changed), "--against", str(external)])
    assert other.exit_code == 1
    assert "blocks.1.attention (grouped-query) is the first to differ" in other.output
    assert "differ from those in the files: blocks.1.attention.qkv.weight" in other.output
    assert "blocks.0.attention" not in other.output  # layers that agree have one line each
    message = CliRunner().invoke(app, ["drift", str(changed), "--against", str(external), "--json"])
    assert json.loads(message.stdout)["first"] == "blocks.1.attention"
