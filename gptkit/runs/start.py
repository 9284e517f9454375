"""Initialization of new runs from existing weights: `training.init_from`."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gptkit.checkpoint.safetensors import named_tensors
from gptkit.checkpoint.sharding import copy_sharded, part_of, whole_shape
from gptkit.core.errors import CheckpointError
from gptkit.core.paths import expand_home
from gptkit.core.registry import Registry
from gptkit.kinds.format import Tensors
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.nn.freezing import adapter_names
from gptkit.runs.opening import Opened
from gptkit.runs.sources import Source, open_source, tied_names
from gptkit.training.config import InitFromSpec

__all__ = ["source_of", "start_from", "tokenizer_of"]

_log = logging.getLogger("gptkit")
_LISTED = 8
_BLOCK = re.compile(r"^blocks\.\d+\.")


def source_of(init: InitFromSpec, base: Path, registry: Registry | None = None) -> Source:
    """Return the source of `init`; a relative path is relative to the directory `base`.

    Raises:
        CheckpointError: the path contains no weights.
        ExternalModelError: it is an external model that cannot be read.
    """
    return open_source(base / expand_home(init.path, "training.init_from"), registry)


def tokenizer_of(source: Source, init: InitFromSpec, opened: Opened) -> Tokenizer | None:
    """Return the tokenizer of the weights; None if that of the spec is used.

    Raises:
        CheckpointError: the spec has a different tokenizer, whose ids do not match these weights.
    """
    if source.spec is None:
        return None
    wanted, own = opened.spec.tokenizer, source.tokenizer()
    if own is None or wanted == source.spec.tokenizer:
        return own
    if not wanted.needs_corpus:
        fitted = wanted.fit(iter(()), base=opened.base)
        if _same_ids(fitted, own):
            return fitted
    message = f"training.init_from: the tokenizer of {source.path} differs from that of the spec, so the ids do not match"
    if init.strict:
        raise CheckpointError(
            message,
            hint="Remove the section tokenizer, to use that of the weights, or load only the tensors that fit: --partial "
            "(training.init_from.strict: false).",
        )
    _log.warning("%s", message)
    return None


def start_from(model: nn.Module, source: Source, *, strict: bool = True) -> None:
    """Fill a new model with the weights of a source.

    A tensor fits if the model has one of its name and shape. Adapters keep their initial values.

    Args:
        model: the model, initialized; its tensors may be sharded.
        source: the weights.
        strict: raise an error if a tensor does not fit; otherwise load those that do, and log the others.

    Raises:
        CheckpointError: the weights are missing or damaged, or do not fit the model.
    """
    tensors, own = source.tensors(), named_tensors(model)
    shapes = {name: whole_shape(model, name, tensor) for name, tensor in own.items()}
    # Names of tied tensors refer to the stored one.
    stored = {**{name: name for name in tensors.entries}, **source.aliases()}
    stored = {name: kept for name, kept in stored.items() if kept in tensors.entries}
    chosen = _fitting(tensors, stored, own, shapes)
    adapters = adapter_names(model)
    loaded = {id(own[name]) for name in chosen}
    missing = [name for name, tensor in own.items() if id(tensor) not in loaded and name not in adapters]
    resized = [name for name in missing if name in stored]
    used = {*chosen.values(), *(stored[name] for name in resized)}
    tied = tied_names(model)
    unused = [
        name for name in tensors.entries if name not in used and not _repeats(name, tensors, chosen.get(tied.get(name, "")))
    ]
    if (missing or unused) and strict:
        raise _misfit(source, missing, unused, tensors, stored, shapes)
    if not chosen:
        raise CheckpointError(
            f"training.init_from: no tensor of {source.path} fits the model",
            hint="Check the path, and the names of the tensors.",
        )
    with torch.no_grad():
        for name, kept in chosen.items():
            copy_sharded(own[name], part_of(model, name, tensors.get(kept)))
    absent = [name for name in missing if name not in resized]
    for names, what in (
        (absent, "initialized, since the source lacks them"),
        (resized, "initialized, since the source has other shapes"),
        (unused, "in the source, but not used"),
    ):
        if names:
            _log.warning("training.init_from: %s: %s", what, _listed(names))


def _fitting(
    tensors: Tensors, stored: Mapping[str, str], own: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
) -> dict[str, str]:
    """Return the fitting stored tensor of each of the model's tensors, tied ones once."""
    chosen: dict[str, str] = {}
    seen: set[int] = set()
    for name, tensor in own.items():
        kept = stored.get(name)
        if kept is not None and id(tensor) not in seen and tuple(shapes[name]) == tuple(tensors.entries[kept].shape):
            chosen[name] = kept
            seen.add(id(tensor))
    return chosen


def _repeats(name: str, tensors: Tensors, other: str | None) -> bool:
    """Return whether a stored tensor equals the one that the model ties it to."""
    return other is not None and torch.equal(tensors.get(name), tensors.get(other))


def _misfit(
    source: Source,
    missing: Sequence[str],
    unused: Sequence[str],
    tensors: Tensors,
    stored: Mapping[str, str],
    shapes: Mapping[str, torch.Size],
) -> CheckpointError:
    resized = [name for name in missing if name in stored]
    parts = []
    if len(missing) > len(resized):
        parts.append(f"it lacks {_listed([name for name in missing if name not in resized])}")
    if unused:
        parts.append(f"it also has {_listed(unused)}")
    if resized:
        name = resized[0]
        shape = tuple(tensors.entries[stored[name]].shape)
        parts.append(f"{name} is {shape} in the source and {tuple(shapes[name])} in the model")
    return CheckpointError(
        f"training.init_from: {source.path} does not fit the model: {'; '.join(parts)}",
        hint="Use the model of these weights in the spec, or load only the tensors that fit: --partial "
        "(training.init_from.strict: false).",
    )


def _listed(names: Sequence[str]) -> str:
    """Return the names as a list, with one entry for the same name in all blocks: ``blocks.*.attention.qkv.bias (30)``."""
    groups = Counter(_BLOCK.sub("blocks.*.", name) for name in names)
    first = {_BLOCK.sub("blocks.*.", name): name for name in reversed(names)}
    texts = [f"{group} ({count})" if count > 1 else first[group] for group, count in groups.items()]
    return ", ".join(texts[:_LISTED]) + (f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else "")


def _same_ids(one: Tokenizer, other: Tokenizer) -> bool:
    """Return whether every id stands for the same bytes in both tokenizers."""
    size = one.vocab_size
    return size == other.vocab_size and all(one.token_bytes(token) == other.token_bytes(token) for token in range(size))
