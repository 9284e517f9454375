"""The report that `gptkit compare` writes, and the experiment files of the project."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gptkit.core.registry import default_registry
from gptkit.experiments.planning import Planned
from gptkit.experiments.request import read_request
from gptkit.experiments.results import Trial, write_trial
from gptkit.experiments.running import Progress
from gptkit.experiments.variants import draft_variants
from tests.support.command_line import Call, write_project

EFFECTS = Path(__file__).parents[2] / "benchmarks" / "effects"
FILES = sorted(path for path in EFFECTS.glob("*.yaml") if path.stem != "base")


def test_report_is_written_and_its_verdicts_printed(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_trials(
        planned: Planned, directory: Path, trials: Sequence[Trial], jobs: int, report: Callable[[Progress], None]
    ) -> None:
        for trial in trials:
            norm = planned.experiment.variant(trial.variant).choices["model.norm"]
            loss = 3 + 0.1 * trial.seed + (0.2 + 0.001 * trial.seed if norm == "layer" else 0)
            write_trial(Trial(trial.variant, trial.seed, "finished", validation_loss=loss, tokens=96), directory)

    monkeypatch.setattr("gptkit.experiments.comparison.run_trials", run_trials)
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = call("compare", "mini.yaml", "--vary", "model.norm=rms,layer", "-o", "norms")
    assert "model.norm = layer is worse than rms: validation loss +0.2010" in result.stdout
    assert "report: norms/report.html" in result.stderr
    assert result.stdout.splitlines()[0].split()[:6] == ["norm", "loss", "±", "95%", "interval", "bits/byte"]
    assert "base" in next(line for line in result.stdout.splitlines() if line.startswith("rms ")).split()
    text = (tmp_path / "norms" / "report.md").read_text(encoding="utf-8")
    assert "gptkit compare mini.yaml --vary model.norm=rms,layer --seeds 3 -o norms" in text
    # Terminal and report show the same numbers, and name what ± is.
    assert "| variant | validation loss ± 95% interval |" in text
    (shown,) = re.findall(r"rms +base +(\S+ ± \S+)", result.stdout)
    assert f"| norm=rms (base) | {shown} |" in text
    # The difference between the specs is that of the validated specs: a component without its defaults.
    assert "| norm=layer | model.norm | rms | layer |" in text


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_experiment_files_are_valid(path: Path) -> None:
    if path.stem == "value-embeddings" and "value-embedding" not in default_registry().names("attention"):
        pytest.skip("gptkit-research is not installed")
    request = read_request(path)
    drafts = draft_variants(request)
    assert request.question
    assert len(drafts.variants) >= 2
    assert not drafts.invalid
    assert f"| `{path.stem}` |" in (EFFECTS / "README.md").read_text(encoding="utf-8")
