"""The ASGI application of `gptkit play`: the page, and one route that streams a continuation."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gptkit.core.errors import GptkitError
from gptkit.inference.request import Request
from gptkit.inference.samplers import sampler_chain
from gptkit.inference.trace import CANDIDATES
from gptkit.model.plan import human_count
from gptkit.model.tree import count
from gptkit.pages.page import page
from gptkit.pages.tokens import text_of
from gptkit.play.forms import sampler_forms
from gptkit.play.guard import Guard
from gptkit.runs.prompts import chat_prompt, prompt_ids
from gptkit.runs.run import Run
from gptkit.serving.engine import AsyncEngine
from gptkit.serving.http import Exchange
from gptkit.serving.limits import Limits

__all__ = ["MOST_TOKENS", "GenerateBody", "application"]

MOST_TOKENS = 4096
"""Number of tokens that one request may generate."""

_LIMITS = Limits(max_body=1 << 20)


class GenerateBody(BaseModel):
    """Body of a request to continue a text, given in one of three forms.

    Attributes:
        prompt: a text.
        chat: a message of the user, formatted by the chat template.
        ids: token ids of the whole text so far.
        sampler: the chain of samplers.
        max_new_tokens: maximum number of tokens to generate.
        seed: random seed; random by default.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str | None = None
    chat: str | None = None
    ids: Annotated[list[int], Field(max_length=1 << 20)] | None = None
    sampler: list[str | dict[str, Any]] = []
    max_new_tokens: int = Field(120, ge=1, le=MOST_TOKENS)
    seed: int | None = Field(None, ge=0, lt=1 << 63)


def application(run: Run, engine: AsyncEngine, hosts: frozenset[str] | None) -> Starlette:
    """Return the application.

    Args:
        run: the run, whose tokenizer, samplers and name the page shows.
        engine: the engine that computes its model; closed with the application.
        hosts: names that the Host header may have; None for any address of this machine.
    """
    content = _page(run).encode()
    generate = _Generate(run, engine)

    class Page:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await Exchange(scope, receive, send).respond(content, kind="text/html; charset=utf-8")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await engine.close()

    routes = [Route("/", Page(), methods=["GET"]), Route("/generate", generate, methods=["POST"])]
    return Starlette(routes=routes, middleware=[Middleware(Guard, hosts=hosts)], lifespan=lifespan)


def _page(run: Run) -> str:
    data = {
        "model": run.spec.name,
        "parameters": human_count(count(run.model)),
        "context_length": run.model.context_length,
        "step": run.step,
        "chat": run.tokenizer.chat_template is not None,
        "chain": [sampler.model_dump(mode="json") for sampler in run.spec.sampler],
        "samplers": sampler_forms(),
        "most_tokens": MOST_TOKENS,
    }
    return page(f"{run.spec.name}: play", ["common.js", "chain.js", "play.js"], data, connects=True)


class _Generate:
    """Route that streams a continuation as server-sent events.

    The first event has ``prompt``, the tokens of the text so far. Then follow ``tokens``, each a list of `TokenTrace` as
    plain data, and at last ``finish`` with ``seed`` and ``ended``: whether the last token ended the text and is not a part
    of it. An ``error`` (message, hint) ends the stream.
    """

    def __init__(self, run: Run, engine: AsyncEngine) -> None:
        self._run = run
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        body = await exchange.body(_LIMITS)
        try:
            request = await self._engine.call(self._request, body)
            await self._engine.check(request)
        except GptkitError as error:
            await exchange.respond(_plain(error), 400)
            return
        await exchange.while_connected(self._stream(exchange, request))

    def _request(self, body: bytes) -> Request:
        try:
            parsed = GenerateBody.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise GptkitError(f"{where}: {first['msg']}" if where else first["msg"]) from None
        given = [each for each in (parsed.prompt, parsed.chat, parsed.ids) if each is not None]
        if len(given) != 1:
            raise GptkitError("the body needs one of prompt, chat and ids")
        run, limit = self._run, self._run.model.context_length
        ends = frozenset(run.text_ends)
        if parsed.chat is not None:
            ids, ends = chat_prompt(run.tokenizer, parsed.chat, run.ends)
        elif parsed.prompt is not None:
            ids = prompt_ids(run.tokenizer, parsed.prompt)
        else:
            ids = parsed.ids or []
        if len(ids) >= limit:
            raise GptkitError(f"the text has {len(ids):,} tokens, and the context {limit:,}", hint="Shorten the prompt.")
        return Request(
            ids,
            sampler=sampler_chain(parsed.sampler),
            max_new_tokens=parsed.max_new_tokens,
            stop_ids=ends,
            seed=secrets.randbits(32) if parsed.seed is None else parsed.seed,
            overflow="stop",
            trace=CANDIDATES,
        )

    async def _stream(self, exchange: Exchange, request: Request) -> None:
        tokenizer = self._run.tokenizer
        await exchange.begin_events()
        prompt = [{"id": token, "text": text_of(tokenizer, token)} for token in request.prompt_ids]
        await exchange.event({"prompt": prompt})
        n_sent = n_tokens = 0
        try:
            async with self._engine.generate(request) as events:
                async for event in events:
                    state = events.states[0]
                    n_tokens += len(event.ids)
                    # The engine appends a token's trace before it reports the token.
                    end = len(state.trace) if event.finish is not None else n_tokens
                    new, n_sent = state.trace[n_sent:end], end
                    if new:
                        await exchange.event({"tokens": [token.as_dict() for token in new]})
                    if event.finish is not None:
                        ended = end > n_tokens
                        await exchange.event({"finish": event.finish, "seed": request.seed, "ended": ended})
        except GptkitError as error:
            await exchange.event({"error": _plain(error)})
        await exchange.end_events()


def _plain(error: GptkitError) -> dict[str, str | None]:
    return {"message": error.message, "hint": error.hint}
