"""MiniMax-Text-01."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.mixtral import MixtralFamily
from gptkit.interop.families.parts.activations import read_activation
from gptkit.interop.families.parts.hybrids import layers_with, layers_without, read_linear, write_linear
from gptkit.interop.families.parts.lightning import TABLES, lightning_rules, tables
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Constant, Rule

__all__ = ["MiniMaxFamily"]


class MiniMaxFamily(MixtralFamily):
    """MiniMax-Text-01: lightning attention in most layers, full attention in some, experts, norms after scaled sums."""

    name: Literal["minimax"] = "minimax"  # type: ignore[assignment]
    model_type: ClassVar[str] = "minimax"
    architecture: ClassVar[str] = "MiniMaxForCausalLM"
    harmless: ClassVar[frozenset[str]] = MixtralFamily.harmless | {"block_size"}
    ignored: ClassVar[tuple[str, ...]] = (*MixtralFamily.ignored, TABLES)
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"layer_types": ["linear_attention", "full_attention"] * 2},)

    def read_embedding(self, config: ExternalConfig) -> dict[str, Any]:
        # transformers normalizes before each branch, and adds to the normalized vectors: a norm after each sum.
        return {"name": "token", "norm": self.read_norm(config)}

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        whole = self.read_attention(config)["d_head"]
        config.only("rotary_dim", None, whole, why="transformers rotates whole heads in this family")
        return super().read_position(config)

    def read_block(self, config: ExternalConfig) -> dict[str, Any]:
        return {"name": "deep-norm", **_factors(config, "full_attn"), **_factors(config, "mlp", "feedforward_")}

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        full, activation = self.read_attention(config), read_activation(config, *self.activation)
        attention = {"name": "lightning", "activation": activation, "norm": {"name": "rms", "eps": 1e-6}}
        attention |= {key: full[key] for key in ("n_heads", "d_head")}
        linear = {"attention": attention, "position": "none", "block": _factors(config, "linear_attn")}
        return [linear if each else {} for each in read_linear(config, [index % 2 > 0 for index in range(n_layers)])]

    def config(self, model: Any) -> dict[str, Any]:
        layers = model.layer_specs()
        full, linear = layers_without(layers, "lightning"), layers_with(layers, "lightning")
        result = {**super().config(model), **write_linear(layers, "lightning")}
        first = {"full_attn": full[0].block, "linear_attn": (linear or full)[0].block}
        result |= {f"{branch}_alpha_factor": block.alpha for branch, block in first.items()}
        result |= {f"{branch}_beta_factor": block.residual_scale for branch, block in first.items()}
        shortcut, scale = layers[0].block.feedforward_alpha, layers[0].block.feedforward_residual_scale
        return {**result, "mlp_alpha_factor": shortcut, "mlp_beta_factor": scale}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        return super().write_attention(layers_without(layers, "lightning"))

    def constants(self, model: Any) -> Mapping[str, Constant]:
        return tables(model)

    def rules(self, model: Any) -> list[Rule]:
        last = model.n_layers - 1
        norms = [Rule(f"blocks.{i}.feedforward_norm", f"model.layers.{i + 1}.input_layernorm") for i in range(last)]
        norms += [
            Rule("embedding.norm", "model.layers.0.input_layernorm"),
            Rule("blocks.*.attention_norm", "model.layers.*.post_attention_layernorm"),
            Rule(f"blocks.{last}.feedforward_norm", "model.norm"),
        ]
        return [*norms, *lightning_rules(model), *super().rules(model)]


def _factors(config: ExternalConfig, branch: str, prefix: str = "") -> dict[str, float]:
    """Return the factors of the shortcut around a branch, and of the branch."""
    own = {"alpha": "alpha", "residual_scale": "beta"}
    return {f"{prefix}{name}": config.number(f"{branch}_{key}_factor", 1.0) for name, key in own.items()}
