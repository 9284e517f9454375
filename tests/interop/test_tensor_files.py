"""Tensors read without a mapping equal those that the safetensors library reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptkit.checkpoint import reader
from gptkit.checkpoint.reader import TensorReader
from gptkit.core.errors import ExternalModelError
from gptkit.interop.tensor_files import TensorFiles


def test_tensors_equal_those_of_the_library(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    floats = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
    whole = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    tensors = {str(dtype): torch.arange(6).view(2, 3).to(dtype) for dtype in (*floats, *whole)}
    tensors |= {"scalar": torch.tensor(3.0), "empty": torch.empty(0, 4)}
    save_file(tensors, file, metadata={"format": "pt"})
    opened, stored = TensorReader(file), load_file(file)
    assert set(opened.tensors) == set(stored)
    for name, tensor in stored.items():
        result = opened.get(name)
        assert (result.dtype, result.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(result.view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8))


def test_tensors_are_converted_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_PART", 7)
    tensor = torch.randn(5, 9, dtype=torch.bfloat16)
    save_file({"first": torch.zeros(3), "second": tensor}, tmp_path / "model.safetensors")
    assert torch.equal(TensorReader(tmp_path / "model.safetensors").get("second", torch.float32), tensor.float())


def test_file_that_shrinks_after_it_was_opened_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(64, 64)}, file)
    files = TensorFiles(file)
    with file.open("r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(ExternalModelError, match=r"model\.safetensors is damaged: the file ends in weight"):
        files.get("weight")
