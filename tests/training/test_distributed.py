"""Ten steps of two gloo processes equal those of one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import gptkit
from tests.support.distributed_runs import CASES, TEXT
from tests.support.processes import ROOT, launch

SCRIPT = ROOT / "tests" / "support" / "distributed_runs.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs torch with gloo"),
]


def launch_silently(*arguments: str) -> None:
    printed = launch(*arguments)
    assert "Warning" not in printed, printed[-3000:]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("distributed")
    (directory / "corpus.txt").write_text(TEXT, encoding="utf-8")
    launch_silently(str(SCRIPT), str(directory), *CASES)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    launch_silently(*torchrun, str(SCRIPT), str(directory), *CASES)
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


def test_run_of_two_processes_is_exported(directory: Path, tmp_path: Path) -> None:
    one, two = (gptkit.export_model(directory / f"exported-{count}", tmp_path / str(count)) for count in (1, 2))
    tensors, same = (load_file(path / "model.safetensors") for path in (one, two))
    assert tensors.keys() == same.keys()
    assert all(torch.allclose(tensor, same[name], atol=1e-5) for name, tensor in tensors.items())
    assert (one / "config.json").read_text() == (two / "config.json").read_text()
