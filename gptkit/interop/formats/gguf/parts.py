"""Keys of GGUF files that many architectures share, in both directions.

A part names the keys of the file without the prefix of the architecture, and those of the family's configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.kinds.external_config import ExternalConfig

__all__ = [
    "DENSE",
    "HINT",
    "TIED",
    "Dense",
    "Fixed",
    "HasTensor",
    "HeadSize",
    "Key",
    "Keys",
    "Periodic",
    "Tied",
    "Untrained",
    "Windows",
]

HINT = "Export to hugging-face, torch-export or onnx instead."
"""Remedy for a model that llama.cpp cannot compute."""


@dataclass(frozen=True)
class Key:
    """A key of the file and the equal one of the configuration.

    Attributes:
        file, config: the names; in `config`, a dot separates the names of a nested mapping and of its key.
        type: the type in which the value is written.
        default: the value of a missing key; None where it is required, or the name of another key of the file.
        optional: whether a missing key is missing in the configuration too.
        invert: whether the configuration has the reciprocal.
        factor: whether llama.cpp takes zero for the absence of the key.
    """

    file: str
    config: str
    type: Literal["u32", "f32", "bool"] = "u32"
    default: Any = None
    optional: bool = False
    invert: bool = False
    factor: bool = False

    def read(self, keys: ExternalConfig) -> Any:
        """Return the value for the configuration."""
        if self.optional and self.file not in keys:
            return None
        default = keys.value(self.default) if isinstance(self.default, str) else self.default
        read: Any = {"u32": keys.integer, "f32": keys.number, "bool": keys.flag}[self.type]
        result = read(self.file) if default is None else read(self.file, default)
        if self.invert and result == 0:
            keys.refuse(self.file, "it should not be zero")
        return 1 / result if self.invert else result


@dataclass(frozen=True)
class Keys:
    """Keys that are equal in the file and in the configuration."""

    keys: Sequence[Key]

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key in self.keys:
            section, _, name = key.config.rpartition(".")
            value = key.read(keys)
            if value is not None or not key.optional:
                (result.setdefault(section, {}) if section else result)[name] = value
        return result

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        result = {}
        for key in self.keys:
            section, _, name = key.config.rpartition(".")
            value = ((config.get(section) or {}) if section else config).get(name)
            if value == 0 and key.factor:
                raise ExternalModelError(f"llama.cpp computes models whose {key.config} is 0 without that factor", hint=HINT)
            if value is not None:
                result[key.file] = Typed(key.type, 1 / value if key.invert else value)
        return result


@dataclass(frozen=True)
class Fixed:
    """Values of the configuration that the architecture determines, and keys of the file that are constant.

    Attributes:
        config: values of the configuration.
        keys: constant keys, written and required to have the value where the file has them.
        ignored: keys that are read and have no effect.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, Typed] = field(default_factory=dict)
    ignored: Sequence[str] = ()

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        for key, typed in self.keys.items():
            keys.only(key, typed.value, why="gptkit reads only models with the usual value")
        for key in self.ignored:
            keys.value(key)
        return dict(self.config)

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        return dict(self.keys)


@dataclass(frozen=True)
class HasTensor:
    """A truth value of the configuration that a tensor's presence determines; for several tensors, that of any."""

    config: str
    tensors: Sequence[str]
    absent: bool = False

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        present = any(name in tensors for name in self.tensors)
        return {self.config: present != self.absent}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        return {}


Tied = HasTensor("tie_word_embeddings", ("output.weight",), absent=True)
TIED = Fixed({"tie_word_embeddings": True})
"""Architectures whose output matrix is always that of the embedding."""


