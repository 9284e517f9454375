"""Bodies of requests, and their validation."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gptkit.core.suggestions import did_you_mean
from gptkit.serving.api_error import ApiError

__all__ = ["ChatBody", "CompletionBody", "DetokenizeBody", "GenerationBody", "Message", "TokenizeBody", "parse"]

_Body = TypeVar("_Body", bound=BaseModel)

Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Ids = list[Annotated[int, Field(ge=0)]]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(_Strict):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class GenerationBody(_Strict):
    """Fields that completions and chats have in common. None means that a field is not given.

    Class variables:
        ignored: fields of the OpenAI API that make no difference here.
        refused: fields that cannot be served, each with the reason.
    """

    ignored: ClassVar[frozenset[str]] = frozenset({"user"})
    refused: ClassVar[dict[str, str]] = {}

    model: str | None = None
    n: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    sampler: Any = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    stop_token_ids: Ids | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Any = None

    def stops(self) -> tuple[str, ...]:
        """Return the stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def with_usage(self) -> bool:
        """Whether the last chunk of a stream holds the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class CompletionBody(GenerationBody):
    """Body of /v1/completions."""

    refused: ClassVar[dict[str, str]] = {
        "suffix": "the models continue a text, and cannot fill in the middle of one",
    }

    prompt: Any
    best_of: int | None = Field(None, ge=1)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0)
    suffix: Any = None


class ResponseFormat(_Strict):
    """What the answer must conform to."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class Message(BaseModel):
    """A message of a conversation; the chat template decides which further fields it reads."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    role: str
    content: Any = None


class ChatBody(GenerationBody):
    """Body of /v1/chat/completions."""

    ignored: ClassVar[frozenset[str]] = frozenset(
        {
            *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_options"),
            *("prompt_cache_retention", "parallel_tool_calls", "verbosity"),
        }
    )
    refused: ClassVar[dict[str, str]] = {
        "audio": "only text is generated",
        "function_call": "functions are not supported; describe them in the system message",
        "functions": "functions are not supported; describe them in the system message",
        "moderation": "nothing is moderated here",
        "prediction": "predicted outputs are not supported",
        "reasoning_effort": "the amount of reasoning cannot be set; max_completion_tokens bounds the answer",
        "tools": "tools are not supported; describe them in the system message, and use response_format for calls as JSON",
        "web_search_options": "nothing is searched",
    }

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0)
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    parallel_tool_calls: Any = None
    verbosity: Any = None
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    moderation: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    tools: Any = None
    web_search_options: Any = None


class TokenizeBody(_Strict):
    """Body of /tokenize: a text, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1)


class DetokenizeBody(_Strict):
    """Body of /detokenize."""

    model: str | None = None
    tokens: Ids


def parse(data: bytes, kind: type[_Body]) -> _Body:
    """Return a validated body.

    Raises:
        ApiError: it is not JSON, has wrong fields, or one that is refused.
    """
    try:
        content = pydantic_core.from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(content, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    try:
        body = kind.model_validate(content)
    except ValidationError as error:
        raise _invalid(error, kind) from None
    for field, reason in getattr(kind, "refused", {}).items():
        if getattr(body, field) not in (None, [], {}):
            raise ApiError(400, f"{field} is refused: {reason}", param=field, code="unsupported_parameter")
    return body


def _invalid(error: ValidationError, kind: type[BaseModel]) -> ApiError:
    first = error.errors(include_url=False, include_context=False)[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        fields = sorted(set(kind.model_fields) - getattr(kind, "ignored", frozenset()))
        known = did_you_mean(path[-1], fields, label="fields") if len(path) == 1 else "remove it"
        message = f"unknown field {path[-1][:100]!r}; {known}"
        return ApiError(400, message, param=".".join(path)[:200], code="unknown_parameter")
    # A union adds the names of its members to the path.
    param = ".".join(part for part in path if not part.startswith(("str", "list[", "int", "constrained")))
    message = f"{param}: {first['msg'][0].lower()}{first['msg'][1:]}"
    return ApiError(400, message, param=param[:200], code="missing" if first["type"] == "missing" else "invalid_value")
