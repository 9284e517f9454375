"""The base of families that follow Llama in how they name keys and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from gptkit.interop.families._common import keys, pattern, read_activation, write_activation
from gptkit.interop.families._rope import read_rope, write_rope
from gptkit.interop.layouts import HALVES, HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["Decoder"]


class Decoder(FamilySpec):
    """A pre-norm decoder with rotary positions, grouped queries, RMS norms and a gated feed-forward, part by part.

    A family overrides the parts in which it differs, in both directions.
    """

    harmless: ClassVar[frozenset[str]] = keys(
        "activation is_llama_config max_window_layers pretraining_tp rope_interleaved transformers.js_config use_mrope"
    )
    ignored: ClassVar[tuple[str, ...]] = (r".*\.rotary_emb\.inv_freq",)
    tied: ClassVar[bool] = False
    """`tie_word_embeddings` where the configuration has none."""
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-6)
    """Key of the norms' epsilon, and its default."""
    activation: ClassVar[tuple[str, str]] = ("hidden_act", "silu")
    """Key of the activation, and its default."""
    inner: ClassVar[str] = "mlp"
    """Name of the feed-forward in a layer."""
    width: ClassVar[str] = "intermediate_size"
    """Key of the feed-forward's width."""
    base: ClassVar[float] = 10000.0
    """`rope_theta` where the configuration has none."""
    fraction: ClassVar[float] = 1.0
    """`partial_rotary_factor` where the configuration has none."""
    partial: ClassVar[bool] = False
    """Whether `partial_rotary_factor` applies in a family that rotates whole heads by default."""
    d_head: ClassVar[int | None] = None
    """`head_dim` where the configuration has none; None for the width divided by the number of heads."""
    attention_biases: ClassVar[bool] = True
    """Whether `attention_bias` applies to queries, keys and values."""
    output_biases: ClassVar[bool] = True
    """Whether `attention_bias`, where it applies, applies to the output projection too."""
    biased: ClassVar[bool] = False
    """`attention_bias` and `mlp_bias` where the configuration has none."""
    feedforward_biases: ClassVar[bool] = False
    """Whether `mlp_bias` applies to the projections of the feed-forward."""

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        n_layers = config.layers("num_hidden_layers")
        return {
            "context_length": config.integer("max_position_embeddings", 2048),
            "d_model": config.integer("hidden_size"),
            "n_layers": n_layers,
            "vocab_size": config.integer("vocab_size"),
            "embedding": self.read_embedding(config),
            "position": self.read_position(config),
            "attention": self.read_attention(config),
            "norm": self.read_norm(config),
            "feedforward": self.read_feedforward(config),
            "block": self.read_block(config),
            "layers": pattern(self.read_layers(config, n_layers)),
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", self.tied), **self.read_head(config)},
        }

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the embedding."""
        return {"name": "token"}

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the position: rotary, scaled by `rope_scaling` or `rope_parameters`."""
        return read_rope(config, base=self.base, fraction=self.fraction, partial=self.partial or self.fraction != 1)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the attention of all layers; `read_layers` overrides it for some."""
        n_heads = config.integer("num_attention_heads")
        bias = self.attention_biases and config.flag("attention_bias", self.biased)
        return {
            "name": "grouped-query",
            "n_heads": n_heads,
            "n_kv_heads": config.integer("num_key_value_heads", n_heads),
            "d_head": config.integer("head_dim", self.d_head or config.integer("hidden_size") // max(1, n_heads)),
            "qkv_bias": bias,
            "output_bias": bias and self.output_biases,
        }

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the norm, of the layers and after the last one."""
        return {"name": "rms", "eps": config.number(*self.eps)}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the feed-forward of all layers."""
        if not self.feedforward_biases:
            config.only("mlp_bias", False, why="the family has no such biases")
        return {
            "name": "gated",
            "d_hidden": config.integer(self.width, 4 * config.integer("hidden_size")),
            "activation": read_activation(config, *self.activation),
            "bias": self.feedforward_biases and config.flag("mlp_bias", self.biased),
        }

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        """Return the block: the order of norms, branches and residuals."""
        return {"name": "pre-norm"}

    def read_head(self, config: ExternalConfig) -> dict[str, Any]:
        """Return fields of the head besides `tied`, which `model` reads: a bias, a scale, a softcap."""
        return {}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        """Return what each layer overrides, by the names of its parts; an empty list if all layers are equal."""
        return []

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        layer = layers[0]
        rotary = next((each.position for each in layers if each.position.name == "rotary"), model.position)
        return {
            "max_position_embeddings": model.context_length,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "vocab_size": model.vocab_size,
            **self.write_attention(layers),
            **self.write_feedforward(layers),
            self.eps[0]: layer.norm.eps,
            "tie_word_embeddings": model.head.tied,
            **({"partial_rotary_factor": 1.0} if self.fraction != 1 else {}),
            **(write_rope(rotary) if rotary.name == "rotary" else {}),
        }

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        """Return the keys of the attention; `layers` are the specs of all layers, after patterns."""
        attention = layers[0].attention
        return {
            "num_attention_heads": attention.n_heads,
            "num_key_value_heads": attention.kv_heads,
            "head_dim": attention.d_head,
            **({"attention_bias": attention.qkv_bias} if self.attention_biases else {}),
        }

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        """Return the keys of the feed-forward; `layers` are the specs of all layers, after patterns."""
        feedforward = layers[0].feedforward
        return {
            self.width: feedforward.d_hidden,
            self.activation[0]: write_activation(feedforward.activation),
            **({"mlp_bias": feedforward.bias} if self.feedforward_biases else {}),
        }

    def rules(self, model: Any) -> list[Rule]:
        return [
            Rule("embedding.table", "model.embed_tokens"),
            Rule("blocks.*.attention_norm", "model.layers.*.input_layernorm"),
            Rule("blocks.*.attention.qkv", "model.layers.*.self_attn.{q,k,v}_proj", HEADS),
            Rule("blocks.*.attention.q_norm", "model.layers.*.self_attn.q_norm"),
            Rule("blocks.*.attention.k_norm", "model.layers.*.self_attn.k_norm"),
            Rule("blocks.*.attention.output", "model.layers.*.self_attn.o_proj"),
            Rule("blocks.*.feedforward_norm", "model.layers.*.post_attention_layernorm"),
            Rule("blocks.*.feedforward.gate_up", f"model.layers.*.{self.inner}.{{gate,up}}_proj", HALVES),
            Rule("blocks.*.feedforward.up", f"model.layers.*.{self.inner}.up_proj"),
            Rule("blocks.*.feedforward.down", f"model.layers.*.{self.inner}.down_proj"),
            Rule("final_norm", "model.norm"),
            Rule("head", "lm_head"),
        ]