@dataclass(frozen=True)
class HeadSize:
    """The size of heads, of which the file has one for keys and one for values.

    Attributes:
        usual: the size where the file has none; None for the width divided by the number of heads.
        implied: whether only that quotient is possible. The configuration has no such key, or a default of its own, `usual`.
    """

    usual: int | None = None
    implied: bool = False

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        width, n_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
        quotient = width // max(1, n_heads)
        d_head = keys.integer("attention.key_length", quotient if self.implied else self.usual or quotient)
        if keys.integer("attention.value_length", d_head) != d_head:
            keys.refuse("attention.value_length", "keys and values must have the same size")
        if self.implied:
            if d_head != quotient:
                keys.refuse("attention.key_length", f"heads must have {quotient} features")
            return {} if self.usual is None else {"head_dim": d_head}
        return {"head_dim": d_head}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        if self.implied:
            quotient, d_head = config["hidden_size"] // config["num_attention_heads"], config.get("head_dim")
            if d_head not in (None, quotient):
                raise ExternalModelError(
                    f"in this architecture, llama.cpp expects heads of {quotient} features, the width divided by their "
                    f"number, and those of this model have {d_head}",
                    hint=HINT,
                )
            return {}
        size = Typed("u32", config["head_dim"])
        return {"attention.key_length": size, "attention.value_length": size}


class Dense:
    """The absence of experts."""

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        for key in ("expert_count", "expert_used_count"):
            keys.only(key, 0, why="gptkit does not read experts in this architecture")
        return {}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        return {}


DENSE = Dense()


@dataclass(frozen=True)
class Windows:
    """Attention windows in all layers but each n-th one.

    Attributes:
        period: n where the file does not have it.
    """

    period: int

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        n_layers = keys.layers("block_count")
        stored = keys.value("attention.sliding_window_pattern")
        if isinstance(stored, list) and len(stored) == n_layers and all(isinstance(each, (bool, int)) for each in stored):
            slides = [bool(each) for each in stored]
        else:
            slides = _but_every(keys.integer("attention.sliding_window_pattern", self.period), n_layers)
        types = ["sliding_attention" if each else "full_attention" for each in slides]
        return {"sliding_window": keys.integer("attention.sliding_window"), "layer_types": types}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        slides = [kind == "sliding_attention" for kind in config["layer_types"]]
        if not config.get("sliding_window") or not any(slides):
            # It aborts: its cache for these layers has no memory.
            raise ExternalModelError(
                "llama.cpp cannot load this architecture without a layer with an attention window", hint=HINT
            )
        usual = slides == _but_every(self.period, len(slides))
        periods = (n for n in range(1, len(slides) + 1) if slides == _but_every(n, len(slides)))
        keys = {"attention.sliding_window": Typed("u32", config["sliding_window"])}
        if usual:
            return keys
        period = next(periods, None)
        return keys if period is None else {**keys, "attention.sliding_window_pattern": Typed("u32", period)}


def _but_every(n: int, n_layers: int) -> list[bool]:
    """Return whether each layer is another than an n-th one; with n = 0, all are."""
    return [n == 0 or (index + 1) % n != 0 for index in range(n_layers)]


@dataclass(frozen=True)
class Periodic:
    """A list with a value for each layer, of which every n-th differs, in the configuration only.

    Attributes:
        config: the key.
        others, nth: the values.
        period: n.
        key: key of the file that holds n; empty where it is fixed.
    """

    config: str
    others: Any
    nth: Any
    period: int
    key: str = ""

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        n_layers = keys.layers("block_count")
        period = keys.integer(self.key, self.period) if self.key else self.period
        return {self.config: [self.others if each else self.nth for each in _but_every(period, n_layers)]}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        values = [value != self.nth for value in config[self.config]]
        period = next((n for n in range(1, len(values) + 1) if values == _but_every(n, len(values))), self.period)
        return {self.key: Typed("u32", period)} if self.key else {}


@dataclass(frozen=True)
class Untrained:
    """A feature that llama.cpp ignores in the architecture.

    Attributes:
        used: returns whether a configuration has the feature.
        why: the reason, as a sentence.
        read_part: returns the configuration's keys for the file's.
    """

    used: Callable[[Mapping[str, Any]], bool]
    why: str
    read_part: Callable[[ExternalConfig], dict[str, Any]] = lambda keys: {}

    def read(self, keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
        return self.read_part(keys)

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        if self.used(config):
            raise ExternalModelError(self.why, hint=HINT)
        return {}
