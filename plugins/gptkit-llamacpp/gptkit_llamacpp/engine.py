"""Runtime part of the engine `llama.cpp`."""

from __future__ import annotations

import hashlib
import queue
import secrets
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import xllamacpp

from gptkit.core.errors import GptkitError
from gptkit.engines.engine import Engine, Progress, Score
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


@dataclass
class _Live:
    """A request that was submitted and has not ended.

    Attributes:
        state: its state.
        job: its completion; None while it waits.
        restarts: how often its text was shortened because it filled the context.
        ended: whether its completion has ended.
    """

    state: RequestState
    job: Job | None = None
    restarts: int = 0


class LlamaCpp(Engine):
    """Engine on a server of xllamacpp in this process, which computes several completions at once in its own threads.

    Args:
        spec: the spec.
        file: the exported run.
        context: the context of the engine.
        context_length: that of the model.
    """

    def __init__(self, spec: LlamaCppEngineSpec, file: Path, context: EngineContext, context_length: int) -> None:
        limit = min(spec.context or context_length, context_length)
        tokenizer = context.tokenizer
        super().__init__(tokenizer, context_length=limit, vocab_size=tokenizer.vocab_size, max_batch=context.max_batch)
        self._cache_prompt = spec.cache_prompt
        self._server: xllamacpp.Server | None = _server(spec, file, limit, context.max_batch)
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._waiting: deque[_Live] = deque()
        self._running: dict[Job, _Live] = {}
        self._cancelled: set[Job] = set()
        self._ended: list[RequestState] = []

    def check(self, request: Request) -> None:
        outside = next((token for token in request.prompt_ids if not 0 <= token < self.vocab_size), None)
        if outside is not None:
            raise GptkitError(
                f"the prompt contains token {outside}, but the model's vocabulary has {self.vocab_size} tokens",
                hint="Use the model's tokenizer.",
            )
        if request.trace:
            raise GptkitError("llama.cpp does not report what each sampler left", hint="Trace with --engine native.")
        parameters(request.sampler, self.context_length)
        n_prompt = len(request.prompt_ids)
        if request.overflow == "stop" and n_prompt >= self.context_length:
            raise GptkitError(
                f"the prompt has {n_prompt:,} tokens, and llama.cpp's context {self.context_length:,} with the next one",
                hint='Shorten it, or choose overflow="slide", which uses its last part.',
            )
        if (
            n_prompt + request.max_new_tokens > self.context_length
            and request.overflow == "slide"
            and stateful(request.sampler)
        ):
            raise GptkitError(
                f"the text may exceed the context of {self.context_length:,} tokens, and llama.cpp's samplers then forget "
                "what they have seen",
                hint="Lower the number of new tokens, choose overflow stop, or use --engine native.",
            )

    def submit(self, request: Request) -> RequestState:
        self.check(request)
        state = RequestState(request, self.tokenizer)
        if request.max_new_tokens == 0:
            state.end("length")
            self._ended.append(state)
        else:
            self._waiting.append(_Live(state))
            self._admit()
        return state

    def cancel(self, state: RequestState) -> None:
        self._waiting = deque(live for live in self._waiting if live.state is not state)
        self._ended = [each for each in self._ended if each is not state]
        for job, live in list(self._running.items()):
            if live.state is state:
                self._drop(job)
        if state.finish is None:
            state.end("interrupted")

    def step(self) -> list[Progress]:
        progress = [Progress(state, finish=state.finish) for state in self._ended]
        self._ended = []
        self._admit()
        if not self._running:
            return progress
        results: dict[RequestState, Progress] = {each.state: each for each in progress}
        for news in self._receive(wait=not progress):
            if news.job in self._cancelled:
                if news.ended:
                    self._cancelled.discard(news.job)
            elif news.job in self._running:
                each = self._advance(news.job, self._running[news.job], news)
                if each is not None:
                    results[each.state] = _joined(results.get(each.state), each)
        self._admit()
        return list(results.values())

    def score(self, ids: Sequence[int], top: int = 0) -> list[Score]:
        if len(ids) > self.context_length:
            raise GptkitError(
                f"the text has {len(ids):,} tokens, and llama.cpp's context {self.context_length:,}", hint="Shorten it."
            )
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

    def reset(self) -> None:
        for job in list(self._running):
            self._drop(job)
        self._waiting.clear()
        self._ended = []

    @property
    def idle(self) -> bool:
        return not (self._waiting or self._running or self._ended)

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

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

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self.max_batch:
            self._start(self._waiting.popleft())

    def _start(self, live: _Live) -> None:
        state = live.state
        request, limit = state.request, self.context_length
        # One token has to fit after the prompt.
        prompt = state.history[-(limit - 1) :] if live.restarts == 0 else state.history[-max(1, limit // 2) :]
        body: dict[str, Any] = {
            "prompt": prompt,
            "n_predict": state.remaining,
            "seed": _seed(request, live.restarts),
            "cache_prompt": self._cache_prompt,
            **parameters(request.sampler, self.context_length),
        }
        if request.log_probabilities is not None:
            body["n_probs"] = max(1, request.log_probabilities)
        live.job = Job(self._open_server, body, self._news)
        self._running[live.job] = live

    def _drop(self, job: Job) -> None:
        job.cancel()
        self._running.pop(job)
        self._cancelled.add(job)

    def _receive(self, *, wait: bool) -> list[News]:
        received = []
        try:
            received.append(self._news.get(timeout=_WAIT) if wait else self._news.get_nowait())
            while True:
                received.append(self._news.get_nowait())
        except queue.Empty:
            return received

    def _advance(self, job: Job, live: _Live, news: News) -> Progress | None:
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
        if news.ended and state.finish is None:
            # llama.cpp ends a text only when it fills the context.
            del self._running[job]
            if state.request.overflow == "slide":
                live.restarts += 1
                self._start(live)
                return None
            text += state.end("length")
        elif news.ended:
            del self._running[job]
        elif state.finish is not None:
            self._drop(job)
        ids = tuple(state.history[len(state.request.prompt_ids) + before :])
        scores = tuple(
            Score(value, tuple(best))
            for value, best in zip(state.log_probabilities[before:], state.top_log_probabilities[before:], strict=True)
        )
        return Progress(state, ids, scores, text, state.finish, state.error)


def _joined(first: Progress | None, second: Progress) -> Progress:
    """Return the progress of two parts of a step as one."""
    if first is None:
        return second
    ids, scores = first.ids + second.ids, first.scores + second.scores
    return Progress(first.state, ids, scores, first.text + second.text, second.finish, second.error)


def _seed(request: Request, restarts: int) -> int:
    """Return the seed of llama.cpp's random numbers, which has 32 bits; its highest value stands for a random seed."""
    digest = hashlib.sha256(f"{request.seed}/{request.stream}/{restarts}".encode()).digest()
    return int.from_bytes(digest[:4], "little") % (2**32 - 1)


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
