"""Comparison of the tensors of files with those that a model requires, by names and shapes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import Move, renamed
from gptkit.kinds.family import FamilySpec, Rule
from gptkit.kinds.format import TensorEntry, Tensors
from gptkit.model.gpt import GPT

__all__ = ["check_tensors", "check_ties", "expected_tensors", "require_names", "require_shape", "tied_names"]


def check_tensors(
    family: FamilySpec, model: GPT, moves: Sequence[Move], entries: Mapping[str, TensorEntry], place: str
) -> dict[str, str]:
    """Return each external tensor's name in the files by its full name.

    Raises:
        ExternalModelError: tensors are missing, unexpected, or of another shape; names them.
    """
    expected = expected_tensors(moves)
    full = _full_names(family, entries, expected)
    ignored = [*family.skipped(model.spec), *tied_names(family.rules(model.spec), model)]
    require_names(expected, full, ignored, place)
    _accept_rows(moves, entries, full, expected)
    for name, part in expected.items():
        require_shape(name, entries[full[name]], tuple(part.shape), place, whole=not part.is_floating_point())
    return full


def check_ties(
    family: FamilySpec, model: GPT, moves: Sequence[Move], stored: Tensors, full: Mapping[str, str], place: str
) -> None:
    """Check that files which store a tied weight twice have the same values in both tensors.

    transformers does not tie two tensors with different values, whatever the configuration says.

    Args:
        family: the family.
        model: the model on the meta device.
        moves: its tensors.
        stored: the tensors of the files.
        full: their names in the files by their full names, of `check_tensors`.
        place: the location of the files, for messages.

    Raises:
        ExternalModelError: the values differ; names both tensors.
    """
    owners = {f"embedding.{owner}": f"head.{name}" for name, owner in model.head.tied_weights.items()}
    tables = {move.native: move.external for move in moves if move.native in owners}
    rules = family.rules(model.spec)
    for native, table in tables.items():
        heads = next((match[1] for rule in rules if (match := rule.match(owners[native])) is not None), ())
        for head, other in zip(heads, table, strict=False):
            if head == other or head not in full:
                continue
            one, two = stored.get(full[head]), stored.get(full[other])
            rows = min(len(one), len(two))
            if one.shape[1:] != two.shape[1:] or not torch.equal(one[:rows].to(two.dtype), two[:rows]):
                raise ExternalModelError(
                    f"{place}: {head} has other values than {other}, and the configuration ties them (tie_word_embeddings)",
                    hint="Set tie_word_embeddings to false in config.json, as transformers reads such files, or remove the "
                    "tensor that does not belong to the model.",
                )


def expected_tensors(moves: Sequence[Move]) -> dict[str, Tensor]:
    """Return the external tensors on the meta device, by name."""
    return {name: part for move in moves for name, part in zip(move.external, move.split(move.like), strict=True)}


def tied_names(rules: Sequence[Rule], model: GPT) -> list[str]:
    """Return patterns of the external tensors of tied weights, which some files store twice."""
    matches = [rule.match(f"head.{name}") for rule in rules for name in model.head.tied_weights]
    return [re.escape(name) for match in matches if match is not None for name in match[1]]


def require_names(expected: Collection[str], given: Collection[str], ignored: Sequence[str], place: str) -> None:
    """Raise an error if tensors are missing, or others are given that no pattern in `ignored` matches."""
    skipped = re.compile("|".join(f"(?:{pattern})" for pattern in ignored) or r"(?!)")
    missing = [name for name in expected if name not in given]
    left = [name for name in given if name not in expected and not skipped.fullmatch(name)]
    if missing:
        raise ExternalModelError(f"{place}: tensors are missing: {_some(missing)}")
    if left:
        raise ExternalModelError(
            f"{place}: tensors that the configuration does not describe: {_some(left)}",
            hint="The configuration and the weights belong to different models, or the family does not support them.",
        )


def require_shape(name: str, entry: TensorEntry, shape: tuple[int, ...], place: str, *, whole: bool = False) -> None:
    """Raise an error if a stored tensor has another shape, or no floating-point numbers (whole numbers with `whole`)."""
    if entry.shape != shape:
        raise ExternalModelError(f"{place}: {name} is {list(entry.shape)}, and the configuration requires {list(shape)}")
    if whole:
        if entry.dtype not in (torch.int64, torch.int32):
            raise ExternalModelError(f"{place}: {name} does not hold whole numbers of 32 or 64 bits")
    elif not entry.dtype.is_floating_point:
        raise ExternalModelError(f"{place}: {name} does not hold plain floating-point numbers", hint="Dequantize it first.")


def _accept_rows(
    moves: Sequence[Move], entries: Mapping[str, TensorEntry], full: Mapping[str, str], expected: dict[str, Tensor]
) -> None:
    """Expect the rows of the files where a layout accepts any (`Layout.any_rows`, `more_rows`), and they are enough."""
    for move in moves:
        if not move.layout.any_rows and not move.layout.more_rows:
            continue
        shapes = [entries[full[name]].shape for name in move.external]
        rows, needed = sum(shape[0] for shape in shapes if shape), sum(len(expected[name]) for name in move.external)
        if rows == needed or (move.layout.more_rows and rows > needed):
            for name, shape in zip(move.external, shapes, strict=True):
                expected[name] = expected[name].new_empty(shape[0], *expected[name].shape[1:])


def _full_names(family: FamilySpec, entries: Mapping[str, TensorEntry], expected: Collection[str]) -> dict[str, str]:
    """Return the tensors' names in the files by their full names in the family.

    Programs put prefixes before all names (torch.compile, data parallelism, adapters, a training module around the model).
    As many parts as all names share are removed until the expected names appear.
    """
    best: dict[str, str] = {}
    for removed in range(_shared_parts(entries) + 1):
        own = {renamed(family, name.split(".", removed)[-1]): name for name in entries}
        bare = not any(name.startswith(family.prefix) for name in own)
        full = {family.prefix + name if bare and name not in expected else name: stored for name, stored in own.items()}
        if removed == 0 or _count(full, expected) > _count(best, expected):
            best = full
    return best


def _shared_parts(names: Collection[str]) -> int:
    """Return the number of leading parts, separated by dots, that all names have in common; each keeps its last part."""
    parts = [name.split(".")[:-1] for name in names]
    columns = zip(*parts, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns)) if parts else 0


def _count(names: Collection[str], expected: Collection[str]) -> int:
    return sum(name in names for name in expected)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
