"""Invalid requests: each gets an error object that names the field, and none is an internal error."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.server import ServerProcess

JSON = {"Content-Type": "application/json"}


def post(server: ServerProcess, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Return the status and the JSON of an answer."""
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, JSON if headers is None else headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def complete(server: ServerProcess, **fields: Any) -> tuple[int, Any]:
    return post(server, "/v1/completions", {"model": "plain", "prompt": "a", "max_tokens": 2, **fields})


def converse(server: ServerProcess, **fields: Any) -> tuple[int, Any]:
    messages = [{"role": "user", "content": "hello"}]
    return post(server, "/v1/chat/completions", {"model": "chat", "messages": messages, "max_tokens": 2, **fields})


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"tempperature": 1}, "tempperature", "did you mean 'temperature'"),
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"temperature": True}, "temperature", "valid number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"min_p": 2}, "min_p", "less than or equal to 1"),
        ({"top_k": 1.5}, "top_k", "integer"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 17}, "n", "at most 16"),
        ({"n": 16, "prompt": ["a"] * 40}, "n", "this server accepts 48"),
        ({"n": 3, "best_of": 2}, "best_of", "less than n"),
        ({"best_of": 2, "stream": True}, "best_of", "cannot be streamed"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"max_tokens": 501}, "max_tokens", "at most 500"),
        ({"max_tokens": 10**30}, "max_tokens", "at most 500"),
        ({"frequency_penalty": 3}, "frequency_penalty", "less than or equal to 2"),
        ({"repetition_penalty": 0}, "repetition_penalty", "greater than or equal to 0.01"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "is not a token id"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "less than or equal to 100"),
        ({"logit_bias": {"99999": 1}}, None, "logit-bias"),
        ({"logit_bias": {str(token): 1 for token in range(1100)}}, "logit_bias", "at most 1024"),
        ({"stop": ""}, "stop", "empty"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"stop": "x" * 1001}, "stop", "1000 characters"),
        ({"stop": [1]}, "stop", "valid string"),
        ({"stop_token_ids": [-1]}, "stop_token_ids.0", "greater than or equal to 0"),
        ({"seed": "x"}, "seed", "valid integer"),
        ({"seed": 2**70}, "seed", "less than"),
        ({"logprobs": 21}, "logprobs", "at most 20"),
        ({"logprobs": True}, "logprobs", "valid integer"),
        ({"prompt": None}, "prompt", "required"),
        ({"prompt": []}, "prompt", "required"),
        ({"prompt": {"text": "a"}}, "prompt", "required"),
        ({"prompt": ["a", 1]}, "prompt.1", "a text or a list of token ids"),
        ({"prompt": [True]}, "prompt", "required"),
        ({"prompt": [99999]}, "prompt", "token 99999 does not exist"),
        ({"prompt": [10**40]}, "prompt", "does not exist"),
        ({"prompt": [-1]}, "prompt", "does not exist"),
        ({"prompt": ["a"] * 49}, "prompt", "at most 48"),
        ({"prompt": "x" * 600}, "prompt", "context is 512"),
        ({"prompt": "x" * 200_000}, "prompt", "characters are more"),
        ({"suffix": "end"}, "suffix", "fill in the middle"),
        ({"sampler": "no-such"}, "sampler.0", "unknown sampler"),
        ({"sampler": [{"name": "top-p", "p": 3}]}, "sampler.0.p", "must be at most 1"),
        ({"sampler": [{"name": "top-p", "q": 3}]}, "sampler.0.q", ""),
        ({"sampler": 5}, "sampler", "a chain is a list"),
        ({"sampler": [5]}, "sampler", "a chain is a list"),
        ({"sampler": ["greedy"] * 33}, "sampler", "at most 32"),
        ({"sampler": "greedy", "temperature": 1}, "temperature", "exclude each other"),
        ({"sampler": [{"name": "suppress-tokens", "tokens": [99999]}]}, "sampler", "suppress-tokens"),
        ({"stream_options": {"x": 1}}, "stream_options.x", "unknown field"),
        ({"echo": "yes"}, "echo", "valid boolean"),
        ({"model": 5}, "model", "valid string"),
    ],
)
def test_invalid_fields_of_completions(
    server: ServerProcess, fields: dict[str, Any], param: str | None, message: str
) -> None:
    status, answer = complete(server, **fields)
    assert status == 400, answer
    assert answer["error"]["type"] == "invalid_request_error"
    assert message in answer["error"]["message"], answer
    assert answer["error"]["param"] == param, answer


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": "hello"}, "messages", "valid list"),
        ({"messages": [{"content": "a"}]}, "messages.0.role", "required"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role", "is not a role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role", "tools are not supported"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", "a text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0", "parts of type text"),
        ({"messages": [{"role": "user", "content": "x " * 900}]}, "messages", "context is 512"),
        ({"tools": [{"type": "function"}]}, "tools", "tools is refused"),
        ({"functions": [{}]}, "functions", "functions is refused"),
        ({"audio": {"voice": "x"}}, "audio", "only text"),
        ({"modalities": ["audio"]}, "modalities.0", "'text'"),
        ({"top_logprobs": 2}, "top_logprobs", "requires logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "at most 20"),
        ({"logprobs": 3}, "logprobs", "valid boolean"),
        ({"max_completion_tokens": 501}, "max_completion_tokens", "at most 500"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema", "required"),
        ({"echo": True}, "echo", "unknown field"),
    ],
)
def test_invalid_fields_of_chats(server: ServerProcess, fields: dict[str, Any], param: str | None, message: str) -> None:
    status, answer = converse(server, **fields)
    assert status == 400, answer
    assert message in answer["error"]["message"], answer
    assert answer["error"]["param"] == param, answer


