"""The engine with vLLM itself, where it is installed: on the CPU, in fp32, and beside the native engine."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gptkit_vllm.export import exported
from gptkit_vllm.installation import load_vllm
from gptkit_vllm.spec import VllmEngineSpec
from test_chains import CHAINS, CONTEXT_LENGTH, VOCAB_SIZE, sampling
from vllm_runs import GROUPED, LLAMA, PARALLEL, assert_same_as_native, finished, make_run, opened, request

import gptkit
from gptkit.inference.samplers import sampler_chain
from gptkit.kinds.sampler import SamplerContext, SamplerSequence
from gptkit.runs.engines import engine_context
from gptkit.testing import Check, parametrize_checks
from gptkit.testing import engine as kit

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.filterwarnings("ignore"),
]

ODD = {"name": "layer", "shift": False}
MODELS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "parallel": PARALLEL,
    "gates-and-windows": {
        **LLAMA,
        "attention": {**GROUPED, "output_gate": True, "qk_norm": "rms", "window": 16},
        "norm": ODD,
        "layers": [{}, {"attention": {"window": None}}],
    },
    "biases-and-tied-head": {
        **LLAMA,
        "attention": {"name": "multi-head", "n_heads": 2, "d_head": 32, "output_bias": True},
        "position": "sinusoidal",
        "norm": "layer",
        "feedforward": {"name": "mlp", "d_hidden": 96, "bias": True},
        "head": {"name": "linear", "tied": True, "bias": True},
    },
}


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    """Free the memory of the engine before the next one."""
    yield
    gc.collect()


@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_and_scores_equal_native(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run", MODELS[name])
    with opened(run) as engine:
        assert_same_as_native(engine, run)


@parametrize_checks(VllmEngineSpec(dtype="float32", eager=True, cache_gib=0.25))
def test_conformance(spec: VllmEngineSpec, check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kit's model has heads of 16 features, which vLLM's kernels for CPUs do not have."""
    kit._run.cache_clear()
    monkeypatch.setitem(kit._LAYOUT, "attention", {**kit._LAYOUT["attention"], "d_head": 32})
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path))
    check(spec)


def test_seeds_stops_and_the_context(run: gptkit.Run) -> None:
    warm = {"sampler": sampler_chain([{"name": "temperature", "value": 2.0}])}
    with opened(run) as engine:
        one, same, other, stream = finished(
            engine, *(request(run, **warm, **each) for each in ({}, {}, {"seed": 1}, {"stream": 1}))
        )
        assert one.history == same.history
        assert len({tuple(state.history) for state in (one, other, stream)}) == 3
        (whole,) = finished(engine, request(run))
        token = whole.history[len(whole.request.prompt_ids) + 4]
        (state,) = finished(engine, request(run, stop_ids=frozenset([token])))
        assert state.finish in ("stop", "end")
        (state,) = finished(engine, request(run, max_new_tokens=150))
        assert (state.finish, state.n_generated) == ("length", 150)
        (state,) = finished(engine, request(run, max_new_tokens=150, overflow="stop"))
        assert len(state.history) == CONTEXT_LENGTH


def test_distributions_equal_those_of_the_chains(run: gptkit.Run) -> None:
    """vLLM's probabilities of four tokens, after its samplers, are those of gptkit's chain."""
    vllm = load_vllm()
    export = exported(VllmEngineSpec(directory=str(run.directory.parent / "cache")), engine_context(run, 1))
    options = {"max_num_seqs": 4, "max_logprobs": -1, "kv_cache_memory_bytes": 2**28, "enforce_eager": True}
    llm = vllm.LLM(
        str(export.directory),
        skip_tokenizer_init=True,
        dtype="float32",
        generation_config="vllm",
        logprobs_mode="processed_logprobs",
        **options,
    )
    chains = [chain for chain in CHAINS if "greedy" not in chain]
    ids = run.tokenizer.encode("the cat the dog the")
    fixed = {"detokenize": False, "ignore_eos": True, "max_tokens": 4, "logprobs": -1, "seed": 7}
    prompts = [{"prompt_token_ids": ids}] * len(chains)
    outputs = llm.generate(prompts, [vllm.SamplingParams(**sampling(each), **fixed) for each in chains], use_tqdm=False)
    for chain, output in zip(chains, outputs, strict=True):
        built = SamplerSequence(sampler_chain(chain), SamplerContext(VOCAB_SIZE, 1, run.tokenizer))
        text = list(ids)
        for token, entries in zip(output.outputs[0].token_ids, output.outputs[0].logprobs, strict=True):
            with torch.inference_mode():
                logits_V = run.model(torch.tensor([text])).logits[0, -1].float()
            wanted_V = built(logits_V[None], [text])[0].softmax(dim=-1)
            result_V = torch.zeros_like(wanted_V)
            for number, each in entries.items():
                result_V[number] = torch.tensor(each.logprob).exp()
            torch.testing.assert_close(
                result_V, wanted_V, atol=1e-4, rtol=1e-3, msg=lambda text, chain=chain: f"{chain}: {text}"
            )
            text.append(token)
    llm.llm_engine.engine_core.shutdown()
