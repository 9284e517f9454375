"""Runtime part of the engine `llama.cpp`."""

from __future__ import annotations

import queue
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xllamacpp

from gptkit.core.errors import GptkitError
from gptkit.engines.engine import Progress, Score
from gptkit.engines.external import ExternalEngine, Live, joined, seed_of
from gptkit.inference.request import Request, RequestState
from gptkit.kinds.engine import EngineContext
from gptkit_llamacpp.job import Job, News, error_of, score_of
from gptkit_llamacpp.samplers import parameters, stateful

if TYPE_CHECKING:
    from gptkit_llamacpp.spec import LlamaCppEngineSpec

__all__ = ["LlamaCpp"]

_WAIT = 0.02
"""Longest time in seconds for which a step waits for a token, so that other calls are answered meanwhile."""
_FORCED = 1e9
"""Bias with which a token is certainly the next one."""


class LlamaCpp(ExternalEngine[Job]):
    """Engine on a server of xllamacpp in this process, which computes several completions at once in its own threads.

    Args:
        spec: the spec.
        file: the exported run.
        context: the context of the engine.
        context_length: that of the model.
    """

    program = "llama.cpp"

    def __init__(self, spec: LlamaCppEngineSpec, file: Path, context: EngineContext, context_length: int) -> None:
        limit = min(spec.context or context_length, context_length)
        tokenizer = context.tokenizer
        super().__init__(tokenizer, context_length=limit, vocab_size=tokenizer.vocab_size, max_batch=context.max_batch)
        self._cache_prompt = spec.cache_prompt
        self._server: xllamacpp.Server | None = _server(spec, file, limit, context.max_batch)
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._cancelled: set[Job] = set()

    def check_samplers(self, request: Request) -> None:
        parameters(request.sampler, self.context_length)

    def forgets(self, request: Request) -> bool:
        return stateful(request.sampler)

    def step(self) -> list[Progress]:
        progress = [Progress(state, finish=state.finish) for state in self.ended]
        self.ended = []
        self.admit()
        if not self.running:
            return progress
        results: dict[RequestState, Progress] = {each.state: each for each in progress}
        for news in self._receive(wait=not progress):
            if news.job in self._cancelled:
                if news.ended:
                    self._cancelled.discard(news.job)
            elif news.job in self.running:
                each = self._advance(news.job, self.running[news.job], news)
                if each is not None:
                    results[each.state] = joined(results.get(each.state), each)
        self.admit()
        return list(results.values())

    def score(self, ids: Sequence[int], top: int = 0) -> list[Score]:
        self.require_fits(len(ids))
        # llama.cpp reports generated tokens only, so that each token is generated from those before it.
        greedy = {"samplers": ["temperature"], "temperature": 0.0, "n_predict": 1, "n_probs": max(1, top)}
        scores = []
        for place in range(1, len(ids)):
            body = {"prompt": list(ids[:place]), "logit_bias": [[ids[place], _FORCED]], "cache_prompt": True, **greedy}
            answer = self._open_server.handle_completions({**body, "stream": False})
            error = error_of(answer)
            if error is not None:
                raise error
            score = score_of(answer["choices"][0]["logprobs"]["content"][0])
            scores.append(Score(score.log_probability, score.top[:top]))
        return scores

    def close(self) -> None:
        self.reset()
        for job in self._cancelled:
            job.join()
        # The server ends with its last reference; its threads have ended.
        self._cancelled, self._server = set(), None

    @property
    def _open_server(self) -> xllamacpp.Server:
        if self._server is None:
            raise GptkitError("the engine is closed")
        return self._server

    def start(self, live: Live, prompt: list[int]) -> Job:
        request = live.state.request
        body: dict[str, Any] = {
            "prompt": prompt,
            "n_predict": live.state.remaining,
            # 32 bits, of which the highest value stands for a random seed.
            "seed": seed_of(request, live.restarts) % 2**32 % (2**32 - 1),
            "cache_prompt": self._cache_prompt,
            **parameters(request.sampler, self.context_length),
        }
        if request.log_probabilities is not None:
            body["n_probs"] = max(1, request.log_probabilities)
        return Job(self._open_server, body, self._news)

    def drop(self, handle: Job) -> None:
        handle.cancel()
        self._cancelled.add(handle)

    def _receive(self, *, wait: bool) -> list[News]:
        received = []
        try:
            received.append(self._news.get(timeout=_WAIT) if wait else self._news.get_nowait())
            while True:
                received.append(self._news.get_nowait())
        except queue.Empty:
            return received

    def _advance(self, job: Job, live: Live, news: News) -> Progress | None:
        state = live.state
        before, text = state.n_generated, ""
        if news.error is not None:
            text = state.fail(news.error)
        wanted = state.request.log_probabilities
        for place, token in enumerate(news.ids):
            if state.finish is not None:
                break
            score = None
            if wanted is not None:
                each = news.scores[place]
                score = (each.log_probability, list(each.top[:wanted]))
            text += state.append(token, score)
        if news.ended:
            del self.running[job]
        elif state.finish is not None:
            self.remove(job)
        if news.ended and state.finish is None:
            # llama.cpp ends a text only when it fills the context.
            text += self.filled(live)
        return self.progress(state, before, text)


def _server(spec: LlamaCppEngineSpec, file: Path, context_length: int, max_batch: int) -> xllamacpp.Server:
    """Start the server. Its network interface, which cannot be switched off, gets a socket that nobody can reach."""
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel = context_length * max_batch, max_batch
    params.fit_params, params.warmup, params.verbosity = False, False, -1
    params.ui = params.endpoint_slots = False
    params.cache_ram_mib = 0
    params.api_keys = [secrets.token_hex(32)]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = spec.threads or torch.get_num_threads()
    if spec.cache_type == "f32":
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    with tempfile.TemporaryDirectory(prefix="gptkit-") as private:
        params.hostnames = [str(Path(private) / "llama.sock")]
        try:
            server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise GptkitError(f"llama.cpp cannot load {file}: {error}", hint="Use --engine native.") from None
    # A server that is deleted before its loop runs would wait forever; an answer shows that it runs.
    server.handle_completions({"prompt": [0], "n_predict": 1, "cache_prompt": False, "stream": False})
    return server
