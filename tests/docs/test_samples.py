"""Samples of output in the handwritten pages are those that the commands print."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gptkit.cli import drift
from tests.support.command_line import caller

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_report_of_generated_code_is_that_of_an_export(tmp_path: Path) -> None:
    page = (DOCS / "generated-code.md").read_text(encoding="utf-8")
    sample = re.findall(r"```text\n(exported .*?)```", page, re.DOTALL)[0].splitlines()
    call = caller()
    changes = ["training.steps=1", "model.block=sandwich", "model.n_layers=1", "model.d_model=16", "tokenizer=byte"]
    options = [word for change in changes for word in ("-s", change)]
    call("train", "tiny", tmp_path / "run", "--quiet", *options)
    report = call("export", tmp_path / "run", tmp_path / "my", env={"COLUMNS": "1000"}).stderr.splitlines()
    assert [line.split()[:3] for line in sample[1:]] == [line.split()[:3] for line in report[1:]]


def test_code_of_a_directory_with_code_trusts_it() -> None:
    """transformers asks on the terminal otherwise."""
    page = (DOCS / "generated-code.md").read_text(encoding="utf-8")
    loads = re.findall(r"Auto\w+\.from_pretrained\(.*?\)", page)
    assert len(loads) > 2
    assert all("trust_remote_code=True" in load for load in loads)


def test_sample_of_drift_has_the_columns_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    page = (DOCS / "families.md").read_text(encoding="utf-8")
    header = page.split("$ gptkit drift")[1].splitlines()[1].split()
    reading = SimpleNamespace(part="embedding", name="token", external="", distance=0.0)
    drift._print(cast("Any", SimpleNamespace(readings=[reading], first=None, tolerance=1e-5, remark="")), every=True)
    assert capsys.readouterr().out.splitlines()[0].split() == header
