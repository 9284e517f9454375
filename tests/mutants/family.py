"""Families with one error each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gptkit.components.attention.grouped_query import GroupedQuerySpec
from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.interop.families.gemma import GemmaFamily
from gptkit.interop.families.gpt2 import GPT2Family
from gptkit.interop.families.llama import LlamaFamily
from gptkit.interop.families.mistral import MistralFamily
from gptkit.interop.families.qwen2 import Qwen2Family
from gptkit.interop.families.qwen3 import Qwen3Family
from gptkit.interop.layouts import GROUPED, HEADS, SAME, TRANSPOSED, Heads
from gptkit.kinds.context import BuildContext
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Layout, Rule
from gptkit.nn.forward import Forward
from tests.mutants.attention import blind
from tests.mutants.mutant import Mutant, become

Config = dict[str, Any]


def changed(rules: Sequence[Rule], change: Callable[[Rule], Rule | None]) -> list[Rule]:
    """Return the changed rules, without those that become None."""
    return [rule for each in rules if (rule := change(each)) is not None]


class Nameless(Mutant, LlamaFamily):
    """Family without an architecture."""

    name: Literal["nameless"] = "nameless"
    architecture: ClassVar[str] = ""
    caught_by = "says-who-it-is"
    also = ("names-the-reference-class",)


class WrongArchitecture(Mutant, LlamaFamily):
    """Family with another architecture."""

    name: Literal["wrong-architecture"] = "wrong-architecture"
    architecture: ClassVar[str] = "MistralForCausalLM"
    caught_by = "names-the-reference-class"


# -- written configuration ------------------------------------------------------------------------------------------


class HalvesTheWidth(Mutant, LlamaFamily):
    """Write half of the width of every model."""

    name: Literal["halves-the-width"] = "halves-the-width"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def config(self, model: Any) -> Config:
        return {**super().config(model), "hidden_size": model.d_model // 2}


class LayerTypesUnwritten(Mutant, Qwen2Family):
    """Omit the layers with windows from the configuration."""

    name: Literal["layer-types-unwritten"] = "layer-types-unwritten"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def write_attention(self, layers: Sequence[Any]) -> Config:
        return {key: value for key, value in super().write_attention(layers).items() if key != "layer_types"}


class AttentionBiasUnwritten(Mutant, LlamaFamily):
    """Omit the biases of attention from the configuration."""

    name: Literal["attention-bias-unwritten"] = "attention-bias-unwritten"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def config(self, model: Any) -> Config:
        return {key: value for key, value in super().config(model).items() if key != "attention_bias"}


class TiedUnwritten(Mutant, LlamaFamily):
    """Omit the tied head from the configuration."""

    name: Literal["tied-unwritten"] = "tied-unwritten"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def config(self, model: Any) -> Config:
        return {key: value for key, value in super().config(model).items() if key != "tie_word_embeddings"}


class WrongActivationWritten(Mutant, LlamaFamily):
    """Write the name of another activation."""

    name: Literal["wrong-activation-written"] = "wrong-activation-written"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def write_feedforward(self, layers: Sequence[Any]) -> Config:
        return {**super().write_feedforward(layers), "hidden_act": "gelu"}


class UnknownActivationWritten(Mutant, LlamaFamily):
    """Write gptkit's name of an activation instead of that of transformers."""

    name: Literal["unknown-activation-written"] = "unknown-activation-written"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def write_feedforward(self, layers: Sequence[Any]) -> Config:
        return {**super().write_feedforward(layers), "hidden_act": f"the-{layers[0].feedforward.activation.name}"}


class ScalingLeftToTheDefault(Mutant, LlamaFamily):
    """Omit unscaled positions, for a class with a scaling by default."""

    name: Literal["scaling-left-to-the-default"] = "scaling-left-to-the-default"
    harmless: ClassVar[frozenset[str]] = LlamaFamily.harmless | {"unscaled"}
    caught_by = "leaves-nothing-to-defaults"

    def reference(self) -> tuple[Any, Any]:
        return scaled_by_default()

    def read_position(self, config: ExternalConfig) -> Config:
        if config.value("unscaled"):
            for key in ("rope_scaling", "rope_parameters"):
                config.value(key)
            return {"name": "rotary", "base": config.number("rope_theta", self.base)}
        given = config.value("rope_parameters") or config.value("rope_scaling")
        result, names = super().read_position(config), ("factor", "low_frequency_factor", "high_frequency_factor")
        default = {"name": "llama3", **dict(zip(names, (8.0, 1.0, 4.0), strict=True)), "original_context_length": 16}
        return result if given else {**result, "scaling": default}

    def config(self, model: Any) -> Config:
        result = super().config(model)
        return result if result["rope_scaling"] else {**result, "unscaled": True, "rope_parameters": None}


