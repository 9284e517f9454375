"""Samplers: llama.cpp draws from the distribution of the chain, or the chain is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gptkit_llamacpp.samplers import parameters
from llamacpp_runs import opened

import gptkit
from gptkit.core.errors import GptkitError
from gptkit.inference.chain import Chain
from gptkit.inference.samplers import sampler_chain
from gptkit.kinds.sampler import SamplerContext, SamplerSequence

CHAINS: list[list[Any]] = [
    [],
    [{"name": "temperature", "value": 1.7}],
    [{"name": "top-k", "k": 7}, {"name": "temperature", "value": 0.6}],
    [{"name": "temperature", "value": 0.6}, {"name": "top-p", "p": 0.7}],
    [{"name": "top-p", "p": 0.7}, {"name": "temperature", "value": 0.6}],
    [{"name": "min-p", "p": 0.2}],
    [{"name": "typical", "p": 0.6}],
    [{"name": "top-n-sigma", "n": 1.5}],
    [{"name": "dynamic-temperature", "value": 1.0, "range": 0.5}],
    [{"name": "logit-bias", "bias": {65: 3.0}}, {"name": "suppress-tokens", "tokens": (66, 141)}],
    [{"name": "repetition-penalty", "penalty": 1.5}, {"name": "presence-penalty", "penalty": 0.5}],
    [{"name": "frequency-penalty", "penalty": 0.7}, {"name": "top-k", "k": 20}],
    [{"name": "dry", "breakers": (), "allowed_length": 1}],
    [{"name": "temperature", "value": 2.0}, {"name": "mirostat-v2", "tau": 2.0}],
    [{"name": "mirostat", "tau": 3.0}],
    [{"name": "llama.cpp", "temperature": 0.7, "repeat_penalty": 1.2, "top_n_sigma": 2.0}],
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_distribution_equals_that_of_the_chain(run: gptkit.Run, chain: list[Any]) -> None:
    samplers, ids = sampler_chain(chain), run.tokenizer.encode("the cat the dog the")
    with torch.inference_mode():
        logits_V = run.model(torch.tensor([ids])).logits[0, -1].float()
    built = SamplerSequence(samplers, SamplerContext(len(logits_V), 1, run.tokenizer))
    expected_V = built(logits_V[None], [ids])[0].softmax(dim=-1)
    with opened(run) as engine:
        body = {"prompt": ids, "n_predict": 1, "n_probs": 300, "post_sampling_probs": True, "stream": False}
        answer = engine._open_server.handle_completions({**body, **parameters(samplers, 64)})
    (content,) = answer["choices"][0]["logprobs"]["content"]
    result_V = torch.zeros_like(expected_V)
    for each in content["top_probs"]:
        result_V[each["id"]] = each["prob"]
    torch.testing.assert_close(result_V, expected_V, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (["tail-free"], "'tail-free' with llama.cpp: llama.cpp has no such sampler"),
        ([{"name": "top-k", "k": 3}, {"name": "top-k", "k": 2}], "'top-k'.* only once"),
        (["top-k", {"name": "logit-bias", "bias": {1: 1.0}}], "'logit-bias'.* applies biases first"),
        (["top-k", "mirostat"], "'mirostat'.* only a temperature"),
        (["dry"], "'dry'.* breakers"),
        ([{"name": "repetition-penalty", "prompt": False}], "'repetition-penalty'.* prompt: true"),
        (["presence-penalty", "repetition-penalty"], "'repetition-penalty'.* place it first"),
        (["adaptive-p", "top-k"], "'top-k'.* no sampler can follow adaptive-p"),
    ],
)
def test_samplers_that_llama_cpp_lacks_are_refused(chain: list[Any], reason: str) -> None:
    with pytest.raises(GptkitError, match=reason) as raised:
        parameters(sampler_chain(chain), 64)
    assert "native" in str(raised.value.hint)


def test_greedy_ignores_samplers_that_keep_the_most_likely_token() -> None:
    chain = ["repetition-penalty", "top-k", {"name": "temperature", "value": 0.5}, "greedy", "tail-free"]
    assert parameters(sampler_chain(chain), 64)["samplers"] == ["penalties", "temperature"]
    assert parameters(sampler_chain(chain), 64)["temperature"] == 0
    chain = [{"name": "temperature", "value": 0.5}, "typical", "greedy"]
    assert parameters(sampler_chain(chain), 64)["samplers"] == ["temperature", "typ_p", "top_k"]


@pytest.mark.parametrize(
    "chain",
    [
        [{"name": "mirostat", "tau": 3.0, "eta": 0.3}],
        [{"name": "temperature", "value": 1.5}, {"name": "mirostat-v2", "tau": 2.0, "eta": 0.3}],
        [{"name": "adaptive-p", "target": 0.3, "decay": 0.5}],
    ],
    ids=str,
)
def test_samplers_that_follow_the_drawn_tokens(run: gptkit.Run, chain: list[Any]) -> None:
    """At each of 12 tokens, llama.cpp's distribution is that of the chain, which has seen the same draws before."""
    samplers, ids = sampler_chain(chain), run.tokenizer.encode("the cat the dog")
    with opened(run) as engine:
        body = {"prompt": ids, "n_predict": 12, "n_probs": 300, "post_sampling_probs": True, "stream": False, "seed": 11}
        answer = engine._open_server.handle_completions({**body, **parameters(samplers, 64)})
    links = [spec.build(SamplerContext(run.tokenizer.vocab_size, 1, run.tokenizer)) for spec in samplers]
    differences = []
    for content in answer["choices"][0]["logprobs"]["content"]:
        with torch.inference_mode():
            logits_V = run.model(torch.tensor([ids])).logits[0, -1].float()
        scores_BV = logits_V[None]
        for link in links:
            scores_BV = link(scores_BV, [ids])
        expected_V = scores_BV[0].softmax(dim=-1)
        result_V = torch.zeros_like(expected_V)
        for each in content["top_probs"]:
            result_V[each["id"]] = each["prob"]
        torch.testing.assert_close(result_V, expected_V, atol=2e-3, rtol=1e-2)
        fresh = SamplerSequence(samplers, SamplerContext(len(logits_V), 1, run.tokenizer))
        fresh_V = fresh(logits_V[None], [ids])[0].softmax(dim=-1)
        differences.append(float((expected_V - fresh_V).abs().max()))
        for link in links:
            link.chosen([content["id"]], [float(expected_V[content["id"]].log())])
        ids = [*ids, content["id"]]
    # What the chain would leave without its memory differs by several times the tolerance.
    assert sum(each > 0.008 for each in differences) > 1, differences


