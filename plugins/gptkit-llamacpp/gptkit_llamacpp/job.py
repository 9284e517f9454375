"""One completion of llama.cpp, in a thread of its own."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xllamacpp

from gptkit.core.errors import GptkitError
from gptkit.engines.engine import Score

__all__ = ["Job", "News", "error_of", "ids_of", "score_of"]

_ID = re.compile(r"<(\d+)>")


@dataclass(frozen=True)
class News:
    """What a job reports.

    Attributes:
        job: the job.
        ids: new tokens.
        scores: one per token, if they were requested.
        ended: whether it has ended, after which it reports nothing.
        error: why it ended without a result.
    """

    job: Job
    ids: tuple[int, ...] = ()
    scores: tuple[Score, ...] = ()
    ended: bool = False
    error: GptkitError | None = None


class Job:
    """A running completion.

    Args:
        server: the server of xllamacpp, which computes several completions at once.
        body: the fields of the request.
        news: queue to which it reports from its thread.
    """

    def __init__(self, server: xllamacpp.Server, body: Mapping[str, Any], news: queue.SimpleQueue[News]) -> None:
        self._server, self._body, self._news = server, dict(body), news
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llama.cpp", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """End it at its next token. What it still reports is to be ignored."""
        self._cancelled.set()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _run(self) -> None:
        error: GptkitError | None = None
        try:
            self._server.handle_completions({**self._body, "stream": True}, self._receive)
        except Exception as raised:
            error = GptkitError(f"llama.cpp: {raised}")
        self._news.put(News(self, ended=True, error=error))

    def _receive(self, answer: Mapping[str, Any]) -> bool:
        """Callback of the server; returns whether the completion should end."""
        # xllamacpp discards what a callback raises.
        try:
            error = error_of(answer)
            if error is not None:
                self._news.put(News(self, error=error))
                return True
            ids = ids_of(answer)
            if ids:
                scores = tuple(map(score_of, _contents(answer)))
                self._news.put(News(self, ids, scores))
        except Exception as raised:
            self._news.put(News(self, error=GptkitError(f"llama.cpp's answer cannot be read: {raised!r}")))
            return True
        return self._cancelled.is_set()


def error_of(answer: Mapping[str, Any]) -> GptkitError | None:
    """Return the error that an answer reports."""
    error = answer.get("error") or (answer if "choices" not in answer else None)
    return None if error is None else GptkitError(f"llama.cpp: {error.get('message', error)}")


def ids_of(answer: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the tokens of an answer: in the exported vocabulary, their texts are their ids."""
    return tuple(int(number) for number in _ID.findall(answer["choices"][0]["text"]))


def _contents(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((answer["choices"][0].get("logprobs") or {}).get("content") or ())


def score_of(content: Mapping[str, Any]) -> Score:
    """Return the log-probabilities of a token."""
    top = tuple((int(each["id"]), float(each["logprob"])) for each in content["top_logprobs"])
    return Score(float(content["logprob"]), top)
