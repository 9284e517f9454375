"""Options of `gptkit compare` beside an experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptkit.core.errors import GptkitError
from gptkit.experiments.request import ComparisonSpec
from tests.support.command_line import Call, write_project

FILE = """
base: mini.yaml
vary:
  model.norm: [rms, layer]
  model.position: [none, alibi]
set: {training.steps: 3, training.batch_size: 2}
seeds: 2
"""


@pytest.fixture
def requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ComparisonSpec]:
    """The requests of the commands, in place of their trainings."""
    write_project(tmp_path)
    (tmp_path / "experiment.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    result: list[ComparisonSpec] = []

    def run_request(request: ComparisonSpec, *_: Any, **__: Any) -> None:
        result.append(request)
        raise GptkitError("requested")

    monkeypatch.setattr("gptkit.experiments.comparison.run_request", run_request)
    return result


def _requested(call: Call, requests: list[ComparisonSpec], *arguments: str) -> ComparisonSpec:
    assert "requested" in call("compare", "experiment.yaml", *arguments, "-o", "out", code=2).stderr
    return requests[-1]


def test_fields_of_the_command_line_are_added_to_those_of_the_file(call: Call, requests: list[ComparisonSpec]) -> None:
    request = _requested(call, requests, "--vary", "model.feedforward=gated,mlp", "--set", "training.seed=1")
    assert list(request.vary) == ["model.norm", "model.position", "model.feedforward"]
    assert request.set == {"training.steps": 3, "training.batch_size": 2, "training.seed": 1}


def test_values_of_the_command_line_replace_those_of_the_same_field(call: Call, requests: list[ComparisonSpec]) -> None:
    request = _requested(call, requests, "--vary", "model.norm=rms,none", "--set", "training.steps=5", "--seeds", "4")
    assert request.vary == {"model.norm": ("rms", "none"), "model.position": ("none", "alibi")}
    assert request.set == {"training.steps": 5, "training.batch_size": 2}
    assert request.seeds == 4
