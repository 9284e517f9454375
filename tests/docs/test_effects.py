"""Reports of the published effects in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from gptkit.docs.effects import pages

ROOT = Path(__file__).resolve().parents[2]


def test_every_experiment_has_a_report_and_the_table_leads_to_it() -> None:
    experiments = {path.stem for path in (ROOT / "benchmarks" / "effects").glob("*.yaml")} - {"base"}
    reports = pages(ROOT / "docs")
    assert set(reports) == {f"effects/{name}.html" for name in experiments}
    linked = re.findall(r"\]\((effects/[\w-]+\.html)\)", (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8"))
    assert sorted(linked) == sorted(reports)
    for path, text in reports.items():
        assert f"gptkit compare benchmarks/{Path(path).with_suffix('.yaml')}" in text
