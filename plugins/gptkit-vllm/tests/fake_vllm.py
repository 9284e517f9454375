"""Fake of the package vllm: the part of its interface that the engine uses, on transformers, one token a step.

It applies sampling parameters in the order of vLLM 0.32 (`vllm/v1/sample/sampler.py`); `test_with_vllm.py` compares chains
with vLLM itself where it is installed.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

MODULES = ("platforms", "sampling_params")
"""Its modules that the engine uses."""


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    stop_token_ids: list[int] = field(default_factory=list)
    min_tokens: int = 0
    max_tokens: int = 16
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    ignore_eos: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2 or self.max_tokens < 1 or self.min_tokens > self.max_tokens:
            raise ValueError("temperature must be in [0, 2], max_tokens at least 1 and min_tokens")


def processed(logits_V: Tensor, params: SamplingParams, prompt: list[int], generated: list[int]) -> Tensor:
    """Return the logits from which a token is drawn."""
    logits_V = logits_V.clone()
    if params.allowed_token_ids is not None:
        kept_V = torch.zeros_like(logits_V, dtype=torch.bool)
        kept_V[params.allowed_token_ids] = True
        logits_V[~kept_V] = -math.inf
    if len(generated) < params.min_tokens:
        logits_V[params.stop_token_ids] = -math.inf
    for token, bias in (params.logit_bias or {}).items():
        logits_V[token] += bias
    for token in {*prompt, *generated}:
        factor = params.repetition_penalty
        logits_V[token] = logits_V[token] / factor if logits_V[token] > 0 else logits_V[token] * factor
    for token in set(generated):
        logits_V[token] -= params.frequency_penalty * generated.count(token) + params.presence_penalty
    if params.temperature == 0:
        return logits_V
    logits_V = logits_V / params.temperature
    p_V = logits_V.softmax(dim=-1)
    logits_V[p_V < params.min_p * p_V.max()] = -math.inf
    if params.top_k:
        logits_V[logits_V < logits_V.topk(params.top_k).values[-1]] = -math.inf
    values_V, order_V = logits_V.softmax(dim=-1).sort(descending=True)
    logits_V[order_V[values_V.cumsum(dim=-1) - values_V >= params.top_p]] = -math.inf
    return logits_V


def _entries(log_p_V: Tensor, token: int, count: int) -> dict[int, Any]:
    best = [token, *log_p_V.topk(count).indices.tolist()]
    return {number: SimpleNamespace(logprob=float(log_p_V[number])) for number in best}


@dataclass
class _Sequence:
    prompt: list[int]
    params: SamplingParams
    generator: torch.Generator
    generated: list[int] = field(default_factory=list)


class _Engine:
    def __init__(self, model: Any, max_model_len: int, max_num_seqs: int) -> None:
        self._model, self._limit, self._most = model, max_model_len, max_num_seqs
        self.sequences: dict[str, _Sequence] = {}
        self.engine_core = SimpleNamespace(shutdown=lambda: None)

    def add_request(self, name: str, prompt: dict[str, list[int]], params: SamplingParams) -> None:
        ids = prompt["prompt_token_ids"]
        if len(ids) >= self._limit:
            raise ValueError(f"the prompt has {len(ids)} tokens, of {self._limit}")
        generator = torch.Generator().manual_seed(params.seed or 0)
        self.sequences[name] = _Sequence(ids, params, generator)

    def abort_request(self, names: list[str]) -> None:
        for name in names:
            self.sequences.pop(name, None)

    @torch.no_grad()
    def step(self) -> list[Any]:
        return [self._advance(name) for name in list(self.sequences)[: self._most]]

    def _advance(self, name: str) -> Any:
        sequence = self.sequences[name]
        prompt, params, generated = sequence.prompt, sequence.params, sequence.generated
        assert params.ignore_eos
        assert not params.detokenize
        logits_TV = self._model(torch.tensor([prompt + generated])).logits[0].float()
        log_p_TV = logits_TV.log_softmax(dim=-1)
        drawn_V = processed(logits_TV[-1], params, prompt, generated)
        if params.temperature == 0:
            token = int(drawn_V.argmax())
        else:
            token = int(torch.multinomial(drawn_V.softmax(dim=-1), 1, generator=sequence.generator))
        generated.append(token)
        at_stop = token in params.stop_token_ids
        finished = at_stop or len(generated) == params.max_tokens or len(prompt) + len(generated) >= self._limit
        if finished:
            del self.sequences[name]
        scored = None
        if params.prompt_logprobs is not None:
            rows = zip(log_p_TV, prompt[1:], strict=False)
            scored = [None, *(_entries(log_p_V, each, params.prompt_logprobs) for log_p_V, each in rows)]
        logprobs = None if params.logprobs is None else [_entries(log_p_TV[-1], token, params.logprobs)]
        reason = ("stop" if at_stop else "length") if finished else None
        output = SimpleNamespace(token_ids=[token], logprobs=logprobs, finish_reason=reason)
        return SimpleNamespace(
            request_id=name, outputs=[output], finished=finished, num_cached_tokens=0, prompt_logprobs=scored
        )


class LLM:
    opened: list[dict[str, Any]]
    """The options of every instance."""

    def __init__(self, model: str, **options: Any) -> None:
        type(self).opened.append(options)
        loaded = AutoModelForCausalLM.from_pretrained(model, trust_remote_code=options["trust_remote_code"])
        self.llm_engine = _Engine(loaded.eval().float(), options["max_model_len"], options["max_num_seqs"])


def make() -> Any:
    """Return the package."""
    return SimpleNamespace(
        LLM=type("LLM", (LLM,), {"opened": []}),
        SamplingParams=SamplingParams,
        sampling_params=SimpleNamespace(RequestOutputKind=RequestOutputKind),
        platforms=SimpleNamespace(current_platform=SimpleNamespace(is_cpu=lambda: True)),
    )
