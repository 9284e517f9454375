"""YaRN as configurations of transformers describe it, and the context length before scaling."""

from __future__ import annotations

import math
from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["LENGTH", "original_length", "read_yarn"]

LENGTH = "max_position_embeddings"


def original_length(section: ExternalConfig, config: ExternalConfig, *, beside: bool = True) -> int:
    """Return the context length before scaling: the key of the section, or that of the model.

    With `beside`, the key may be in the section, beside it, or in both, with one value. The length of the model is required
    where it counts, since the classes have different defaults.
    """
    key = "original_max_position_embeddings"
    own = config.integer(key) if beside and key in config else None
    if key not in section and own is None:
        return section.integer(key, config.integer(LENGTH))
    result = section.integer(key, own)
    if own is not None and own != result:
        config.refuse(key, f"{section.place} has {result:,}")
    return result


def read_yarn(section: ExternalConfig, config: ExternalConfig, *, beside: bool = True) -> dict[str, Any]:
    """Return the fields of the scaling `yarn`; arguments as for `original_length`."""
    trained = original_length(section, config, beside=beside)
    factor = section.number("factor") if "factor" in section else section.number("factor", config.integer(LENGTH) / trained)
    section.value("finetuned")  # makers' code reads it for scalings that depend on the length alone
    section.only("attn_factor", 1, 1.0, why="transformers does not read it, and multiplies by attention_factor")
    sharpening = section.maybe("attention_factor")
    scales = [section.maybe(key) for key in ("mscale", "mscale_all_dim")]
    if sharpening is None:
        each = [0.1 * (scale or 1) * math.log(factor) + 1 if factor > 1 else 1.0 for scale in scales]
        sharpening = each[0] / each[1] if all(scales) else (0.1 * math.log(factor) + 1 if factor > 1 else 1.0)
    return {
        "factor": factor,
        "original_context_length": trained,
        "beta_fast": section.number("beta_fast", 32),
        "beta_slow": section.number("beta_slow", 1),
        "truncate": section.flag("truncate", True),
        "attention_factor": sharpening,
    }
