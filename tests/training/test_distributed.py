"""Ten steps of two gloo processes equal those of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .distributed_runs import CASES, TEXT

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("distributed_runs.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs torch with gloo"),
]


def launch(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "Warning" not in done.stderr, done.stderr[-3000:]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("distributed")
    (directory / "corpus.txt").write_text(TEXT, encoding="utf-8")
    launch(str(SCRIPT), str(directory), *CASES)
    launch("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), str(directory), *CASES)
    return directory


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(directory: Path, name: str) -> None:
    checkpoints = [directory / f"{name}-{count}" / "checkpoints" / "step-00000010" for count in (1, 2)]
    for file in checkpoints[0].glob("*.safetensors"):
        one, two = load_file(file), load_file(checkpoints[1] / file.name)
        assert one.keys() == two.keys()
        for key, tensor in one.items():
            assert torch.allclose(tensor, two[key], atol=1e-5), f"{file.name}: {key}"
    rows = [(directory / f"{name}-{count}" / "metrics.jsonl").read_text().splitlines() for count in (1, 2)]
    assert len(rows[0]) == len(rows[1]) == 11
    for one_row, two_row in zip(*rows, strict=True):
        numbers = [{k: v for k, v in json.loads(row).items() if k != "tokens_per_second"} for row in (one_row, two_row)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-5)
    assert json.loads(rows[0][-1])["loss"] < json.loads(rows[0][1])["loss"]


@pytest.mark.parametrize("name", CASES)
def test_every_process_ends_with_the_complete_model(directory: Path, name: str) -> None:
    losses = [json.loads((directory / f"losses-{file}.json").read_text())[name] for file in ("1-0", "2-0", "2-1")]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
