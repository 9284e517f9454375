"""`gptkit serve`: errors before it starts, access control, shutdown, and the examples of the documentation."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gptkit.cli.main import app
from tests.support.server import ServerProcess

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
KEY = "a-secret-key"


def test_errors_before_the_start_name_the_remedy(runs: tuple[Path, Path], tmp_path: Path) -> None:
    plain, chat = runs
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "gptkit", "serve", str(plain), "--port", str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert f"error: cannot listen on 127.0.0.1 port {port}: Address already in use" in ended.stderr
    assert "--port 0 for any free one" in ended.stderr
    for arguments, expected in {
        (str(tmp_path / "none"),): "none",
        (str(plain), str(plain)): "two runs have the name 'plain'",
        (str(plain), str(chat), "--name", "one"): "2 runs, but 1 names",
        (str(plain), "--api-key", "two words"): "the API key must be ASCII characters without spaces",
        (str(plain), "--host", "no.such.host.invalid"): "the host 'no.such.host.invalid' is unknown",
        (str(plain), "--host", "203.0.113.7"): "cannot listen on 203.0.113.7",
        (str(plain), "--engine", "nativ"): "did you mean 'native'?",
        (str(plain), "--engine", "{name: native, prefill_chunk: 0}"): "prefill_chunk",
        (str(plain), "--sampler", "top-p=3"): "must be at most 1",
        (str(plain), "--max-batch", "0"): "--max-batch",
        (str(plain), "--timeout", "nan"): "--timeout",
    }.items():
        result = CliRunner().invoke(app, ["serve", *arguments, "--port", "0"], env={"COLUMNS": "200", "GPTKIT_DEBUG": ""})
        message = result.stderr
        assert result.exit_code == 2, (arguments, message)
        assert expected in " ".join(message.split()), (arguments, message)
        assert "Traceback" not in message


def request(
    server: ServerProcess, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    data = None if body is None else json.dumps(body)
    sent = {"Content-Type": "application/json", **(headers or {})}
    connection.request("GET" if body is None else "POST", path, data, sent)
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


def test_key_origin_and_name(runs: tuple[Path, Path], tmp_path: Path) -> None:
    origin = "https://example.org"
    options = ("--name", "my-model", "--cors-origin", origin)
    server = ServerProcess(runs[:1], tmp_path / "log", *options, environment={"GPTKIT_API_KEY": KEY})
    try:
        assert request(server, "/health")[0] == 200
        for path in ("/v1/models", "/metrics", "/v1/nothing"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}, {"Authorization": "Bearer é"}):
                status, answered, content = request(server, path, headers=headers)
                assert status == 401
                assert answered["www-authenticate"] == "Bearer"
                assert json.loads(content)["error"]["type"] == "authentication_error"
        known = {"Authorization": f"Bearer {KEY}"}
        status, _, content = request(server, "/v1/models", headers=known | {"Host": "any.name"})
        assert status == 200
        assert json.loads(content)["data"][0]["id"] == "my-model"
        body = {"prompt": "a secret prompt", "max_tokens": 3}
        status, answered, content = request(server, "/v1/completions", body, known | {"Origin": origin})
        assert status == 200
        assert answered["access-control-allow-origin"] == origin
        assert "access-control-allow-origin" not in request(server, "/health", headers={"Origin": "https://other.org"})[1]
        entry = server.access_entry(answered["x-request-id"])
        assert (entry["model"], entry["status"], entry["completion_tokens"]) == ("my-model", 200, 3)
        assert "secret" not in server.messages
        # A browser asks first, without the key.
        connection = http.client.HTTPConnection(*server.address, timeout=60)
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        connection.request("OPTIONS", "/v1/completions", headers={"Origin": origin, **asked})
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        assert server.stop() == 0


def test_pages_cannot_reach_a_server_without_a_key(server: ServerProcess) -> None:
    status, answered, content = request(server, "/v1/models", headers={"Host": "attacker.example"})
    assert status == 403
    assert "name of the server is not accepted" in content
    assert "access-control-allow-origin" not in answered
    for host in ("localhost:1", "127.0.0.1", "[::1]:80"):
        assert request(server, "/v1/models", headers={"Host": host})[0] == 200


def begin_stream(server: ServerProcess, results: list[str], **fields: Any) -> threading.Thread:
    """Start a long stream in a thread, which adds the whole answer to the results."""
    body = {"model": "plain", "prompt": "a", "max_tokens": 500, "ignore_eos": True, "stream": True, **fields}
    thread = threading.Thread(target=lambda: results.append(request(server, "/v1/completions", body)[2]))
    thread.start()
    server.wait_for(lambda: server.metric("gptkit_generated_tokens_total") > 3)
    return thread


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shutdown_lets_answers_finish(runs: tuple[Path, Path], tmp_path: Path, number: int) -> None:
    server = ServerProcess(runs[:1], tmp_path / "log")
    results: list[str] = []
    idle = socket.create_connection(server.address)
    thread = begin_stream(server, results)
    assert server.stop(number) == 0
    thread.join(120)
    idle.close()
    (answer,) = results
    assert answer.endswith("data: [DONE]\n\n")
    assert answer.count('"finish_reason":"length"') == 1
    assert "Traceback" not in server.messages


@pytest.mark.slow
def test_shutdown_fails_answers_after_the_grace_period(runs: tuple[Path, Path], tmp_path: Path) -> None:
    server = ServerProcess(runs[:1], tmp_path / "log", "--grace", "0", "--max-batch", "1")
    results: list[str] = []
    thread = begin_stream(server, results, n=8)
    assert server.stop() == 0
    thread.join(120)
    (answer,) = results
    last = json.loads(answer.strip().split("data: ")[-1])
    assert "shutting down" in last["error"]["message"]
    assert "Traceback" not in server.messages


@pytest.mark.slow
def test_warning_without_a_key_on_all_addresses(runs: tuple[Path, Path], tmp_path: Path) -> None:
    server = ServerProcess(runs[:1], tmp_path / "log", "--host", "0.0.0.0")
    try:
        assert "warning: everyone who reaches 0.0.0.0 can use the server" in server.messages
        assert request(server, "/v1/models", headers={"Host": "any.name"})[0] == 200
    finally:
        assert server.stop() == 0


FAULTY = """
from gptkit.engines.scheduled import Scheduled

