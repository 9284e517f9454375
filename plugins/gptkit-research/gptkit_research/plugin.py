"""Entry point of the plugin."""

from __future__ import annotations

from pathlib import Path

import gptkit
from gptkit.core.component import Component
from gptkit_research.bigram import BigramSpec
from gptkit_research.cope import CopeSpec
from gptkit_research.dynamic_tanh import DynamicTanhSpec
from gptkit_research.fire import FireSpec
from gptkit_research.forgetting import ForgettingSpec
from gptkit_research.hyper_connections import HyperConnectionsSpec
from gptkit_research.input_residual import InputResidualSpec
from gptkit_research.kerple import KerpleSpec
from gptkit_research.looped import LoopedSpec
from gptkit_research.pope import PopeSpec
from gptkit_research.rwkv7 import RWKV7Spec
from gptkit_research.rwkv7_family import RWKV7Family
from gptkit_research.skips import SkipsSpec
from gptkit_research.smear import SmearSpec
from gptkit_research.talking_heads import TalkingHeadsSpec
from gptkit_research.ternary import TernarySpec
from gptkit_research.token_shift import TokenShiftSpec
from gptkit_research.value_embedding import ValueEmbeddingSpec
from gptkit_research.value_residual import ValueResidualSpec

__all__ = ["gptkit_components", "gptkit_presets"]


@gptkit.hookimpl
def gptkit_components() -> list[type[Component]]:
    return [
        ForgettingSpec,
        ValueResidualSpec,
        ValueEmbeddingSpec,
        TalkingHeadsSpec,
        RWKV7Spec,
        CopeSpec,
        FireSpec,
        KerpleSpec,
        PopeSpec,
        DynamicTanhSpec,
        HyperConnectionsSpec,
        InputResidualSpec,
        LoopedSpec,
        SkipsSpec,
        TokenShiftSpec,
        BigramSpec,
        SmearSpec,
        TernarySpec,
        RWKV7Family,
    ]


@gptkit.hookimpl
def gptkit_presets() -> list[Path]:
    return [Path(__file__).parent / "presets"]
