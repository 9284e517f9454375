"""Reading of exports with generated code: report, `gptkit import` and `gptkit drift`, none of which executes the code."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import gptkit
from gptkit.cli.main import app
from gptkit.components.feedforward.written import dense
from gptkit.core.errors import ExternalModelError
from gptkit.runs.drift import measure_drift
from gptkit.runs.exporting import export
from tests.support.compositions import BASE, GROUPED, SPECS
from tests.support.gguf_models import make_run
from tests.support.hugging_face import run_code

ODD = {"name": "layer", "shift": False}
COMPOSITIONS: dict[str, dict[str, Any]] = {
    # Separate projections of queries, keys, values and gates; and packed ones, experts, recurrent and latent layers.
    "interface": {"attention": {**GROUPED, "output_gate": True, "qkv_bias": True}, "norm": ODD},
    "tied": {"attention": GROUPED, "norm": ODD, "head": {"name": "linear", "tied": True, "bias": True}},
    "multi-token": {"attention": GROUPED, "norm": ODD, "head": {"name": "multi-token", "depth": 1}},
    "alibi": SPECS["alibi"],
    "experts": SPECS["experts"],
    "narrow-experts": {
        "attention": GROUPED,
        "norm": ODD,
        "feedforward": {
            "name": "experts",
            "n_experts": 3,
            "latent": 12,
            "expert": {"name": "gated", "activation": "xielu", "d_hidden": 16},
        },
    },
    "recurrent": {**SPECS["recurrent"], "n_layers": 6},
    "latent": {**SPECS["latent"], "norm": ODD},
}

SAVED = """
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("out", trust_remote_code=True, dtype=torch.float32).eval()
with torch.no_grad():
    model.model.blocks[0].attention.q.weight.mul_(2)
    torch.save(model(torch.arange(20)[None]).logits, "logits")
model.save_pretrained("tuned")
"""


def made(tmp_path: Path, name: str) -> tuple[Path, Path, Any]:
    """Return a run, its export, and the export's report."""
    run = make_run(tmp_path / "run", {**BASE, **COMPOSITIONS[name]})
    result = export(run, tmp_path / "out", compare=True)
    assert (result.path / "modeling_gptkit.py").is_file()
    return run, result.path, result


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_report_compares_logits_and_the_export_is_imported_again(tmp_path: Path, name: str) -> None:
    run, out, result = made(tmp_path, name)
    checked, compared = result.report
    assert checked.startswith("checked: the export has the ")
    assert "largest logit difference 0 " in compared
    assert "KL divergence 0 nats per token" in compared
    assert any("gptkit does not execute the code" in str(remark) for remark in result.remarks)
    back = gptkit.import_model(out, tmp_path / "back", tokenizer="byte")
    own, again = gptkit.load(run).model.eval(), back.model.eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(own(ids).logits, again(ids).logits, atol=1e-5, rtol=1e-5)
    drift = measure_drift(run, out, n_tokens=40)
    assert drift.first is None
    assert max(reading.distance for reading in drift.readings) < 1e-5
    assert {"embedding", "blocks.0", "logits"} <= {reading.part for reading in drift.readings}


def test_drift_names_the_part_and_the_tensors_that_differ(tmp_path: Path) -> None:
    run, out, _ = made(tmp_path, "interface")
    tensors = load_file(out / "model.safetensors")
    tensors["model.blocks.1.attention.k.weight"] = tensors["model.blocks.1.attention.k.weight"] + 0.1
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    drift = measure_drift(run, out)
    assert drift.first is not None
    assert drift.first.part == "blocks.1.attention"
    assert drift.tensors == ("blocks.1.attention.qkv.weight",)
    result = CliRunner().invoke(app, ["drift", str(run), "--against", str(out)])
    assert result.exit_code == 1
    assert "blocks.1.attention" in result.stdout


def test_neither_import_nor_drift_executes_or_requires_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, out, _ = made(tmp_path, "interface")
    for file in out.glob("*.py"):
        file.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nraise SystemExit(7)\n")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert measure_drift(run, out).first is None
    gptkit.import_model(out, tmp_path / "back", tokenizer="byte")
    assert not (tmp_path / "executed").exists()


def changed(out: Path, tmp_path: Path, **values: Any) -> Path:
    """Return a copy of an export with other values in config.json; None removes a key."""
    shutil.copytree(out, tmp_path / "changed")
    config = json.loads((out / "config.json").read_text())
    config = {key: value for key, value in {**config, **values}.items() if value is not None}
    (tmp_path / "changed" / "config.json").write_text(json.dumps(config))
    return tmp_path / "changed"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gptkit_model": None}, "has no 'gptkit_model', the spec of a model whose code gptkit generated"),
        ({"gptkit_model": [1]}, "has no 'gptkit_model'"),
        ({"gptkit_model": {"norm": "no-such-norm"}}, "describes a model that cannot be built"),
        ({"gptkit_model": {"n_layers": 1, "d_model": 32}}, "tensors are missing|does not describe"),
        ({"vocab_size": 10**12}, "vocab_size"),
    ],
)
def test_damaged_descriptions_are_refused_with_the_reason(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    _, out, _ = made(tmp_path, "interface")
    with pytest.raises(ExternalModelError, match=message):
        gptkit.import_model(changed(out, tmp_path, **values), tmp_path / "back", tokenizer="byte")
    assert not (tmp_path / "back").exists()


@pytest.mark.slow
def test_weights_that_transformers_saved_are_imported(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    run, *_ = made(tmp_path, "tied")
    run_code(SAVED, tmp_path)
    back = gptkit.import_model(tmp_path / "tuned", tmp_path / "back", tokenizer="byte").model.eval()
    with torch.no_grad():
        logits = back(torch.arange(20)[None]).logits
    torch.testing.assert_close(logits, torch.load(tmp_path / "logits", weights_only=True), atol=1e-5, rtol=1e-5)
    assert measure_drift(run, tmp_path / "tuned").tensors == ("blocks.0.attention.qkv.weight",)


def test_code_that_declares_other_tensors_is_reported_by_drift_and_not_executed(tmp_path: Path) -> None:
    run, out, result = made(tmp_path, "experts")
    assert any("checked: the code declares the " in str(remark) for remark in result.remarks)
    assert "the code was not executed" in measure_drift(run, out).remark
    modeling = out / "modeling_gptkit.py"
    source = modeling.read_text()
    assert "self.down = nn.ParameterDict(" in source
    modeling.write_text(source.replace("self.down = nn.ParameterDict(", "self.lower = nn.ParameterDict("))
    with pytest.raises(ExternalModelError, match=r"do not fit: the files do not have .*experts\.lower\.weight"):
        measure_drift(run, out)
    refused = CliRunner().invoke(app, ["drift", str(run), "--against", str(out)])
    assert refused.exit_code == 2
    modeling.write_text(source.replace("N_EXPERTS, D_MODEL, D_EXPERT", "N_EXPERTS, D_MODEL, D_EXPERT + 1"))
    with pytest.raises(ExternalModelError, match=r"down\.weight is \[.*\] in the code and \[.*\] in the files"):
        measure_drift(run, out)


def test_code_that_does_not_declare_the_weights_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", {**BASE, **COMPOSITIONS["experts"]})
    monkeypatch.setattr(dense, "_CLASS", dense._CLASS.replace("self.down =", "self.lower ="))
    with pytest.raises(ExternalModelError, match=r"modeling_gptkit\.py: the code and the weights do not fit"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
