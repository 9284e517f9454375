"""YaRN as configurations of transformers describe it, and the context length before scaling."""

from __future__ import annotations

import math
from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["original_length", "read_yarn"]


def original_length(section: ExternalConfig, config: ExternalConfig | None, default: int) -> int:
    """Return the context length before scaling; the key may be in the section, beside it, or in both, with one value.

    Without a configuration it is read from the section alone.
    """
    key = "original_max_position_embeddings"
    own = config.integer(key) if config is not None and key in config else None
    result = section.integer(key, default if own is None else own)
    if config is not None and own is not None and own != result:
        config.refuse(key, f"{section.place} has {result:,}")
    return result


def read_yarn(section: ExternalConfig, config: ExternalConfig | None, longest: int) -> dict[str, Any]:
    """Return the fields of the scaling `yarn`; `longest` is the context length after scaling."""
    trained = original_length(section, config, longest)
    factor = section.number("factor", longest / trained)
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
