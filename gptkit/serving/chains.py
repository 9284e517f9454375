"""Sampler chains from the fields of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.core.errors import GptkitError, SpecError
from gptkit.core.registry import default_registry
from gptkit.inference.samplers import sampler_chain
from gptkit.kinds.sampler import SamplerSpec
from gptkit.serving.api_error import ApiError, as_api_error
from gptkit.serving.bodies import ChatBody, GenerationBody, ResponseFormat
from gptkit.serving.limits import Limits

__all__ = ["request_chain"]

_GREEDY_BELOW = 1e-5
"""Temperatures below this one select the most likely token, as they do in vLLM."""

_SHAPING = ("temperature", "top_p", "top_k", "min_p")
_PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")


def request_chain(body: GenerationBody, default: tuple[SamplerSpec, ...], limits: Limits) -> tuple[SamplerSpec, ...]:
    """Return the chain of a request.

    The order: structure, bias, penalties, temperature, min-p, top-k, top-p. A request without fields that shape the
    distribution uses the samplers of the run in their place, and one with `sampler` exactly that chain after structure and
    bias.

    Args:
        body: the request.
        default: the samplers of the run.
        limits: the limits of requests.

    Raises:
        ApiError: a field is invalid, or two of them exclude each other.
    """
    chain = [*_structure(body), *_bias(body, limits)]
    if body.sampler is not None:
        return (*chain, *_explicit(body, limits))
    chain += _penalties(body)
    if all(getattr(body, field) is None for field in _SHAPING):
        return (*chain, *default)
    return (*chain, *_shaped(body))


def _explicit(body: GenerationBody, limits: Limits) -> tuple[SamplerSpec, ...]:
    beside = next((field for field in (*_SHAPING, *_PENALTIES) if getattr(body, field) is not None), None)
    if beside is not None:
        message = f"sampler and {beside} exclude each other; write {beside} as a sampler of the chain"
        raise ApiError(400, message, param=beside)
    chain = [body.sampler] if isinstance(body.sampler, (str, Mapping)) else body.sampler
    if not isinstance(chain, list) or not all(isinstance(each, (str, Mapping)) for each in chain):
        raise ApiError(
            400, 'sampler: a chain is a list of names or objects such as {"name": "top-p", "p": 0.9}', param="sampler"
        )
    if len(chain) > limits.max_samplers:
        raise ApiError(400, f"sampler: a chain has at most {limits.max_samplers} samplers", param="sampler")
    try:
        return sampler_chain(chain)
    except SpecError as error:
        raise as_api_error(error, "sampler") from None


def _structure(body: GenerationBody) -> list[SamplerSpec]:
    wanted = body.response_format if isinstance(body, ChatBody) else None
    if wanted is None or wanted.type == "text":
        return []
    schema = {"type": "object"} if wanted.type == "json_object" else _schema(wanted)
    if "structured" not in default_registry().names("sampler"):
        raise ApiError(
            400,
            f"response_format {wanted.type} requires the package gptkit-structured, which is not installed on this server",
            param="response_format",
            code="not_installed",
        )
    try:
        return list(sampler_chain([{"name": "structured", "json_schema": schema}]))
    except SpecError as error:
        raise ApiError(
            400, f"response_format.json_schema.schema {error.problems[0].message}", param="response_format"
        ) from None


def _schema(wanted: ResponseFormat) -> dict[str, Any]:
    schema = (wanted.json_schema or {}).get("schema")
    if not isinstance(schema, dict):
        message = "response_format.json_schema.schema: a JSON schema is required, as an object"
        raise ApiError(400, message, param="response_format.json_schema.schema", code="missing")
    return schema


def _bias(body: GenerationBody, limits: Limits) -> list[SamplerSpec]:
    if not body.logit_bias:
        return []
    if len(body.logit_bias) > limits.max_bias:
        raise ApiError(400, f"logit_bias: at most {limits.max_bias} tokens", param="logit_bias")
    wrong = next((key for key in body.logit_bias if not (key.isascii() and key.isdigit() and len(key) < 20)), None)
    if wrong is not None:
        raise ApiError(400, f"logit_bias: {wrong[:50]!r} is not a token id", param="logit_bias")
    bias = {int(key): value for key, value in body.logit_bias.items()}
    return _chain({"name": "logit-bias", "bias": bias}, "logit_bias")


def _penalties(body: GenerationBody) -> list[SamplerSpec]:
    chain: list[SamplerSpec] = []
    if body.repetition_penalty not in (None, 1):
        chain += _chain({"name": "repetition-penalty", "penalty": body.repetition_penalty}, "repetition_penalty")
    if body.frequency_penalty:
        chain += _chain({"name": "frequency-penalty", "penalty": body.frequency_penalty}, "frequency_penalty")
    if body.presence_penalty:
        chain += _chain({"name": "presence-penalty", "penalty": body.presence_penalty}, "presence_penalty")
    return chain


def _shaped(body: GenerationBody) -> list[SamplerSpec]:
    if body.temperature is not None and body.temperature < _GREEDY_BELOW:
        return _chain({"name": "greedy"}, "temperature")
    chain: list[SamplerSpec] = []
    if body.temperature not in (None, 1):
        chain += _chain({"name": "temperature", "value": body.temperature}, "temperature")
    if body.min_p:
        chain += _chain({"name": "min-p", "p": body.min_p}, "min_p")
    if body.top_k is not None and body.top_k > 0:
        chain += _chain({"name": "top-k", "k": body.top_k}, "top_k")
    if body.top_p not in (None, 1):
        chain += _chain({"name": "top-p", "p": body.top_p}, "top_p")
    return chain


def _chain(sampler: Mapping[str, Any], param: str) -> list[SamplerSpec]:
    try:
        return list(sampler_chain([sampler]))
    except SpecError as error:
        raise ApiError(400, f"{param}: {error.problems[0].message}", param=param) from None
    except GptkitError as error:
        raise as_api_error(error, param) from None
