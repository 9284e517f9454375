"""Family inkling2-text with one error each: what the comparison with transformers has to notice."""

from __future__ import annotations

from typing import Any, Literal

from gptkit.interop.families.inkling2_text import Inkling2TextFamily
from gptkit.interop.layouts import Same, Stack
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule
from tests.mutants.family import changed
from tests.mutants.mutant import ANYTHING, Mutant

Config = dict[str, Any]


class GatesOfExpertsFirst(Mutant, Inkling2TextFamily):
    """Read the alternating rows of experts as gates, then up-projections."""

    name: Literal["gates-of-experts-first"] = "gates-of-experts-first"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def rules(self, model: Any) -> list[Rule]:
        def wrong(rule: Rule) -> Rule:
            own = rule.external.endswith("w13_weight")
            return Rule(rule.native, rule.external, Stack(Same())) if own else rule

        return changed(super().rules(model), wrong)


class OutputForFeedForward(Mutant, Inkling2TextFamily):
    """Exchange the queries of the last feed-forward and of the output."""

    name: Literal["output-for-feed-forward"] = "output-for-feed-forward"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def rules(self, model: Any) -> list[Rule]:
        last = model.n_layers - 1
        query, output = f"model.layers.{last}.mlp_input.query", "model.final_input.query"
        exchanged = [Rule(f"blocks.{last}.feedforward_query", output), Rule(f"blocks.{last}.output_query", query)]
        return [*exchanged, *super().rules(model)]


class MeansOfSources(Mutant, Inkling2TextFamily):
    """Return means of the sources themselves."""

    name: Literal["means-of-sources"] = "means-of-sources"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def read_block(self, config: ExternalConfig) -> Config:
        return {**super().read_block(config), "normalize_sources": False}


class ScoresWithoutAScale(Mutant, Inkling2TextFamily):
    """Do not divide the scores of sources by the root of the width."""

    name: Literal["scores-without-a-scale"] = "scores-without-a-scale"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def read_block(self, config: ExternalConfig) -> Config:
        return {**super().read_block(config), "score_scale": 1.0}


class PlainConvolutions(Mutant, Inkling2TextFamily):
    """Do not divide the convolutions of layers with a window."""

    name: Literal["plain-convolutions"] = "plain-convolutions"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def read_attention(self, config: ExternalConfig) -> Config:
        return {**super().read_attention(config), "kv_conv_form": "plain"}


class OneBound(Mutant, Inkling2TextFamily):
    """Bound queries by 3, whatever the configuration says."""

    name: Literal["one-bound"] = "one-bound"  # type: ignore[assignment]
    caught_by = "each-option-equals-the-reference"
    also = ANYTHING

    def read_attention(self, config: ExternalConfig) -> Config:
        attention = super().read_attention(config)
        return {**attention, "qk_norm": {**attention["qk_norm"], "bound": 3.0}}


class OneGroup(Mutant, Inkling2TextFamily):
    """Add up the outputs of all layers."""

    name: Literal["one-group"] = "one-group"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def read_block(self, config: ExternalConfig) -> Config:
        return {**super().read_block(config), "group": 99}