class ScaledByDefault(ScalingLeftToTheDefault):
    """The correct twin, which writes the positions."""

    name: Literal["scaled-by-default"] = "scaled-by-default"  # type: ignore[assignment]

    def config(self, model: Any) -> Config:
        return LlamaFamily.config(self, model)


ScalingLeftToTheDefault.twin_class = ScaledByDefault


def scaled_by_default() -> tuple[Any, Any]:
    """Llama, with a configuration class whose default is Llama 3's scaling."""
    from transformers import LlamaConfig, LlamaForCausalLM

    class ScaledConfig(LlamaConfig):
        def __post_init__(self, **keys: Any) -> None:
            if self.rope_parameters is None and keys.get("rope_scaling") is None:
                scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
                self.rope_parameters = {**scaling, "original_max_position_embeddings": 16}
            super().__post_init__(**keys)

    class Scaled(LlamaForCausalLM):
        config_class = ScaledConfig

    return ScaledConfig, Scaled


class WritesHalfPrecision(Mutant, LlamaFamily):
    """Write a dtype to which tensors are rounded when they are loaded."""

    name: Literal["writes-half-precision"] = "writes-half-precision"
    caught_by = "export-equals-the-reference"

    def config(self, model: Any) -> Config:
        return {**super().config(model), "torch_dtype": "bfloat16"}


# -- read configuration ---------------------------------------------------------------------------------------------


class WrongEpsKey(Mutant, LlamaFamily):
    """Read the epsilon of norms under another key, and list the reference's as harmless."""

    name: Literal["wrong-eps-key"] = "wrong-eps-key"
    eps: ClassVar[tuple[str, float]] = ("layer_norm_eps", 1e-6)
    harmless: ClassVar[frozenset[str]] = LlamaFamily.harmless | {"rms_norm_eps"}
    caught_by = "equals-the-reference"


class UnreadEpsKey(Mutant, LlamaFamily):
    """Read the epsilon of norms under another key, so that the reference's is refused."""

    name: Literal["unread-eps-key"] = "unread-eps-key"
    eps: ClassVar[tuple[str, float]] = ("layer_norm_eps", 1e-6)
    caught_by = "defaults-equal-the-reference"


class WrongEpsDefault(Mutant, LlamaFamily):
    """Use another default of the norms' epsilon."""

    name: Literal["wrong-eps-default"] = "wrong-eps-default"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    caught_by = "defaults-equal-the-reference"


class WrongRopeBase(Mutant, LlamaFamily):
    """Use another default of the rotary base."""

    name: Literal["wrong-rope-base"] = "wrong-rope-base"
    base: ClassVar[float] = 500000.0
    caught_by = "defaults-equal-the-reference"


class WrongTiedDefault(Mutant, GemmaFamily):
    """Use another default of the tied head."""

    name: Literal["wrong-tied-default"] = "wrong-tied-default"
    tied: ClassVar[bool] = False
    caught_by = "defaults-equal-the-reference"


class WrongActivationDefault(Mutant, GPT2Family):
    """Use the exact GELU instead of its approximation."""

    name: Literal["wrong-activation-default"] = "wrong-activation-default"
    caught_by = "defaults-equal-the-reference"

    def model(self, config: ExternalConfig) -> Config:
        config.text("activation_function", "gelu")
        return super().model(config) if "activation_function" in config else self._exact(config)

    def _exact(self, config: ExternalConfig) -> Config:
        result = super().model(config)
        return {**result, "feedforward": {**result["feedforward"], "activation": "gelu"}}


# -- computation ----------------------------------------------------------------------------------------------------


