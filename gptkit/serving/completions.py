"""/v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.serving.answers import complete, envelope, in_time, stream, usage
from gptkit.serving.api_error import ApiError, as_api_error
from gptkit.serving.bodies import CompletionBody
from gptkit.serving.choices import Choice, Token, completion_scores, finish_reason, prompt_tokens
from gptkit.serving.http import Exchange
from gptkit.serving.limits import Limits
from gptkit.serving.model import Prompt, ServedModel

__all__ = ["completions"]


async def completions(exchange: Exchange, model: ServedModel, body: CompletionBody, limits: Limits) -> None:
    """Answer a request for completions."""
    n_choices = body.n or 1
    n_drawn = body.best_of or n_choices
    if n_drawn < n_choices:
        raise ApiError(400, "best_of: must not be less than n", param="best_of")
    if n_drawn > n_choices and body.stream:
        raise ApiError(400, "best_of: the best choices are known at the end, and cannot be streamed", param="best_of")
    prompts = await model.prompts(body.prompt)
    requests = await model.requests(body, prompts, limits, n_drawn)
    owners = [prompt for prompt in prompts for _ in range(n_drawn)]
    choices = [Choice(model.tokenizer, len(prompt.text) if body.echo else 0) for prompt in owners]
    head = envelope(model, "text_completion", "cmpl")

    def formatted(index: int, text: str, tokens: Sequence[Token], reason: str | None) -> dict[str, Any]:
        scores = None if body.logprobs is None else completion_scores(model.tokenizer, tokens)
        return {"index": index, "text": text, "logprobs": scores, "finish_reason": reason}

    async with in_time(limits):
        echoed = await _echoed(model, prompts, body) if body.echo else [[] for _ in prompts]
        beginnings = [tokens for tokens in echoed for _ in range(n_drawn)]
        if body.stream:
            first = [
                formatted(index, prompt.text, tokens, None)
                for index, (prompt, tokens) in enumerate(zip(owners, beginnings, strict=True))
                if body.echo
            ]
            total = (lambda: usage(prompts, choices)) if body.with_usage else None
            await stream(exchange, model, requests, choices, head=head, first=first, chunk=formatted, final_usage=total)
        else:
            await complete(model, requests, choices)
    exchange.notes |= usage(prompts, choices)
    if body.stream:
        return
    results: list[dict[str, Any]] = []
    for at in range(0, len(choices), n_drawn):
        drawn = list(range(at, at + n_drawn))
        if n_drawn > n_choices:
            drawn.sort(key=lambda index: -_mean_score(choices[index]))
        for index in drawn[:n_choices]:
            choice = choices[index]
            text = (owners[index].text if body.echo else "") + choice.text
            tokens = [*beginnings[index], *choice.tokens]
            results.append(formatted(len(results), text, tokens, finish_reason(choice.finish)))
    await exchange.respond(head | {"choices": results, "usage": usage(prompts, choices)})


async def _echoed(model: ServedModel, prompts: Sequence[Prompt], body: CompletionBody) -> list[list[Token]]:
    """Return the tokens of each prompt with their scores; none where the request asks for no log-probabilities."""
    if body.logprobs is None:
        return [[] for _ in prompts]
    result = []
    for prompt in prompts:
        try:
            scores = await model.engine.score(prompt.ids, body.logprobs)
        except GptkitError as error:
            raise as_api_error(error, "prompt") from error
        result.append(prompt_tokens(model.tokenizer, prompt.ids, scores, prompt.n_hidden))
    return result


def _mean_score(choice: Choice) -> float:
    return choice.sum_of_scores / max(1, choice.n_generated)
