"""Families with one error each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from mutants.attention import blind
from mutants.mutant import Mutant, become
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

Config = dict[str, Any]


def changed(rules: Sequence[Rule], change: Callable[[Rule], Rule | None]) -> list[Rule]:
    """The rules, each changed; without those that become None."""
    return [rule for each in rules if (rule := change(each)) is not None]


class Nameless(Mutant, LlamaFamily):
    """Family without an architecture."""

    name: Literal["nameless"] = "nameless"
    architecture: ClassVar[str] = ""
    caught_by = "says-who-it-is"
    also = ("names-the-reference-class",)


class WrongArchitecture(Mutant, LlamaFamily):
    """Says that another class loads it."""

    name: Literal["wrong-architecture"] = "wrong-architecture"
    architecture: ClassVar[str] = "MistralForCausalLM"
    caught_by = "names-the-reference-class"


# -- the configuration that is written ------------------------------------------------------------------------------


class HalvesTheWidth(Mutant, LlamaFamily):
    """Write half of the width of every model."""

    name: Literal["halves-the-width"] = "halves-the-width"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def config(self, model: Any) -> Config:
        return {**super().config(model), "hidden_size": model.d_model // 2}


class LayerTypesUnwritten(Mutant, Qwen2Family):
    """Does not write which layers have windows."""

    name: Literal["layer-types-unwritten"] = "layer-types-unwritten"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def write_attention(self, layers: Sequence[Any]) -> Config:
        return {key: value for key, value in super().write_attention(layers).items() if key != "layer_types"}


class AttentionBiasUnwritten(Mutant, LlamaFamily):
    """Does not write that attention has biases."""

    name: Literal["attention-bias-unwritten"] = "attention-bias-unwritten"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def config(self, model: Any) -> Config:
        return {key: value for key, value in super().config(model).items() if key != "attention_bias"}


class TiedUnwritten(Mutant, LlamaFamily):
    """Does not write that the head is tied."""

    name: Literal["tied-unwritten"] = "tied-unwritten"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def config(self, model: Any) -> Config:
        return {key: value for key, value in super().config(model).items() if key != "tie_word_embeddings"}


class WrongActivationWritten(Mutant, LlamaFamily):
    """Writes the name of another activation."""

    name: Literal["wrong-activation-written"] = "wrong-activation-written"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def write_feedforward(self, layers: Sequence[Any]) -> Config:
        return {**super().write_feedforward(layers), "hidden_act": "gelu"}


class UnknownActivationWritten(Mutant, LlamaFamily):
    """Writes gptkit's name of an activation in place of the one that transformers has."""

    name: Literal["unknown-activation-written"] = "unknown-activation-written"
    caught_by = "config-comes-back"
    also = ("leaves-nothing-to-defaults", "export-equals-the-reference")

    def write_feedforward(self, layers: Sequence[Any]) -> Config:
        return {**super().write_feedforward(layers), "hidden_act": f"the-{layers[0].feedforward.activation.name}"}


class ScalingLeftToTheDefault(Mutant, LlamaFamily):
    """Writes no positions where they are not scaled, for a class whose default is a scaling."""

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
        found, names = super().read_position(config), ("factor", "low_frequency_factor", "high_frequency_factor")
        default = {"name": "llama3", **dict(zip(names, (8.0, 1.0, 4.0), strict=True)), "original_context_length": 16}
        return found if given else {**found, "scaling": default}

    def config(self, model: Any) -> Config:
        found = super().config(model)
        return found if found["rope_scaling"] else {**found, "unscaled": True, "rope_parameters": None}


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
    """Writes that the tensors are to be rounded when they are loaded."""

    name: Literal["writes-half-precision"] = "writes-half-precision"
    caught_by = "export-equals-the-reference"

    def config(self, model: Any) -> Config:
        return {**super().config(model), "torch_dtype": "bfloat16"}


# -- the configuration that is read ---------------------------------------------------------------------------------


class WrongEpsKey(Mutant, LlamaFamily):
    """Reads the epsilon of norms under another key, and calls the reference's harmless."""

    name: Literal["wrong-eps-key"] = "wrong-eps-key"
    eps: ClassVar[tuple[str, float]] = ("layer_norm_eps", 1e-6)
    harmless: ClassVar[frozenset[str]] = LlamaFamily.harmless | {"rms_norm_eps"}
    caught_by = "equals-the-reference"


class UnreadEpsKey(Mutant, LlamaFamily):
    """Reads the epsilon of norms under another key, so that it refuses the reference's."""

    name: Literal["unread-eps-key"] = "unread-eps-key"
    eps: ClassVar[tuple[str, float]] = ("layer_norm_eps", 1e-6)
    caught_by = "defaults-equal-the-reference"


class WrongEpsDefault(Mutant, LlamaFamily):
    """Has another default of the norms' epsilon."""

    name: Literal["wrong-eps-default"] = "wrong-eps-default"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    caught_by = "defaults-equal-the-reference"


class WrongRopeBase(Mutant, LlamaFamily):
    """Has another default of the rotary base."""

    name: Literal["wrong-rope-base"] = "wrong-rope-base"
    base: ClassVar[float] = 500000.0
    caught_by = "defaults-equal-the-reference"


class WrongTiedDefault(Mutant, GemmaFamily):
    """Has another default of whether the head is tied."""

    name: Literal["wrong-tied-default"] = "wrong-tied-default"
    tied: ClassVar[bool] = False
    caught_by = "defaults-equal-the-reference"


