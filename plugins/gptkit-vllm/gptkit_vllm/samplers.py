"""Chains of samplers as vLLM's sampling parameters.

vLLM applies them in one order: biases and excluded tokens, the repetition penalty, the other penalties, the temperature,
min-p and top-k, top-p. A chain is accepted in each order that gives the same distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.kinds.sampler import SamplerSpec, expanded

__all__ = ["parameters", "stateful"]

_PENALTIES = {"repetition-penalty", "frequency-penalty", "presence-penalty"}
_KEEP_BEST = {"temperature", "top-k", "top-p", "min-p"}
"""Samplers that never exclude the most likely token."""

_BIAS, _REPETITION, _PENALTY, _TEMPERATURE, _CUT, _TOP_P = range(6)
_STAGES = ("the biases", "the repetition penalty", "the other penalties", "the temperature", "top-k and min-p", "top-p")
_LATEST = {
    "logit-bias": (_BIAS, _BIAS),
    # Excluded tokens remain so after penalties and a temperature.
    "suppress-tokens": (_BIAS, _TEMPERATURE),
    "min-length": (_BIAS, _TEMPERATURE),
    "repetition-penalty": (_REPETITION, _REPETITION),
    "frequency-penalty": (_PENALTY, _PENALTY),
    "presence-penalty": (_PENALTY, _PENALTY),
    # A temperature keeps the order of tokens, by which top-k chooses; min-p is converted.
    "temperature": (_TEMPERATURE, _CUT),
    "top-k": (_CUT, _CUT),
    "min-p": (_CUT, _CUT),
    "top-p": (_TOP_P, _TOP_P),
}
"""By name of the sampler: its stage in vLLM, and the latest stage that may precede it without another result."""

_LOWEST, _HIGHEST = 0.01, 2.0
"""Range of vLLM's temperatures; lower ones are raised to it silently, and higher ones are refused."""


def stateful(chain: Sequence[SamplerSpec]) -> bool:
    """Return whether a sampler of the chain depends on the tokens before the next one."""
    return any(spec.name in _PENALTIES for spec in expanded(chain))


def parameters(chain: Sequence[SamplerSpec], *, context_length: int, vocab_size: int, end_id: int | None) -> dict[str, Any]:
    """Return the arguments of vLLM's `SamplingParams` with which it samples as the chain does.

    Args:
        chain: the chain.
        context_length: maximum number of tokens of a text.
        vocab_size: number of token ids.
        end_id: the end token; None if the tokenizer has none.

    Raises:
        GptkitError: vLLM has no such sampler, or applies it in another order or form; names it.
    """
    result = _Parameters(context_length, vocab_size, end_id)
    specs = list(expanded(chain))
    greedy = next((place for place, spec in enumerate(specs) if spec.deterministic), None)
    if greedy is not None:
        specs = specs[: greedy + 1]
        last = max((place for place, spec in enumerate(specs[:-1]) if spec.name not in _KEEP_BEST), default=-1)
        specs = [*specs[: last + 1], specs[-1]]
    for spec in specs:
        result.add(spec)
    return result.fields


class _Parameters:
    """The arguments that were collected, and the stage of the last sampler."""

    def __init__(self, context_length: int, vocab_size: int, end_id: int | None) -> None:
        self._context_length, self._vocab_size, self._end_id = context_length, vocab_size, end_id
        self._stage = _BIAS
        self._seen: set[str] = set()
        self.fields: dict[str, Any] = {"temperature": 1.0}

    def add(self, spec: Any) -> None:
        name = spec.name
        if name == "greedy":
            self.fields["temperature"] = 0.0
            return
        if name not in _LATEST:
            _refuse(spec, "vLLM has no such sampler")
        if name in self._seen:
            _refuse(spec, "vLLM can apply it only once")
        stage, latest = _LATEST[name]
        if self._stage > latest:
            _refuse(spec, f"vLLM applies it before {_STAGES[self._stage]}; place it earlier in the chain")
        self._stage = max(stage, self._stage)
        self._seen.add(name)
        if name in _PENALTIES:
            self._penalty(spec)
        elif name == "logit-bias":
            self._bias(spec, spec.bias)
        elif name == "suppress-tokens":
            self._suppress(spec)
        elif name == "min-length":
            self._min_length(spec)
        elif name == "temperature":
            self._temperature(spec)
        else:
            self.fields |= {"top_k": spec.k} if name == "top-k" else {name.replace("-", "_"): spec.p}

    def _penalty(self, spec: Any) -> None:
        if spec.window is not None and spec.window < self._context_length:
            _refuse(spec, "vLLM's penalties consider the whole text; omit the window")
        if spec.name == "repetition-penalty" and not spec.prompt:
            _refuse(spec, "vLLM's repetition penalty considers the prompt too; set prompt: true")
        if spec.name != "repetition-penalty" and spec.prompt:
            _refuse(spec, "vLLM counts generated tokens only; set prompt: false")
        if spec.name != "repetition-penalty" and not -2 <= spec.penalty <= 2:
            _refuse(spec, f"vLLM's penalty is between -2 and 2, and this one {spec.penalty:g}")
        self.fields[spec.name.replace("-", "_")] = spec.penalty

    def _bias(self, spec: Any, bias: dict[int, float]) -> None:
        outside = next((token for token in bias if not 0 <= token < self._vocab_size), None)
        if outside is not None:
            _refuse(spec, f"the vocabulary has {self._vocab_size} tokens, and no token {outside}")
        if bias:
            self.fields["logit_bias"] = {**self.fields.get("logit_bias", {}), **bias}

    def _suppress(self, spec: Any) -> None:
        if spec.first is not None:
            _refuse(spec, "vLLM excludes tokens from the whole text; omit first")
        if len(set(spec.tokens)) >= self._vocab_size:
            _refuse(spec, "no token would be left")
        self._bias(spec, dict.fromkeys(spec.tokens, -math.inf))

    def _min_length(self, spec: Any) -> None:
        if self._end_id is not None and spec.tokens:
            # vLLM excludes the tokens at which it would stop.
            self.fields |= {"min_tokens": spec.tokens, "stop_token_ids": [self._end_id]}

    def _temperature(self, spec: Any) -> None:
        if not _LOWEST <= spec.value <= _HIGHEST:
            _refuse(spec, f"vLLM's temperature is between {_LOWEST:g} and {_HIGHEST:g}, and this one {spec.value:g}")
        self.fields["temperature"] = spec.value
        if "min_p" in self.fields:
            # P / max P at temperature 1 is the T-th power of that at temperature T.
            self.fields["min_p"] = self.fields["min_p"] ** (1 / spec.value)


def _refuse(spec: SamplerSpec, why: str) -> None:
    raise GptkitError(f"sampler {spec.name!r} with vLLM: {why}", hint="Change the chain, or use --engine native.")
