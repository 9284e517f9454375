"""Writing of a model as transformers, vLLM and others load it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gptkit.core.atomic import write_text
from gptkit.core.errors import TokenizerError
from gptkit.core.registry import Registry
from gptkit.interop.conversion import Move, external_entries, external_tensors, pair
from gptkit.interop.formats.hugging_face.model import CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG
from gptkit.interop.selection import choose_family
from gptkit.interop.tensor_files import SINGLE, counted, write_tensors
from gptkit.kinds.format import NativeModel, Progress, TensorEntry
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT

__all__ = ["write_directory"]


def write_directory(
    model: NativeModel,
    directory: Path,
    *,
    family: str | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> Sequence[str]:
    """Write config.json, the weights, and the files of the tokenizer; arguments as for `FormatSpec.write`."""
    chosen, config = choose_family(model.spec, family or model.family, only=family is not None, registry=registry)
    entries = model.tensors.entries
    # Tensors of wider elements first, so that each is aligned to its elements' size.
    moves = sorted(pair(chosen, GPT(model.spec, device="meta")), key=lambda move: -entries[move.native].dtype.itemsize)
    written = external_entries(moves, entries)
    directory.mkdir(parents=True, exist_ok=True)
    report = counted(sum(entry.bytes for entry in written.values()), progress)
    write_tensors(directory / SINGLE, written, external_tensors(moves, model.tensors), progress=report)
    settings = dict(model.token_settings)
    ids = {key: settings.pop(key, None) for key in ("eos_token_id", "pad_token_id")}
    remarks = _write_tokenizer(model.tokenizer, settings, directory)
    if model.generation:
        _write_json(directory / GENERATION, model.generation)
    head = {
        "architectures": [chosen.architecture],
        "model_type": chosen.model_type,
        "torch_dtype": _dtype(moves, entries),
    }
    end = model.tokenizer.end_id if ids["eos_token_id"] is None else ids["eos_token_id"]
    tokens = {"bos_token_id": model.tokenizer.start_id, "eos_token_id": end, "pad_token_id": ids["pad_token_id"]}
    # Written even where they are null: families have default ids for configurations without these keys.
    _write_json(directory / CONFIG, {**head, **config, **tokens})
    return remarks


def _dtype(moves: Sequence[Move], entries: Mapping[str, TensorEntry]) -> str:
    dtypes = {entries[move.native].dtype for move in moves}
    return "float32" if torch.float32 in dtypes else str(dtypes.pop()).removeprefix("torch.")


def _write_tokenizer(tokenizer: Tokenizer, settings: Mapping[str, Any], directory: Path) -> Sequence[str]:
    """Write tokenizer.json and tokenizer_config.json; return a remark where the tokenizer cannot be expressed."""
    try:
        text = tokenizer.to_tokenizer_json()
    except TokenizerError as error:
        return [f"the export has no tokenizer: {error.message}"]
    write_text(directory / TOKENIZER, text)
    spelled = {number: token for token, number in tokenizer.special_tokens.items()}
    ends = {"bos_token": tokenizer.start_id, "eos_token": tokenizer.end_id}
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {key: spelled[number] for key, number in ends.items() if number is not None and number in spelled}
    config["add_bos_token"] = "bos_token" in config
    config |= settings
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    _write_json(directory / TOKENIZER_CONFIG, config)
    return []


def _write_json(file: Path, data: Mapping[str, Any]) -> None:
    write_text(file, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
