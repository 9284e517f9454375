"""Clients that leave, send slowly, or read slowly."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.server import ServerProcess


def open_socket(server: ServerProcess) -> socket.socket:
    return socket.create_connection(server.address, timeout=60)


def post(path: str, body: dict[str, Any]) -> bytes:
    """Return a whole HTTP request."""
    data = json.dumps(body).encode()
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(data)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


LONG = {"model": "plain", "prompt": "a", "max_tokens": 500, "ignore_eos": True, "n": 2}


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_frees_its_rows(server: ServerProcess, stream: bool) -> None:
    ended = server.metric("gptkit_requests_total", reason="cancelled")
    for _ in range(3):
        with open_socket(server) as client:
            client.sendall(post("/v1/completions", LONG | {"stream": stream}))
            server.wait_for(lambda: server.metric("gptkit_running_requests") == 2)
        server.wait_for(server.idle)
    assert server.metric("gptkit_requests_total", reason="cancelled") == ended + 6
    statuses = [entry["status"] for entry in server.access_log() if entry["path"] == "/v1/completions"]
    assert statuses[-3:] == [499] * 3


def test_stream_that_is_closed_by_the_client_frees_its_row(server: ServerProcess, client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"extra_body": {"ignore_eos": True}, "max_tokens": 500, "stream": True}
    for _ in range(3):
        with client.completions.create(model="plain", prompt="a", **fields) as stream:
            next(iter(stream))
    server.wait_for(server.idle)


def test_many_clients_that_come_and_go(server: ServerProcess) -> None:
    def visit(index: int) -> None:
        for turn in range(4):
            with open_socket(server) as client:
                client.sendall(post("/v1/completions", LONG | {"n": 1, "stream": bool((index + turn) % 2)}))
                time.sleep(0.01 * ((index + turn) % 5))

    threads = [threading.Thread(target=visit, args=(index,)) for index in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    server.wait_for(server.idle)
    assert json.loads(server.get("/health")) == {"status": "ok"}


def test_incomplete_requests_do_not_disturb_others(server: ServerProcess) -> None:
    held = []
    partial = post("/v1/completions", LONG)[:-10]
    for data in (b"", b"POST /v1/comple", partial, b"\x00\xff\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        client = open_socket(server)
        client.sendall(data)
        held.append(client)
    answer = json.loads(server.get("/health"))
    assert answer == {"status": "ok"}
    for client in held:
        client.close()
    server.wait_for(server.idle)


def test_full_queue_answers_429(server: ServerProcess) -> None:
    clients = []
    for _ in range(3):  # 16 run and 32 wait
        client = open_socket(server)
        client.sendall(post("/v1/completions", LONG | {"n": 16}))
        clients.append(client)
    server.wait_for(lambda: server.metric("gptkit_queue_length") + server.metric("gptkit_running_requests") == 48)
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    body = json.dumps({"model": "plain", "prompt": "a"})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    for client in clients:
        client.close()
    assert answer.status == 429
    assert 1 <= int(answer.getheader("retry-after", "0")) <= 60
    assert content["error"]["code"] == "queue_full"
    server.wait_for(server.idle)


IMPATIENT = """
import sys
from gptkit.serving import limits, protocol

protocol.GuardedProtocol.header_timeout = 1.0
protocol.GuardedProtocol.write_timeout = 1.0
limits.Limits.__dataclass_fields__["body_timeout"].default = 1.0
limits.Limits.__init__.__defaults__ = tuple(1.0 if value == 30.0 else value for value in limits.Limits.__init__.__defaults__)

from gptkit.cli.main import main

main()
"""
"""The command with time limits of one second in place of 10 and 30."""


@pytest.fixture(scope="module")
def impatient(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("impatient")
    (directory / "program.py").write_text(IMPATIENT)
    process = ServerProcess(runs[:1], directory / "log", "--timeout", "2", program=(str(directory / "program.py"),))
    yield process
    assert process.stop() == 0


def closes(client: socket.socket, seconds: float = 120) -> bytes:
    """Return what the server sends until it closes the connection."""
    client.settimeout(seconds)
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@pytest.mark.slow
def test_connections_without_headers_are_closed(impatient: ServerProcess) -> None:
    with open_socket(impatient) as silent, open_socket(impatient) as slow:
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\n")
        for _ in range(4):  # a byte now and then does not extend the time
            time.sleep(0.2)
            slow.sendall(b"X")
        assert closes(silent) == closes(slow) == b""


def test_slow_bodies_are_refused(impatient: ServerProcess) -> None:
    with open_socket(impatient) as client:
        client.sendall(post("/v1/completions", LONG)[:-10])
        answer = closes(client)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not arrive within 1 seconds" in answer


@pytest.mark.slow
def test_answer_has_a_deadline(impatient: ServerProcess) -> None:
    """72 choices of 500 tokens, 8 at a time, take longer than 2 seconds."""
    connection = http.client.HTTPConnection(*impatient.address, timeout=60)
    body = LONG | {"n": 8, "prompt": ["a"] * 9}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 504
    assert "took longer than 2 seconds" in json.loads(answer.read())["error"]["message"]
    connection.close()
    impatient.wait_for(impatient.idle)


def test_clients_that_do_not_read_are_disconnected(impatient: ServerProcess) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(impatient.address)
        body = LONG | {"n": 8, "stream": True, "logprobs": 20, "max_tokens": 500}
        client.sendall(post("/v1/completions", body))
        impatient.wait_for(lambda: impatient.metric("gptkit_running_requests") > 0)
        impatient.wait_for(impatient.idle, 20)
    assert json.loads(impatient.get("/health")) == {"status": "ok"}
