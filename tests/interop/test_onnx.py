"""Format `onnx`: ONNX Runtime alone computes the logits of the full forward pass, and generates the same tokens."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.components.feedforward.modules.gated import Gated
from gptkit.core.errors import ExternalModelError, RequirementError
from gptkit.interop.formats.onnx.decoder import PastDecoder, _PastState
from gptkit.interop.formats.onnx.format import OnnxFormat
from gptkit.interop.formats.onnx.operators import solve_unit_lower
from gptkit.model.gpt import GPT
from tests.support.model_tensors import randomized
from tests.support.onnx_program import decode_alone, run_alone
from tests.support.presets import small_preset
from tests.support.programs import (
    check_detection,
    check_length_dependent_positions_are_refused,
    check_option_is_refused,
    check_program_is_kept_and_not_read,
    invoke,
    native,
    small,
    texts_and_calls,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

PRESETS = ["gemma3-1b", "lfm2-1.2b", "recurrentgemma-2b"]
AT_NIGHT = [
    *("mixtral-8x7b", "gpt-oss-20b", "deepseek-v3.2", "qwen3-next-80b-a3b", "xlstm-7b", "jamba-v0.1", "minimax-m3"),
    "rwkv-4-169m",
]
"""Presets whose parts the others have, too, or which the tests of the other format of programs export."""
RECURRENT = {"name": "gated-delta", "d_key": 8, "d_value": 8}


@torch.no_grad()
def greedy(model: GPT, ids: torch.Tensor, count: int) -> list[int]:
    length = ids.shape[1]
    for _ in range(count):
        ids = torch.cat((ids, model(ids).logits[:, -1:].argmax(-1)), 1)
    return ids[0, length:].tolist()


@torch.no_grad()
@pytest.mark.parametrize(
    ("preset", "single"),
    [
        pytest.param("gpt2", True, marks=pytest.mark.slow),
        *(pytest.param(preset, False, marks=pytest.mark.slow) for preset in PRESETS),
        *(pytest.param(preset, False, marks=pytest.mark.nightly) for preset in AT_NIGHT),
    ],
)
def test_onnx_runtime_alone_equals_presets(preset: str, single: bool, tmp_path: Path) -> None:
    model = randomized(small_preset(preset, each=1))
    path = tmp_path / "model.onnx"
    remarks = OnnxFormat(tokens=1 if single else None).write(native(model), path)
    assert any("calls of one token" in remark for remark in remarks) == single
    texts, calls = texts_and_calls(single=single)
    for ids, (logits, tokens) in zip(texts, decode_alone(path, texts, calls, tmp_path, 12), strict=True):
        torch.testing.assert_close(logits, model(ids).logits, atol=1e-4, rtol=1e-5)
        assert tokens == greedy(model, ids, 12)


@pytest.mark.slow
@torch.no_grad()
def test_cli_exports_a_checked_file(tiny_run: Path, tmp_path: Path) -> None:
    code, output = invoke("export", str(tiny_run), "tiny.onnx")
    assert code == 0, output
    assert "exported to tiny.onnx" in output
    assert "wrote an ONNX model for texts of up to 64 tokens, calls of 1 to 64 tokens" in output
    assert "ONNX Runtime loaded the file" in output
    assert "largest logit difference" in output
    assert "KL divergence" in output
    assert "not compared" not in output

    file = onnx.load(tmp_path / "tiny.onnx")
    onnx.checker.check_model(file)
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    about = json.loads(metadata["gptkit"])
    assert (about["context_length"], about["tokens"], about["dtype"]) == (64, 64, "float32")
    assert about["tokenizer"]["model"]["vocab"]
    dims = {each.name: each.type.tensor_type.shape.dim for each in file.graph.input}
    inputs = {name: [size.dim_param or size.dim_value for size in sizes] for name, sizes in dims.items()}
    past = [1, 2, "past", 16]
    assert inputs == {"input_ids": [1, "tokens"], "position": [], "past.0.0": past, "past.0.1": past}
    assert [each.name for each in file.graph.output] == ["logits", "present.0.0", "present.0.1"]
    # No paths and source lines of this machine.
    assert str(Path(gptkit.__file__).parent).encode() not in (tmp_path / "tiny.onnx").read_bytes()

    model = gptkit.load(tiny_run).model.eval()
    ids = torch.randint(model.vocab_size, (1, 64), generator=torch.Generator().manual_seed(0))
    texts, calls = [ids, ids[:, :5], ids[:, :7]], [[64], [1] * 5, [3, 3, 1]]
    for text, logits in zip(texts, run_alone(tmp_path / "tiny.onnx", texts, calls, tmp_path), strict=True):
        torch.testing.assert_close(logits, model(text).logits, atol=1e-4, rtol=1e-5)

    check_program_is_kept_and_not_read(tiny_run, tmp_path / "tiny.onnx", "an ONNX model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "tokens=0"], "format.tokens: must be at least 1, got 0"),
        (["--set", "tokens=65"], "tokens=65 exceeds the model's context length of 64"),
        (["--set", "rows=2"], "rows"),
        (["--family", "llama"], "a program has no model family"),
    ],
)
def test_options_are_refused(options: list[str], message: str, tiny_run: Path) -> None:
    check_option_is_refused(tiny_run, OnnxFormat(), options, message)


def test_a_missing_package_is_named(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(RequirementError, match="requires onnxscript, which is not installed") as caught:
        gptkit.export_model(tiny_run, tmp_path / "tiny.onnx")
    assert "gptkit[onnx]" in str(caught.value.hint)
    assert not list(tmp_path.glob("*.onnx"))


def test_positions_that_depend_on_the_length_are_refused(tmp_path: Path) -> None:
    check_length_dependent_positions_are_refused(OnnxFormat(), tmp_path / "model.onnx")


def test_models_that_exceed_one_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptkit.interop.formats.onnx.writing._MOST_BYTES", 1000)
    with pytest.raises(ExternalModelError, match=r"limited to 1\.6 GB") as caught:
        OnnxFormat().write(native(small()), tmp_path / "model.onnx")
    assert "torch-export" in str(caught.value.hint)


@pytest.mark.slow
def test_an_operator_that_onnx_does_not_have_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Gated.forward
    monkeypatch.setattr(Gated, "forward", lambda self, *inputs: torch.cummax(original(self, *inputs), -1).values)
    with pytest.raises(ExternalModelError, match=r"blocks\.0.* calls the operator aten\.cummax\.default"):
        OnnxFormat(tokens=1).write(native(small()), tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_file_whose_cache_is_wrong_is_discarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = _PastState.append

    def loses_the_past(self: _PastState, *new: torch.Tensor) -> Any:
        self.buffers = [torch.zeros_like(buffer) for buffer in self.buffers]
        return append(self, *new)

    monkeypatch.setattr(_PastState, "append", loses_the_past)
    with pytest.raises(ExternalModelError, match="the logits of the written program differ"):
        OnnxFormat().write(native(small()), tmp_path / "model.onnx")


def test_detection_does_not_load_files(tmp_path: Path) -> None:
    files = {"a.onnx": (b"\x08\x0a", 1), "b.onnx": (b"PK", 0.5), "c.bin": (b"\x08", 0)}
    check_detection(OnnxFormat(), files, tmp_path, "writes but does not read")


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_triangular_systems_are_solved_by_products(size: int) -> None:
    generator = torch.Generator().manual_seed(3)
    a, b = torch.rand(2, 3, size, size, generator=generator), torch.randn(2, 3, size, 5, generator=generator)
    result = solve_unit_lower(a * 0.3, b, upper=False, unitriangular=True)
    expected = torch.linalg.solve_triangular((a * 0.3).double(), b.double(), upper=False, unitriangular=True)
    torch.testing.assert_close(result, expected.float(), atol=1e-4, rtol=1e-4)
    with pytest.raises(ExternalModelError, match="only lower ones"):
        solve_unit_lower(a, b, upper=True, unitriangular=True)


@torch.no_grad()
@pytest.mark.parametrize("change", [{}, {"attention": RECURRENT, "position": "none"}])
def test_decoder_passes_its_cache(change: dict[str, Any]) -> None:
    model = small(**change)
    decoder = PastDecoder(model)
    ids = torch.arange(9)[None]
    past = [piece.empty() for piece in decoder.pieces]
    parts, position = [], 0
    for n in (5, 1, 3):
        logits, *past = decoder(ids[:, position : position + n], torch.tensor(position), past)
        parts.append(logits)
        position += n
    torch.testing.assert_close(torch.cat(parts, 1), model(ids).logits, atol=1e-5, rtol=1e-5)
    assert [list(tensor.shape) for tensor in past] == [
        [9 if size is None else size for size in piece.shape] for piece in decoder.pieces
    ]
