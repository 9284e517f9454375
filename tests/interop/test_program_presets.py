"""Every preset as a program: its reduced form in ONNX Runtime and in torch alone, or the refusal that the page states.

`docs/torch-export.md` and `docs/onnx.md` list the presets that are refused, and those whose calls have one token. Each
preset is compared with this list, so the pages are true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.onnx.format import OnnxFormat
from gptkit.interop.formats.torch_export.format import TorchExportFormat
from gptkit.interop.programs.format import ProgramFormat
from gptkit.model.gpt import GPT
from tests.support import exported_program, onnx_program
from tests.support.ejected import PRESETS
from tests.support.model_tensors import randomized
from tests.support.presets import DISTINCT, V, small_layout, small_preset
from tests.support.programs import assert_equal_logits, native

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"torch-export": DOCS / "torch-export.md", "onnx": DOCS / "onnx.md"}
SEVERAL, SINGLE, REFUSED = "several tokens", "one token", "refused"
N_TOKENS = 40
"""Length of a text, longer than the attention windows of reduced presets."""


@dataclass(frozen=True)
class Outcome:
    """What a page states about a preset.

    Attributes:
        calls: the largest calls of its program, or `REFUSED`.
        names: what the reason names, in code font: components and fields.
    """

    calls: str
    names: tuple[str, ...] = ()


def listed(page: Path) -> dict[str, Outcome]:
    """Return the presets in the table of a page, whose calls have one token or which are refused."""
    presets: dict[str, Outcome] = {}
    for line in page.read_text(encoding="utf-8").splitlines():
        row = re.fullmatch(rf"\| (?P<presets>`.*`) \| (?P<calls>{SINGLE}|{REFUSED}) \| (?P<reason>.*) \|", line)
        if row is not None:
            outcome = Outcome(row["calls"], tuple(re.findall(r"`([^`]+)`", row["reason"])))
            presets |= dict.fromkeys(re.findall(r"`([^`]+)`", row["presets"]), outcome)
    return presets


_done: dict[str, Outcome] = {}
"""Outcomes by format and reduced layout: presets that differ in sizes alone have one."""


@pytest.mark.nightly
@torch.no_grad()
@pytest.mark.parametrize("preset", sorted(PRESETS, key=lambda preset: preset not in DISTINCT))
@pytest.mark.parametrize("name", PAGES)
def test_programs_of_every_preset_equal_it_or_are_refused_as_listed(name: str, preset: str, tmp_path: Path) -> None:
    if name == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    stated = listed(PAGES[name]).get(preset, Outcome(SEVERAL))
    key = json.dumps([name, small_layout(preset)])
    if key not in _done:
        _done[key] = export(name, preset, tmp_path)
    done = _done[key]
    assert done.calls == stated.calls, f"{preset}: {done.calls}: {done.names}"
    for part in stated.names:
        assert any(part in text for text in done.names), f"{preset}: {part} is not in {done.names}"


def export(name: str, preset: str, directory: Path) -> Outcome:
    """Export a preset and compare its program with the model; return the calls, and the texts that give the reason."""
    model = randomized(small_preset(preset))
    program: ProgramFormat = OnnxFormat() if name == "onnx" else TorchExportFormat(capacity=96)
    path = directory / f"model{program.suffixes[0]}"
    try:
        remarks = program.write(native(model), path)
    except ExternalModelError as error:
        assert error.hint, f"{preset}: the refusal has no remedy: {error.message}"
        return Outcome(REFUSED, (error.message, error.hint))
    single = any("calls of one token" in remark for remark in remarks)
    compare(preset, model, path, single=single)
    return Outcome(SINGLE if single else SEVERAL, tuple(remarks) if single else ())


def compare(preset: str, model: GPT, path: Path, *, single: bool) -> None:
    """Compare a prompt, single tokens and further calls of two texts in a row, computed by the other program alone."""
    generator = torch.Generator().manual_seed(2)
    texts = [torch.randint(V, (1, N_TOKENS), generator=generator) for _ in range(2)]
    calls = [[1] * N_TOKENS if single else [21, 1, 1, 7, *[1] * 10]] * 2
    run = onnx_program.run_alone if path.suffix == ".onnx" else exported_program.run_alone
    results: Sequence[Tensor] = run(path, texts, calls, path.parent)
    for number, (ids, logits) in enumerate(zip(texts, results, strict=True)):
        assert_equal_logits(model, ids, logits, what=f"{preset}{path.suffix}, text {number}")


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_pages_list_presets_that_exist(page: Path) -> None:
    assert listed(page)
    assert set(listed(page)) <= set(PRESETS)
