"""The GGUF architecture of a family: the names of its keys and tensors in GGUF files.

Only the direction from a file's keys to a family's configuration is binding: a model is exported only where the keys that
are written read back as the same model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.kinds.external_config import ExternalConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FREQUENCIES", "Architecture", "permute", "read_rope_factors", "rope_factors", "unpermute"]

FREQUENCIES = "rope_freqs.weight"
"""Divisors of the rotary frequencies: the form in which llama.cpp stores Llama 3's scaling."""
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_TRAINED = tuple(2**power for power in range(4, 21))
"""Context lengths that a scaled model may have been trained with; the factors are compared for each."""


@dataclass(frozen=True)
class Architecture:
    """An architecture of llama.cpp, as a family declares it (`FamilySpec.gguf`).

    Attributes:
        name: the value of `general.architecture`.
        model_type: that of the family; a family that inherits the declaration and has another `model_type` has none.
        names: the family's tensor names and those in the file, ``*`` being the index of the layer.
        read: returns the family's configuration for the keys (without the architecture's prefix) and the tensors' names.
        write: returns the keys for a family's configuration.
        interleaved: whether rotary positions rotate neighboring features, for which the rows of queries and keys are
            permuted.
        transposed: tensors that are stored transposed, by the last part of their name in the file.
    """

    name: str
    model_type: str
    names: Mapping[str, str]
    read: Callable[[ExternalConfig, Collection[str]], dict[str, Any]]
    write: Callable[[Mapping[str, Any]], dict[str, Typed]]
    interleaved: bool = False
    transposed: Collection[str] = field(default=())

    def renamed(self, name: str, *, back: bool = False) -> str | None:
        """Return the name in the file of a family's tensor, or with `back` the reverse; None where there is none."""
        stem, _, leaf = name.rpartition(".")
        number = re.search(r"\.(\d+)\.", stem)
        plain = stem if number is None else f"{stem[: number.start()]}.*.{stem[number.end() :]}"
        table = {stored: name for name, stored in self.names.items()} if back else self.names
        result = table.get(plain)
        if result is None or leaf not in ("weight", "bias"):
            return None
        return f"{result if number is None else result.replace('*', number[1])}.{leaf}"

    def rearranged(self, name: str) -> str | None:
        """Return the configuration's key for the number of heads by which a tensor's rows are permuted; None for others."""
        if not self.interleaved:
            return None
        match = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", name)
        return None if match is None else {"q": "num_attention_heads", "k": "num_key_value_heads"}[match[1]]


def permute(tensor: Tensor, n_heads: int) -> Tensor:
    """Permute the rows of each head from halves to neighbors: (H, 2, D/2) to (H, D/2, 2)."""
    return tensor.reshape(n_heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def unpermute(tensor: Tensor, n_heads: int) -> Tensor:
    """Invert `permute`."""
    return tensor.reshape(n_heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def rope_factors(config: Mapping[str, Any]) -> Tensor | None:
    """Return the tensor `FREQUENCIES` for a configuration with Llama 3's scaling; None without it."""
    # Families are listed without torch.
    import torch

    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") != "llama3":
        return None
    d_head, base, factor = config["head_dim"], config["rope_theta"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    trained = scaling["original_max_position_embeddings"]
    factors = []
    for index in range(0, d_head, 2):
        turns = trained / (2 * math.pi * base ** (index / d_head))
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        factors.append(1 / ((1 - share) / factor + share))
    return torch.tensor(factors, dtype=torch.float32)


def read_rope_factors(config: Mapping[str, Any], stored: Tensor, location: str) -> dict[str, Any]:
    """Return the scaling of rotary positions that gives these factors.

    Raises:
        ExternalModelError: no known scaling does.
    """
    import torch

    largest = float(stored.max()) if stored.numel() else 0.0
    sound = 1 <= largest < 1e6 and config["rope_theta"] > 1 and 2 * stored.numel() == config["head_dim"]
    for trained in _TRAINED if sound else ():
        scaling = {
            "rope_type": "llama3",
            "factor": round(largest, 4),
            **_LLAMA3,
            "original_max_position_embeddings": trained,
        }
        expected = rope_factors({**config, "rope_scaling": scaling})
        if expected is not None and torch.allclose(expected, stored.float(), rtol=1e-4):
            return scaling
    raise ExternalModelError(f"{location}: {FREQUENCIES} is an unsupported scaling of rotary positions")
