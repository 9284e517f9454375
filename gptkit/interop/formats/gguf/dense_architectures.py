"""The architectures of dense models with RMS norms that the built-in families have: their keys and tensors, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.core.errors import ExternalModelError
from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.common_keys import (
    ATTENTION_BIAS,
    COMMON,
    KV,
    MLP_BIAS,
    NO_BIAS,
    RMS,
    SCALES,
    SIZES,
    UNTIED,
    WIDTH,
    ignored_window,
)
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.parts import (
    DENSE,
    HINT,
    TIED,
    Fixed,
    HeadSize,
    Key,
    Keys,
    Periodic,
    Tied,
    Windows,
)
from gptkit.interop.formats.gguf.rotary import LocalRotary, Rotary
from gptkit.interop.formats.gguf.rules import FUSED, FUSED_GATE, OFFSETS, POST_NORM, TURNED, plain, with_rules

__all__ = ["DENSE_ARCHITECTURES"]

_WINDOW = "olmo2.attention.sliding_window"


def _gemma(period: int, caps: bool) -> Sequence[Any]:
    """Return the parts of Gemma 2 and 3."""
    both = (
        Key("attn_logit_softcapping", "attn_logit_softcapping", "f32", 50.0),
        Key("final_logit_softcapping", "final_logit_softcapping", "f32", 30.0),
    )
    none = Fixed({"attn_logit_softcapping": None, "final_logit_softcapping": None})
    return (Keys(both) if caps else none, Windows(period), _GemmaScale())


class _GemmaScale:
    """Gemma's scale of scores, which llama.cpp derives from the number of layers: those of 27B differ."""

    layers = (46, 62)

    def read(self, keys: Any, tensors: Any) -> dict[str, Any]:
        width, n_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
        d_head = keys.integer("attention.key_length", width // max(1, n_heads))
        large = keys.layers("block_count") in self.layers
        return {"query_pre_attn_scalar": width // max(1, n_heads) if large else d_head}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        return {}


_GEMMA = (
    Keys((*SIZES, KV, WIDTH, RMS)),
    Fixed({"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}),
    DENSE,
    HeadSize(),
)


def _dense() -> tuple[Architecture, ...]:
    rotary, partial = Rotary(), Rotary(partial=True)
    turned = with_rules(*TURNED)
    llama = (*COMMON, HeadSize(), rotary, ATTENTION_BIAS, MLP_BIAS)
    olmo = (*COMMON, UNTIED, HeadSize(implied=True), Fixed({"attention_bias": False}))
    return (
        Architecture("llama", "llama", llama, turned, lambda data: not data.get("llama.expert_count"), frequencies=True),
        Architecture("qwen2", "qwen2", (*COMMON, HeadSize(implied=True), rotary), plain),
        Architecture("qwen3", "qwen3", (*COMMON, HeadSize(128), Rotary(head=128), Fixed({"attention_bias": False})), plain),
        Architecture("gemma", "gemma", (*_GEMMA, TIED, Rotary(scalings=("linear",))), with_rules(*OFFSETS)),
        Architecture(
            "gemma2", "gemma2", (*_GEMMA, TIED, Rotary(scalings=("linear",)), *_gemma(2, caps=True)), with_rules(*OFFSETS)
        ),
        Architecture("gemma3", "gemma3_text", (*_GEMMA, Tied, LocalRotary(), *_gemma(6, caps=False)), with_rules(*OFFSETS)),
        Architecture(
            "mistral3",
            "ministral3",
            (
                *COMMON,
                HeadSize(128),
                Rotary(head=128, scalings=("yarn",), yarn={"mscale": 1.0, "mscale_all_dim": 1.0}, betas=True),
                _Tempered(),
                Fixed({"sliding_window": None}),
            ),
            turned,
        ),
        Architecture(
            "phi3",
            "phi3",
            (*COMMON, HeadSize(implied=True), partial, ignored_window("Phi 3")),
            with_rules(*FUSED, *FUSED_GATE),
        ),
        Architecture("olmo2", "olmo2", (*olmo, rotary), plain, lambda data: _WINDOW not in data),
        Architecture(
            "olmo2", "olmo3", (*olmo, LocalRotary(("yarn",), None), Windows(4)), plain, lambda data: _WINDOW in data
        ),
        Architecture("glm4", "glm4", (*COMMON, HeadSize(), partial, ATTENTION_BIAS), with_rules(*FUSED_GATE)),
        Architecture("granite", "granite", (*COMMON, HeadSize(), rotary, Keys(SCALES), ATTENTION_BIAS, MLP_BIAS), turned),
        Architecture(
            "smollm3",
            "smollm3",
            (*COMMON, HeadSize(), rotary, NO_BIAS, Periodic("no_rope_layers", 1, 0, 4)),
            turned,
        ),
        Architecture(
            "arcee",
            "arcee",
            (Keys((*SIZES, KV, WIDTH, RMS)), Fixed({"hidden_act": "relu2"}), Tied, DENSE, HeadSize(), rotary, NO_BIAS),
            turned,
            frequencies=True,
        ),
        Architecture(
            "seed_oss",
            "seed_oss",
            (
                *COMMON,
                HeadSize(128),
                Rotary(head=128),
                ATTENTION_BIAS,
                Fixed({"attention_out_bias": False, "mlp_bias": False}),
            ),
            with_rules(*POST_NORM),
        ),
        Architecture("ernie4_5", "ernie4_5", (*COMMON, HeadSize(128), Rotary(head=128), Fixed({"use_bias": False})), plain),
        Architecture("hunyuan-dense", "hunyuan_v1_dense", (*COMMON, HeadSize(), rotary, NO_BIAS), plain),
        Architecture(
            "chatglm", "glm", (*COMMON, HeadSize(128, implied=True), partial, ATTENTION_BIAS), with_rules(*FUSED_GATE)
        ),
        Architecture(
            "exaone4", "exaone4", (*COMMON, HeadSize(implied=True), rotary, _FixedWindows()), plain, frequencies=True
        ),
    )


class _FixedWindows:
    """EXAONE 4's attention windows, which llama.cpp has in models of 64 layers, and in no others."""

    n_layers = 64

    def read(self, keys: Any, tensors: Any) -> dict[str, Any]:
        if keys.layers("block_count") == self.n_layers:
            return Windows(4).read(keys, tensors)
        keys.value("attention.sliding_window")
        keys.value("attention.sliding_window_pattern")
        return {"sliding_window": None}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        if bool(config.get("sliding_window")) != (config["num_hidden_layers"] == self.n_layers):
            raise ExternalModelError(
                f"llama.cpp has attention windows in EXAONE 4 with {self.n_layers} layers, and in no others; this model has "
                f"{config['num_hidden_layers']} layers and {'no window' if not config.get('sliding_window') else 'windows'}",
                hint=HINT,
            )
        return Windows(4).write(config) if config.get("sliding_window") else {}


class _Tempered:
    """Ministral 3's queries, which grow with the logarithm of their position."""

    def read(self, keys: Any, tensors: Any) -> dict[str, Any]:
        # The last part that sets `rope_scaling` has the keys of YaRN too.
        rotary = Rotary(head=128, scalings=("yarn",), yarn={"mscale": 1.0, "mscale_all_dim": 1.0}).read(keys, tensors)
        keys.only("rope.scaling.yarn_log_multiplier", 1.0, why="YaRN must not change the amplitude in this architecture")
        tempered = {"llama_4_scaling_beta": keys.number("attention.temperature_scale", 0.0)}
        if "rope_scaling" in rotary:
            return {"rope_scaling": {**rotary["rope_scaling"], **tempered}}
        trained = {"original_max_position_embeddings": keys.integer("context_length")}
        return {"rope_parameters": {"rope_type": "default", "rope_theta": rotary["rope_theta"], **tempered, **trained}}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        beta = (config.get("rope_scaling") or {}).get("llama_4_scaling_beta")
        if beta is None:
            return {}
        return {
            "rope.scaling.yarn_log_multiplier": Typed("f32", 1.0),
            "attention.temperature_scale": Typed("f32", beta),
        }


DENSE_ARCHITECTURES = _dense()
