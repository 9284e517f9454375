"""Remedies of errors: what they name can be done."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from gptkit.core.errors import RequirementError
from gptkit.runs.directory import RunDirectory
from tests.support.command_line import Call
from tests.support.external_files import altered, sound

__all__ = ["sound"]


def test_only_formats_that_can_be_read_are_named(call: Call, run: Path, tmp_path: Path) -> None:
    for arguments in (("import", tmp_path / "nosuch"), ("drift", run, "--against", tmp_path / "nosuch")):
        message = call(*arguments, code=2).stderr
        assert "in one of the formats gguf, hugging-face" in message
        assert "onnx" not in message
        assert "torch-export" not in message


def test_hints_of_commands_have_no_python(call: Call, sound: Path, tmp_path: Path) -> None:
    call("import", sound, tmp_path / "run", "--tokenizer", "byte")
    message = call("import", sound, tmp_path / "run", "--tokenizer", "byte", code=2).stderr
    assert "Replace it with --overwrite, or choose another name." in " ".join(message.split())
    assert "=True" not in message


def test_missing_plugin_may_come_from_a_directory(call: Call, run: Path, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    components = {**RunDirectory(run).read_provenance()["components"], "activation snake": "gptkit-snake-act==0.1.0"}
    directory.provenance.write_text(json.dumps({**RunDirectory(run).read_provenance(), "components": components}))
    with pytest.raises(RequirementError, match="activation snake from gptkit-snake-act") as refused:
        directory.require_components()
    assert "'gptkit-snake-act==0.1.0' from an index, or pip install DIRECTORY from its directory" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "it is not a causal decoder but an encoder"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "it is not a causal decoder but an encoder-decoder model"),
        ({"model_type": "distilbert"}, "it is not a causal decoder"),
        ({"model_type": "xyz", "architectures": ["XyzForMaskedLM"]}, "XyzForMaskedLM is not a causal decoder"),
        (
            {"model_type": "cpmant", "architectures": ["CpmAntForCausalLM"]},
            "the model needs embeddings of segments",
        ),
        ({"model_type": "llamo", "architectures": ["LlamoForCausalLM"]}, "did you mean 'llama'"),
    ],
)
def test_encoders_are_not_called_unknown(
    call: Call, sound: Path, tmp_path: Path, config: dict[str, object], message: str
) -> None:
    directory = altered(sound, tmp_path, **config)
    error = " ".join(call("import", directory, tmp_path / "run", "--tokenizer", "byte", code=2).stderr.split())
    assert f"no installed family has the model_type '{config['model_type']}'; {message}" in error


@pytest.mark.parametrize(("engine", "plugin"), [("llama.cpp", "gptkit-llamacpp"), ("{name: vllm}", "gptkit-vllm")])
def test_engine_without_its_plugin_names_it(call: Call, run: Path, engine: str, plugin: str) -> None:
    if find_spec(plugin.replace("-", "_")) is not None:
        pytest.skip(f"{plugin} is installed")
    error = " ".join(call("generate", run, "the", "--engine", engine, code=2).stderr.split())
    assert f"requires the plugin {plugin}, which is not installed" in error
    assert f"pip install {plugin}" in error


def test_resuming_without_a_run_is_noted(call: Call, project: Path) -> None:
    steps = ("--set", "training.steps=1")
    assert (
        "fresh has no run to resume: training starts from scratch"
        in call("train", "mini.yaml", "fresh", "--resume", *steps).stderr
    )
    assert "no run to resume" not in call("train", "mini.yaml", "fresh", "--resume", "--set", "training.steps=2").stderr
    assert "no run to resume" not in call("train", "mini.yaml", "other", *steps).stderr


def test_parameters_that_are_not_trained_are_named(call: Call, project: Path) -> None:
    experts = "model.feedforward={name: experts, n_experts: 4, expert: gated, router: {name: softmax-top-k, k: 2, %s}}"
    constant = experts % "selection_bias: true"
    message = " ".join(call("train", "mini.yaml", "a", "--set", constant, "--set", "training.steps=1").stderr.split())
    assert "not trained: router.selection_bias" in message
    assert "frozen" not in message
    message = call("train", "mini.yaml", "b", "--set", "training.steps=1").stderr
    assert "not trained" not in message


def test_a_value_of_a_preset_is_changed_elsewhere(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    remedy = "hint: tiny is a preset, which is not edited: change the value with --set model.attention.n_heads=VALUE, or in"
    assert remedy in call("check", "tiny", "--set", "model.d_model=101", code=2).stderr
    Path("mine.yaml").write_text("extends: tiny\nmodel: {d_model: 101}\n")
    assert remedy in call("check", "mine.yaml", code=2).stderr
    Path("mine.yaml").write_text("model: {d_model: 100, n_layers: 1, attention: {n_heads: 7}}\n")
    assert "preset" not in call("check", "mine.yaml", code=2).stderr
