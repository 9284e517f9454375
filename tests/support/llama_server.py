"""A server of llama.cpp on this machine, and greedy decoding of both sides."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit

__all__ = ["PROMPTS", "compare_probabilities", "greedy", "served", "written"]

PROMPTS = ["The quick brown fox jumps over", "in the beginning was the word", "0123456789 abcdefghij"]


@contextlib.contextmanager
def served(file: Path) -> Iterator[Any]:
    """Start a server, and yield a client; the test is skipped where llama.cpp is not installed."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp is not installed")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.n_ctx, parameters.n_parallel, parameters.port = 64, 1, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    # By default keys and values are cached in half precision, which changes close choices.
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server: Any = xllamacpp.Server(parameters)

    def ask(path: str, **body: Any) -> Any:
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), head)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    # A server that is deleted before its loop runs would wait forever; an answer shows that it runs.
    ask("/completion", prompt=[0], n_predict=1, cache_prompt=False)
    yield ask
    # The server stops when its last reference is deleted.
    parameters = server = None


def written(ask: Any, ids: list[int], count: int) -> list[int]:
    """Return the tokens that llama.cpp appends greedily."""
    options = {"temperature": 0.0, "top_k": 1, "repeat_penalty": 1.0, "return_tokens": True, "ignore_eos": True}
    result: list[int] = ask("/completion", prompt=ids, n_predict=count, **options)["tokens"]
    return result


def greedy(run: gptkit.Run, ids: list[int], count: int) -> tuple[list[int], float]:
    """Return the most likely tokens, without the end token, and the smallest margin to the second most likely one."""
    ids, begin, closest = list(ids), len(ids), float("inf")
    for _ in range(count):
        with torch.no_grad():
            logits_V = run.model(torch.tensor([ids])).logits[0, -1]
        logits_V[run.tokenizer.end_id] = -torch.inf
        best = logits_V.topk(2)
        closest = min(closest, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids[begin:], closest


def compare_probabilities(ask: Any, run: gptkit.Run, ids: list[int], tolerance: float) -> None:
    """Compare the log-probabilities of the most likely tokens after several beginnings of a text."""
    with torch.no_grad():
        logits_TV = run.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    # Tokens that are parts of characters are reported without probabilities, so they are not chosen. The probabilities are
    # those before this choice.
    options = {"temperature": 0.0, "n_probs": 8, "logit_bias": [[token, False] for token in range(128, 257)]}
    for end in range(8, len(ids) + 1, 3):
        answer = ask("/completion", prompt=ids[:end], n_predict=1, **options)
        for entry in answer["completion_probabilities"][0]["top_logprobs"]:
            expected = float(logits_TV[end - 1, entry["id"]])
            assert abs(entry["logprob"] - expected) < tolerance, f"{entry['logprob']}, and expected {expected}"
