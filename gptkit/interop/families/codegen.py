"""CodeGen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gptkit.interop.families.gptj import GPTJFamily
from gptkit.interop.layouts import QUARTERS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["CodeGenFamily"]


class CodeGenFamily(GPTJFamily):
    """CodeGen: GPT-J with queries, values and keys of a quarter of the heads side by side in one tensor."""

    name: Literal["codegen"] = "codegen"  # type: ignore[assignment]
    model_type: ClassVar[str] = "codegen"
    architecture: ClassVar[str] = "CodeGenForCausalLM"
    rank: ClassVar[int] = 11
    ignored: ClassVar[tuple[str, ...]] = (*GPTJFamily.ignored, r".*\.attn\.causal_mask")
    tiny: ClassVar[tuple[Mapping[str, Any], ...]] = ({"rotary_dim": 8},)

    def model(self, config: ExternalConfig) -> dict[str, Any]:
        result = super().model(config)
        if result["attention"]["n_heads"] % 4:
            config.refuse("n_head", "it should be a multiple of 4, since transformers stores the heads in four parts")
        return result

    def rules(self, model: Any) -> list[Rule]:
        return [Rule("blocks.*.attention.qkv", "transformer.h.*.attn.qkv_proj", QUARTERS), *super().rules(model)]
