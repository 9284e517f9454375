"""Families with one thing wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from mutants.mutant import Mutant
from torch import Tensor

from gptkit.interop.families.llama import LlamaFamily
from gptkit.interop.layouts import HEADS, Heads
from gptkit.kinds.family import Rule


class Nameless(Mutant, LlamaFamily):
    """Does not say which class loads it."""

    name: Literal["nameless"] = "nameless"
    architecture: ClassVar[str] = ""
    caught_by = "says-who-it-is"


class HalvesTheWidth(Mutant, LlamaFamily):
    """Writes every model as half as wide."""

    name: Literal["halves-the-width"] = "halves-the-width"
    caught_by = "config-comes-back"

    def config(self, model: Any) -> dict[str, Any]:
        return {**super().config(model), "hidden_size": model.d_model // 2}


class ForgetsATensor(Mutant, LlamaFamily):
    """Has no rule for the last norm."""

    name: Literal["forgets-a-tensor"] = "forgets-a-tensor"
    caught_by = "rules-cover-every-tensor"

    def rules(self, model: Any) -> list[Rule]:
        return [rule for rule in super().rules(model) if rule.native != "final_norm"]


class Shuffled(Heads):
    """Puts keys before queries when it joins them."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return super().join([parts[1], parts[0], parts[2]], layer)


class JoinsOtherwise(Mutant, LlamaFamily):
    """Has a layout whose split does not undo its join."""

    name: Literal["joins-otherwise"] = "joins-otherwise"
    caught_by = "layouts-are-inverse"

    def rules(self, model: Any) -> list[Rule]:
        rules = super().rules(model)
        return [dataclasses.replace(rule, layout=Shuffled()) if rule.layout is HEADS else rule for rule in rules]
