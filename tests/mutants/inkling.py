"""Family inkling-text with one error each: what the comparison with transformers has to notice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from gptkit.interop.families.inkling_text import InklingTextFamily
from gptkit.interop.families.parts.inkling.attention import SLIDING
from gptkit.interop.families.parts.inkling.layers import read_kinds
from gptkit.interop.families.parts.inkling.layouts import WithShared
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule
from tests.mutants.family import changed
from tests.mutants.mutant import ANYTHING, Mutant

if TYPE_CHECKING:
    from torch import Tensor

Config = dict[str, Any]


class SharedExpertsFirst(Mutant, InklingTextFamily):
    """Read the down-projections of shared experts as those of the first experts."""

    class Wrong(WithShared):
        def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
            return super().join(parts[::-1], layer)

        def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
            n_shared = layer.feedforward.router.always
            return [tensor[n_shared:], tensor[:n_shared]]

    name: Literal["shared-experts-first"] = "shared-experts-first"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def rules(self, model: Any) -> list[Rule]:
        def wrong(rule: Rule) -> Rule:
            own = rule.native == "blocks.*.feedforward.experts.down.weight"
            return Rule(rule.native, rule.external, self.Wrong()) if own else rule

        return changed(super().rules(model), wrong)


class ScalesByTheRoot(Mutant, InklingTextFamily):
    """Divide scores by the root of the size of a head."""

    name: Literal["scales-by-the-root"] = "scales-by-the-root"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def read_attention(self, config: ExternalConfig) -> Config:
        return {**super().read_attention(config), "scale": None}


class KeysForValues(Mutant, InklingTextFamily):
    """Exchange the convolutions of keys and values."""

    name: Literal["keys-for-values"] = "keys-for-values"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def rules(self, model: Any) -> list[Rule]:
        def exchanged(rule: Rule) -> Rule:
            other = {"k_conv": "v_conv", "v_conv": "k_conv"}.get(rule.native.rpartition(".")[2])
            return rule if other is None else Rule(f"blocks.*.attention.{other}", rule.external, rule.layout)

        return changed(super().rules(model), exchanged)


class BranchForBranch(Mutant, InklingTextFamily):
    """Exchange the convolutions of the outputs of attention and feed-forward."""

    name: Literal["branch-for-branch"] = "branch-for-branch"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def rules(self, model: Any) -> list[Rule]:
        def exchanged(rule: Rule) -> Rule:
            names = {"attention_conv": "feedforward_conv", "feedforward_conv": "attention_conv"}
            other = names.get(rule.native.rpartition(".")[2])
            return rule if other is None else Rule(f"blocks.*.{other}", rule.external, rule.layout)

        return changed(super().rules(model), exchanged)


class WeightsOfTheChosen(Mutant, InklingTextFamily):
    """Do not divide weights by the sum of those of chosen and shared experts."""

    name: Literal["weights-of-the-chosen"] = "weights-of-the-chosen"  # type: ignore[assignment]
    caught_by = "equals-the-reference"
    also = ANYTHING

    def read_feedforward(self, config: ExternalConfig) -> Config:
        experts = super().read_feedforward(config)
        return {**experts, "router": {**experts["router"], "renormalize": False}}


class ScalesWindows(Mutant, InklingTextFamily):
    """Scale the queries of layers with a window, too."""

    name: Literal["scales-windows"] = "scales-windows"  # type: ignore[assignment]
    caught_by = "each-option-equals-the-reference"
    also = ANYTHING

    def read_layers(self, config: ExternalConfig, n_layers: int) -> list[Config]:
        kinds, layers = read_kinds(config, n_layers), super().read_layers(config, n_layers)
        return [
            {key: value for key, value in layer.items() if kind != SLIDING or key != "position"}
            for kind, layer in zip(kinds, layers, strict=True)
        ]
