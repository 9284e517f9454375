"""Family `rwkv7`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Layout, Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RWKV7Family"]

_RANKS = {"decay_rank": "decay_low_rank_dim", "rate_rank": "a_low_rank_dim"}
_RANKS |= {"value_rank": "v_low_rank_dim", "gate_rank": "gate_low_rank_dim"}
_LOW_RANK = {"decay": "w_lora", "rate": "a_lora", "value_mix": "v_lora", "gate": "g_lora"}
_PROJECTIONS = {"receptance": "r_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}


class _Rows(Layout):
    """External tensors (1, 1, features) as the rows of one matrix."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        import torch

        return torch.stack([part.flatten() for part in parts])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [row[None, None] for row in tensor]


class RWKV7Family(FamilySpec):
    """RWKV-7 (Goose) as flash-linear-attention saves it, without layers of softmax attention."""

    name: Literal["rwkv7"] = "rwkv7"
    model_type: ClassVar[str] = "rwkv7"
    architecture: ClassVar[str] = "RWKV7ForCausalLM"
    harmless: ClassVar[frozenset[str]] = frozenset(
        ("attn_mode", "fuse_norm", "fuse_cross_entropy", "fuse_linear_cross_entropy", "use_l2warp", "hidden_ratio")
    )
    tiny: ClassVar[tuple[dict[str, Any], ...]] = ({"head_dim": 16, "hidden_act": "sqrelu"},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("hidden_act", "sqrelu", "relu2", why="gptkit has only the squared ReLU in this family")
        config.only("attn", why="gptkit has no layers of softmax attention in this family")
        d_model, n_layers = config.integer("hidden_size"), config.layers("num_hidden_layers")
        d_head = config.integer("head_dim", 64)
        if d_head < 2 or d_model % d_head:
            config.refuse("head_dim", f"hidden_size is {d_model}, which is not a multiple of it")
        for key in ("num_heads", "num_attention_heads"):
            config.only(
                key, d_model // d_head, why=f"hidden_size {d_model} has {d_model // d_head} heads of {d_head} features"
            )
        config.only("value_dim", [d_model] * n_layers, why="values have the width of the model in gptkit")
        norm = {"name": "layer", "eps": config.number("norm_eps", 1e-5), "shift": config.flag("norm_bias", True)}
        ranks = {own: config.integer(key) for own, key in _RANKS.items() if key in config}
        ratio = 4.0 if "intermediate_size" in config else config.number("hidden_ratio", 4.0)
        width = config.integer("intermediate_size", 32 * -(-int(ratio * d_model) // 32))
        return {
            "context_length": config.integer("max_position_embeddings", 2048),
            "d_model": d_model,
            "n_layers": n_layers,
            "vocab_size": config.integer("vocab_size"),
            "embedding": {"name": "token", "norm": norm if config.flag("norm_first", True) else None},
            "position": "none",
            "attention": {"name": "rwkv7", "d_head": d_head, "eps": norm["eps"], **ranks},
            "norm": norm,
            "feedforward": {"name": "mlp", "activation": "relu-squared", "bias": False, "d_hidden": width},
            "block": "token-shift",
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", False)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        attention = model.attention
        return {
            "max_position_embeddings": model.context_length,
            "hidden_size": model.d_model,
            "num_hidden_layers": model.n_layers,
            "vocab_size": model.vocab_size,
            "head_dim": attention.d_head,
            "num_heads": attention.n_heads,
            **{key: getattr(attention, own) for own, key in _RANKS.items()},
            "intermediate_size": model.feedforward.d_hidden,
            "hidden_act": "sqrelu",
            "norm_eps": model.norm.eps,
            "norm_bias": model.norm.shift,
            "norm_first": model.embedding.norm is not None,
            "tie_word_embeddings": model.head.tied,
        }

    def rules(self, model: Any) -> list[Rule]:
        attention = "model.layers.*.attn"
        low_rank = [
            Rule(f"blocks.*.attention.{own}.{part}", f"{attention}.{external}.lora.{index}")
            for own, external in _LOW_RANK.items()
            for part, index in (("down", 0), ("up", 2))
        ]
        names = {"removal_scale": "k_k", "key_rate": "k_a", "bonus": "r_k"}
        names |= {"norm_weight": "g_norm.weight", "norm_bias": "g_norm.bias"}
        return [
            Rule("embedding.table", "model.embeddings"),
            Rule("embedding.norm", "model.layers.0.pre_norm"),
            Rule("blocks.*.attention_norm", "model.layers.*.attn_norm"),
            Rule("blocks.*.attention.mix", f"{attention}.{{x_r,x_w,x_k,x_v,x_a,x_g}}", _Rows()),
            *low_rank,
            *(Rule(f"blocks.*.attention.{own}", f"{attention}.{each}") for own, each in {**_PROJECTIONS, **names}.items()),
            Rule("blocks.*.feedforward_norm", "model.layers.*.ffn_norm"),
            Rule("blocks.*.mix", "model.layers.*.ffn.x_k"),
            Rule("blocks.*.feedforward.up", "model.layers.*.ffn.key"),
            Rule("blocks.*.feedforward.down", "model.layers.*.ffn.value"),
            Rule("final_norm", "model.norm"),
            Rule("head", "lm_head"),
        ]

    def reference(self) -> tuple[Any, Any] | None:
        from fla.models.rwkv7 import RWKV7Config, RWKV7ForCausalLM  # type: ignore[import-not-found,unused-ignore]

        return RWKV7Config, RWKV7ForCausalLM
