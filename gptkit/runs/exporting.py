"""A run becomes a model that other libraries load."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptkit.checkpoint.entries import MODEL
from gptkit.checkpoint.store import CheckpointStore, read_state
from gptkit.core.atomic import write_text, writing
from gptkit.core.errors import CheckpointError, ExternalModelError, TokenizerError
from gptkit.core.registry import Registry
from gptkit.interop.conversion import Move, differences, families, pair, read_model
from gptkit.interop.tensor_files import SINGLE, Entry, TensorFiles, write_tensors
from gptkit.kinds.family import FamilySpec
from gptkit.model.gpt import GPT
from gptkit.model.spec import ModelSpec
from gptkit.runs.folder import RunFolder
from gptkit.runs.run import load_tokenizer
from gptkit.runs.spec import ExperimentSpec

__all__ = ["choose_family", "export_model"]

CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
_FILES = (SINGLE, TOKENIZER, TOKENIZER_CONFIG, CONFIG)
_FAILED = (LookupError, AttributeError, TypeError, ValueError, ArithmeticError, StopIteration)


def export_model(
    run: str | Path,
    folder: str | Path,
    *,
    family: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> Path:
    """Write a run's newest weights as transformers, vLLM and others load them: config.json, safetensors, tokenizer.

    Args:
        run: the run's folder.
        folder: the directory to write; created if it does not exist. Nothing in it is replaced.
        family: as which family; by default one that can express the model.
        progress: told how many bytes of how many are written.
        registry: where families and components are looked up; by default what is installed.

    Returns:
        The folder.

    Raises:
        ExternalModelError: no family can express the model; says what stands in the way of the nearest.
        CheckpointError: there is no such run, or it has no checkpoint.
    """
    there, target = RunFolder(run), Path(folder)
    spec = there.read_spec(registry)
    latest = CheckpointStore(there.checkpoints).latest()
    if latest is None:
        raise CheckpointError(f"{there.path} has no checkpoint yet", hint="Resume the training until it saves one.")
    read_state(latest)
    _require_free(target)
    files = TensorFiles(latest / MODEL)
    model = spec.model
    if model.vocab_size is None:
        model = model.model_copy(update={"vocab_size": files.entries["embedding.table.weight"].shape[0]})
    wanted = family or there.read_provenance().get("imported", {}).get("family")
    chosen, config = choose_family(model, wanted, only=family is not None, registry=registry)
    moves = pair(chosen, GPT(model, device="meta"))
    dtypes = {files.entries[move.native].dtype for move in moves}
    dtype = "float32" if torch.float32 in dtypes else str(dtypes.pop()).removeprefix("torch.")
    head = {"architectures": [chosen.architecture], "model_type": chosen.model_type, "torch_dtype": dtype}
    # The configuration is written last, so that a directory with one is complete.
    written = [target / name for name in _FILES]
    try:
        with writing(target):
            target.mkdir(parents=True, exist_ok=True)
        _write(target / SINGLE, moves, files, progress)
        ends = _write_tokenizer(spec, there, target)
        write_text(target / CONFIG, json.dumps({**head, **config, **ends}, indent=2) + "\n")
    except BaseException:
        # They were not there before.
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return target


def _require_free(target: Path) -> None:
    if RunFolder(target).holds_run:
        raise ExternalModelError(f"{target} is a run, and no export is written into one", hint="Choose another directory.")
    if (target / CONFIG).exists():
        raise ExternalModelError(f"{target} already holds a model", hint="Choose another directory.")
    taken = [name for name in _FILES if (target / name).exists() or (target / name).is_symlink()]
    if taken:
        raise ExternalModelError(
            f"{target} has {', '.join(taken)}, which the export would replace", hint="Choose another directory."
        )


def choose_family(
    model: ModelSpec,
    wanted: str | None = None,
    *,
    only: bool = False,
    among: Collection[str] | None = None,
    registry: Registry | None = None,
) -> tuple[FamilySpec, dict[str, Any]]:
    """A family that can express a model, and the configuration that does.

    Args:
        wanted: the family to try first.
        only: and no other.
        among: the families to choose from; all by default.

    Raises:
        ExternalModelError: none can.
    """
    known = {name: each for name, each in families(registry).items() if among is None or name in among}
    if only and wanted not in known:
        raise ExternalModelError(f"there is no family {wanted!r}", hint=f"There are: {', '.join(sorted(known))}.")
    order = sorted(known, key=lambda name: (name != wanted, known[name].rank, name))
    reasons: dict[str, list[str]] = {}
    for name in order[:1] if only else order:
        try:
            config = known[name].config(model)
            found = differences(model, read_model(known[name], config, f"family {name!r}", registry))
        except ExternalModelError as error:
            found = [error.message]
        except _FAILED as error:
            reasons[name] = [f"it has no {error}"] * 1000
            continue
        if not found:
            return known[name], config
        reasons[name] = found
    nearest = min(reasons, key=lambda name: len(reasons[name]))
    shown = reasons[nearest]
    more = f"; and {len(shown) - 4} more" if len(shown) > 4 else ""
    raise ExternalModelError(
        f"{'family' if only else 'no family can express this model; the nearest,'} {nearest!r} "
        f"{'cannot express this model' if only else 'cannot'}: {'; '.join(shown[:4])}{more}",
        hint="Change the model to one that the family can express, or add a family for it.",
    )


def _write(file: Path, moves: list[Move], files: TensorFiles, progress: Callable[[int, int], None] | None) -> None:
    entries: dict[str, Entry] = {}
    ordered = sorted(moves, key=lambda move: -files.entries[move.native].dtype.itemsize)
    for move in ordered:
        for name, part in zip(move.external, move.split(move.like), strict=True):
            entries[name] = Entry(tuple(part.shape), files.entries[move.native].dtype)
    total, done = sum(entry.bytes for entry in entries.values()), 0

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for move in ordered:
            yield from zip(move.external, move.split(files.get(move.native)), strict=True)

    def report(written: int) -> None:
        nonlocal done
        done += written
        if progress is not None:
            progress(done, total)

    write_tensors(file, entries, tensors(), progress=report)


def _write_tokenizer(spec: ExperimentSpec, there: RunFolder, target: Path) -> dict[str, int | None]:
    """The tokenizer.json, where there can be one, with its special tokens; returns what config.json says of them."""
    tokenizer = load_tokenizer(spec, there)
    spelled = {number: token for token, number in tokenizer.special_tokens.items()}
    ends = {"bos_token": tokenizer.start_id, "eos_token": tokenizer.end_id}
    known = {key: number for key, number in ends.items() if number is not None}
    with contextlib.suppress(TokenizerError):
        text = tokenizer.to_tokenizer_json()
        write_text(target / TOKENIZER, text)
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        config |= {key: spelled[number] for key, number in known.items() if number in spelled}
        config["add_bos_token"] = "bos_token" in config
        template = tokenizer.chat_template
        if template is not None:
            config["chat_template"] = template
        write_text(target / TOKENIZER_CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    # Where there is none that is said, too: families have numbers of their own where a configuration says nothing.
    return {**{f"{key}_id": number for key, number in ends.items()}, "pad_token_id": None}
