"""Samplers: vLLM draws from the distribution of the chain, or the chain is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_vllm import SamplingParams, processed
from gptkit_vllm.samplers import parameters

from gptkit.core.errors import GptkitError
from gptkit.inference.samplers import sampler_chain
from gptkit.kinds.sampler import SamplerContext, SamplerSequence
from gptkit.kinds.tokenizer import Tokenizer

CHAINS: list[list[Any]] = [
    [],
    [{"name": "temperature", "value": 1.7}],
    [{"name": "top-k", "k": 7}, {"name": "temperature", "value": 0.6}],
    [{"name": "temperature", "value": 0.6}, {"name": "top-p", "p": 0.7}],
    [{"name": "top-k", "k": 9}, {"name": "temperature", "value": 1.5}, {"name": "top-p", "p": 0.7}],
    [{"name": "min-p", "p": 0.2}],
    [{"name": "temperature", "value": 1.8}, {"name": "top-k", "k": 9}, {"name": "min-p", "p": 0.3}],
    [{"name": "min-p", "p": 0.3}, {"name": "temperature", "value": 1.8}],
    [{"name": "logit-bias", "bias": {65: 3.0}}, {"name": "suppress-tokens", "tokens": (66, 141)}],
    [{"name": "temperature", "value": 0.8}, {"name": "suppress-tokens", "tokens": (66, 141)}, {"name": "top-k", "k": 4}],
    [{"name": "repetition-penalty", "penalty": 1.5}, {"name": "top-k", "k": 20}],
    [{"name": "frequency-penalty", "penalty": 0.7, "prompt": False}, {"name": "top-k", "k": 20}],
    [
        {"name": "logit-bias", "bias": {65: 1.0}},
        {"name": "repetition-penalty", "penalty": 1.3},
        {"name": "presence-penalty", "penalty": 0.5, "prompt": False},
        {"name": "frequency-penalty", "penalty": -0.5, "prompt": False},
        {"name": "temperature", "value": 0.9},
        {"name": "min-p", "p": 0.02},
        {"name": "top-p", "p": 0.9},
    ],
    [{"name": "repetition-penalty", "penalty": 1.8}, {"name": "top-p", "p": 0.3}, "greedy"],
]
VOCAB_SIZE, CONTEXT_LENGTH = 257, 64
PROMPT, GENERATED = [84, 104, 101, 32, 99, 97, 116], [32, 32, 97, 65, 65, 65, 120]


def sampling(chain: list[Any], end_id: int | None = 256) -> dict[str, Any]:
    return parameters(sampler_chain(chain), context_length=CONTEXT_LENGTH, vocab_size=VOCAB_SIZE, end_id=end_id)


def expected(chain: list[Any], logits_V: torch.Tensor, tokenizer: Tokenizer | None = None) -> torch.Tensor:
    """Return what gptkit's samplers leave after the prompt and the generated tokens, as probabilities, (V,)."""
    built = SamplerSequence(sampler_chain(chain), SamplerContext(len(logits_V), 1, tokenizer))
    built(logits_V[None], [PROMPT])  # the first call shows where the prompt ends
    result_V: torch.Tensor = built(logits_V[None], [PROMPT + GENERATED])[0].softmax(dim=-1)
    return result_V


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_distribution_equals_that_of_the_chain(chain: list[Any]) -> None:
    for seed in range(5):
        logits_V = 2 * torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))
        params = SamplingParams(**sampling(chain))
        result_V = processed(logits_V, params, PROMPT, GENERATED)
        wanted_V = expected(chain, logits_V)
        if params.temperature == 0:
            assert int(result_V.argmax()) == int(wanted_V.argmax())
        else:
            torch.testing.assert_close(result_V.softmax(dim=-1), wanted_V)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (["tail-free"], "'tail-free' with vLLM: vLLM has no such sampler"),
        ([{"name": "top-k", "k": 3}, {"name": "top-k", "k": 2}], "'top-k'.* only once"),
        (["top-k", {"name": "logit-bias", "bias": {1: 1.0}}], "'logit-bias'.* before top-k and min-p; place it earlier"),
        (["repetition-penalty", {"name": "logit-bias", "bias": {1: 1.0}}], "'logit-bias'.* before the repetition penalty"),
        (["temperature", "repetition-penalty"], "'repetition-penalty'.* before the temperature"),
        ([{"name": "presence-penalty", "prompt": False}, "repetition-penalty"], "before the other penalties"),
        (["top-p", "temperature"], "'temperature'.* before top-p"),
        (["top-p", "min-p"], "'min-p'.* before top-p"),
        (["top-p", "top-k"], "'top-k'.* before top-p"),
        (["top-k", {"name": "suppress-tokens", "tokens": (1,)}], "'suppress-tokens'.* before top-k"),
        ([{"name": "suppress-tokens", "tokens": (1,), "first": 2}], "'suppress-tokens'.* omit first"),
        ([{"name": "suppress-tokens", "tokens": tuple(range(257))}], "no token would be left"),
        ([{"name": "logit-bias", "bias": {999: 1.0}}], "no token 999"),
        (["frequency-penalty"], "'frequency-penalty'.* prompt: false"),
        ([{"name": "presence-penalty", "prompt": False, "penalty": 3}], "between -2 and 2"),
        ([{"name": "repetition-penalty", "prompt": False}], "'repetition-penalty'.* prompt: true"),
        ([{"name": "repetition-penalty", "window": 8}], "'repetition-penalty'.* omit the window"),
        ([{"name": "temperature", "value": 2.5}], "between 0.01 and 2, and this one 2.5"),
        ([{"name": "temperature", "value": 0.001}], "between 0.01 and 2"),
    ],
)
def test_samplers_that_vllm_lacks_or_orders_otherwise_are_refused(chain: list[Any], reason: str) -> None:
    with pytest.raises(GptkitError, match=reason) as raised:
        sampling(chain)
    assert "native" in str(raised.value.hint)


def test_greedy_ignores_samplers_that_keep_the_most_likely_token() -> None:
    chain = ["repetition-penalty", "top-p", {"name": "temperature", "value": 0.001}, "greedy", "tail-free"]
    assert sampling(chain) == {"temperature": 0.0, "repetition_penalty": 1.1}


def test_minimum_length_without_an_end_token_has_no_effect() -> None:
    assert sampling([{"name": "min-length", "tokens": 4}], end_id=None) == sampling([])
    fields = sampling([{"name": "min-length", "tokens": 4}])
    assert (fields["min_tokens"], fields["stop_token_ids"]) == (4, [256])
