"""The architectures of recurrences without attention that the built-in families have: their keys and tensors, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.common_keys import SILU
from gptkit.interop.formats.gguf.layouts import DECAYS, ROWS_OF_GROUPS, SQUEEZED
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.parts import DENSE, Fixed, Key, Keys, Tied
from gptkit.interop.formats.gguf.rules import with_rules
from gptkit.interop.layouts import Chain, Flat
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["RECURRENT_ARCHITECTURES"]

_COLUMN = Flat(before=0, after=1)


class _StateHeads:
    """The heads of Mamba-2, of which the file has the number and the features of all."""

    def read(self, keys: ExternalConfig, tensors: Any) -> dict[str, Any]:
        inner, n_heads, width = (keys.integer(key) for key in ("ssm.inner_size", "ssm.time_step_rank", "embedding_length"))
        for key, whole in (("ssm.time_step_rank", n_heads), ("embedding_length", width)):
            if whole < 1 or inner % whole:
                keys.refuse(key, f"it should divide ssm.inner_size, which is {inner}")
        return {"num_heads": n_heads, "head_dim": inner // n_heads, "expand": inner // width}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        n_heads = config["num_heads"]
        return {
            "ssm.inner_size": Typed("u32", n_heads * config["head_dim"]),
            "ssm.time_step_rank": Typed("u32", n_heads),
            "attention.head_count": Typed("u32", 0),
            "feed_forward_length": Typed("u32", 0),
        }


RECURRENT_ARCHITECTURES = (
    Architecture(
        "mamba2",
        "mamba2",
        (
            Keys(
                (
                    Key("context_length", "max_position_embeddings"),
                    Key("embedding_length", "hidden_size"),
                    Key("block_count", "num_hidden_layers"),
                    Key("ssm.conv_kernel", "conv_kernel"),
                    Key("ssm.state_size", "state_size"),
                    Key("ssm.group_count", "n_groups"),
                    Key("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", "f32"),
                )
            ),
            Fixed({"use_conv_bias": True, "use_bias": False}, ignored=("attention.head_count", "feed_forward_length")),
            SILU,
            Tied,
            DENSE,
            _StateHeads(),
        ),
        with_rules(
            Rule("blocks.*.attention.input", "blk.*.ssm_in"),
            Rule("blocks.*.attention.conv.weight", "blk.*.ssm_conv1d.weight", SQUEEZED),
            Rule("blocks.*.attention.conv.bias", "blk.*.ssm_conv1d.bias"),
            Rule("blocks.*.attention.decay_log", "blk.*.ssm_a", Chain(_COLUMN, DECAYS)),
            Rule("blocks.*.attention.step_bias", "blk.*.ssm_dt.bias"),
            Rule("blocks.*.attention.skip", "blk.*.ssm_d", _COLUMN),
            Rule("blocks.*.attention.norm_weight", "blk.*.ssm_norm.weight", ROWS_OF_GROUPS),
            Rule("blocks.*.attention.output", "blk.*.ssm_out"),
        ),
    ),
)
