"""Cohere's Command A with experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from gptkit.interop.families.cohere2 import Cohere2Family
from gptkit.interop.families.parts import experts as moe
from gptkit.interop.families.parts.rope import as_parameters
from gptkit.interop.families.parts.windows import all_but_every, read_windows
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["Cohere2MoeFamily"]


class Cohere2MoeFamily(Cohere2Family):
    """Command A with experts: dense first layers, shared experts that are added or averaged."""

    name: Literal["cohere2-moe"] = "cohere2-moe"  # type: ignore[assignment]
    model_type: ClassVar[str] = "cohere2_moe"
    architecture: ClassVar[str] = "Cohere2MoeForCausalLM"
    harmless: ClassVar[frozenset[str]] = Cohere2Family.harmless | moe.INERT
    d_head: ClassVar[int | None] = 128

    def read_position(self, config: ExternalConfig) -> dict[str, Any]:
        config.only("rope_scaling", None, why="transformers reads only rope_parameters in this family")
        return super().read_position(config)

    def read_norm(self, config: ExternalConfig) -> dict[str, Any]:
        eps, layer = config.maybe("rms_norm_eps"), super().read_norm(config)
        return layer if eps is None else {"name": "rms", "eps": eps}

    def read_feedforward(self, config: ExternalConfig) -> dict[str, Any]:
        expert, k = super().read_feedforward(config), config.integer("num_experts_per_tok", 2)
        config.only("expert_selection_fn", "softmax", "sigmoid", why="transformers has nothing else")
        sigmoid = {"name": "sigmoid", "k": k, "renormalize": config.flag("norm_topk_prob", True)}
        router = sigmoid if config.value("expert_selection_fn") == "sigmoid" else {"name": "top-k-softmax", "k": k}
        way, n_shared = "shared_expert_combination_strategy", config.integer("num_shared_experts", 0)
        config.only(way, "average", "sum", why="transformers has nothing else")
        scale = 0.5 if n_shared and config.value(way, "average") == "average" else 1.0
        shared = moe.dense(expert, expert["d_hidden"] * n_shared) if n_shared else None
        return moe.sparse(config.integer("num_experts", 8), router, expert, shared=shared, scale=scale)

    def read_layers(self, config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
        first, n = config.integer("first_k_dense_replace", 0), config.integer("sliding_window_pattern", 4)
        n_first, window = config.integer("prefix_dense_sliding_window_pattern", 1), config.nullable("sliding_window", 4096)
        default = [*all_but_every(n_first, first), *all_but_every(n, n_layers - first)]
        plain = super().read_feedforward(config)
        plain = moe.dense(plain, config.integer("prefix_dense_intermediate_size", plain["d_hidden"]))
        result = []
        slides, kinds = read_windows(config, default), moe.read_sparse(config, n_layers, first)
        for each, experts in zip(slides, kinds, strict=True):
            full: dict[str, Any] = {"position": "none"} if experts or n_first != 1 else {}
            layer: dict[str, Any] = {"attention": {"window": window}} if each else full
            result.append(layer if experts else {**layer, "feedforward": plain})
        return result

    def write_feedforward(self, layers: Sequence[Any]) -> dict[str, Any]:
        result, plain = moe.first_of(layers, "experts"), moe.first_of(layers, "gated")
        bare = any(layer.feedforward.name != "experts" and layer.position.name == "none" for layer in layers)
        return {
            **moe.write_experts(layers, "num_experts", "intermediate_size"),
            "prefix_dense_intermediate_size": None if plain is None else plain.d_hidden,
            "expert_selection_fn": "sigmoid" if result.router.name == "sigmoid" else "softmax",
            "norm_topk_prob": getattr(result.router, "renormalize", True),
            "num_shared_experts": 0 if result.shared is None else result.shared.d_hidden // result.expert.d_hidden,
            "shared_expert_combination_strategy": "average" if result.scale == 0.5 else "sum",
            **moe.write_sparse(layers),
            "prefix_dense_sliding_window_pattern": 2 if bare else 1,
        }

    def config(self, model: Any) -> dict[str, Any]:
        norm = model.layer_specs()[0].norm
        return as_parameters({**super().config(model), "rms_norm_eps": norm.eps if norm.name == "rms" else None})

    def rules(self, model: Any) -> list[Rule]:
        return [*moe.expert_rules("model.layers.*.mlp", shared="shared_experts"), *super().rules(model)]
