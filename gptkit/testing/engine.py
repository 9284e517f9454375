"""Checks of engines, on a tiny run.

Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.engines.engine import Engine, Progress, Score
from gptkit.inference.request import Request, RequestState
from gptkit.inference.result import Finish
from gptkit.kinds.engine import EngineContext
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec
from gptkit.model.gpt import GPT
from gptkit.runs.directory import RunDirectory
from gptkit.runs.exporting import native_model
from gptkit.runs.saving import save_run
from gptkit.testing.check import Checks, expect, skip
from gptkit.testing.subject import Subject, stirred_matrices

__all__ = ["checks"]

checks = Checks()

_MAX_BATCH, _STEPS = 3, 400
_MARGIN = 0.05
"""Difference of logits that the precision of another engine may cause, relative to their standard deviation."""

_LAYOUT: dict[str, Any] = {
    "d_model": 32,
    "n_layers": 2,
    "context_length": 64,
    "position": "rotary",
    "attention": {"name": "grouped-query", "n_heads": 2, "n_kv_heads": 1},
    "norm": "rms",
    "feedforward": {"name": "gated", "d_hidden": 64},
}
_PROMPTS = ([72, 101, 108, 108, 111], [65], [32, 111, 110, 99, 101, 32, 117, 112, 111, 110], [48, 49], [97, 98, 97, 98])


@dataclass(frozen=True)
class _Run:
    """A run directory with its model and tokenizer."""

    directory: Path
    model: GPT
    tokenizer: Tokenizer
    owner: Any
    """The temporary directory, which is removed when the process ends."""


@cache
def _run(registry: Registry) -> _Run:
    spec = registry.component("tokenizer", "byte").model_validate({"name": "byte"}, context={"registry": registry})
    assert isinstance(spec, TokenizerSpec)
    tokenizer = spec.fit(iter(()))
    model: GPT = stirred_matrices(GPT(_LAYOUT, tokenizer.vocab_size)).eval()
    owner = tempfile.TemporaryDirectory(prefix="gptkit-engine-")
    directory = save_run(Path(owner.name) / "run", model, tokenizer, registry=registry)
    return _Run(directory, model, tokenizer, owner)


@contextmanager
def _engine(subject: Subject) -> Iterator[Engine]:
    run = _run(subject.registry)
    context = EngineContext(
        run.directory,
        run.tokenizer,
        lambda: run.model,
        max_batch=_MAX_BATCH,
        native_model=lambda: native_model(RunDirectory(run.directory), registry=subject.registry),
    )
    try:
        engine: Engine = subject.spec.build(context)
    except GptkitError as error:
        skip(f"it refuses the run of this check: {error}")
    try:
        yield engine
    finally:
        engine.close()


@dataclass
class _Answer:
    """What an engine reported for one request."""

    ids: list[int] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    text: str = ""
    finish: Finish | None = None


def _request(subject: Subject, prompt: Sequence[int], sampler: Sequence[str | dict[str, Any]], **options: Any) -> Request:
    chain: tuple[Any, ...] = tuple(
        subject.registry.component("sampler", each if isinstance(each, str) else each["name"]).model_validate(
            {"name": each} if isinstance(each, str) else each, context={"registry": subject.registry}
        )
        for each in sampler
    )
    return Request(prompt, chain, **{"max_new_tokens": 8, "overflow": "stop", **options})


def _record(answers: dict[RequestState, _Answer], progress: Sequence[Progress]) -> None:
    for each in progress:
        expect(each.state in answers, "progress of a request was reported that was not submitted or had already ended")
        answer = answers[each.state]
        expect(each.error is None, f"a request ended with an error: {each.error}")
        expect(answer.finish is None, "progress was reported after the finish reason")
        answer.ids += each.ids
        answer.scores += each.scores
        answer.text += each.text
        answer.finish = each.finish


def _finish(engine: Engine, answers: dict[RequestState, _Answer]) -> None:
    for _ in range(_STEPS):
        if engine.idle:
            break
        _record(answers, engine.step())
    expect(engine.idle, f"it is not idle after {_STEPS} steps")
    unfinished = sum(answer.finish is None for answer in answers.values())
    expect(unfinished == 0, f"it is idle, but {unfinished} of {len(answers)} requests have no finish reason")


def _answers(engine: Engine, requests: Sequence[Request]) -> list[_Answer]:
    """Submit requests at once, and return their answers in the same order."""
    states = [engine.submit(request) for request in requests]
    answers = {state: _Answer() for state in states}
    _finish(engine, answers)
    return [answers[state] for state in states]


@checks.add("completes-requests", "Every request is answered with its tokens and their text, once, and ends for a reason.")
def completes_requests(subject: Subject) -> None:
    with _engine(subject) as engine:
        requests = [
            _request(subject, prompt, ["greedy"], max_new_tokens=4 + 3 * index) for index, prompt in enumerate(_PROMPTS)
        ]
        answers = _answers(engine, requests)
        for request, answer in zip(requests, answers, strict=True):
            expect(
                len(answer.ids) == request.max_new_tokens and answer.finish == "length",
                f"{request.max_new_tokens} tokens were requested; {len(answer.ids)} were returned, finish {answer.finish!r}",
            )
            wrong = next((token for token in answer.ids if not 0 <= token < engine.vocab_size), None)
            expect(wrong is None, f"{wrong!r} is not a token id: the vocabulary has {engine.vocab_size} tokens")
            text = engine.tokenizer.decode(answer.ids)
            expect(answer.text == text, f"the pieces of text are {answer.text!r}, but the tokens decode to {text!r}")
        stop = answers[2].text[3:5]
        (stopped,) = _answers(engine, [_request(subject, _PROMPTS[2], ["greedy"], max_new_tokens=10, stop=(stop,))])
        wanted = answers[2].text[: answers[2].text.index(stop)]
        expect(
            stopped.text == wanted and stopped.finish == "stop",
            f"with the stop string {stop!r} the text is {stopped.text!r} and not {wanted!r}; finish {stopped.finish!r}",
        )


@checks.add("most-likely-tokens", "A greedy text consists of the model's most likely tokens.")
@torch.no_grad()
def most_likely_tokens(subject: Subject) -> None:
    model = _run(subject.registry).model
    with _engine(subject) as engine:
        answers = _answers(engine, [_request(subject, prompt, ["greedy"]) for prompt in _PROMPTS])
    for prompt, answer in zip(_PROMPTS, answers, strict=True):
        logits_TV = _logits(model, [*prompt, *answer.ids])[len(prompt) - 1 : -1]
        missing_T = logits_TV.max(dim=-1).values - logits_TV.gather(-1, torch.tensor(answer.ids)[:, None])[:, 0]
        expect(
            bool((missing_T <= _MARGIN * logits_TV.std()).all()),
            f"a token was returned whose logit is {float(missing_T.max()):.3g} below that of the most likely one",
        )


@checks.add("requests-are-independent", "Requests that run at the same time must not affect each other's text.")
def requests_are_independent(subject: Subject) -> None:
    with _engine(subject) as engine:
        requests = [_request(subject, prompt, ["temperature"], seed=index) for index, prompt in enumerate(_PROMPTS)]
        together = _answers(engine, requests)
        for index, (request, answer) in enumerate(zip(requests, together, strict=True)):
            (alone,) = _answers(engine, [request])
            expect(
                alone.ids == answer.ids,
                f"request {index} returns the tokens {answer.ids} beside others, and {alone.ids} alone",
            )


@checks.add("equal-seeds-equal-texts", "A text can be repeated only if equal requests get equal texts.")
def equal_seeds_equal_texts(subject: Subject) -> None:
    with _engine(subject) as engine:
        chain = [{"name": "temperature", "value": 2.0}]
        seeds = [3, 3, 4, 5]
        answers = _answers(engine, [_request(subject, [65], chain, seed=seed, max_new_tokens=12) for seed in seeds])
        expect(answers[0].ids == answers[1].ids, "two requests with the same seed return different tokens")
        expect(len({tuple(answer.ids) for answer in answers}) > 1, "requests with different seeds return the same tokens")


@checks.add("waits-for-room", "No more requests run at once than `max_batch` allows, and those that wait are started.")
def waits_for_room(subject: Subject) -> None:
    with _engine(subject) as engine:
        states = [engine.submit(_request(subject, [65 + index], ["greedy"])) for index in range(2 * _MAX_BATCH + 1)]
        answers = {state: _Answer() for state in states}
        for _ in range(4):
            _record(answers, engine.step())
            expect(
                engine.n_running <= _MAX_BATCH,
                f"{engine.n_running} requests run at the same time; max_batch is {_MAX_BATCH}",
            )
        _finish(engine, answers)
        expect(engine.n_running == engine.n_waiting == 0, "it is idle, but counts requests that run or wait")


@checks.add("cancels", "A cancelled request reports nothing more and frees its place; the others continue.")
def cancels(subject: Subject) -> None:
    with _engine(subject) as engine:
        requests = [_request(subject, prompt, ["greedy"], max_new_tokens=20) for prompt in _PROMPTS]
        wanted = _answers(engine, requests)
        states = [engine.submit(request) for request in requests]
        answers = {state: _Answer() for state in states}
        _record(answers, engine.step())
        for index in (0, len(states) - 1):  # one that runs and one that waits
            engine.cancel(states[index])
            del answers[states[index]]
        _finish(engine, answers)
        for index in range(1, len(states) - 1):
            expect(
                answers[states[index]].ids == wanted[index].ids,
                f"request {index} returns other tokens after another one was cancelled",
            )


@checks.add("scores", "Log-probabilities are those of the model, before the samplers.")
@torch.no_grad()
def scores(subject: Subject) -> None:
    model = _run(subject.registry).model
    with _engine(subject) as engine:
        chain = [{"name": "temperature", "value": 0.5}]
        (answer,) = _answers(engine, [_request(subject, _PROMPTS[0], chain, log_probabilities=2)])
        text = [*_PROMPTS[0], *answer.ids]
        wanted_TV = _logits(model, text).log_softmax(dim=-1)
        _compare(answer.scores, wanted_TV[len(_PROMPTS[0]) - 1 : -1], answer.ids, "a request")
        _compare(engine.score(text, 2), wanted_TV[:-1], text[1:], "score")


def _compare(returned: Sequence[Score], wanted_TV: Tensor, ids: Sequence[int], what: str) -> None:
    expect(len(returned) == len(ids), f"{what} returned {len(returned)} scores for {len(ids)} tokens")
    for score, wanted_V, token in zip(returned, wanted_TV, ids, strict=True):
        difference = abs(score.log_probability - float(wanted_V[token]))
        expect(difference < 2 * _MARGIN, f"the log-probability of {what} differs by {difference:.3g} from that of the model")
        expect(len(score.top) == 2, f"{what} returned {len(score.top)} of the 2 most likely tokens")
        expect(score.top[0][1] >= score.top[1][1], "the most likely tokens are not in descending order")


@checks.add("refuses-unknown-tokens", "A prompt with ids outside the vocabulary is reported before anything runs.")
def refuses_unknown_tokens(subject: Subject) -> None:
    with _engine(subject) as engine:
        for token in (-1, engine.vocab_size):
            try:
                engine.check(_request(subject, [65, token], ["greedy"]))
            except GptkitError:
                continue
            expect(False, f"`check` accepts the token {token}, but the vocabulary has {engine.vocab_size} tokens")


@checks.add("resets", "After an exception the host resets the engine, and other requests are answered.")
def resets(subject: Subject) -> None:
    with _engine(subject) as engine:
        request = _request(subject, _PROMPTS[0], ["greedy"])
        (wanted,) = _answers(engine, [request])
        for prompt in _PROMPTS:
            engine.submit(_request(subject, prompt, ["greedy"], max_new_tokens=30))
        engine.step()
        engine.reset()
        expect(engine.idle, "it is not idle after `reset`")
        (answer,) = _answers(engine, [request])
        expect(answer.ids == wanted.ids, "a request returns other tokens after `reset`")


def _logits(model: GPT, ids: Sequence[int]) -> Tensor:
    logits: Tensor = model(torch.tensor([list(ids)])).logits[0]
    return logits
