"""Between a family and gptkit: which family a configuration is of, which tensors pair up, whether two models are one."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from gptkit.core.errors import ForeignModelError, SpecError
from gptkit.core.registry import Registry, default_registry, did_you_mean
from gptkit.files import validate_data
from gptkit.interop.layouts import SAME
from gptkit.interop.tensor_files import Entry
from gptkit.kinds.family import FamilySpec, Layout, Rule
from gptkit.kinds.foreign import HARMLESS, ForeignConfig
from gptkit.model.gpt import GPT
from gptkit.model.spec import LayerSpec, ModelSpec

__all__ = ["Move", "check_tensors", "differences", "families", "find_family", "pair", "read_model"]

_NOT_UNDERSTOOD = (LookupError, AttributeError, TypeError, ValueError, ArithmeticError)


@dataclass(frozen=True)
class Move:
    """Tensors of ours and of theirs that hold the same numbers: one of ours, or those of all experts of a layer.

    `likes` are ours, without memory.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: Layout
    layer: LayerSpec | None
    likes: tuple[Tensor, ...]
    stacked: bool = False

    def join(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Ours, from theirs."""
        if not self.stacked:
            return [self.layout.join(parts, self.layer)]
        return [self.layout.join([part[index] for part in parts], self.layer) for index in range(len(self.ours))]

    def split(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Theirs, from ours."""
        if not self.stacked:
            return self.layout.split(tensors[0], self.layer)
        each = [self.layout.split(tensor, self.layer) for tensor in tensors]
        return [torch.stack(list(parts)) for parts in zip(*each, strict=True)]


def families(registry: Registry | None = None) -> dict[str, FamilySpec]:
    """Every family by name."""
    entries = (registry or default_registry()).entries("family")
    return {name: cast("FamilySpec", entry.cls(name=name)) for name, entry in entries.items()}


def find_family(config: Mapping[str, Any], place: str, registry: Registry | None = None) -> FamilySpec:
    """The family that a configuration says it is of.

    Raises:
        ForeignModelError: none of that type is installed; says which are.
    """
    model_type = config.get("model_type")
    known = {family.model_type: family for family in families(registry).values()}
    if not isinstance(model_type, str):
        raise ForeignModelError(f"{place} has no 'model_type'", hint="Give the folder of a model, as transformers saves it.")
    if model_type not in known:
        what = did_you_mean(model_type, sorted(known), label="there are")
        raise ForeignModelError(f"{place}: no installed family has the model_type {model_type!r}; {what}")
    return known[model_type]


def read_model(
    family: FamilySpec, data: Mapping[str, Any], place: str = "config.json", registry: Registry | None = None
) -> ModelSpec:
    """The spec of the model that a configuration describes.

    Raises:
        ForeignModelError: a key is not understood, or asks for what gptkit does not do.
    """
    config = ForeignConfig(data, place, HARMLESS | family.harmless)
    try:
        model = family.model(config)
        config.close()
        return validate_data(model, ModelSpec, registry)
    except SpecError as error:
        raise ForeignModelError(f"{place} describes a model that cannot be built:\n{error.message}") from None
    except _NOT_UNDERSTOOD as error:
        raise ForeignModelError(f"{place} is not what family {family.name!r} has: {type(error).__name__}: {error}") from None


def pair(family: FamilySpec, model: GPT) -> list[Move]:
    """Where each of our tensors is found.

    Raises:
        ForeignModelError: a tensor of ours has no place there.
    """
    layers = model.spec.layer_specs()
    rules = family.rules(model.spec)
    moves: list[Move] = []
    stacks: dict[tuple[str, ...], int] = {}
    for name, parameter in model.named_parameters():
        found = next(((rule, match) for rule in rules if (match := rule.match(name)) is not None), None)
        if found is None:
            raise ForeignModelError(f"family {family.name!r} has no place for {name}")
        rule, (index, theirs) = found
        layer = None if index is None else layers[index]
        like = torch.empty(parameter.shape, device="meta")
        same = moves[stacks[theirs]] if rule.stacked and theirs in stacks else None
        if same is not None:
            moves[stacks[theirs]] = dataclasses.replace(same, ours=(*same.ours, name), likes=(*same.likes, like))
            continue
        stacks[theirs] = len(moves)
        moves.append(Move((name,), theirs, rule.layout or SAME, layer, (like,), rule.stacked))
    return moves


def check_tensors(
    family: FamilySpec, model: GPT, moves: Sequence[Move], entries: Mapping[str, Entry], place: str
) -> dict[str, str]:
    """Where in the files each tensor of theirs is: its name there by its full name.

    Raises:
        ForeignModelError: tensors are missing, left over, or of another shape; names them.
    """
    expected = {name: part for move in moves for name, part in zip(move.theirs, move.split(move.likes), strict=True)}
    bare = not any(name.startswith(family.prefix) for name in entries)
    full = {family.prefix + name if bare and name not in expected else name: name for name in entries}
    ignored = [*family.skipped(model.spec)]
    if model.spec.head.model_dump().get("tied"):
        # Some files hold the shared table twice.
        ignored += [re.escape(name) for rule in family.rules(model.spec) for name in _heads(rule)]
    skipped = re.compile("|".join(f"(?:{pattern})" for pattern in ignored) or r"(?!)")
    missing = [name for name in expected if name not in full]
    left = [name for name in full if name not in expected and not skipped.fullmatch(name)]
    if missing:
        raise ForeignModelError(f"{place}: tensors are missing: {_some(missing)}")
    if left:
        raise ForeignModelError(
            f"{place}: tensors are left over, which config.json does not account for: {_some(left)}",
            hint="The configuration and the weights are of different models, or the family here does not know them.",
        )
    for name, part in expected.items():
        entry = entries[full[name]]
        if entry.shape != tuple(part.shape):
            raise ForeignModelError(f"{place}: {name} is {list(entry.shape)}, and config.json asks for {list(part.shape)}")
        if not entry.dtype.is_floating_point:
            raise ForeignModelError(f"{place}: {name} holds no plain floating-point numbers", hint="Dequantise it first.")
    return full


def differences(ours: ModelSpec, theirs: ModelSpec) -> list[str]:
    """Where two models compute differently, as sentences; what only matters in training is left out."""
    found = list(_compare(_essence(ours), _essence(theirs), ""))
    # What is so in every layer is said once.
    return list(dict.fromkeys(_everywhere(found, ours.n_layers)))


def _everywhere(found: Sequence[str], n_layers: int) -> Iterator[str]:
    parts = [re.fullmatch(r"layers\.\d+\.(.*)", sentence, re.DOTALL) for sentence in found]
    counts = Counter(part[1] for part in parts if part is not None)
    for sentence, part in zip(found, parts, strict=True):
        yield sentence if part is None or counts[part[1]] < n_layers else part[1]


def _essence(model: ModelSpec) -> dict[str, Any]:
    layers = [_plain(layer.model_dump(mode="json", exclude={"repeat"})) for layer in model.layer_specs()]
    for layer, spec in zip(layers, model.layer_specs(), strict=True):
        attention = layer["attention"]
        if attention["name"] in ("multi-head", "grouped-query"):
            heads = spec.attention.head_shape()  # type: ignore[attr-defined]
            scale = attention.get("scale") or heads.d_head**-0.5
            # One is a case of the other.
            attention |= {"name": "grouped-query", "n_kv_heads": heads.n_kv_heads, "scale": float(f"{scale:.9g}")}
    whole = model.model_dump(mode="json", include={"context_length", "d_model", "n_layers", "vocab_size"})
    for part in ("embedding", "final_norm", "head"):
        spec = getattr(model, part)
        whole[part] = None if spec is None else _plain(spec.model_dump(mode="json"))
    absolute = "embed" in model.position.uses
    whole["position"] = _plain(model.position.model_dump(mode="json")) if absolute else None
    return {**whole, "layers": layers}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in ("dropout", "z_loss", "multiple_of")}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _compare(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.get("name") == theirs.get("name"):
        for key in dict.fromkeys([*ours, *theirs]):
            yield from _compare(ours.get(key), theirs.get(key), f"{path}.{key}" if path else key)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _compare(mine, other, f"{path}.{index}")
    elif ours != theirs and not (_is_number(ours) and _is_number(theirs) and abs(ours - theirs) <= 1e-7 * abs(ours)):
        yield f"{path} is {_short(ours)}, and would be {_short(theirs)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return str(value.get("name", "a mapping")) if isinstance(value, dict) else str(value)


def _heads(rule: Rule) -> Sequence[str]:
    match = rule.match("head.weight")
    return () if match is None else match[1]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