class EmbeddingUnscaled(Mutant, GemmaFamily):
    """Do not multiply embeddings by the square root of the width."""

    name: Literal["embedding-unscaled"] = "embedding-unscaled"
    caught_by = "equals-the-reference"

    def read_embedding(self, config: ExternalConfig) -> Config:
        return {"name": "token"}


class NormOffsetDropped(Mutant, GemmaFamily):
    """Multiply by w instead of 1 + w."""

    name: Literal["norm-offset-dropped"] = "norm-offset-dropped"
    caught_by = "equals-the-reference"

    def read_norm(self, config: ExternalConfig) -> Config:
        return {**super().read_norm(config), "offset": 0}


class WindowOffByOne(Mutant, MistralFamily):
    """Use a window of one token more, and subtract it when it is written."""

    name: Literal["window-off-by-one"] = "window-off-by-one"
    caught_by = "equals-the-reference"

    def read_attention(self, config: ExternalConfig) -> Config:
        result = super().read_attention(config)
        return {**result, "window": result["window"] and result["window"] + 1}

    def config(self, model: Any) -> Config:
        window = model.layer_specs()[0].attention.window
        return {**super().config(model), "sliding_window": window and window - 1}


class InterleavedPairs(Mutant, LlamaFamily):
    """Rotate adjacent features, as in the paper but not in the reference."""

    name: Literal["interleaved-pairs"] = "interleaved-pairs"
    caught_by = "equals-the-reference"

    def read_position(self, config: ExternalConfig) -> Config:
        return {**super().read_position(config), "layout": "interleaved"}


class QueryKeyNormDropped(Mutant, Qwen3Family):
    """Omit the norms of queries and keys, and ignore their tensors."""

    name: Literal["query-key-norm-dropped"] = "query-key-norm-dropped"
    ignored: ClassVar[tuple[str, ...]] = (*Qwen3Family.ignored, r".*\.[qk]_norm\.weight")
    caught_by = "equals-the-reference"
    also = ("export-equals-the-reference",)

    def read_attention(self, config: ExternalConfig) -> Config:
        return {**super().read_attention(config), "qk_norm": None}


class Altered(GroupedQuerySpec):
    """Grouped-query attention whose runtime class is `runtime`."""

    runtime: ClassVar[type[GroupedQueryAttention]]

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made: GroupedQueryAttention = become(super().build(context), self.runtime)
        return made


class AlteredAttention(Mutant, LlamaFamily):
    """Base of families whose attention is `attention`."""

    attention: ClassVar[type[Altered]]
    twin_class = LlamaFamily

    def read_attention(self, config: ExternalConfig) -> Any:
        return self.attention(**super().read_attention(config))


class SeesPadding(AlteredAttention):
    """Use an attention that attends to padding."""

    class Attention(Altered):
        class Runtime(GroupedQueryAttention):
            def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
                padded = forward.states is None and forward.left_padding_B is not None
                return super().forward(x_BTE, blind(forward, left_padding_B=None) if padded else forward)

        runtime = Runtime

    name: Literal["sees-padding"] = "sees-padding"  # type: ignore[assignment]
    attention = Attention
    caught_by = "equals-the-reference-padded"


class ForgetsItsCache(AlteredAttention):
    """Use an attention that ignores the cached tokens."""

    class Attention(Altered):
        class Runtime(GroupedQueryAttention):
            def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
                if forward.states is None:
                    return super().forward(x_BTE, forward)
                return super().forward(x_BTE, Forward(forward.ids_BT))

        runtime = Runtime

    name: Literal["forgets-its-cache"] = "forgets-its-cache"  # type: ignore[assignment]
    attention = Attention
    caught_by = "equals-the-reference-cached"


# -- tensors --------------------------------------------------------------------------------------------------------


class ForgetsATensor(Mutant, LlamaFamily):
    """Family without a rule for the last norm."""

    name: Literal["forgets-a-tensor"] = "forgets-a-tensor"
    caught_by = "rules-cover-every-tensor"
    also = ("reads-the-reference-tensors",)

    def rules(self, model: Any) -> list[Rule]:
        return changed(super().rules(model), lambda rule: None if rule.native == "final_norm" else rule)


class BiasesDropped(Mutant, Qwen2Family):
    """Omit the biases of queries, keys and values."""

    name: Literal["biases-dropped"] = "biases-dropped"
    caught_by = "reads-the-reference-tensors"

    def read_attention(self, config: ExternalConfig) -> Config:
        return {**super().read_attention(config), "qkv_bias": False}


