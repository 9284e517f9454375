"""Chains of samplers as llama.cpp's parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.kinds.sampler import SamplerSpec, expanded

__all__ = ["parameters", "stateful"]

_PENALTIES = {"repetition-penalty": "repeat_penalty", "frequency-penalty": "frequency_penalty"}
_PENALTIES |= {"presence-penalty": "presence_penalty"}
_ORDINARY: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "temperature": ("temperature", lambda spec: {"temperature": spec.value}),
    "dynamic-temperature": (
        "temperature",
        lambda spec: {"temperature": spec.value, "dynatemp_range": spec.range, "dynatemp_exponent": spec.exponent},
    ),
    "top-k": ("top_k", lambda spec: {"top_k": spec.k}),
    "top-p": ("top_p", lambda spec: {"top_p": spec.p}),
    "min-p": ("min_p", lambda spec: {"min_p": spec.p}),
    "typical": ("typ_p", lambda spec: {"typical_p": spec.p}),
    "top-n-sigma": ("top_n_sigma", lambda spec: {"top_n_sigma": spec.n}),
    "xtc": ("xtc", lambda spec: {"xtc_probability": spec.probability, "xtc_threshold": spec.threshold}),
}
"""By name of the sampler: its name in llama.cpp's list, and its parameters."""
_KEEP_BEST = {"temperature", "dynamic-temperature", "top-k", "top-p", "min-p", "top-n-sigma"}
"""Samplers that never exclude the most likely token."""
_STATEFUL = {*_PENALTIES, "dry", "mirostat", "mirostat-v2", "adaptive-p"}


def stateful(chain: Sequence[SamplerSpec]) -> bool:
    """Return whether a sampler of the chain depends on more than the next token's logits."""
    return any(spec.name in _STATEFUL for spec in expanded(chain))


def parameters(chain: Sequence[SamplerSpec], context_length: int) -> dict[str, Any]:
    """Return the fields of a request to llama.cpp with which it samples as the chain does.

    llama.cpp has one sampler of each kind; biases come first, and mirostat allows only a temperature beside it.

    Args:
        chain: the chain.
        context_length: maximum number of tokens of a text.

    Raises:
        GptkitError: llama.cpp has no such sampler, or not in this place; names it.
    """
    result = _Parameters(context_length)
    specs = list(expanded(chain))
    greedy = next((place for place, spec in enumerate(specs) if spec.deterministic), None)
    if greedy is not None:
        specs = specs[: greedy + 1]
        last = max((place for place, spec in enumerate(specs[:-1]) if spec.name not in _KEEP_BEST), default=-1)
        specs = [*specs[: last + 1], specs[-1]]
    for spec in specs:
        result.add(spec)
    return {**result.fields, "samplers": result.order}


class _Parameters:
    """The fields that were collected, and the order of llama.cpp's samplers."""

    def __init__(self, context_length: int) -> None:
        self._context_length = context_length
        # Everything that llama.cpp would apply by default is switched off.
        self.fields: dict[str, Any] = {"temperature": 1.0, "mirostat": 0, "min_keep": 0}
        self.order: list[str] = []
        self._last: SamplerSpec | None = None

    def add(self, spec: SamplerSpec) -> None:
        name = spec.name
        if self._last is not None and self._last.name in ("mirostat", "mirostat-v2", "adaptive-p"):
            _refuse(spec, f"in llama.cpp, no sampler can follow {self._last.name}")
        if name in _ORDINARY:
            other, fields = _ORDINARY[name]
            self._append(spec, other, fields(spec))
        elif name in _PENALTIES:
            self._penalty(spec)
        elif name in ("logit-bias", "suppress-tokens"):
            self._bias(spec)
        elif name == "greedy":
            self._greedy(spec)
        elif name == "dry":
            self._dry(spec)
        elif name in ("mirostat", "mirostat-v2"):
            self._mirostat(spec)
        elif name == "adaptive-p":
            self._adaptive(spec)
        else:
            _refuse(spec, "llama.cpp has no such sampler")
        self._last = spec

    def _append(self, spec: SamplerSpec, other: str, fields: dict[str, Any]) -> None:
        if other in self.order:
            _refuse(spec, f"llama.cpp can apply its sampler {other} only once")
        self.order.append(other)
        self.fields |= fields

    def _window(self, spec: Any) -> int:
        return self._context_length if spec.window is None else min(spec.window, self._context_length)

    def _penalty(self, spec: Any) -> None:
        window = self._window(spec)
        if not spec.prompt:
            _refuse(spec, "llama.cpp's penalties consider the prompt too; set prompt: true")
        first = self._last is None or self._last.name not in _PENALTIES
        if first:
            self._append(spec, "penalties", {"repeat_last_n": window})
        elif self.fields["repeat_last_n"] != window:
            _refuse(spec, "llama.cpp's penalties consider the same number of last tokens; set the same window")
        elif spec.name == "repetition-penalty":
            _refuse(spec, "llama.cpp applies it before the other penalties; place it first")
        if _PENALTIES[spec.name] in self.fields:
            _refuse(spec, "llama.cpp can apply it only once")
        self.fields[_PENALTIES[spec.name]] = spec.penalty

    def _bias(self, spec: Any) -> None:
        if self.order or self.fields["mirostat"]:
            _refuse(spec, "llama.cpp applies biases first; place it at the beginning of the chain")
        bias = self.fields.setdefault("logit_bias", [])
        bias += [[token, value] for token, value in spec.bias.items()] if spec.name == "logit-bias" else []
        if spec.name == "suppress-tokens":
            if spec.first is not None:
                _refuse(spec, "llama.cpp excludes tokens from the whole text; omit first")
            bias += [[token, False] for token in spec.tokens]

    def _greedy(self, spec: SamplerSpec) -> None:
        if "temperature" not in self.order:
            self._append(spec, "temperature", {"temperature": 0.0})
        else:
            self._append(spec, "top_k", {"top_k": 1})

    def _dry(self, spec: Any) -> None:
        if spec.breakers:
            _refuse(spec, "llama.cpp receives token ids, and cannot find the breakers in the text; set breakers: []")
        fields = {"dry_multiplier": spec.multiplier, "dry_base": spec.base, "dry_allowed_length": spec.allowed_length}
        fields["dry_penalty_last_n"] = self._window(spec)
        # The list may not be empty; no token contains this text.
        fields["dry_sequence_breakers"] = ["\x00"]
        self._append(spec, "dry", fields)

    def _adaptive(self, spec: Any) -> None:
        self._append(spec, "adaptive_p", {"adaptive_target": spec.target, "adaptive_decay": spec.decay})

    def _mirostat(self, spec: Any) -> None:
        if self.order not in ([], ["temperature"]) or self.fields.get("dynatemp_range"):
            _refuse(spec, "beside mirostat, llama.cpp applies only a temperature and biases")
        if spec.name == "mirostat" and spec.m != 100:
            _refuse(spec, "llama.cpp estimates the slope from 100 tokens; set m: 100")
        version = 1 if spec.name == "mirostat" else 2
        self.fields |= {"mirostat": version, "mirostat_tau": spec.tau, "mirostat_eta": spec.eta}


def _refuse(spec: SamplerSpec, why: str) -> None:
    raise GptkitError(f"sampler {spec.name!r} with llama.cpp: {why}", hint="Change the chain, or use --engine native.")
