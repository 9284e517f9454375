"""`ServedModel`: a run with its engine, and the conversion of bodies to requests."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.inference.request import Request
from gptkit.kinds.sampler import SamplerSpec
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.runs.prompts import chat_prompt, prompt_ids
from gptkit.serving.api_error import ApiError, as_api_error
from gptkit.serving.bodies import ChatBody, CompletionBody, GenerationBody, Message
from gptkit.serving.chains import request_chain
from gptkit.serving.engine import AsyncEngine
from gptkit.serving.limits import Limits

__all__ = ["Prompt", "ServedModel"]

_MAX_TOKENS_OF_COMPLETIONS = 16
"""Default of `max_tokens` in the completions API."""

_CHARACTERS_PER_TOKEN = 256
"""A text of more characters per token of the context is refused before it is tokenized."""


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        ids: its token ids.
        text: its text, if it is not a conversation.
        ends: ids that end its continuation.
        n_hidden: number of tokens at the beginning that are not part of the text (a start token).
    """

    ids: list[int]
    text: str
    ends: frozenset[int]
    n_hidden: int = 0


@dataclass(frozen=True)
class ServedModel:
    """A model that the server offers.

    Attributes:
        name: the name in requests.
        engine: its engine.
        sampler: the samplers of requests that choose none.
        ends: token ids that end a text, besides the tokenizer's end token.
        created: time at which it was loaded, in seconds since the epoch.
    """

    name: str
    engine: AsyncEngine
    sampler: tuple[SamplerSpec, ...] = ()
    ends: Sequence[int] = field(default=(), repr=False)
    created: int = 0

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        tokenizer: Tokenizer = self.engine.tokenizer
        return tokenizer

    async def prompts(self, given: Any) -> list[Prompt]:
        """Return the prompts that a completion request holds: a text, token ids, or a list of such."""
        if isinstance(given, str) or (isinstance(given, list) and given and all(map(_is_id, given))):
            given = [given]
        if not isinstance(given, list) or not given:
            raise ApiError(400, "prompt: a text, a list of token ids, or a list of such is required", param="prompt")
        if len(given) > self.engine.capacity:
            raise ApiError(400, f"prompt: at most {self.engine.capacity} prompts at once", param="prompt")
        params = ["prompt"] if len(given) == 1 else [f"prompt.{index}" for index in range(len(given))]
        return [await self._prompt(each, param) for each, param in zip(given, params, strict=True)]

    async def _prompt(self, given: Any, param: str) -> Prompt:
        known = [] if self.tokenizer.end_id is None else [self.tokenizer.end_id]
        ends = frozenset([*known, *self.ends])
        if isinstance(given, str):
            self._require_short(len(given), param)
            ids = await self.engine.call(prompt_ids, self.tokenizer, given)
            return Prompt(ids, given, ends, n_hidden=int(self.tokenizer.start_id is not None or not given))
        if not (isinstance(given, list) and given and all(map(_is_id, given))):
            raise ApiError(400, f"{param}: a text or a list of token ids is required", param=param)
        outside = next((token for token in given if not 0 <= token < self.engine.vocab_size), None)
        if outside is not None:
            shown = outside if abs(outside) < 1 << 64 else "…"
            message = f"{param}: token {shown} does not exist; the vocabulary has {self.engine.vocab_size} tokens"
            raise ApiError(400, message, param=param)
        inside = [token for token in given if token < self.tokenizer.vocab_size]
        return Prompt(given, await self.engine.call(self.tokenizer.decode, inside), ends)

    async def conversation(self, messages: Sequence[Message], param: str = "messages") -> Prompt:
        """Return the prompt of a conversation, rendered by the chat template."""
        if self.tokenizer.chat_template is None:
            raise ApiError(
                400,
                f"the model {self.name!r} has no chat template; use /v1/completions, or serve a model that has one",
                param=param,
                code="no_chat_template",
            )
        plain = [_plain(message, f"{param}.{index}") for index, message in enumerate(messages)]
        self._require_short(sum(len(message["content"]) for message in plain), param)
        try:
            ids, ends = await self.engine.call(chat_prompt, self.tokenizer, plain, self.ends)
        except GptkitError as error:
            raise as_api_error(error, param) from None
        if not ids:
            raise ApiError(400, f"{param}: the chat template renders no text", param=param)
        return Prompt(ids, "", ends)

    def _require_short(self, n_characters: int, param: str) -> None:
        limit = self.engine.context_length
        if n_characters > _CHARACTERS_PER_TOKEN * limit:
            message = f"{param}: {n_characters:,} characters are more than the context of {limit:,} tokens holds"
            raise ApiError(400, message, param=param, code="context_length_exceeded")

    async def requests(self, body: GenerationBody, prompts: Sequence[Prompt], limits: Limits, count: int) -> list[Request]:
        """Return `count` requests for each prompt, checked by the engine.

        Raises:
            ApiError: a field is invalid, a limit is exceeded, or the engine refuses it.
        """
        self._check_limits(body, limits, count)
        if count * len(prompts) > self.engine.capacity:
            message = f"n: {count * len(prompts)} choices at once; this server accepts {self.engine.capacity}"
            raise ApiError(400, message, param="n")
        chain = await self.engine.call(request_chain, body, self.sampler, limits)
        seed = secrets.randbits(32) if body.seed is None else body.seed
        requests: list[Request] = []
        for prompt in prompts:
            ends = frozenset(body.stop_token_ids or ()) | (frozenset() if body.ignore_eos else prompt.ends)
            most = self._max_new_tokens(body, len(prompt.ids), limits)
            for _ in range(count):
                request = Request(
                    prompt.ids,
                    sampler=chain,
                    max_new_tokens=most,
                    stop=body.stops(),
                    stop_ids=ends,
                    seed=seed,
                    stream=len(requests),
                    overflow="stop",
                    log_probabilities=_n_top(body),
                )
                requests.append(request)
            try:
                await self.engine.check(requests[-1])
            except GptkitError as error:
                raise as_api_error(error, "sampler" if body.sampler is not None else None) from None
        return requests

    def _check_limits(self, body: GenerationBody, limits: Limits, count: int) -> None:
        if count > limits.max_choices:
            raise ApiError(400, f"n: at most {limits.max_choices} choices per prompt", param="n")
        stops = body.stops()
        if "" in stops:
            raise ApiError(400, "stop: a stop string is empty", param="stop")
        if len(stops) > limits.max_stop or any(len(stop) > limits.max_stop_length for stop in stops):
            message = f"stop: at most {limits.max_stop} strings of at most {limits.max_stop_length} characters"
            raise ApiError(400, message, param="stop")
        top = _n_top(body)
        if top is not None and top > limits.max_top:
            param = "top_logprobs" if isinstance(body, ChatBody) else "logprobs"
            raise ApiError(400, f"{param}: at most {limits.max_top} tokens per position", param=param)
        if isinstance(body, ChatBody) and body.top_logprobs is not None and not body.logprobs:
            raise ApiError(400, "top_logprobs requires logprobs: true", param="top_logprobs")

    def _max_new_tokens(self, body: GenerationBody, n_prompt: int, limits: Limits) -> int:
        limit = self.engine.context_length
        param, wanted = "max_tokens", body.max_tokens
        if isinstance(body, ChatBody) and body.max_completion_tokens is not None:
            param, wanted = "max_completion_tokens", body.max_completion_tokens
        if limits.max_tokens is not None and wanted is not None and wanted > limits.max_tokens:
            raise ApiError(400, f"{param}: this server generates at most {limits.max_tokens} tokens", param=param)
        room = limit - n_prompt
        if room < 0 or (room == 0 and wanted != 0):
            raise ApiError(
                400,
                f"the prompt has {n_prompt:,} tokens, and the model's context is {limit:,}; shorten the prompt",
                param="messages" if isinstance(body, ChatBody) else "prompt",
                code="context_length_exceeded",
            )
        if wanted is None:
            wanted = room if isinstance(body, ChatBody) else _MAX_TOKENS_OF_COMPLETIONS
        return min(wanted, room, room if limits.max_tokens is None else limits.max_tokens)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _n_top(body: GenerationBody) -> int | None:
    """Return the number of most likely tokens that the answer holds per position; None without log-probabilities."""
    if isinstance(body, CompletionBody):
        return body.logprobs if body.best_of is None or body.logprobs is not None else 0
    if isinstance(body, ChatBody) and body.logprobs:
        return body.top_logprobs or 0
    return None


def _plain(message: Message, param: str) -> dict[str, Any]:
    """Return a message with its content as a text, as chat templates expect it."""
    content = message.content
    if isinstance(content, list):
        parts = []
        for index, part in enumerate(content):
            if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
                raise ApiError(400, "only parts of type text are supported", param=f"{param}.content.{index}")
            parts.append(part["text"])
        content = "\n".join(parts)
    if content is None and message.role == "assistant":
        content = ""
    if not isinstance(content, str):
        raise ApiError(400, "content: a text, or a list of text parts, is required", param=f"{param}.content")
    role = "system" if message.role == "developer" else message.role
    if role in ("tool", "function") or (message.model_extra or {}).get("tool_calls"):
        raise ApiError(400, "tools are not supported; write calls and results as texts", param=f"{param}.role")
    if role not in ("system", "user", "assistant"):
        raise ApiError(400, f"{role[:50]!r} is not a role; use system, user or assistant", param=f"{param}.role")
    return {"role": role, "content": content}
