"""Files that the engine writes: rounding of the weights in them, reuse, and their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gptkit_llamacpp.quantization import elements
from llamacpp_runs import context, finished, opened, request
from torch import Tensor

import gptkit
from gptkit.engines.native import NativeSpec


def test_files_are_reused_and_bounded(run: gptkit.Run, tmp_path: Path) -> None:
    notes = tmp_path / "notes.gguf"
    notes.write_bytes(b"GGUF of the user")
    for element in ("f32", "f16", "bf16", "q8_0", "q4_0"):
        with opened(run, type=element, directory=str(tmp_path), keep=2) as engine:
            assert finished(engine, request(run))[0].n_generated == 12
    files = sorted(tmp_path.glob("gptkit-*.gguf"), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 2
    assert notes.exists()
    assert files[1].stat().st_size < files[0].stat().st_size
    written = files[1].stat().st_ino
    with opened(run, type="q4_0", directory=str(tmp_path), keep=2):
        assert files[1].stat().st_ino == written


def decoded(packed: Tensor, type: str, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the weights of packed blocks of 32, and the step d of each weight's block.

    q8_0: d (f16), 32 × int8, w = d · q; q4_0: d (f16), 16 bytes, low halves first, w = d · (q - 8).
    """
    blocks = packed.view(-1, {"q8_0": 34, "q4_0": 18}[type])
    steps = blocks[:, :2].clone().view(torch.float16).float()
    data = blocks[:, 2:]
    if type == "q8_0":
        numbers = data.clone().view(torch.int8).float()
    else:
        numbers = torch.cat((data & 15, data >> 4), dim=1).float() - 8
    return (numbers * steps).view(shape), steps.expand_as(numbers).reshape(shape).abs()


@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_no_weight_differs_by_more_than_its_rounding(type: str) -> None:
    """q8_0 rounds to the nearest step. q4_0 has the numbers -8 … 7, d = w / -8 of the largest |w|, so that a weight of the
    opposite sign is cut off at 7 steps: at most one step. The step itself is rounded to f16: 2^-11 of the value."""
    weights = torch.randn(48, 96, generator=torch.Generator().manual_seed(3))
    element = elements(type)("blk.0.ffn_up.weight", tuple(weights.shape))
    values, steps = decoded(element.pack(weights), type, weights.shape)
    bound = steps * (0.5 if type == "q8_0" else 1.0) + weights.abs() * 2**-11 + 1e-7
    assert bool(((values - weights).abs() <= bound).all())
    assert float((values - weights).abs().max()) > 0.3 * float(steps.min())


@pytest.mark.parametrize(("type", "bound"), [("f16", 0.02), ("q8_0", 0.1), ("q4_0", 0.2)])
def test_scores_equal_those_of_the_quantized_weights(run: gptkit.Run, type: str, bound: float) -> None:
    """No score differs by more than rounding from that of a model with the weights as they are stored. llama.cpp also
    quantizes activations, to 8 bits in blocks of 32: each differs by up to 2^-8 of the block's largest, so that a product
    of n terms has a standard deviation of about 2^-8 · |w| · max|x| · (n / 3)^½, 0.02 to 0.04 in each of 14 products."""
    rounded = gptkit.load(run.directory, device="cpu")
    with torch.no_grad():
        for name, parameter in rounded.model.named_parameters():
            if parameter.dim() < 2:
                continue
            if type == "f16":
                parameter.copy_(parameter.half().float())
            else:
                own = "q8_0" if name.startswith(("embedding.", "head.")) else type
                packed = elements(own)("blk.0.ffn_up.weight", tuple(parameter.shape)).pack(parameter.data)
                parameter.copy_(decoded(packed, own, parameter.shape)[0])
    ids = run.tokenizer.encode("The quick brown fox")
    expected = NativeSpec().build(context(rounded)).score(ids)
    with opened(run, type=type) as engine:
        scores = engine.score(ids)
    for score, other in zip(scores, expected, strict=True):
        assert score.log_probability == pytest.approx(other.log_probability, abs=bound)


def test_later_starts_do_not_read_the_weights(run: gptkit.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(run, directory=str(tmp_path)):
        pass
    (file,) = tmp_path.glob("*.gguf")
    written = file.stat().st_ino

    def refuse(*_: Any) -> Any:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr("gptkit.engines.exports.TokenRows.get", refuse)
    with opened(run, directory=str(tmp_path)) as engine:
        assert finished(engine, request(run))[0].n_generated == 12
    assert file.stat().st_ino == written
    other = run.directory.parent / "other"
    with torch.no_grad():
        changed = gptkit.load(run.directory, device="cpu")
        next(changed.model.parameters()).add_(0.5)
        changed.save(other)
    monkeypatch.undo()
    with opened(gptkit.load(other, device="cpu"), directory=str(tmp_path)):
        pass
    assert len(list(tmp_path.glob("*.gguf"))) == 2
