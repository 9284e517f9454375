"""Format `torch-export`: programs that torch runs without gptkit, compared with the full forward pass of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gptkit
from gptkit.components.feedforward.modules.gated import Gated
from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.torch_export.decoder import Decoder
from gptkit.interop.formats.torch_export.format import TorchExportFormat
from gptkit.interop.formats.torch_export.writing import METADATA
from gptkit.nn.cache.static import StaticState
from tests.support.exported_program import run_alone
from tests.support.model_tensors import randomized
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

PRESETS = ["gpt2", "deepseek-v3.2", "gpt-oss-20b", "qwen3-next-80b-a3b"]
AT_NIGHT = [
    *("modern", "qwen3-0.6b", "mixtral-8x7b", "gemma3-1b", "deepseek-v3", "lfm2-1.2b", "bamba-9b", "kimi-linear-48b"),
    *("minimax-text-01", "jamba-v0.1", "rwkv-4-169m", "falcon-h1-0.5b", "llama4-scout", "xlstm-7b"),
]
"""Presets whose parts the others have, too, or with which the tests of the other format of programs begin."""


@torch.no_grad()
@pytest.mark.parametrize(
    "preset",
    [
        *(pytest.param(preset, marks=pytest.mark.slow) for preset in PRESETS),
        *(pytest.param(preset, marks=pytest.mark.nightly) for preset in AT_NIGHT),
    ],
)
def test_torch_alone_computes_the_logits_of_presets(preset: str, tmp_path: Path) -> None:
    model = randomized(small_preset(preset, each=1))
    path = tmp_path / "model.pt2"
    remarks = TorchExportFormat(capacity=96).write(native(model), path)
    assert not any("calls of one token" in remark for remark in remarks)
    texts, calls = texts_and_calls(single=False)
    for ids, logits in zip(texts, run_alone(path, texts, calls, tmp_path), strict=True):
        torch.testing.assert_close(logits, model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_cli_exports_a_program_for_torch_alone(tiny_run: Path, tmp_path: Path) -> None:
    code, output = invoke("export", str(tiny_run), "tiny.pt2", "--set", "capacity=32")
    assert code == 0, output
    assert "exported to tiny.pt2" in output
    assert "wrote a program for texts of up to 32 tokens, calls of 1 to 32 tokens" in output
    assert "the file was loaded again" in output
    assert "largest logit difference" in output
    assert "not compared" not in output
    extra = {METADATA: ""}
    torch.export.load(tmp_path / "tiny.pt2", extra_files=extra)
    metadata = json.loads(extra[METADATA])
    assert (metadata["capacity"], metadata["tokens"], metadata["dtype"]) == (32, 32, "float32")
    assert metadata["tokenizer"]["model"]["vocab"]

    model = gptkit.load(tiny_run).model.eval()
    ids = torch.randint(model.vocab_size, (1, 32), generator=torch.Generator().manual_seed(0))
    texts, calls = [ids, ids[:, :5], ids[:, :7]], [[32], [1] * 5, [3, 3, 1]]
    for text, logits in zip(texts, run_alone(tmp_path / "tiny.pt2", texts, calls, tmp_path), strict=True):
        torch.testing.assert_close(logits, model(text).logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(AssertionError):  # more tokens than the capacity
        run_alone(tmp_path / "tiny.pt2", [torch.cat((ids, ids), 1)], [[32, 1]], tmp_path)

    check_program_is_kept_and_not_read(tiny_run, tmp_path / "tiny.pt2", "a program of torch.export")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "capacity=0"], "format.capacity: must be at least 1, got 0"),
        (["--set", "capacity=65"], "capacity=65 exceeds the model's context length of 64"),
        (["--set", "capacity=8", "--set", "tokens=9"], "tokens=9 exceeds the capacity of 8"),
        (["--set", "rows=2"], "rows"),
        (["--family", "llama"], "a program has no model family"),
    ],
)
def test_options_are_refused(options: list[str], message: str, tiny_run: Path) -> None:
    check_option_is_refused(tiny_run, TorchExportFormat(), options, message)


def test_positions_that_depend_on_the_length_are_refused(tmp_path: Path) -> None:
    check_length_dependent_positions_are_refused(TorchExportFormat(), tmp_path / "model.pt2")


def test_an_operator_that_torch_does_not_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @torch.library.custom_op("third_party_test::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @double.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    original = Gated.forward
    monkeypatch.setattr(Gated, "forward", lambda self, *inputs: double(original(self, *inputs)))
    with pytest.raises(ExternalModelError, match=r"blocks\.0.* calls the operator third_party_test\.double") as caught:
        TorchExportFormat(capacity=8).write(native(small()), tmp_path / "model.pt2")
    assert "is_exporting" in str(caught.value.hint)


@pytest.mark.slow
@torch.no_grad()
def test_a_layer_that_reads_the_number_of_tokens_takes_one_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Gated.forward

    def split(self: Gated, x_BTE: torch.Tensor, *rest: Any) -> torch.Tensor:
        return torch.cat([original(self, x_BTE[:, index : index + 1], *rest) for index in range(x_BTE.shape[1])], 1)

    monkeypatch.setattr(Gated, "forward", split)
    model, path = small(), tmp_path / "model.pt2"
    remarks = TorchExportFormat(capacity=32).write(native(model), path)
    assert "calls of one token" in remarks[0]
    assert "calls of several tokens could not be traced: a component uses the number of tokens" in remarks[1]
    assert "as a fixed number, which a loop over tokens does" in remarks[1]
    texts, calls = texts_and_calls(single=True)
    for ids, logits in zip(texts, run_alone(path, texts, calls, tmp_path), strict=True):
        torch.testing.assert_close(logits, model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_refusal_names_the_layer_and_another_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reads_a_value(self: Gated, x_BTE: torch.Tensor, *_: Any) -> torch.Tensor:
        return x_BTE * float(x_BTE.sum())

    monkeypatch.setattr(Gated, "forward", reads_a_value)
    with pytest.raises(ExternalModelError, match=r"cannot be traced: .*blocks\.0\.\S+ \(Gated\)") as caught:
        TorchExportFormat(capacity=8).write(native(small()), tmp_path / "model.pt2")
    assert "gptkit eject" in str(caught.value.hint)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", ["keys are not stored", "the state of the previous text stays"])
def test_a_program_whose_cache_is_wrong_is_discarded(mutant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    if mutant == "keys are not stored":
        append = StaticState.append

        def stores_elsewhere(self: StaticState, *new: torch.Tensor) -> Any:
            self.buffers = [buffer.clone() for buffer in self.buffers]
            return append(self, *new)

        monkeypatch.setattr(StaticState, "append", stores_elsewhere)
    else:
        attention = {"name": "gated-delta", "d_key": 8, "d_value": 8}
        model = small(attention=attention, position="none")
        monkeypatch.setattr(torch, "where", lambda _condition, _zeros, kept: kept)
    with pytest.raises(ExternalModelError, match="the logits of the written program differ"):
        TorchExportFormat(capacity=16).write(native(model), tmp_path / "model.pt2")


def test_detection_does_not_load_files(tmp_path: Path) -> None:
    files = {"a.pt2": (b"PK\x03\x04rest", 1), "b.pt2": (b"\x80\x02", 0.5), "c.pt": (b"PK\x03\x04", 0)}
    check_detection(TorchExportFormat(), files, tmp_path, "executes what the file contains")


@torch.no_grad()
def test_decoder_keeps_its_cache_in_buffers() -> None:
    decoder = Decoder(small(), 16)
    assert isinstance(decoder, nn.Module)
    names = [name for name, _ in decoder.named_buffers() if name.startswith("cache_")]
    assert names == ["cache_0_0", "cache_0_1"]
    ids = torch.arange(6)[None]
    decoder(ids, torch.tensor(0))
    assert all(bool(getattr(decoder, name)[:, :, :6].any()) for name in names)
    assert not any(bool(getattr(decoder, name)[:, :, 6:].any()) for name in names)
