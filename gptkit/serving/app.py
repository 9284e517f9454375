"""The ASGI application: routes of the OpenAI API and of operation."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gptkit.core.errors import GptkitError
from gptkit.serving.api_error import ApiError
from gptkit.serving.bodies import ChatBody, CompletionBody, DetokenizeBody, TokenizeBody, parse
from gptkit.serving.chats import chats
from gptkit.serving.completions import completions
from gptkit.serving.gate import Gate
from gptkit.serving.http import Exchange
from gptkit.serving.limits import Limits
from gptkit.serving.metrics import Metrics
from gptkit.serving.model import ServedModel

__all__ = ["Api", "application"]

_Body = TypeVar("_Body", bound=BaseModel)

Handler = Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True)
class Api:
    """What the application serves.

    Attributes:
        models: the models by name.
        limits: the limits of requests.
        metrics: the metrics.
        api_key: the key that clients must send; None admits everyone.
        hosts: names that the Host header may have; None admits all.
        origins: origins of web pages whose scripts may read answers (CORS).
    """

    models: Mapping[str, ServedModel]
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    api_key: str | None = field(default=None, repr=False)
    hosts: frozenset[str] | None = None
    origins: Sequence[str] = ()

    def model(self, name: str | None) -> ServedModel:
        """Return the model of a request; the only one if it names none.

        Raises:
            ApiError: it does not exist.
        """
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        if name is None:
            raise ApiError(400, f"model is required; choose one of: {', '.join(self.models)}", param="model", code="missing")
        if name not in self.models:
            message = f"the model {name[:200]!r} does not exist; choose one of: {', '.join(self.models)}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return self.models[name]


def application(api: Api) -> Starlette:
    """Return the ASGI application."""
    endpoints = _Endpoints(api)
    routes = [
        Route("/v1/models", _Endpoint(endpoints.models), methods=["GET"]),
        Route("/v1/models/{name:path}", _Endpoint(endpoints.one_model), methods=["GET"]),
        Route("/v1/completions", _Endpoint(endpoints.completions), methods=["POST"]),
        Route("/v1/chat/completions", _Endpoint(endpoints.chats), methods=["POST"]),
        Route("/tokenize", _Endpoint(endpoints.tokenize), methods=["POST"]),
        Route("/detokenize", _Endpoint(endpoints.detokenize), methods=["POST"]),
        Route("/health", _Endpoint(endpoints.health), methods=["GET"]),
        Route("/metrics", _Endpoint(endpoints.metrics), methods=["GET"]),
    ]
    paths = {route.path for route in routes}
    gate = Middleware(Gate, routes=paths, responses=api.metrics.responses, key=api.api_key, hosts=api.hosts)
    cors = Middleware(CORSMiddleware, allow_origins=list(api.origins), allow_methods=["GET", "POST"], allow_headers=["*"])

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        for model in api.models.values():
            await model.engine.close()

    return Starlette(
        routes=routes,
        middleware=[*([cors] if api.origins else []), gate],
        exception_handlers={HTTPException: _raise},
        lifespan=lifespan,
    )


async def _raise(request: Request, error: Exception) -> Response:
    try:
        raise error  # the gate answers with an error object
    finally:
        del error  # its traceback refers to this frame: a cycle would keep the request until a garbage collection


class _Endpoint:
    """ASGI application of one route. An instance, since Starlette would call a function with its own request class."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handler(Exchange(scope, receive, send))


class _Endpoints:
    def __init__(self, api: Api) -> None:
        self._api = api
        api.metrics.watch({name: model.engine for name, model in api.models.items()})

    async def completions(self, exchange: Exchange) -> None:
        body, model = await self._read(exchange, CompletionBody)
        await exchange.while_connected(completions(exchange, model, body, self._api.limits))

    async def chats(self, exchange: Exchange) -> None:
        body, model = await self._read(exchange, ChatBody)
        await exchange.while_connected(chats(exchange, model, body, self._api.limits))

    async def models(self, exchange: Exchange) -> None:
        await exchange.respond({"object": "list", "data": [_described(model) for model in self._api.models.values()]})

    async def one_model(self, exchange: Exchange) -> None:
        await exchange.respond(_described(self._api.model(exchange.scope["path_params"]["name"])))

    async def tokenize(self, exchange: Exchange) -> None:
        body, model = await self._read(exchange, TokenizeBody)
        if (body.prompt is None) == (body.messages is None):
            raise ApiError(400, "either prompt or messages is required", param="prompt", code="missing")
        if body.messages is not None:
            prompt = await model.conversation(body.messages)
        else:
            (prompt,) = await model.prompts(body.prompt)
        names = [model.tokenizer.token_bytes(token).decode("utf-8", "replace") for token in prompt.ids]
        content = {"count": len(prompt.ids), "max_model_len": model.engine.context_length, "tokens": prompt.ids}
        await exchange.respond(content | {"token_strs": names})

    async def detokenize(self, exchange: Exchange) -> None:
        body, model = await self._read(exchange, DetokenizeBody)
        try:
            text = await model.engine.call(model.tokenizer.decode, body.tokens)
        except GptkitError as error:
            raise ApiError(400, f"tokens: {error.message[:200]}", param="tokens") from None
        await exchange.respond({"prompt": text})

    async def health(self, exchange: Exchange) -> None:
        problems = {name: model.engine.problem for name, model in self._api.models.items() if model.engine.problem}
        if problems:
            await exchange.respond({"status": "failed", "problems": problems}, 503)
        else:
            await exchange.respond({"status": "ok"})

    async def metrics(self, exchange: Exchange) -> None:
        await exchange.respond(self._api.metrics.text(), kind="text/plain; version=0.0.4; charset=utf-8")

    async def _read(self, exchange: Exchange, kind: type[_Body]) -> tuple[_Body, ServedModel]:
        body = parse(await exchange.body(self._api.limits), kind)
        model = self._api.model(getattr(body, "model", None))
        exchange.notes["model"] = model.name
        return body, model


def _described(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "gptkit",
        "max_model_len": model.engine.context_length,
    }
