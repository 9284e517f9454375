"""Entry point of the built-in kinds."""

from __future__ import annotations

from gptkit.core.component import Component
from gptkit.core.hooks import hookimpl
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.attention import AttentionSpec
from gptkit.kinds.attention_backend import AttentionBackendSpec
from gptkit.kinds.block import BlockSpec
from gptkit.kinds.callback import CallbackSpec
from gptkit.kinds.data import DataSpec
from gptkit.kinds.decoding import DecodingSpec
from gptkit.kinds.drafter import DrafterSpec
from gptkit.kinds.embedding import EmbeddingSpec
from gptkit.kinds.engine import EngineSpec
from gptkit.kinds.family import FamilySpec
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.format import FormatSpec
from gptkit.kinds.head import HeadSpec
from gptkit.kinds.initializer import InitializerSpec
from gptkit.kinds.linear import LinearSpec
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.optimizer import OptimizerSpec, ScheduleSpec
from gptkit.kinds.position import PositionSpec
from gptkit.kinds.precision import PrecisionSpec
from gptkit.kinds.rotary_scaling import RotaryScalingSpec
from gptkit.kinds.router import RouterSpec
from gptkit.kinds.sampler import SamplerSpec
from gptkit.kinds.tokenizer import TokenizerSpec
from gptkit.kinds.tracker import TrackerSpec


@hookimpl
def gptkit_kinds() -> list[type[Component]]:
    return [
        TokenizerSpec,
        EmbeddingSpec,
        PositionSpec,
        RotaryScalingSpec,
        AttentionSpec,
        AttentionBackendSpec,
        NormSpec,
        LinearSpec,
        ActivationSpec,
        FeedForwardSpec,
        RouterSpec,
        BlockSpec,
        HeadSpec,
        InitializerSpec,
        SamplerSpec,
        PrecisionSpec,
        DecodingSpec,
        DrafterSpec,
        DataSpec,
        OptimizerSpec,
        ScheduleSpec,
        CallbackSpec,
        TrackerSpec,
        FamilySpec,
        FormatSpec,
        EngineSpec,
    ]