def test_fields_without_effect_are_accepted(server: ServerProcess) -> None:
    assert converse(server, user="me", metadata={"a": "b"}, store=False, parallel_tool_calls=True, tools=[])[0] == 200
    assert complete(server, user="me", suffix=None, stop=None, logit_bias=None, n=None, temperature=None)[0] == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "valid JSON"),
        (b"{", "valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"prompt": "\xff"}', "valid JSON"),
        (b'{"prompt": "\\ud800"}', "valid JSON"),
        (b'{"prompt": "a", "temperature": NaN}', "valid JSON"),
        (b'{"prompt": "a", "temperature": 1e999}', "temperature"),
        (b'{"a":' * 100_000, "valid JSON"),
        (b"[" * 1_000_000, "valid JSON"),
        (b'{"prompt": ' + b"9" * 100_000 + b"}", ""),
    ],
)
def test_bodies_that_are_not_valid_json(server: ServerProcess, body: bytes, message: str) -> None:
    status, answer = post(server, "/v1/completions", body)
    assert status == 400
    assert message in answer["error"]["message"]


def test_body_type_and_size(server: ServerProcess) -> None:
    status, answer = post(server, "/v1/completions", {"prompt": "a"}, {"Content-Type": "text/plain"})
    assert status == 415
    assert "Content-Type: application/json" in answer["error"]["message"]
    status, answer = post(server, "/v1/completions", b"x" * (4 * 1024 * 1024 + 1))
    assert status == 413
    assert "4,194,304 bytes" in answer["error"]["message"]
    with socket.create_connection(server.address, timeout=30) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        client.sendall(b"Content-Length: 99999999999\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413")


def test_paths_and_methods(server: ServerProcess) -> None:
    assert post(server, "/v1/nothing", {})[0] == 404
    status, answer = post(server, "/v1/models", {})
    assert status == 405
    assert answer["error"]["type"] == "invalid_request_error"


def test_tokenize_and_detokenize(server: ServerProcess) -> None:
    status, answer = post(server, "/tokenize", {"model": "plain", "prompt": "héllo"})
    assert status == 200
    assert answer["tokens"] == list("héllo".encode())
    assert (answer["count"], answer["max_model_len"]) == (6, 512)
    assert post(server, "/detokenize", {"model": "plain", "tokens": answer["tokens"]}) == (200, {"prompt": "héllo"})
    status, answer = post(server, "/tokenize", {"model": "chat", "messages": [{"role": "user", "content": "hello"}]})
    assert status == 200
    assert "<|turn|>" in answer["token_strs"]
    assert post(server, "/detokenize", {"model": "plain", "tokens": [10**9]})[0] == 400
    assert post(server, "/tokenize", {"model": "plain"})[0] == 400