step = Scheduled.step


def faulty(self):
    if any(state.request.prompt_ids[0] == ord("!") for state in self._reported):
        raise ZeroDivisionError("injected")
    return step(self)


Scheduled.step = faulty

from gptkit.cli.main import main

main()
"""
"""The command with an engine that raises while a prompt begins with an exclamation mark."""


@pytest.mark.slow
def test_engine_exception_is_status_500_and_the_server_continues(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FAULTY)
    server = ServerProcess(runs[:1], tmp_path / "log", program=(str(tmp_path / "program.py"),))
    try:
        good = {"prompt": "a", "max_tokens": 3, "temperature": 0}
        status, _, before = request(server, "/v1/completions", good)
        assert status == 200
        status, _, content = request(server, "/v1/completions", good | {"prompt": "!"})
        assert status == 500
        assert json.loads(content)["error"]["type"] == "server_error"
        status, _, after = request(server, "/v1/completions", good)
        assert status == 200
        assert json.loads(after)["choices"] == json.loads(before)["choices"]
        assert "ZeroDivisionError: injected" in server.messages
        assert server.metric("gptkit_requests_total", reason="failed") == 1
        assert server.idle()
    finally:
        assert server.stop() == 0


def test_examples_of_the_page(server: ServerProcess, runs: tuple[Path, Path], tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8").replace("http://127.0.0.1:8000", server.url)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    curl = re.search(r"```bash\n(curl .*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    assert curl
    names: dict[str, Any] = {}
    for block in blocks:
        if "messages=" in block:
            names["model"] = "chat"
        exec(block.replace('"runs/gpt"', repr(str(runs[0]))), names)
        names["model"] = "plain"
    if shutil.which("curl"):
        command = curl[1].replace('{"prompt"', '{"model": "plain", "prompt"')
        result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert json.loads(result.stdout)["object"] == "text_completion"
