"""`gptkit show`: tables about the training section."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gptkit
from tests.support.command_line import Call

SPEC: dict[str, Any] = {
    "tokenizer": "byte",
    "model": {"d_model": 16, "n_layers": 2, "context_length": 8, "attention": {"n_heads": 2}},
}


def test_show_lists_the_parameter_groups(call: Call, tmp_path: Path) -> None:
    groups = [{"match": ["blocks.*.attention_norm"], "weight_decay": 0.3}, {"match": "blocks.1", "rate": 0.5}]
    file = tmp_path / "spec.yaml"
    file.write_text(
        json.dumps({**SPEC, "training": {"optimizer": {"name": "adamw", "learning_rate": 0.01, "groups": groups}}})
    )
    shown = call("show", str(file)).stdout
    model = gptkit.build(SPEC)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    norms = sum(size for name, size in sizes.items() if "attention_norm" in name)
    second = sum(size for name, size in sizes.items() if name.startswith("blocks.1.") and "attention_norm" not in name)
    rows = shown[shown.index("Parameter groups") :].splitlines()
    assert [line for line in rows if "attention_norm" in line and f"{norms:,}" in line and "0.3" in line]
    assert [line for line in rows if "blocks.1" in line and f"{second:,}" in line and "0.005" in line]
    assert [line for line in rows if "others" in line and f"{sum(sizes.values()) - norms - second:,}" in line]


def test_show_has_no_table_of_groups_without_groups(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(json.dumps(SPEC))
    assert "Parameter groups" not in call("show", str(file)).stdout


def test_show_prints_the_stages_with_their_tokens(call: Call, tmp_path: Path) -> None:
    stages = [{"steps": 100, "batch_size": 2, "window": 4}, {"steps": 300, "rate": 0.5}, {"steps": 700, "batch_size": 32}]
    file = tmp_path / "spec.yaml"
    file.write_text(json.dumps({**SPEC, "training": {"steps": 500, "batch_size": 16, "stages": stages}}))
    shown = call("show", str(file)).stdout
    rows = [" ".join(line.split()) for line in shown[shown.index("Stages") :].splitlines()]
    assert "1 1 to 100 2 × 4 800" in rows
    assert "2 101 to 400 16 × 8 38,400 0.5 × learning rate" in rows
    assert "3 401 to 500 32 × 8 25,600" in rows
    assert "500 64,800" in rows
    assert "500 steps in 3 stages" in shown
    file.write_text(json.dumps({**SPEC, "training": {"steps": 400, "batch_size": 16, "stages": stages}}))
    shorter = call("show", str(file)).stdout
    assert "not reached" in shorter