class WrongActivationDefault(Mutant, GPT2Family):
    """Has the exact GELU where the class has its approximation."""

    name: Literal["wrong-activation-default"] = "wrong-activation-default"
    caught_by = "defaults-equal-the-reference"

    def model(self, config: ExternalConfig) -> Config:
        config.text("activation_function", "gelu")
        return super().model(config) if "activation_function" in config else self._exact(config)

    def _exact(self, config: ExternalConfig) -> Config:
        found = super().model(config)
        return {**found, "feedforward": {**found["feedforward"], "activation": "gelu"}}


# -- what is computed -----------------------------------------------------------------------------------------------


class EmbeddingUnscaled(Mutant, GemmaFamily):
    """Does not multiply embeddings by the root of the width."""

    name: Literal["embedding-unscaled"] = "embedding-unscaled"
    caught_by = "equals-the-reference"

    def read_embedding(self, config: ExternalConfig) -> Config:
        return {"name": "token"}


class NormOffsetDropped(Mutant, GemmaFamily):
    """Multiplies by w where the reference multiplies by 1 + w."""

    name: Literal["norm-offset-dropped"] = "norm-offset-dropped"
    caught_by = "equals-the-reference"

    def read_norm(self, config: ExternalConfig) -> Config:
        return {**super().read_norm(config), "offset": 0}


class WindowOffByOne(Mutant, MistralFamily):
    """Has a window of one token more, and takes it off when it writes."""

    name: Literal["window-off-by-one"] = "window-off-by-one"
    caught_by = "equals-the-reference"

    def read_attention(self, config: ExternalConfig) -> Config:
        found = super().read_attention(config)
        return {**found, "window": found["window"] and found["window"] + 1}

    def config(self, model: Any) -> Config:
        window = model.layer_specs()[0].attention.window
        return {**super().config(model), "sliding_window": window and window - 1}


class InterleavedPairs(Mutant, LlamaFamily):
    """Rotates neighbouring features, as the paper does and the reference does not."""

    name: Literal["interleaved-pairs"] = "interleaved-pairs"
    caught_by = "equals-the-reference"

    def read_position(self, config: ExternalConfig) -> Config:
        return {**super().read_position(config), "layout": "interleaved"}


class QueryKeyNormDropped(Mutant, Qwen3Family):
    """Has no norms of queries and keys, and ignores their tensors."""

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
    """Names an attention that attends to padding."""

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
    """Names an attention that sees the new tokens alone when it decodes with a cache."""

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
    also = ("reads-the-reference's-tensors",)

    def rules(self, model: Any) -> list[Rule]:
        return changed(super().rules(model), lambda rule: None if rule.native == "final_norm" else rule)


class BiasesDropped(Mutant, Qwen2Family):
    """Has no biases of queries, keys and values."""

    name: Literal["biases-dropped"] = "biases-dropped"
    caught_by = "reads-the-reference's-tensors"

    def read_attention(self, config: ExternalConfig) -> Config:
        return {**super().read_attention(config), "qkv_bias": False}


class NormsSwapped(Mutant, LlamaFamily):
    """Takes the two norms of a layer for each other."""

    name: Literal["norms-swapped"] = "norms-swapped"
    caught_by = "equals-the-reference"

    def rules(self, model: Any) -> list[Rule]:
        other = {"attention_norm": "feedforward_norm", "feedforward_norm": "attention_norm"}

        def swap(rule: Rule) -> Rule:
            part = rule.native.rpartition(".")[2]
            return dataclasses.replace(rule, native=f"blocks.*.{other[part]}") if part in other else rule

        return changed(super().rules(model), swap)


class GateAndUpSwapped(Mutant, LlamaFamily):
    """Takes the gate for the up-projection."""

    name: Literal["gate-and-up-swapped"] = "gate-and-up-swapped"
    caught_by = "equals-the-reference"

    def rules(self, model: Any) -> list[Rule]:
        def swap(rule: Rule) -> Rule:
            return dataclasses.replace(rule, external=rule.external.replace("{gate,up}", "{up,gate}"))

        return changed(super().rules(model), swap)


class SquareTransposed(Mutant, LlamaFamily):
    """Transposes a matrix that is square, so that its shape does not tell."""

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
    """Does not transpose a matrix that is square."""

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
    """Takes keys for values when it splits."""

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        q, k, v = super().split(tensor, layer)
        return [q, v, k]


class LosesTheLastRow(Heads):
    """Repeats a row of the values in place of the last one when it splits."""

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
    """Imports the right model, and exports another one."""

    name: Literal["splits-otherwise"] = "splits-otherwise"  # type: ignore[assignment]
    layout: ClassVar[Layout] = ValuesForKeys()
    twin_class = LlamaFamily
    caught_by = "layouts-are-inverse"
    also = ("round-trip-keeps-weights", "export-equals-the-reference")


class LosesARow(JoinsOtherwise):
    """Exports a matrix with one row twice."""

    name: Literal["loses-a-row"] = "loses-a-row"  # type: ignore[assignment]
    layout: ClassVar[Layout] = LosesTheLastRow()
    twin_class = LlamaFamily
    caught_by = "round-trip-keeps-weights"
    also = ("layouts-are-inverse", "export-equals-the-reference")
