"""Two and four gloo processes reproduce the losses of one process, and continue one another's checkpoints."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import gptkit
from tests.support.parallel_layouts import STEPS, TEXT
from tests.support.processes import ROOT, launch

SCRIPT = str(ROOT / "tests" / "support" / "parallel_layouts.py")
TWO = ("data=2", "shard=2", "tensor=2")
FOUR = ("data=4", "shard=4", "data=2,shard=2", "data=2,tensor=2", "shard=2,tensor=2")
FROM = ("one", *TWO)
"""Runs of which one process and four processes continue copies."""

REPLICAS = "data=2,shard=2"
"""A layout of four processes that one and two continue."""

ON_FOUR = ("shard=4", "data=2,tensor=2", "shard=2,tensor=2")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs torch with gloo"),
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs forks"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("layouts")
    (directory / "corpus.txt").write_text(TEXT, encoding="utf-8")
    continued = [f"resume:{layout}:{source}" for layout in ON_FOUR for source in TWO]
    on_one, on_two = [f"resume::{source}" for source in (*FROM, REPLICAS)], [f"resume:{layout}:{REPLICAS}" for layout in TWO]
    four = [*FOUR, *continued, f"resume:{REPLICAS}:{REPLICAS}"]
    launch(SCRIPT, str(directory), "1", "one", "2", *TWO, "4", *four, "2", *on_two, "1", *on_one)
    return directory


def rows(directory: Path, name: str) -> list[dict[str, Any]]:
    lines = (directory / name / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "tokens_per_second"} for line in lines]


@pytest.mark.parametrize("layout", [*TWO, *FOUR])
def test_layout_reproduces_the_losses_of_one_process(directory: Path, layout: str) -> None:
    one, other = rows(directory, "one"), rows(directory, layout)
    assert len(one) == len(other) == STEPS + 1
    for row, same in zip(one, other, strict=True):
        # Perplexities, above 50, are compared relatively.
        assert row == pytest.approx(same, abs=1e-5, rel=1e-6)
    assert one[-1]["loss"] < one[1]["loss"] - 1


@pytest.mark.parametrize("layout", [*TWO, *FOUR])
def test_checkpoint_has_the_tensors_of_one_process(directory: Path, layout: str) -> None:
    name = f"checkpoints/step-{STEPS:08d}"
    files = sorted((directory / "one" / name).glob("*.safetensors"))
    assert len(files) == 4
    for file in files:
        one, other = load_file(file), load_file(directory / layout / name / file.name)
        assert one.keys() == other.keys()
        for key, tensor in one.items():
            # The second moments of a gradient near zero amplify rounding.
            assert torch.allclose(tensor, other[key], atol=1e-4), f"{file.name}: {key}"


@pytest.mark.parametrize("layout", ["one", *ON_FOUR])
@pytest.mark.parametrize("source", TWO)
def test_checkpoint_continues_on_other_processes(directory: Path, layout: str, source: str) -> None:
    # The step after the checkpoint of two processes, on one and on four.
    expected = rows(directory, f"{source}-on-one")[-1]
    actual = rows(directory, f"{source}-on-{layout}")[-1]
    assert actual["step"] == STEPS + 1
    assert actual["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    assert actual["loss"] == pytest.approx(rows(directory, "one-on-one")[-1]["loss"], abs=1e-5)


@pytest.mark.parametrize("layout", ["one", *TWO])
def test_checkpoint_of_sharded_replicas_continues_on_fewer_processes(directory: Path, layout: str) -> None:
    expected = rows(directory, f"{REPLICAS}-on-{REPLICAS}")[-1]
    actual = rows(directory, f"{REPLICAS}-on-{layout}")[-1]
    assert actual["step"] == STEPS + 1
    assert actual["loss"] == pytest.approx(expected["loss"], abs=1e-6)


@pytest.mark.parametrize("layout", [*TWO, *FOUR])
def test_run_of_several_processes_generates_as_that_of_one(directory: Path, layout: str) -> None:
    one, other = gptkit.load(directory / "one"), gptkit.load(directory / layout)
    greedy = {"max_new_tokens": 8, "sampler": [{"name": "greedy"}]}
    assert other.generate("The quick ", **greedy) == one.generate("The quick ", **greedy)
