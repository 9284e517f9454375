"""Configurations of tiny external models, which differ in every key that a family reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry
from gptkit.interop.conversion import read_model
from gptkit.interop.differences import differences
from gptkit.kinds.external_config import HARMLESS, ExternalConfig
from gptkit.kinds.family import FamilySpec
from gptkit.model.spec import ModelSpec

__all__ = ["SIZES", "SMALL", "Key", "Variant", "base_config", "hook_keys", "keys_read", "try_read", "variants"]

SIZES: Mapping[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"), 96),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 64),
    "vocab_size": 128,
}
"""Sizes under the names that most configurations use."""

SMALL: Mapping[str, Any] = {
    **SIZES,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "n_shared_experts"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "intermediate_size_mlp"), 24),
    "head_dim": 16,
    "sliding_window": 6,
}
"""Sizes of a model that is small enough to compute, with a window that a short text exceeds."""

_SCALINGS: tuple[Mapping[str, Any], ...] = (
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5],
        "long_factor": [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0],
        "original_max_position_embeddings": 16,
    },
    {"rope_type": "dynamic", "factor": 4.0},
)
_LAYERS = ("full_attention", "sliding_attention", "chunked_attention", "linear_attention")


@dataclass(frozen=True)
class Key:
    """One key that a family reads.

    Attributes:
        path: the key, below those of the mappings that hold it.
        type: the type that the family asks for.
        value: the value that it received: the configuration's, or the default.
    """

    path: tuple[str, ...]
    type: type
    value: Any

    def alternatives(self) -> Iterator[Any]:
        """Yield other values, those that change one thing first."""
        value = self.value
        if self.type is bool:
            yield not value
        elif self.type is int:
            yield from (6, 2) if value is None else (value * 2, value // 2) if value > 1 else (1 - value, 2)
        elif self.type is float:
            yield 0.5 if value is None or value in (0, 1) else value * (1000 if abs(value) < 1e-3 else 2)
        elif self.type is str:
            yield from (name for name in ("gelu", "relu", "silu", "gelu_pytorch_tanh") if name != value)
        elif self.type is list and value and all(each in _LAYERS for each in value):
            yield from _patterns(value)
        elif self.type is list and value and all(each in (0, 1) for each in value):
            yield [1 - value[0], *value[1:]]


def _patterns(layers: Sequence[str]) -> Iterator[list[str]]:
    """Yield lists of layer types that differ from the given one in one layer."""
    for kind in _LAYERS:
        if kind != layers[0]:
            yield [kind, *layers[1:]]


class _Probe(ExternalConfig):
    """A configuration that records which keys are read, and as what."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.found: dict[tuple[str, ...], Key] = {}
        self.probes: dict[str, _Probe] = {}

    def value(self, key: str, default: Any = None) -> Any:
        value = super().value(key, default)
        key = self.names.get(key, key)
        self.found.setdefault((key,), Key((key,), type(None), value))
        return value

    def maybe(self, key: str) -> float | None:
        value = super().maybe(key)
        key = self.names.get(key, key)
        self.found[(key,)] = Key((key,), float, value)
        return value

    def _typed(self, key: str, default: Any, kind: Any, what: str) -> Any:
        value = super()._typed(key, default, kind, what)
        key = self.names.get(key, key)
        self.found[(key,)] = Key((key,), float if kind == (int, float) else kind, value)
        return value

    def section(self, key: str, harmless: Any = ()) -> ExternalConfig:
        if key not in self.probes:
            data = self._typed(key, {}, dict, "a mapping")
            self.probes[key] = _Probe(data, f"{self.place}: {key}", harmless, self.registry)
        return self.probes[key]

    def every(self) -> dict[tuple[str, ...], Key]:
        """Return the keys, those of sections too."""
        below = {
            (name, *path): Key((name, *path), key.type, key.value)
            for name, probe in self.probes.items()
            for path, key in probe.every().items()
        }
        return {**self.found, **below}


def keys_read(family: FamilySpec, config: Mapping[str, Any], registry: Registry | None = None) -> list[Key]:
    """Return the keys that a family reads of a configuration.

    Raises:
        ExternalModelError: the family refuses the configuration.
    """
    probe = _Probe(config, "config.json", HARMLESS | family.harmless, registry)
    family.model(probe)
    return list(probe.every().values())


