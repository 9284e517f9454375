"""Sampler `llama.cpp`: the chain of llama.cpp as a preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from gptkit.components.sampler.adaptive_p import AdaptivePSpec
from gptkit.components.sampler.dry import DrySpec
from gptkit.components.sampler.dynamic_temperature import DynamicTemperatureSpec
from gptkit.components.sampler.frequency_penalty import FrequencyPenaltySpec
from gptkit.components.sampler.greedy import GreedySpec
from gptkit.components.sampler.min_p import MinPSpec
from gptkit.components.sampler.mirostat import MirostatSpec
from gptkit.components.sampler.mirostat_v2 import MirostatV2Spec
from gptkit.components.sampler.presence_penalty import PresencePenaltySpec
from gptkit.components.sampler.repetition_penalty import RepetitionPenaltySpec
from gptkit.components.sampler.temperature import LOWEST, TemperatureSpec
from gptkit.components.sampler.top_k import TopKSpec
from gptkit.components.sampler.top_n_sigma import TopNSigmaSpec
from gptkit.components.sampler.top_p import TopPSpec
from gptkit.components.sampler.typical import TypicalSpec
from gptkit.components.sampler.xtc import XtcSpec
from gptkit.kinds.sampler import SamplerContext, SamplerSequence, SamplerSpec

__all__ = ["LlamaCppSpec"]


class LlamaCppSpec(SamplerSpec):
    """The sampler chain of llama.cpp, with its order, its parameter names and its default values.

    Formula:
        repetition, frequency and presence penalty → dry → top-n-sigma → top-k → typical → top-p → min-p → xtc →
        temperature (or dynamic-temperature, or greedy at temperature 0) → adaptive-p
        with mirostat 1 or 2:  temperature → mirostat

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://github.com/ggml-org/llama.cpp/tree/master/tools/server

    Notes:
        A preset: the chain consists of the samplers that it stands for, without those whose value has no effect. The names
        are those of the requests of llama-server. −1 stands for the whole text in repeat_last_n and dry_penalty_last_n.
    """

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"temperature": 0.7, "repeat_penalty": 1.1, "dry_multiplier": 0.8, "xtc_probability": 0.5, "dynatemp_range": 0.3},
        {"mirostat": 1},
        {"mirostat": 2},
        {"temperature": 0.0},
        {"adaptive_target": 0.4, "typical_p": 0.9, "top_n_sigma": 1.0, "frequency_penalty": 0.2, "presence_penalty": 0.1},
    )

    name: Literal["llama.cpp"] = "llama.cpp"
    temperature: float = Field(0.8, ge=0, le=100, description="Temperature; 0 selects the most likely token.")
    top_k: int = Field(40, ge=0, description="Number of tokens that top-k keeps; 0 keeps all.")
    top_p: float = Field(0.95, gt=0, le=1, description="Total probability that top-p keeps; 1 keeps all.")
    min_p: float = Field(0.05, ge=0, le=1, description="Minimum probability relative to the most likely token's; 0 is off.")
    typical_p: float = Field(1.0, gt=0, le=1, description="Total probability that typical sampling keeps; 1 keeps all.")
    top_n_sigma: float = Field(-1.0, ge=-1, description="Standard deviations below the highest logit; at most 0 is off.")
    xtc_probability: float = Field(0.0, ge=0, le=1, description="How often XTC is applied; 0 is off.")
    xtc_threshold: float = Field(0.1, gt=0, le=1, description="Probability from which a token is a top choice for XTC.")
    dynatemp_range: float = Field(0.0, ge=0, le=100, description="Range of the dynamic temperature; 0 is a fixed one.")
    dynatemp_exponent: float = Field(1.0, ge=0.01, le=100, description="Exponent of the dynamic temperature's entropy.")
    repeat_last_n: int = Field(64, ge=-1, description="Number of last tokens that penalties consider; −1 all, 0 is off.")
    repeat_penalty: float = Field(1.0, ge=0.01, le=100, description="Repetition penalty; 1 is off.")
    presence_penalty: float = Field(0.0, ge=-100, le=100, description="Presence penalty; 0 is off.")
    frequency_penalty: float = Field(0.0, ge=-100, le=100, description="Frequency penalty; 0 is off.")
    dry_multiplier: float = Field(0.0, ge=0, le=1e6, description="Multiplier of DRY; 0 is off.")
    dry_base: float = Field(1.75, ge=1, le=100, description="Base of DRY.")
    dry_allowed_length: int = Field(2, ge=1, description="Length of the longest repetition that DRY does not penalize.")
    dry_penalty_last_n: int = Field(64, ge=-1, description="Number of last tokens that DRY considers; −1 all, 0 is off.")
    dry_sequence_breakers: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("\n", ":", '"', "*"), description="Strings at which a repetition starts again for DRY."
    )
    mirostat: Literal[0, 1, 2] = Field(0, description="Version of mirostat, which replaces the other samplers; 0 is off.")
    mirostat_tau: float = Field(5.0, gt=0, le=100, description="Target surprisal of mirostat, in bits.")
    mirostat_eta: float = Field(0.1, ge=0, le=10, description="Learning rate of mirostat.")
    adaptive_target: float = Field(-1.0, ge=-1, le=1, description="Target probability of adaptive-p; negative is off.")
    adaptive_decay: float = Field(0.9, ge=0, le=0.99, description="Decay of adaptive-p.")

    @field_validator("temperature")
    @classmethod
    def _usable(cls, value: float) -> float:
        if 0 < value < LOWEST:
            raise PydanticCustomError("temperature", "a temperature must be 0 (the most likely token) or at least 0.000001")
        return value

    def expanded(self) -> tuple[SamplerSpec, ...]:
        if self.temperature == 0:
            # Of the samplers in between, only these two can exclude the most likely token.
            between = [*self._truncation(), *self._xtc()] if self.xtc_probability or self.typical_p < 1 else []
            return (*self._penalties(), *between, GreedySpec())
        if self.mirostat:
            tau, eta = self.mirostat_tau, self.mirostat_eta
            first = self.mirostat == 1
            spec: SamplerSpec = MirostatSpec(tau=tau, eta=eta, m=100) if first else MirostatV2Spec(tau=tau, eta=eta)
            return (TemperatureSpec(value=self.temperature), spec)
        return (*self._penalties(), *self._truncation(), *self._xtc(), *self._temperature())

    def build(self, context: SamplerContext) -> SamplerSequence:
        return SamplerSequence(self.expanded(), context)

    def _penalties(self) -> list[SamplerSpec]:
        specs: list[SamplerSpec] = []
        window = None if self.repeat_last_n < 0 else self.repeat_last_n
        if window != 0 and self.repeat_penalty != 1:
            specs.append(RepetitionPenaltySpec(penalty=self.repeat_penalty, window=window, prompt=True))
        if window != 0 and self.frequency_penalty:
            specs.append(FrequencyPenaltySpec(penalty=self.frequency_penalty, window=window, prompt=True))
        if window != 0 and self.presence_penalty:
            specs.append(PresencePenaltySpec(penalty=self.presence_penalty, window=window, prompt=True))
        if self.dry_multiplier and self.dry_penalty_last_n:
            dry = DrySpec(
                multiplier=self.dry_multiplier,
                base=self.dry_base,
                allowed_length=self.dry_allowed_length,
                breakers=self.dry_sequence_breakers,
                window=None if self.dry_penalty_last_n < 0 else self.dry_penalty_last_n,
            )
            specs.append(dry)
        return specs

    def _truncation(self) -> list[SamplerSpec]:
        specs: list[SamplerSpec] = []
        if self.top_n_sigma > 0:
            specs.append(TopNSigmaSpec(n=self.top_n_sigma))
        if self.top_k:
            specs.append(TopKSpec(k=self.top_k))
        if self.typical_p < 1:
            specs.append(TypicalSpec(p=self.typical_p))
        if self.top_p < 1:
            specs.append(TopPSpec(p=self.top_p))
        if self.min_p:
            specs.append(MinPSpec(p=self.min_p))
        return specs

    def _xtc(self) -> list[SamplerSpec]:
        if not self.xtc_probability:
            return []
        return [XtcSpec(threshold=self.xtc_threshold, probability=self.xtc_probability)]

    def _temperature(self) -> list[SamplerSpec]:
        specs: list[SamplerSpec] = []
        if self.dynatemp_range:
            exponent = self.dynatemp_exponent
            specs.append(DynamicTemperatureSpec(value=self.temperature, range=self.dynatemp_range, exponent=exponent))
        elif self.temperature != 1:
            specs.append(TemperatureSpec(value=self.temperature))
        if self.adaptive_target >= 0:
            specs.append(AdaptivePSpec(target=self.adaptive_target, decay=self.adaptive_decay))
        return specs
