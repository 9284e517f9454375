"""DiffLlama."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gptkit.interop.families.decoder import Decoder
from gptkit.interop.layouts import Heads
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DiffLlamaFamily"]

LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")


class PairedHeads(Heads):
    """Projections whose halves are the two parts of all heads; here the two parts of a head are in succession."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return super().join([self._exchanged(part, layer, 2, -1) for part in parts], layer)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [self._exchanged(part, layer, -1, 2) for part in super().split(tensor, layer)]

    def _exchanged(self, part: Tensor, layer: Any, *sizes: int) -> Tensor:
        heads = part.reshape(*sizes, layer.attention.d_head, *part.shape[1:])
        return heads.transpose(0, 1).reshape(part.shape)


class DiffLlamaFamily(Decoder):
    """DiffLlama: Llama with differential attention, whose heads are pairs of Llama's."""

    name: Literal["diffllama"] = "diffllama"
    model_type: ClassVar[str] = "diffllama"
    architecture: ClassVar[str] = "DiffLlamaForCausalLM"
    eps: ClassVar[tuple[str, float]] = ("rms_norm_eps", 1e-5)
    harmless: ClassVar[frozenset[str]] = Decoder.harmless | {"lambda_std_dev"}
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8},)

    def read_attention(self, config: ExternalConfig) -> dict[str, Any]:
        result = super().read_attention(config)
        for field, key in {"n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads"}.items():
            if result[field] % 2:
                config.refuse(key, "a head of differential attention consists of two")
            result[field] //= 2
        norm = {"name": "rms", "eps": config.number(*self.eps), "scale": False}
        return {**result, "name": "differential", "norm": norm}

    def write_attention(self, layers: Sequence[Any]) -> dict[str, Any]:
        attention = layers[0].attention
        return {
            "num_attention_heads": 2 * attention.n_heads,
            "num_key_value_heads": 2 * attention.n_kv_heads,
            "head_dim": attention.d_head,
            "attention_bias": attention.qkv_bias,
        }

    def rules(self, model: Any) -> list[Rule]:
        layer = "model.layers.*.self_attn"
        return [
            Rule("blocks.*.attention.qkv", f"{layer}.{{q,k,v}}_proj", PairedHeads()),
            *(Rule(f"blocks.*.attention.{name}", f"{layer}.{name}") for name in LAMBDAS),
            *super().rules(model),
        ]