# -- random requests ------------------------------------------------------------------------------------------------------

KEYS = st.text(max_size=8) | st.sampled_from(["name", "role", "content", "type", "p", "k", "1"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.integers(-3, 40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(["plain", "chat", "a", "greedy", "top-k", "user", "system", "text", "json_object", "<|turn|>"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
SHARED = [
    *("model", "n", "logprobs", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "sampler"),
    *("frequency_penalty", "presence_penalty", "logit_bias", "seed", "stop", "stop_token_ids", "ignore_eos", "stream"),
    *("stream_options", "user"),
]
FIELDS = {
    "/v1/completions": [*SHARED, "prompt", "best_of", "echo", "suffix"],
    "/v1/chat/completions": [*SHARED, "messages", "top_logprobs", "response_format", "tools", "max_completion_tokens"],
    "/tokenize": ["model", "prompt", "messages"],
    "/detokenize": ["model", "tokens"],
}
REQUIRED = {
    "/v1/completions": ["model", "prompt", "max_tokens"],
    "/v1/chat/completions": ["model", "messages", "max_tokens"],
    "/tokenize": ["model", "prompt"],
    "/detokenize": ["model", "tokens"],
}
LIKELY = {
    "model": st.sampled_from(["plain", "chat"]),
    "prompt": st.text(max_size=40) | st.lists(st.integers(0, 300), max_size=10) | st.lists(st.text(max_size=5), max_size=3),
    "messages": st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": st.text(max_size=20)}),
        max_size=3,
    ),
    "tokens": st.lists(st.integers(0, 300), max_size=10),
    "n": st.integers(1, 3),
    "logprobs": st.integers(0, 5) | st.booleans(),
    "max_tokens": st.integers(0, 5),
    "temperature": st.floats(0, 3),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(-1, 50),
    "seed": st.integers(0, 100),
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=3),
    "stream": st.booleans(),
    "echo": st.booleans(),
    "logit_bias": st.dictionaries(st.integers(0, 300).map(str), st.floats(-100, 100), max_size=3),
    "sampler": st.lists(st.sampled_from(["greedy", "typical", "mirostat", "dry", "xtc", "top-k", "min-length"]), max_size=3),
}


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """Draw a body: mostly an object with known fields of random values, or a damaged one, or random bytes."""
    form = draw(st.integers(0, 9))
    if form == 0:
        return draw(st.binary(max_size=200))
    content = {}
    for name in draw(st.lists(st.sampled_from(FIELDS[path]), max_size=6, unique=True)):
        content[name] = draw(VALUES if form < 4 or name not in LIKELY else LIKELY[name])
    if form > 3:
        content |= {name: draw(LIKELY[name]) for name in REQUIRED[path]}
    data = json.dumps(content).encode()
    if form == 1:
        cut = draw(st.integers(0, len(data)))
        data = data[:cut] + draw(st.binary(max_size=5)) + data[cut:]
    return data


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"])
def test_random_requests_cause_no_internal_error(server: ServerProcess, path: str) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    statuses = set()

    @settings(max_examples=400 if path.startswith("/v1") else 100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies(path))
    def send(body: bytes) -> None:
        nonlocal connection
        connection.request("POST", path, body, JSON)
        answer = connection.getresponse()
        data = answer.read()
        statuses.add(answer.status)
        assert answer.status < 500, (body, data)
        if answer.getheader("content-type", "").startswith("text/event-stream"):
            assert data.endswith(b"data: [DONE]\n\n"), (body, data)
        else:
            content = json.loads(data)
            assert ("error" in content) == (answer.status >= 400)

    send()
    connection.close()
    assert {200, 400} <= statuses
    server.wait_for(server.idle)
    assert json.loads(server.get("/health")) == {"status": "ok"}
