"""Running of requests, and the two forms of an answer: as a whole, or as server-sent events."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.inference.request import Request
from gptkit.serving.api_error import ApiError, as_api_error
from gptkit.serving.choices import Choice, Token
from gptkit.serving.http import Exchange
from gptkit.serving.limits import Limits
from gptkit.serving.model import Prompt, ServedModel

__all__ = ["complete", "envelope", "in_time", "stream", "usage"]

Chunk = Callable[[int, str, Sequence[Token], str | None], dict[str, Any]]
"""Return a choice of a chunk from its index, text, tokens and finish reason."""


def envelope(model: ServedModel, kind: str, prefix: str) -> dict[str, Any]:
    """Return the fields that every object of an answer begins with."""
    return {"id": f"{prefix}-{secrets.token_hex(16)}", "object": kind, "created": int(time.time()), "model": model.name}


def usage(prompts: Sequence[Prompt], choices: Sequence[Choice]) -> dict[str, Any]:
    """Return the numbers of tokens. Those of a prompt count once, and as cached where each of its choices reused them."""
    n_prompt, n_generated = sum(len(prompt.ids) for prompt in prompts), sum(choice.n_generated for choice in choices)
    n_choices = len(choices) // len(prompts)
    parts = [choices[first : first + n_choices] for first in range(0, len(choices), n_choices)]
    n_cached = sum(min(choice.n_cached for choice in part) for part in parts)
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_generated,
        "total_tokens": n_prompt + n_generated,
        "prompt_tokens_details": {"cached_tokens": n_cached},
    }


@asynccontextmanager
async def in_time(limits: Limits) -> AsyncIterator[None]:
    """Convert the errors of generation to answers, and end it after the time limit."""
    try:
        async with asyncio.timeout(limits.timeout):
            yield
        return
    except TimeoutError:
        pass
    except GptkitError as error:
        raise as_api_error(error) from error
    # Not in the handler: the error's context would lead to the task that ends with it, a cycle.
    message = f"the answer took longer than {limits.timeout:g} seconds, so the request was cancelled"
    raise ApiError(504, message, code="timeout", headers={"x-should-retry": "false"})


async def complete(model: ServedModel, requests: Sequence[Request], choices: Sequence[Choice]) -> None:
    """Run requests until all have ended; each fills its choice."""
    async with model.engine.generate(*requests) as events:
        async for event in events:
            choices[event.index].add(event)


async def stream(
    exchange: Exchange,
    model: ServedModel,
    requests: Sequence[Request],
    choices: Sequence[Choice],
    *,
    head: dict[str, Any],
    first: Sequence[dict[str, Any]],
    chunk: Chunk,
    final_usage: Callable[[], dict[str, Any]] | None,
) -> None:
    """Run requests, and send their results as server-sent events.

    Args:
        exchange: the HTTP request.
        model: the model.
        requests: the requests, one for each choice.
        choices: the choices.
        head: the fields that every chunk begins with.
        first: choices that are sent before anything is generated, one chunk each.
        chunk: function that returns a choice of a chunk.
        final_usage: function that returns the usage for a last chunk; without it, none is sent.
    """
    common = head if final_usage is None else head | {"usage": None}
    async with model.engine.generate(*requests) as events:
        await exchange.begin_events()
        try:
            for choice in first:
                await exchange.event(common | {"choices": [choice]})
            async for event in events:
                tokens = choices[event.index].add(event)
                if event.text or tokens or event.finish is not None:
                    reason = None if event.finish is None else "length" if event.finish == "length" else "stop"
                    await exchange.event(common | {"choices": [chunk(event.index, event.text, tokens, reason)]})
        except GptkitError as error:
            raise as_api_error(error) from error
    if final_usage is not None:
        await exchange.event(head | {"choices": [], "usage": final_usage()})
    await exchange.event("[DONE]")
    await exchange.end_events()
