"""Family qwen4-exp with one error each: what the comparison with transformers has to notice."""

from __future__ import annotations

from typing import Any, Literal

from gptkit.interop.families.qwen4_exp import Qwen4ExpFamily
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule
from tests.mutants.family import changed
from tests.mutants.mutant import ANYTHING, Mutant

Config = dict[str, Any]


class NormsOfNGramsExchanged(Mutant, Qwen4ExpFamily):
    """Exchange the norms of the residual streams and of the gated embeddings."""

    name: Literal["norms-of-ngrams-exchanged"] = "norms-of-ngrams-exchanged"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def rules(self, model: Any) -> list[Rule]:
        def named(rule: Rule) -> Rule:
            other = {"query_norm": "value_norm", "value_norm": "query_norm"}.get(rule.native.rpartition(".")[2])
            own = other is not None and rule.native.startswith("blocks.*.engram.")
            return Rule(f"blocks.*.engram.{other}", rule.external, rule.layout) if own else rule

        return changed(super().rules(model), named)


class GatesExchanged(Mutant, Qwen4ExpFamily):
    """Exchange the gates of attention and feed-forward."""

    name: Literal["gates-exchanged"] = "gates-exchanged"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def rules(self, model: Any) -> list[Rule]:
        def named(rule: Rule) -> Rule:
            swapped = rule.native.replace("attention_gates", "@").replace("feedforward_gates", "attention_gates")
            return Rule(swapped.replace("@", "feedforward_gates"), rule.external, rule.layout)

        return changed(super().rules(model), named)


class NGramsWithoutABoundary(Mutant, Qwen4ExpFamily):
    """Let n-grams reach over the end of a text."""

    name: Literal["ngrams-without-a-boundary"] = "ngrams-without-a-boundary"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def read_layers(self, config: ExternalConfig, n_layers: int) -> list[Config]:
        layers = super().read_layers(config, n_layers)
        return [
            {**layer, "block": {**layer["block"], "boundary": None}} if layer["block"]["name"] == "engram" else layer
            for layer in layers
        ]


class OneBlockMore(Mutant, Qwen4ExpFamily):
    """Choose one block of keys more."""

    name: Literal["one-block-more"] = "one-block-more"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def read_layers(self, config: ExternalConfig, n_layers: int) -> list[Config]:
        layers = super().read_layers(config, n_layers)
        return [
            {**layer, "attention": {**layer["attention"], "top_blocks": layer["attention"]["top_blocks"] + 1}}
            if layer["attention"]["name"] == "pooled-sparse"
            else layer
            for layer in layers
        ]


class ExpertsNotRenormalized(Mutant, Qwen4ExpFamily):
    """Ignore `norm_topk_prob`."""

    name: Literal["experts-not-renormalized"] = "experts-not-renormalized"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def read_feedforward(self, config: ExternalConfig) -> Config:
        experts = super().read_feedforward(config)
        return {**experts, "router": {**experts["router"], "renormalize": False}}
