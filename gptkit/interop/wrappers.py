"""Multimodal models whose language model is read: its configuration, and the names of its tensors.

Such a model puts vectors of images or sounds in place of those of certain tokens. On text alone, it computes what its
language model does, which has a configuration of its own in `text_config` and its tensors below a prefix.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from gptkit.kinds.family import FamilySpec

__all__ = ["is_wrapper", "language_config", "within_wrapper", "wrappers"]

FILE = Path(__file__).with_name("wrappers.toml")
_NESTED = "text_config"
_OTHERS = "another_modality."
"""What the names of tensors of other modalities begin with, once renamed."""
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


@cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def wrappers() -> Mapping[str, str]:
    """Return the type of the language model by the type of the multimodal model; a configuration may name another one."""
    types: Mapping[str, str] = _table()["wrappers"]
    return types


def is_wrapper(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration is that of a multimodal model whose language model is read."""
    model_type = config.get("model_type")
    return isinstance(model_type, str) and model_type in wrappers()


def language_config(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return the configuration of the language model of a multimodal one, whose tensors have these names.

    Older files have its keys beside those of the other modalities. With text alone, the sections of multimodal rotary
    positions are equal, so that they are ordinary ones.
    """
    table = _table()
    nested = config.get(_NESTED)
    if isinstance(nested, Mapping):
        inner = dict(nested)
    else:
        inner = {name: value for name, value in config.items() if not _of_others(name, value)}
        inner["model_type"] = None
    inner["model_type"] = inner.get("model_type") or wrappers()[config["model_type"]]
    if isinstance(inner["model_type"], str):
        inner["model_type"] = table["same"].get(inner["model_type"], inner["model_type"])
    inner |= table["unused"].get(config["model_type"], {})
    if not any(name.endswith("lm_head.weight") for name in names):
        inner["tie_word_embeddings"] = True
    elif "tie_word_embeddings" in config:
        inner["tie_word_embeddings"] = config["tie_word_embeddings"]
    for name in ("rope_parameters", "rope_scaling"):
        if isinstance(inner.get(name), Mapping):
            inner[name] = _text_rotation(inner[name])
    return inner


def _of_others(name: str, value: Any) -> bool:
    """Return whether a key of a file without `text_config` belongs to another modality, or to the whole."""
    tokens = name.endswith(("_token_id", "_token_index")) and name not in _TOKENS
    return tokens or name.startswith("vision_") or (isinstance(value, Mapping) and name.endswith("_config"))


def _text_rotation(parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    plain = {name: value for name, value in parameters.items() if name not in ("mrope_section", "mrope_interleaved")}
    for name in ("type", "rope_type"):
        if plain.get(name) == "mrope":
            plain[name] = "default"
    return plain if set(plain) - {"type"} or plain.get("type") != "default" else None


def within_wrapper(family: FamilySpec) -> FamilySpec:
    """Return the family of a language model such that it reads the tensors of a multimodal model, and skips the others."""
    kept = ("lm_head.", *(f"{family.prefix}{name}." for name in ("embed_tokens", "layers", "norm")))
    models = _table()["models"]
    names = {
        **{prefix + own: other for prefix in models for own, other in family.prefixes.items()},
        **dict.fromkeys(_table()["decoders"], family.prefix),
        **dict.fromkeys(models, ""),
        **{prefix: prefix for prefix in kept},
        "": _OTHERS,
    }
    # Not registered: a family of the same name, which differs in these two declarations.
    declared = {"prefixes": names, "ignored": (*family.ignored, rf"{_OTHERS}.*")}
    cls = cast("type[FamilySpec]", type(type(family).__name__, (type(family),), declared))
    return cls.model_construct(**{name: getattr(family, name) for name in type(family).model_fields})
