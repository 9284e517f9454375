"""Quantized blocks: those of the `gguf` package and of ggml, bit by bit where their search has no ties."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.blocks import BLOCKS
from gptkit.interop.formats.gguf.container import Element, GgufFile, Packed, Typed, write_gguf
from gptkit.interop.formats.gguf.elements import elements_of, packed
from gptkit.runs.exporting import export_model
from tests.support.gguf_models import DECODER, GROUPED, make_run
from tests.support.llama_cpp import library

gguf = pytest.importorskip("gguf")
K_QUANTS = {"q2_k": 10, "q3_k": 11, "q4_k": 12, "q5_k": 13, "q6_k": 14}


def rows() -> Tensor:
    """Return rows with ordinary, zero, constant, one-sided and extreme blocks."""
    numbers = torch.randn(24, 512, generator=torch.Generator().manual_seed(3)) * 0.1
    numbers[3] = 0
    numbers[5, :256], numbers[6, :300] = 1.0, -0.5
    numbers[7], numbers[8] = numbers[7].abs(), -numbers[8].abs()
    numbers[9] *= 1e4
    numbers[10] *= 1e-6
    numbers[11, ::31] = 3.0
    return numbers


def dequantized(data: Tensor, type: str, shape: torch.Size) -> Tensor:
    kind = gguf.GGMLQuantizationType(BLOCKS[type].number)
    return torch.from_numpy(gguf.dequantize(data.numpy().reshape(shape[0], -1), kind))


def by_ggml(numbers: Tensor, number: int, n_bytes: int) -> Tensor:
    """Return the blocks that ggml writes."""
    if not hasattr(library(), "ggml_quantize_chunk"):
        pytest.skip("this llama.cpp does not export ggml's quantization")
    chunk = library().ggml_quantize_chunk
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    chunk.argtypes, chunk.restype = [ctypes.c_int, pointer, pointer, count, count, count, pointer], ctypes.c_size_t
    out = torch.empty(n_bytes, dtype=torch.uint8)
    chunk(number, numbers.data_ptr(), out.data_ptr(), 0, numbers.shape[0], numbers.shape[1], None)
    return out


@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_blocks_equal_those_of_the_gguf_package(type: str) -> None:
    kind = gguf.GGMLQuantizationType[type.upper()]
    assert (BLOCKS[type].length, BLOCKS[type].n_bytes) == gguf.GGML_QUANT_SIZES[kind]
    result = packed(type, "blk.0.ffn_up.weight", (24, 512)).pack(rows())
    assert np.array_equal(result.numpy(), gguf.quantize(rows().numpy(), kind).reshape(-1))


@pytest.mark.parametrize(("type", "equal"), [("q4_k", 0.7), ("q6_k", 0.8)])
def test_k_quants_are_as_good_as_those_of_ggml(type: str, equal: float) -> None:
    """Blocks differ where two roundings have nearly the same error, which sums in another order."""
    numbers, blocks = rows(), BLOCKS[type]
    assert (blocks.length, blocks.n_bytes) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(blocks.number)]
    own = packed(type, "blk.0.ffn_up.weight", (24, 512)).pack(numbers)
    other = by_ggml(numbers, blocks.number, own.numel())
    same = (own.view(-1, blocks.n_bytes) == other.view(-1, blocks.n_bytes)).all(1)
    assert float(same.float().mean()) >= equal
    errors = [(dequantized(each, type, numbers.shape) - numbers).square().sum(1) for each in (own, other)]
    assert torch.all(errors[0] <= 1.1 * errors[1] + 1e-12)
    sound = errors[1] > 0
    assert float((errors[0][sound] / errors[1][sound]).mean()) < 1.01


def test_unquantizable_numbers_are_rejected() -> None:
    numbers = torch.zeros(1, 256)
    for value in (float("inf"), float("nan"), 1e9):
        numbers[0, 0] = value
        with pytest.raises(ExternalModelError, match=r"blk\.0\.ffn_up\.weight has numbers that"):
            packed("q4_k", "blk.0.ffn_up.weight", (1, 256)).pack(numbers)


def test_types_of_tensors() -> None:
    """Vectors, routers and filters in f32; the vocabulary finer; short rows in shorter blocks or f16."""
    element = elements_of("q4_k")

    def number(name: str, *shape: int) -> object:
        return getattr(element(name, shape), "type", element(name, shape))

    assert number("blk.0.ffn_up.weight", 8, 256) == 12
    assert number("token_embd.weight", 8, 256) == number("output.weight", 8, 256) == 14
    assert number("blk.0.ffn_up.weight", 8, 96) == 8
    assert number("blk.0.ffn_up.weight", 8, 40) == torch.float16
    assert number("blk.0.attn_norm.weight", 256) == torch.float32
    for name in ("blk.0.ffn_gate_inp.weight", "blk.0.ssm_conv1d.weight", "position_embd.weight", "blk.0.ffn_up_exps.bias"):
        assert number(name, 8, 256) == torch.float32


@pytest.mark.parametrize("type", K_QUANTS)
def test_k_quants_are_imported_like_the_gguf_package_reads_them(tmp_path: Path, type: str) -> None:
    """A file with tensors that ggml quantized: each equals `gguf.dequantize`, and the run computes with them."""
    attention = {**GROUPED, "d_head": 64}
    feedforward = {"name": "gated", "d_hidden": 256}
    wide = {**DECODER, "d_model": 256, "n_layers": 1, "attention": attention, "feedforward": feedforward}
    plain = export_model(make_run(tmp_path / "run", wide), tmp_path / "model.gguf")
    file = GgufFile(plain)
    kind = gguf.GGMLQuantizationType(K_QUANTS[type])
    length, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    quantized = {name: file.get(name) for name, tensor in file.tensors.items() if len(tensor.shape) == 2}
    sizes = {name: tensor.numel() // length * n_bytes for name, tensor in quantized.items()}
    data = {name: by_ggml(tensor.contiguous(), int(kind), sizes[name]) for name, tensor in quantized.items()}
    entries: dict[str, tuple[tuple[int, ...], Element]] = {
        name: (tensor.shape, existing(int(kind), data[name]) if name in data else tensor.dtype)
        for name, tensor in file.tensors.items()
    }
    write_gguf(tmp_path / "k.gguf", typed(file), entries, ((name, file.get(name)) for name in entries))
    reference = GgufFile(tmp_path / "k.gguf")
    for name, packed_data in data.items():
        expected = gguf.dequantize(packed_data.numpy().reshape(quantized[name].shape[0], -1), kind)
        assert torch.equal(reference.get(name), torch.from_numpy(expected))
    back = gptkit.import_model(tmp_path / "k.gguf", tmp_path / "back")
    table = dict(back.model.named_parameters())["embedding.table.weight"]
    assert torch.equal(table, reference.get("token_embd.weight"))


def existing(number: int, data: Tensor) -> Packed:
    """Return the element type of blocks that exist already."""
    return Packed(number, data.numel(), lambda tensor: data)


def typed(file: GgufFile) -> dict[str, Typed]:
    """Return the metadata of a file with its types."""
    lists = {int: "i32s", float: "f32s", str: "strings"}
    kinds = {int: "u32", float: "f32", bool: "bool", str: "string"}
    return {
        key: Typed(lists[type(value[0])] if value else "strings", value)
        if isinstance(value, list)
        else Typed(kinds[type(value)], value)
        for key, value in file.metadata.items()
    }