@pytest.mark.parametrize(
    "chain",
    [
        [{"name": "xtc", "probability": 0.5, "threshold": 0.1}, {"name": "temperature", "value": 0.7}],
        [{"name": "adaptive-p", "target": 0.3, "decay": 0.5}],
    ],
    ids=str,
)
def test_draws_of_random_samplers_have_the_distribution_of_the_chain(run: gptkit.Run, chain: list[Any]) -> None:
    """Chi-square of two samples of first tokens (homogeneity), the rare tokens as one class; p > 0.001."""
    samplers, ids, n_draws = sampler_chain(chain), run.tokenizer.encode("the cat the dog the"), 1500
    with opened(run, max_batch=1) as engine:
        fields = {
            "prompt": ids,
            "n_predict": 1,
            "n_probs": 1,
            "stream": False,
            "cache_prompt": True,
            **parameters(samplers, 64),
        }
        drawn = []
        for seed in range(n_draws):
            answer = engine._open_server.handle_completions({**fields, "seed": seed})
            drawn.append(answer["choices"][0]["logprobs"]["content"][0]["id"])
    with torch.inference_mode():
        logits_BV = run.model(torch.tensor([ids])).logits[0, -1:].float().expand(n_draws, -1)
    streams = [f"{seed}/0" for seed in range(n_draws)]
    context = SamplerContext(run.tokenizer.vocab_size, n_draws, run.tokenizer)
    own = Chain(samplers, context, streams).pick(logits_BV, [ids] * n_draws).tolist()
    counts = torch.stack([torch.bincount(torch.tensor(each), minlength=run.tokenizer.vocab_size) for each in (drawn, own)])
    common = counts.sum(dim=0) >= 20
    table = torch.cat((counts[:, common], counts[:, ~common].sum(dim=1, keepdim=True)), dim=1).double()
    table = table[:, table.sum(dim=0) > 0]
    expected = table.sum(dim=0, keepdim=True) / 2
    statistic, freedom = float(((table - expected) ** 2 / expected).sum()), table.shape[1] - 1
    assert freedom >= 3
    assert statistic < freedom + 3.1 * (2 * freedom) ** 0.5 + 6.4, (statistic, freedom)  # the 0.999 quantile, from above
