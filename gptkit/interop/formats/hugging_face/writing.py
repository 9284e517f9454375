"""Writing of a model as transformers, vLLM and others load it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptkit.core.atomic import write_text
from gptkit.core.errors import ExternalModelError, TokenizerError
from gptkit.core.registry import Registry
from gptkit.interop.conversion import external_entries, external_tensors, pair
from gptkit.interop.formats.hugging_face.generated import generate_code
from gptkit.interop.formats.hugging_face.model import CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG
from gptkit.interop.formats.hugging_face.shards import write_shards
from gptkit.interop.selection import choose_family
from gptkit.interop.tensor_files import counted
from gptkit.kinds.format import NativeModel, Note, Progress, TensorEntry
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
    """Write config.json, the weights, and the files of the tokenizer; arguments as for `FormatSpec.write`.

    A model that no family expresses has code of its own, unless `family` names one.
    """
    content = _content(model, family, registry)
    directory.mkdir(parents=True, exist_ok=True)
    report = counted(sum(entry.bytes for entry in content.entries.values()), progress)
    write_shards(directory, content.entries, content.tensors, progress=report)
    for name, text in content.files.items():
        write_text(directory / name, text)
    settings = dict(model.token_settings)
    ids = {key: settings.pop(key, None) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    remarks = _write_tokenizer(model.tokenizer, settings, directory)
    tokens = {
        "bos_token_id": model.start_id,
        "eos_token_id": model.tokenizer.end_id if ids["eos_token_id"] is None else ids["eos_token_id"],
        "pad_token_id": ids["pad_token_id"],
    }
    known = {key: value for key, value in tokens.items() if value is not None and _fits(value, content.config.get(key))}
    if model.generation or content.files:
        _write_json(directory / GENERATION, {**(known if content.files else {}), **model.generation})
    head = {**content.head, "torch_dtype": content.dtype}
    # Written even where they are null: families have default ids for configurations without these keys.
    _write_json(directory / CONFIG, {**head, **tokens, **content.config, **known})
    return [*content.report, *remarks]


def _fits(ids: Any, required: Any) -> bool:
    """Return whether ids of a tokenizer agree with the id that the model itself requires, such as that n-grams end with."""
    return required is None or required == (ids[0] if isinstance(ids, list) and ids else ids)


@dataclass(frozen=True)
class _Content:
    """What an export has of the model itself.

    Attributes:
        head: the first keys of config.json, which name the architecture.
        config: its other keys.
        entries: the tensors' shapes and dtypes.
        tensors: the tensors in the same order.
        files: files with code, by name.
        report: sentences for the user.
        dtype: the element type of the model, for config.json.
    """

    head: Mapping[str, Any]
    config: Mapping[str, Any]
    entries: Mapping[str, TensorEntry]
    tensors: Iterator[tuple[str, Tensor]]
    files: Mapping[str, str]
    report: Sequence[str]
    dtype: str


def _content(model: NativeModel, family: str | None, registry: Registry | None) -> _Content:
    try:
        chosen, config = choose_family(model.spec, family or model.family, only=family is not None, registry=registry)
    except ExternalModelError as refusal:
        if family is not None:
            raise
        return _with_code(model, refusal)
    native = model.tensors.entries
    # Tensors of wider elements first, so that each is aligned to its elements' size.
    moves = sorted(pair(chosen, GPT(model.spec, device="meta")), key=lambda move: -native[move.native].dtype.itemsize)
    head = {"architectures": [chosen.architecture], "model_type": chosen.model_type}
    report = [Note(f"model family: {chosen.component_name()}, which transformers has code for")]
    wide = [move for move in moves if native[move.native].dtype.itemsize > torch.float32.itemsize]
    others = moves[len(wide) :]
    constants = chosen.constants(model.spec)
    entries = {
        **external_entries(wide, native),
        **{name: TensorEntry(constant.shape, torch.float32) for name, constant in constants.items()},
        **external_entries(others, native),
    }
    tensors = chain(
        external_tensors(wide, model.tensors),
        ((name, constant.make()) for name, constant in constants.items()),
        external_tensors(others, model.tensors),
    )
    dtype = _dtype(entry for name, entry in entries.items() if name not in constants)
    return _Content(head, config, entries, tensors, {}, report, dtype)


def _with_code(model: NativeModel, refusal: ExternalModelError) -> _Content:
    made = generate_code(model, refusal)
    report = [
        Note(refusal.message),
        Note(
            f"wrote {' and '.join(made.files)} for the model: load it with trust_remote_code=True (transformers 5 or later, "
            "gptkit is not needed)"
        ),
        Note(made.code.contract.sentence),
        Note(f"{made.checked}; gptkit does not execute the code"),
    ]
    return _Content({}, made.config, made.entries, made.tensors(), made.files, report, _dtype(made.entries.values()))


def _dtype(entries: Iterable[TensorEntry]) -> str:
    dtypes = {entry.dtype for entry in entries if entry.dtype.is_floating_point}
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
