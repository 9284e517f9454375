"""/v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.serving.answers import complete, envelope, in_time, stream, usage
from gptkit.serving.bodies import ChatBody
from gptkit.serving.choices import Choice, Token, chat_scores, finish_reason
from gptkit.serving.http import Exchange
from gptkit.serving.limits import Limits
from gptkit.serving.model import ServedModel

__all__ = ["chats"]


async def chats(exchange: Exchange, model: ServedModel, body: ChatBody, limits: Limits) -> None:
    """Answer a request for the next message of a conversation."""
    prompt = await model.conversation(body.messages)
    requests = await model.requests(body, [prompt], limits, body.n or 1)
    choices = [Choice(model.tokenizer) for _ in requests]

    def scores(tokens: Sequence[Token]) -> dict[str, Any] | None:
        return chat_scores(model.tokenizer, tokens) if body.logprobs else None

    def delta(index: int, text: str, tokens: Sequence[Token], reason: str | None) -> dict[str, Any]:
        new = {"content": text} if text or tokens else {}
        return {"index": index, "delta": new, "logprobs": scores(tokens), "finish_reason": reason}

    async with in_time(limits):
        if body.stream:
            head = envelope(model, "chat.completion.chunk", "chatcmpl")
            beginning: dict[str, Any] = {"delta": {"role": "assistant", "content": ""}, "logprobs": None}
            first = [{"index": index, **beginning, "finish_reason": None} for index in range(len(choices))]
            total = (lambda: usage([prompt], choices)) if body.with_usage else None
            await stream(exchange, model, requests, choices, head=head, first=first, chunk=delta, final_usage=total)
        else:
            await complete(model, requests, choices)
    exchange.notes |= usage([prompt], choices)
    if body.stream:
        return
    head = envelope(model, "chat.completion", "chatcmpl")
    results = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": scores(choice.tokens),
            "finish_reason": finish_reason(choice.finish),
        }
        for index, choice in enumerate(choices)
    ]
    await exchange.respond(head | {"choices": results, "usage": usage([prompt], choices)})
