"""Runs in a precision: written, loaded, refused where they cannot be used."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import gptkit
from gptkit.checkpoint.store import CheckpointStore
from gptkit.cli.main import app
from gptkit.components.precision.int4 import Int4Spec
from gptkit.core.errors import CheckpointError, DataError, GptkitError, SpecError
from gptkit.model.packing import apply_precision
from gptkit.runs.directory import RunDirectory
from gptkit.runs.quantization_report import quantization_report

torch.set_num_threads(1)

TEXT = "the cat sat on the mat and the dog lay on the rug while the bird sang in the tree. " * 60
SPEC: dict[str, Any] = {
    "name": "small",
    "tokenizer": "byte",
    "model": {
        "context_length": 32,
        "d_model": 32,
        "n_layers": 2,
        "attention": {"name": "grouped-query", "n_heads": 2, "n_kv_heads": 1},
        "feedforward": {"name": "experts", "n_experts": 3, "expert": {"name": "gated", "d_hidden": 40}},
        "head": {"name": "linear", "tied": True},
    },
    "sampler": ["greedy"],
    "training": {"steps": 60, "batch_size": 8, "sample_tokens": 0, "device": "cpu", "evaluate_batches": 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs")
    (directory / "corpus.txt").write_text(TEXT)
    data = {"name": "text", "path": str(directory / "corpus.txt"), "validation": 0.1}
    gptkit.train({**SPEC, "data": data}, directory / "run")
    return directory / "run"


def written(trained: Path, tmp_path: Path, precision: Any = "int4") -> Path:
    return gptkit.quantize_run(trained, tmp_path / "quantized", precision)


def checkpoint(run: Path) -> Path:
    latest = CheckpointStore(RunDirectory(run).checkpoints).latest()
    assert latest is not None
    return latest


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", {"name": "int4", "group": 64, "head": "int4"}], ids=str)
def test_stored_run_equals_conversion_while_loading(trained: Path, tmp_path: Path, precision: Any) -> None:
    stored = gptkit.load(written(trained, tmp_path, precision), device="cpu")
    converted = gptkit.load(trained, device="cpu", precision=precision)
    ids = torch.tensor([list(b"the cat sat on")])
    with torch.no_grad():
        assert torch.equal(stored.model(ids).logits, converted.model(ids).logits)
    assert stored.model.precision == converted.model.precision
    assert stored.generate("the cat", max_new_tokens=8) == converted.generate("the cat", max_new_tokens=8)


def test_greedy_text_in_int8_is_that_of_the_dequantized_model(trained: Path) -> None:
    precision = {"name": "int8", "activations": "fp32"}
    packed = gptkit.load(trained, device="cpu", precision=precision)
    plain = gptkit.load(trained, device="cpu")
    spec = packed.model.precision
    assert spec is not None
    state = plain.model.state_dict()
    for each in apply_precision(gptkit.load(trained, device="cpu").model, spec):
        weight = state[each.name]
        stored = spec.quantize(weight.flatten(0, -2))
        weight.copy_(spec.dequantize(stored, weight.shape[-1]).view(weight.shape))
    assert packed.generate("the dog", max_new_tokens=20) == plain.generate("the dog", max_new_tokens=20)


def test_perplexity_hardly_changes(trained: Path) -> None:
    run = gptkit.load(trained, device="cpu")
    plain = run.evaluate()["perplexity"]
    for precision, allowed in (("bf16", 0.01), ("int8", 0.01), ("int4", 0.1)):
        value = gptkit.load(trained, device="cpu", precision=precision).evaluate()["perplexity"]
        assert abs(value / plain - 1) < allowed, precision
    report = quantization_report(run, "int4", max_tokens=400)
    assert report.divergence is not None
    assert report.divergence.tokens == 399
    assert 0 < report.divergence.divergence < 0.05
    assert report.divergence.agreement > 0.9
    assert abs(report.divergence.change) < 0.1
    assert report.rate_after
    assert report.bytes_after < 0.45 * report.bytes_before
    # The run itself is not changed.
    assert run.model.precision is None
    assert next(run.model.parameters()).dtype == torch.float32
    assert run.evaluate()["perplexity"] == plain


def test_report_on_texts(trained: Path, tmp_path: Path) -> None:
    run = gptkit.load(trained, device="cpu")
    (tmp_path / "a.txt").write_text("the cat sat")
    report = quantization_report(run, "int8", texts=[tmp_path / "a.txt"])
    assert report.divergence is not None
    assert report.divergence.tokens == len("the cat sat") - 1
    with torch.no_grad():
        ids = torch.tensor([list(b"the cat sat")])
        loss = torch.nn.functional.cross_entropy(run.model(ids).logits[0, :-1], ids[0, 1:])
    assert math.isclose(report.divergence.loss_before, float(loss), rel_tol=1e-5)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match="no text"):
        quantization_report(run, "int8", texts=[tmp_path / "a.txt"])
    with pytest.raises(DataError, match="file not found"):
        quantization_report(run, "int8", texts=[tmp_path / "b.txt"])


def test_files_are_small_and_documented(trained: Path, tmp_path: Path) -> None:
    run = written(trained, tmp_path)
    tensors = load_file(checkpoint(run) / "model.safetensors")
    assert tensors["embedding.table.weight.values"].dtype == torch.int8
    assert tensors["blocks.1.attention.qkv.weight.values"].dtype == torch.uint8
    original = load_file(checkpoint(trained) / "model.safetensors")
    stacked = next(name for name in original if name.endswith("down.weight") and original[name].ndim == 3)
    n_experts, n_rows, _ = original[stacked].shape
    assert len(tensors[f"{stacked}.values"]) == n_experts * n_rows
    norm = next(name for name in original if "norm" in name)
    assert torch.equal(tensors[norm], original[norm])
    provenance = json.loads((run / "provenance.json").read_text())
    assert {"precision int4", "precision int8"} <= set(provenance["components"])


def test_adapters_are_merged(trained: Path, tmp_path: Path) -> None:
    spec = gptkit.load(trained).spec.plain()
    spec["model"]["layers"] = None
    spec["model"]["linear"] = {"name": "low-rank", "rank": 2, "projections": ["blocks.*.attention"]}
    spec["training"] |= {"init_from": str(trained), "steps": 2}
    adapted = gptkit.train(spec, tmp_path / "adapted")
    stored = gptkit.load(written(tmp_path / "adapted", tmp_path, "fp32"), device="cpu")
    ids = torch.tensor([list(b"the cat")])
    with torch.no_grad():
        torch.testing.assert_close(stored.model(ids).logits, adapted.model.cpu()(ids).logits, atol=3e-5, rtol=3e-5)
    assert not [name for name in load_file(checkpoint(tmp_path / "quantized") / "model.safetensors") if "lora" in name]


def test_uses_that_are_refused(trained: Path, tmp_path: Path) -> None:
    run = written(trained, tmp_path)
    source = str(trained)
    with pytest.raises(CheckpointError, match="stored in precision 'int4'") as caught:
        gptkit.resume(run)
    assert source in str(caught.value)
    with pytest.raises(CheckpointError, match="not trained, exported"):
        gptkit.export_model(run, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    with pytest.raises(GptkitError, match="stored in precision 'int4', not in int8"):
        gptkit.load(run, precision="int8")
    with pytest.raises(GptkitError, match="not in one with these fields"):
        gptkit.load(run, precision={"name": "int4", "group": 64})
    assert gptkit.load(run, precision="int4").model.precision == Int4Spec()
    with pytest.raises(GptkitError, match="already in precision 'int4'"):
        gptkit.quantize_run(run, tmp_path / "again", "int8")
    with pytest.raises(GptkitError, match="cannot be restored"):
        gptkit.load(run).save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="already holds a run"):
        gptkit.quantize_run(trained, run, "int8")
    gptkit.quantize_run(trained, run, "int8", overwrite=True)
    assert gptkit.load(run).model.precision == gptkit.load(trained, precision="int8").model.precision
    with pytest.raises(SpecError, match="unknown precision 'int5'"):
        gptkit.load(trained, precision="int5")


def test_a_run_is_not_replaced_by_its_quantized_weights(trained: Path, tmp_path: Path, monkeypatch: Any) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    before = checkpoint(run).joinpath("model.safetensors").read_bytes()
    (tmp_path / "link").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    # Nothing is calibrated for minutes before the error: another exception would end with exit code 1.
    monkeypatch.setattr("gptkit.runs.calibrating.calibrate_run", None)
    for path in (run, "run/../run", tmp_path / "link"):
        with pytest.raises(gptkit.GptkitError, match="is the run that is quantized"):
            gptkit.quantize_run(run, path, "int8", overwrite=True)
        result = CliRunner().invoke(app, ["quantize", str(run), "--calibrate", "-o", str(path), "--overwrite"])
        assert result.exit_code == 2
    again = CliRunner().invoke(app, ["quantize", str(run), "--calibrate", "-o", str(trained)])
    assert again.exit_code == 2
    assert "already holds a run" in again.stderr
    assert checkpoint(run).joinpath("model.safetensors").read_bytes() == before


def test_initial_weights_in_a_precision_are_refused(trained: Path, tmp_path: Path) -> None:
    spec = gptkit.load(trained).spec.plain()
    spec["training"] |= {"init_from": str(written(trained, tmp_path)), "steps": 1}
    with pytest.raises(GptkitError, match="stored in precision 'int4'"):
        gptkit.train(spec, tmp_path / "other")


def rewritten(run: Path, change: Any) -> None:
    """Change the tensors of a run and its checksums."""
    file = checkpoint(run) / "model.safetensors"
    # Copies, since the file that they are mapped from is replaced.
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    content = json.loads((checkpoint(run) / "state.json").read_text())
    save_file(tensors, file, {"format": "pt"})
    import hashlib

    data = file.read_bytes()
    content["files"]["model.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (checkpoint(run) / "state.json").write_text(json.dumps(content))


def test_damaged_files_are_refused(trained: Path, tmp_path: Path) -> None:
    name = "blocks.0.attention.qkv.weight.scale"

    def other_dtype(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name].float()

    def missing(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    def fewer_rows(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name][:-1].clone()

    def additional(tensors: dict[str, torch.Tensor]) -> None:
        tensors["surplus"] = torch.zeros(2)

    for number, (change, message) in enumerate(
        ((other_dtype, "float32"), (missing, "absent"), (fewer_rows, "is damaged"), (additional, "surplus"))
    ):
        run = written(trained, tmp_path / str(number))
        rewritten(run, change)
        with pytest.raises(CheckpointError, match=message):
            gptkit.load(run)
    run = written(trained, tmp_path / "state")
    content = json.loads((checkpoint(run) / "state.json").read_text())
    content["quantized"]["precision"] = {"name": "int4", "group": 33}
    (checkpoint(run) / "state.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="is damaged"):
        gptkit.load(run)


def test_commands(trained: Path, tmp_path: Path) -> None:
    def call(*arguments: Any) -> Any:
        return CliRunner().invoke(app, [str(each) for each in arguments])

    shown = call("quantize", trained, "--precision", "int8")
    assert shown.exit_code == 0
    assert "error of the weights" in shown.stdout
    detailed = call("quantize", trained, "-p", "{name: int4, group: 64}", "--report", "--tokens", "200", "--json")
    data = json.loads(detailed.stdout)
    assert data["precision"]["group"] == 64
    assert data["tokens"] == 199
    assert {each["precision"] for each in data["matrices"]} == {"int4", "int8"}
    listed = call("quantize", trained, "--report", "--tokens", "200")
    assert "perplexity" in listed.stdout
    assert "blocks.0.attention.qkv.weight" in listed.stdout
    run = tmp_path / "stored"
    assert call("quantize", trained, "-o", run).exit_code == 0
    for command in (
        ("generate", run, "the cat"),
        ("evaluate", run),
        ("generate", trained, "the cat", "--precision", "int8"),
    ):
        assert call(*command).exit_code == 0, command
    for command in (
        ("quantize", trained, "-o", run),
        ("quantize", run),
        ("quantize", trained, "--text", "a.txt"),
        ("quantize", trained, "--overwrite"),
        ("generate", run, "--precision", "int8"),
        ("generate", trained, "--precision", "int3"),
        ("train", "--resume", run),
        ("export", run, tmp_path / "exported"),
    ):
        assert call(*command).exit_code == 2, command


def test_calibrated_run_is_loaded_as_it_was_measured(trained: Path, tmp_path: Path) -> None:
    run = gptkit.load(trained, device="cpu")
    calibration = gptkit.calibrate_run(run, "int4", max_tokens=2048)
    path = gptkit.quantize_run(run, tmp_path / "calibrated", "int4", calibration=calibration)
    stored = gptkit.load(path, device="cpu")
    apply_precision(run.model, Int4Spec(), stored=calibration.stored)
    ids = torch.tensor([list(b"the cat sat on")])
    with torch.no_grad():
        assert torch.equal(stored.model(ids).logits, run.model(ids).logits)
        rounded = gptkit.load(trained, device="cpu", precision="int4")
        assert not torch.equal(stored.model(ids).logits, rounded.model(ids).logits)
    noted = json.loads((checkpoint(path) / "state.json").read_text())["quantized"]["calibration"]
    assert noted["tokens"] == 2048
    assert noted["rounded"]["embedding.table.weight"] == "outside of the blocks"
    with pytest.raises(GptkitError, match="made for another precision"):
        gptkit.quantize_run(trained, tmp_path / "other", "int8", calibration=calibration)
    with pytest.raises(GptkitError, match="already in precision"):
        gptkit.calibrate_run(stored, "int4")


def test_calibration_commands(trained: Path, tmp_path: Path) -> None:
    def call(*arguments: Any) -> Any:
        return CliRunner().invoke(app, ["quantize", *(str(each) for each in arguments)])

    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "short.txt").write_text("too short")
    options = ("--calibration", tmp_path / "text.txt", "--calibration-tokens", 1024)
    result = call(trained, *options, "--report", "--tokens", 100, "--json", "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["calibration"]["tokens"] == 1024
    assert report["perplexity_after"] > 0
    assert "rounded to nearest: embedding.table.weight (outside of the blocks)" in result.stderr
    assert call(trained, "--calibrate", "--calibration-tokens", 1024, "-o", tmp_path / "other").exit_code == 0
    for arguments, message in (
        ((trained, "--calibration", tmp_path / "short.txt"), "has 9 tokens, but needs 1,024"),
        ((trained, "--calibration", tmp_path / "missing.txt"), "file not found"),
        ((trained, "--calibration", tmp_path / "text.txt", "-p", "bf16"), "has no calibration"),
        ((tmp_path / "run", "--calibrate"), "already in precision 'int4'"),
        ((trained, "--report", "--text", tmp_path / "text.txt", *options), "also a calibration text"),
        ((trained, "--calibration-tokens", 2048), "add --calibrate"),
    ):
        refused = call(*arguments)
        assert refused.exit_code == 2, arguments
        assert message in " ".join(refused.output.replace("│", " ").split()), refused.output