def hook_keys(family: FamilySpec, base: type[Any], hook: str, required: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys that one hook of a base class reads, and how values for missing ones are spelled.

    The spelling is empty for a key without such a value, and ``computed`` for one that depends on other keys.
    """
    result: list[dict[str, Any]] = []
    names: list[str] = []
    for width in (64, 192):
        sizes = {**required, "hidden_size": width}
        probe = _Probe(sizes, "config.json", (), None)
        getattr(base, hook)(family, probe, *([4] if hook == "read_layers" else []))
        result.append(probe.defaults)
        names = [key for (key, *inner) in probe.every() if not inner]
    first, second = result
    return {
        key: "" if first.get(key) in (None, {}) else str(first[key]) if first[key] == second[key] else "computed"
        for key in names
    }


def base_config(
    family: FamilySpec, sizes: Mapping[str, Any], tiny: Mapping[str, Any], registry: Registry | None = None
) -> dict[str, Any]:
    """Return the sizes that a family reads, and the keys of one of its own tiny configurations.

    Raises:
        ExternalModelError: the family refuses the configuration.
    """
    read = {key.path[0] for key in keys_read(family, {**sizes, **tiny}, registry)}
    return {**{key: value for key, value in sizes.items() if key in read}, **tiny}


def try_read(family: FamilySpec, config: Mapping[str, Any], registry: Registry | None = None) -> ModelSpec | None:
    """Return the model of a configuration; None where it is refused."""
    try:
        return read_model(family, config, registry=registry)
    except ExternalModelError:
        return None


@dataclass(frozen=True)
class Variant:
    """A configuration of a tiny model.

    Attributes:
        what: which keys differ from the first one, for messages.
        config: the configuration.
        model: the model that the family reads from it.
    """

    what: str
    config: Mapping[str, Any]
    model: ModelSpec


def variants(
    family: FamilySpec, tiny: Mapping[str, Any], registry: Registry | None = None, accept: Any = lambda config, model: True
) -> list[Variant]:
    """Return a first configuration, one for each key that changes the model, and one with all changes at once.

    Args:
        family: the family.
        tiny: the keys of one of its tiny configurations, which override the common sizes.
        registry: where components are looked up; by default what is installed.
        accept: whether a configuration, of which the family reads a model, is valid for the reference too.

    Raises:
        ExternalModelError: the family refuses the first configuration.
    """
    base = base_config(family, SMALL, tiny, registry)
    first = Variant("", base, read_model(family, base, registry=registry))
    result, together = [first], first
    # What is read may depend on what was read: the second round changes keys that the first one has added.
    for _ in range(2):
        for key in keys_read(family, together.config, registry):
            if any(variant.what.startswith(f"{'.'.join(key.path)}=") for variant in result):
                continue
            for path, value in _changes(key):
                tried = [_changed(family, each, path, value, registry) for each in (first, together)]
                differs = [
                    each is not None and bool(differences(old.model, each.model))
                    for each, old in zip(tried, (first, together), strict=True)
                ]
                # A flag without an effect by itself may be what another key requires.
                needed = [differs[0], differs[1] or key.type is bool]
                valid = [
                    each is not None and is_needed and accept(each.config, each.model)
                    for each, is_needed in zip(tried, needed, strict=True)
                ]
                changing = [
                    each for each, *both in zip(tried, differs, valid, strict=True) if each is not None and all(both)
                ]
                result += changing[:1]
                if tried[1] is not None and valid[1]:
                    together = tried[1]
                if changing and key.type not in (str, dict):
                    break
    return [*result, Variant("with every option changed", together.config, together.model)]


def _changes(key: Key) -> Iterator[tuple[tuple[str, ...], Any]]:
    if key.type is dict and key.path[-1] in ("rope_scaling", "rope_parameters") and not key.value:
        yield from (((*key.path[:-1], "rope_scaling"), dict(scaling)) for scaling in _SCALINGS)
    elif key.path[-1] not in SIZES:
        yield from ((key.path, value) for value in key.alternatives())


def _changed(
    family: FamilySpec, variant: Variant, path: Sequence[str], value: Any, registry: Registry | None
) -> Variant | None:
    config = _with(variant.config, path, value)
    model = try_read(family, config, registry)
    return None if model is None else Variant(f"{'.'.join(path)}={value}", config, model)


def _with(config: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    if len(path) == 1:
        return {**config, path[0]: value}
    return {**config, path[0]: _with(config.get(path[0]) or {}, path[1:], value)}