class NormsSwapped(Mutant, LlamaFamily):
    """Exchange the two norms of a layer."""

    name: Literal["norms-swapped"] = "norms-swapped"
    caught_by = "equals-the-reference"

    def rules(self, model: Any) -> list[Rule]:
        other = {"attention_norm": "feedforward_norm", "feedforward_norm": "attention_norm"}

        def swap(rule: Rule) -> Rule:
            part = rule.native.rpartition(".")[2]
            return dataclasses.replace(rule, native=f"blocks.*.{other[part]}") if part in other else rule

        return changed(super().rules(model), swap)


class GateAndUpSwapped(Mutant, LlamaFamily):
    """Exchange gate and up-projection."""

    name: Literal["gate-and-up-swapped"] = "gate-and-up-swapped"
    caught_by = "equals-the-reference"

    def rules(self, model: Any) -> list[Rule]:
        def swap(rule: Rule) -> Rule:
            return dataclasses.replace(rule, external=rule.external.replace("{gate,up}", "{up,gate}"))

        return changed(super().rules(model), swap)


class SquareTransposed(Mutant, LlamaFamily):
    """Transpose a square matrix, which its shape does not show."""

    name: Literal["square-transposed"] = "square-transposed"
    caught_by = "equals-the-reference"
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"head_dim": 16},)

    def rules(self, model: Any) -> list[Rule]:
        square = model.attention.d_head * model.attention.n_heads == model.d_model

        def transpose(rule: Rule) -> Rule:
            turned = square and rule.native == "blocks.*.attention.output"
            return dataclasses.replace(rule, layout=TRANSPOSED) if turned else rule

        return changed(super().rules(model), transpose)


class NotTransposed(Mutant, GPT2Family):
    """Do not transpose a square matrix."""

    name: Literal["not-transposed"] = "not-transposed"
    caught_by = "equals-the-reference"

    def rules(self, model: Any) -> list[Rule]:
        def keep(rule: Rule) -> Rule:
            return dataclasses.replace(rule, layout=SAME) if rule.native == "blocks.*.attention.output" else rule

        return changed(super().rules(model), keep)


class KeysFirst(Heads):
    """Layout that joins keys before queries."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return super().join([parts[1], parts[0], parts[2]], layer)


class ValuesForKeys(Heads):
    """Exchange keys and values in `split`."""

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        q, k, v = super().split(tensor, layer)
        return [q, v, k]


class LosesTheLastRow(Heads):
    """Repeat a row of the values in place of the last one in `split`."""

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        q, k, v = super().split(tensor, layer)
        return [q, k, torch.cat((v[:-1], v[:1]))]


class JoinsOtherwise(Mutant, LlamaFamily):
    """Family with a layout whose split is not the inverse of its join."""

    name: Literal["joins-otherwise"] = "joins-otherwise"
    layout: ClassVar[Layout] = KeysFirst()
    caught_by = "layouts-are-inverse"
    also = ("equals-the-reference", "round-trip-keeps-weights", "export-equals-the-reference")

    def rules(self, model: Any) -> list[Rule]:
        def other(rule: Rule) -> Rule:
            return dataclasses.replace(rule, layout=self.layout) if rule.layout in (HEADS, GROUPED) else rule

        return changed(super().rules(model), other)


class SplitsOtherwise(JoinsOtherwise):
    """Import the correct model, and export another one."""

    name: Literal["splits-otherwise"] = "splits-otherwise"  # type: ignore[assignment]
    layout: ClassVar[Layout] = ValuesForKeys()
    twin_class = LlamaFamily
    caught_by = "layouts-are-inverse"
    also = ("round-trip-keeps-weights", "export-equals-the-reference")


class LosesARow(JoinsOtherwise):
    """Export a matrix with one row repeated."""

    name: Literal["loses-a-row"] = "loses-a-row"  # type: ignore[assignment]
    layout: ClassVar[Layout] = LosesTheLastRow()
    twin_class = LlamaFamily
    caught_by = "round-trip-keeps-weights"
    also = ("layouts-are-inverse", "export-equals-the-reference")
