"""Keys of Inkling's sizes, and those of released files without effect."""

from __future__ import annotations

from typing import Any

from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["INERT", "read_scale", "read_sizes"]

INERT = keys(
    "chain_hidden_post_norm mtp_hidden_states_first mtp_local_layer_ids num_mtp_layers number_of_conv_states "
    "rms_norm_eps_moe_gate"
)
"""Keys of layers for multi-token prediction, which have no effect on logits, and keys that transformers does not read."""
FIXED: dict[str, Any] = {
    "final_logit_softcapping": None,
    "gate_activation": "sigmoid",
    **dict.fromkeys(("norm_after_topk", "use_embed_norm", "use_gate_bias", "use_global_scale", "use_sconv"), True),
    **dict.fromkeys(("o_bias", "q_bias"), False),
}
"""Keys of released files that transformers does not read, and what it computes."""


def read_sizes(config: ExternalConfig) -> dict[str, Any]:
    """Return the fields of the model that differ from other families'; rows for ids without a logit do not count.

    Raises:
        ExternalModelError: a key that transformers does not read has another value than what it computes.
    """
    for key, value in FIXED.items():
        config.only(key, value, why="transformers does not read it, and computes what the released models have")
    n_rows = config.integer("vocab_size")
    n_ids = config.value("unpadded_vocab_size", n_rows)
    if type(n_ids) is not int or n_ids < 1:
        config.refuse("unpadded_vocab_size", "it should be a whole number, of the ids that have a logit, or null")
    context_length = config.integer(config.alias("max_position_embeddings", "model_max_length"), 131072)
    return {"context_length": context_length, "vocab_size": min(n_rows, n_ids)}


def read_scale(config: ExternalConfig) -> float:
    """Return the factor of the logits of a head that is not tied."""
    config.only("tie_word_embeddings", False, why="transformers does not tie them in this family")
    multiplier = config.number(config.alias("logits_mup_width_multiplier", "embedding_multiplier"), 24.0)
    if multiplier == 0:
        config.refuse("logits_mup_width_multiplier", "logits are divided by it")
    return 1 / multiplier
