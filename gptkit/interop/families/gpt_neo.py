"""GPT-Neo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.gpt2 import GPT2Family
from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.layers import pattern
from gptkit.interop.layouts import HEADS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import FamilySpec, Rule

__all__ = ["GPTNeoFamily"]


class GPTNeoFamily(FamilySpec):
    """GPT-Neo: learned positions, sliding windows in every other layer, scores without a scale."""

    name: Literal["gpt-neo"] = "gpt-neo"
    model_type: ClassVar[str] = "gpt_neo"
    architecture: ClassVar[str] = "GPTNeoForCausalLM"
    prefix: ClassVar[str] = "transformer."
    harmless: ClassVar[frozenset[str]] = GPT2Family.harmless | {"embed_dropout", "gradient_checkpointing"}
    ignored: ClassVar[tuple[str, ...]] = (r".*\.attn\.attention\.(masked_)?bias",)
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"num_layers": 4, "num_heads": 4, "window_size": 6, "attention_types": [[["global", "local"], 2]]},
    )

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        d_model, n_layers = config.integer("hidden_size", 2048), config.layers("num_layers", 24)
        n_heads, window = config.integer("num_heads", 16), config.integer("window_size", 256)
        config.agree("num_layers", "num_hidden_layers")
        config.agree("num_heads", "num_attention_heads")
        kinds = [
            kind for names, times in config.items("attention_types", [[["global", "local"], 12]]) for kind in names * times
        ]
        if len(kinds) != n_layers or not set(kinds) <= {"global", "local"}:
            config.refuse("attention_types", f"it should name global or local for each of {n_layers} layers")
        config.only("attention_layers", kinds, why="attention_types names others")
        layers = [{"attention": {"window": window}} if kind == "local" else {} for kind in kinds]
        return {
            "context_length": config.integer("max_position_embeddings", 2048),
            "d_model": d_model,
            "n_layers": n_layers,
            "vocab_size": config.integer("vocab_size", 50257),
            "position": "learned",
            "attention": {"name": "multi-head", "n_heads": n_heads, "output_bias": True, "scale": 1.0},
            "norm": {"name": "layer", "eps": config.number("layer_norm_epsilon", 1e-5)},
            "feedforward": {
                "name": "mlp",
                "d_hidden": config.integer("intermediate_size", 4 * d_model),
                "activation": read_activation(config, "activation_function", "gelu_new"),
            },
            "layers": pattern(layers),
            "head": {"name": "linear", "tied": config.flag("tie_word_embeddings", True)},
        }

    def config(self, model: Any) -> dict[str, Any]:
        windows = [layer.attention.window for layer in model.layer_specs()]
        names = {"n_positions": "max_position_embeddings", "n_embd": "hidden_size", "n_layer": "num_layers"}
        names |= {"n_head": "num_heads", "n_inner": "intermediate_size"}
        written = GPT2Family.config(GPT2Family(name="gpt2"), model)  # scores are never scaled in this family
        return {
            **{names.get(key, key): value for key, value in written.items() if not key.startswith("scale_attn")},
            "attention_types": [[["local" if window else "global"], 1] for window in windows],
            "window_size": next((window for window in windows if window), 256),
            "activation_function": write_activation(model.feedforward.activation),
        }

    def rules(self, model: Any) -> list[Rule]:
        layer = "transformer.h.*"
        mlp = [
            Rule("blocks.*.feedforward.up", f"{layer}.mlp.c_fc"),
            Rule("blocks.*.feedforward.down", f"{layer}.mlp.c_proj"),
        ]
        qkv = Rule("blocks.*.attention.qkv", f"{layer}.attn.attention.{{q,k,v}}_proj", HEADS)
        output = Rule("blocks.*.attention.output", f"{layer}.attn.attention.out_proj")
        return [qkv, output, *mlp, *GPT2Family(name="gpt2").rules(model)]
