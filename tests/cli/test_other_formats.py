"""`gptkit import` and `gptkit export`: from a directory to a run and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from gptkit.cli.main import app
from tests.support.external_files import CONFIG


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """Save a one-layer llama with its tensors, and return the directory."""
    directory = tmp_path / "tiny-llama"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 1}))
    layer = "model.layers.0"
    shapes = {"model.embed_tokens": (260, 16), "model.norm": (16,)}
    shapes |= {f"{layer}.input_layernorm": (16,), f"{layer}.post_attention_layernorm": (16,)}
    shapes |= {f"{layer}.self_attn.{p}_proj": (16, 16) for p in "qo"} | {
        f"{layer}.self_attn.{p}_proj": (8, 16) for p in "kv"
    }
    shapes |= {f"{layer}.mlp.{p}_proj": (24, 16) for p in ("gate", "up")} | {f"{layer}.mlp.down_proj": (16, 24)}
    save_file({f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}, directory / "model.safetensors")
    return directory


def test_import_and_export_round_trip(external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = invoke("import", "tiny-llama", "--tokenizer", "byte")
    assert code == 0
    assert "imported into runs/tiny-llama" in output
    assert invoke("show", "runs/tiny-llama")[0] == 0
    assert invoke("generate", "runs/tiny-llama", "Hi", "-n", "3")[0] == 0
    code, output = invoke("export", "runs/tiny-llama")
    assert code == 0
    assert "exported to exports/tiny-llama" in output
    before, after = (
        load_file(directory / "model.safetensors") for directory in (external, tmp_path / "exports" / "tiny-llama")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_rejected_imports_print_messages(external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = invoke("import", "tiny-llama")
    assert code == 2
    assert "no tokenizer.json" in output
    assert "--tokenizer byte" in output
    assert invoke("import", "tiny-llama", "runs/a", "--tokenizer", "byte")[0] == 0
    code, output = invoke("import", "tiny-llama", "runs/a", "--tokenizer", "byte")
    assert code == 2
    assert "already holds a run" in output
    assert invoke("import", "tiny-llama", "runs/a", "--tokenizer", "byte", "--overwrite")[0] == 0
    assert invoke("export", "runs/a", "out", "--family", "gpt3")[0] == 2
    code, output = invoke("export", "runs/a", "out", "--family", "gpt2")
    assert code == 2
    assert "family 'gpt2' cannot express this model" in output
    assert not (tmp_path / "out").exists()


def test_model_without_a_matching_family_is_exported_with_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = """
        tokenizer: {name: char, unknown: bytes}
        data: {name: text, path: text.txt}
        model: {d_model: 16, n_layers: 1, context_length: 16, attention: {n_heads: 2}, block: post-norm}
        training: {steps: 1, batch_size: 1}
    """
    Path("odd.yaml").write_text(text)
    Path("text.txt").write_text("Sea and sky. " * 90, encoding="utf-8")
    assert invoke("train", "odd.yaml", "runs/odd", "--quiet")[0] == 0
    code, output = invoke("export", "runs/odd", "out")
    assert code == 0
    assert "no family can express this model; the closest" in output
    assert "; block is post-norm, and would be pre-norm" in output
    assert "wrote configuration_gptkit.py and modeling_gptkit.py" in output
    assert "the code meets the contract of vLLM's Transformers backend, with tensor parallelism" in output
    assert "warning" not in output
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    code_files = {"configuration_gptkit.py", "modeling_gptkit.py"}
    assert {file.name for file in Path("out").iterdir()} == names | code_files
    config = json.loads(Path("out/config.json").read_text())
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_gptkit.GptkitForCausalLM"
    assert config["layer_types"] == ["full_attention"]
    assert invoke("import", "out", "runs/again")[0] == 0
    assert "block: {name: post-norm" in Path("runs/again/spec.yaml").read_text(encoding="utf-8")
    del config["gptkit_model"]  # as in a directory with the code of others
    Path("out/config.json").write_text(json.dumps(config), encoding="utf-8")
    code, output = invoke("import", "out", "runs/third")
    assert code == 2
    assert "gptkit" in output
    code, output = invoke("export", "runs/odd", "odd.gguf")
    assert code == 2
    code, output = invoke("export", "runs/odd", "out2", "--family", "gpt2")
    assert code == 2
    assert "family 'gpt2' cannot express this model" in output


def test_imported_run_can_be_trained(external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("import", "tiny-llama", "runs/a", "--tokenizer", "byte")[0] == 0
    small = ["--set", "training.steps=1", "--set", "training.batch_size=1", "--set", "training.grad_accumulation=1"]
    code, output = invoke("train", "runs/a", "--resume", "--quiet", *small)
    assert code == 0, output
    assert "changed values" not in output
    assert (tmp_path / "runs/a/checkpoints/step-00000001").is_dir()
