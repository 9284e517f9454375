"""Tiny runs with random weights, for tests of GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from gptkit.checkpoint.safetensors import named_tensors
from gptkit.checkpoint.store import CheckpointStore
from gptkit.files import validate_data
from gptkit.interop.formats.gguf.container import GgufFile, Typed, write_gguf
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.runs.directory import RunDirectory
from gptkit.runs.exporting import export_model
from gptkit.runs.spec import ExperimentSpec

GROUPED = {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "d_head": 16}
DECODER: dict[str, Any] = {
    "context_length": 64,
    "d_model": 64,
    "n_layers": 3,
    "position": {"name": "rotary", "base": 5000},
    "attention": GROUPED,
    "norm": {"name": "rms", "eps": 1e-5},
    "feedforward": {"name": "gated", "d_hidden": 96},
    "head": {"name": "linear", "tied": True},
}
LLAMA3 = {
    "name": "llama3",
    "factor": 8.0,
    "low_frequency_factor": 1.0,
    "high_frequency_factor": 4.0,
    "original_context_length": 16,
}
YARN = {"name": "yarn", "factor": 4.0, "original_context_length": 16, "attention_factor": 1.138629436111989}
MODELS: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "llama, untied": {**DECODER, "head": {"name": "linear", "tied": False}},
    "llama, biased": {**DECODER, "attention": {**GROUPED, "qkv_bias": True, "output_bias": True}},
    "llama, linear": {
        **DECODER,
        "position": {"name": "rotary", "base": 5000, "scaling": {"name": "linear", "factor": 4.0}},
    },
    "llama, llama3": {**DECODER, "position": {"name": "rotary", "base": 5000, "scaling": LLAMA3}},
    "qwen2, yarn": {
        **DECODER,
        "attention": {**GROUPED, "qkv_bias": True, "output_bias": False},
        "position": {"name": "rotary", "base": 5000, "scaling": YARN},
    },
    "qwen2": {**DECODER, "attention": {**GROUPED, "qkv_bias": True, "output_bias": False}},
    "qwen3": {
        **DECODER,
        "attention": {**GROUPED, "d_head": 32, "qk_norm": {"name": "rms", "eps": 1e-5}},
    },
    "gpt2": {
        "context_length": 64,
        "d_model": 64,
        "n_layers": 3,
        "position": "learned",
        "attention": {"name": "multi-head", "n_heads": 4, "qkv_bias": True, "output_bias": True},
        "norm": {"name": "layer", "eps": 1e-5},
        "feedforward": {"name": "mlp", "d_hidden": 96, "activation": "gelu-tanh"},
        "head": {"name": "linear", "tied": True},
    },
}


def make_run(
    directory: Path,
    model: dict[str, Any],
    tokenizer: Any = "byte",
    words: Tokenizer | None = None,
    *,
    rows: int | None = None,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    train: Callable[[GPT], None] | None = None,
) -> Path:
    """Write a run in which all weights are random, including those of norms, in a dtype; `train` may change them."""
    spec = validate_data({"name": "tiny", "tokenizer": tokenizer, "model": model}, ExperimentSpec)
    words = words or spec.tokenizer.fit(iter(()))
    built = GPT(spec.model, vocab_size=rows or words.vocab_size)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            wide = 0.15 if parameter.dim() > 1 else 0.3
            parameter.copy_(
                torch.randn(parameter.shape) * wide * scale + (1 if "norm" in name and name.endswith("weight") else 0)
            )
    if train:
        train(built)
    run = RunDirectory(directory)
    run.path.mkdir(parents=True)
    run.write_spec(spec)
    run.tokenizer.mkdir()
    words.save(run.tokenizer)
    run.write_provenance(spec)
    tensors = {name: tensor.detach().to(dtype, copy=True) for name, tensor in named_tensors(built).items()}
    if spec.model.head.model_dump().get("tied"):
        tensors.pop("head.weight", None)
    CheckpointStore(run.checkpoints).adopt(lambda file: save_file(tensors, file, {"aliases": "{}"}))
    return run.path


def changed(file: Path, target: Path, **metadata: Typed | None) -> Path:
    """Write the file with other metadata, and return its path; None removes an entry."""
    result = GgufFile(file)
    lists = {int: "i32s", float: "f32s", str: "strings"}
    kinds = {int: "u32", float: "f32", bool: "bool", str: "string"}

    def typed(value: Any) -> Typed:
        if isinstance(value, list):
            return Typed(lists[type(value[0])] if value else "strings", value)
        return Typed(kinds[type(value)], value)

    whole: dict[str, Any] = {key: typed(value) for key, value in result.metadata.items()} | metadata
    entries = {name: (tensor.shape, tensor.dtype) for name, tensor in result.tensors.items()}
    tensors = ((name, result.get(name)) for name in entries)
    write_gguf(target, {key: value for key, value in whole.items() if value is not None}, entries, tensors)
    return target


def make_pieces(directory: Path, prefix: bool = True) -> Path:
    """Write a GGUF file with a vocabulary as SentencePiece's, and return its path.

    Args:
        directory: where a run and the file are written.
        prefix: a space is put before each text.
    """
    words = ["the", "then", "there", "in", "ing", "inn", "sing", "on", "he", "her", "here", "and", "an", "a", "s"]
    words += ["tt", "ttt", "é", "中"]
    pieces = [*words, *(f"▁{word}" for word in words), "▁▁", "▁▁▁▁", "\n\n"]
    letters = sorted({letter for piece in pieces for letter in piece})
    # Every piece is a concatenation of shorter pieces.
    pieces = [piece for piece in pieces if len(piece) > 1]
    pieces += [piece[:end] for piece in pieces for end in range(2, len(piece))]
    pieces = [piece for piece in dict.fromkeys(pieces) if piece not in letters]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *pieces, *letters, "<turn>"]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(pieces) + len(letters)), 3]
    scores = [*[0.0] * 259, *(-float(index) for index in range(len(pieces) + len(letters))), 0.0]
    metadata: dict[str, Typed | None] = {
        "tokenizer.ggml.model": Typed("string", "llama"),
        "tokenizer.ggml.pre": Typed("string", "default"),
        "tokenizer.ggml.tokens": Typed("strings", tokens),
        "tokenizer.ggml.token_type": Typed("i32s", types),
        "tokenizer.ggml.scores": Typed("f32s", scores),
        "tokenizer.ggml.add_space_prefix": Typed("bool", prefix),
        **dict.fromkeys(("tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id")),
        "tokenizer.ggml.add_bos_token": None,
    }
    run = make_run(directory / "run", {**DECODER, "vocab_size": len(tokens)})
    return changed(export_model(run, directory / "model.gguf"), directory / "pieces.gguf", **metadata)
